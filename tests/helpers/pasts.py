"""Pasts made up: what a busy pool's history holds, from a seed and without any waiting."""

from __future__ import annotations

import heapq
import random
from typing import TYPE_CHECKING

from ipclock import database, history
from ipclock.history import Row

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
        whose = {"label": label, "uid": 1000, "user": chance.choice(USERS), "ticket": ticket, "pool": pool}
        since, slot = free[0]
        waits = max(0.0, since - now)
        patience = 600 if chance.random() < 0.3 else 7200
        if waits > patience:
            rows.append(_left(whose, now, patience, chance.choice(("timeout", "timeout", "interrupted")), slots))
            continue
        if chance.random() < 0.02:
            rows.append(_left(whose, now, min(waits, 20.0), "superseded" if waits else "busy", slots))
            continue
        held_s = usual_s * chance.lognormvariate(0, 0.3)
        outcome = chance.choices(("done", "failed", "signal", "oom", "evicted"), (85, 9, 2, 2, 1))[0]
        held_s *= 1.0 if outcome == "done" else chance.random()
        heapq.heapreplace(free, (now + waits + held_s, slot))
        times = {"arrived": now, "waited_s": waits, "admitted": now + waits, "held_s": held_s}
        rows.append(
            Row(
                **whose,
                **times,
                ended=now + waits + held_s,
                outcome=outcome,
                code={"failed": 2, "signal": 15}.get(outcome, 0),
                slots=1,
                capacity=slots,
                memory=round(memory * GB * chance.lognormvariate(0, 0.15)),
                slot=slot,
            )
        )
    late = end - max(row.ended for row in rows)
    return [moved(row, late) for row in rows]


def _left(whose: dict[str, object], arrived: float, waited_s: float, outcome: str, slots: int) -> Row:
    times = {"arrived": arrived, "waited_s": waited_s, "admitted": None, "held_s": None, "ended": arrived + waited_s}
    return Row(**whose, **times, outcome=outcome, code=None, slots=1, capacity=slots)  # type: ignore[arg-type]


def moved(row: Row, seconds: float) -> Row:
    """Return the row so much later."""
    admitted = None if row.admitted is None else row.admitted + seconds
    return row._replace(arrived=row.arrived + seconds, admitted=admitted, ended=row.ended + seconds)


def keep(path: str, rows: Iterable[Row]) -> None:
    """Write all rows at once into the history at *path*."""
    with database.opened(path, history.SCHEMA, write=True) as connection:
        connection.execute("BEGIN")
        connection.executemany(history._INSERT, rows)
        connection.execute("COMMIT")
