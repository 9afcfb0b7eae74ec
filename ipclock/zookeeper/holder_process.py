"""Keeps a slot for a script on an engine whose slots need a living process: a process of its own beside the script.

It is the one that waits for the slot, so that no session has to change hands. It ends with the script, whose end it
sees by a pidfd, and when the slot is released or lost.
"""

from __future__ import annotations

import os
import select
from typing import TYPE_CHECKING

from ipclock.errors import Interrupted
from ipclock.history import recorder
from ipclock.linux import process, terminal
from ipclock.run import supervisor
from ipclock.zookeeper.lease_guard import LeaseGuard

if TYPE_CHECKING:
    from ipclock.config.settings import Settings
    from ipclock.linux.process import Identity
    from ipclock.pool.claim import Claim
    from ipclock.pool.engine import Client
    from ipclock.run.supervisor import PendingSignals

POLL_S = 0.2


class HolderProcess:
    """The process that keeps the slot, made by a fork: before the engine connects, since threads do not fork.

    `status` is None in the keeper itself. In the process that forks, which returns to the script, it is what to exit
    with: 0 once the keeper has the slot, else what the keeper ended with.
    """

    def __init__(self, signals: PendingSignals) -> None:
        self._notices = signals
        reading, self._writing = os.pipe()
        pid = os.fork()
        self.status = None
        if pid:
            os.close(self._writing)
            self.status = self._wait_for(pid, reading)
        else:
            os.close(reading)

    def _wait_for(self, pid: int, reading: int) -> int:
        asked = False
        while not select.select([reading], [], [], POLL_S)[0]:
            try:
                self._notices.check()
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

    def keep(self, pool: Client, claim: Claim, settings: Settings, script: Identity) -> int:
        """Let the script go on, and keep the slot until its end."""
        try:
            ended = os.pidfd_open(script.pid)
        except OSError:
            ended = -1
        self._leave_the_terminal()
        guard = LeaseGuard(pool, claim, settings, lambda: [script.pid] if process.exists(script) else [])
        # the identity once more, now that the descriptor is there: the PID may be another process's by now
        while ended >= 0 and process.exists(script) and not (claim.evicted or guard.lost):
            if select.select([ended], [], [], pool.tick_s)[0]:
                break
            guard.tick()
            self._notices.check()
        pool.release(claim)
        outcome = "evicted" if guard.lost else "done"
        recorder.slot_ended(pool, claim, settings, outcome)
        return 0

    def _leave_the_terminal(self) -> None:
        os.write(self._writing, b"k")
        os.close(self._writing)
        terminal.leave()  # Ctrl-C is the script's, and `$(ipclock acquire ...)` waits for the end of its pipe
