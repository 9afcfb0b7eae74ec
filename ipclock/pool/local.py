"""A pool of this machine as the commands see it: `Pool`, and what its records tell.

What only some commands need is loaded where it is used: a build that need not wait starts without it.
"""

from __future__ import annotations

import os
from contextlib import suppress

from ipclock import users, utf8
from ipclock._typing import TYPE_CHECKING
from ipclock.errors import (
    FewDescriptorsError,
    NoPoolError,
    PoolCreateError,
    PoolElsewhereError,
    PoolPermissionError,
    SemaphoreError,
    StillRunning,
)
from ipclock.linux import descriptors, process
from ipclock.linux.semaphore import path_of
from ipclock.pool import place, pools
from ipclock.pool.directory import GATE, HOLDING, QUEUED, STATES
from ipclock.pool.protocol import Pool
from ipclock.pool.wait_context import WaitContext

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ipclock.config.settings import Settings
    from ipclock.linux.process import Identity
    from ipclock.pool.cancellation import Cancellation
    from ipclock.pool.claim import Claim, RemovedHolder
    from ipclock.pool.headroom import Headroom
    from ipclock.pool.record import Record
    from ipclock.pool.record_name import RecordName
    from ipclock.pool.records import Store
    from ipclock.pool.snapshot import Snapshot
    from ipclock.pool.takeover import Taken


class LocalPool(Pool):
    """The engine (`engine.Engine`) of a machine's own pools."""

    keeps_without_us = True
    tick_s = 1.0

    @property
    def where(self) -> str:
        """The pool's directory."""
        return self.store.path

    def note(self, claim: Claim, **facts: object) -> None:
        """Write facts into the claim's record."""
        self.stake(claim).write(**facts)

    def beacon(self, claim: Claim) -> int:
        """Return the descriptor whose lock is the beacon. Raises ValueError for a claim that has left."""
        return self.stake(claim).fileno()

    def snapshot(self, *, waiters: int | None = None, own: int = 0) -> Snapshot:
        """Read the pool without its mutex."""
        from ipclock.pool import snapshot

        return snapshot.take(self.store, utf8.text_of(self.name), waiters=waiters, own=own)

    def holds(self, ticket: int) -> bool:
        """Return whether the ticket has a slot."""
        from ipclock.pool import liveness, policy

        found = (entry for entry in self.store.entries(HOLDING) if entry.ticket == ticket)
        return any(liveness.verdict(self.store, HOLDING, entry) != policy.DEAD for entry in found)

    def around_us(self, besides: Identity | None = None) -> list[int]:
        """Return the tickets of the builds that this process runs inside of."""
        if self.store.settled and not self.store.entries(HOLDING):
            return []
        from ipclock.pool import liveness, snapshot

        found = ((entry.ticket, liveness.identity(record)) for entry, record in snapshot.around_us(self.store))
        return [ticket for ticket, one in found if not (besides and one and (one == besides or one.names(besides)))]

    def encloses_us(self, ticket: str) -> bool:
        """Return whether this process runs inside the build that holds *ticket*."""
        return ticket in map(str, self.around_us())

    def kept_by(self, ticket: int) -> list[int]:
        """Return the PIDs of the processes that keep the slot, besides this one and those that it runs in.

        One that may not be looked at and may have inherited the beacon counts.
        """
        from ipclock.pool import liveness

        found: set[int] = set()
        for entry in self.store.entries(HOLDING):
            if entry.ticket == ticket and (record := self.store.read(HOLDING, entry)):
                found.update(liveness.keepers(self.store, record, any_owner=True))
                bound = liveness.identity(record)
                if bound and record.kind == "fd":
                    found.update(filter(descriptors.hides_descriptors, process.descendants_of(bound.pid)))
        return sorted(found.difference(one.pid for one in process.ancestors()))

    def ended_with(self, ticket: int) -> int | None:
        """Return the PID of the process whose end was that of the slot, while its record is still there."""
        from ipclock.pool import liveness, policy

        for entry in self.store.entries(HOLDING):
            if entry.ticket == ticket and liveness.verdict(self.store, HOLDING, entry) == policy.DEAD:
                bound = liveness.identity(self.store.read(HOLDING, entry))
                return bound.pid if bound else None
        return None

    def evict(self, context: WaitContext, ticket: int | None = None, *, nested: bool = True) -> list[RemovedHolder]:
        """Reset the pool, or one of its slots."""
        return [_ended(*one) for one in self.reset(context, ticket, nested=nested)]

    def take_dead(self) -> list[RemovedHolder]:
        """Return those that `recover` has found dead."""
        return [_ended(*one) for one in self.found_dead()]

    def call_off(self, tickets: Iterable[int], cancellation: Cancellation, context: WaitContext) -> list[RemovedHolder]:
        """Ask the clients of these tickets to end, by their records."""
        return [_ended(*one) for one in self.cancel(tickets, cancellation, context)]

    def answer(self, ticket: int) -> str:
        """Return what has come of it that a client was asked to end.

        "asked": it has not heeded it yet; "ends": it does what it can; "alone": it is a build or a script that no
        client of ours looks after; "dead"; "gone": with its record.
        """
        from ipclock.pool import liveness, policy
        from ipclock.pool.cancellation import ENDING

        def is_alone(state: str, record: Record) -> bool:
            client = liveness.identity(record, "waiter")
            is_holder = client == liveness.identity(record)
            return state == HOLDING and not (client and is_holder and process.exists(client) is not False)

        found = [
            (state, entry) for state in STATES[1:] for entry in self.store.entries(state) if entry.ticket == ticket
        ]
        records = [(at[0], record) for at in found if (record := self.store.read(*at))]
        if all(liveness.verdict(self.store, *at) == policy.DEAD for at in found):
            return "dead" if records else "gone"
        if any(is_alone(*one) for one in records):
            return "alone"
        return "ends" if all(ENDING in record.fields for _, record in records) else "asked"

    def clear(self, ticket: int, context: WaitContext) -> list[RemovedHolder]:
        """Clear away what the dead have left that had this ticket."""
        return [_ended(*one) for one in self.drop(ticket, context)]

    def end(self, ticket: int, *, grace_s: float | None = None) -> None:
        """End the processes that keep the ticket, and all that they have started. Raises StillRunning (77)."""
        from ipclock.linux import terminate
        from ipclock.pool import liveness, policy

        def found() -> tuple[str, RecordName] | None:
            states = (HOLDING, GATE, QUEUED)  # of two with one ticket the holder, as ever
            listed = ((state, entry) for state in states for entry in self.store.entries(state))
            return next((at for at in listed if at[1].ticket == ticket), None)

        def record() -> Record | None:
            return self.store.read(*at) if (at := found()) else None

        def keepers() -> list[int]:
            at, one = found(), record()
            if at is None or one is None:
                return []
            if at[0] == HOLDING:
                return liveness.keepers(self.store, one)
            return descriptors.keepers_of(one.device, one.inode, self.store.beacons.waiter.start)

        before = record()
        grace_s = terminate.GRACE_S if grace_s is None else grace_s
        left = terminate.end(keepers, liveness.supervisor(before) if before else None, grace_s=grace_s)
        # another user's processes cannot be seen, but their beacon can
        if left or ((at := found()) and liveness.verdict(self.store, *at) == policy.ALIVE):
            bound = liveness.identity(before)
            raise StillRunning(ticket, left or [bound.pid if bound else 0])

    def headroom(self, need: int) -> Headroom:
        """Return what compares the memory that there is with what the builds of this pool will take."""
        from ipclock.pool.headroom import Headroom

        return Headroom(self.running, need)


def open_pool(settings: Settings, *, create: bool = True) -> LocalPool:
    """Open the pool that the settings name.

    With *create* it is made if it is not there, and has as many slots as the settings say; else raises NoPoolError
    (69).
    """
    if not create:
        pools.require(settings.semaphore_name)
    pool = _open(settings, settings.max_parallel_builds if create else None)
    if not _says_capacity(pool.store, settings.capacity_file):
        pool.keep_capacity()
    if create and settings.fair is not None and pool.store.is_ours():
        pool.heed_fairness(settings.fair)
    return pool


def _says_capacity(store: Store, path: str | None) -> bool:
    """Return whether a capacity counts in the pool: its owner or root says it, or a settings file of theirs does."""
    if store.is_ours():
        return True
    try:
        uid = os.stat(path).st_uid if path else None
    except OSError:
        return False
    return uid is not None and uid in (0, store.owner) and not users.is_hidden(uid)


def _open(settings: Settings, capacity: int | None, *, repair: bool = False) -> LocalPool:
    group = settings.shared_with
    return LocalPool.open(settings.semaphore_name, settings.lock_dir, capacity, group=group, repair=repair)


def open_for_administrator(
    settings: Settings, *, ours: bool = False, resize: bool = False
) -> tuple[LocalPool, Taken | None]:
    """Open the pool as `open_pool` does, with whatever is damaged in it replaced.

    What root may not use it takes over, with *ours* also what is another user's. Returns the pool, and what was taken.
    Without *ours* it is not made: raises NoPoolError (69). With *resize* the capacity counts, whatever user asks for
    it.
    """
    # what is to be repaired may lie at the semaphore's path before there is a pool
    if not ours and not os.path.lexists(path_of(settings.semaphore_name)):
        pools.require(settings.semaphore_name)
    capacity = settings.max_parallel_builds if ours else None
    taken = None
    owner = place.owner_of(settings.semaphore_name[1:])
    root = users.rules(owner or 0)

    def take_over() -> Taken | None:
        from ipclock.pool import takeover

        context = WaitContext(takeover.PATIENCE_S)
        return takeover.replace(settings.semaphore_name, settings.lock_dir, settings.shared_with, context)

    if root and ours and owner not in (None, 0):
        taken = take_over()
    for again in (False, True):  # what fails once may be short of a descriptor for a moment
        try:
            pool = _open(settings, capacity, repair=True)
            if not resize and not _says_capacity(pool.store, settings.capacity_file):
                pool.keep_capacity()
            return pool, taken
        except (PoolPermissionError, PoolElsewhereError, PoolCreateError, SemaphoreError) as error:
            if not root or taken or (again and isinstance(error, FewDescriptorsError)):
                raise
    taken = take_over()
    return _open(settings, capacity, repair=True), taken


def move(settings: Settings) -> None:
    """Let the pool's directory lie where the settings say, if no client holds or waits. Raises PoolInUse (75)."""
    from ipclock.pool import takeover

    with suppress(NoPoolError):
        context = WaitContext(takeover.PATIENCE_S)
        takeover.replace(settings.semaphore_name, settings.lock_dir, settings.shared_with, context, idle=True)


def look(settings: Settings) -> Snapshot:
    """Return the pool that the settings name as it stands. Makes and writes nothing."""
    from ipclock.pool import snapshot
    from ipclock.pool.records import Store

    try:
        store = Store.open(settings.lock_dir, settings.semaphore_name[1:], create=False)
    except NoPoolError:
        return snapshot.empty(settings.pool_name, settings.max_parallel_builds or 1)
    try:
        return snapshot.take(store, settings.pool_name)
    finally:
        store.close()


def _ended(entry: RecordName, record: Record) -> RemovedHolder:
    from ipclock.pool import liveness, snapshot
    from ipclock.pool.claim import RemovedHolder

    label, pid = snapshot.named(record)
    return RemovedHolder(
        entry=entry,
        label=record.fields.get("label", "?"),
        shown=label,
        pid=pid,
        uid=record.user,
        times=record.fields,
        supervised=liveness.supervisor(record) is not None,
    )
