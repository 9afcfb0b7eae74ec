"""Ends processes with all that they have started: asks by SIGTERM, and insists by SIGKILL."""

from __future__ import annotations

import signal
import time
from contextlib import suppress

from ipclock._typing import TYPE_CHECKING
from ipclock.linux import process

if TYPE_CHECKING:
    from collections.abc import Callable

GRACE_S = 5.0  # from SIGTERM to SIGKILL, and from there until a process counts as one that cannot be ended
POLL_S = 0.05


class Termination:
    """The end of the processes that *find* returns, with all their descendants, and of whatever it returns then.

    They are asked by SIGTERM, at first the *supervisor* alone where there is one, who passes it on. Without, those that
    come later are asked only once *leader* is gone: what it starts to clean up is not to be ended. Those who are still
    there *grace_s* seconds later get SIGKILL. Goes on by `step`, which never blocks.
    """

    def __init__(
        self,
        find: Callable[[], list[int]],
        supervisor: int | None = None,
        *,
        leader: int | None = None,
        grace_s: float = GRACE_S,
    ) -> None:
        # in order, parents first: a shell whose child ends before it is asked goes on to its next command
        self._known: dict[process.Identity, None] = {}
        self._asked: set[process.Identity] = set()
        self._refused: set[process.Identity] = set()
        self._find = find
        self._supervisor = supervisor
        self._leader = leader
        self._kill_at = time.monotonic() + grace_s
        self.left: list[int] = []

    def within(self, grace_s: float) -> None:
        """Let SIGKILL come in so many seconds from now, if it was to come later."""
        self._kill_at = min(self._kill_at, time.monotonic() + grace_s)

    def step(self) -> bool:
        """Ask or kill what is due by now; return whether it is to be called again.

        After the last one `left` has the PIDs of those that could not be ended: not permitted, or in an uninterruptible
        sleep.
        """
        first = not self._known
        for pid in self._find():
            for member in (pid, *process.descendants_of(pid)):
                with suppress(OSError):  # gone meanwhile
                    self._known.setdefault(process.identify(member))
        alive = [one for one in self._known if one not in self._refused and process.exists(one)]
        late = time.monotonic() - self._kill_at
        if not alive or late > GRACE_S:
            self.left = sorted(one.pid for one in {*alive, *self._refused})
            return False
        pids = {one.pid for one in alive}
        only = self._supervisor if self._supervisor in pids else None
        later = first or self._leader not in pids
        for one in alive:
            try:
                if late > 0:
                    process.send(one, signal.SIGKILL)
                elif one not in self._asked and only in (None, one.pid) and later:
                    self._asked.add(one)
                    process.send(one, signal.SIGTERM)
                    process.send(one, signal.SIGCONT)  # a stopped one would not heed it
            except PermissionError:
                self._refused.add(one)
        return True


def end(find: Callable[[], list[int]], supervisor: int | None = None, *, grace_s: float = GRACE_S) -> list[int]:
    """End the processes that *find* returns, as `Termination` does; return the PIDs of those that could not be."""
    ending = Termination(find, supervisor, grace_s=grace_s)
    while ending.step():
        time.sleep(POLL_S)  # not pidfds: what a process of these starts meanwhile is to be found too
    return ending.left
