"""What a history is asked: the last rows, sums of waits, and that an index answers."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from ipclock.history import outcomes, queries
from ipclock.history.statistics import Bin, Grid
from tests.unit.history.rows import NOW, POOL, build, past_of, timeout

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where a history may be made."""
    return tmp_path / "history.db"


def test_an_index_answers_for_each_label_without_the_table(path: Path) -> None:
    past_of(path, build("a", -1, 1), build("a", 10, 1))
    asked: list[str] = []

    with closing(sqlite3.connect(path)) as connection:
        connection.set_trace_callback(asked.append)
        queries._known_since(connection, POOL, NOW)
        queries._part(connection, POOL, NOW, "a", "done")
        queries._capacities(connection, POOL, NOW, NOW + 20)
        connection.set_trace_callback(None)
        plans = [row[3] for text in asked for row in connection.execute(f"EXPLAIN QUERY PLAN {text}")]

    assert plans == [
        "SEARCH finished USING COVERING INDEX by_time (ended<?)",
        "SEARCH finished USING COVERING INDEX by_label (label=? AND outcome=? AND ended>? AND ended<?)",
        "SEARCH finished USING COVERING INDEX by_label (label=? AND outcome=? AND ended>? AND ended<?)",
        "SEARCH finished USING COVERING INDEX by_time (ended>? AND ended<?)",
        "SEARCH finished USING COVERING INDEX by_time (ended>? AND ended<?)",
    ]


def test_the_last_rows_are_read_the_oldest_first_and_no_more_of_them(path: Path) -> None:
    rows = [build("ab"[at % 2], 10.0 * at, 1, ticket=at, outcome=outcomes.HELD[at % 5]) for at in range(1, 30)]
    past_of(path, *rows, build("a", 500, 1, pool="/other"), build("a", -1, 1))
    grid = Grid(NOW, 100.0, 10)

    everything = queries.recent(str(path), POOL, NOW, None, 5, grid)
    one_label = queries.recent(str(path), POOL, NOW, "a", 5, grid)
    enough = queries.recent(str(path), POOL, NOW, None, 100, grid)

    assert (everything.rows, one_label.rows, enough.rows) == (rows[-5:], rows[1::2][-5:], rows)


def test_waits_count_where_they_were_over(path: Path) -> None:
    rows = [
        build("a", 150, 100, waited_s=30.0),  # over at 50
        build("b", 120, 30, waited_s=10.0),  # at 90
        timeout("a", 130, 60.0),
        build("a", 350, 50),  # at 300, beyond the grid
        build("a", 60, 100, waited_s=500.0),  # before it
    ]
    past_of(path, *rows)

    found = [queries.recent(str(path), POOL, NOW, label, 9, Grid(NOW, 100.0, 3)).bins for label in (None, "b")]

    nothing = Bin(0, 0.0, 0.0)
    assert found == [[Bin(2, 40.0, 30.0), Bin(1, 60.0, 60.0), nothing], [Bin(1, 10.0, 10.0), nothing, nothing]]


def test_of_no_history_there_are_no_rows_and_empty_bins(path: Path) -> None:
    found = queries.recent(str(path), POOL, NOW, None, 9, Grid(NOW, 1.0, 2))

    assert (found.rows, found.bins, path.exists()) == ([], [Bin(0, 0.0, 0.0)] * 2, False)


def test_an_index_finds_the_last_rows_and_answers_for_the_waits(path: Path) -> None:
    past_of(path, build("a", 10, 1))
    asked: list[str] = []

    with closing(sqlite3.connect(path)) as connection:
        connection.set_trace_callback(asked.append)
        queries._last_rows(connection, POOL, NOW, None, 9)
        queries._last_rows(connection, POOL, NOW, "a", 9)
        queries._waits(connection, POOL, NOW, "a", Grid(NOW, 1.0, 9))
        connection.set_trace_callback(None)
        plans = [row[3] for text in asked for row in connection.execute(f"EXPLAIN QUERY PLAN {text}")]

    kinds = len(outcomes.OUTCOMES)
    assert plans == [
        "SEARCH finished USING INDEX by_time (ended>? AND ended<?)",
        *["SEARCH finished USING INDEX by_label (label=? AND outcome=? AND ended>? AND ended<?)"] * kinds,
        *[
            "SEARCH finished USING COVERING INDEX by_label (label=? AND outcome=? AND ended>? AND ended<?)",
            "USE TEMP B-TREE FOR GROUP BY",
        ]
        * kinds,
    ]


def test_the_newest_row_of_a_ticket_is_found_in_its_pool_from_the_end_of_the_index(path: Path) -> None:
    rows = [build("a", at, 1, ticket=1 + at % 3, code=at) for at in range(9)]
    past_of(path, *rows, build("a", 20, 1, ticket=2, pool="/other"))
    asked: list[str] = []

    with closing(sqlite3.connect(path)) as connection:
        connection.set_trace_callback(asked.append)
        queries._last(POOL, 2, connection)
        connection.set_trace_callback(None)
        ((*_, plan),) = [row for text in asked for row in connection.execute(f"EXPLAIN QUERY PLAN {text}")]

    found = [queries.last(str(path), POOL, ticket) for ticket in (2, 4, 1 << 70)]
    by_time = "SEARCH finished USING INDEX by_time (ended>? AND ended<?)"
    assert ([row and row.code for row in found], plan) == ([7, None, None], by_time)
