"""The finished builds on disk: what is kept and for how long, and what it foretells."""

from __future__ import annotations

import os
import sqlite3
import stat
from contextlib import closing
from pathlib import Path

import pytest

from ipclock.errors import HistoryFailed
from ipclock.history import finished, outcomes
from ipclock.history.finished import Expected, Row, expected, expected_many, record
from tests.unit.history.rows import BUILD, NOW, TIMEOUT, filled, kept

DAY = 86400.0


@pytest.fixture
def path(tmp_path: Path) -> str:
    """Where a history may be made."""
    return str(tmp_path / "state/ipclock/history.db")


def mode(path: str | Path) -> str:
    return oct(stat.S_IMODE(os.stat(path).st_mode))


# What is kept


def test_every_field_comes_back_as_it_was_recorded(path: str) -> None:
    filled(path, BUILD, TIMEOUT)

    assert kept(path) == [BUILD, TIMEOUT]


def test_the_columns_bear_the_names_of_the_fields(path: str) -> None:
    filled(path, BUILD)

    with closing(sqlite3.connect(path)) as connection:
        names = [row[1] for row in connection.execute("PRAGMA table_info(finished)")]
        facts = [connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("user_version", "journal_mode")]

    assert (tuple(names), facts) == (("id", *Row._fields), [1, "wal"])


def test_old_rows_go_some_at_a_time_as_new_ones_come(path: str) -> None:
    # their order in the file is not that of their ends
    old = [BUILD._replace(ticket=number * 7 % 30, ended=NOW - 91 * DAY + number * 7 % 30) for number in range(30)]
    young = BUILD._replace(ended=NOW - 89 * DAY)
    for row in (*old, young):
        record(path, [row], 365)

    left = []
    for _ in range(3):
        record(path, [BUILD], 90)
        left.append(sorted(row.ticket for row in kept(path) if row in old))

    assert (left, kept(path)) == ([[*range(20, 30)], [], []], [young, BUILD, BUILD, BUILD])


# What it foretells


def test_the_last_fifty_builds_of_the_label_tell_what_to_expect(path: str) -> None:
    old = [BUILD._replace(held_s=9999.0, memory=99, ended=NOW - 1000 + number) for number in range(5)]
    # 0, 1, ... 49 in disorder
    recent = [
        BUILD._replace(held_s=number * 7 % 50.0, memory=number * 1000, ended=NOW + number) for number in range(50)
    ]
    others = [BUILD._replace(label="other", held_s=1e6), TIMEOUT]
    filled(path, *old, *recent, *others)

    found = expected(path, BUILD.label)

    assert found == Expected(spans=tuple(map(float, range(50))), usual_s=24.5, memory=44100)


def test_failed_builds_count_for_those_who_wait_but_not_for_what_is_usual(path: str) -> None:
    short = BUILD._replace(held_s=1.0, memory=1)
    filled(path, BUILD, *(short._replace(outcome=outcome) for outcome in ("failed", "signal", "evicted")))

    assert expected(path, BUILD.label) == Expected((1.0, 1.0, 1.0, 99.5), 99.5, 2_900_000_000)


def test_builds_ended_for_want_of_memory_count_for_the_memory(path: str) -> None:
    killed = BUILD._replace(outcome="oom", held_s=1.0, memory=8_000_000_000)
    filled(path, BUILD, killed, killed)

    assert expected(path, BUILD.label) == Expected((1.0, 1.0, 99.5), 99.5, 8_000_000_000)


def test_without_a_measured_one_the_memory_is_unknown(path: str) -> None:
    filled(path, BUILD._replace(memory=None))

    assert expected(path, BUILD.label) == Expected((99.5,), 99.5, None)


def test_a_label_that_never_ended_well_has_no_usual_length_and_one_without_a_slot_is_left_out(path: str) -> None:
    filled(path, BUILD, BUILD._replace(label="b", outcome="failed"), TIMEOUT._replace(label="c"))
    filled(path, TIMEOUT._replace(label="d", outcome="done"))  # as only a stranger would write it

    found = expected_many(path, [BUILD.label, "b", "c", "d", "never seen"])

    assert (list(found), found["b"], expected(path, "never seen")) == (
        [BUILD.label, "b"],
        Expected((99.5,), None, None),
        None,
    )


def test_nothing_is_expected_of_no_history_and_none_is_made_by_asking(path: str) -> None:
    assert (expected(path, "a"), os.path.exists(os.path.dirname(path))) == (None, False)


def test_an_empty_file_is_a_history_without_rows(path: str) -> None:
    os.makedirs(os.path.dirname(path))
    Path(path).touch(0o640)

    before = expected(path, BUILD.label)
    filled(path, BUILD)

    assert (before, kept(path), mode(path)) == (None, [BUILD], "0o640")


def test_the_question_is_answered_by_an_index_alone(path: str) -> None:
    filled(path, BUILD)
    asked: list[str] = []

    with closing(sqlite3.connect(path)) as connection:
        connection.set_trace_callback(asked.append)
        finished._expected(connection, BUILD.label)
        connection.set_trace_callback(None)
        plans = [row[3] for text in asked for row in connection.execute(f"EXPLAIN QUERY PLAN {text}")]

    # no scan and no sort: else a million rows would cost a second for each waiting line
    plan = "SEARCH finished USING COVERING INDEX by_label (label=? AND outcome=? AND ended>? AND ended<?)"
    assert plans == [plan] * len(outcomes.HELD)


def test_builds_alike_but_for_a_memory_that_nobody_knows_are_no_riddle(path: str) -> None:
    filled(path, BUILD, BUILD._replace(memory=None), BUILD)

    assert expected(path, BUILD.label) == Expected((99.5,) * 3, 99.5, 2_900_000_000)


def test_a_ticket_from_a_damaged_counter_that_no_database_can_hold_is_told(path: str) -> None:
    filled(path, BUILD)

    with pytest.raises(HistoryFailed) as caught:
        record(path, [BUILD._replace(ticket=10**19)], 90)

    assert ("too large" in caught.value.reason, kept(path)) == (True, [BUILD])
