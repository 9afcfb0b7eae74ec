"""`ipclock wait TICKET ...`: wait for the end of builds, and end as they do."""

from __future__ import annotations

import time
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

from ipclock.bounded import LAST_WORD
from ipclock.cli import endings, options
from ipclock.cli.following import Follower, leaving_at_signals, refuse_servers
from ipclock.config import values
from ipclock.config.settings import checked
from ipclock.console import say
from ipclock.display.formatting import span
from ipclock.errors import (
    N_,
    SlotUnavailable,
    StatusUnknown,
    UsageError,
)
from ipclock.i18n import _, told
from ipclock.pool.build_watch import PoolWatch
from ipclock.run import supervisor

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace
    from collections.abc import Callable, Mapping

    from ipclock.config.settings import Settings
    from ipclock.pool.build_watch import Build

SUMMARY = N_("wait until builds have ended, and exit as they did")
EXAMPLES = (
    "ipclock wait 17",
    "ipclock wait -w 10m -f 17",
    "ipclock wait --idle",
)
USAGE = "%(prog)s [-w SEC] [-f] [OPTION ...] TICKET ...\n%(prog)s [-w SEC] [OPTION ...] --idle"
NOT_OVER = SlotUnavailable.status


def add_arguments(parser: ArgumentParser) -> None:
    """Add the command's options."""
    parser.usage = USAGE
    help_text = _("give up after SEC seconds with exit status 75; it can be called again (default: no limit)")
    parser.add_argument("-w", "--wait", "--timeout", dest="seconds", metavar="SEC", help=help_text)
    parser.add_argument("-f", "--follow", action="store_true", help=_("show the build's log meanwhile"))
    parser.add_argument("--idle", action="store_true", help=_("wait until no build runs or waits"))
    options.add_color(parser)
    options.add_pool_options(parser)
    parser.add_argument(
        "tickets",
        metavar="TICKET",
        nargs="*",
        type=options.number("TICKET", LAST_WORD),
        help=_("what wrap --detach and acquire have printed"),
    )


def run(args: Namespace, settings: Settings) -> int:
    """Wait; return 0, or the first status of a build that is not 0, or 75 if one is not over in time."""
    refuse_servers(settings, "wait")
    if args.idle == bool(args.tickets):
        raise UsageError(_("either tickets or --idle"), "ipclock wait")
    if args.follow and len(args.tickets) != 1:
        raise UsageError(_("-f follows one build"), "ipclock wait")
    seconds = float("inf") if args.seconds is None else checked(values.seconds, args.seconds, "--wait")
    until = time.monotonic() + seconds
    with leaving_at_signals():
        if args.idle:
            options.require_pool(settings)
        watch = PoolWatch(settings)
        around = watch.around_us()
        if around and (args.idle or set(around).intersection(args.tickets)):
            raise UsageError(_("this command runs inside the build that it would wait for"), "ipclock wait")
        if args.idle:
            return _until_idle(watch, until)
        return _Wait(watch, settings, list(dict.fromkeys(args.tickets)), until).run(follow=args.follow)


def _until_idle(watch: PoolWatch, until: float) -> int:
    build = None
    while not watch.is_idle:
        build = build or watch.living()
        left = until - time.monotonic()
        if left <= 0:
            now = watch.snapshot()
            text = _("ipclock: {running} running, {waiting} waiting; 'ipclock wait --idle' may be called again")
            say(text.format(running=len(now.outermost), waiting=len(now.waiters)))
            return NOT_OVER
        watch.sleep([build] if build else [], left)
        if build and watch.is_over(build):
            build.close()
            build = None
    return 0


class _Wait:
    """The wait for the ends of some builds, until a time (time.monotonic)."""

    def __init__(self, watch: PoolWatch, settings: Settings, tickets: list[int], until: float) -> None:
        self._watch = watch
        self._settings = settings
        self._tickets = tickets
        self._until = until

    def run(self, *, follow: bool) -> int:
        """Wait, and return what to exit with."""
        found = {ticket: self._watch.find(ticket) for ticket in self._tickets}
        ends = {
            ticket: _end(partial(endings.of_past, self._watch, self._settings, ticket))
            for ticket, build in found.items()
            if build is None
        }
        left = {ticket: build for ticket, build in found.items() if build}
        follower = next((Follower(self._watch, build, self._settings) for build in left.values() if follow), None)
        try:
            over = self._wait(left, ends, follower)
        finally:
            if follower:
                follower.clear()
        if not over:
            for ticket, build in left.items():
                say(self._standing(ticket, build))
            return NOT_OVER
        return self._status(ends)

    def _wait(self, left: dict[int, Build], ends: dict[int, int | StatusUnknown], follower: Follower | None) -> bool:
        """Move the builds from *left* to *ends* as they end; return whether all have in time."""
        while True:
            for ticket, build in list(left.items()):
                if self._watch.is_over(build):
                    with suppress(BrokenPipeError):
                        if follower:
                            follower.finish()
                    ends[ticket] = _end(partial(endings.of_watched, build, self._settings, ticket))
                    del left[ticket]
            if not left:
                return True
            pause = float("inf")
            try:
                pause = follower.show() if follower else pause
            except BrokenPipeError:  # the log has no reader any more, but the status is still wanted
                follower = None
            seconds = self._until - time.monotonic()
            if seconds <= 0:
                return False
            self._watch.sleep(left.values(), min(seconds, pause))

    def _standing(self, ticket: int, build: Build) -> str:
        text = _("ipclock: ticket {ticket} ({label}) {state}; 'ipclock wait {ticket}' may be called again")
        if build.is_admitted:
            state = _("has run for {span}").format(span=span(build.since("admitted")))
        else:
            place = self._watch.snapshot(waiters=0, own=build.ticket).own
            state = _("waiting at position {position} in queue").format(position=place.position if place else 1)
        return text.format(ticket=ticket, label=build.label, state=state)

    def _status(self, ends: Mapping[int, int | StatusUnknown]) -> int:
        """Return the status of the first one that has not ended well, in their order; die of its signal."""
        bad = [(ticket, ends[ticket]) for ticket in self._tickets if ends[ticket] != 0]
        if len(self._tickets) > 1:
            for ticket, end in bad[isinstance(bad[0][1], StatusUnknown) if bad else 0 :]:
                say(_told_of(ticket, end))
        first = bad[0][1] if bad else 0
        if isinstance(first, StatusUnknown):
            raise first
        if first < 0:
            supervisor.die_of(-first)
        return first if first >= 0 else 128 - first


def _end(result: Callable[[], int]) -> int | StatusUnknown:
    try:
        return result()
    except StatusUnknown as error:
        return error


def _told_of(ticket: int, end: int | StatusUnknown) -> str:
    if isinstance(end, StatusUnknown):
        return f"ipclock: {told(end)[0]}"
    texts = _("ipclock: ticket {ticket}: exit status {number}"), _("ipclock: ticket {ticket}: signal {number}")
    return texts[end < 0].format(ticket=ticket, number=abs(end))
