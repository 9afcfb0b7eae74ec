"""Whether the client behind a record lives: asks the beacon and, where the record says so, a process.

Takes and changes nothing, so it serves those with the mutex and those without. Errs towards alive (INV-3).
"""

from __future__ import annotations

from ipclock import users
from ipclock._typing import TYPE_CHECKING
from ipclock.bounded import LAST_PID, LAST_UID, LAST_WORD, whole_in
from ipclock.linux import descriptors, process
from ipclock.pool import policy
from ipclock.pool.directory import HOLDING

if TYPE_CHECKING:
    from ipclock.pool.record import Record
    from ipclock.pool.record_name import RecordName
    from ipclock.pool.records import Store


def identity(record: Record | None, key: str = "process") -> process.Identity | None:
    """Return the process that holds or will hold the slot, or another one named by *key*; None if it is not said."""
    return process.Identity.of(record.fields, key) if record else None


def verdict(store: Store, state: str, entry: RecordName) -> str:
    """Return whether the client is ALIVE, DEAD or UNKNOWN, by the table of `policy.verdict`.

    A waiter always has a beacon of its own, so only a holder's record is read, and only once the beacon is free.
    """
    beacon = store.beacon(state, entry)
    if beacon is not False or state != HOLDING:
        return policy.verdict("fd", beacon, None)
    # beacon, then record: read before, it could lack the command that was noted in between (INV-3b)
    record = store.read(state, entry)
    if record is None:  # unlinked since it was listed
        return policy.DEAD
    # the namespace of a command that cannot be asked might be gone with it, without a trace
    bound = identity(record) if record.kind == "pid" else command(record)
    return policy.verdict(record.kind, beacon, process.exists(bound) if bound else None)


def command(record: Record) -> process.Identity | None:
    """Return the process that `wrap` has started, as the record names it; None where its PID means nothing here."""
    bound = identity(record)
    pid = whole_in(record.fields, "command_pid", LAST_PID)
    start = whole_in(record.fields, "command_start", LAST_WORD)
    if bound is None or bound.namespace != process.namespace() or not pid or start is None:
        return None
    return bound._replace(pid=pid, start=start)


def keepers(store: Store, record: Record, *, any_owner: bool = False) -> list[int]:
    """Return the PIDs of the processes that keep the slot: by the beacon, or as the process that the record names.

    What a record merely names, a process or the file of another one, is believed of its owner's processes alone: a
    reset by root would end whatever another user has written there. With *any_owner* each process that holds the beacon
    counts, for callers that end nothing; what root writes in the pool of a user is a file of that user.
    """
    found = descriptors.keepers_of(record.device, record.inode, store.beacons.holder().start)
    if record.names_beacon and not any_owner:
        found = [pid for pid in found if _is_owners(pid, record)]
    bound = identity(record) if record.kind == "pid" else command(record)
    if bound and bound.pid not in found and process.exists(bound) and _is_owners(bound.pid, record):
        found.append(bound.pid)
    return found


def _is_owners(pid: int, record: Record) -> bool:
    # a record that root has carried over, or written for itself, says whose build it is
    said = whole_in(record.fields, "uid", LAST_UID) if record.uid == 0 else None
    return process.real_uid(pid) == (record.uid if said is None else said)


def processes(record: Record) -> list[int]:
    """Return the PIDs that the record names, the holder's and the build's, as far as they mean something here."""
    bound = identity(record)
    if bound is None or bound.namespace != process.namespace():
        return []
    pid = whole_in(record.fields, "command_pid", LAST_PID)
    return [bound.pid, pid] if pid else [bound.pid]


def lockers(store: Store) -> list[int]:
    """Return the PIDs of processes that hold units under the pool's name, listed by no record here."""
    records = (store.read(HOLDING, entry) for entry in store.entries(HOLDING))
    listed = {(record.device, record.inode) for record in records if record}
    return descriptors.lockers(store.beacons.holder().start, listed)


def unlisted_around_us(store: Store) -> list[tuple[RecordName, Record]]:
    """Return the builds that this process runs inside of, of a directory of the pool that is gone, with their records.

    None once the pool is settled: then they have ended, or a reset has forgotten them.
    """
    return [] if store.settled else store.kept_unlisted(descriptors.open_files())


def is_around(record: Record, ancestors: list[process.Identity], owner: int) -> bool:
    """Return whether one of these is the process that holds the record's slot, or the command that runs in it.

    It must be the user's whose record it is, or one would let others run without a slot by naming their processes. In
    the pool of another *owner* (uid) root's records are files of that one. Of users without a uid here, none is known.
    """
    if users.is_hidden(record.uid):
        return False
    bounds = list(filter(None, (identity(record), command(record))))
    named = [bound for bound in bounds if any(map(bound.names, ancestors))]
    return any(
        uid == record.uid or (uid == 0 and record.uid == owner)
        for uid in (process.real_uid(bound.pid) for bound in named)
    )


def supervisor(record: Record) -> int | None:
    """Return the PID of the living `ipclock wrap` of the build, who passes signals on to it; None if there is none."""
    bound = identity(record)
    return bound.pid if bound and bound == identity(record, "waiter") and process.exists(bound) else None


def is_stopped(store: Store, state: str, entry: RecordName) -> bool:
    """Return whether the waiter's process is surely stopped: called to the gate, it would block the others."""
    record = store.read(state, entry)
    waiter = identity(record, "waiter") or identity(record)
    return waiter is not None and process.is_stopped(waiter)
