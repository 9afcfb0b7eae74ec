"""`ipclock doctor`: what is in order, what is not, and what to do about it."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from ipclock import commands, config, doctor, utf8
from ipclock.console import encodable
from ipclock.errors import N_, Unavailable, UnsafeHook, Unsupported
from ipclock.messages import _

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace
    from collections.abc import Iterator

    from ipclock.config import Settings
    from ipclock.doctor import Check

SUMMARY = N_("check the machine, the pool and the settings")
SCHEMA = 1


def add_arguments(parser: ArgumentParser) -> None:
    """Add the command's options."""
    parser.add_argument("--json", action="store_true", help=_("print JSON"))
    commands.add_pool_options(parser, place=True)


def run(args: Namespace, settings: Settings) -> int:
    """Print the checks on stdout; 69 if one is bad."""
    survey = config.survey(args.options)
    if settings.engine:
        error = Unsupported(settings.engine.partition("?")[0], "ipclock doctor")
        found = [doctor.failed("pool", error), *doctor.of_settings(survey)]
    else:
        found = doctor.examine(settings, survey)
    try:
        commands.hooks_for(settings)
    except UnsafeHook as error:
        found.append(doctor.failed("hooks", error))
    if args.json:
        import json

        rows = [check._asdict() for check in found]
        print(json.dumps({"schema": SCHEMA, "name": settings.pool_name, "checks": rows}, indent=2))
    else:
        for line in text_lines(found):
            print(encodable(line, sys.stdout) if sys.stdout else line)
    return Unavailable.status if any(check.level == doctor.BAD for check in found) else 0


def text_lines(found: list[Check]) -> Iterator[str]:
    """Yield the checks as lines for people: one each, and one below for what to do."""
    for check in found:
        yield f"{check.level:<4} {check.name}: {utf8.printable(check.finding)}"
        if check.remedy:
            yield f"   {utf8.printable(check.remedy)}"
