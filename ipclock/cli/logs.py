"""`ipclock logs [TICKET | LABEL]`: the output of a build that runs or has ended."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from ipclock.bounded import LAST_TICKET, LAST_WORD, whole
from ipclock.cli import options
from ipclock.cli.following import Follower, leaving_at_signals, log_of, refuse_servers, write_out
from ipclock.errors import N_, NoLog
from ipclock.i18n import _
from ipclock.linux import clocks
from ipclock.pool.build_watch import PoolWatch
from ipclock.run import logs
from ipclock.run.log_reader import LogReader

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

    from ipclock.config.settings import Settings
    from ipclock.pool.build_watch import Build
    from ipclock.run.logs import Log

SUMMARY = N_("show the output of a build")
EXAMPLES = (
    "ipclock logs",
    "ipclock logs -f staging",
    "ipclock logs -n 20 17",
)


def add_arguments(parser: ArgumentParser) -> None:
    """Add the command's options."""
    parser.add_argument("-f", "--follow", action="store_true", help=_("show what comes, until the build has ended"))
    parser.add_argument(
        "-n",
        "--lines",
        metavar="LINES",
        type=options.number("--lines", LAST_WORD),
        help=_("begin with the last LINES lines (default: all)"),
    )
    options.add_color(parser)
    options.add_pool_options(parser)
    help_text = _("which build: the newest of a label (default: the newest of the pool)")
    parser.add_argument("build", metavar="TICKET|LABEL", nargs="?", help=help_text)


def run(args: Namespace, settings: Settings) -> int:
    """Write the log to stdout."""
    refuse_servers(settings, "logs")
    with leaving_at_signals():
        watch = PoolWatch(settings)
        log, build = _find(watch, settings, args.build)
        try:
            reader = LogReader(log.path, build.uid if build else None, watch.inotify if args.follow else None)
        except FileNotFoundError:  # pruned just now
            raise _no_log(settings, args.build) from None
        if args.lines is not None:
            reader.skip_to_last(args.lines)
        if args.follow and build:
            _follow(watch, build, settings, reader)
        while data := reader.read():
            write_out(data)
        return 0


def _follow(watch: PoolWatch, build: Build, settings: Settings, reader: LogReader) -> None:
    follower = Follower(watch, build, settings, reader)
    try:
        while not watch.is_over(build):
            watch.sleep([build], follower.show())
        follower.finish()
    finally:
        follower.clear()


def _find(watch: PoolWatch, settings: Settings, asked: str | None) -> tuple[Log, Build | None]:
    """Return the log that is asked for, and its build if that is there. Raises NoLog (2)."""
    builds = [(log, build) for build in watch.builds() if (log := log_of(build, settings.pool_name))]
    found: list[tuple[Log, Build | None]] = []
    ticket = None if asked is None else whole(asked, LAST_TICKET)
    if ticket is not None:
        found = [one for one in builds if one[1].ticket == ticket] or _kept(watch, settings, ticket)
    if asked is None or not found:
        of_label = [one for one in builds if asked in (None, one[1].label)]
        found = [*of_label, *((log, None) for log in _in_directory(settings, label=asked))]
    if not found:
        raise _no_log(settings, asked)
    log, _build = max(found, key=lambda one: (os.access(one[0].path, os.R_OK), one[0].begun, one[0].ticket))
    return log, next((build for other, build in builds if other.path == log.path), None)


def _kept(watch: PoolWatch, settings: Settings, ticket: int) -> list[tuple[Log, Build | None]]:
    """Return the log of a ticket whose build is not there, or keeps no log."""
    newest = next(iter(_in_directory(settings, ticket=ticket)), None)
    # tickets begin anew when the machine is started: then it is the log of another build
    if newest is None or (watch.has_drawn(ticket) and newest.begun < clocks.booted()) or watch.find(ticket):
        return []
    return [(newest, None)]


def _in_directory(settings: Settings, *, ticket: int | None = None, label: str | None = None) -> list[Log]:
    return logs.find(settings.log_dir, settings.pool_name, ticket=ticket, label=label) if settings.log_dir else []


def _no_log(settings: Settings, asked: str | None) -> NoLog:
    return NoLog(settings.pool_name if asked is None else asked, settings.log_dir or "LOG_DIR")
