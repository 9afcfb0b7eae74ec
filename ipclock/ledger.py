"""What becomes of waits and holds, written into the history: after the slot was given back, and never at its expense.

Whoever clears a dead holder away, or releases or evicts one that has no supervisor, writes for it.
"""

from __future__ import annotations

import os
import time

from ipclock import history, process, utf8
from ipclock.errors import HistoryFailed, Interrupted, SlotBusy, SlotTimeout, Superseded
from ipclock.messages import _, told
from ipclock.progress import say
from ipclock.values import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from ipclock.claim import Claim, Ended
    from ipclock.config import Settings
    from ipclock.engine import Engine
    from ipclock.entry import Entry
    from ipclock.errors import IpclockError
    from ipclock.history import Row

# how a wait ends without a slot
ENDINGS = {SlotTimeout: "timeout", SlotBusy: "busy", Interrupted: "interrupted", Superseded: "superseded"}


def outcome_of(claim: Claim, status: int, *, starved: bool) -> str:
    """Return what the history calls a build that came to this status, -n for signal n. *starved*: of memory."""
    if starved:
        return "oom"
    return "evicted" if claim.evicted else "signal" if status < 0 else "failed" if status else "done"


def build_ended(
    pool: Engine, claim: Claim, settings: Settings, outcome: str, code: int, *, memory: int, cpu_s: float
) -> None:
    """Keep a build that ended so, with this exit status or signal."""
    row = _row(pool, claim.label, claim.entry, claim.times, os.getuid(), outcome)
    _write(pool, settings, [row and row._replace(code=code, memory=memory, cpu_s=cpu_s)])


def _say(text: str) -> None:
    say(text, at_once=True)


def wait_ended(
    pool: Engine, claim: Claim, settings: Settings, error: IpclockError, tell: Callable[[str], None] = _say
) -> str | None:
    """Keep a wait that ended without a slot; return its outcome, None for one that never got into the line."""
    outcome = ENDINGS.get(type(error))
    if outcome:
        _write(pool, settings, [_row(pool, claim.label, claim.entry, claim.times, os.getuid(), outcome)], tell)
    return outcome


def slot_ended(pool: Engine, claim: Claim, settings: Settings, outcome: str, tell: Callable[[str], None]) -> None:
    """Keep the hold of a program that has taken its slot itself; *tell* gets what kept us from it."""
    _write(pool, settings, [_row(pool, claim.label, claim.entry, claim.times, os.getuid(), outcome)], tell)


def holds_ended(pool: Engine, settings: Settings, holders: Iterable[Ended] = (), outcome: str = "done") -> None:
    """Keep the holds of those that have no supervisor who would; with none, only what the pool has found dead."""
    _write(pool, settings, [_of_ended(pool, one, outcome) for one in holders if not one.supervised])


def _of_ended(pool: Engine, one: Ended, outcome: str) -> Row | None:
    if one.entry.within:  # a part of a hold that has a row of its own
        return None
    try:
        return _row(pool, one.label, one.entry, one.times, one.uid, outcome)
    except ValueError:  # somebody else has written in it
        return None


def _row(pool: Engine, label: str, entry: Entry, times: Mapping[str, str], uid: int, outcome: str) -> Row | None:
    """Return the row of one that ends now; *times* are the stamps of a claim, or of a record."""
    if "arrived" not in times:
        return None
    ended, now = time.time(), time.monotonic()
    admitted = float(times["admitted"]) if "admitted" in times else None
    begun = now if admitted is None else float(times["admitted_mono"])
    return history.Row(
        label=label,
        uid=uid,
        user=process.user_name(uid),
        ticket=entry.ticket,
        pool=utf8.text_of(pool.name),
        arrived=float(times["arrived"]),
        waited_s=round(max(0.0, begun - float(times["arrived_mono"])), 3),
        admitted=admitted,
        held_s=None if admitted is None else round(max(0.0, now - begun), 3),
        ended=ended,
        outcome=outcome,
        code=None,
        slots=entry.units,
        capacity=pool.capacity,
        slot=entry.slot or None,
    )


def _write(pool: Engine, settings: Settings, rows: Iterable[Row | None], tell: Callable[[str], None] = _say) -> None:
    """Write the rows, and those of the dead; if that fails it is said, and nothing else is wrong."""
    if settings.history is None:
        return
    dead = [_of_ended(pool, one, "orphaned") for one in pool.take_dead()]
    try:
        for row in filter(None, [*rows, *dead]):
            history.record(settings.history, row, settings.history_days)
    except HistoryFailed as error:
        tell(_("ipclock: warning: {problem}").format(problem=". ".join(told(error))))
