"""How many builds have ended, of which label and how, after which waits and holds: counters that never fall.

They lie beside the rows of the history, which go as they age. A pool's first MAX_LABELS labels are counted each for
itself, later ones together: who moved from the one to the other would make a counter fall. A label that nobody has
built for as long as rows are kept loses its place, with all that was counted of it. Knows no files.
"""

from __future__ import annotations

import math
from bisect import bisect_left

from ipclock.values import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from ipclock.database import Connection

OUTCOMES = ("done", "failed", "signal", "timeout", "busy", "interrupted", "superseded", "evicted", "orphaned", "oom")
MAX_LABELS = 100
OTHERS = ""  # what those without a place are counted under; no label is empty
NO_HOLD = -1.0
BOUNDS = (1.0, 5.0, 15.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1200.0, 1800.0, 3600.0, 7200.0, math.inf)

# one row for all builds that are alike in the key; made also where the history is older than it
TABLE = """
    CREATE TABLE IF NOT EXISTS totals (
        pool TEXT NOT NULL, label TEXT NOT NULL, outcome TEXT NOT NULL, wait_to REAL NOT NULL, hold_to REAL NOT NULL,
        builds INTEGER NOT NULL, waited_s REAL NOT NULL, held_s REAL NOT NULL, since REAL NOT NULL, ended REAL NOT NULL,
        PRIMARY KEY (pool, label, outcome, wait_to, hold_to)
    ) WITHOUT ROWID
"""


class Total(NamedTuple):
    """So many `builds` of one label with one outcome whose wait and hold fell below the same two of BOUNDS.

    `hold_to` is None for those that never had a slot. `waited_s` and `held_s` are sums; `since` is when the first one
    ended, in seconds of the epoch.
    """

    label: str
    outcome: str
    wait_to: float
    hold_to: float | None
    builds: int
    waited_s: float
    held_s: float
    since: float


def count(
    connection: Connection,
    pool: str,
    label: str,
    outcome: str,
    waited_s: float,
    held_s: float | None,
    ended: float,
    forget_before: float,
) -> None:
    """Count one build. A label makes room for another one if none of it has ended since *forget_before*."""
    connection.execute(TABLE)
    bounds = _bound(waited_s), NO_HOLD if held_s is None else _bound(held_s)
    key = (pool, _place(connection, pool, label, forget_before), outcome, *bounds)
    connection.execute(
        "INSERT INTO totals VALUES (?, ?, ?, ?, ?, 1, ?, ?, ?, ?)"
        " ON CONFLICT DO UPDATE SET builds = builds + 1, waited_s = waited_s + excluded.waited_s,"
        " held_s = held_s + excluded.held_s, ended = max(ended, excluded.ended)",
        (*key, waited_s, held_s or 0.0, ended, ended),
    )


def _bound(span: float) -> float:
    return BOUNDS[bisect_left(BOUNDS, span)]


def _place(connection: Connection, pool: str, label: str, forget_before: float) -> str:
    """Return the label under which to count: itself, or OTHERS where all places are taken."""
    if connection.execute("SELECT 1 FROM totals WHERE pool = ? AND label = ? LIMIT 1", (pool, label)).fetchone():
        return label
    lasts = "SELECT label, max(ended) FROM totals WHERE pool = ? AND label <> ? GROUP BY label"
    known = connection.execute(lasts, (pool, OTHERS)).fetchall()
    gone = [(pool, other) for other, last in known if last < forget_before]
    connection.executemany("DELETE FROM totals WHERE pool = ? AND label = ?", gone)
    return label if len(known) - len(gone) < MAX_LABELS else OTHERS


def read(connection: Connection, pool: str) -> list[Total]:
    """Return what was counted in a pool, nothing where nobody has counted yet."""
    if not connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'totals'").fetchone():
        return []
    found = connection.execute(
        "SELECT label, outcome, wait_to, hold_to, builds, waited_s, held_s, since FROM totals WHERE pool = ?", (pool,)
    )
    totals = (Total(*row) for row in found)
    return [total._replace(hold_to=None) if total.hold_to == NO_HOLD else total for total in totals]
