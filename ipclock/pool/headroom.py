"""Whether there is memory for one more build: what is left, less what the running ones have still to grow.

Asked by the waiter at the gate only, once a second at most. Errs towards waiting, but never for ever: a build is always
admitted where no other one runs.
"""

from __future__ import annotations

import time

from ipclock._typing import TYPE_CHECKING
from ipclock.bounded import LAST_PID, LAST_WORD, whole_in
from ipclock.linux import memory
from ipclock.pool import policy

if TYPE_CHECKING:
    from collections.abc import Callable

    from ipclock.pool.record import Record

LOOK_DUE_S = 1.0
MOST_PRESSURE = 10.0  # percent of the last 10 s in which all processes waited for memory (PSI, "full avg10")


class Headroom:
    """The memory that a build needs (*need*, in bytes, 0 where that is not known) against what there is.

    `left` is what there was at the last look, `pressed` whether the machine was short of memory as it is. `alone`
    turns true when the build may go although it does not fit, because no other one runs. *running* returns the records
    of the builds that run.
    """

    def __init__(self, running: Callable[[], list[Record]], need: int) -> None:
        self.need = need
        self.left = 0
        self.pressed = False
        self.alone = False
        self._running = running
        self._looked_at = float("-inf")
        self._fits = True

    def ready(self) -> bool:
        """Return whether the build may start now."""
        if time.monotonic() - self._looked_at >= LOOK_DUE_S:
            self._look()
            self._looked_at = time.monotonic()
        return self._fits

    def _look(self) -> None:
        builds = self._running()
        self.left = memory.available() - sum(map(_still_to_grow, builds))
        self.pressed = (memory.pressure() or 0.0) > MOST_PRESSURE
        self.alone = not builds and self.left < self.need
        self._fits = policy.has_memory(self.left, self.need, alone=not builds, pressed=self.pressed)


def _still_to_grow(build: Record) -> int:
    """Return how much more a running build is expected to take; one that has not begun has all before it."""
    expected = whole_in(build.fields, "memory", LAST_WORD)
    if expected is None:
        return 0
    pid = whole_in(build.fields, "command_pid", LAST_PID)
    return policy.still_to_grow(expected, memory.of_tree(pid) if pid else 0)
