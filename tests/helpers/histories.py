"""Pasts made up: what a busy pool's history holds, from a seed and without any waiting."""

from __future__ import annotations

import heapq
import random
from typing import TYPE_CHECKING

from ipclock.history import database, finished
from ipclock.history.finished import Row
from tests.helpers.world import HANG_S

if TYPE_CHECKING:
    from collections.abc import Iterable

GB = 2**30
# label, its usual seconds, its memory in GB, its share of the builds
KINDS = (
    ("staging", 540, 2.6, 6),
    ("production", 780, 3.1, 2),
    ("스테이징 배포", 620, 2.2, 3),
    ("frontend", 190, 1.4, 5),
    ("docs", 45, 0.3, 3),
    ("nightly image", 2900, 3.8, 1),
)
USERS = ("deploy", "mira", "jun", "root")


def build(label: str, admitted: float, held_s: float, *, waited_s: float = 0.0, **more: object) -> Row:
    """Return a good build in slot 1 of two."""
    times = {"arrived": admitted - waited_s, "waited_s": waited_s, "admitted": admitted, "held_s": held_s}
    fields = {"uid": 0, "user": "root", "ticket": 1, "pool": "/oracle-build", "outcome": "done", "code": 0, "slots": 1}
    ended = {"ended": admitted + held_s, "capacity": 2, "memory": 2 * GB, "slot": 1}
    return Row(label=label, **(fields | times | ended | more))  # type: ignore[arg-type]  # a mixture of types


def wait(label: str, arrived: float, waited_s: float, outcome: str = "timeout", **more: object) -> Row:
    """Return a wait that ended without a slot."""
    waited = build(label, arrived + waited_s, 0.0, waited_s=waited_s, outcome=outcome, code=None, **more)
    return waited._replace(admitted=None, held_s=None, slot=None, memory=None)


def storm(
    seed: int, builds: int, end: float, *, pool: str = "/oracle-build", slots: int = 2, gap_s: float = 420
) -> list[Row]:
    """Return builds that came in bursts, every *gap_s* one on average, and took the slots in order; up to *end*."""
    chance = random.Random(seed)
    free = [(0.0, slot) for slot in range(1, slots + 1)]  # (from when, its number)
    now = 0.0
    rows = []
    for ticket in range(1, builds + 1):
        now += chance.expovariate(1 / gap_s) if chance.random() < 0.7 else chance.random() * 5
        label, usual_s, memory, _ = chance.choices(KINDS, [kind[3] for kind in KINDS])[0]
        whose = {"uid": 1000, "user": chance.choice(USERS), "ticket": ticket, "pool": pool}
        since, slot = free[0]
        waits = max(0.0, since - now)
        context = 600 if chance.random() < 0.3 else 7200
        if waits > context:
            outcome = chance.choice(("timeout", "timeout", "interrupted"))
            rows.append(wait(label, now, context, outcome, **whose, capacity=slots))
            continue
        if chance.random() < 0.02:
            outcome = "superseded" if waits else "busy"
            rows.append(wait(label, now, min(waits, 20.0), outcome, **whose, capacity=slots))
            continue
        held_s = usual_s * chance.lognormvariate(0, 0.3)
        outcome = chance.choices(("done", "failed", "signal", "oom", "evicted"), (85, 9, 2, 2, 1))[0]
        held_s *= 1.0 if outcome == "done" else chance.random()
        heapq.heapreplace(free, (now + waits + held_s, slot))
        more = {"outcome": outcome, "code": {"failed": 2, "signal": 15}.get(outcome, 0), "slot": slot}
        more |= {"capacity": slots, "memory": round(memory * GB * chance.lognormvariate(0, 0.15))}
        rows.append(build(label, now + waits, held_s, waited_s=waits, **whose, **more))
    late = end - max(row.ended for row in rows)
    return [moved(row, late) for row in rows]


def moved(row: Row, seconds: float) -> Row:
    """Return the row so much later."""
    admitted = None if row.admitted is None else row.admitted + seconds
    return row._replace(arrived=row.arrived + seconds, admitted=admitted, ended=row.ended + seconds)


def keep(path: str, rows: Iterable[Row]) -> None:
    """Write all rows at once into the history at *path*."""
    with database.opened(path, finished.SCHEMA, write=True, seconds=HANG_S) as connection:
        connection.executemany(finished._INSERT, rows)
