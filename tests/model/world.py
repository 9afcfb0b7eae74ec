"""The model's world: a pool and its clients as one plain value, and what can happen in it next.

A `State` is frozen; a `World` is a state thawed for one move. What a client does in a move is the code of
`ipclock.pool.protocol.Pool` itself, run on the fakes of `tests.model.fakes`: a section is one move, with every kill and
every interleaving inside it, and so is each operation outside a section.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from ipclock.errors import CancelledError, SlotBusy, TooManySlotsError
from ipclock.pool import policy
from ipclock.pool.cancellation import Cancellation
from ipclock.pool.directory import GATE, HOLDING, QUEUED
from ipclock.pool.record_name import RecordName, key_of
from tests.model.fakes import (
    ADMIT,
    AT_GATE,
    BUILD,
    DEAD,
    EARLY,
    GIVE_UP,
    GONE,
    KEEP,
    ORPHAN,
    OUT,
    PROCESSES,
    RELEASE,
    TICK,
    TURN,
    UNIT,
    WATCH,
    FakePatience,
    Killed,
    Restart,
    Run,
    Suspended,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ipclock.pool.policy import Admission
    from ipclock.pool.protocol import Pool

    Choose = Callable[[Callable[[], object], Callable[[], Iterator[tuple[object, object]]]], object]
    Known = dict["State", dict["Move", "State | None"]]

WAITING = (TURN, AT_GATE, ADMIT)
BUILDING = (BUILD, WATCH, ORPHAN)
OVER_AND_OUT = (GONE, DEAD)


class Client(NamedTuple):
    """One client: what its process knows, and, from `unit` on, what is true of it.

    `log` is what the operations of its present step have returned so far: its position in the code of the step.
    """

    phase: str = OUT
    log: tuple[object, ...] = ()
    entry: RecordName = RecordName(0)
    label: str = ""
    era: tuple[tuple[int, int], int] = ((0, 0), 0)
    turn: bool = False
    asleep: bool = False  # on its turn or on the pool's semaphore
    evicted: bool = False
    unit: bool = False  # it has taken a unit from the semaphore and not yet asked to be admitted
    stopped: bool = False
    frozen: bool = False  # stopped, and nothing but its silence tells of it
    was_reset: bool = False  # a reset took its record away
    cancelled: bool = False  # its record says that it is to leave
    party: str = ""  # its user or session
    inside: int = -1  # the number of the client whose build it runs inside of

    @property
    def ticket(self) -> int:
        return self.entry.ticket

    def orphaned(self) -> Client:
        """Return what is left of it while its build goes on: all that its process knew is gone with it."""
        return Client(ORPHAN, entry=self.entry, label=self.label, was_reset=self.was_reset, inside=self.inside)


class State(NamedTuple):
    """The world while nobody is in a section. `budget` says what may still happen, and how often."""

    clients: tuple[Client, ...]
    records: frozenset[tuple[str, RecordName]] = frozenset()
    lit: frozenset[int] = frozenset()  # the tickets whose waiter's beacon is held, negative those of a holder's
    turns: frozenset[tuple[int, int]] = frozenset()
    value: int = 0
    capacity: int = 1
    last_ticket: int = 0
    epoch: int = 0
    budget: tuple[tuple[str, int], ...] = ()
    passed: frozenset[int] = frozenset()  # who was found stopped when the one at the gate was called
    killed: bool = False
    stopped: bool = False
    posted: bool = False  # a stranger has posted since the value was last levelled
    calm: bool = False  # nothing more happens but what goes on by itself
    fair: tuple[Admission, ...] | None = None  # the last admissions by the pool's note; None where it is not fair
    served: tuple[Admission, ...] = ()  # those that really were since it is fair

    def held(self) -> int:
        """Return how many slots are taken by somebody alive."""
        return policy.units(self.holders())

    def holders(self) -> list[RecordName]:
        """Return the records of those alive who hold slots."""
        return [entry for folder, entry in self.records if folder == HOLDING and -entry.ticket in self.lit]

    def may_go(self, client: Client, holders: list[RecordName]) -> bool:
        """Return whether the rules let a waiter be the next one beside these holders."""
        labels = {other.ticket: other.label for other in self.clients}
        beside = [(holder, key_of(labels.get(holder.ticket, ""))) for holder in holders]
        fits = client.entry.units <= self.capacity
        return fits and policy.has_room_for_label(client.entry, key_of(client.label), beside)

    def first(self) -> Client | None:
        """Return the first of those that wait, could go on, and may."""
        able = [self.clients[index] for index in self.waiters()]
        return self.first_of([c for c in able if self.may_go(c, self.holders())], self.holders())

    def first_of(self, clients: list[Client], holders: list[RecordName]) -> Client | None:
        """Return which of these is to be admitted next beside these holders."""
        served = None
        if self.fair is not None:
            # one that was killed before its admission may have been noted all the same
            served = policy.Served(holders, self.fair if self.killed else self.served)
        by_entry = {client.entry: client for client in clients}
        return next((by_entry[entry] for entry in policy.in_order(by_entry, served)), None)

    def waiters(self) -> list[int]:
        """Return the numbers of the clients that wait and could go on."""
        return [i for i, client in enumerate(self.clients) if client.phase in WAITING and not client.stopped]

    def builds(self) -> list[int]:
        """Return the numbers of the clients whose build runs and was not taken off the records by a reset."""
        return [i for i, client in enumerate(self.clients) if client.phase in BUILDING and not client.was_reset]

    def running(self) -> int:
        """Return how many units the builds take, those inside of others sharing theirs; not by what records say."""
        return sum({self._outermost(index): self.clients[index].entry.units for index in self.builds()}.values())

    def _outermost(self, index: int) -> int:
        inside = self.clients[index].inside
        return index if inside < 0 else self._outermost(inside)


class Move(NamedTuple):
    """Something that can happen next: to a client, or (None) to the pool.

    `prompt`: it happens without anybody's doing and without a tick. `section`: it needs the mutex.
    """

    name: str
    client: int | None
    prompt: bool = False
    section: bool = False

    def __str__(self) -> str:
        return self.name if self.client is None else f"client {self.client} {self.name}"


_WAKING = {
    "takes a unit": UNIT,
    "takes its turn": UNIT,
    "ticks": TICK,
    "ticks early": EARLY,
    "ticks and looks after its record": KEEP,
}


class World:
    """A state thawed for one move, taken on a path that `choose` leads through the forks in it.

    It is called with a function that tells what is the same wherever all goes on alike, and one that tells what else
    may happen there, and where that leads. `known` remembers what can happen in the midst of a section, since most
    sections come through the same few states.
    """

    def __init__(self, state: State, kind: type[Pool], choose: Choose, known: Known) -> None:
        self.kind = kind
        self.choose = choose
        self.known = known
        self.in_section: Run | None = None
        self.story: list[str] = []
        self.become(state)
        PROCESSES.world = self

    def become(self, state: State) -> None:
        """Let all be as in a state."""
        self.clients = list(state.clients)
        self.records = state.records
        self.lit = state.lit
        self.turns = dict(state.turns)
        self.value = state.value
        self.capacity = state.capacity
        self.last_ticket = state.last_ticket
        self.epoch = state.epoch
        self.budget = dict(state.budget)
        self.passed = state.passed
        self.killed = state.killed
        self.stopped = state.stopped
        self.posted = state.posted
        self.calm = state.calm
        self.fair = state.fair
        self.served = state.served

    def meanwhile(self, index: int | None) -> Iterator[tuple[Move, State]]:
        """Yield what others than client *index* can do in the midst of a section, and what comes of it."""
        here = self.freeze()
        for move in self._others(here):
            if move.client is None or move.client != index:
                yield move, self.after(here, move)

    def _others(self, here: State) -> dict[Move, State | None]:
        if here not in self.known:
            self.known[here] = {move: None for move in self.moves() if not move.section}
        return self.known[here]

    def after(self, here: State, move: Move) -> State:
        """Return what comes of a state, which is ours, by another one's move in the midst of a section."""
        ends = self._others(here)
        end = ends[move] = ends[move] or self._apart(here, move)
        return end

    def _apart(self, state: State, move: Move) -> State:
        other = World(state, self.kind, _one_way, self.known)
        other.in_section = self.in_section
        other.apply(move)
        PROCESSES.world = self
        return other.freeze()

    def freeze(self) -> State:
        """Return the world as a state."""
        return State(
            tuple(self.clients),
            self.records,
            self.lit,
            frozenset(self.turns.items()),
            self.value,
            self.capacity,
            self.last_ticket,
            self.epoch,
            tuple(self.budget.items()),
            self.passed and self.passed & {c.ticket for c in self.clients if c.phase in WAITING},
            self.killed,
            self.stopped,
            self.posted,
            self.calm,
            self.fair,
            self.served,
        )

    def update(self, index: int, **changes: Any) -> None:
        """Change a client."""
        self.clients[index] = self.clients[index]._replace(**changes)

    def spend(self, kind: str) -> None:
        """Note that something of a limited kind happens."""
        self.budget[kind] -= 1

    # What can happen.

    def moves(self) -> list[Move]:
        """Return all that can happen next, or in a calm world what goes on by itself."""
        return [move for move in self._moves() if move.prompt or not self.calm]

    def _moves(self) -> list[Move]:
        found: list[Move] = []
        for index, client in enumerate(self.clients):
            if client.phase == OUT and client.inside >= 0 and self.clients[client.inside].phase in BUILDING:
                found.append(Move("joins", index, section=True))
                break
            if client.phase == OUT:
                # they arrive in the order of their numbers
                found.append(Move("arrives", index, section=True))
                if self.budget.get("nonblock"):
                    found.append(Move("arrives with -n", index, section=True))
                break
            found += self._moves_of(index, client)
        if self.budget.get("post"):
            found.append(Move("a stranger posts", None))
        if self.budget.get("reset"):
            found.append(Move("a reset", None, section=True))
        if self.budget.get("cancel"):
            waiting = (i for i, client in enumerate(self.clients) if client.phase in WAITING and not client.cancelled)
            found += [Move(f"a cancel of client {index}", None, section=True) for index in waiting]
        if self.budget.get("resize"):
            found.append(Move(f"N becomes {1 if self.capacity > 1 else 2}", None, section=True))
        if self.budget.get("fair"):
            found.append(Move(f"the pool becomes {'fair' if self.fair is None else 'unfair'}", None, section=True))
        return found

    def _moves_of(self, index: int, client: Client) -> list[Move]:
        phase = client.phase
        if phase in OVER_AND_OUT:
            return []
        if phase == ORPHAN:
            return [Move("ends", index)]
        if client.stopped:
            return [Move("is continued", index)]
        found = []
        if client.asleep:
            if self.value if phase == AT_GATE else self.turns.get(client.ticket):
                found.append(Move("takes a unit" if phase == AT_GATE else "takes its turn", index, prompt=True))
            found.append(Move("ticks", index, section=True))
            if self.budget.get("keep"):
                found.append(Move("ticks and looks after its record", index))
        elif phase == BUILD:
            found.append(Move("ends its build", index))
            if self.budget.get("keep"):
                found.append(Move("looks after its record", index))
        else:
            needs_mutex = phase == ADMIT or (phase in (RELEASE, GIVE_UP) and client.log != ())
            found.append(Move("goes on", index, prompt=True, section=needs_mutex))
        if phase in WAITING and self.budget.get("give_up"):
            found.append(Move("loses context", index))
        if self.budget.get("kill"):
            found.append(Move("is killed", index))
        if phase in WAITING and self.budget.get("stop"):
            found.append(Move("is stopped", index))
        if phase in WAITING and self.budget.get("freeze"):
            found.append(Move("is frozen", index))
        return found

    def apply(self, move: Move) -> None:
        """Let it happen."""
        name, index = move.name, move.client
        if index is None:
            self._happens_to_pool(name)
        elif name == "is killed":
            self.spend("kill")
            self.die(index)
        elif name == "is stopped":
            self.spend("stop")
            self.stopped = True
            self.update(index, stopped=True)
        elif name == "is frozen":
            self.spend("freeze")
            self.stopped = True
            self.update(index, stopped=True, frozen=True)
        elif name == "is continued":
            self.update(index, stopped=False, frozen=False)
        elif name == "loses context":
            self.spend("give_up")
            self.update(index, phase=GIVE_UP, log=(), asleep=False)
        elif name == "ends its build":
            self.update(index, phase=RELEASE)
        elif name == "ends":
            self.put_out(self.clients[index].ticket)
            self.clients[index] = Client(DEAD, inside=self.clients[index].inside)
        else:
            if "looks after its record" in name:
                self.spend("keep")
            if name == "looks after its record":
                self.update(index, phase=WATCH)
            if name == "arrives with -n":
                self.spend("nonblock")
            self._goes_on(index, Run(self, index, waking=_WAKING.get(name)), name)

    def _happens_to_pool(self, name: str) -> None:
        if name == "a stranger posts":
            self.spend("post")
            self.value += 1
            self.posted = True
            return
        run = Run(self, None)
        try:
            if name == "a reset":
                self.spend("reset")
                run.pool.reset(FakePatience(run))
            elif name.startswith("a cancel"):
                self.spend("cancel")
                ticket = self.clients[int(name.rpartition(" ")[2])].ticket
                run.pool.cancel([ticket], Cancellation("somebody"), FakePatience(run))
            elif name.startswith("the pool becomes"):
                self.spend("fair")
                run.pool.be_fair("user" if name.endswith(" fair") else "off", FakePatience(run))
                self.served = ()
            else:
                self.spend("resize")
                run.pool.resize(int(name.rpartition(" ")[2]), FakePatience(run))
        except Killed:
            self.killed = True

    def put_out(self, ticket: int) -> None:
        """Put both beacons of a client out."""
        self.lit -= {ticket, -ticket}

    def _goes_on(self, index: int, run: Run, move: str) -> None:
        """Run the real code of the client's step to its next operation or through its section."""
        client = self.clients[index]
        phase = client.phase
        outer = self.clients[client.inside].ticket if move == "joins" else 0
        if move.startswith("arrives"):
            self.update(index, inside=-1)  # what was around it is over
        try:
            phase = _step(phase, run, block=move != "arrives with -n", outer=outer)
        except Suspended:
            self.update(index, log=tuple(run.log), asleep=run.asleep)
        except Restart:
            self._save(index, run, BUILD if phase == WATCH else phase)
        except CancelledError:
            self._save(index, run, GIVE_UP)
        except Killed:
            self.update(index, entry=run.claim.entry)
            self.die(index)
        else:
            self._save(index, run, phase)
            if client.phase == ADMIT and phase == BUILD and self.fair is not None and run.claim.entry.party:
                entry = run.claim.entry
                latest = policy.Admission(entry.party, entry.ticket, entry.priority)
                self.served = policy.noted(self.served, latest)

    def _save(self, index: int, run: Run, phase: str) -> None:
        claim = run.claim
        if phase in OVER_AND_OUT:
            self.clients[index] = Client(phase, inside=self.clients[index].inside)
            return
        # a waiter's era is never asked for
        era = run.pool.stake(claim).era if claim.slot else Client().era
        unit = self.clients[index].unit and not run.been_in_section
        self.update(index, phase=phase, log=(), entry=claim.entry, era=era, unit=unit)
        self.update(index, turn=run.pool.stake(claim).turn is not None, asleep=False, evicted=claim.evicted)

    def die(self, index: int) -> None:
        """A client's process is killed: its beacon goes out, unless a build has it too."""
        client = self.clients[index]
        self.killed = True
        if client.phase in BUILDING:
            self.clients[index] = client.orphaned()
        else:
            self.put_out(client.ticket)
            self.clients[index] = Client(DEAD, inside=client.inside)


def _one_way(here: object, ways: object) -> object:
    raise AssertionError("a fork outside of a section")


def _step(phase: str, run: Run, *, block: bool, outer: int) -> str:
    """Run one step of a client's life and return where it stands after it."""
    pool, claim, context = run.pool, run.claim, FakePatience(run)
    if outer:
        if pool.join(claim, context, outer):
            return BUILD
        run.world.update(run.index, inside=-1)
        return OUT
    if phase == OUT:
        try:
            pool.arrive(claim, context, block=block)
        except (SlotBusy, TooManySlotsError):
            return GONE
        return TURN
    if phase == TURN:
        pool.wait_turn(claim, context)
        return AT_GATE
    if phase == AT_GATE:
        pool.wait_at_gate(claim, context)
        return ADMIT
    if phase == ADMIT:
        pool.admit(claim, context)
        return BUILD if claim.slot else TURN
    if phase == WATCH:
        pool.watch(claim)
        return BUILD
    if phase == RELEASE:
        pool.release(claim)
    else:
        pool.give_up(claim)
    return GONE


def shown(state: State) -> str:
    """Return a state as a person reads it."""
    folders = {name: [e.file for f, e in sorted(state.records) if f == name] for name in (QUEUED, GATE, HOLDING)}
    told = ", ".join(f"{name} {files}" for name, files in folders.items() if files) or "no records"
    clients = [f"{c.ticket or '-'} {c.phase}{' (stopped)' * c.stopped}" for c in state.clients]
    return f"{told}; value {state.value} of {state.capacity}; lit {sorted(state.lit)}; {'; '.join(clients)}"
