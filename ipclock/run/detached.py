"""A build that outlives the command line that has asked for it (`wrap --detach`): its supervisor, and its log."""

from __future__ import annotations

import os
import signal
from contextlib import suppress

from ipclock._typing import TYPE_CHECKING
from ipclock.errors import Interrupted, PoolCreateError
from ipclock.linux import process
from ipclock.run import logs
from ipclock.run.background import Background
from ipclock.run.log_writer import LogWriter

if TYPE_CHECKING:
    from ipclock.config.settings import Settings
    from ipclock.linux.process import Identity
    from ipclock.pool.claim import Claim
    from ipclock.pool.engine import Client
    from ipclock.run.supervisor import PendingSignals


class Detached(Background):
    """The supervisor of such a build, a process of its own from before it stands in line.

    A ticket that was printed is one of a build that stands in line, and the other way round: a build whose ticket could
    not be printed, or whose caller is gone by then, leaves the line.
    """

    def __init__(self, signals: PendingSignals, settings: Settings) -> None:
        logs.directory_of(settings)
        # before the fork: our parent afterwards is the one that returns at once
        self.caller: Identity | None = None
        with suppress(OSError):
            self.caller = process.identify(os.getppid())
        self._settings = settings
        super().__init__(signals)

    def arrived(self, pool: Client, claim: Claim, apart: set[int]) -> None:
        """The claim stands in line: keep its output from now on, print its ticket, and go on alone.

        *apart* gets the session of a process that is none of the build's. Raises LogFailed and PoolCreateError (73),
        and Interrupted.
        """
        fd, path = logs.begin(self._settings, claim)
        writer = LogWriter(fd, path, self._settings.log_limit)
        apart.add(writer.pid)
        pool.note(claim, detached=1, log=path, log_writer=writer.pid)
        if not self.is_awaited:
            raise Interrupted(signal.SIGHUP)
        try:
            print(claim.ticket, flush=True)
        except OSError as error:
            raise PoolCreateError("stdout", error.strerror or str(error)) from None
        self.let_go(writer.pipe)
        os.close(writer.pipe)
