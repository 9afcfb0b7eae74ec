"""The way of `wrap` and `acquire` to a slot, as a person sees it: the slot around them, or the wait and its line."""

from __future__ import annotations

import sys
from contextlib import nullcontext

from ipclock import acquisition
from ipclock._typing import TYPE_CHECKING
from ipclock.acquisition import BuildWait
from ipclock.config.environment import held_slot, plain_terminal
from ipclock.console import say
from ipclock.display.waiting_line import WaitingLine
from ipclock.errors import CancelledError, Interrupted
from ipclock.i18n import _
from ipclock.pool.wait_context import DUE_S, WaitContext

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from ipclock.config.settings import Settings
    from ipclock.display.canvas import Canvas
    from ipclock.display.wait_status import WaitStatus
    from ipclock.errors import IpclockError
    from ipclock.linux.process import Identity
    from ipclock.pool.claim import Claim
    from ipclock.pool.engine import Client
    from ipclock.pool.headroom import Headroom
    from ipclock.run.hooks import Hooks


class MutexWait(WaitContext):
    """The time of a command that needs the pool's mutex; it says which process keeps that for long."""

    def __init__(self, timeout: float, *, quiet: bool = False) -> None:
        super().__init__(timeout)
        self._line = WaitingLine(quiet=quiet, interval=1)

    def mutex_held(self, seconds: float, pid: int) -> None:
        """Show that another process keeps the pool's mutex."""
        self._line.stuck(seconds, pid)


def slot_around_us(pool: Client, holder: Identity | None = None) -> int | None:
    """Return the ticket of the build that this process runs inside of: to wait for another slot would be for ever.

    None where there is no such build in this pool. The processes say so, and the environment which one is meant where
    there are several. One that *holder* has itself taken counts only if the environment names it: a script may hold
    two slots.
    """
    held = held_slot()
    if held is None and not pool.keeps_without_us:
        return None  # not worth a question to the servers at each build
    around = pool.around_us()
    if held and held[0] in ("", pool.name):
        if held[1] in map(str, around):
            return int(held[1])
        text = _("ipclock: warning: IPCLOCK_TICKET={ticket} ignored: this process does not run in that slot")
        say(text.format(ticket=ascii(held[1])))
    if around and holder:
        around = pool.around_us(holder)
    return max(around, default=None)


def join(
    pool: Client, claim: Claim, args: Namespace, check: Callable[[], None], holder: Identity | None = None
) -> bool:
    """Hold a part of the slot of the build around us, at once; return whether there is such a build."""
    ticket = slot_around_us(pool, holder)
    if ticket is None or not pool.join(claim, WaitContext(DUE_S, check), ticket):
        return False
    if args.verbose:
        say(_("   nested in the slot of ticket {ticket}").format(ticket=ticket))
    return True


def canvas() -> Canvas | None:
    """Return the terminal that lines about the wait can be drawn on; None where stderr is none."""
    if sys.stderr is None or not sys.stderr.isatty() or plain_terminal():
        return None
    from ipclock.display.canvas import Canvas

    return Canvas(sys.stderr.fileno())


class ShownWait(BuildWait):
    """A build's wait as a person sees it: with the waiting line, and the hooks that run meanwhile.

    *check* raises to stop it.
    """

    def __init__(
        self,
        pool: Client,
        claim: Claim,
        args: Namespace,
        settings: Settings,
        check: Callable[[], None],
        hooks: Hooks | None,
        canvas: Canvas | None,
    ) -> None:
        super().__init__(pool, claim, settings, check, block=not args.nonblock)
        self.line = WaitingLine(quiet=args.quiet, interval=settings.progress_interval, canvas=canvas)
        self.pace = self.line.pace
        self._claim = claim
        self._args = args
        self._settings = settings
        self._hooks = hooks
        self._status: WaitStatus | None = None

    def take_slot(self) -> None:
        """Wait until the claim holds a slot, or *check* raises."""
        try:
            acquisition.acquire(self._pool, self._claim, self._settings, self, self._hooks)
        finally:
            self.line.clear()

    def waiting(self, ticket: int) -> None:
        """Run the hook of the wait, once, and bring the waiting line up to date."""
        super().waiting(ticket)
        if self.block and self._hooks:
            self._hooks.waiting(self._claim)
        if self.block and self.line.due():
            self._status = self._status or self._new_status()
            self.line.waiting(self._status.view(ticket), self.waited, self.timeout)

    def mutex_held(self, seconds: float, pid: int) -> None:
        """Show that another process keeps the pool's mutex."""
        self.line.stuck(seconds, pid)

    def watching(self, find: Callable[[], list[list[int]]]) -> AbstractContextManager[bool]:
        """Watch the processes of the builds by their pidfds."""
        builds = find()
        if not builds:
            return nullcontext(True)
        from ipclock.linux.exit_watcher import ExitWatcher  # few have to wait

        return ExitWatcher(builds)

    def refused(self, error: IpclockError) -> None:
        """Leave the terminal clean for the error."""
        if isinstance(error, Interrupted) and not isinstance(error, CancelledError):
            self.line.given_up(label=self._claim.label)
        self.line.clear()

    def admitted(self) -> None:
        """Show that the build starts."""
        self.line.clear()
        if self._args.verbose:
            self.line.details(self._claim.ticket, self._claim.slot, self.waited)
        self.line.acquired(self._claim.label, self._claim.held, self._pool.capacity)
        if self.headroom and self.headroom.alone and not self._args.quiet:
            _warn_of_memory(self.headroom)

    def _new_status(self) -> WaitStatus:
        from ipclock.display.estimates import Estimator  # few have to wait
        from ipclock.display.wait_status import WaitStatus

        return WaitStatus(self._pool, self._claim, self.headroom, Estimator(self._settings.history))


def _warn_of_memory(headroom: Headroom) -> None:
    from ipclock.display.formatting import gigabytes

    text = _("ipclock: warning: only {left} of {need} GB are free; the build starts because no other build is running")
    say(text.format(left=gigabytes(headroom.left), need=gigabytes(headroom.need)), at_once=True)
