"""A pool's folder as its store shows it."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from ipclock.pool.directory import QUEUED
from ipclock.pool.record_name import RecordName
from ipclock.pool.records import Store
from tests.helpers.world import SHM

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ipclock.pool.record import OwnRecord


@contextmanager
def opened(name: str, lock_dir: str = str(SHM), *, create: bool = True) -> Iterator[Store]:
    """An opened store."""
    store = Store.open(lock_dir, name, create=create)
    try:
        yield store
    finally:
        store.close()


def record(store: Store, ticket: int, state: str = QUEUED, slot: int = 0, **fields: str) -> OwnRecord:
    """Publish a record and return it."""
    own = store.draft({"kind": "fd", "label": "staging", **fields})
    store.publish(own, state, RecordName(ticket, slot))
    return own
