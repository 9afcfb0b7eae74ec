"""What programs read of a pool and of its past: JSON, schema 2. Schema 1 is the commands' own, and stays as it is.

One rule for both: a number with a unit is named by it (`_seconds`, `_bytes`), a moment is ISO 8601 with the local
offset, a share is from 0 to 1. What is not known, or not the case, is null, never "" or 0. Each object has all of its
keys. Bytes are whole numbers, seconds may have a part.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from ipclock.display.formatting import iso
from ipclock.display.origins import facts
from ipclock.linux import process

if TYPE_CHECKING:
    from ipclock.display.estimates import Standing
    from ipclock.display.origins import Facts
    from ipclock.history.finished import Row
    from ipclock.history.replay import Figures, Plan
    from ipclock.history.statistics import Past, Report, Spread, Summary
    from ipclock.pool.notes import Drain
    from ipclock.pool.snapshot import Holder, Waiter

SCHEMA = 2
NOBODY = ("", "?", "-1")  # a user that is not known


def pool(now: Standing, *, made: bool) -> dict[str, Any]:
    """Return a pool as it stands; *made*: it is there. One of no slots is drained too, without a note."""
    seen = now.pool
    return {
        "schema": SCHEMA,
        "name": seen.name,
        "made": made,
        "folder": seen.folder,
        "slots": seen.capacity,
        "slots_in_use": seen.taken,
        "slots_free": seen.free,
        "slots_unlisted": seen.unlisted,
        "unlisted_pids": list(seen.unlisted_pids),
        "drain": seen.drain and _drain(seen.drain),
        "resize": seen.resized
        and {
            "slots_before": seen.resized.before,
            "user": _user(process.user_name(seen.resized.uid)),
            "at": iso(seen.resized.at),
        },
        "fair": seen.fair or None,
        "holders": [_holder(holder, now) for holder in seen.holders],
        "waiters": [_waiter(waiter, now) for waiter in seen.waiters],
    }


def _drain(drain: Drain) -> dict[str, Any]:
    return {
        "reason": drain.reason or None,
        "user": None if drain.uid is None else _user(process.user_name(drain.uid)),
        "until": None if drain.until is None else iso(time.time() + drain.until - time.monotonic()),
    }


def _holder(holder: Holder, now: Standing) -> dict[str, Any]:
    use = now.uses.get(holder.ticket)
    known = facts(holder)
    return {
        "ticket": holder.ticket,
        "within_ticket": holder.within,
        "label": _label(holder),
        "user": _user(holder.user),
        "state": holder.state,
        "slot": holder.slot,
        "slots": holder.slots,
        "pid": holder.pid,
        "command_pid": holder.command_pid,
        "command": known.command or None,
        "pids_are_ours": holder.here,
        "processes": [
            {"pid": row.pid, "command": row.command or None, "age_seconds": row.age_s} for row in holder.processes
        ],
        "since": iso(holder.since),
        "held_seconds": holder.held_s,
        "usual_seconds": now.usual.get(holder.label),
        "cpu_seconds": use and use.cpu_s,
        "memory_bytes": use and use.memory,
        "host": holder.host or None,
        "session_seconds": holder.session_s,
        "token": holder.token or None,
        **_origin(holder, known),
    }


def _waiter(waiter: Waiter, now: Standing) -> dict[str, Any]:
    left = now.waits.get(waiter.ticket)
    known = facts(waiter)
    return {
        "ticket": waiter.ticket,
        "position": waiter.position,
        "label": _label(waiter),
        "user": _user(waiter.user),
        "slots": waiter.slots,
        "priority": waiter.priority,
        "held_back": waiter.held_back or None,
        "at_gate": waiter.at_gate,
        "pid": waiter.pid,
        "since": iso(waiter.since),
        "waited_seconds": waiter.waited_s,
        "timeout_seconds": waiter.timeout_s,
        "left_min_seconds": left and left.low,
        "left_max_seconds": left and left.high,
        "host": waiter.host or None,
        "session_seconds": waiter.session_s,
        "command": known.command or None,
        "pids_are_ours": waiter.origin.here,
        **_origin(waiter, known),
    }


def _origin(client: Holder | Waiter, known: Facts) -> dict[str, Any]:
    return {
        "directory": known.directory or None,
        "terminal": known.terminal or None,
        "caller_pid": known.caller,
        "caller_gone": known.caller_gone,
        "detached": client.origin.detached,
        "log": client.origin.log or None,
    }


def _label(client: Holder | Waiter) -> str | None:
    # a record that says nothing of a label says nothing of a moment either
    return None if client.label in ("", "?") and client.since is None else client.label


def _user(name: str) -> str | None:
    return None if name in NOBODY else name


def build(row: Row) -> dict[str, Any]:
    """Return one build that has ended."""
    by_signal = row.outcome == "signal"
    return {
        "ticket": row.ticket or None,
        "label": row.label,
        "user": _user(row.user),
        "outcome": row.outcome,
        "exit_status": None if by_signal else row.code,
        "signal": row.code if by_signal else None,
        "slot": row.slot,
        "slots": row.slots,
        "arrived": iso(row.arrived),
        "admitted": iso(row.admitted),
        "ended": iso(row.ended),
        "waited_seconds": row.waited_s,
        "held_seconds": row.held_s,
        "cpu_seconds": row.cpu_s,
        "memory_bytes": row.memory,
    }


def past(found: Past, report: Report, name: str) -> dict[str, Any]:
    """Return what ended in the pool *name*, in numbers."""
    return {
        "schema": SCHEMA,
        "name": name,
        "since": iso(found.begin),
        "until": iso(found.end),
        "slot_seconds_used": float(report.held_slot_s),
        "slot_seconds_available": float(report.slot_s) if report.slot_s else None,
        "utilization": report.in_use,
        "memory_total_bytes": report.total_memory,
        "builds_that_fit": report.fits,
        "all": _summary(report.all),
        "labels": [_summary(summary) for summary in report.labels],
    }


def plan(found: Plan) -> dict[str, Any]:
    """Return what other numbers of slots would do; `actual` is null where there are too few builds to tell."""
    return {
        "schema": SCHEMA,
        "name": found.pool,
        "label": found.label,
        "since": iso(found.begin),
        "until": iso(found.end),
        "builds": found.builds,
        "slots": found.slots,
        "slots_changed": found.changed,
        "memory_total_bytes": found.memory,
        "actual": found.actual and _figures(found.actual),
        "plans": [{"slots": number, **_figures(one)} for number, one in found.replays.items()],
    }


def _figures(found: Figures) -> dict[str, Any]:
    return {
        "waited_seconds": {"mean": found.mean_s, "p90": found.p90_s, "longest": found.longest_s},
        "utilization": found.in_use,
        "gave_up": found.gave_up,
        "memory_short": found.short,
        "too_large": found.too_large,
    }


def _summary(summary: Summary) -> dict[str, Any]:
    memory = summary.memory and {key: round(value) for key, value in summary.memory._asdict().items()}
    return {
        "label": summary.label or None,
        "builds": summary.builds,
        "failed": summary.failed,
        "timed_out": summary.timed_out,
        "outcomes": summary.outcomes,
        "waited_seconds": _spread(summary.waited_s),
        "held_seconds": _spread(summary.held_s),
        "memory_bytes": memory,
    }


def _spread(spread: Spread | None) -> dict[str, float] | None:
    return spread and {key: float(value) for key, value in spread._asdict().items()}
