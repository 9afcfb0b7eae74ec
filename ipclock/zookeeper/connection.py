"""kazoo's connection to a server, which leaves one that stays silent while the session has time for another.

kazoo alone waits for the session's whole time for the first word of a server that took us in (one that starts, or
hangs), and leaves one that it is connected to after two thirds of that time, when the build is ended. Guarantees that
a first word is waited for DIAL_S at most, or a twelfth of the session, and any later answer for a third of it.

It overrides methods that kazoo keeps to itself; tests/unit/zookeeper/test_connection.py fails where they have changed.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from kazoo.exceptions import ConnectionDropped
from kazoo.handlers.threading import SequentialThreadingHandler
from kazoo.protocol.connection import ConnectionHandler

if TYPE_CHECKING:
    from collections.abc import Callable

    from kazoo.client import KazooClient

DIAL_S = 2.0  # to one server: one that swallows our packets must not cost the time that the others would need
DIALS = 12  # in a session's time, so that a short one has time for a second server too


class Handler(SequentialThreadingHandler):  # type: ignore[misc]  # kazoo has no types
    """kazoo's threads and sockets. A server has `dial_s` seconds to take us in."""

    dial_s = DIAL_S

    def create_connection(self, *address: Any, timeout: float, **options: Any) -> Any:
        """Connect, in less than the whole time of the session."""
        return super().create_connection(*address, timeout=min(timeout, self.dial_s), **options)


class Connection(ConnectionHandler):  # type: ignore[misc]  # kazoo has no types
    """The connection of a client that has a `Handler`; *granted* gets the session's time in seconds."""

    def __init__(self, client: KazooClient, granted: Callable[[float], None]) -> None:
        super().__init__(client, client._conn_retry.copy(), logger=client.logger)
        self._granted = granted
        self._owes_since: float | None = None
        self._patience_s = 0.0

    def _connect(self, *server: Any) -> tuple[float, float]:
        self._owes_since = None
        read_ms, write_ms = super()._connect(*server)
        # the servers clamp what was asked for, and kazoo does not say so
        session_s = read_ms * 1.5 / 1000
        self.handler.dial_s = min(DIAL_S, session_s / DIALS)
        self._patience_s = session_s / 3
        self._granted(session_s)
        # kazoo pings after half of the first, and leaves after all of it
        return read_ms / 2, min(write_ms, read_ms / 2)

    def _invoke(self, timeout: float, *request: Any, **options: Any) -> Any:
        return super()._invoke(min(timeout, self.handler.dial_s), *request, **options)

    def _read_socket(self, read_timeout: float) -> Any:
        self._owes_since = None
        return super()._read_socket(read_timeout)

    def _send_request(self, read_timeout: float, connect_timeout: float) -> None:
        self._leave_if_silent()
        super()._send_request(read_timeout, connect_timeout)

    def _send_ping(self, connect_timeout: float) -> None:
        self._leave_if_silent()
        super()._send_ping(connect_timeout)

    def _leave_if_silent(self) -> None:
        # each request puts the ping off: a waiter, which asks once a second, would stay for ever
        now = time.monotonic()
        self._owes_since = self._owes_since or now
        if now - self._owes_since > self._patience_s:
            raise ConnectionDropped("it owes an answer")
