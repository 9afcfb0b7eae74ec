"""Who is alive, who fits and who is next: the whole tables, and properties over all small numbers."""

from __future__ import annotations

from itertools import pairwise
from random import Random

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


# Parties


parties = some.sampled_from(["ua", "ub", "uc"])
waiters = some.lists(
    some.builds(
        RecordName,
        ticket=some.integers(1, 200),
        units=some.integers(1, 3),
        priority=some.integers(-1, 1),
        party=some.sampled_from(["", "ua", "ub", "uc"]),
    ),
    max_size=25,
    unique_by=lambda entry: entry.ticket,
)
holders = some.lists(
    some.builds(RecordName, ticket=some.integers(201, 210), slot=some.integers(1, 4), party=parties), max_size=4
)
admissions = some.lists(
    some.builds(policy.Admission, party=parties, ticket=some.integers(1, 210), priority=some.integers(-1, 1)),
    max_size=60,
)


@steady
@given(waiters)
def test_in_a_pool_that_is_not_fair_parties_mean_nothing(line: list[RecordName]) -> None:
    by_rank = sorted(line, key=policy.rank)

    assert (list(policy.in_order(line)), policy.forecast(line)) == (by_rank, by_rank)


@steady
@given(waiters, holders, admissions)
def test_parties_share_out_the_places_of_their_own_priority_alone(
    line: list[RecordName], holding: list[RecordName], admitted: list[policy.Admission]
) -> None:
    by_rank = sorted(line, key=policy.rank)

    for order in (
        list(policy.in_order(line, policy.Served(holding, admitted))),
        policy.forecast(line, policy.Served(holding, admitted)),
    ):
        assert sorted(order) == sorted(line)
        assert [(one.priority, bool(one.party)) for one in order] == [
            (one.priority, bool(one.party)) for one in by_rank
        ]
        # one of a version that knows no parties keeps its very place
        assert [place for place, one in enumerate(order) if not one.party and one != by_rank[place]] == []
        for entry in order:
            own = [one.ticket for one in order if (one.party, one.priority) == (entry.party, entry.priority)]
            assert own == sorted(own)


@steady
@given(waiters, holders, admissions)
def test_the_forecast_begins_with_the_one_that_is_called(
    line: list[RecordName], holding: list[RecordName], admitted: list[policy.Admission]
) -> None:
    called = next(policy.in_order(line, policy.Served(holding, admitted)), None)

    assert policy.forecast(line, policy.Served(holding, admitted))[:1] == ([called] if called else [])


@steady
@given(waiters, holders, admissions, some.sets(some.integers(1, 200)))
def test_one_that_may_not_go_changes_nothing_for_the_others(
    line: list[RecordName], holding: list[RecordName], admitted: list[policy.Admission], barred: set[int]
) -> None:
    served = policy.Served(holding, admitted)
    able = [entry for entry in line if entry.ticket not in barred]

    found = policy.in_order(line, served, lambda entry: entry.ticket not in barred)

    assert list(found) == list(policy.in_order(able, served))


@steady
@given(some.lists(some.integers(1, 200), unique=True, max_size=30), holders, admissions, parties)
def test_builds_of_one_party_go_in_the_order_of_their_tickets(
    tickets: list[int], holding: list[RecordName], admitted: list[policy.Admission], party: str
) -> None:
    order = policy.in_order([RecordName(ticket, party=party) for ticket in tickets], policy.Served(holding, admitted))

    assert [entry.ticket for entry in order] == sorted(tickets)


class FairLine:
    """A fair pool as the rules want it: all take one slot, and note their admissions."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.ticket = 0
        self.waiting: list[RecordName] = []
        self.running: list[RecordName] = []
        self.admissions: tuple[policy.Admission, ...] = ()
        self.admitted: list[RecordName] = []
        self.overtaken: dict[int, int] = {}

    def arrive(self, party: str) -> RecordName:
        self.ticket += 1
        newcomer = RecordName(self.ticket, party=party)
        self.waiting.append(newcomer)
        self.admit()
        return newcomer

    def end(self, number: int) -> None:
        if self.running:
            del self.running[number % len(self.running)]
            self.admit()

    def admit(self) -> None:
        while self.waiting and len(self.running) < self.capacity:
            first = next(policy.in_order(self.waiting, policy.Served(self.running, self.admissions)))
            self.waiting.remove(first)
            self.running.append(first._replace(slot=policy.lowest_free_slot([one.slot for one in self.running])))
            latest = policy.Admission(first.party, first.ticket, first.priority)
            self.admissions = policy.noted(self.admissions, latest)
            self.admitted.append(first)
            for other in self.waiting:
                if other.ticket < first.ticket:
                    self.overtaken[other.ticket] = self.overtaken.get(other.ticket, 0) + 1


@steady
@given(
    some.integers(1, 4), some.lists(some.one_of(some.sampled_from("ab"), some.integers(0, 3)), max_size=80), some.data()
)
def test_a_single_build_waits_for_one_build_of_another_party_at_most_besides_those_that_hold(
    capacity: int, story: list[str | int], data: some.DataObject
) -> None:
    line = FairLine(capacity)
    for event in story:
        line.end(event) if isinstance(event, int) else line.arrive(event)
    # the party's own builds are over, however many it had
    line.waiting = [entry for entry in line.waiting if entry.party != "b"]
    line.running = [entry for entry in line.running if entry.party != "b"]
    line.admit()
    for _ in range(data.draw(some.integers(0, 30))):
        line.arrive("a")
    before = len(line.admitted)
    single = line.arrive("b")
    while single in line.waiting:
        line.arrive("a")
        line.end(data.draw(some.integers(0, 3)))

    assert line.admitted.index(single) - before <= 1


@pytest.mark.parametrize("capacity", [1, 2, 3])
@pytest.mark.parametrize("own", [1, 5])
def test_new_parties_without_end_overtake_a_build_a_bounded_number_of_times(capacity: int, own: int) -> None:
    line = FairLine(capacity)
    line.arrive("a")
    for _ in range(capacity - 1):
        line.arrive("b")
    builds = [line.arrive("a") for _ in range(own)]
    for stranger in range(own * policy.OVERTAKEN * 2):
        line.arrive(f"new{stranger}")
        # the build of the party itself never ends, where there is another slot
        line.end(len(line.running) - 1)

    counts = [line.overtaken.get(build.ticket, 0) for build in builds]
    assert [build for build in builds if build in line.waiting] == []
    assert [place for place, count in enumerate(counts, 1) if count > policy.OVERTAKEN * place] == []


@steady
@given(some.lists(some.one_of(some.sampled_from(["a", "b", "c", "d"]), some.integers(0, 3)), max_size=200))
def test_whatever_comes_and_ends_no_build_is_overtaken_for_ever(story: list[str | int]) -> None:
    line = FairLine(2)
    for event in story:
        line.end(event) if isinstance(event, int) else line.arrive(event)
    while line.running:
        line.end(0)

    builds = {entry.ticket: [other.party for other in line.admitted].count(entry.party) for entry in line.admitted}
    assert line.waiting == []
    assert all(count <= policy.OVERTAKEN * builds[ticket] for ticket, count in line.overtaken.items())


@pytest.mark.parametrize("others", [1, 3, 25])
def test_a_burst_beside_parties_that_come_again_and_again_never_has_two_turns_in_a_row(others: int) -> None:
    line = FairLine(1)
    for _ in range(5 * policy.OVERTAKEN):
        line.arrive("a")
    for _ in range(3 * policy.OVERTAKEN // others + 2):
        for number in range(others):
            line.arrive(f"b{number}")
        for _ in range(others + 1):
            line.end(0)

    turns = [entry.party == "a" for entry in line.admitted]
    assert (turns.count(True) > 2, [number for number, both in enumerate(pairwise(turns)) if all(both)]) == (True, [])


def test_the_forecast_counts_what_a_party_gets_for_those_behind() -> None:
    waiting = [RecordName(ticket, party=party) for ticket, party in enumerate("aaabbc", 2)]

    order = policy.forecast(waiting, policy.Served([RecordName(1, slot=1, party="a")], [policy.Admission("a", 1, 0)]))

    assert "".join(entry.party for entry in order) == "bcabaa"


def test_a_burst_makes_no_build_of_its_own_overdue() -> None:  # INV-6f
    served = policy.Served([], [policy.Admission("a", ticket, 0) for ticket in range(1, 100)])

    order = policy.in_order(
        [*(RecordName(ticket, party="a") for ticket in range(100, 130)), RecordName(130, party="b")], served
    )

    assert next(order).ticket == 130


def test_one_that_holds_counts_once_with_all_that_is_nested_in_it() -> None:
    holding = [RecordName(1, slot=1, party="a"), RecordName(2, slot=1, party="a", within=1)]
    holding.append(RecordName(3, slot=2, units=2, party="b"))

    order = policy.in_order([RecordName(4, party="b"), RecordName(5, party="a")], policy.Served(holding, []))

    assert [entry.ticket for entry in order] == [5, 4]


@steady
@given(some.randoms(use_true_random=False), some.integers(0, 400))
def test_what_is_noted_of_admissions_is_enough_and_never_grows(chance: Random, count: int) -> None:
    stream = [(chance.randrange(200), chance.choice([0, 0, 0, 5])) for _ in range(count)]
    log: tuple[policy.Admission, ...] = ()
    everything = [policy.Admission(f"u{party}", ticket, priority) for ticket, (party, priority) in enumerate(stream, 1)]
    for latest in everything:
        log = policy.noted(log, latest)

    recent = list(dict.fromkeys(one.party for one in reversed(everything)))[: policy.PARTIES]
    assert len(log) <= policy.OVERTAKEN * 40 + policy.PARTIES
    assert set(recent) <= {one.party for one in log}
    for priority in {one.priority for one in everything}:
        last = [one for one in everything if one.priority == priority][-policy.OVERTAKEN :]
        assert [one for one in log if one in last] == last
