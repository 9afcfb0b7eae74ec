"""Who is alive, who fits and who is next: the whole tables, and properties over all small numbers."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from ipclock import policy
from ipclock.policy import ALIVE, DEAD, UNKNOWN

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
        (False, "fd", ANY, DEAD),
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
@given(held=counts, allowed=counts)
def test_one_more_is_admitted_only_below_the_limit(held: int, allowed: int) -> None:
    assert policy.may_admit(held, allowed) == (held + 1 <= allowed)


@steady
@given(held=counts, ahead=counts, allowed=counts)
def test_a_slot_is_due_at_once_if_all_those_ahead_get_one_too(held: int, ahead: int, allowed: int) -> None:
    served = held
    for _ in range(ahead + 1):  # those ahead, then the one who asks
        fits = policy.may_admit(served, allowed)
        served += fits

    assert policy.due_at_once(held, ahead, allowed) == fits


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


@steady
@given(some.permutations(range(1, 30)))
def test_waiters_are_called_in_the_order_of_their_tickets(tickets: list[int]) -> None:
    assert policy.in_order(tickets) == list(range(1, 30))


def test_tickets_are_compared_as_numbers_not_as_text() -> None:
    assert policy.in_order([10, 9, 100]) == [9, 10, 100]
