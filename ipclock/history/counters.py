"""How many builds have ended, of which label and how, after which waits and holds: counters that never fall.

They lie beside the rows of the history, which go as they age. A pool's first MAX_LABELS labels are counted each for
itself, later ones together: a label that moved from one to the other would make a counter fall. A label that nobody has
built for as long as rows are kept loses its place, with all that was counted of it. Knows no files.
"""

from __future__ import annotations

import math
from bisect import bisect_left

from ipclock._typing import TYPE_CHECKING, NamedTuple
from ipclock.history.outcomes import OUTCOMES

if TYPE_CHECKING:
    from ipclock.history.database import Connection

MAX_LABELS = 100
OTHERS = ""  # what those without a place are counted under; no label is empty
NO_HOLD = -1.0
BOUNDS = (1.0, 5.0, 15.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1200.0, 1800.0, 3600.0, 7200.0, math.inf)
MOST = (MAX_LABELS + 1) * len(OUTCOMES) * len(BOUNDS) * (len(BOUNDS) + 1)  # rows that a pool can have

# How a column is read, and what it must hold for that: whatever was written there, no clock or drawing fails on it. A
# text or blob is greater than any number; one that looks like a number is read as that.
TEXT = ("TEXT", "length({0}) <= 255")
COUNT = ("INTEGER", "{0} BETWEEN 0 AND 1152921504606846976")
SPAN = ("REAL", "{0} BETWEEN 0 AND 1e9")
MOMENT = ("REAL", "{0} BETWEEN 0 AND 1e11")
SUM = ("REAL", "{0} BETWEEN 0 AND 1e15")
BOUND = ("REAL", "{0} BETWEEN -1 AND 9e999")

# one row for all builds that are alike in the key
TABLE = """
    CREATE TABLE totals (
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
    lasts = "SELECT label, max(ended) < ? FROM totals WHERE pool = ? AND label <> ? GROUP BY label"
    known = connection.execute(lasts, (forget_before, pool, OTHERS)).fetchall()
    gone = [(pool, other) for other, old in known if old]
    connection.executemany("DELETE FROM totals WHERE pool = ? AND label = ?", gone)
    return label if len(known) - len(gone) < MAX_LABELS else OTHERS


SOUND = {"label": TEXT, "outcome": TEXT, "wait_to": BOUND, "hold_to": BOUND, "builds": COUNT}
SOUND |= {"waited_s": SUM, "held_s": SUM, "since": MOMENT}


def read(connection: Connection, pool: str) -> list[Total]:
    """Return what was counted in a pool, nothing where nothing was counted yet."""
    if not connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'totals'").fetchone():
        return []
    columns = ", ".join(f"CAST({column} AS {kind})" for column, (kind, _test) in SOUND.items())
    sound = " AND ".join(test.format(column) for column, (_kind, test) in SOUND.items())
    question = f"SELECT {columns} FROM totals WHERE pool = ? AND {sound} LIMIT ?"  # noqa: S608 - our names
    totals = [Total(*row) for row in connection.execute(question, (pool, MOST))]
    # no writer of ours gives more labels a place
    placed = set(sorted({total.label for total in totals} - {OTHERS})[:MAX_LABELS])
    return [
        total._replace(
            label=total.label if total.label in placed else OTHERS,
            hold_to=None if total.hold_to == NO_HOLD else total.hold_to,
        )
        for total in totals
    ]
