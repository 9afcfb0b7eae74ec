"""How long a wait will last: what follows from how long others took, and that nothing is made up."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ipclock.history.simulation import FEWEST, SOON_S, Range, Told, Work, rounded, wait

MINUTE = (60.0,) * 10
SPREAD = tuple(float(second) for second in range(10, 110))
UNKNOWN = (60.0,) * (FEWEST - 1)


@pytest.mark.parametrize(
    ("running", "ahead", "slots", "capacity", "expected"),
    [
        pytest.param([Work(MINUTE, age=20)], [], 1, 1, Range(40, 40), id="the rest of the running one"),
        pytest.param([Work(MINUTE, age=20)], [Work(MINUTE)] * 2, 1, 1, Range(160, 160), id="and those ahead"),
        pytest.param([Work(MINUTE, age=20), Work(MINUTE)], [], 1, 2, Range(40, 40), id="the slot that is free first"),
        pytest.param([Work(MINUTE, age=20), Work(MINUTE)], [], 2, 2, Range(60, 60), id="both slots"),
        pytest.param([Work(MINUTE, 2, 20)], [Work(MINUTE)], 1, 2, Range(40, 40), id="two slots freed at once"),
        pytest.param([Work(MINUTE, 2, 20)], [Work(MINUTE, 2)], 1, 2, Range(100, 100), id="a large one ahead"),
        pytest.param([Work(MINUTE)] * 3, [], 1, 2, Range(60, 60), id="more running than there are slots now"),
        pytest.param([], [], 1, 1, Range(0, 0), id="a free slot"),
        pytest.param([Work(UNKNOWN)], [], 1, 1, None, id="too few builds to know"),
        pytest.param([Work(MINUTE, age=61)], [], 1, 1, None, id="longer than any of its label"),
        pytest.param([Work(MINUTE, age=61), Work(MINUTE)], [], 1, 2, Range(60, 60), id="but the other slot is known"),
        pytest.param([Work(MINUTE)], [Work(())], 1, 1, None, id="one ahead is unknown"),
        pytest.param([Work(MINUTE)], [], 2, 1, None, id="more slots than there are"),
        pytest.param([], [], 1, 0, None, id="no slots at all"),
    ],
)
def test_a_wait_follows_from_what_runs_and_what_is_ahead(
    running: list[Work], ahead: list[Work], slots: int, capacity: int, expected: Range | None
) -> None:
    assert wait(running, ahead, slots, capacity) == expected


def test_the_range_holds_nine_of_ten_waits_and_not_all() -> None:
    dice = random.Random(1)
    found = wait([Work(SPREAD, age=50)], [Work(SPREAD)] * 3, 1, 1)
    assert found

    waits = [
        dice.choice([span for span in SPREAD if span > 50]) - 50 + sum(dice.choices(SPREAD, k=3)) for _ in range(5000)
    ]

    assert 0.85 < sum(found.low <= span <= found.high for span in waits) / len(waits) < 0.95


@pytest.mark.parametrize(
    ("known", "expected"),
    [
        (Range(0, 3), Told("soon", 0, SOON_S)),
        (Range(3, 42), Told("at most", 0, 50)),
        (Range(41, 48), Told("about", 40, 60)),
        (Range(200, 290), Told("about", 180, 300)),
        (Range(100, 290), Told("between", 60, 300)),
        (Range(3700, 9000), Told("between", 3600, 9000)),
    ],
)
def test_an_estimate_is_told_in_whole_steps(known: Range, expected: Told) -> None:
    assert rounded(known) == expected


@settings(deadline=None, derandomize=True)
@given(st.floats(0, 1e6), st.floats(0, 1e6))
def test_what_is_told_never_claims_more_than_is_known(one: float, other: float) -> None:
    known = Range(min(one, other), max(one, other))

    claim = rounded(known)

    assert claim.low <= known.low <= known.high <= claim.high
