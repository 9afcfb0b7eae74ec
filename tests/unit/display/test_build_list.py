"""The list of finished builds: what gives way as the terminal gets narrower, and that nothing is wider than it."""

from __future__ import annotations

import pytest

from ipclock.display.build_list import lines
from ipclock.display.cells import columns
from tests.helpers.histories import GB, build, wait

ROWS = [
    build("스테이징 배포", 1767225600.0, 4000, waited_s=90, user="deploy", memory=3 * GB),
    build("web", 1767225600.0, 40, outcome="failed", code=2),
    build("web", 1767225600.0, 40, outcome="signal", code=15, memory=None),
    wait("production", 1767225600.0, 600),
]


def cells(width: int | None) -> list[list[str]]:
    """Return the words of each line without the date."""
    return [line[19:].split() for line in lines(ROWS, width)]


def test_a_wide_terminal_and_a_pipe_show_all() -> None:
    expected = [
        ["label", "user", "outcome", "waited", "took", "memory"],
        ["스테이징", "배포", "deploy", "done", "1", "min", "1", "h", "6", "min", "3.0", "GB"],
        ["web", "root", "failed", "(2)", "0", "s", "40", "s", "2.0", "GB"],
        ["web", "root", "SIGTERM", "0", "s", "40", "s", "-"],
        ["production", "root", "timed", "out", "10", "min", "-", "-"],
    ]

    assert (cells(None), cells(120)) == (expected, expected)


@pytest.mark.parametrize(
    ("width", "heads"),
    [
        (83, ["label", "user", "outcome", "waited", "took", "memory"]),
        (75, ["label", "user", "outcome", "waited", "took"]),
        (65, ["label", "outcome", "waited", "took"]),
        (58, ["label", "outcome", "took"]),
    ],
)
def test_memory_goes_first_then_user_then_wait(width: int, heads: list[str]) -> None:
    assert cells(width)[0] == heads


@pytest.mark.parametrize("width", [*range(1, 100), 200])
def test_no_line_is_wider_than_the_terminal_and_the_columns_stand_below_each_other(width: int) -> None:
    found = list(lines(ROWS, width))

    assert max(map(columns, found)) <= width
    if width >= 90:
        assert len({columns(line) for line in found}) == 1


def test_a_label_is_whole_where_there_is_room_and_cut_by_columns_where_not() -> None:
    whole, cut = (list(lines(ROWS, width))[1] for width in (70, 52))

    assert ("스테이징 배포" in whole, "스테이징 배포" in cut, "스테이징" in cut) == (True, False, True)


def test_a_label_that_moves_the_cursor_is_written_out() -> None:
    assert "\\x1b[2J" in list(lines([build("\x1b[2J", 0, 1)], None))[1]
