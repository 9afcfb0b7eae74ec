"""Who is alive, who fits and who is next: the whole tables, and properties over all small numbers."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from ipclock.pool import policy
from ipclock.pool.policy import ALIVE, DEAD, UNKNOWN
from ipclock.pool.record_name import RecordName

ANY = (True, False, None)
counts = some.integers(0, 2000)
steady = settings(deadline=None, derandomize=True)


@pytest.mark.parametrize(
    ("beacon", "kind", "processes", "expected"),
    [
        (True, "fd", ANY, ALIVE),
        (True, "pid", ANY, ALIVE),
        (True, "", ANY, ALIVE),
        (None, "fd", ANY, UNKNOWN),
        (None, "pid", ANY, UNKNOWN),
        (None, "", ANY, UNKNOWN),
        (False, "fd", (True,), ALIVE),
        (False, "fd", (False, None), DEAD),
        (False, "pid", (True,), ALIVE),
        (False, "pid", (False,), DEAD),
        (False, "pid", (None,), UNKNOWN),
        (False, "", ANY, UNKNOWN),
    ],
)
def test_only_a_proof_makes_a_holder_dead(
    beacon: bool | None, kind: str, processes: tuple[bool | None, ...], expected: str
) -> None:
    assert {policy.verdict(kind, beacon, process) for process in processes} == {expected}


@pytest.mark.parametrize(
    ("alive", "supervisor", "stopped", "expected"),
    [
        (ALIVE, True, False, "running"),
        (ALIVE, True, True, "stopped"),
        (ALIVE, False, False, "orphaned"),
        (ALIVE, False, True, "orphaned"),
        (ALIVE, None, False, "unknown"),
        (UNKNOWN, True, False, "unknown"),
        (DEAD, True, False, "unknown"),
    ],
)
def test_a_holder_is_called_what_is_known_of_it(
    alive: str, supervisor: bool | None, stopped: bool, expected: str
) -> None:
    assert policy.holder_state(alive, supervisor, stopped) == expected


@steady
@given(counts)
def test_a_drained_pool_allows_nobody(capacity: int) -> None:
    assert (policy.limit(capacity, False), policy.limit(capacity, True)) == (capacity, 0)


@steady
@given(held=counts, wanted=some.integers(1, 1000), allowed=counts)
def test_a_build_is_admitted_only_if_all_its_units_fit(held: int, wanted: int, allowed: int) -> None:
    reserved = policy.units_to_reserve(held, wanted, allowed)

    assert policy.may_admit(held, wanted, allowed) == (held + wanted <= allowed) == (reserved == wanted)
    assert (0 <= reserved <= wanted, held + reserved <= max(held, allowed)) == (True, True)


@steady
@given(held=counts, allowed=counts, value=counts)
def test_after_the_post_the_value_is_the_number_of_free_slots(held: int, allowed: int, value: int) -> None:
    levelled = value + policy.units_to_post(held, allowed, value)

    assert (levelled, policy.units_to_post(held, allowed, levelled)) == (max(0, allowed - held), 0)


@steady
@given(some.sets(some.integers(1, 1100), max_size=1100))
def test_the_lowest_slot_that_nobody_has_is_given(taken: set[int]) -> None:
    slot = policy.lowest_free_slot(taken)

    assert (slot in taken, set(range(1, slot)) <= taken) == (False, True)


# The line


@steady
@given(some.permutations(range(1, 30)), some.integers(-20, 19))
def test_within_a_priority_waiters_are_called_in_the_order_of_their_tickets(tickets: list[int], priority: int) -> None:
    ordered = policy.in_order([RecordName(ticket, priority=priority) for ticket in tickets])

    assert [entry.ticket for entry in ordered] == list(range(1, 30))


def test_a_step_of_priority_is_worth_ten_places() -> None:
    waiters = [RecordName(1, priority=1), *(RecordName(ticket) for ticket in range(2, 14)), RecordName(14, priority=-1)]

    ordered = [entry.ticket for entry in policy.in_order(waiters)]

    # the last one passes those that came up to ten places before it; the first one lets as many pass
    assert ordered == [2, 3, 4, 14, 5, 6, 7, 8, 9, 10, 1, 11, 12, 13]


def test_the_further_back_one_stands_the_longer_it_sleeps_but_never_long() -> None:
    naps = [policy.nap(place) for place in range(1, 2001)]

    assert (naps == sorted(naps), set(naps[: policy.NEAR])) == (True, {naps[0]})
    assert (naps[0] < 2, max(naps) <= 30) == (True, True)


def test_a_line_of_a_thousand_wakes_up_at_most_five_times_as_often_as_one_of_twenty() -> None:
    def wakes_a_second(count: int) -> float:
        return sum(1 / policy.nap(place) for place in range(1, count + 1))

    assert wakes_a_second(1000) <= 5 * wakes_a_second(20)


@pytest.mark.parametrize("count", [0, 1, 31, 32, 1000, 2000])
def test_of_a_long_line_a_part_is_looked_at_each_second_and_in_time_everybody(count: int) -> None:
    waiters = [RecordName(ticket) for ticket in range(7, 7 + count)]
    seconds = 1 + count // policy.SWEPT
    parts = [policy.in_turn(waiters, 1e6 + second) for second in range(seconds)]

    assert (sorted(entry for part in parts for entry in part), max(map(len, parts)) <= policy.SWEPT) == (waiters, True)


@pytest.mark.parametrize(
    ("limit", "holders", "expected"),
    [
        (1, [], True),
        (1, [("a", 0)], False),
        (1, [("b", 1)], True),
        (2, [("a", 2)], True),
        (2, [("a", 2), ("a", 2)], False),
        (2, [("a", 1)], False),  # it asked to be alone
        (0, [("a", 1)], False),
        (0, [("a", 0), ("a", 0)], True),
    ],
)
def test_the_lowest_limit_of_a_label_counts(limit: int, holders: list[tuple[str, int]], expected: bool) -> None:
    beside = [(RecordName(number, limit=its), key) for number, (key, its) in enumerate(holders)]

    assert policy.has_room_for_label(RecordName(9, limit=limit), "a", beside) == expected


class Line:
    """The queue as the rules want it, with builds that end when they are told to: no processes, no files."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.labels: dict[int, str] = {}
        self.waiting: list[RecordName] = []
        self.running: list[RecordName] = []
        self.overtaken: dict[int, int] = {}

    def arrive(self, units: int, priority: int, label: str, limit: int) -> None:
        ticket = len(self.labels) + 1
        self.labels[ticket] = label
        self.waiting.append(RecordName(ticket, units=units, priority=priority, limit=limit))
        self.admit()

    def end(self, number: int) -> None:
        if self.running:
            del self.running[number % len(self.running)]
            self.admit()

    def may_go(self, entry: RecordName) -> bool:
        beside = [(holder, self.labels[holder.ticket]) for holder in self.running]
        fits = entry.units <= self.capacity
        return fits and policy.has_room_for_label(entry, self.labels[entry.ticket], beside)

    def admit(self) -> None:
        """Admit the first that may go as long as it fits, and see that every promise holds."""
        while first := next(filter(self.may_go, policy.in_order(self.waiting)), None):
            if not policy.may_admit(policy.units(self.running), first.units, self.capacity):
                break
            for other in self.waiting:
                assert not (self.may_go(other) and policy.rank(other) < policy.rank(first)), "overtaken"
                if other.ticket < first.ticket and self.may_go(other):
                    self.overtaken[other.ticket] = self.overtaken.get(other.ticket, 0) + 1
            self.waiting.remove(first)
            self.running.append(first)
            self.check()

    def check(self) -> None:
        assert policy.units(self.running) <= self.capacity, "more than N"
        for holder in self.running:
            label = self.labels[holder.ticket]
            beside = [other for other in self.running if self.labels[other.ticket] == label]
            assert not holder.limit or len(beside) <= holder.limit, "more of a label than may be"


arrivals = some.tuples(some.integers(1, 4), some.integers(-20, 19), some.sampled_from("abc"), some.integers(0, 2))
events = some.lists(some.one_of(arrivals, some.integers(0, 9)), max_size=60)


@steady
@given(some.integers(1, 4), events)
def test_whoever_comes_and_ends_in_any_order_the_promises_hold_and_nobody_starves(
    capacity: int, story: list[tuple[int, int, str, int] | int]
) -> None:
    line = Line(capacity)
    for event in story:
        line.end(event) if isinstance(event, int) else line.arrive(*event)
        first = next(filter(line.may_go, policy.in_order(line.waiting)), None)
        # work-conserving: the first that may go waits for nothing but units
        assert not first or not policy.may_admit(policy.units(line.running), first.units, capacity)
    while line.running:
        line.end(0)

    assert [entry for entry in line.waiting if entry.units <= capacity] == []
    assert all(count <= policy.PLACES * 39 for count in line.overtaken.values())


@steady
@given(some.integers(-20, 19), some.integers(-20, 19))
def test_nobody_is_overtaken_by_one_that_comes_late_enough(own: int, others: int) -> None:
    waiter = RecordName(1000, priority=own)
    late = RecordName(1000 + policy.PLACES * max(0, own - others) + 1, priority=others)

    assert policy.rank(waiter) < policy.rank(late)
