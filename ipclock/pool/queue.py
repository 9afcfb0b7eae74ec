"""The queue of a pool: which waiters may go to the gate, and in which order. Reads records where labels matter.

Changes nothing, and does not ask which clients live: `protocol` does, which calls these in the mutex.
"""

from __future__ import annotations

from ipclock._typing import TYPE_CHECKING
from ipclock.pool import policy
from ipclock.pool.directory import GATE, HOLDING, QUEUED
from ipclock.pool.record_name import key_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ipclock.pool.record_name import RecordName
    from ipclock.pool.records import Store


def served(store: Store, waiters: Iterable[RecordName]) -> policy.Served | None:
    """Return what the parties of these waiters have had; None where it is first come, first served."""
    if not any(entry.party for entry in waiters):  # in a pool that is not fair nothing more is read
        return None
    found = store.fairness
    return policy.Served(store.entries(HOLDING), found.admissions) if found else None


def line(store: Store) -> list[tuple[str, RecordName]]:
    """Return all that wait, each with the directory of its record, in the order in which they will be admitted."""
    states = {entry: state for state, entry in waiting(store)}
    return [(states[entry], entry) for entry in policy.forecast(states, served(store, states))]


def eligible(store: Store, state: str, entry: RecordName, holders: list[RecordName], capacity: int) -> bool:
    """Return whether a waiter may be the next one."""
    return not held_back(store, state, entry, holders, capacity)


def held_back(store: Store, state: str, entry: RecordName, holders: list[RecordName], capacity: int) -> str:
    """Return what lets later ones pass a waiter; "" if nothing does.

    "silent": it was called and did not act; "size": the pool is too small; "label": that one has no room.
    """
    if entry.silent:
        return "silent"
    if entry.units > capacity:
        return "size"
    if not policy.counts_labels(entry, holders):
        return ""
    beside = [(holder, label_key(store, HOLDING, holder)) for holder in holders]
    return "" if policy.has_room_for_label(entry, label_key(store, state, entry), beside) else "label"


def due_at_once(store: Store, wanted: RecordName, label: str, capacity: int, allowed: int) -> bool:
    """Return whether a newcomer gets its slots without waiting for an end of any build, nor taking those of others."""
    # free units are not enough: they are due to those ahead that may go (INV-6d)
    holders = store.entries(HOLDING)
    able = {entry: state for state, entry in waiting(store) if eligible(store, state, entry, holders, capacity)}
    mine = wanted._replace(ticket=max((entry.ticket for _, entry in waiting(store)), default=0) + 1)
    order = policy.forecast([*able, mine], served(store, [*able, mine]))
    taken = [(HOLDING, holder) for holder in holders]
    taken += [(able[entry], entry) for entry in order[: order.index(mine)]]
    beside = [(entry, label_key(store, state, entry)) for state, entry in taken]
    room = policy.may_admit(policy.units(entry for entry, _ in beside), wanted.units, allowed)
    return room and policy.has_room_for_label(wanted, key_of(label), beside)


def waiting(store: Store) -> list[tuple[str, RecordName]]:
    """Return all that wait, each with the directory of its record; without those that are to leave."""
    return [(state, entry) for state in (GATE, QUEUED) for entry in store.entries(state) if not entry.by]


def place(store: Store, ticket: int) -> int:
    """Return the place in line of a waiter, from 1."""
    tickets = [entry.ticket for _, entry in line(store)]
    return 1 + tickets.index(ticket) if ticket in tickets else 1


def of_label(store: Store, label: str) -> list[tuple[str, RecordName]]:
    """Return those of `waiting` that have this label."""
    records = ((place, store.read(*place)) for place in waiting(store) if label_key(store, *place) == key_of(label))
    return [place for place, record in records if record and record.fields.get("label") == label]


def label_key(store: Store, state: str, entry: RecordName) -> str:
    """Return what stands for the label of a record; "" for one that is gone."""
    if entry.key:
        return entry.key
    record = store.read(state, entry)
    return key_of(record.fields.get("label", "")) if record else ""
