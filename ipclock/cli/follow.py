"""`wrap --join`: a build that waits already is followed to its end, as if it were our own."""

from __future__ import annotations

import os
import select
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from ipclock.console import say
from ipclock.display.estimates import Estimator
from ipclock.display.wait_status import WaitStatus
from ipclock.display.waiting_line import WaitingLine
from ipclock.errors import SlotTimeout, StatusUnknown
from ipclock.i18n import _
from ipclock.linux import process

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Callable

    from ipclock.config.settings import Settings
    from ipclock.display.canvas import Canvas
    from ipclock.pool.alike import AlreadyWaits
    from ipclock.pool.claim import Claim
    from ipclock.pool.engine import Client

LOOK_S = 1.0


def follow(
    pool: Client,
    claim: Claim,
    other: AlreadyWaits,
    args: Namespace,
    settings: Settings,
    check: Callable[[], None],
    canvas: Canvas | None,
) -> int:
    """Show how a build waits, and return what it ends with, -n for signal n.

    It waits on if our own time is up before it starts. Raises SlotTimeout (75), StatusUnknown (80) and what *check*
    raises.
    """
    if not args.quiet:
        text = _("ipclock: {label} waits already with this command (ticket {ticket}): following it")
        say(text.format(label=claim.label, ticket=other.entry.ticket), at_once=True)
    claim.entry = other.entry
    line = WaitingLine(quiet=args.quiet, interval=settings.progress_interval, canvas=canvas)
    status = WaitStatus(pool, claim, None, Estimator(settings.history))
    begun = time.monotonic()
    watch = select.poll()
    client = other.client
    if client and process.exists(client):  # else it has just ended, or is of another PID namespace
        with suppress(OSError):
            watch.register(os.pidfd_open(client.pid), select.POLLIN)
    try:
        while True:
            # the beacon, then the record: a client writes its status down before the beacon goes out
            alive = other.lives
            if (ended := other.ended) is not None:
                return ended
            if not alive:
                raise StatusUnknown(claim.label, other.entry.ticket)
            check()
            waited = time.monotonic() - begun
            waits = not pool.holds(other.entry.ticket)
            if waits and waited >= settings.build_timeout:
                raise SlotTimeout(settings.build_timeout)
            if waits and line.due():
                line.waiting(status.view(other.entry.ticket), waited, settings.build_timeout)
            elif not waits:
                line.clear()
            for fd, _event in watch.poll(1000 * LOOK_S):
                watch.unregister(fd)  # its client has ended; what it has left running may still be the build
    finally:
        line.clear()
