"""`ipclock log`: the builds that have ended, the newest first."""

from __future__ import annotations

import json
import os
import sys
from itertools import chain
from typing import TYPE_CHECKING

from ipclock.bounded import LAST_WORD
from ipclock.cli import options
from ipclock.config import values
from ipclock.config.settings import checked
from ipclock.display import build_list, pager, schema2
from ipclock.errors import N_, UsageError
from ipclock.history import queries
from ipclock.history.outcomes import FAILURES, OUTCOMES
from ipclock.history.queries import Which
from ipclock.i18n import _

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace
    from collections.abc import Iterator

    from ipclock.config.settings import Settings
    from ipclock.history.finished import Row

SUMMARY = N_("list the finished builds, the newest first")
EXAMPLES = (
    "ipclock log",
    "ipclock log --failed --since yesterday",
    "ipclock log -n 20 --label staging",
)


def add_arguments(parser: ArgumentParser) -> None:
    """Add the command's options."""
    parser.add_argument("--failed", action="store_true", help=_("show only builds that failed or were killed"))
    parser.add_argument("--label", metavar="LABEL", help=_("show only builds of this label"))
    parser.add_argument("--user", metavar="USER", help=_("show only builds of this user"))
    options.add_since(parser, all_by_default=True)
    parser.add_argument(
        "-n",
        "--max-count",
        metavar="N",
        type=options.number("--max-count", LAST_WORD),
        help=_("show only the last N builds (default: all)"),
    )
    parser.add_argument("--json", action="store_true", help=_("print JSON of schema 2"))
    parser.add_argument("--no-pager", action="store_true", help=_("do not use a pager on a terminal"))
    options.add_pool_options(parser)


def run(args: Namespace, settings: Settings) -> int:
    """Print the builds on stdout."""
    if settings.history is None:
        raise UsageError(_("no history is kept (HISTORY=off)"), "ipclock log")
    which = Which(
        begin=args.since or 0.0,
        label=None if args.label is None else checked(values.label, args.label, "--label"),
        user=args.user,
        outcomes=FAILURES if args.failed else OUTCOMES,
    )
    options.require_pool_or_past(settings)
    rows = queries.newest(settings.history, settings.pool_name, which, args.max_count)
    with pager.opened(wanted=not args.no_pager) as write:
        for line in _json(rows, settings.pool_name) if args.json else _text(rows):
            write(line)
    return 0


def _text(rows: Iterator[Row]) -> Iterator[str]:
    first = next(rows, None)
    if first is None:
        yield _("no such build in the history")
        return
    terminal = sys.stdout is not None and sys.stdout.isatty()
    width = os.get_terminal_size(sys.stdout.fileno()).columns if terminal else 0
    yield from build_list.lines(chain([first], rows), width or None)  # a terminal may not know its width


def _json(rows: Iterator[Row], pool: str) -> Iterator[str]:
    """Yield the builds as JSON, one a line: all of them need not be there before the first is written."""
    yield f'{{"schema": {schema2.SCHEMA}, "name": {json.dumps(pool)}, "builds": ['
    row = next(rows, None)
    while row:
        following = next(rows, None)
        yield json.dumps(schema2.build(row)) + ("," if following else "")
        row = following
    yield "]}"
