"""What lies below `Pool`, without a kernel: a store, semaphores and processes that live in a `World`.

Inside a section every change is a point at which the schedule may kill the process, or let others act that need no
mutex. Outside, a process does one operation at a time and is suspended before the next: its step runs again from the
start then, and the operations that it has done return what they returned before.
"""

from __future__ import annotations

import math
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from ipclock.linux.process import Identity
from ipclock.pool.cancellation import BY
from ipclock.pool.claim import Claim
from ipclock.pool.directory import GATE, HOLDING, QUEUED
from ipclock.pool.notes import Fairness
from ipclock.pool.protocol import Pool
from ipclock.pool.record import Record
from ipclock.pool.record_name import RecordName
from ipclock.pool.wait_context import WaitContext

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.model.world import Move, State, World

    Place = tuple[State, int, tuple[object, ...]]

T = TypeVar("T")

# where a client stands in its life
OUT = "has not arrived"
TURN = "waits for its turn"
AT_GATE = "is at the gate"
ADMIT = "asks for admission"
BUILD = "builds"
WATCH = "builds and looks after its record"
RELEASE = "gives its slot back"
GIVE_UP = "gives up"
ORPHAN = "is killed, but builds"
GONE = "is gone"
DEAD = "is dead"

# what ends a sleep: a unit of the semaphore, or the time has come to look after the pool, after one's own record, or
# (at the gate) after what one sees without the mutex
UNIT, TICK, KEEP, EARLY = "unit", "tick", "keep", "early"


class Meanwhile(NamedTuple):
    """What may happen at a point of a section: a move of another one, and the world after it, where that is known."""

    move: Move
    after: State | None = None


DIES = object()  # what may happen there too: the process in the section is killed


class Killed(BaseException):
    """The process is killed here; nothing that it would still do happens."""


class Suspended(BaseException):
    """The process has done its operation; the others' turn has come."""


class Restart(BaseException):
    """The process is back where its step begins, with what its claim says by now."""


class Run:
    """One process in one move; `index` is its client, or None. `waking` is what ends its sleep in this move."""

    def __init__(self, world: World, index: int | None, *, waking: str | None = None) -> None:
        self.world = world
        self.index = index
        self.waking = waking
        self.asleep = False
        self.log: list[object] = [] if index is None else list(world.clients[index].log)
        self.acted = False
        self.been_in_section = False
        self.ticks = False
        self.idle_s = 0.0
        self.found_stopped: set[int] = set()
        self._replayed = 0
        self._killed = False
        self._effects = 0
        self._seen: list[object] = []
        self.pool = _stepwise(world.kind)("/model", FakeStore(self), FakeGate(self), FakeTurns(self))
        self.pool.run = self
        self.claim = self._claim()

    def _claim(self) -> Claim:
        claim = Claim("staging")
        stake = self.pool.stake(claim)
        stake.kept_at = math.inf
        if self.index is None:
            return claim
        client = self.world.clients[self.index]
        claim.label, claim.entry = client.label, client.entry
        if client.ticket:
            stake.era, claim.evicted = client.era, client.evicted
            stake.record = FakeRecord(self, claim.ticket)
            stake.turn = FakeTurn(self, claim.ticket) if client.turn else None
        return claim

    def operation(self, act: Callable[[], T]) -> T:
        """Do something that, outside a section, others may precede or follow."""
        if self.world.in_section is self:
            return act()
        if self._replayed < len(self.log):
            self._replayed += 1
            return self.log[self._replayed - 1]
        if self.been_in_section:
            raise Restart
        if self.acted:
            raise Suspended
        self.acted = True
        self.log.append(act())
        self._replayed += 1
        return self.log[-1]

    def sleep(self, take: Callable[[], bool]) -> bool:
        """Sleep on a semaphore until a move ends it, by a unit or by a tick."""
        if self._replayed < len(self.log) or self.waking == UNIT:
            how: object = self.operation(take)
        elif self.waking:
            how = self.waking
            self.log.append(how)
            self._replayed += 1
        else:
            self.asleep = True
            raise Suspended
        self.waking = None
        self.idle_s = math.inf if how == TICK else 0.0
        self.pool.stake(self.claim).kept_at = -math.inf if how == KEEP else math.inf
        return how is True

    @contextmanager
    def section(self) -> Iterator[None]:
        """Be alone under the mutex; the kernel frees it of one who is killed."""
        if self.been_in_section:
            raise Restart
        if self.acted or self.world.in_section:
            raise Suspended
        self.world.in_section = self
        try:
            yield
        finally:
            self.world.in_section = None
        self.been_in_section = True

    def look(self, seen: T) -> T:
        """Note what the section has seen of the things that others change without the mutex."""
        self._seen.append(seen)
        return seen

    def effect(self, what: str) -> None:
        """Something is about to change in a section: before it others act, or the process is killed, or it happens."""
        if self._killed:
            raise Killed
        self._effects += 1
        world = self.world

        def place(state: State) -> Place:
            # two ways to the same world, at the same point and having seen the same, go on alike
            return state, self._effects, tuple(self._seen)

        def ways() -> Iterator[tuple[object, Place | None]]:
            for move, after in world.meanwhile(self.index):
                yield Meanwhile(move, after), place(after)
            if world.budget.get("kill", 0) > 0:
                yield DIES, None

        while choice := world.choose(lambda: place(world.freeze()), ways):
            if choice is DIES:
                world.story.append(f"is killed before: {what}")
                world.spend("kill")
                self._killed = True
                raise Killed
            assert isinstance(choice, Meanwhile)
            world.story.append(f"({choice.move})")
            world.become(choice.after or world.after(world.freeze(), choice.move))
        world.story.append(what)


class _Stepwise(Pool):
    run: Run

    def tick(self, claim: Claim, context: WaitContext, *, at_gate: bool = False) -> None:
        self.run.ticks = True
        super().tick(claim, context, at_gate=at_gate)
        raise Restart  # behind a tick the loop of the step begins again

    def _party(self, claim: Claim) -> str:
        assert self.run.index is not None
        return self.run.world.clients[self.run.index].party if self.store.fairness else ""

    def _amiss(self) -> bool:
        # one operation: what it returns is only a hint
        return self.run.operation(super()._amiss)


def _stepwise(kind: type[Pool]) -> type[_Stepwise]:
    if kind not in _KINDS:
        _KINDS[kind] = type(kind.__name__, (_Stepwise, kind), {})
    return _KINDS[kind]


_KINDS: dict[type[Pool], type[_Stepwise]] = {}


class FakePatience(WaitContext):
    """A client whose time is never up by itself: to give up is a move of the model."""

    def __init__(self, run: Run) -> None:
        super().__init__(math.inf)
        self._run = run

    def tick(self, ticket: int) -> None:
        if not self._run.ticks:
            raise Restart


class FakeRecord:
    def __init__(self, run: Run, ticket: int) -> None:
        self._run = run
        self.ticket = ticket
        self.draft = ""
        self.holder_fd = -1
        self.fields: dict[str, str] = {}

    def append(self, **fields: object) -> None:
        """Nobody's decision depends on what is written."""

    def news(self) -> dict[str, str]:
        """Return that it is cancelled."""
        world, index = self._run.world, self._run.index
        # where nobody is ever cancelled there is nothing to see, and no step more
        if "cancel" not in world.budget or index is None:
            return {}
        return {BY: "somebody"} if self._run.operation(lambda: world.clients[index].cancelled) else {}

    def hold(self, units: int) -> None:
        # whoever is killed right after it is as dead as right before it
        self._run.world.lit |= {-self._run.claim.ticket}

    def touch(self) -> None:
        pass

    def unlock(self) -> None:
        self._run.operation(lambda: self._run.world.put_out(self.ticket))

    def close(self) -> None:
        pass


class FakeOthersRecord:
    is_ours = True

    def __init__(self, run: Run, record: Record, ticket: int) -> None:
        self._run = run
        self._ticket = ticket
        self.record = record

    def tell(self, fields: dict[str, str]) -> None:
        self._run.effect(f"tell {self._ticket}")
        for index, client in enumerate(self._run.world.clients):
            if client.ticket == self._ticket:
                self._run.world.update(index, cancelled=True)


class FakeStore:
    path = "/model"
    drained = False
    settled = True
    lowest_priority = -20

    def __init__(self, run: Run) -> None:
        self._run = run
        self._world = run.world

    @contextmanager
    def mutex(self, busy: object) -> Iterator[None]:
        with self._run.section():
            yield

    def idle_s(self) -> float:
        return self._run.idle_s

    def vanished(self) -> bool:
        return False

    def stands(self) -> bool:
        return True

    def changed_at(self, state: str) -> int:
        return 0

    @property
    def capacity(self) -> int:
        return self._world.capacity

    @capacity.setter
    def capacity(self, value: int) -> None:
        self._run.effect(f"write N {value}")
        self._world.capacity = value

    def resize(self, capacity: int) -> None:
        self.capacity = capacity

    @property
    def epoch(self) -> int:
        return self._run.operation(lambda: self._world.epoch)

    @epoch.setter
    def epoch(self, value: int) -> None:
        self._run.effect(f"write epoch {value}")
        self._world.epoch = value

    @property
    def era(self) -> tuple[tuple[int, int], int]:
        return (0, 0), self.epoch

    @property
    def fairness(self) -> Fairness | None:
        noted = self._run.operation(lambda: self._world.fair)
        return None if noted is None else Fairness("user", noted)

    @fairness.setter
    def fairness(self, value: Fairness | None) -> None:
        self._run.effect(f"note {value}")
        self._world.fair = None if value is None else value.admissions

    def require_owner(self) -> None:
        pass

    def draw_ticket(self) -> int:
        self._run.effect("draw a ticket")
        self._world.last_ticket += 1
        return self._world.last_ticket

    def skip_tickets(self, ticket: int) -> None:
        pass

    def sweep(self) -> None:
        pass

    def remove_strays(self) -> None:
        pass

    def entries(self, state: str) -> list[RecordName]:
        return sorted(entry for folder, entry in self._world.records if folder == state)

    def has(self, state: str, entry: RecordName, own: FakeRecord | None = None) -> bool:
        return self._run.operation(lambda: (state, entry) in self._world.records)

    def draft(self, fields: dict[str, str], holder_fd: int | None = None) -> FakeRecord:
        return FakeRecord(self._run, 0)

    def redraft(self, fields: dict[str, str], holder_fd: int) -> FakeRecord:
        return FakeRecord(self._run, 0)

    def publish(self, record: FakeRecord, state: str, entry: RecordName) -> None:
        self._run.effect(f"publish {state}/{entry.file}")
        record.ticket = entry.ticket
        self._world.lit |= {entry.ticket}
        self._world.records |= {(state, entry)}

    def move(self, entry: RecordName, state: str, to: str, **changes: Any) -> RecordName:
        moved = entry._replace(**{"slot": 0, "reserved": 0, "by": 0, "silent": 0} | changes)
        self._run.effect(f"rename {state}/{entry.file} {to}/{moved.file}")
        assert (state, entry) in self._world.records
        self._world.records = self._world.records - {(state, entry)} | {(to, moved)}
        if (state, to) == (QUEUED, GATE):
            silent = {other.ticket for folder, other in self._world.records if folder == QUEUED and other.silent}
            self._world.passed = frozenset(self._run.found_stopped | silent)
        return moved

    def remove(self, state: str, entry: RecordName, own: FakeRecord | None = None) -> bool:
        if (state, entry) not in self._world.records:
            return False
        self._run.effect(f"unlink {state}/{entry.file}")
        self._world.records -= {(state, entry)}
        for index, client in enumerate(self._world.clients):
            if self._run.index is None and state == HOLDING and client.ticket == entry.ticket in self._world.lit:
                self._world.update(index, was_reset=True)
        return True

    @contextmanager
    def opened(self, state: str, entry: RecordName) -> Iterator[FakeOthersRecord]:
        yield FakeOthersRecord(self._run, self.read(state, entry), entry.ticket)

    def is_ours(self) -> bool:
        return True

    def quiet_s(self, state: str, entry: RecordName) -> float:
        quiet = any(client.stopped and client.ticket == entry.ticket for client in self._world.clients)
        return math.inf if self._run.look(quiet) else 0.0

    def beacon(self, state: str, entry: RecordName) -> bool:
        return self._run.look((-entry.ticket if state == HOLDING else entry.ticket) in self._world.lit)

    def read(self, state: str, entry: RecordName) -> Record:
        """Return a record whose process has the ticket for a PID."""
        label = next((client.label for client in self._world.clients if client.ticket == entry.ticket), "")
        return Record({"kind": "fd", "process": str(Identity(entry.ticket, 0, "", 0)), "label": label}, 0, 0, 0)


class FakeGate:
    """The pool's semaphore."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._world = run.world

    @property
    def value(self) -> int:
        if self._world.in_section is self._run:
            self._world.posted = False  # what a stranger posted before is levelled now
        return self._run.look(self._world.value)

    def replaced(self) -> bool:
        return False

    def post(self) -> None:
        self._run.effect("post")
        self._world.value += 1

    def try_wait(self) -> bool:
        self._run.effect("try_wait")
        return self._run.look(self._take())

    def wait(self, seconds: float) -> bool:
        return self._run.sleep(self._take_it_along)

    def _take_it_along(self) -> bool:
        assert self._run.index is not None
        self._world.update(self._run.index, unit=True)
        return self._take()

    def _take(self) -> bool:
        taken = self._world.value > 0
        self._world.value -= taken
        return taken


class FakeTurn:
    """A waiter's own semaphore."""

    def __init__(self, run: Run, ticket: int) -> None:
        self._run = run
        self._ticket = ticket

    def wait(self, seconds: float) -> bool:
        return self._run.sleep(self._take)

    def _take(self) -> bool:
        self._run.world.turns[self._ticket] -= 1
        return True

    def replaced(self) -> bool:
        return False

    def close(self) -> None:
        pass


class FakeTurns:
    def __init__(self, run: Run) -> None:
        self._run = run
        self._world = run.world

    def create(self, ticket: int) -> FakeTurn:
        self._run.operation(lambda: self._world.turns.update({ticket: 0}))
        return FakeTurn(self._run, ticket)

    def tickets(self) -> set[int]:
        return set(self._world.turns)

    def post(self, ticket: int) -> None:
        if ticket in self._world.turns:
            self._run.effect(f"post turn {ticket}")
            self._world.turns[ticket] += 1

    def remove(self, ticket: int) -> bool:
        if ticket in self._world.turns:
            self._run.effect(f"unlink turn {ticket}")
            del self._world.turns[ticket]
        return True


class FakeProcesses:
    """Stands in for the module `ipclock.linux.process`; the process of a record has its ticket for a PID."""

    Identity = Identity
    world: World

    def identify(self, pid: int) -> Identity:
        return Identity(pid, 0, "", 0)

    def namespace(self) -> int:
        return 0

    def exists(self, identity: Identity) -> bool:
        return any(client.ticket == identity.pid and client.phase != ORPHAN for client in self.world.clients)

    def is_stopped(self, identity: Identity) -> bool:
        clients = [client for client in self.world.clients if client.ticket == identity.pid]
        stopped = any(client.stopped and not client.frozen for client in clients)
        asking = self.world.in_section
        assert asking
        if stopped:
            asking.found_stopped.add(identity.pid)
        return asking.look(stopped)


PROCESSES = FakeProcesses()
