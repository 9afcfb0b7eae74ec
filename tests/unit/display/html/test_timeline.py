"""Where the builds of a past lie in its drawing: strips, lanes, levels, and the steps of the axes."""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from ipclock.display.html import timeline
from tests.helpers.histories import build, wait
from tests.unit.display.html.drawing import NOON

if TYPE_CHECKING:
    from collections.abc import Iterator

HOUR = 3600.0
DAY = 24 * HOUR


@contextmanager
def zone(name: str) -> Iterator[None]:
    """Live in another time zone for a while."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TZ", name)
        time.tzset()
        yield
    time.tzset()


def placed(pieces: list[timeline.Piece], begin: float) -> list[tuple[str, float, float, int]]:
    return [(piece.row.label, piece.begin - begin, piece.end - begin, piece.level) for piece in pieces]


def test_a_hold_lies_in_its_slots_lane_and_its_wait_ends_where_it_begins() -> None:
    rows = [build("a", NOON, 100, slot=1), build("b", NOON + 100, 60, waited_s=80, slot=1), build("c", NOON, 9, slot=3)]

    (strip,) = timeline.strips(rows)

    assert [(lane.slot, placed(lane.holds, NOON), placed(lane.waits, NOON)) for lane in strip.lanes] == [
        (1, [("a", 0, 100, 0), ("b", 100, 160, 0)], [("b", 20, 100, 0)]),
        (3, [("c", 0, 9, 0)], []),
    ]


def test_waits_that_overlap_lie_side_by_side_and_a_free_level_is_used_again() -> None:
    spans = ((0, 100), (10, 60), (20, 80), (60, 90))
    rows = [build(f"{begin}", NOON + end, 1, waited_s=end - begin) for begin, end in spans]

    (strip,) = timeline.strips(rows)

    assert [(piece.row.label, piece.level) for piece in strip.lanes[0].waits] == [
        ("0", 0),
        ("10", 1),
        ("20", 2),
        ("60", 1),
    ]


def test_what_ended_without_a_slot_lies_in_the_last_lane() -> None:
    rows = [wait("late", NOON, 60), build("a", NOON, 60, slot=2), wait("busy", NOON, 0, "busy")]

    (strip,) = timeline.strips(rows)

    lanes = [(lane.slot, [piece.row.label for piece in lane.holds + lane.waits]) for lane in strip.lanes]
    assert lanes == [(2, ["a"]), (0, ["busy", "late"])]


def test_a_build_that_goes_on_after_a_strips_end_lies_in_both() -> None:
    rows = [build("early", NOON - 20 * HOUR, 10), build("a", NOON - 600, 1200)]

    strips = timeline.strips(rows)

    found = [(strip.begin - NOON, placed(strip.lanes[0].holds, NOON), strip.lanes[0].holds[0].ends) for strip in strips]
    assert found[1:] == [(-6 * HOUR, [("a", -600, 0, 0)], False), (0, [("a", 0, 600, 0)], True)]


def test_what_ends_as_a_strip_ends_is_not_in_the_next_one() -> None:
    strips = timeline.strips([build("a", NOON - 60, 60), build("none", NOON, 0)])

    found = [(strip.begin - NOON, [piece.row.label for piece in strip.lanes[0].holds]) for strip in strips]
    assert found == [(-300, ["a"]), (0, ["none"])]


@pytest.mark.parametrize(
    ("length", "strip", "marks"),
    [(1, 300, 5), (HOUR, 900, 5), (5 * HOUR, HOUR, 6), (2 * DAY, DAY / 2, 6), (7 * DAY, DAY, 8), (999 * DAY, DAY, 8)],
)
def test_strips_are_as_long_as_suits_the_past(length: float, strip: float, marks: int) -> None:
    found = timeline.strips([build("a", NOON - length, 1), build("a", NOON - 1, 1)])

    assert ({one.end - one.begin for one in found}, {len(timeline.marks(one)) for one in found}) == ({strip}, {marks})


def test_only_the_last_strips_are_drawn_and_empty_ones_take_no_room() -> None:
    rows = [build(f"{day}", NOON + day * DAY, HOUR) for day in range(0, 100, 2)]

    strips = timeline.strips(rows)

    drawn = [piece.row.label for strip in strips for lane in strip.lanes for piece in lane.holds]
    assert drawn == [f"{day}" for day in range(72, 100, 2)]


def test_a_day_is_from_midnight_to_midnight_when_the_clocks_change() -> None:
    with zone("Europe/Berlin"):
        october = time.mktime((2026, 10, 22, 12, 0, 0, 0, 0, -1))  # the 25th has 25 hours
        strips = timeline.strips([build("a", october + day * DAY, HOUR) for day in range(7)])
        found = [
            (time.strftime("%d %H:%M", time.localtime(strip.begin)), (strip.end - strip.begin) / HOUR)
            for strip in strips
        ]

    hours = {22: 24, 23: 24, 24: 24, 25: 25, 26: 24, 27: 24, 28: 24}
    assert found == [(f"{day} 00:00", length) for day, length in hours.items()]


def test_a_build_waited_for_the_one_that_held_its_slot_until_then() -> None:
    first, other = build("first", NOON, 100, slot=1), build("other", NOON, 90, slot=2)
    waiter = build("waiter", NOON + 100.01, 10, waited_s=50, slot=1)
    at_once = build("at once", NOON + 200, 10, slot=1)

    # its slot was taken away and given on, and it built on
    evicted = build("evicted", NOON + 300, 900, slot=1, outcome="evicted")
    heir = build("heir", NOON + 400, 10, waited_s=50, slot=1)

    assert timeline.before([heir, evicted, at_once, waiter, other, first]) == {waiter: first}


@pytest.mark.parametrize(
    ("length", "step", "marks"),
    [
        (60, 1, ["12:00:00", "12:00:10", "12:00:20", "12:00:30", "12:00:40", "12:00:50", "12:01:00"]),
        (6 * HOUR, 300, ["12:00", "13:00", "14:00", "15:00", "16:00", "17:00", "18:00"]),
        (7 * DAY, 2 * HOUR, ["09-23", "09-24", "09-25", "09-26", "09-27", "09-28", "09-29"]),
        (90 * DAY, DAY, ["10-06", "10-20", "11-03", "11-17", "12-01", "12-15"]),
    ],
)
def test_an_axis_has_round_steps(length: float, step: float, marks: list[str]) -> None:
    grid = timeline.grid(NOON, NOON + length)

    words = [text for _when, text in timeline.ticks(NOON, NOON + length)]

    assert (grid.step_s, words) == (step, marks)
    assert grid.begin <= NOON
    assert grid.begin + grid.spans * grid.step_s > NOON + length


@pytest.mark.parametrize("length", [0, 0.5, 1, 59, 3601, 5 * DAY, 366 * DAY, 60 * 365 * DAY])
def test_a_grid_holds_all_of_a_past_and_is_bounded(length: float) -> None:
    grid = timeline.grid(NOON, NOON + length)

    end = grid.begin + grid.spans * grid.step_s
    assert (
        grid.spans <= 96,
        grid.begin <= NOON,
        end > NOON + length,
        len(timeline.ticks(NOON, NOON + length)) <= 8,
    ) == (
        True,
        True,
        True,
        True,
    )


@pytest.mark.parametrize(
    ("longest", "end"),
    [(0.1, 2), (41, 60), (3601, 7200), (2 * DAY, 2 * DAY), (2.1 * DAY, 4 * DAY), (9 * DAY, 12 * DAY)],
)
def test_an_axis_of_spans_ends_on_a_round_one(longest: float, end: float) -> None:
    assert timeline.rounded(longest) == end
