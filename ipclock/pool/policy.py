"""Who is alive, who may have a slot, who is next: pure functions over plain values.

Knows nothing of files, processes or time; the caller holds the pool's mutex. PROTOCOL.md gives the reasons.
A build takes one unit of the pool, or more (`--slots`); what is said of units is said of slots.
"""

from __future__ import annotations

from ipclock._typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from ipclock.pool.record_name import RecordName

ALIVE, DEAD, UNKNOWN = "alive", "dead", "unknown"
PLACES = 10  # in line, that one step of priority is worth
NEAR = 20  # places: so many look after the pool often enough that the others need not
NEAR_NAP_S, LONGEST_NAP_S = 1.5, 30.0
SWEPT = 8  # waiters


def verdict(kind: str, beacon: bool | None, process: bool | None) -> str:
    """Return whether a holder is ALIVE, DEAD or UNKNOWN. Errs towards alive: only a proof makes it DEAD.

    *kind* is the record's ("fd", "pid", "" for a damaged one), *beacon* whether it is held, *process* whether the
    process of a "pid" record exists, or the command of an "fd" record; None means that it could not be asked.

    ========  ======  =======  =======
    beacon    kind    process  verdict
    ========  ======  =======  =======
    held      any     any      ALIVE
    None      any     any      UNKNOWN
    free      fd      True     ALIVE: a command that has closed what it inherited
    free      fd      other    DEAD
    free      pid     True     ALIVE
    free      pid     False    DEAD
    free      pid     None     UNKNOWN
    free      damaged any      UNKNOWN
    ========  ======  =======  =======
    """
    if beacon is None:  # it cannot be asked (INV-3c)
        return UNKNOWN
    if beacon:
        return ALIVE
    if kind == "fd":
        return ALIVE if process else DEAD  # INV-3b
    if kind == "pid" and process is not None:
        return ALIVE if process else DEAD  # INV-3a
    return UNKNOWN  # a damaged record, or a process that cannot be asked: it counts until a reset (INV-3d)


def holder_state(alive: str, supervisor: bool | None, stopped: bool) -> str:
    """Return what `status` calls a holder: running, stopped, orphaned or unknown."""
    if alive != ALIVE or supervisor is None:
        return "unknown"
    if not supervisor:
        return "orphaned"
    return "stopped" if stopped else "running"


def limit(capacity: int, drained: bool) -> int:
    """Return how many units may be held: the capacity, or none while the pool is drained."""
    return 0 if drained else capacity


def units(entries: Iterable[RecordName]) -> int:
    """Return how many units all of them take. Nested builds share those of the slot that they run in."""
    return sum({entry.place: entry.units for entry in entries}.values())


def may_admit(held: int, wanted: int, allowed: int) -> bool:
    """Return whether a build that takes so many units fits beside those that are held (INV-2)."""
    return held + wanted <= allowed


def units_to_reserve(held: int, wanted: int, allowed: int) -> int:
    """Return how many of its units the one at the gate can be given beforehand, so that it need not ask for them."""
    return min(wanted, max(0, allowed - held))


def units_to_post(taken: int, allowed: int, value: int) -> int:
    """Return what the semaphore's value lacks of the free units (INV-4); negative: what is too much."""
    return max(0, allowed - taken) - value


def rank(entry: RecordName) -> tuple[int, int]:
    """Return where a waiter stands in line: by ticket, each step of priority being worth PLACES tickets (INV-6c).

    So within one priority it is first come, first served, and no build waits for ever: one that comes more than
    PLACES times the difference of the priorities later stands behind, whatever its priority.
    """
    return entry.ticket + PLACES * entry.priority, entry.ticket


def nap(place: float) -> float:
    """Return how many seconds a waiter at this place in line, from 1, may sleep before it looks after the pool.

    So that all who are not near, however many, cost little more than those who are.
    """
    return min(LONGEST_NAP_S, NEAR_NAP_S * max(1.0, place / NEAR) ** 2)


def in_turn(waiters: list[RecordName], second: float) -> list[RecordName]:
    """Return about SWEPT waiters, others each second, so that all are looked at after len / SWEPT seconds."""
    parts = 1 + len(waiters) // SWEPT
    return [entry for entry in waiters if entry.ticket % parts == int(second) % parts]


def in_order(waiters: Iterable[RecordName]) -> list[RecordName]:
    """Return the waiters in the order in which they are to be called."""
    return sorted(waiters, key=rank)


def counts_labels(entry: RecordName, holders: Iterable[RecordName]) -> bool:
    """Return whether labels have a say in the admission of *entry*: it, or a holder, has a limit for its own."""
    return bool(entry.limit or any(holder.limit for holder in holders))


def has_room_for_label(entry: RecordName, key: str, holders: Iterable[tuple[RecordName, str]]) -> bool:
    """Return whether one more build of the label with *key* may run beside these holders, each with its own key.

    The lowest limit among them and the newcomer counts, so a build that asked to be alone stays alone.
    """
    same = [holder for holder, its_key in holders if its_key == key]
    limits = [one.limit for one in (entry, *same) if one.limit]
    return not limits or len({holder.place for holder in same}) < min(limits)


def has_memory(left: int, need: int, *, alone: bool, pressed: bool = False) -> bool:
    """Return whether a build that needs so many bytes may start: they are left, or no other build runs.

    *pressed*: the machine is short of memory whatever is left.
    """
    return alone or (left >= need and not pressed)


def still_to_grow(expected: int, used: int) -> int:
    """Return how many bytes a build will still take that is expected to need so many and uses so many now."""
    return max(0, expected - used)


def lowest_free_slot(taken: Collection[int]) -> int:
    """Return the lowest slot number, from 1, that no holder has."""
    return next(slot for slot in range(1, len(taken) + 2) if slot not in taken)
