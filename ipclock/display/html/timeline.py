"""Where things lie in a drawing of the past: strips of time, lanes, steps of an axis. Pure; knows no picture.

A strip is a piece of the timeline as long as a line of the page. In it each slot has a lane with the builds that held
it, and below them their waits, which lie side by side where they overlap. Times are seconds of the epoch.
"""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING, NamedTuple

from ipclock.history.statistics import Grid

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ipclock.history.finished import Row

DAY = 86400
MOST_STRIPS = 14
# how long a strip may be, and how far apart the marks of its axis are
STRIPS = ((300, 60), (900, 180), (3600, 600), (10800, 1800), (21600, 3600), (43200, 7200), (DAY, 10800))
STEPS = (1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1200, 1800, 3600, 7200, 10800, 21600, 43200, DAY)
DAYS = (2, 7, 14, 30, 90, 365)
SAME_S = 0.05  # what overlaps by less was one after the other: the clock's rounding


class Piece(NamedTuple):
    """What of a wait or a hold lies in a strip, on which `level` of its lane; `ends` unless it goes on in the next."""

    row: Row
    begin: float
    end: float
    level: int
    ends: bool


class Lane(NamedTuple):
    """What happened to one slot in a strip; 0 is that of the waits that ended without one."""

    slot: int
    holds: list[Piece]
    waits: list[Piece]


class Strip(NamedTuple):
    """A stretch of the timeline; `step` is how far apart the marks of its axis are."""

    begin: float
    end: float
    step: int
    lanes: list[Lane]


def wait_of(row: Row) -> tuple[float, float]:
    """Return from when to when it waited. By the spans, which no step of the wall clock has changed."""
    over = row.ended - (row.held_s or 0)
    return over - row.waited_s, over


def hold_of(row: Row) -> tuple[float, float]:
    """Return from when to when it held its slot."""
    return row.ended - (row.held_s or 0), row.ended


def midnight(when: float) -> float:
    """Return the beginning of that local day."""
    day = time.localtime(when)
    return time.mktime((day.tm_year, day.tm_mon, day.tm_mday, 0, 0, 0, 0, 0, -1))


def strips(rows: Sequence[Row]) -> list[Strip]:
    """Return the last MOST_STRIPS stretches in which something happened, the oldest first; empty ones are left out."""
    if not rows:
        return []
    begin = min(wait_of(row)[0] for row in rows)
    end = max(row.ended for row in rows)
    length, step = next((pair for pair in STRIPS if end - begin <= 6 * pair[0]), STRIPS[-1])
    origin = midnight(begin)

    def number(when: float) -> int:
        return round((midnight(when) - origin) / DAY) if length == DAY else int((when - origin) // length)

    def start(number: int) -> float:
        # a day is from midnight to midnight, though it be one of 23 hours or 25
        return midnight(origin + (number + 0.5) * DAY) if length == DAY else origin + number * length

    busy: set[int] = set()
    for row in rows:
        last = number(row.ended)
        busy.update(range(max(number(wait_of(row)[0]), last - MOST_STRIPS), last + 1))
    found = [_strip(rows, start(one), start(one + 1), step) for one in sorted(busy)[-MOST_STRIPS:]]
    return [strip for strip in found if strip.lanes]


def _strip(rows: Sequence[Row], begin: float, end: float, step: int) -> Strip:
    lanes = []
    by_slot: dict[int, list[Row]] = {}
    for row in rows:
        if row.ended >= begin and wait_of(row)[0] < end:
            by_slot.setdefault(0 if row.held_s is None else row.slot or 1, []).append(row)
    for slot in sorted(by_slot, key=lambda slot: slot or float("inf")):
        inside = by_slot[slot]
        holds = _packed([(row, *hold_of(row)) for row in inside if slot], begin, end)
        waits = _packed([(row, *wait_of(row)) for row in inside if row.waited_s >= SAME_S or not slot], begin, end)
        if holds or waits:
            lanes.append(Lane(slot, holds, waits))
    return Strip(begin, end, step, lanes)


def _packed(spans: list[tuple[Row, float, float]], begin: float, end: float) -> list[Piece]:
    """Return what of the spans lies within, each on the lowest level that is free."""
    pieces: list[Piece] = []
    free: list[float] = []  # from when, by level
    for row, first, last in sorted(spans, key=lambda span: span[1:]):
        if first >= end or first < begin >= last:
            continue  # before or after; what ends as the strip begins has left nothing to see in it
        level = next((level for level, since in enumerate(free) if since <= first + SAME_S), len(free))
        free[level : level + 1] = [last]
        pieces.append(Piece(row, max(first, begin), min(last, end), level, last <= end))
    return pieces


def before(rows: Sequence[Row]) -> dict[Row, Row]:
    """Return for each build the one that it waited for: that held its slot until it got it."""
    found: dict[Row, Row] = {}
    last: dict[int | None, Row] = {}
    for row in sorted((row for row in rows if row.held_s is not None), key=lambda row: hold_of(row)[0]):
        previous = last.get(row.slot)
        if previous and wait_of(row)[0] < previous.ended <= hold_of(row)[0] + SAME_S:
            found[row] = previous
        last[row.slot] = row
    return found


def grid(begin: float, end: float, most: int = 96) -> Grid:
    """Return at most so many even spans that together hold *begin* to *end*."""
    step = _step(end - begin, most - 2)
    first = midnight(begin) + (begin - midnight(begin)) // step * step
    return Grid(first, step, int((end - first) // step) + 1)


def ticks(begin: float, end: float, most: int = 7) -> list[tuple[float, str]]:
    """Return the marks of an axis from *begin* to *end*: when, and in which words."""
    step = _step(end - begin, most)
    first = midnight(begin)
    first += -((first - begin) // step) * step
    # by the middle of its day: after a change to or from summer time, midnight is an hour off
    shift, form = (DAY / 2, "%m-%d") if step >= DAY else (0, "%H:%M" if step >= 60 else "%H:%M:%S")
    times = [first + number * step for number in range(int((end - first) // step) + 1)]
    return [(when, time.strftime(form, time.localtime(when + shift))) for when in times]


def marks(strip: Strip) -> list[tuple[float, str]]:
    """Return the marks of a strip's axis; none at its end, where the next one begins."""
    form = "%H:%M" if strip.step >= 60 else "%H:%M:%S"
    times = [strip.begin + number * strip.step for number in range(int(strip.end - strip.begin) // strip.step + 1)]
    return [(when, time.strftime(form, time.localtime(when))) for when in times if strip.end - when > strip.step / 2]


def rounded(longest: float) -> float:
    """Return the end of an axis for spans of at most so many seconds; half of it is round too."""
    ends = (2, 4, 10, 20, 40, 60, 120, 240, 600, 1200, 2400, 3600, *(hours * 3600 for hours in (2, 4, 8, 16, 24, 48)))
    return next((end for end in ends if longest <= end), math.ceil(longest / (4 * DAY)) * 4 * DAY)


def _step(length: float, most: int) -> float:
    steps = (*STEPS, *(days * DAY for days in DAYS))
    return next((step for step in steps if length <= step * most), length / most)
