"""The model's world: a pool's folders, semaphores and clients as one plain value, and fakes that run `Pool` on it.

The steps are those of the real `ipclock.pool.Pool`; only what lies below it is replaced. Every effect on the world is a
point at which the schedule may kill the process that acts, or let another one act that needs no mutex.
"""

from __future__ import annotations

from contextlib import contextmanager
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, NamedTuple

from ipclock import liveness, pool
from ipclock.folder import GATE
from ipclock.pool import Claim, Pool
from ipclock.process import Identity
from ipclock.records import Entry, Record

if TYPE_CHECKING:
    from collections.abc import Iterator

# where a client stands in its life
OUT, LOOK, ASLEEP, AT_GATE, ADMIT, BUILD, ORPHAN, GONE, DEAD = (
    "out",  # not arrived
    "look",  # about to look whether it was called
    "asleep",  # on its turn
    "at gate",  # asleep on the pool's semaphore
    "admit",  # woken at the gate, perhaps with a unit, about to be admitted or not
    "build",
    "orphan",  # its supervisor was killed, its build goes on
    "gone",
    "dead",  # killed
)
WAITING = (LOOK, ASLEEP, AT_GATE, ADMIT)


class Client(NamedTuple):
    """One client: where it stands, its ticket and slot, whether it is stopped, has been, or was evicted."""

    phase: str = OUT
    ticket: int = 0
    slot: int = 0
    stopped: bool = False
    was_stopped: bool = False
    evicted: bool = False


class State(NamedTuple):
    """The whole world at a moment when nobody is in a section; `budget` is what may still go wrong, by kind."""

    clients: tuple[Client, ...]
    records: frozenset[tuple[str, Entry]]
    lit: frozenset[int]
    turns: frozenset[tuple[int, int]]
    value: int
    capacity: int
    last_ticket: int
    epoch: int
    budget: tuple[tuple[str, int], ...]
    disturbed: bool = False  # somebody was killed or stopped: from here on a tick may be needed
    posted: bool = False  # a stranger has posted since the last section

    def left(self, kind: str) -> int:
        """Return how often *kind* may still happen."""
        return dict(self.budget).get(kind, 0)

    def spend(self, kind: str) -> tuple[tuple[str, int], ...]:
        """Return the budget after one more of *kind*."""
        return tuple((name, count - (name == kind)) for name, count in self.budget)


class Killed(BaseException):
    """The acting process is killed here; nothing that it would still do happens."""


class Suspended(BaseException):
    """The acting process sleeps, or another one's turn has come: the step ends here."""


class Schedule:
    """Which of the possible choices are taken during one step: a prefix, then always the first one."""

    def __init__(self, prefix: tuple[int, ...]) -> None:
        self.taken: list[int] = []
        self.offered: list[int] = []
        self._prefix = prefix

    def choose(self, options: int) -> int:
        """Return which of so many options is taken."""
        at = len(self.taken)
        choice = self._prefix[at] if at < len(self._prefix) else 0
        self.taken.append(choice)
        self.offered.append(options)
        return choice

    def others(self) -> Iterator[tuple[int, ...]]:
        """Yield the prefixes of the schedules that part from this one behind its own prefix."""
        for at in range(len(self._prefix), len(self.taken)):
            for choice in range(1, self.offered[at]):
                yield (*self.taken[:at], choice)


class World:
    """A state thawed for one step of one process."""

    def __init__(self, state: State, schedule: Schedule, kind: type[Pool]) -> None:
        self.before = state
        self.schedule = schedule
        self.clients = list(state.clients)
        self.records = set(state.records)
        self.lit = set(state.lit)
        self.turns = dict(state.turns)
        self.value = state.value
        self.capacity = state.capacity
        self.last_ticket = state.last_ticket
        self.epoch = state.epoch
        self.budget = state.budget
        self.disturbed = state.disturbed
        self.posted = state.posted
        self.actor: int | None = None
        self.in_section = False
        self.killed = False
        self.pool = kind("/model", FakeStore(self), FakeGate(self), FakeTurns(self))

    def freeze(self) -> State:
        """Return the world as a state."""
        return State(
            tuple(self.clients),
            frozenset(self.records),
            frozenset(self.lit),
            frozenset(self.turns.items()),
            self.value,
            self.capacity,
            self.last_ticket,
            self.epoch,
            self.budget,
            self.disturbed,
            self.posted,
        )

    def update(self, index: int, **changes: Any) -> None:
        """Change a client."""
        self.clients[index] = self.clients[index]._replace(**changes)

    def claim(self, index: int) -> Claim:
        """Return the claim of a client, as its process has it."""
        client = self.clients[index]
        claim = Claim(f"client {index}")
        claim.ticket, claim.slot = client.ticket, client.slot
        if client.ticket:
            claim.record = FakeRecord(self, client.ticket)
            claim.turn = FakeTurn(self, client.ticket) if client.ticket in self.turns else None
        return claim

    def effect(self) -> None:
        """Something is about to change: somebody else acts first, or the actor is killed, or it happens."""
        if self.killed:
            raise Killed
        while True:
            moves = self._moves_without_mutex() if self.in_section else []
            can_die = self.actor is not None and dict(self.budget).get("kill", 0) > 0
            choice = self.schedule.choose(1 + len(moves) + can_die)
            if choice == 0:
                return
            if choice <= len(moves):
                moves[choice - 1]()
                continue
            self.budget = self.freeze().spend("kill")
            self.killed = self.disturbed = True
            raise Killed

    def _moves_without_mutex(self) -> list[Any]:
        moves = []
        for index, client in enumerate(self.clients):
            if index == self.actor or client.stopped:
                continue
            if client.phase == AT_GATE and self.value > 0:
                moves.append(lambda index=index: self.take_unit(index))
            if client.phase == ASLEEP and self.turns.get(client.ticket, 0) > 0:
                moves.append(lambda index=index: self.wake(index))
        return moves

    def take_unit(self, index: int) -> None:
        """The one at the gate gets a unit from the semaphore."""
        self.value -= 1
        self.update(index, phase=ADMIT)

    def wake(self, index: int) -> None:
        """A waiter gets its turn and looks where its record lies; if it is still in line it sleeps again."""
        ticket = self.clients[index].ticket
        self.turns[ticket] -= 1
        self.update(index, phase=AT_GATE if (GATE, Entry(ticket)) in self.records else ASLEEP)


class FakeRecord:
    """A client's own record."""

    def __init__(self, world: World, ticket: int) -> None:
        self._world = world
        self.ticket = ticket
        self.fields: dict[str, str] = {}

    def append(self, **fields: object) -> None:
        """Write into the record; nobody's decision depends on what."""
        self._world.effect()

    def unlock(self) -> None:
        """Put the beacon out."""
        self._world.effect()
        self._world.lit.discard(self.ticket)

    def close(self) -> None:
        """Nothing that anybody sees."""


class FakeStore:
    """The pool's folder."""

    path = "/model"
    drained = False
    settled = True

    def __init__(self, world: World) -> None:
        self._world = world

    @contextmanager
    def mutex(self, busy: object) -> Iterator[None]:
        """Nobody else is in a section: steps that need the mutex are not interleaved with each other."""
        self._world.in_section = True
        yield
        self._world.in_section = False
        self._world.posted = False

    @property
    def capacity(self) -> int:
        """N."""
        return self._world.capacity

    @capacity.setter
    def capacity(self, value: int) -> None:
        self._world.effect()
        self._world.capacity = value

    @property
    def epoch(self) -> int:
        """The number of resets."""
        return self._world.epoch

    @epoch.setter
    def epoch(self, value: int) -> None:
        self._world.effect()
        self._world.epoch = value

    @property
    def era(self) -> tuple[tuple[int, int], int]:
        """The folder, which never changes, and the number of resets."""
        return (0, 0), self._world.epoch

    def vanished(self) -> bool:
        """Nobody removes anything."""
        return False

    def draw_ticket(self) -> int:
        """Return the next ticket."""
        self._world.effect()
        self._world.last_ticket += 1
        return self._world.last_ticket

    def entries(self, state: str) -> list[Entry]:
        """Return the records in a folder."""
        return sorted(entry for folder, entry in self._world.records if folder == state)

    def has(self, state: str, entry: Entry) -> bool:
        """Return whether a record lies in a folder."""
        return (state, entry) in self._world.records

    def draft(self, fields: dict[str, str], holder_fd: int | None = None) -> FakeRecord:
        """Return a record that lies in no folder yet."""
        return FakeRecord(self._world, 0)

    def publish(self, record: FakeRecord, state: str, entry: Entry) -> None:
        """Rename a draft into a folder, its beacon lit."""
        self._world.effect()
        record.ticket = entry.ticket
        self._world.lit.add(entry.ticket)
        self._world.records.add((state, entry))
        if self._world.actor is not None:
            self._world.update(self._world.actor, ticket=entry.ticket)

    def move(self, entry: Entry, state: str, to: str, slot: int = 0) -> Entry:
        """Rename a record into another folder."""
        self._world.effect()
        self._world.records.remove((state, entry))
        moved = Entry(entry.ticket, slot)
        self._world.records.add((to, moved))
        return moved

    def remove(self, state: str, entry: Entry, own: FakeRecord | None = None) -> bool:
        """Unlink a record."""
        self._world.effect()
        found = (state, entry) in self._world.records
        self._world.records.discard((state, entry))
        return found

    def beacon(self, state: str, entry: Entry) -> bool:
        """Return whether the beacon is lit."""
        return entry.ticket in self._world.lit

    def read(self, state: str, entry: Entry) -> Record:
        """Return the record of a client: its PID stands for its ticket."""
        return Record({"kind": "fd", "process": str(Identity(entry.ticket, 0, "", 0))}, 0, 0, 0)

    def sweep_drafts(self) -> None:
        """There are none."""


class FakeGate:
    """The pool's semaphore."""

    def __init__(self, world: World) -> None:
        self._world = world

    @property
    def value(self) -> int:
        """The free units."""
        return self._world.value

    def post(self) -> None:
        """Give a unit."""
        self._world.effect()
        self._world.value += 1

    def try_wait(self) -> bool:
        """Take a unit if there is one."""
        self._world.effect()
        return self._take()

    def wait(self, seconds: float) -> bool:
        """Take a unit, or sleep."""
        if not self._take():
            raise Suspended
        return True

    def _take(self) -> bool:
        taken = self._world.value > 0
        self._world.value -= taken
        return taken


class FakeTurn:
    """A waiter's own semaphore."""

    def __init__(self, world: World, ticket: int) -> None:
        self._world = world
        self._ticket = ticket

    def wait(self, seconds: float) -> bool:
        """Take the unit, or sleep."""
        if self._world.turns.get(self._ticket, 0) == 0:
            assert self._world.actor is not None
            self._world.update(self._world.actor, phase=ASLEEP)
            raise Suspended
        self._world.turns[self._ticket] -= 1
        return True

    def close(self) -> None:
        """Nothing that anybody sees."""


class FakeTurns:
    """All turns."""

    def __init__(self, world: World) -> None:
        self._world = world

    def create(self, ticket: int) -> FakeTurn:
        """Make the turn of a ticket."""
        self._world.effect()
        self._world.turns[ticket] = 0
        return FakeTurn(self._world, ticket)

    def post(self, ticket: int) -> None:
        """Wake a waiter, if its turn is there."""
        self._world.effect()
        if ticket in self._world.turns:
            self._world.turns[ticket] += 1

    def remove(self, ticket: int) -> None:
        """Unlink a turn."""
        self._world.effect()
        self._world.turns.pop(ticket, None)


class FakePatience:
    """A waiter whose time is never up by itself: giving up is a step of the model."""

    timeout = 0.0

    def chunk(self, limit: float) -> float:
        """Return any length of sleep."""
        return limit

    def tick(self, ticket: int) -> None:
        """Let others act before the waiter looks again."""
        raise Suspended


@contextmanager
def processes_of(world: World) -> Iterator[None]:
    """Let `Pool` see the model's processes: the PID is the client's ticket."""

    def is_stopped(identity: Identity) -> bool:
        return any(client.stopped for client in world.clients if client.ticket == identity.pid)

    real = liveness.process, pool.process
    fake = SimpleNamespace(Identity=Identity, is_stopped=is_stopped, identify=lambda pid: Identity(pid, 0, "", 0))
    liveness.process = pool.process = fake  # type: ignore[assignment]
    try:
        yield
    finally:
        liveness.process, pool.process = real
