"""Which clients live, which build may have a slot, which is next: pure functions over plain values.

Knows nothing of files, processes or time; the caller holds the pool's mutex. PROTOCOL.md gives the reasons.
A build takes one unit of the pool, or more (`--slots`); what is said of units is said of slots.
"""

from __future__ import annotations

from functools import cache

from ipclock._typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Sequence

    from ipclock.pool.record_name import RecordName

ALIVE, DEAD, UNKNOWN = "alive", "dead", "unknown"
PLACES = 10  # in line, that one step of priority is worth
NEAR = 20  # places: so many look after the pool often enough that the others need not
NEAR_NAP_S, LONGEST_NAP_S = 1.5, 30.0
SWEPT = 8  # waiters
OVERTAKEN = 20  # admissions of later tickets that a party lets pass, at most, until it is its turn
PARTIES = 64  # whose last admission is remembered


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
    """Return how many of its units the waiter at the gate can be given beforehand, so that it need not ask for them."""
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

    So that all that are not near, however many, cost little more than those that are.
    """
    return min(LONGEST_NAP_S, NEAR_NAP_S * max(1.0, place / NEAR) ** 2)


def in_turn(waiters: list[RecordName], second: float) -> list[RecordName]:
    """Return about SWEPT waiters, others each second, so that all are looked at after len / SWEPT seconds."""
    parts = 1 + len(waiters) // SWEPT
    return [entry for entry in waiters if entry.ticket % parts == int(second) % parts]


class Admission(NamedTuple):
    """That a build of a party was admitted."""

    party: str
    ticket: int
    priority: int


def noted(admissions: Sequence[Admission], latest: Admission) -> tuple[Admission, ...]:
    """Return the last admissions, the latest one last: as many as `Served` needs, so that they never grow."""
    kept: list[Admission] = []
    of_priority: dict[int, int] = {}
    parties: set[str] = set()
    for one in reversed((*admissions, latest)):
        of_priority[one.priority] = of_priority.get(one.priority, 0) + 1
        if of_priority[one.priority] <= OVERTAKEN or (one.party not in parties and len(parties) < PARTIES):
            kept.append(one)
        parties.add(one.party)
    return tuple(reversed(kept))


class Served:
    """What each party has had: the units that it holds, and when a build of it was admitted last.

    The next build is of the party that holds the fewest units, among these of the one that was admitted longest ago, or
    never; builds of one party go by their tickets. A waiter is overdue if OVERTAKEN builds of its priority that came
    later were admitted since its party was served there. An overdue one goes before those that are not: else others
    that hold nothing could keep a party that holds something waiting for ever (INV-6e, INV-6f).
    """

    def __init__(self, holders: Iterable[RecordName], admissions: Sequence[Admission]) -> None:
        self._held: dict[str, int] = {}
        for holder in {holder.place: holder for holder in holders}.values():
            self._held[holder.party] = self._held.get(holder.party, 0) + holder.units
        self._last = {one.party: number for number, one in enumerate(admissions, 1)}
        self._count = len(admissions)
        self._admissions = admissions
        self._overdue: dict[tuple[int, str], int] = {}

    def rank(self, entry: RecordName) -> tuple[int, ...]:
        """Return where a waiter stands among those of its priority that have a party."""
        if entry.ticket < self._overdue_before(entry.priority, entry.party):
            return 0, entry.ticket
        return 1, self._held.get(entry.party, 0), self._last.get(entry.party, 0), entry.ticket

    def _overdue_before(self, priority: int, party: str) -> int:
        """Return the ticket before which all waiters of the party are overdue."""
        found = self._overdue.get((priority, party))
        if found is None:
            since: list[int] = []
            for one in self._admissions:
                if one.priority == priority:
                    since = [] if one.party == party else [*since, one.ticket]
            found = self._overdue[priority, party] = sorted(since)[-OVERTAKEN] if len(since) >= OVERTAKEN else 0
        return found

    def admit(self, entry: RecordName) -> None:
        """Count the waiter as admitted."""
        self._count += 1
        self._last[entry.party] = self._count
        self._held[entry.party] = self._held.get(entry.party, 0) + entry.units
        self._overdue[entry.priority, entry.party] = 0


def _any(entry: RecordName) -> bool:
    return True


def in_order(
    waiters: Iterable[RecordName], served: Served | None = None, may_go: Callable[[RecordName], bool] = _any
) -> Iterator[RecordName]:
    """Yield the waiters that may go in the order in which they are to be called, each if those before it cannot.

    By rank; where parties have been *served*, those of one priority that have a party share out their places among
    themselves. One without a party, of a version that knows none, keeps its place: that version admits no other order,
    and each of the two would send the other's waiter back from the gate for ever (INV-6g, INV-6h).
    """
    ordered = sorted(waiters, key=rank)
    if served is None:
        yield from filter(may_go, ordered)
        return
    may_go = cache(may_go)
    lines: dict[int, Iterator[RecordName]] = {}
    # by those that may go: the place of one that may not would let a whole priority pass another
    for first in filter(may_go, ordered):
        if first.party and first.priority not in lines:
            same = (entry for entry in ordered if entry.party and entry.priority == first.priority)
            lines[first.priority] = filter(may_go, sorted(same, key=served.rank))
        yield next(lines[first.priority]) if first.party else first


def forecast(waiters: Iterable[RecordName], served: Served | None = None) -> list[RecordName]:
    """Return the waiters in the order in which they are admitted if no build comes or ends meanwhile.

    The first one is that of `in_order`. What a waiter gets counts for those of its party behind it. Changes *served*.
    """
    ordered = sorted(waiters, key=rank)
    if served is None:
        return ordered
    from heapq import heapify, heappop, heapreplace

    parties: dict[tuple[int, str], list[RecordName]] = {}
    for entry in sorted(ordered, key=lambda entry: entry.ticket, reverse=True):
        parties.setdefault((entry.priority, entry.party), []).append(entry)
    heads: dict[int, list[tuple[tuple[int, ...], RecordName]]] = {}
    for (priority, party), line in parties.items():
        if party:
            heads.setdefault(priority, []).append((served.rank(line[-1]), line[-1]))
    for heap in heads.values():
        heapify(heap)
    found = []
    for place in ordered:
        if not place.party:
            found.append(place)
            continue
        heap = heads[place.priority]
        # what a party has got since makes it stand further back, never ahead
        while heap[0][0] != (now := served.rank(heap[0][1])):
            heapreplace(heap, (now, heap[0][1]))
        entry = heap[0][1]
        served.admit(entry)
        line = parties[entry.priority, entry.party]
        line.pop()
        if line:
            heapreplace(heap, (served.rank(line[-1]), line[-1]))
        else:
            heappop(heap)
        found.append(entry)
    return found


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
