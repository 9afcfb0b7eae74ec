"""A process of ours that goes on when the one that a person or a script has started returns."""

from __future__ import annotations

import os
from contextlib import suppress

from ipclock._typing import TYPE_CHECKING
from ipclock.errors import Interrupted
from ipclock.linux import polling, terminal
from ipclock.run import supervisor

if TYPE_CHECKING:
    from ipclock.run.supervisor import PendingSignals

POLL_S = 0.2


class Background:
    """A fork, made before there are threads. What goes on is the child, where `status` is None.

    The parent waits in here until the child calls `let_go`, and has the status to return with: 0, or what the child
    has ended with before that. A signal that asks the parent to leave is passed on to the child.
    """

    def __init__(self, signals: PendingSignals) -> None:
        self._signals = signals
        self._starter = os.getpid()
        reading, self._writing = os.pipe()
        pid = os.fork()
        self.status = None
        if pid:
            os.close(self._writing)
            self.status = self._wait_for(pid, reading)
        else:
            os.close(reading)

    @property
    def is_awaited(self) -> bool:
        """Whether the parent still waits, and so can tell its caller of a failure."""
        return os.getppid() == self._starter

    def let_go(self, out: int | None = None) -> None:
        """Let the parent return 0, and leave its session; *out* takes the place of both output streams."""
        with suppress(BrokenPipeError):  # it was killed just now: what it has told its caller holds
            os.write(self._writing, b"k")
        os.close(self._writing)
        terminal.leave(out)

    def _wait_for(self, pid: int, reading: int) -> int:
        asked = False
        while not polling.readable([reading], POLL_S):
            try:
                self._signals.check()
            except Interrupted as interrupted:
                if not asked:
                    os.kill(pid, interrupted.signum)
                asked = True
        if os.read(reading, 1):
            return 0
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        if status < 0:
            supervisor.die_of(-status)
        return status
