"""A pool as it stands at one moment, for status, JSON, the waiting line and tests alike.

Reading takes no mutex and writes nothing, so it never delays a build; what changes while it reads may show half
old, half new, but each record is shown whole.
"""

from __future__ import annotations

from ipclock._typing import TYPE_CHECKING, NamedTuple
from ipclock.bounded import LAST_PID, moment_in, whole_in
from ipclock.linux import clocks, descriptors, process, process_view
from ipclock.pool import liveness, policy, queue
from ipclock.pool.directory import GATE, HOLDING
from ipclock.utf8 import printable

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Self

    from ipclock.pool.notes import Drain, Resize
    from ipclock.pool.record import Record
    from ipclock.pool.record_name import RecordName
    from ipclock.pool.records import Store


class Origin(NamedTuple):
    """Where a client comes from. `here`: its PIDs are of our PID namespace, so that they mean something to us.

    `detached`: it goes on without a terminal, and its output comes into the file `log`. `caller` is the process that
    has started it, dead or alive, where the record says it.
    """

    here: bool = False
    detached: bool = False
    log: str = ""
    caller: process.Identity | None = None


class Said(NamedTuple):
    """What a client says of itself, in its record or its node; None, or "?", for what cannot be understood.

    `who` holds the slot or will, `command_pid` is the build's. `arrived` and `admitted` are in seconds of the epoch,
    `timeout` in seconds.
    """

    label: str
    who: process.Identity | None
    command_pid: int | None
    arrived: float | None
    admitted: float | None
    timeout: float | None

    @property
    def pid(self) -> int | None:
        """The PID of `who`."""
        return self.who.pid if self.who else None

    @classmethod
    def parse(cls, fields: Mapping[str, object]) -> Self:
        """Return what the fields say."""
        times = (moment_in(fields, key) for key in ("arrived", "admitted", "timeout"))
        command_pid = whole_in(fields, "command_pid", LAST_PID) or None
        return cls(text_in(fields, "label"), process.Identity.of(fields), command_pid, *times)


def text_in(fields: Mapping[str, object], key: str) -> str:
    """Return what a field says, fit to be printed; "?" where there is none."""
    return printable(str(fields.get(key, "?")))


class Holder(NamedTuple):
    """Who has a slot. `since` is in seconds of the epoch, `held_s` in seconds; None where the record is damaged.

    `pid` is the supervisor's (or the script's), `command_pid` the build's. `state`: running, orphaned, stopped or
    unknown. `processes` are those that keep an orphan's beacon. It takes `slots` of the pool, the first one `slot`.
    `here`: the PIDs are of our PID namespace, so that they mean something to us. A nested build runs `within` the slot
    that another ticket has taken, and shares it for as long as one of them lives.
    In a pool of several hosts it is on `host`, its session lasts for `session_s` now, and `token` is its fencing token;
    its state may be "doubtful": it has not been heard of for a while.
    """

    ticket: int
    slot: int
    slots: int
    label: str
    pid: int | None
    command_pid: int | None
    user: str
    since: float | None
    held_s: float | None
    state: str
    here: bool
    processes: list[process_view.Usage]
    within: int | None = None
    host: str = ""
    session_s: float | None = None
    token: str = ""
    origin: Origin = Origin()


class Waiter(NamedTuple):
    """Who stands in line, `position` from 1. Times as in `Holder`; `timeout_s` is how long it is ready to wait.

    It wants so many `slots`. `held_back` says what lets later ones pass it: "label" (as many of it run as may), "size"
    (it wants more slots than there are), "silent" (it was called and did not act), or "".
    """

    ticket: int
    position: int
    slots: int
    priority: int
    held_back: str
    label: str
    pid: int | None
    user: str
    since: float | None
    waited_s: float | None
    timeout_s: float | None
    at_gate: bool
    host: str = ""
    session_s: float | None = None
    origin: Origin = Origin()


class Place(NamedTuple):
    """Where one waiter stands, by the names in the line alone: `position` from 1, and `held_back` as in `Waiter`."""

    position: int
    held_back: str


class Snapshot(NamedTuple):
    """The pool `name` with `capacity` slots, of which `taken` are; `free` can be had.

    `drained`: none is given now; `drain` says on whose word, unless the capacity is 0. `folder` is where its records
    lie; None for a pool that is not made yet, or not kept in files. `unlisted` slots are held by locks of no record
    here, those of the processes `unlisted_pids`, as far as we may look. `resized` says who has given it its capacity.
    `own` is the place of the waiter that was asked about. `fair`: between whom builds take turns, "user" or "session",
    or "".
    """

    name: str
    capacity: int
    taken: int
    free: int
    drained: bool
    drain: Drain | None
    holders: list[Holder]
    waiters: list[Waiter]
    folder: str | None = None
    unlisted: int = 0
    unlisted_pids: tuple[int, ...] = ()
    resized: Resize | None = None
    own: Place | None = None
    fair: str = ""

    @property
    def outermost(self) -> list[Holder]:
        """One holder for each slot that is taken: a nested one only where the build around it has ended."""
        first = {(holder.within or holder.ticket, holder.slot): holder for holder in reversed(self.holders)}
        return list(reversed(first.values()))


def take(store: Store, name: str, *, waiters: int | None = None, own: int = 0) -> Snapshot:
    """Read the pool, with the place of the waiter that has the ticket *own*.

    Only the first *waiters* of the line are read, and `unlisted_pids` not at all, unless all are.
    """
    capacity, drain = 1 if store.capacity is None else store.capacity, store.drain
    # holders, then waiters: a build that is admitted in between is missing once, the other way round it is told twice
    held = holders(store)
    taken = sum({(holder.within or holder.ticket, holder.slot): holder.slots for holder in held}.values())
    unlisted = 0 if store.settled else store.unlisted()
    pids = tuple(liveness.lockers(store)) if unlisted and waiters is None else ()
    # a reset or a lowered N leaves more builds than slots
    free = max(0, policy.limit(capacity, drain is not None) - taken - unlisted)
    line = queue.line(store) if own or waiters != 0 else []
    fairness = store.fairness
    return Snapshot(
        name=name,
        capacity=capacity,
        taken=taken,
        free=free,
        drained=drain is not None or capacity == 0,
        drain=drain,
        holders=held,
        waiters=_waiters(store, line, capacity, waiters),
        folder=store.path,
        unlisted=unlisted,
        unlisted_pids=pids,
        resized=store.resized,
        own=_place(store, line, own, capacity),
        fair=fairness.between if fairness else "",
    )


def empty(name: str, capacity: int) -> Snapshot:
    """Return what a pool that is not made yet would show."""
    return Snapshot(name, capacity, 0, capacity, capacity == 0, None, [], [])


def holders(store: Store) -> list[Holder]:
    """Return the living holders in the order of their slots; dead ones that wait for a recover are left out."""
    found = (_holder(store, entry) for entry in store.entries(HOLDING))
    return sorted((holder for holder in found if holder), key=lambda holder: (holder.slot, holder.ticket))


NESTED = "0"  # what `acquire` prints as the ticket where the slot is that of a build around it, which keeps no record


def around_us(store: Store) -> list[tuple[RecordName, Record]]:
    """Return the holders that this process runs inside of, with their records: a proof, not a belief.

    An ancestor of ours is the process or the command of such a holder, or the very open file that keeps its beacon lit
    is open in this process too. One that has lost its parents and closes every descriptor cannot know.
    """
    entries = store.entries(HOLDING)
    ancestors = process.ancestors() if entries else []
    records = ((entry, store.read(HOLDING, entry)) for entry in entries)
    listed = [(entry, record) for entry, record in records if record and _is_around(store, entry, record, ancestors)]
    return listed + liveness.unlisted_around_us(store)


def _is_around(store: Store, entry: RecordName, record: Record, ancestors: list[process.Identity]) -> bool:
    if liveness.verdict(store, HOLDING, entry) == policy.DEAD:
        return False
    if liveness.is_around(record, ancestors, store.owner):
        return True
    lit = store.beacon(HOLDING, entry) is True
    return lit and store.shares_beacon(descriptors.open_descriptors(record.device, record.inode))


def named(record: Record) -> tuple[str, str]:
    """Return the label and the PID that a holder's record shows, the build's own PID where it is known."""
    said = Said.parse(record.fields)
    return said.label, str(said.command_pid or said.pid or "?")


def _holder(store: Store, entry: RecordName) -> Holder | None:
    alive = liveness.verdict(store, HOLDING, entry)
    record = store.read(HOLDING, entry)
    if record is None or alive == policy.DEAD:
        return None
    said = Said.parse(record.fields)
    bound, command = said.who, said.command_pid
    stopped = bound is not None and (process.is_stopped(bound) or (command is not None and process.stopped(command)))
    state = policy.holder_state(alive, process.exists(bound) if bound else None, stopped)
    return Holder(
        ticket=entry.ticket,
        slot=entry.slot,
        slots=entry.units,
        label=said.label,
        pid=said.pid,
        command_pid=command,
        user=_user(record),
        since=said.admitted,
        held_s=_age(record, "admitted_mono"),
        state=state,
        here=bound is not None and bound.namespace == process.namespace(),
        processes=process_view.usage(liveness.keepers(store, record)) if state == "orphaned" else [],
        within=entry.within or None,
        origin=_origin(record, bound),
    )


def _place(store: Store, line: list[tuple[str, RecordName]], ticket: int, capacity: int) -> Place | None:
    for position, (state, entry) in enumerate(line, 1):
        if entry.ticket == ticket:
            return Place(position, queue.held_back(store, state, entry, store.entries(HOLDING), capacity))
    return None


def _waiters(store: Store, line: list[tuple[str, RecordName]], capacity: int, most: int | None) -> list[Waiter]:
    holding = store.entries(HOLDING)
    found: list[Waiter] = []
    for state, entry in line:
        if len(found) == most:
            break
        record = store.read(state, entry)
        if record is None or liveness.verdict(store, state, entry) == policy.DEAD:
            continue
        said = Said.parse(record.fields)
        found.append(
            Waiter(
                ticket=entry.ticket,
                position=len(found) + 1,
                slots=entry.units,
                priority=entry.priority,
                held_back=queue.held_back(store, state, entry, holding, capacity),
                label=said.label,
                pid=said.pid,
                user=_user(record),
                since=said.arrived,
                waited_s=_age(record, "arrived_mono"),
                timeout_s=said.timeout,
                at_gate=state == GATE,
                origin=_origin(record, said.who),
            )
        )
    return found


def _origin(record: Record, bound: process.Identity | None) -> Origin:
    return Origin(
        here=bound is not None and bound.namespace == process.namespace(),
        detached=record.fields.get("detached") == "1",
        log=printable(record.fields.get("log", "")),
        caller=liveness.identity(record, "caller"),
    )


def _age(record: Record, stamp: str) -> float | None:
    return clocks.elapsed(moment_in(record.fields, stamp), clocks.monotonic())


def _user(record: Record) -> str:
    return process.user_name(record.user)
