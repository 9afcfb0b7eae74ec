"""How long a client waits, and what it does meanwhile. One clock: time.monotonic()."""

from __future__ import annotations

import time
from contextlib import nullcontext

from ipclock._typing import TYPE_CHECKING
from ipclock.errors import MutexStuckError, SlotTimeout

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

MUTEX_GRACE_S = 1.0
DUE_S = 10.0  # how long a client that would not wait goes through the gate for a slot that is due to it


class WaitContext:
    """The time that a client has: `timeout`, in seconds from now on. No sleep is longer than `pace` seconds.

    *check* is called before each sleep and after it, and may raise to make the client leave. A client that does more
    than sleep overrides `waiting`, `mutex_held`, `watching` or `resized`.
    """

    pace = float("inf")

    def __init__(self, timeout: float, check: Callable[[], None] | None = None) -> None:
        self.timeout = timeout
        self._check = check or (lambda: None)
        self._begun = time.monotonic()
        self._deadline = self._begun + timeout

    @property
    def waited(self) -> float:
        """Seconds since the wait has begun."""
        return time.monotonic() - self._begun

    def arrived(self, ticket: int) -> None:
        """The client stands in line, with this ticket. Called once; may raise to make it leave."""

    def waiting(self, ticket: int) -> None:
        """The client still waits. Called at every tick, up to three times a second."""

    def mutex_held(self, seconds: float, pid: int) -> None:
        """Another process, `pid` (0: not known), has kept the pool's mutex for so long."""

    def watching(self, find: Callable[[], list[list[int]]]) -> AbstractContextManager[bool]:
        """Return a block in which a sleep ends once all processes of one of the builds that *find* returns have ended.

        It gives whether it can do that for all of them.
        """
        return nullcontext(False)

    def resized(self) -> int | None:
        """Return how many slots the pool is to have from now on, None for no change. Asked in each section."""
        return None

    def chunk(self, limit: float) -> float:
        """Return how long to sleep now: *limit*, or what is left of the wait if that is less."""
        return min(limit, self.pace, max(0.0, self._deadline - time.monotonic()))

    def capacity(self, wanted: int | None) -> int | None:
        """Return how many slots the pool is to have, by what has been heard of it by now; else *wanted*."""
        resized = self.resized()
        return wanted if resized is None else resized

    def tick(self, ticket: int) -> None:
        """Do what a waiter does between two sleeps. Raises SlotTimeout (75) when the time is up."""
        self._check()
        if time.monotonic() >= self._deadline:
            raise SlotTimeout(self.timeout)
        self.waiting(ticket)

    def stuck(self, path: str, seconds: float, pid: int) -> None:
        """Another process has had the mutex for so long. Raises MutexStuckError (75) when the time is up."""
        self._check()
        self.mutex_held(seconds, pid)
        # a section lasts well under a millisecond: even `-w 0` leaves it the time to end
        if seconds > MUTEX_GRACE_S and time.monotonic() >= self._deadline:
            raise MutexStuckError(path, pid)
