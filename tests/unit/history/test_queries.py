"""What a history is asked: the last rows, sums of waits, and that an index answers."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest

from ipclock.history import database, outcomes, queries
from ipclock.history.queries import Which
from ipclock.history.statistics import Bin, Grid
from tests.unit.history.rows import NOW, POOL, build, past_of, timeout

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from ipclock.history.finished import Row


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


ROWS = [
    build("ab"[at % 2], 10.0 * (at // 2), 1, ticket=at, outcome=outcomes.HELD[at % 5], user=f"u{at % 3}")
    for at in range(1, 40)
]


@pytest.mark.parametrize("size", [1, 3, 1000], ids="{} a page".format)
@pytest.mark.parametrize(
    ("which", "wanted"),
    [
        pytest.param(Which(), lambda _row: True, id="all"),
        pytest.param(Which(label="a"), lambda row: row.label == "a", id="label"),
        pytest.param(Which(user="u1"), lambda row: row.user == "u1", id="user"),
        pytest.param(Which(begin=NOW + 100), lambda row: row.ended >= NOW + 100, id="since"),
        pytest.param(Which(outcomes=outcomes.FAILURES), lambda row: row.outcome in outcomes.FAILURES, id="failed"),
        pytest.param(
            Which(NOW + 50, "b", "u2", outcomes.FAILURES),
            lambda row: (row.label, row.user) == ("b", "u2") and row.outcome in outcomes.FAILURES and row.ended > NOW,
            id="all of it",
        ),
    ],
)
def test_the_newest_come_first_each_once_however_many_a_page_has(
    which: Which, wanted: Callable[[Row], bool], size: int, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queries, "FIRST_PAGE", size)
    monkeypatch.setattr(queries, "PAGE", size)
    past_of(path, *ROWS, build("a", 500, 1, pool="/other"))

    found = list(queries.newest(str(path), POOL, which, None))

    assert found == [row for row in reversed(ROWS) if wanted(row)]
    assert list(queries.newest(str(path), POOL, which, 2)) == found[:2]


def test_no_more_pages_are_read_than_the_reader_wants(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    page = queries._page

    def counted(*arguments: Any) -> list[tuple[Any, ...]]:
        asked.append(arguments[3])
        return page(*arguments)

    monkeypatch.setattr(queries, "_page", counted)
    monkeypatch.setattr(queries.database, "ask", database.answer)  # in this process, where it can be counted
    monkeypatch.setattr(queries, "FIRST_PAGE", 4)
    past_of(path, *ROWS)
    asked.clear()

    rows = queries.newest(str(path), POOL, Which(), None)
    four = [next(rows).ticket for _ in range(4)]
    few = list(queries.newest(str(path), POOL, Which(), 2))

    assert (four, len(few), asked) == ([39, 38, 37, 36], 2, [4, 2])


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
