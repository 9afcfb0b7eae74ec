"""Who is alive, who may have a slot, who is next: pure functions over plain values.

Knows nothing of files, processes or time; whoever calls these holds the pool's mutex. PROTOCOL.md gives the reasons.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

ALIVE, DEAD, UNKNOWN = "alive", "dead", "unknown"


def verdict(kind: str, beacon: bool | None, process: bool | None) -> str:
    """Return whether a holder is ALIVE, DEAD or UNKNOWN. Errs towards alive: only a proof makes it DEAD.

    *kind* is the record's ("fd", "pid", "" for a damaged one), *beacon* whether it is held, *process* whether the
    process of a "pid" record exists; None means that it could not be asked.

    ========  ======  =======  =======
    beacon    kind    process  verdict
    ========  ======  =======  =======
    held      any     any      ALIVE
    None      any     any      UNKNOWN
    free      fd      any      DEAD
    free      pid     True     ALIVE
    free      pid     False    DEAD
    free      pid     None     UNKNOWN
    free      damaged any      UNKNOWN
    ========  ======  =======  =======
    """
    if beacon is None:
        return UNKNOWN
    if beacon:
        return ALIVE
    if kind == "fd":
        return DEAD
    if kind == "pid" and process is not None:
        return ALIVE if process else DEAD
    return UNKNOWN


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


def may_admit(held: int, allowed: int) -> bool:
    """Return whether one more holder fits (INV-2)."""
    return held < allowed


def due_at_once(held: int, ahead: int, allowed: int) -> bool:
    """Return whether somebody who arrives now gets a slot without waiting for an end of any build."""
    return held + ahead < allowed


def units_to_post(held: int, allowed: int, value: int) -> int:
    """Return what the semaphore's value lacks of the free slots (INV-4); negative: what it has too much."""
    return max(0, allowed - held) - value


def lowest_free_slot(taken: Collection[int]) -> int:
    """Return the lowest slot number, from 1, that no holder has."""
    return next(slot for slot in range(1, len(taken) + 2) if slot not in taken)


def in_order(tickets: Sequence[int]) -> list[int]:
    """Return the waiters in the order in which they are to be called: first come, first served (INV-6)."""
    return sorted(tickets)
