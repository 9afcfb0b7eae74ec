"""What goes on beside a command that runs in a slot, and what is recorded at its end."""

from __future__ import annotations

import os
from contextlib import suppress

from ipclock._typing import TYPE_CHECKING
from ipclock.console import say
from ipclock.errors import N_, CommandFailed, IpclockError
from ipclock.history import finished, recorder
from ipclock.history.outcomes import OF_WAITS
from ipclock.i18n import _, sentence, told
from ipclock.linux import process
from ipclock.pool.cancellation import Cancellation
from ipclock.pool.protocol import status_of
from ipclock.run.supervisor import Ending
from ipclock.run.usage import UsageMeter
from ipclock.utf8 import printable

if TYPE_CHECKING:
    from collections.abc import Callable

    from ipclock.config.settings import Settings
    from ipclock.pool.claim import Claim
    from ipclock.pool.engine import Client
    from ipclock.run.caller import Caller
    from ipclock.run.hooks import Hooks
    from ipclock.zookeeper.lease_guard import LeaseGuard

LEFT_BEHIND = {
    "wait": N_("⏳ waiting for what the command has left running (PID: {pids})"),
    "kill": N_("ipclock: killing what the command has left running (PID: {pids})"),
    "stay": N_("ipclock: warning: cannot kill what the command has left running (PID: {pids})"),
}


class BuildRun:
    """One build, from its start to its end: its slot is looked after, and what it uses is measured.

    `nested` builds run in the slot of the build around them, which the hooks and the history tell of. The build ends
    with the *caller*, if it is bound to one. A failure beside
    the build is said, once, and never ends `wrap` before the build. Make it before there are threads.
    """

    def __init__(
        self,
        pool: Client,
        claim: Claim,
        settings: Settings,
        hooks: Hooks | None,
        *,
        quiet: bool,
        caller: Caller | None = None,
    ) -> None:
        self.nested = False
        self.used = UsageMeter()
        self._pool = pool
        self._claim = claim
        self._settings = settings
        self._hooks = hooks
        self._quiet = quiet
        self._caller = caller
        self._heeded: Cancellation | None = None
        self._said: set[str] = set()
        self._guard = None if pool.keeps_without_us else _guard(pool, claim, settings)

    @property
    def lost(self) -> bool:
        """Whether the build was ended because its slot was lost."""
        return self._guard is not None and self._guard.lost

    def begin(self, pid: int) -> None:
        """The command has started."""
        self._bear(self.used.begin, pid)
        if self._guard:
            self._bear(self._guard.begin, pid)
        self._bear(self._note, pid)

    def tick(self) -> Ending | None:
        """Look after the slot and take a sample of what the build uses; return whether it is to be ended."""
        self._bear(self._guard.tick if self._guard else self._watch)
        with suppress(OSError):  # it is only for the history
            self.used.tick()
            if self._settings.history and not self.nested:
                finished.prepare()
        if self._caller and self._caller.has_ended and not self._claim.cancelled:
            self._claim.cancelled = Cancellation(pid=self._caller.pid)
        return self._heed()

    def _heed(self) -> Ending | None:
        """Tell of a cancellation, once, and return how the build is to be ended for it."""
        cancelled = self._claim.cancelled
        if cancelled is None or cancelled == self._heeded:
            return None
        self._heeded = cancelled
        say(f"ipclock: {told(cancelled.error(self._claim.label))[0]}", at_once=True)
        besides: list[int] = []
        self._bear(lambda: besides.extend(self._pool.kept_by(self._claim.ticket)))
        return Ending(cancelled.grace, besides)

    def leave_behind(self, fate: str, pids: list[int]) -> None:
        """The command has ended and left processes running, whose *fate* is one of LEFT_BEHIND."""
        self._note(pids[0])
        if not self._quiet:
            say(_(LEFT_BEHIND[fate]).format(pids=", ".join(map(str, pids))), at_once=True)

    def fail(self, error: BaseException) -> None:
        """Give the slot back if the command has not started; a build that has goes on, and counts until it ends."""
        if self.used.pid:
            return
        claim = self._claim
        self._pool.release(claim, status_of(error))
        if self.nested:
            return
        if self._hooks:
            outcome = OF_WAITS.get(type(error), "failed")
            self._hooks.tell_of("release", claim, outcome, getattr(error, "status", None))
        if isinstance(error, CommandFailed):
            recorder.never_started(self._settings, claim.label, self._pool.capacity, error.status, claim.times)

    def finish(self, status: int) -> None:
        """The command has ended with this status, -n for signal n: give the slot back, and record the end."""
        if self._guard:
            self._bear(self._guard.end, status)
        self._bear(self._close_books, status)

    def _close_books(self, status: int) -> None:
        claim = self._claim
        starved = self.used.ran_out_of_memory(status)
        beside = self._beside() if starved else []
        claim.evicted = claim.evicted or self.lost
        self._pool.release(claim, status)
        self._heed()
        if starved:
            _blame_memory(self.used.pid, beside)
        if self.nested:
            return
        outcome = recorder.outcome_of(claim, status, starved=starved)
        memory, cpu_s = self.used.memory(), self.used.cpu_s()
        recorder.build_ended(self._pool, claim, self._settings, outcome, abs(status), memory=memory, cpu_s=cpu_s)
        if self._hooks:
            self._hooks.tell_of("release", claim, outcome, abs(status))

    def _bear(self, deed: Callable[..., object], *arguments: object) -> None:
        try:
            deed(*arguments)
        except Exception as error:
            problem = sentence(error) if isinstance(error, IpclockError) else str(error)
            if problem not in self._said:
                self._said.add(problem)
                say(_("ipclock: warning: {problem}").format(problem=printable(problem)), at_once=True)

    def _watch(self) -> None:
        self._pool.watch(self._claim)

    def _note(self, pid: int) -> None:
        with suppress(OSError):  # it is only for display: the build has started
            self._pool.note(self._claim, command_pid=pid, command_start=process.start_of(pid))

    def _beside(self) -> list[str]:
        holders = self._pool.snapshot(waiters=0).holders
        return [holder.label for holder in holders if holder.ticket != self._claim.ticket]


def _guard(pool: Client, claim: Claim, settings: Settings) -> LeaseGuard:
    from ipclock.zookeeper.lease_guard import LeaseGuard  # no pool of one machine needs it
    from ipclock.zookeeper.watchdog import Watchdog

    watchdog = Watchdog() if settings.on_lost == "kill" else None
    return LeaseGuard(pool, claim, settings, lambda: process.descendants_of(os.getpid()), watchdog)


def _blame_memory(pid: int, beside: list[str]) -> None:
    text = _("ipclock: the kernel killed the build (PID: {pid}): out of memory").format(pid=pid)
    if beside:
        text += "; " + _("also running: {labels}").format(labels=", ".join(beside))
    say(text, at_once=True)
