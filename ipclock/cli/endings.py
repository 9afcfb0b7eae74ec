"""How a build has ended, by what is left of it: its record's last word, else the history, else its log.

A status is an exit status, or -n for signal n. Guarantees that none is another build's, which had the same ticket
before the machine was started anew.
"""

from __future__ import annotations

import signal
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from ipclock.cli import options
from ipclock.console import say
from ipclock.errors import N_, HistoryFailed, NoTicket, SlotUnavailable, StatusUnknown, SupersededError
from ipclock.history import queries
from ipclock.i18n import _
from ipclock.linux import clocks
from ipclock.run import logs

if TYPE_CHECKING:
    from ipclock.config.settings import Settings
    from ipclock.history.finished import Row
    from ipclock.pool.build_watch import Build, PoolWatch
    from ipclock.run.logs import Log

KILLED = N_("its ipclock was killed")
NO_SLOT = N_("it got no slot in the time allowed")
NO_COMMAND = N_("no command was started in its slot by ipclock")
LEFT = N_("it has left the line")
REBOOT = N_("it was lost when the machine was started anew")
NOT_KEPT = N_("its status was not kept")
CLOCK_S = 1.0  # by which two notes of one moment may differ
WRITTEN_S = 3.0  # from the end of a record to the row, which is the last that a supervisor writes
AGAIN_S = 0.1
HIGHEST = 255


def of_watched(build: Build, settings: Settings, ticket: int) -> int:
    """Return the status of a build that has ended while we watched. Raises StatusUnknown (80)."""
    status = build.ended
    if status is None:
        row = _newest_row(settings, build.ticket)
        if row and build.arrived is not None and abs(row.arrived - build.arrived) < CLOCK_S:
            return _of_row(row)
        if build.record.names_beacon:  # carried over by root, or written again: its client's word may stand elsewhere
            raise StatusUnknown(ticket, NOT_KEPT)
        raise StatusUnknown(ticket, KILLED if build.has_command or not build.is_admitted else NO_COMMAND)
    if status == SlotUnavailable.status:
        if not build.is_admitted:
            raise StatusUnknown(ticket, NO_SLOT)
        text = _("ipclock: ticket {ticket}: the build's own exit status is {status}")
        say(text.format(ticket=ticket, status=status))
    return status


def of_past(watch: PoolWatch, settings: Settings, ticket: int) -> int:
    """Return the status of a build that is not there. Raises StatusUnknown (80), NoTicket (2), NoPoolError (69)."""
    log, drawn = _newest_log(settings, ticket), watch.has_drawn(ticket)
    if row := _row_of_the_last(settings, ticket, log, seconds=WRITTEN_S if drawn else 0.0):
        return _of_row(row)
    if log and not drawn:
        raise StatusUnknown(ticket, REBOOT if log.begun < clocks.booted() else NOT_KEPT)
    if drawn:
        raise StatusUnknown(ticket, NOT_KEPT)
    options.require_pool(settings)
    raise NoTicket(ticket)


def _row_of_the_last(settings: Settings, ticket: int, log: Log | None, *, seconds: float) -> Row | None:
    """Return the row of the build that had the ticket last. One that has just ended has it within so many seconds."""
    until = time.monotonic() + seconds
    while True:
        row = _newest_row(settings, ticket)
        if row and _is_of_the_last(row, log):
            return row
        if settings.history is None or time.monotonic() >= until:
            return None
        time.sleep(AGAIN_S)  # nothing else is left of it by which its supervisor could be watched


def _newest_row(settings: Settings, ticket: int) -> Row | None:
    with suppress(HistoryFailed):
        return queries.last(settings.history, settings.pool_name, ticket) if settings.history else None
    return None


def _newest_log(settings: Settings, ticket: int) -> Log | None:
    found = logs.find(settings.log_dir, settings.pool_name, ticket=ticket) if settings.log_dir else []
    return found[0] if found else None


def _is_of_the_last(row: Row, log: Log | None) -> bool:
    """Return whether the newest row of a ticket is of the build that had it last, whose log the newest one is.

    Tickets begin anew when the machine is started. A build that was lost then has no row, but an older one may have.
    """
    if log and log.begun > row.ended + CLOCK_S:
        return False
    return row.arrived >= clocks.booted() or (log is not None and log.begun >= row.arrived - CLOCK_S)


def _of_row(row: Row) -> int:
    if row.outcome == "superseded":
        return SupersededError.status
    reasons = {"timeout": NO_SLOT, "busy": NO_SLOT, "orphaned": KILLED}
    if row.outcome in reasons or row.admitted is None:
        raise StatusUnknown(row.ticket, reasons.get(row.outcome, LEFT))
    if row.code is None or row.code > HIGHEST:
        raise StatusUnknown(row.ticket, NO_COMMAND)
    # of an evicted one the row does not say which of both it is: these two are what `reset --kill` sends
    killed = row.outcome == "evicted" and row.code in (signal.SIGTERM, signal.SIGKILL)
    return -row.code if killed or row.outcome in ("signal", "oom") else row.code
