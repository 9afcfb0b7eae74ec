"""`ipclock reset [TICKET]`: take slots away by force."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from ipclock.cli import options
from ipclock.cli.waiting import MutexWait
from ipclock.display.formatting import pid_of, unlisted
from ipclock.errors import N_, LocksLeft, NoTicket, TicketWaits, UsageError
from ipclock.history import recorder
from ipclock.i18n import _

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

    from ipclock.config.settings import Settings
    from ipclock.pool.claim import RemovedHolder
    from ipclock.pool.engine import Engine

SUMMARY = N_("release all slots by force, or one")
EXAMPLES = (
    "ipclock reset 17",
    "ipclock reset 17 --kill",
    "sudo ipclock reset",
)


def add_arguments(parser: ArgumentParser) -> None:
    """Add the command's options."""
    help_text = _("release only the slot of this ticket (see status)")
    options.add_ticket(parser, help_text)
    parser.add_argument(
        "--kill", action="store_true", help=_("also kill the processes: SIGTERM, then SIGKILL after 5 s")
    )
    options.add_quiet(parser)
    options.add_pool_options(parser)


def run(args: Namespace, settings: Settings) -> int:
    """Take the slots back and say on stderr whose builds go on without one."""
    pool = options.open_for_administrator(settings)
    context = MutexWait(options.MUTEX_PATIENCE_S, quiet=args.quiet)
    tell = options.teller(args)
    now = pool.snapshot()
    slots = {holder.within or holder.ticket for holder in now.holders if args.ticket in (None, holder.ticket)}
    if not slots and args.ticket in {waiter.ticket for waiter in now.waiters}:
        raise TicketWaits(args.ticket)
    # nested ones first: they need not be children of the build around them any more
    holders = [holder for holder in reversed(now.holders) if (holder.within or holder.ticket) in slots]
    # builds of a directory that was removed lose their slots with all others, not with one ticket's
    others = args.ticket is None and now.unlisted > 0
    evicted: list[RemovedHolder] = []
    if args.kill:
        # what was admitted since we looked is not ended, so it keeps its slot
        if args.ticket is not None and not holders:
            raise NoTicket(args.ticket)
        _refuse_suicide(pool, args.ticket)
        for holder in holders:
            pool.end(holder.ticket)
            # one by one: a build that is admitted meanwhile keeps its slot
            with suppress(NoTicket):
                recorder.holds_ended(pool, settings, pool.evict(context, holder.ticket, nested=False), "evicted")
            tell(_("ipclock: {label} (PID: {pid}) was killed").format(label=holder.label, pid=pid_of(holder)))
        left = pool.snapshot()
        if others and left.unlisted:
            raise LocksLeft(left.unlisted, left.unlisted_pids)
    else:
        # as the reset itself found them: another build may have been admitted since we looked
        evicted = pool.evict(context, args.ticket)
        for one in evicted:
            text = _("ipclock: {label} (PID: {pid}) lost its slot; the build keeps running")
            tell(text.format(label=one.shown, pid=one.pid))
        if others:
            tell(_("ipclock: {found}: ignored from now on; the builds keep running").format(found=unlisted(now)))
        recorder.holds_ended(pool, settings, evicted, "evicted")
    pool.close()
    if args.ticket is None and not (holders or evicted or others):
        tell(_("✓ no slot is held: nothing to release."))
    elif args.ticket is None:
        tell(_("✓ all locks have been released."))
    else:
        tell(_("✓ the slot of ticket {ticket} has been released.").format(ticket=args.ticket))
    return 0


def _refuse_suicide(pool: Engine, ticket: int | None) -> None:
    around = pool.around_us()
    if ticket in around or (ticket is None and around):
        raise UsageError(_("this command runs inside the build that it would kill"), "ipclock reset")
