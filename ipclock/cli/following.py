"""What `logs -f` and `wait -f` show of a build: on a terminal its waiting line until it starts, then its log."""

from __future__ import annotations

import os
import signal
from contextlib import contextmanager, suppress

from ipclock._typing import TYPE_CHECKING
from ipclock.cli import waiting
from ipclock.display.waiting_line import WaitingLine
from ipclock.errors import Interrupted, UnsupportedError
from ipclock.linux import polling
from ipclock.run import supervisor
from ipclock.run.log_reader import LogReader
from ipclock.run.logs import Log

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType
    from typing import NoReturn

    from ipclock.config.settings import Settings
    from ipclock.display.wait_status import WaitStatus
    from ipclock.pool.build_watch import Build, PoolWatch

WRITER_S = 1.0  # how long the process that writes the log may take for its last words
BLIND_S = 0.5  # from one look at a log to the next where inotify cannot be had


def refuse_servers(settings: Settings, what: str) -> None:
    """Raise UnsupportedError (69) for a pool of several hosts."""
    if settings.engine:
        raise UnsupportedError(settings.engine.partition("?")[0], what)


@contextmanager
def leaving_at_signals() -> Iterator[None]:
    """Raise Interrupted in the block where a signal asks us to leave, so that the terminal is left clean.

    After it a signal ends us as before: one that came while an error is told would otherwise show a traceback. No build
    gets it.
    """

    def leave(number: int, _frame: FrameType | None) -> NoReturn:
        raise Interrupted(number)

    heeded = [number for number in supervisor.ENDING if signal.getsignal(number) != signal.SIG_IGN]
    before = {number: signal.signal(number, leave) for number in heeded}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def write_out(data: bytes) -> None:
    """Write to stdout, as it is. Raises BrokenPipeError once it has no reader any more."""
    while data:
        data = data[os.write(1, data) :]


def log_of(build: Build, pool: str) -> Log | None:
    """Return the log that the record of a build names; None where it names none that is this build's."""
    found = Log.parse(*os.path.split(build.log))
    known = found and os.path.isabs(found.path) and found.pool == pool.removeprefix("/")
    return found if known else None


class Follower:
    """Shows a build until its end. The log is opened when there is one, unless *reader* has it open."""

    def __init__(self, watch: PoolWatch, build: Build, settings: Settings, reader: LogReader | None = None) -> None:
        self._watch = watch
        self._build = build
        self._settings = settings
        self._reader = reader
        self._writer = -1
        canvas = waiting.canvas()
        self._line = WaitingLine(quiet=canvas is None, interval=settings.progress_interval, canvas=canvas)
        self._status: WaitStatus | None = None

    def show(self) -> float:
        """Show what there is now; return the seconds after which it is to be called again if nothing happens."""
        if self._build.is_admitted:
            self._line.clear()
        elif self._line.due():
            self._status = self._status or self._new_status()
            view = self._status.view(self._build.ticket)
            self._line.waiting(view, self._build.since("arrived"), self._build.timeout_s or float("inf"))
        self._show_log()
        blind = self._reader is not None and self._watch.inotify is None
        return min(float("inf") if self._build.is_admitted else self._line.pace, BLIND_S if blind else float("inf"))

    def _show_log(self) -> None:
        if self._reader is None and (log := log_of(self._build, self._settings.pool_name)):
            with suppress(FileNotFoundError):
                self._reader = LogReader(log.path, self._build.uid, self._watch.inotify)
        if self._writer < 0 and (pid := self._build.log_writer):
            with suppress(OSError):
                self._writer = os.pidfd_open(pid)
        while self._reader and (data := self._reader.read()):
            self._line.clear()
            write_out(data)

    def finish(self) -> None:
        """Show what is left when the build is over."""
        self._line.clear()
        self._show_log()
        if self._writer >= 0:
            polling.readable([self._writer], WRITER_S)
            self._show_log()

    def clear(self) -> None:
        """Leave the terminal clean."""
        self._line.clear()

    def _new_status(self) -> WaitStatus:
        from ipclock.display.estimates import Estimator
        from ipclock.display.wait_status import WaitStatus
        from ipclock.pool.claim import Claim

        claim = Claim(self._build.label)
        claim.entry = self._build.entry
        return WaitStatus(self._watch, claim, None, Estimator(self._settings.history))
