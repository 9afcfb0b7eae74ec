"""What becomes of waits and holds, written into the history: after the slot was given back, and never at its expense.

A client that clears a dead holder away, or releases or evicts one without a supervisor, writes for it.
"""

from __future__ import annotations

import os
import time

from ipclock import utf8
from ipclock._typing import TYPE_CHECKING
from ipclock.console import say
from ipclock.errors import HistoryFailed, IpclockError
from ipclock.history import finished
from ipclock.history.outcomes import OF_WAITS
from ipclock.i18n import _, sentence
from ipclock.linux import clocks, process
from ipclock.pool.cancellation import BY

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from ipclock.config.settings import Settings
    from ipclock.history.finished import Row
    from ipclock.pool.claim import Claim, RemovedHolder
    from ipclock.pool.engine import Engine
    from ipclock.pool.record_name import RecordName

MAX_LABEL = 255


def outcome_of(claim: Claim, status: int, *, starved: bool) -> str:
    """Return what the history calls a build that came to this status, -n for signal n. *starved*: of memory."""
    if claim.cancelled:
        return "cancelled"
    if starved:
        return "oom"
    return "evicted" if claim.evicted else "signal" if status < 0 else "failed" if status else "done"


def build_ended(
    pool: Engine, claim: Claim, settings: Settings, outcome: str, code: int, *, memory: int | None, cpu_s: float
) -> None:
    """Keep a build that ended so, with this exit status or signal."""
    row = _row(pool, claim.label, claim.entry, claim.times, os.getuid(), outcome)
    _write(settings, [row and row._replace(code=code, memory=memory, cpu_s=cpu_s)], pool)


def wait_ended(
    pool: Engine, claim: Claim, settings: Settings, error: IpclockError, tell: Callable[[str], None] | None = None
) -> str | None:
    """Keep a wait that ended without a slot; return its outcome, None for one that never got into the line.

    *tell* is the way of another program to warn, as for `slot_ended`.
    """
    outcome = OF_WAITS.get(type(error))
    if outcome:
        _write(settings, [_row(pool, claim.label, claim.entry, claim.times, os.getuid(), outcome)], pool, tell)
    return outcome


def never_started(settings: Settings, label: str, capacity: int, code: int, times: Mapping[str, str] = {}) -> None:
    """Keep a build whose command could not be started: before its wait, or after one with these stamps of its claim."""
    now, uid = time.time(), os.getuid()
    waited_s = float(times["admitted_mono"]) - float(times["arrived_mono"]) if times else 0.0
    row = finished.Row(
        label=label,
        uid=uid,
        user=utf8.printable(process.user_name(uid)),
        ticket=0,
        pool=settings.pool_name,
        arrived=now - waited_s,
        waited_s=waited_s,
        admitted=None,
        held_s=None,
        ended=now,
        outcome="failed",
        code=code,
        slots=settings.build_slots,
        capacity=capacity,
    )
    _write(settings, [row])


def slot_ended(
    pool: Engine, claim: Claim, settings: Settings, outcome: str, tell: Callable[[str], None] | None = None
) -> None:
    """Keep a hold that we end ourselves; *tell* is the way of another program to warn."""
    _write(settings, [_row(pool, claim.label, claim.entry, claim.times, os.getuid(), outcome)], pool, tell)


def holds_ended(pool: Engine, settings: Settings, holders: Iterable[RemovedHolder] = (), outcome: str = "done") -> None:
    """Keep the holds of those that have no supervisor who would; with none, only what the pool has found dead."""
    _write(settings, [_of_ended(pool, one, outcome) for one in holders if not one.supervised], pool)


def _end_of(dead: RemovedHolder) -> str:
    return "cancelled" if BY in dead.times else "orphaned"


def _of_ended(pool: Engine, one: RemovedHolder, outcome: str) -> Row | None:
    # a part of a hold that has a row of its own; or a ticket that no database can hold
    if one.entry.within or one.entry.ticket >= 1 << 63:
        return None
    try:
        # as it may be printed, and no longer than a label: what no database takes would cost the other rows too
        return _row(pool, one.shown[:MAX_LABEL], one.entry, one.times, one.uid, outcome)
    except (ValueError, KeyError):  # another user has written in it
        return None


def _row(pool: Engine, label: str, entry: RecordName, times: Mapping[str, str], uid: int, outcome: str) -> Row | None:
    """Return the row of one that ends now; *times* are the stamps of a claim, or of a record."""
    if "arrived" not in times:
        return None
    try:
        capacity = pool.capacity
    except IpclockError:  # a row less, rather than a command that fails once all is done
        return None
    ended, now = time.time(), clocks.monotonic()
    admitted = _number(times["admitted"]) if "admitted" in times else None
    begun = now if admitted is None else _number(times["admitted_mono"])
    return finished.Row(
        label=label,
        uid=uid,
        user=utf8.printable(process.user_name(uid)),
        ticket=entry.ticket,
        pool=utf8.text_of(pool.name),
        arrived=_number(times["arrived"]),
        waited_s=round(max(0.0, begun - _number(times["arrived_mono"])), 3),
        admitted=admitted,
        held_s=None if admitted is None else round(max(0.0, now - begun), 3),
        ended=ended,
        outcome=outcome,
        code=None,
        slots=entry.units,
        capacity=capacity,
        slot=entry.slot or None,
    )


def _number(text: str) -> float:
    """Return what a stamp says. Raises ValueError for what none says."""
    number = float(text)
    if not 0 <= number < 1e11:  # nor for infinity, nor for what is no number
        raise ValueError(text)
    return number


def _write(
    settings: Settings,
    rows: Iterable[Row | None],
    pool: Engine | None = None,
    tell: Callable[[str], None] | None = None,
) -> None:
    """Write the rows, and those of the dead of *pool*; if that fails it is said, and nothing else is wrong.

    Another program has its own way to *tell*, and is not forked.
    """
    if settings.history is None:
        return
    dead = [_of_ended(pool, one, _end_of(one)) for one in pool.take_dead()] if pool else []
    found = [row for row in (*rows, *dead) if row]
    try:
        if found:
            finished.record(settings.history, found, settings.history_days, apart=tell is None)
    except HistoryFailed as error:
        text = _("ipclock: warning: {problem}").format(problem=sentence(error))
        tell(text) if tell else say(text, at_once=True)
