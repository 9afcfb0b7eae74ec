"""What known waits and builds amount to: in pure numbers, and read back from a history."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from ipclock.history import statistics
from ipclock.history.statistics import Box, Part, Past, Spread, report
from tests.helpers.histories import keep
from tests.unit.history.rows import NOW, build, past_of, timeout

if TYPE_CHECKING:
    from pathlib import Path


GB = 2**30


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where a history may be made."""
    return tmp_path / "history.db"


@pytest.mark.parametrize(
    ("values", "share", "value"),
    [([5], 0.5, 5), ([1, 2], 0.5, 1.5), ([1, 2, 3], 0.5, 2), ([*range(101)], 0.9, 90), ([0, 10], 0.99, 9.9)],
)
def test_a_quantile_lies_between_its_neighbours_in_proportion(values: list[float], share: float, value: float) -> None:
    assert statistics.quantile(values, share) == pytest.approx(value)


def test_each_label_is_summed_up_and_all_together(path: Path) -> None:
    rows = [build("web", 10.0 * number, 10.0 * number, memory=number * GB, waited_s=1.0) for number in (1, 2, 3)]
    rows += [
        build("web", 500, 300, outcome="failed", memory=4 * GB, waited_s=5.0),
        build("web", 600, 1, outcome="signal"),
        timeout("web", 700, 600.0),
        build("app", 800, 100, outcome="oom", memory=8 * GB),
    ]

    found = report(past_of(path, *rows), 16 * GB)

    web, app = found.labels
    assert web == statistics.Summary(
        label="web",
        builds=6,
        outcomes={"done": 3, "failed": 1, "signal": 1, "timeout": 1},
        waited_s=Spread(mean=608 / 6, p50=1.0, p90=pytest.approx(302.5), p99=pytest.approx(570.25)),
        held_s=Spread(mean=20.0, p50=20.0, p90=pytest.approx(28.0), p99=pytest.approx(29.8)),
        memory=Spread(mean=2.5 * GB, p50=2.5 * GB, p90=pytest.approx(3.7 * GB), p99=pytest.approx(3.97 * GB)),
    )
    assert (web.failed, web.timed_out, app.failed, app.held_s, app.waited_s) == (2, 1, 1, None, Spread(0, 0, 0, 0))
    assert (found.all.builds, found.all.outcomes, found.all.memory and found.all.memory.p50, found.fits) == (
        7,
        {"done": 3, "failed": 1, "signal": 1, "timeout": 1, "oom": 1},
        3 * GB,
        2,  # 16 / 6.4
    )


def test_the_slots_share_counts_every_hold_by_its_weight_whatever_its_end(path: Path) -> None:
    rows = [
        build("a", -5, 1),
        build("a", 100, 100),
        build("a", 500, 100, slots=2, outcome="failed"),
        timeout("a", 9, 9),
    ]

    found = report(past_of(path, *rows), None)

    assert (found.held_slot_s, found.slot_s, found.in_use) == (300, 2000, 0.15)


def test_of_a_build_that_began_before_only_the_rest_counts(path: Path) -> None:
    found = report(past_of(path, build("a", -1, 1), build("a", 10, 5000)), None)

    assert (found.held_slot_s, found.slot_s) == (10, 2000)


def test_a_past_that_begins_later_is_not_taken_for_idle(path: Path) -> None:
    past = past_of(path, build("a", 900, 100), build("b", 1000, 100))

    assert (past.begin, report(past, None).in_use) == (NOW + 800, 0.5)


def test_a_change_of_the_capacity_counts_from_the_first_end_that_tells_of_it(path: Path) -> None:
    rows = [build("a", -1, 1)]
    rows += [build("a", at, 10, capacity=n) for at, n in ((100, 1), (200, 1), (400, 4), (500, 4), (900, 2))]

    past = past_of(path, *rows)

    assert (past.capacities, report(past, None).slot_s) == (
        [(NOW, 1), (NOW + 400, 4), (NOW + 900, 2)],
        400 * 1 + 500 * 4 + 100 * 2,
    )


def test_two_capacities_at_the_same_moment_do_not_take_turns(path: Path) -> None:
    rows = [build("a", 100, 10, capacity=n) for n in (1, 2)]

    assert past_of(path, *rows).capacities in ([(NOW + 90, 1)], [(NOW + 90, 2)])


def test_other_pools_other_times_and_other_labels_are_left_out(path: Path) -> None:
    rows = [build("a", -1, 1), build("a", 10, 1, pool="/other", capacity=9), build("a", 20, 1), build("b", 30, 1)]

    everything = past_of(path, *rows)
    one_label = past_of(path, label="a")
    later = past_of(path, begin=25)

    counts = [{part.label: part.builds for part in past.parts} for past in (everything, one_label, later)]
    assert (counts, everything.capacities, report(one_label, None).slot_s) == (
        [{"a": 1, "b": 1}, {"a": 1}, {"b": 1}],
        [(NOW, 2)],
        2000,
    )


def test_of_no_history_nothing_is_known(path: Path) -> None:
    past = past_of(path)
    found = report(past, 16 * GB)

    assert (past.parts, past.capacities, path.exists()) == ([], [], False)
    assert (found.in_use, found.fits, found.labels, found.all) == (
        None,
        None,
        [],
        statistics.Summary("", 0, {}, *[None] * 3),
    )


def test_without_a_known_memory_it_is_not_told_how_many_fit(path: Path) -> None:
    past = past_of(path, build("a", 10, 1))

    assert (report(past, 16 * GB).fits, report(past, None).fits) == (None, None)


def test_of_very_many_builds_an_even_part_stands_for_all(path: Path) -> None:
    # two labels in turns: every second row, or every n-th, would be of one label alone
    rows = [build("ab"[number % 2], number / 50, float(number), waited_s=number / 2) for number in range(40_000)]
    keep(str(path), rows)

    past = past_of(path)
    found = report(past, None)

    assert [(part.builds, part.stride) for part in past.parts] == [(20_000, 8)] * 2
    assert [len(part.waits) for part in past.parts] == pytest.approx([2500, 2500], rel=0.01)
    for summary, mean in zip((*found.labels, found.all), (19_999, 20_000, 19_999.5), strict=True):
        assert summary.held_s
        assert summary.held_s.mean == mean  # exact, whatever part is read
        assert summary.held_s == pytest.approx((mean, 20_000, 36_000, 39_600), rel=0.01)


def test_parts_of_different_fineness_weigh_as_many_builds_as_they_have() -> None:
    def part(label: str, builds: int, stride: int, value: float) -> Part:
        values = [value] * (builds // stride)
        return Part(label, "done", builds, value * builds, value * builds, 0.0, stride, values, values, [])

    # 8000 fast ones read in part, 2000 slow ones read in full
    found = report(Past(0, 1, [], [part("fast", 8000, 8, 1.0), part("slow", 2000, 1, 100.0)]), None)

    assert found.all.held_s == Spread(mean=20.8, p50=1.0, p90=100.0, p99=100.0)


def test_a_box_holds_what_ended_well(path: Path) -> None:
    rows = [build("a", 10.0 * at, float(at)) for at in range(101)]

    found = statistics.boxes(past_of(path, *rows, build("a", 999, 900, outcome="failed"), timeout("b", 999, 1)))

    assert found == {"a": Box(5, 25, 50, 75, 95)}
