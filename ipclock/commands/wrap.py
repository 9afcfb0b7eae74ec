"""`ipclock wrap LABEL -- COMMAND`: run a command in a slot."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from ipclock import commands, config, supervise
from ipclock.errors import N_
from ipclock.messages import _
from ipclock.pool import Claim

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

    from ipclock.config import Settings

SUMMARY = N_("run a command in a build slot")
USAGE = "%(prog)s [-w SEC | -n] [-E CODE] [-q | -v] LABEL -- COMMAND [ARG ...]"


def add_arguments(parser: ArgumentParser) -> None:
    """Add the command's options; what follows `--` never comes to the parser."""
    parser.usage = USAGE
    commands.add_wait_options(parser)
    commands.add_pool_options(parser)
    parser.add_argument("label", metavar="LABEL", help=_("what is built; shown to those who wait"))


def run(args: Namespace, settings: Settings) -> int:
    """Run the command and return its exit status; die of the signal that ended it."""
    label = config.checked_label(args.label)
    notices = supervise.Notices()
    pool = commands.open_pool(settings)
    if commands.is_nested(pool):
        return _end(supervise.run(args.command_line, config.inherited_environment(), notices))
    claim = Claim(label)
    commands.take_slot(pool, claim, args, settings, notices.check)

    def note(pid: int) -> None:
        with suppress(OSError):  # it is only for those who look: the build has started
            claim.write(command_pid=pid)

    try:
        status = supervise.run(
            args.command_line,
            config.build_environment(pool.name, label, claim.ticket, claim.slot),
            notices,
            keep_open=claim.fileno(),
            on_start=note,
            on_tick=lambda: pool.watch(claim),
        )
    finally:
        pool.release(claim)
    return _end(status)


def _end(status: int) -> int:
    if status < 0:
        supervise.die_of(-status)
    return status if status >= 0 else 128 - status
