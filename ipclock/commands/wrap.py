"""`ipclock wrap LABEL -- COMMAND`: run a command in a slot."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ipclock import commands, config, progress, snapshot, supervise
from ipclock.errors import N_, UsageError
from ipclock.messages import _

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

    from ipclock.config import Settings
    from ipclock.pool import Pool

SUMMARY = N_("run a command in a build slot")
USAGE = "%(prog)s [-w SEC | -n] [-E CODE] [-q] LABEL -- COMMAND [ARG ...]"


def add_arguments(parser: ArgumentParser) -> None:
    """Add the command's options; what follows `--` never comes to the parser."""
    parser.usage = USAGE
    commands.add_wait_options(parser)
    commands.add_pool_options(parser)
    parser.add_argument("label", metavar="LABEL", help=_("what is built; shown to those who wait"))


def run(args: Namespace, settings: Settings) -> int:
    """Run the command and return its exit status; die of the signal that ended it."""
    if not args.command_line:
        raise UsageError(_("no command: put it behind ' -- '"), "ipclock wrap")
    label = config.checked_label(args.label)
    notices = supervise.Notices()
    pool = commands.open_pool(settings)
    if _is_nested(pool):
        return _end(supervise.run(args.command_line, config.inherited_environment(), notices))
    claim = commands.take_slot(pool, label, args, settings, notices.check)
    try:
        status = supervise.run(
            args.command_line,
            config.build_environment(pool.name, label, claim.ticket, claim.slot),
            notices,
            keep_open=claim.fileno(),
            on_start=lambda pid: claim.write(command_pid=pid),
            on_tick=lambda: pool.watch(claim),
        )
    finally:
        pool.release(claim)
    return _end(status)


def _is_nested(pool: Pool) -> bool:
    """Return whether a build around us holds a slot of this pool: waiting for another could wait for ever."""
    held = config.held_slot()
    if held is None or held[0] != pool.name:
        return False
    if snapshot.encloses_us(pool.store, held[1]):
        return True
    progress.say(
        _("ipclock: warning: IPCLOCK_TICKET={ticket} holds no slot around this process; ignored").format(
            ticket=ascii(held[1])
        )
    )
    return False


def _end(status: int) -> int:
    if status < 0:
        supervise.die_of(-status)
    return status if status >= 0 else 128 - status
