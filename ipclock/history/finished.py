"""Finished waits and holds, one row each, in an SQLite database that several users' processes write at once.

Guarantees: a failure is one HistoryFailed, which never keeps a build from running; what a label's next build will take
is told in milliseconds, however long its past; and what is read is `sound`, whatever other users have written. Does not
know who writes when.
"""

from __future__ import annotations

from functools import partial

from ipclock._typing import TYPE_CHECKING, NamedTuple
from ipclock.errors import HistoryFailed
from ipclock.history import counters as counted
from ipclock.history import database
from ipclock.history.outcomes import HELD

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from ipclock.history.database import Connection

RECENT = 50  # a label's last builds, from which its next one is foretold
PRUNED_AT_ONCE = 20  # more than one new row makes old; bounds what a single build pays

SCHEMA = database.Schema(
    application=0x6970636C,  # "ipcl"
    version=1,
    statements=(
        """
        CREATE TABLE finished (
            id INTEGER PRIMARY KEY,
            label TEXT NOT NULL, uid INTEGER NOT NULL, user TEXT NOT NULL, ticket INTEGER NOT NULL, pool TEXT NOT NULL,
            arrived REAL NOT NULL, waited_s REAL NOT NULL, admitted REAL, held_s REAL, ended REAL NOT NULL,
            outcome TEXT NOT NULL, code INTEGER, slots INTEGER NOT NULL, capacity INTEGER NOT NULL,
            memory INTEGER, cpu_s REAL, slot INTEGER
        )
        """,
        # it answers `expected`, and nearly all of `read`, without a look at the table
        "CREATE INDEX by_label ON finished (label, outcome, ended, pool, waited_s, held_s, memory, slots)",
        # it finds what is too old, and where N changed
        "CREATE INDEX by_time ON finished (ended, pool, capacity)",
    ),
    later=(counted.TABLE,),
)
_INSERT = "INSERT INTO finished VALUES (NULL, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"


class Row(NamedTuple):
    """One finished wait or hold. Times are seconds of the epoch, those that end in `_s` are spans.

    `admitted`, `held_s` and `slot` are None for a wait that ended without a slot. `outcome` is one of OUTCOMES:
    "evicted" if a reset took the slot while the build ran, "orphaned" if its holder died without giving it back; that
    one's end is when it was noticed. `code` is its exit status or the signal's number; `slots` how many it took,
    `capacity` how many there were at its end. `memory` is the peak in bytes and `cpu_s` the time of all the build's
    processes, None where not known.
    """

    label: str
    uid: int
    user: str
    ticket: int
    pool: str
    arrived: float
    waited_s: float
    admitted: float | None
    held_s: float | None
    ended: float
    outcome: str
    code: int | None
    slots: int
    capacity: int
    memory: int | None = None
    cpu_s: float | None = None
    slot: int | None = None


# how each column is read, and what it must hold for that: others may write anything into any
SOUND = {
    **dict.fromkeys(("label", "user", "pool", "outcome"), counted.TEXT),
    **dict.fromkeys(("arrived", "admitted", "ended"), counted.MOMENT),
    **dict.fromkeys(("waited_s", "held_s", "cpu_s"), counted.SPAN),
    **dict.fromkeys(("uid", "ticket", "code", "slots", "capacity", "memory", "slot"), counted.COUNT),
}
OPTIONAL = ("admitted", "held_s", "code", "memory", "cpu_s", "slot")


def read_as(*columns: str) -> str:
    """Return these columns, each as the type that ours have."""
    return ", ".join(f"CAST({column} AS {SOUND[column][0]})" for column in columns)


def sound(*columns: str) -> str:
    """Return the condition that these columns hold what we might have written."""
    tests = ((column, SOUND[column][1].format(column)) for column in columns)
    return " AND ".join(f"({column} IS NULL OR {test})" if column in OPTIONAL else test for column, test in tests)


class Expected(NamedTuple):
    """What a label's next build will probably take, by its last ones (at most RECENT of each outcome).

    `spans` are the seconds that they held their slots, however they ended, in order: what those behind it waited for.
    `usual_s` is the median of those that ended well. `memory` is what 9 of 10 stay below, in bytes; those that the
    kernel ended for want of memory count too, since they show how much it takes at least, but no others that failed.
    """

    spans: tuple[float, ...]
    usual_s: float | None
    memory: int | None


def record(path: str, rows: Sequence[Row], keep_days: int, *, apart: bool = True) -> None:
    """Add *rows* to the database, which is made if it is missing, and drop some of the rows older than *keep_days*.

    Raises HistoryFailed (73). *apart* is in a process of its own.
    """
    (database.ask if apart else database.answer)(path, SCHEMA, partial(_record, rows, keep_days), write=True)


def _record(rows: Sequence[Row], keep_days: int, connection: Connection) -> None:
    for row in rows:
        oldest = row.ended - keep_days * 86400
        connection.execute(_INSERT, row)
        connection.execute(
            "DELETE FROM finished WHERE id IN (SELECT id FROM finished WHERE ended < ? ORDER BY ended LIMIT ?)",
            (oldest, PRUNED_AT_ONCE),
        )
        counted.count(connection, row.pool, row.label, row.outcome, row.waited_s, row.held_s, row.ended, oldest)


def prepare() -> None:
    """Load what a `record` needs, so that it is short when it comes."""
    database.load()


def expected(path: str, label: str) -> Expected | None:
    """Return what to expect of the label's next build; None where its past is not known, for whatever reason."""
    try:
        return expected_many(path, [label]).get(label)
    except HistoryFailed:
        return None


def expected_many(path: str, labels: Iterable[str]) -> dict[str, Expected]:
    """Return what to expect of each label; those without a known past are left out. Raises HistoryFailed (73)."""
    try:
        return database.ask(path, SCHEMA, partial(_expected_many, list(labels)))
    except FileNotFoundError:
        return {}


def _expected_many(labels: Sequence[str], connection: Connection) -> dict[str, Expected]:
    known = ((label, _expected(connection, label)) for label in labels)
    return {label: foretold for label, foretold in known if foretold}


def _expected(connection: Connection, label: str) -> Expected | None:
    question = (
        f"SELECT {read_as('ended', 'held_s', 'memory')} FROM finished WHERE label = ? AND outcome = ?"  # noqa: S608 - our names
        f" AND held_s NOT NULL AND {sound('ended', 'held_s', 'memory')} ORDER BY ended DESC LIMIT ?"
    )
    from ipclock.history.statistics import quantile  # not needed to write

    rows = {outcome: connection.execute(question, (label, outcome, RECENT)).fetchall() for outcome in HELD}
    latest = sorted(row[:2] for found in rows.values() for row in found)[-RECENT:]
    if not latest:
        return None
    done = sorted(held_s for _, held_s, _ in rows["done"])
    known = sorted((ended, memory) for ended, _, memory in rows["done"] + rows["oom"] if memory is not None)
    memories = sorted(memory for _, memory in known[-RECENT:])
    return Expected(
        spans=tuple(sorted(held_s for _, held_s in latest)),
        usual_s=quantile(done, 0.5) if done else None,
        memory=round(quantile(memories, 0.9)) if memories and done else None,
    )
