"""A session with ZooKeeper servers: requests with an end, and what may be believed of the session.

Guarantees that no call outlasts ANSWER_S, connected or not: one that is not answered by then raises Cut, and the
server may still do what was asked. The caller asks again and looks what is there. Does not know of pools.
"""

from __future__ import annotations

import logging
import signal
import socket
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple

from kazoo.client import KazooClient
from kazoo.exceptions import (
    AuthFailedError,
    BadVersionError,
    KazooException,
    NoAuthError,
    NodeExistsError,
    NoNodeError,
    RolledBackError,
    RuntimeInconsistency,
)
from kazoo.handlers.threading import KazooTimeoutError
from kazoo.protocol.states import KazooState
from kazoo.retry import KazooRetry
from kazoo.security import make_digest_acl

from ipclock.errors import N_, EngineFailed, PoolPermissionError
from ipclock.zookeeper.connection import DIALS, Connection, Handler

if TYPE_CHECKING:
    from ipclock.config.engine_url import Address

ANSWER_S = 3.0  # a request that is not answered by then counts as not heard
CONNECT_S = 6.0  # how long the first connection may take, to any of the servers
CLOSE_S = 2.0


class Cut(Exception):
    """No answer came: the session may live or not, and what was asked may have been done or not."""


class NodeStat(NamedTuple):
    """What the servers say of a node: its version, the zxid that made it, its session, and when it was last written."""

    version: int
    czxid: int
    owner: int
    modified: float


class Session:
    """One connection to any of the servers, kept up by itself. `wake` is set by watches and by every change of it."""

    def __init__(self, address: Address) -> None:
        self.wake = threading.Event()
        self.timeout = 0.0  # the session's, in seconds, as the servers grant it
        self.limit = ANSWER_S  # how long a request may take now
        self.since = 0.0  # when it was made, in seconds of the epoch
        self._where = str(address)
        self._known = 0
        log = logging.getLogger("ipclock.kazoo")
        log.propagate = False
        log.addHandler(logging.NullHandler())
        handler = Handler()
        # kazoo's own way back waits longer and longer: after an outage of 40 s it came too late for its session
        pause_s = min(1.0, address.session_s / DIALS)
        retry = KazooRetry(max_tries=-1, delay=0.1, backoff=2, max_delay=pause_s, sleep_func=handler.sleep_func)
        self._client = KazooClient(
            hosts=address.hosts,
            timeout=address.session_s,
            handler=handler,
            logger=log,
            connection_retry=retry,
            auth_data=[("digest", address.auth)] if address.auth else None,
            default_acl=[make_digest_acl(*address.auth.split(":", 1), all=True)] if address.auth else None,
            use_ssl=address.ca is not None,
            ca=address.ca,
            certfile=address.cert,
            keyfile=address.key,
            check_hostname=address.ca is not None,
        )
        self._client._connection = Connection(self._client, self._note_timeout)
        self._client.add_listener(self._changed)

    def _note_timeout(self, seconds: float) -> None:
        self.timeout = seconds

    def open(self) -> None:
        """Connect. Raises EngineFailed (69) after CONNECT_S seconds in vain, PoolPermissionError (77)."""
        # its threads inherit our mask: a signal that one of them took would never reach the build
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        try:
            live = self._client.start_async()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        live.wait(CONNECT_S)
        if not self.connected:
            reason = N_("no ZooKeeper server responds")
            if self._client.client_state == "AUTH_FAILED":
                reason = N_("authentication failed")
            self.close()
            raise EngineFailed(self._where, reason)

    def close(self, patience_s: float = CLOSE_S) -> None:
        """End the session, and with it all that it holds; where no server answers it ends by its own timeout."""

        def stop() -> None:
            with suppress(Exception):  # at the very end, whatever it is that kazoo did not finish
                self._client.stop()
                self._client.close()

        # it would wait for as long as the session lasts
        stopping = threading.Thread(target=stop, daemon=True)
        stopping.start()
        stopping.join(patience_s)

    def _changed(self, state: str) -> None:
        if state == KazooState.CONNECTED and self.id != self._known:
            self._known, self.since = self.id, time.time()
        self.wake.set()

    @property
    def connected(self) -> bool:
        """Whether a server is there now, as far as we know."""
        return bool(self._client.connected)

    @property
    def id(self) -> int:
        """The session's number; another one than before means that all that was held is gone."""
        return self._client._session_id or 0

    def get(self, path: str, *, watch: bool = False) -> tuple[bytes, NodeStat] | None:
        """Return a node's data; None where there is none."""
        found = self._ask("get", path, watch=self._woken if watch else None)
        return None if found is None else (found[0], _stat(found[1]))

    def exists(self, path: str, *, watch: bool = False) -> NodeStat | None:
        """Return what is known of a node; None where there is none. A watch wakes at its change and its end."""
        found = self._ask("exists", path, watch=self._woken if watch else None)
        return None if found is None else _stat(found)

    def children(self, path: str, *, watch: bool = False) -> list[str]:
        """Return the names of the nodes in a node; none where there is none."""
        return self._ask("get_children", path, watch=self._woken if watch else None) or []

    def make(self, path: str, data: bytes = b"") -> bool:
        """Make a node that stays, and those above it; return whether it was made now."""
        return self._ask("create", path, data, makepath=True) is not None

    def stand(self, prefix: str, data: bytes) -> None:
        """Make a node that lasts as long as the session; its name is the prefix and a number that only grows."""
        self._ask("create", prefix, data, ephemeral=True, sequence=True)

    def put(self, path: str, data: bytes, version: int) -> bool:
        """Write a node; return whether it was still of that version."""
        return self._ask("set", path, data, version) is not None

    def remove(self, path: str) -> bool:
        """Remove a node; return whether it was there."""
        return self._ask("delete", path) is not None

    def turn_into(self, old: str, new: str, data: bytes, unchanged: tuple[str, int]) -> bool:
        """Remove a node and make another that lasts as long as the session, both at once.

        Only if the first one is there and the node *unchanged* is of that version; return whether it was so.
        """
        transaction = self._client.transaction()
        transaction.check(*unchanged)
        transaction.delete(old)
        transaction.create(new, data, ephemeral=True)
        results = self._wait(transaction.commit_async())
        refused = [result for result in results if isinstance(result, Exception)]
        if any(isinstance(result, NoAuthError) for result in refused):
            raise PoolPermissionError(self._where, N_("access denied by the ZooKeeper servers"))
        unforeseen = (NoNodeError, BadVersionError, NodeExistsError, RolledBackError, RuntimeInconsistency)
        if not all(isinstance(result, unforeseen) for result in refused):
            raise Cut
        return not refused

    def beat(self, path: str, data: bytes) -> Beat:
        """Begin to write a node of ours, as a proof that the session lives; does not wait for it."""
        return Beat(time.monotonic(), self._client.set_async(path, data))

    def _woken(self, _event: object) -> None:
        self.wake.set()

    def _ask(self, what: str, *arguments: Any, **options: Any) -> Any:
        try:
            return self._wait(getattr(self._client, f"{what}_async")(*arguments, **options))
        except (NoNodeError, NodeExistsError, BadVersionError):
            return None

    def _wait(self, answer: Any) -> Any:
        if not self.connected:  # kazoo would keep it until a server is there again
            raise Cut
        try:
            return answer.get(timeout=max(0.0, min(self.limit, ANSWER_S)))
        except (NoNodeError, NodeExistsError, BadVersionError):
            raise
        except (NoAuthError, AuthFailedError):
            raise PoolPermissionError(self._where, N_("access denied by the ZooKeeper servers")) from None
        except (KazooException, KazooTimeoutError):
            raise Cut from None


class Beat:
    """A write under way since `begun` (time.monotonic).

    A write, because it goes through the leader, which ends sessions: a server that is cut off from it still answers
    pings and reads for a while.
    """

    def __init__(self, begun: float, answer: Any) -> None:
        self.begun = begun
        self._answer = answer

    def outcome(self) -> bool | None:
        """Return whether the node was written, False where there is none; None while that is not known.

        Raises Cut.
        """
        if not self._answer.ready():
            return None
        if self._answer.successful():
            return True
        if isinstance(self._answer.exception, NoNodeError):
            return False
        raise Cut


def host_name() -> str:
    """Return this machine's name, for others to know it by."""
    return socket.gethostname()


def _stat(found: Any) -> NodeStat:
    return NodeStat(found.version, found.czxid, found.ephemeralOwner, found.mtime / 1000)
