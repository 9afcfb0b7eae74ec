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


def _nothing(*_: object) -> None:
    pass


def _blind(_find: Callable[[], list[list[int]]]) -> AbstractContextManager[bool]:
    return nullcontext(False)


class WaitContext:
    """The time that a client has (`timeout`, in seconds from now on) and what it does between its sleeps.

    *check* is called often and may raise to make the client leave; *on_wait(ticket)* at every tick of a waiter, up
    to three times a second; *on_stuck(seconds, pid)* while another process keeps the pool's mutex. *watching(find)*
    ends a sleep early once all processes of one of the builds that *find* returns have ended, within its block, and
    tells whether it can. No sleep is longer than *pace* seconds. *resized()* is asked for each section: it returns how
    many slots the pool is to have from now on, None for no change.
    """

    def __init__(
        self,
        timeout: float,
        check: Callable[[], None] = _nothing,
        on_wait: Callable[[int], None] = _nothing,
        on_stuck: Callable[[float, int], None] = _nothing,
        watching: Callable[[Callable[[], list[list[int]]]], AbstractContextManager[bool]] = _blind,
        pace: float = float("inf"),
        resized: Callable[[], int | None] = _nothing,
    ) -> None:
        self._pace = pace
        self._resized = resized
        self.watching = watching
        self.timeout = timeout
        self._begun = time.monotonic()
        self._deadline = self._begun + timeout
        self._check = check
        self._on_wait = on_wait
        self._on_stuck = on_stuck

    @property
    def waited(self) -> float:
        """Seconds since the wait has begun."""
        return time.monotonic() - self._begun

    def chunk(self, limit: float) -> float:
        """Return how long to sleep now: *limit*, or what is left of the wait if that is less."""
        return min(limit, self._pace, max(0.0, self._deadline - time.monotonic()))

    def capacity(self, wanted: int | None) -> int | None:
        """Return how many slots the pool is to have, by what has been heard of it by now; else *wanted*."""
        resized = self._resized()
        return wanted if resized is None else resized

    def tick(self, ticket: int) -> None:
        """Do what a waiter does between two sleeps. Raises SlotTimeout (75) when the time is up."""
        self._check()
        if time.monotonic() >= self._deadline:
            raise SlotTimeout(self.timeout)
        self._on_wait(ticket)

    def stuck(self, path: str, seconds: float, pid: int) -> None:
        """Another process has had the mutex for so long. Raises MutexStuckError (75) when the time is up."""
        self._check()
        self._on_stuck(seconds, pid)
        # a section lasts well under a millisecond: even `-w 0` leaves it the time to end
        if seconds > MUTEX_GRACE_S and time.monotonic() >= self._deadline:
            raise MutexStuckError(path, pid)
