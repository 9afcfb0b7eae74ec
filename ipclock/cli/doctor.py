"""`ipclock doctor`: what is in order, what is not, and what to do about it."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

from ipclock import utf8
from ipclock.cli import checks, options
from ipclock.config.settings import survey_settings
from ipclock.console import encodable
from ipclock.errors import N_, UnavailableError, UnsafeHook, UnsupportedError
from ipclock.i18n import _

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace
    from collections.abc import Iterator

    from ipclock.cli.checks import Check
    from ipclock.config.settings import Settings

SUMMARY = N_("check the machine, the pool and the settings")
EXAMPLES = (
    "ipclock doctor",
    "ipclock doctor --all",
    "ipclock doctor --name /web",
)


def add_arguments(parser: ArgumentParser) -> None:
    """Add the command's options."""
    options.add_json(parser)
    parser.add_argument(
        "-v", "--verbose", "--all", action="store_true", help=_("also print the checks that are in order")
    )
    options.add_pool_options(parser, place=True)


def run(args: Namespace, settings: Settings) -> int:
    """Print the checks on stdout; 69 if one is bad."""
    survey = survey_settings(args.options)
    if settings.engine:
        error = UnsupportedError(settings.engine.partition("?")[0], "ipclock doctor")
        found = [checks.failed("pool", error), *checks.of_settings(survey)]
    else:
        found = checks.examine(settings, survey)
    try:
        options.hooks_for(settings)
    except UnsafeHook as error:
        found.append(checks.failed("hooks", error))
    if args.json:
        print(json.dumps(as_json(found, settings.pool_name, args.json), indent=2))
    else:
        for line in text_lines(found, whole=args.verbose):
            print(encodable(line, sys.stdout) if sys.stdout else line)
    return UnavailableError.status if any(check.level == checks.BAD for check in found) else 0


def as_json(found: list[Check], pool: str, schema: str) -> dict[str, Any]:
    """Return the checks as plain values; those of schema 2 have a `code` that is the same in every language."""
    rows: list[dict[str, Any]] = [
        {"name": check.name, "level": check.level, "finding": check.finding, "remedy": check.remedy} for check in found
    ]
    if schema == "2":
        rows = [
            {"name": check.name, "code": check.code, "level": check.level, "finding": check.finding}
            | {"remedy": check.remedy or None}
            for check in found
        ]
    return {"schema": int(schema), "name": pool, "checks": rows}


def text_lines(found: list[Check], *, whole: bool) -> Iterator[str]:
    """Yield the checks as lines for people: one each, and one below for what to do.

    But for the *whole*, those that are in order are only counted.
    """
    shown = [check for check in found if whole or check.level != checks.OK]
    for check in shown:
        yield f"{check.level:<4} {check.name}: {utf8.printable(check.finding)}"
        if check.remedy:
            yield f"   {utf8.printable(check.remedy)}"
    if len(shown) < len(found):
        text = _("✓ checks in order: {count} ('ipclock doctor --all' shows them)")
        yield text.format(count=len(found) - len(shown))
