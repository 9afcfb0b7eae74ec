"""`wrap --join`: a build that waits already is followed to its end, as if it were our own."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from ipclock.cli import endings
from ipclock.console import say
from ipclock.display.estimates import Estimator
from ipclock.display.wait_status import WaitStatus
from ipclock.display.waiting_line import WaitingLine
from ipclock.errors import SlotTimeout
from ipclock.i18n import _
from ipclock.pool.build_watch import PoolWatch

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Callable

    from ipclock.config.settings import Settings
    from ipclock.display.canvas import Canvas
    from ipclock.pool.claim import Claim

LOOK_S = 0.25  # from one look at our own signals to the next


def follow(
    claim: Claim, ticket: int, args: Namespace, settings: Settings, check: Callable[[], None], canvas: Canvas | None
) -> int:
    """Show how a build waits, and return what it ends with, -n for signal n.

    It waits on if our own time is up before it starts. Raises SlotTimeout (75), StatusUnknown (80) and what *check*
    raises.
    """
    if not args.quiet:
        text = _("ipclock: {label} waits already with this command (ticket {ticket}): following it")
        say(text.format(label=claim.label, ticket=ticket), at_once=True)
    watch = PoolWatch(settings)
    if (build := watch.find(ticket)) is None:  # over by now
        return endings.of_past(watch, settings, ticket)
    claim.entry = build.entry
    line = WaitingLine(quiet=args.quiet, interval=settings.progress_interval, canvas=canvas)
    status = WaitStatus(watch, claim, None, Estimator(settings.history))
    begun = time.monotonic()
    try:
        while not watch.is_over(build):
            check()
            waited = time.monotonic() - begun
            if build.is_admitted:
                line.clear()
            elif waited >= settings.build_timeout:
                raise SlotTimeout(settings.build_timeout)
            elif line.due():
                line.waiting(status.view(ticket), waited, settings.build_timeout)
            watch.sleep([build], LOOK_S)
        return endings.of_watched(build, settings, ticket) if build.ended is None else build.ended
    finally:
        line.clear()
        watch.close()
