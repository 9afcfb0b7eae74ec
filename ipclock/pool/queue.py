"""The queue of a pool: which waiters may go to the gate, and in which order. Reads records where labels matter.

Changes nothing, and does not ask which clients live: `protocol` does, which calls these in the mutex.
"""

from __future__ import annotations

from ipclock._typing import TYPE_CHECKING
from ipclock.pool import policy
from ipclock.pool.directory import GATE, HOLDING, QUEUED
from ipclock.pool.record_name import key_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from ipclock.pool.record_name import RecordName
    from ipclock.pool.records import Store


def candidates(
    store: Store, waiters: Iterable[RecordName], holders: list[RecordName], capacity: int
) -> Iterator[RecordName]:
    """Yield the waiters in `queued/` that may be called, the first in line first."""
    for entry in policy.in_order(waiters):
        if not entry.by and eligible(store, QUEUED, entry, holders, capacity):
            yield entry


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
    mine = wanted._replace(ticket=max((entry.ticket for _, entry in waiting(store)), default=0) + 1)
    ahead = [place for place in waiting(store) if policy.rank(place[1]) < policy.rank(mine)]
    taken = [(HOLDING, holder) for holder in holders]
    taken += [place for place in ahead if eligible(store, *place, holders, capacity)]
    beside = [(entry, label_key(store, state, entry)) for state, entry in taken]
    room = policy.may_admit(policy.units(entry for entry, _ in beside), wanted.units, allowed)
    return room and policy.has_room_for_label(wanted, key_of(label), beside)


def waiting(store: Store) -> list[tuple[str, RecordName]]:
    """Return all that wait, each with the folder of its record; without those that are to leave."""
    return [(state, entry) for state in (GATE, QUEUED) for entry in store.entries(state) if not entry.by]


def place(store: Store, ticket: int) -> int:
    """Return the place in line of a waiter, from 1."""
    ranks = [policy.rank(entry) for _, entry in waiting(store)]
    own = next((rank for rank in ranks if rank[1] == ticket), (0, ticket))
    return 1 + sum(rank < own for rank in ranks)


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
