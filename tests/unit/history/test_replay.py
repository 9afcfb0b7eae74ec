"""The replay of a past with another number of slots: what follows by hand, and that it repeats what really happened."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as some

from ipclock.history import queries
from ipclock.history.replay import Arrival, Course, Figures, Pool, figures, jobs_of, recorded, replay
from ipclock.history.statistics import Past, available
from ipclock.pool import policy
from tests.unit.history.rows import NOW, build, past_of, timeout

if TYPE_CHECKING:
    from pathlib import Path

GB = 2**30


def came(arrived: float, held_s: float | None, label: str = "a", **more: float) -> Arrival:
    """Return a build that waited for nothing."""
    fields = {"waited_s": 0.0, "slots": 1, "memory": None} | more
    return Arrival(arrived, label, held_s=held_s, **fields)  # type: ignore[arg-type]  # a mixture of types


def waits(builds: list[Arrival], pool: Pool, per_label: int = 0) -> list[float | None]:
    """Return the wait of each build, negative where it gave up, None where it is too large."""
    courses = replay(jobs_of(builds, per_label), pool._replace(per_label=per_label))
    return [course and (course.waited_s if course.admitted else -course.waited_s) for course in courses]


THREE = [came(0, 10), came(1, 10), came(2, 10)]


@pytest.mark.parametrize(
    ("builds", "capacity", "expected"),
    [
        pytest.param(THREE, 1, [0, 9, 18], id="one after the other"),
        pytest.param(THREE, 2, [0, 0, 8], id="two at once"),
        pytest.param(THREE, 3, [0, 0, 0], id="all at once"),
        pytest.param([came(0, 10), came(10, 10)], 1, [0, 0], id="one comes as the other ends"),
        pytest.param([came(0, 10), came(1, 10, slots=2), came(2, 1)], 2, [0, 9, 18], id="a large one is not passed"),
        pytest.param([came(0, 10), came(1, 10, slots=3), came(2, 1)], 2, [0, None, 0], id="one too large is passed"),
        pytest.param([came(0, 10), came(1, None, waited_s=5), came(2, 10)], 1, [0, -5, 8], id="one gives up again"),
        pytest.param([came(0, 10), came(1, None, waited_s=5), came(2, 9)], 2, [0, 0, 8], id="one need not give up"),
        pytest.param(
            [came(0, 10), came(1, None, slots=2, waited_s=5), came(2, 1)],
            2,
            [0, -5, 4],
            id="its leaving lets others go",
        ),
        pytest.param([came(0, 10), came(1, None, waited_s=9)], 1, [0, 9], id="a slot comes in the last moment"),
        pytest.param([came(0, 10), came(1, None), came(11, None)], 1, [0, 0, 0], id="without waiting"),
    ],
)
def test_waits_follow_from_arrivals_lengths_and_slots(
    builds: list[Arrival], capacity: int, expected: list[float | None]
) -> None:
    assert waits(builds, Pool(capacity)) == expected


def test_a_label_at_its_limit_lets_others_pass() -> None:
    builds = [came(0, 10), came(1, 10), came(2, 10, "b"), came(3, 10)]

    assert waits(builds, Pool(2), per_label=1) == [0, 9, 0, 17]


def test_one_that_gives_up_makes_room_for_the_next_of_its_label() -> None:
    # the third is offered the place of its label at 10, but lacks a slot until 20; it leaves at 15
    builds = [came(0, 10), came(0, 20, "b"), came(1, None, slots=2, waited_s=14), came(2, 10)]

    assert waits(builds, Pool(2), per_label=1) == [0, 0, -14, 13]


MEMORY = [came(0, 10, memory=3 * GB), came(1, 10, memory=3 * GB), came(2, 10, memory=GB), came(30, 5, memory=9 * GB)]


def test_short_memory_is_counted_and_holds_back_only_where_that_was_asked_for() -> None:
    jobs = jobs_of(MEMORY)

    goes, waits_ = (replay(jobs, Pool(3, memory=5 * GB, holds=holds)) for holds in (False, True))

    # the last one does not fit either, but is alone
    assert goes == [Course(0, True), Course(0, True, True), Course(0, True, True), Course(0, True)]
    assert waits_ == [Course(0, True), Course(9, True, True), Course(8, True), Course(0, True)]


def test_what_is_not_known_is_the_median_of_the_label_and_else_of_all() -> None:
    builds = [came(0, 10, memory=GB), came(1, 30, memory=3 * GB), came(2, None), came(3, None, "b"), came(4, 80, "c")]

    jobs = jobs_of(builds)

    assert [job.length_s for job in jobs] == [10, 30, 20, 30, 80]
    assert [job.memory for job in jobs] == [GB, 3 * GB, 2 * GB, 2 * GB, 2 * GB]


def test_the_figures_are_those_by_hand() -> None:
    jobs, pool = jobs_of(THREE), Pool(2, memory=GB)

    found = figures(jobs, replay(jobs, pool), pool, 0, 20, None)

    # waits 0, 0, 8; the slots are in use for 10 + 10 + 10 of 40 s
    assert found == Figures(pytest.approx(8 / 3), pytest.approx(6.4), 8, 0.75, 0, 0, 0)


def test_a_label_has_its_own_waits_and_the_slots_are_everybodys() -> None:
    builds = [came(0, 10), came(1, 10, "b"), came(2, None, "b", waited_s=3)]
    jobs, pool = jobs_of(builds), Pool(1)

    found = figures(jobs, replay(jobs, pool), pool, 0, 40, "b")

    assert found == Figures(6, pytest.approx(8.4), 9, 0.5, 1, None, 0)
    assert recorded(builds, 80, 0, 40, "b") == Figures(1.5, pytest.approx(2.7), 3, 0.25, 1, None, 0)


BUILDS = some.lists(
    some.tuples(some.integers(0, 300), some.integers(1, 50), some.sampled_from("abc"), some.integers(1, 3)),
    min_size=1,
    max_size=30,
)


@given(BUILDS)
def test_where_nothing_overlaps_the_replay_is_what_happened(builds: list[tuple[int, int, str, int]]) -> None:
    now, past = 0.0, []
    for gap, length, label, slots in builds:
        past.append(came(now + gap, length, label, slots=slots))
        now += gap + length

    assert waits(past, Pool(3)) == [0.0] * len(past)


@given(BUILDS, some.integers(3, 6), some.integers(0, 2))
def test_no_more_run_than_there_are_slots_and_the_replay_of_a_replay_is_the_same(
    builds: list[tuple[int, int, str, int]], capacity: int, per_label: int
) -> None:
    past = [came(float(arrived), length, label, slots=slots) for arrived, length, label, slots in sorted(builds)]
    pool = Pool(capacity, per_label)

    first = replay(jobs_of(past, per_label), pool)

    happened = [build._replace(waited_s=course.waited_s) for build, course in zip(past, first, strict=True) if course]
    starts = [build.arrived + build.waited_s for build in happened]
    for start in starts:
        running = [
            build for build, begun in zip(happened, starts, strict=True) if begun <= start < begun + (build.held_s or 0)
        ]
        assert policy.may_admit(sum(build.slots for build in running), 0, capacity)
        if per_label:
            labels = [build.label for build in running]
            assert max(map(labels.count, labels)) <= per_label
    assert replay(jobs_of(happened, per_label), pool) == first
    slot_s = available(Past(0, 1000, [(0, capacity)], []))
    jobs = jobs_of(past, per_label)
    assert figures(jobs, first, pool, 0, 1000, None) == recorded(happened, slot_s, 0, 1000, None)


@given(BUILDS)
def test_first_come_first_served(builds: list[tuple[int, int, str, int]]) -> None:
    past = [came(float(arrived), length, label, slots=slots) for arrived, length, label, slots in sorted(builds)]

    courses = replay(jobs_of(past), Pool(3))

    starts = [build.arrived + course.waited_s for build, course in zip(past, courses, strict=True) if course]
    assert starts == sorted(starts)


def test_arrivals_are_read_in_order_and_without_those_that_never_started(tmp_path: Path) -> None:
    path = tmp_path / "history.db"
    rows = [
        build("a", 100, 50, waited_s=20.0, memory=GB, slots=2),
        build("a", 90, 10, capacity=3),
        timeout("b", 95, 60),
        build("a", 97, 0, outcome="failed")._replace(admitted=None, held_s=None),
        build("a", 500, 1, pool="/other"),
    ]
    past_of(path, *rows)

    past, found = queries.arrivals(str(path), "/oracle-build", NOW, NOW + 1000, 10)
    _past, last = queries.arrivals(str(path), "/oracle-build", NOW, NOW + 1000, 2)

    assert (past.begin, past.capacities) == (NOW + 30, [(NOW + 30, 3), (NOW + 95, 2)])
    assert found == [
        Arrival(NOW + 30, "a", 20.0, 50.0, 2, GB),
        Arrival(NOW + 35, "b", 60.0, None, 1, None),
        Arrival(NOW + 80, "a", 0.0, 10.0, 1, None),
    ]
    assert last == found[:1]
