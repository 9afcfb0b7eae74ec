"""`ipclock reset [TICKET]`: take slots away by force."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ipclock import commands, snapshot
from ipclock.errors import N_
from ipclock.messages import _
from ipclock.patience import Patience
from ipclock.progress import Progress, pid_of, say

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

    from ipclock.config import Settings

SUMMARY = N_("force-unlock: take all slots back, or one")


def add_arguments(parser: ArgumentParser) -> None:
    """Add the command's options."""
    help_text = _("only the slot with this ticket (see status --json)")
    parser.add_argument("ticket", metavar="TICKET", nargs="?", type=commands.ticket, help=help_text)
    commands.add_pool_options(parser)


def run(args: Namespace, settings: Settings) -> int:
    """Take the slots back and say on stderr whose builds go on without one."""
    pool = commands.open_pool(settings, repair=True)
    holders = [holder for holder in snapshot.holders(pool.store) if args.ticket in (None, holder.ticket)]
    stuck = Progress(0, quiet=False, interval=1, terminal=False).stuck
    pool.reset(Patience(commands.MUTEX_PATIENCE_S, on_stuck=stuck), args.ticket)
    pool.close()
    for holder in holders:
        text = _("ipclock: {label} (PID: {pid}) lost its slot; it goes on running")
        say(text.format(label=holder.label, pid=pid_of(holder)))
    if args.ticket is None:
        say(_("✓ all locks have been released."))
    else:
        say(_("✓ the slot of ticket {ticket} has been released.").format(ticket=args.ticket))
    return 0
