"""Keeps a slot for a script on an engine whose slots need a living process: a process of its own beside the script.

It is the one that waits for the slot, so that no session has to change hands. It ends with the script, whose end it
sees by a pidfd, and when the slot is released or lost.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from ipclock.history import recorder
from ipclock.linux import polling, process
from ipclock.run.background import Background
from ipclock.zookeeper.lease_guard import LeaseGuard

if TYPE_CHECKING:
    from ipclock.config.settings import Settings
    from ipclock.linux.process import Identity
    from ipclock.pool.claim import Claim
    from ipclock.pool.engine import Client


class HolderProcess(Background):
    """The process that keeps the slot: forked before the engine connects, since threads do not fork."""

    def keep(self, pool: Client, claim: Claim, settings: Settings, script: Identity) -> int:
        """Let the script go on, and keep the slot until its end."""
        try:
            ended = os.pidfd_open(script.pid)
        except OSError:
            ended = -1
        # Ctrl-C is the script's, and `$(ipclock acquire ...)` waits for the end of its pipe
        self.let_go()
        os.chdir("/")  # no mount is kept busy
        guard = LeaseGuard(pool, claim, settings, lambda: [script.pid] if process.exists(script) else [])
        # the identity once more, now that the descriptor is there: the PID may be another process's by now
        while ended >= 0 and process.exists(script) and not (claim.evicted or guard.lost):
            if polling.readable([ended], pool.tick_s):
                break
            guard.tick()
            self._signals.check()
        pool.release(claim)
        recorder.slot_ended(pool, claim, settings, "evicted" if guard.lost else "done")
        return 0
