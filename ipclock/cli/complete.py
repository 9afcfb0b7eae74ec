"""`ipclock complete KIND`: what the shells' completions offer, one a line. For them alone, so no help lists it."""

from __future__ import annotations

import sys
from argparse import REMAINDER, ArgumentParser
from typing import TYPE_CHECKING

from ipclock.cli import options
from ipclock.config.settings import load_settings
from ipclock.errors import N_, NoPoolError
from ipclock.history import queries
from ipclock.pool.snapshot import empty

if TYPE_CHECKING:
    from argparse import Namespace

    from ipclock.config.settings import Settings

SUMMARY = N_("list words for shell completion")
EXAMPLES = ("ipclock complete tickets release", "ipclock complete labels wrap")


def add_arguments(parser: ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("kind", choices=("tickets", "labels"))
    # any options of any command: they are looked through for what they say of the pool
    parser.add_argument("words", nargs=REMAINDER)


def run(args: Namespace, settings: Settings) -> int:
    """Print the tickets, each with its label behind a space, or the labels."""
    parser = ArgumentParser(add_help=False, allow_abbrev=False)
    options.add_pool_options(parser, create=True)
    given, _ = parser.parse_known_args(args.words)
    settings = load_settings({key.upper(): value for key, value in vars(given).items()})
    try:
        now = options.looker(settings)()
    except NoPoolError:
        now = empty(settings.pool_name, 1)
    if args.kind == "tickets":
        # of those that wait too for a command that is about them
        builds = [*now.holders, *(now.waiters if args.words[:1] in (["cancel"], ["logs"], ["wait"]) else ())]
        lines = [f"{build.ticket} {build.label}" for build in builds]
    else:
        known = set(queries.known_labels(settings.history) if settings.history else [])
        known.update(holder.label for holder in now.holders)
        known.update(waiter.label for waiter in now.waiters)
        lines = sorted(known)
    for line in filter(str.isprintable, lines):
        # as UTF-8 whatever the locale: the label comes back to us
        sys.stdout.buffer.write(line.encode() + b"\n")
    return 0
