"""The way of a build through the pool, as a person sees it.

What was asked for becomes a claim, a person sees why it waits, and what came of it is kept in the history.
"""

from __future__ import annotations

import sys
from contextlib import nullcontext

from ipclock._typing import TYPE_CHECKING
from ipclock.config.environment import held_slot, plain_terminal
from ipclock.config.settings import CapacityFile
from ipclock.console import say
from ipclock.display.waiting_line import WaitingLine
from ipclock.errors import Interrupted, SlotUnavailable, SupersededError
from ipclock.history import finished, recorder
from ipclock.i18n import _
from ipclock.pool.claim import Claim
from ipclock.pool.wait_context import DUE_S, WaitContext

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from ipclock.config.settings import Settings
    from ipclock.display.canvas import Canvas
    from ipclock.display.wait_status import WaitStatus
    from ipclock.linux.process import Identity
    from ipclock.pool.engine import Client
    from ipclock.pool.headroom import Headroom
    from ipclock.run.hooks import Hooks


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
        text = _("ipclock: warning: IPCLOCK_TICKET={ticket} holds no slot around this process; ignored")
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
        say(_("   inside the slot of ticket {ticket}").format(ticket=ticket))
    return True


def canvas() -> Canvas | None:
    """Return the terminal that lines about the wait can be drawn on; None where stderr is none."""
    if sys.stderr is None or not sys.stderr.isatty() or plain_terminal():
        return None
    from ipclock.display.canvas import Canvas

    return Canvas(sys.stderr.fileno())


def claim_for(
    label: str, settings: Settings, holder: Identity | None = None, holder_fd: int | None = None, *, supersede: bool
) -> Claim:
    """Return the claim that the settings ask for."""
    return Claim(
        label,
        holder,
        holder_fd,
        units=settings.build_slots,
        priority=settings.build_priority,
        limit=settings.max_per_label or 0,
        supersede=supersede,
        memory=_memory_for(label, settings),
    )


def _memory_for(label: str, settings: Settings) -> int:
    """Return how many bytes a build of this label is expected to need, 0 where that is not known."""
    if isinstance(settings.memory, int):
        return settings.memory
    known = None
    if settings.memory == "auto" and settings.history:
        known = finished.expected(settings.history, label)
    return (known and known.memory) or settings.min_free_memory or 0


def take_slot(
    pool: Client,
    claim: Claim,
    args: Namespace,
    settings: Settings,
    check: Callable[[], None],
    hooks: Hooks | None,
    canvas: Canvas | None,
) -> None:
    """Wait for a slot on behalf of a person, with the waiting line, until the claim holds one.

    *check* raises to stop waiting. A change of the capacity in the settings file is taken over meanwhile: in each
    section, so that no build is admitted by an older one, and at each tick. *hooks* run at the wait and at its end.
    """
    limit = settings.build_timeout
    block = not args.nonblock and limit > 0
    line = WaitingLine(quiet=args.quiet, interval=settings.progress_interval, canvas=canvas)
    resized = CapacityFile(settings if pool.heeds_us else None).changed
    headroom = None
    if settings.memory is not None or settings.min_free_memory is not None:
        headroom = pool.headroom(claim.memory)
        claim.ready = headroom.ready

    status = None

    def on_wait(ticket: int) -> None:
        if (capacity := resized()) is not None:
            pool.resize(capacity, context)
        nonlocal status
        if block and hooks:
            hooks.waiting(claim)
        if block and line.due():
            status = status or _wait_status(pool, claim, headroom, settings)
            line.waiting(status.view(ticket), context.waited, context.timeout)

    limits = limit if block else DUE_S
    context = WaitContext(limits, check, on_wait, line.stuck, _watching, line.pace, resized)
    try:
        pool.acquire(claim, context, block=block)
    except (SlotUnavailable, Interrupted, SupersededError) as error:
        line.given_up(label=claim.label) if isinstance(error, Interrupted) else line.clear()
        outcome = recorder.wait_ended(pool, claim, settings, error)
        if hooks and isinstance(error, SlotUnavailable):
            hooks.tell_of("timeout", claim, outcome)
        raise
    finally:
        line.clear()
    if args.verbose:
        line.details(claim.ticket, claim.slot, context.waited)
    line.acquired(claim.label, claim.held, pool.capacity)
    if headroom and headroom.alone and not args.quiet:
        _warn_of_memory(headroom)
    if hooks:
        hooks.tell_of("acquire", claim)


def _watching(find: Callable[[], list[list[int]]]) -> AbstractContextManager[bool]:
    builds = find()
    if not builds:
        return nullcontext(True)
    from ipclock.linux.exit_watcher import ExitWatcher  # few have to wait

    return ExitWatcher(builds)


def _wait_status(pool: Client, claim: Claim, headroom: Headroom | None, settings: Settings) -> WaitStatus:
    from ipclock.display.estimates import Estimator  # few have to wait
    from ipclock.display.wait_status import WaitStatus

    return WaitStatus(pool, claim, headroom, Estimator(settings.history))


def _warn_of_memory(headroom: Headroom) -> None:
    from ipclock.display.formatting import gigabytes

    text = _("ipclock: warning: only {left} of {need} GB are free; the build starts because no other one runs")
    say(text.format(left=gigabytes(headroom.left), need=gigabytes(headroom.need)), at_once=True)
