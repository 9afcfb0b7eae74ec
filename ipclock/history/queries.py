"""The history as a whole: what ended in a pool in some span of time, summed up or row by row.

Reads in bounded time, however long the past: sums by an index, values of evenly spaced rows, the last rows of many.
Passes over what is not sound.
"""

from __future__ import annotations

import heapq
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple

from ipclock.errors import HistoryFailed
from ipclock.history import counters as counted
from ipclock.history import database
from ipclock.history.finished import SCHEMA, Row, read_as, sound
from ipclock.history.outcomes import HELD, OUTCOMES
from ipclock.history.replay import Arrival
from ipclock.history.statistics import Bin, Grid, Part, Past

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import TypeVar

    from ipclock.history.counters import Total
    from ipclock.history.database import Connection

    T = TypeVar("T")

PATIENCE_S = 10.0  # of a person who asks for all of a past; a million builds take less than two seconds
FIRST_PAGE, PAGE = 200, 10_000  # rows that `newest` reads at once
SAMPLE = 2000  # of more than twice as many builds of a kind only so many, spaced evenly, are read one by one


class Recent(NamedTuple):
    """The last rows that ended in a pool, the oldest first, and how long builds waited in each span of a grid."""

    rows: list[Row]
    grid: Grid
    bins: list[Bin]


class Which(NamedTuple):
    """Which builds of a pool: those that ended from `begin` on with these outcomes, of one label and user, or all."""

    begin: float = 0.0
    label: str | None = None
    user: str | None = None
    outcomes: tuple[str, ...] = OUTCOMES


def known_labels(path: str) -> list[str]:
    """Return the labels of all builds; none where the past is not known, for whatever reason."""
    try:
        return _answer(path, _labels, [])
    except HistoryFailed:
        return []


def knows(path: str, pool: str) -> bool:
    """Return whether anything has ever ended in the pool, its rows kept or not. Raises HistoryFailed (73). Slow."""
    return _answer(path, partial(_knows, pool), False)


def last(path: str, pool: str, ticket: int) -> Row | None:
    """Return the newest row of a ticket; None where there is none. Raises HistoryFailed (73)."""
    return _answer(path, partial(_last, pool, ticket), None) if ticket < 1 << 63 else None


def read(path: str, pool: str, begin: float, end: float, label: str | None = None) -> Past:
    """Return what ended in the pool from *begin* to *end*, of all labels or one.

    The past begins later where nothing is known of its beginning. Raises HistoryFailed (73).
    """
    return _answer(path, partial(_past, pool, begin, end, label), Past(begin, end, [], []))


def recent(path: str, pool: str, begin: float, label: str | None, limit: int, grid: Grid) -> Recent:
    """Return at most *limit* rows of what ended from *begin* on, and all waits that were over within the *grid*.

    Raises HistoryFailed (73).
    """
    bins = [Bin(0, 0.0, 0.0)] * grid.spans
    return _answer(path, partial(_recent, pool, begin, label, limit, grid), Recent([], grid, bins))


def newest(path: str, pool: str, which: Which, most: int | None) -> Iterator[Row]:
    """Yield *most* builds, the newest first, all with None. Reads on only when the reader does.

    Raises HistoryFailed (73).
    """
    before: tuple[float, int] | None = None
    size = FIRST_PAGE
    while most is None or most > 0:
        size = size if most is None else min(size, most)
        found: list[tuple[Any, ...]] = _answer(path, partial(_page, pool, which, before, size), [])
        yield from (Row(*row) for _number, *row in found)
        if len(found) < size:
            return
        most = None if most is None else most - size
        before = found[-1][1 + Row._fields.index("ended")], found[-1][0]
        size = PAGE


def arrivals(path: str, pool: str, begin: float, end: float, most: int) -> tuple[Past, list[Arrival]]:
    """Return what came to the pool and ended from *begin* to *end*, in order of arrival: the last *most* of it.

    The past has no parts, and begins with the first arrival where that is later. Raises HistoryFailed (73).
    """
    nothing = Past(begin, end, [], []), list[Arrival]()
    return _answer(path, partial(_arrivals, pool, begin, end, most), nothing)


def totals(path: str, pool: str) -> list[Total]:
    """Return how many builds have ended in the pool, whether their rows are kept or not. Raises HistoryFailed (73)."""
    return _answer(path, partial(_totals, pool), [])


def _answer(path: str, question: Callable[[Connection], T], nothing: T) -> T:
    """Return the answer, *nothing* where there is no history yet."""
    try:
        return database.ask(path, SCHEMA, question, seconds=PATIENCE_S)
    except FileNotFoundError:
        return nothing


def _knows(pool: str, connection: Connection) -> bool:
    kept = connection.execute("SELECT 1 FROM finished WHERE pool = ? LIMIT 1", (pool,)).fetchone()
    return kept is not None or bool(counted.read(connection, pool))


def _last(pool: str, ticket: int, connection: Connection) -> Row | None:
    question = (
        f"SELECT {read_as(*Row._fields)} FROM finished WHERE pool = ? AND ticket = ? AND {sound(*Row._fields)}"  # noqa: S608 - our names
        " ORDER BY ended DESC LIMIT 1"  # by the index by_time, from its end on
    )
    found = connection.execute(question, (pool, ticket)).fetchone()
    return Row(*found) if found else None


def _totals(pool: str, connection: Connection) -> list[Total]:
    return counted.read(connection, pool)


def _past(pool: str, begin: float, end: float, label: str | None, connection: Connection) -> Past:
    connection.execute("PRAGMA cache_size = -16000")  # KiB: what is summed up is read again at once
    begin = min(end, _known_since(connection, pool, begin))
    labels = _labels(connection) if label is None else [label]
    parts = [_part(connection, pool, begin, label, outcome) for label in labels for outcome in OUTCOMES]
    return Past(begin, end, _capacities(connection, pool, begin, end), [part for part in parts if part.builds])


def _recent(pool: str, begin: float, label: str | None, limit: int, grid: Grid, connection: Connection) -> Recent:
    bins = [Bin(0, 0.0, 0.0)] * grid.spans
    rows = _last_rows(connection, pool, begin, label, limit)
    for one in _labels(connection) if label is None else [label]:
        for number, found in _waits(connection, pool, begin, one, grid):
            if number < grid.spans:
                bins[number] = bins[number].and_also(found)
    return Recent(rows, grid, bins)


def _last_rows(connection: Connection, pool: str, begin: float, label: str | None, limit: int) -> list[Row]:
    columns, all_sound = read_as(*Row._fields), sound(*Row._fields)
    question = f"SELECT {columns} FROM finished WHERE ended >= ? AND pool = ? AND {all_sound}"  # noqa: S608 - our names
    last = " ORDER BY ended DESC LIMIT ?"
    if label is None:
        found = connection.execute(question + last, (begin, pool, limit)).fetchall()
    else:  # of a label that is seldom built, the index by time would be read from end to end
        which = " AND label = ? AND outcome = ?" + last
        asked = [(begin, pool, label, outcome, limit) for outcome in OUTCOMES]
        found = [row for values in asked for row in connection.execute(question + which, values)]
    return sorted((Row(*row) for row in found), key=lambda row: (row.ended, row.ticket))[-limit:]


def _page(
    pool: str, which: Which, before: tuple[float, int] | None, size: int, connection: Connection
) -> list[tuple[Any, ...]]:
    """Return the next rows, each behind its id: those that ended before the row *before*."""
    ended, number = before or (float("inf"), 0)
    question = (
        f"SELECT id, {read_as(*Row._fields)} FROM finished WHERE ended >= ? AND ended <= ? AND (ended < ? OR id < ?)"  # noqa: S608 - our names
        f" AND pool = ? AND {sound(*Row._fields)}"
    )
    values: tuple[object, ...] = (which.begin, ended, ended, number, pool)
    if which.user is not None:
        question, values = f"{question} AND user = ?", (*values, which.user)
    # of a label that is seldom built, the index by time would be read from end to end
    narrowed = " AND label = ? AND outcome = ?" if which.label is not None else ""
    if not narrowed and which.outcomes != OUTCOMES:
        narrowed = f" AND outcome IN ({', '.join('?' * len(which.outcomes))})"
        values = (*values, *which.outcomes)
    kinds = [(which.label, outcome) for outcome in which.outcomes] if which.label is not None else [()]
    question = f"{question}{narrowed} ORDER BY ended DESC, id DESC"
    found = [connection.execute(question, (*values, *kind)) for kind in kinds]
    at = 1 + Row._fields.index("ended")
    return list(islice(heapq.merge(*found, key=lambda row: (row[at], row[0]), reverse=True), size))


def _arrivals(pool: str, begin: float, end: float, most: int, connection: Connection) -> tuple[Past, list[Arrival]]:
    columns = ("ended", "label", "outcome", "waited_s", "held_s", "slots", "memory")
    question = (
        f"SELECT {read_as(*columns)} FROM finished WHERE ended >= ? AND ended <= ? AND pool = ?"  # noqa: S608 - our names
        f" AND {sound(*columns)} ORDER BY ended DESC LIMIT ?"
    )
    # by the spans, which no step of the wall clock has changed
    found = [
        Arrival(ended - (held_s or 0.0) - waited_s, label, waited_s, held_s, slots, memory)
        for ended, label, outcome, waited_s, held_s, slots, memory in connection.execute(
            question, (begin, end, pool, most)
        )
        if held_s is not None or outcome not in HELD  # else its command could not be started
    ]
    found.sort()
    begin = max(begin, found[0].arrived) if found else begin
    return Past(begin, end, _capacities(connection, pool, begin, end), []), found


def _waits(connection: Connection, pool: str, begin: float, label: str, grid: Grid) -> list[tuple[int, Bin]]:
    """Return the bins of one label's waits, each with its number in the grid."""
    # ended and held_s, not admitted: these lie in the index
    question = f"""
        SELECT CAST((ended - coalesce(held_s, 0) - ?) / ? AS INTEGER) AS bin,
        count(*), total(waited_s), max({read_as("waited_s")})
        FROM finished WHERE label = ? AND outcome = ? AND ended >= ? AND pool = ?
        AND ended - coalesce(held_s, 0) >= ? AND {sound("ended", "held_s", "waited_s")} GROUP BY bin
    """  # noqa: S608 - our names
    asked = [(grid.begin, grid.step_s, label, outcome, begin, pool, grid.begin) for outcome in OUTCOMES]
    return [(number, Bin(*sums)) for values in asked for number, *sums in connection.execute(question, values)]


def _known_since(connection: Connection, pool: str, begin: float) -> float:
    before = "SELECT 1 FROM finished WHERE ended < ? AND pool = ? LIMIT 1"
    first = (
        "SELECT CAST(arrived AS REAL) FROM finished WHERE ended >= ? AND pool = ?"  # noqa: S608 - our names
        f" AND {sound('arrived', 'ended')} ORDER BY ended LIMIT 1"
    )
    if connection.execute(before, (begin, pool)).fetchone():
        return begin
    found = connection.execute(first, (begin, pool)).fetchone()
    return max(begin, found[0]) if found else begin


def _labels(connection: Connection) -> list[str]:
    # numbers come before all texts, and blobs behind them
    # from each label straight to the next one in the index; DISTINCT would read all of it
    question = """
        WITH RECURSIVE found (label) AS (
            SELECT min(label) FROM finished WHERE label > '' AND label < x''
            UNION ALL
            SELECT (SELECT min(label) FROM finished WHERE label > found.label AND label < x'')
            FROM found WHERE label NOT NULL
        )
        SELECT label FROM found WHERE length(label) <= 255
    """
    return [label for (label,) in connection.execute(question)]


def _part(connection: Connection, pool: str, begin: float, label: str, outcome: str) -> Part:
    all_sound = sound("ended", "waited_s", "held_s", "memory", "slots")
    sums = f"""
        SELECT count(*), total(waited_s), total(held_s), total(slots * min(held_s, ended - ?))
        FROM finished WHERE label = ? AND outcome = ? AND ended >= ? AND pool = ? AND {all_sound}
    """  # noqa: S608 - our names
    # the factor scatters the numbers evenly over 32 bits (2^32 divided by the golden ratio): every n-th row itself
    # would miss a label that is built every n-th time
    some = f"""
        SELECT {read_as("waited_s", "held_s", "memory")}
        FROM finished WHERE label = ? AND outcome = ? AND ended >= ? AND pool = ?
        AND (id * 2654435769) & 4294967295 < ? AND {all_sound}
    """  # noqa: S608 - our names
    which = (label, outcome, begin, pool)
    builds, waited_s, held_s, slot_s = connection.execute(sums, (begin, *which)).fetchone()
    stride = 1 << max(0, (builds // SAMPLE).bit_length() - 1)
    rows = connection.execute(some, (*which, (1 << 32) // stride)).fetchall() if builds else []
    return Part(
        label=label,
        outcome=outcome,
        builds=builds,
        waited_s=waited_s,
        held_s=held_s,
        slot_s=slot_s,
        stride=stride,
        waits=[row[0] for row in rows],
        holds=[row[1] for row in rows if row[1] is not None],
        memories=[row[2] for row in rows if row[2] is not None],
    )


def _capacities(connection: Connection, pool: str, begin: float, end: float) -> list[tuple[float, int]]:
    """Return (from when, N): a change counts from the first end that tells of it."""
    within = f"FROM finished WHERE ended {{}} ? AND ended <= ? AND pool = ? AND {sound('ended', 'capacity')}"
    first = f"SELECT {read_as('ended', 'capacity')} {within.format('>=')} ORDER BY ended LIMIT 1"
    # later than the last one: two that end at once could take turns for ever
    other = f"SELECT {read_as('ended', 'capacity')} {within.format('>')} AND capacity <> ? ORDER BY ended LIMIT 1"
    found: list[tuple[float, int]] = []
    step = connection.execute(first, (begin, end, pool)).fetchone()
    while step:
        found.append((step[0] if found else begin, step[1]))
        step = connection.execute(other, (step[0], end, pool, step[1])).fetchone()
    return found
