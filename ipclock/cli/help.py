"""`ipclock help [COMMAND]`: the same as `--help`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ipclock.cli import command_line, mistakes
from ipclock.cli.parser import commands_of
from ipclock.errors import N_
from ipclock.i18n import _

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

    from ipclock.config.settings import Settings

SUMMARY = N_("show the help of a command")
EXAMPLES = ("ipclock help", "ipclock help wrap")


def add_arguments(parser: ArgumentParser) -> None:
    """Add the command's argument."""
    parser.add_argument("topic", metavar="COMMAND", nargs="?", help=_("the command (default: show all commands)"))


def run(args: Namespace, settings: Settings) -> int:
    """Print the help on stdout."""
    if args.topic is None:
        command_line.get_parser().print_help()
    elif args.topic in command_line.COMMANDS:
        commands_of(command_line.get_parser(args.topic))[args.topic].print_help()
    else:
        raise mistakes.command(args.topic)
    return 0
