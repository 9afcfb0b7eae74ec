"""Whether the client behind a record lives: asks the beacon and, where the record says so, a process.

Takes and changes nothing, so it serves those with the mutex and those without. Errs towards alive (INV-3).
"""

from __future__ import annotations

from ipclock import policy, process
from ipclock.folder import HOLDING
from ipclock.values import TYPE_CHECKING

if TYPE_CHECKING:
    from ipclock.entry import Entry
    from ipclock.records import Record, Store


def identity(record: Record | None, key: str = "process") -> process.Identity | None:
    """Return the process that holds or will hold the slot, or another one named by *key*; None if it is not said."""
    try:
        return process.Identity.parse(record.fields.get(key, "")) if record else None
    except ValueError:
        return None


def verdict(store: Store, state: str, entry: Entry) -> str:
    """Return whether the client is ALIVE, DEAD or UNKNOWN, by the table of `policy.verdict`.

    A waiter always has a beacon of its own, so only a holder's record is read, and only once the beacon is free.
    """
    beacon = store.beacon(state, entry)
    if beacon is not False or state != HOLDING:
        return policy.verdict("fd", beacon, None)
    record = store.read(state, entry)
    if record is None:
        return policy.DEAD
    bound = identity(record) if record.kind == "pid" else None
    return policy.verdict(record.kind, beacon, process.exists(bound) if bound else None)


def keepers(record: Record) -> list[int]:
    """Return the PIDs of those who keep the slot: by the beacon, or by being the process that the record names."""
    found = process.keepers_of(record.device, record.inode)
    bound = identity(record) if record.kind == "pid" else None
    return [*found, bound.pid] if bound and process.exists(bound) and bound.pid not in found else found


def processes(record: Record) -> list[int]:
    """Return the PIDs that the record names, the holder's and the build's, as far as they mean something here."""
    bound = identity(record)
    if bound is None or bound.namespace != process.namespace():
        return []
    command = record.fields.get("command_pid", "")
    named = command.isascii() and command.isdigit() and len(command) < 10
    return [bound.pid, int(command)] if named else [bound.pid]


def supervisor(record: Record) -> int | None:
    """Return the PID of the living `ipclock wrap` of the build, who passes signals on to it; None if there is none."""
    bound = identity(record)
    return bound.pid if bound and bound == identity(record, "waiter") and process.exists(bound) else None


def is_stopped(store: Store, state: str, entry: Entry) -> bool:
    """Return whether the waiter's process is surely stopped: called to the gate, it would block the others."""
    record = store.read(state, entry)
    waiter = identity(record, "waiter") or identity(record)
    return waiter is not None and process.is_stopped(waiter)
