"""Breadth-first exploration of all that can happen to a pool, and what must hold meanwhile.

States are explicit between moves; the choices inside a move are enumerated by running it again on each path.
"""

from __future__ import annotations

import os
from collections import deque
from contextlib import ExitStack
from itertools import permutations
from typing import TYPE_CHECKING, NamedTuple
from unittest.mock import patch

from ipclock.pool import claim, liveness, policy, protocol
from ipclock.pool.directory import GATE, HOLDING
from ipclock.pool.protocol import Pool
from ipclock.pool.record_name import RecordName, key_of
from tests.model.fakes import ADMIT, AT_GATE, BUILD, GONE, OUT, PROCESSES, TURN, Meanwhile
from tests.model.world import OVER_AND_OUT, WAITING, Client, Move, State, World, shown

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from tests.model.world import Known

OVER = "more than N builds run"  # INV-2
STUCK = "a waiter is stuck beside a free slot, though nobody was killed or stopped"  # INV-5, INV-5a
UNHEALED = "one tick of the waiters does not free a slot"  # INV-4a, INV-7
SLOW = "the waiter at the gate does not see by itself that a slot is free"
CLASH = "more builds of a label run than it allows"  # INV-2a
OVERTAKEN = "a waiter was overtaken"  # INV-6, INV-6a, INV-6b
REFUSED = "-n was refused though a slot was due"
UNLEVEL = "the value is not the number of free slots"  # INV-4
RETURNED = "a holder that a reset took away is back"
LEFT_OVER = "something is left behind"
ADMITTED = "a cancelled waiter was admitted"  # INV-2d
DEAF = "a cancelled waiter in line sleeps on, though nobody was killed or stopped"

KINDS = ("kill", "stop", "freeze", "give_up", "resize", "reset", "post", "keep", "nonblock", "cancel", "fair")

Path = tuple[object, ...]


class Violation(NamedTuple):
    """What went wrong, and the moves that lead to it, each with what happened in it and the state after it."""

    kind: str
    trace: tuple[str, ...]

    def __str__(self) -> str:
        return "\n".join((*self.trace, self.kind))


class Verdict(NamedTuple):
    """The result of an exploration."""

    states: int
    transitions: int
    violation: Violation | None


class _Pruned(BaseException):
    """This path has come to where another one has been."""


class _Schedule:
    """The choices in one run of a move: a path that is given, then always that nothing else happens (None)."""

    def __init__(self, path: Path, been: set[object]) -> None:
        self.taken = list(path)
        self.forks: list[Path] = []
        self._been = been
        self._given = len(path)
        self._at = 0

    def choose(self, here: Callable[[], object], ways: Callable[[], Iterator[tuple[object, object]]]) -> object:
        self._at += 1
        if self._at <= self._given:
            return self.taken[self._at - 1]
        place = here()
        if self._at > self._given + 1 and place in self._been:
            raise _Pruned
        self._been.add(place)
        for choice, leads_to in ways():
            if leads_to is None or leads_to not in self._been:
                self._been.add(leads_to)
                self.forks.append((*self.taken, choice))
        self.taken.append(None)
        return None


def initial(clients: int | Sequence[Client], capacity: int, **budget: int) -> State:
    """Return an empty pool with clients still to come, and how often each of KINDS may happen.

    A resize is to 2 slots and back to 1; *keep* is somebody's look after its own record. A pool is fair if a client has
    a party; *fair* changes that.
    """
    coming = (Client(),) * clients if isinstance(clients, int) else tuple(clients)
    fair = () if any(client.party for client in coming) else None
    return State(coming, value=capacity, capacity=capacity, budget=tuple(budget.items()), fair=fair)


def client(
    units: int = 1, priority: int = 0, limit: int = 0, label: str = "", inside: int = -1, party: str = ""
) -> Client:
    """Return a client still to come that asks for more than one slot in its turn, perhaps *inside* another's build."""
    entry = RecordName(0, units=units, priority=priority, limit=limit, key=key_of(label) if limit else "")
    return Client(entry=entry, label=label, inside=inside, party=party)


class Checker:
    """Explores a protocol: `Pool`, or a mutant of it."""

    def __init__(self, kind: type[Pool] = Pool) -> None:
        self._kind = kind
        self._came: dict[State, tuple[State, Move, Path] | None] = {}
        self._known: Known = {}

    def explore(self, start: State, most: int = 100_000_000) -> Verdict:
        """Visit every state that can be reached from *start*, at most so many; stop at the first violation."""
        with ExitStack() as patches:
            patches.enter_context(patch.object(os, "sched_yield", lambda: None))  # there is nobody to yield to
            for room in (claim, liveness, protocol):
                patches.enter_context(patch.object(room, "process", PROCESSES))
            self._came = {start: None}
            transitions = 0
            line = deque([start])
            while line and len(self._came) < most:
                state = line.popleft()
                if kind := self._violation_at(state):
                    return Verdict(len(self._came), transitions, Violation(kind, self._trace(state)))
                for move in self._moves(state):
                    for successor, path in self._outcomes(state, move):
                        transitions += 1
                        if successor not in self._came:
                            self._came[successor] = (state, move, _bare(path))
                            line.append(successor)
                        if kind := _violation_on_the_way(state, successor):
                            trace = (*self._trace(state), self._told(state, move, path))
                            return Verdict(len(self._came), transitions, Violation(kind, trace))
            return Verdict(len(self._came), transitions, None)

    def _moves(self, state: State) -> list[Move]:
        return World(state, self._kind, _Schedule((), set()).choose, self._known).moves()

    def _outcomes(self, state: State, move: Move) -> Iterator[tuple[State, Path]]:
        """Yield every state in which the move can end, over all kills and interleavings in it, each one once."""
        been: set[object] = set()
        ends: set[State] = set()
        paths: list[Path] = [()]
        while paths:
            schedule = _Schedule(paths.pop(), been)
            world = World(state, self._kind, schedule.choose, self._known)
            try:
                world.apply(move)
            except _Pruned:
                pass
            else:
                end = world.freeze()
                if end not in ends:
                    ends.add(end)
                    yield end, tuple(schedule.taken)
            paths += schedule.forks

    # What must hold.

    def _violation_at(self, state: State) -> str | None:
        if not (state.killed or state.posted or any(client.unit for client in state.clients)):
            taken = policy.units(entry for folder, entry in state.records if folder == HOLDING)
            taken += sum(entry.reserved for folder, entry in state.records if folder != HOLDING)
            if state.value != max(0, state.capacity - taken):
                return UNLEVEL
        if all(client.phase in OVER_AND_OUT for client in state.clients):
            return None if self._is_clean(state) else LEFT_OVER
        deaf = any(client.cancelled and client.phase == TURN for client in state.clients)
        if not (deaf or _starves(state)) or any(move.prompt for move in self._moves(state)):
            return None
        disturbed = state.killed or state.stopped
        if deaf and not disturbed:
            return DEAF
        if not _starves(state):
            return None
        if not disturbed:
            return STUCK
        # one that is continued meanwhile would owe a tick of its own
        calm = state._replace(budget=(), calm=True)
        waiters = state.waiters()
        for order in permutations(waiters):
            if not self._heals(calm, [Move("ticks", index) for index in order]):
                return UNHEALED
        for index in waiters:
            client = state.clients[index]
            at_gate = client.phase == AT_GATE and (GATE, client.entry) in state.records
            if at_gate and not self._heals(calm, [Move("ticks early", index)]):
                return SLOW
        return None

    def _heals(self, state: State, ticks: Iterable[Move]) -> bool:
        """Return whether after these ticks, and all that follows by itself, nobody starves, whatever the order."""
        found = {state}
        for tick in ticks:
            # a tick belongs to one who sleeps; who was called meanwhile needs none
            rested = self._settle(found)
            awake = {before for before in rested if not before.clients[tick.client or 0].asleep}
            found = awake | {end for before in rested - awake for end, _ in self._outcomes(before, tick)}
        return not any(_starves(end) for end in self._settle(found))

    def _settle(self, states: Iterable[State]) -> set[State]:
        """Return the states in which everything has come to rest that goes on by itself."""
        line = list(states)
        been, resting = set(line), set()
        while line:
            state = line.pop()
            prompt = [move for move in self._moves(state) if move.prompt]
            if not prompt:
                resting.add(state)
            for move in prompt:
                for end, _ in self._outcomes(state, move):
                    if end not in been:
                        been.add(end)
                        line.append(end)
        return resting

    def _is_clean(self, state: State) -> bool:
        """Return whether nothing lies about once all are gone; after a kill, once somebody has looked."""
        if state.killed:
            calm = state._replace(budget=(("resize", 1),), calm=True)
            ends = [end for end, _ in self._outcomes(calm, Move(f"N becomes {state.capacity}", None))]
        else:
            ends = [state]
        return not any(end.records or end.turns or end.value != end.capacity for end in ends if not end.posted)

    # How it came to be.

    def _trace(self, state: State) -> tuple[str, ...]:
        told: list[str] = []
        while step := self._came[state]:
            told.append(self._told(*step))
            state = step[0]
        return tuple(reversed(told))

    def _told(self, state: State, move: Move, path: Path) -> str:
        world = World(state, self._kind, _Schedule(path, set()).choose, self._known)
        world.apply(move)
        return f"{move}: {', '.join(world.story) or '-'}\n    -> {shown(world.freeze())}"


def _bare(path: Path) -> Path:
    """Return a path to be kept, without the worlds on it."""
    return tuple(choice._replace(after=None) if isinstance(choice, Meanwhile) else choice for choice in path)


def _starves(state: State) -> bool:
    """Return whether the first who may go on and could waits beside as many free slots as it needs."""
    first = state.first()
    return first is not None and state.held() + first.entry.units <= state.capacity


def _violation_on_the_way(before: State, after: State) -> str | None:
    for old, new in zip(before.clients, after.clients, strict=True):
        if old.phase in (OUT, ADMIT) and new.phase == BUILD and after.running() > after.capacity:
            return OVER
        if old.phase == ADMIT and new.phase == BUILD and old.cancelled:
            return ADMITTED
        if old.phase == ADMIT and new.phase == BUILD:
            running = [after.clients[index] for index in after.builds()]
            if new.entry.limit and sum(client.label == new.label for client in running) > new.entry.limit:
                return CLASH
            # who was found stopped when this one was called to the gate has been passed over, or who may not go on
            listed = [entry for folder, entry in before.records if folder == HOLDING]
            passed = set(before.passed)
            if before.fair is not None:  # a release may let one go first that was stopped since
                passed.update(client.ticket for client in (*before.clients, *after.clients) if client.stopped)
            waiting = [c for c in after.clients if c.phase in WAITING and c.ticket not in passed]
            able = [client for client in waiting if before.may_go(client, listed)]
            if before.first_of([*able, old], listed) != old:
                return OVERTAKEN
        alive = {entry.ticket for _, entry in before.records} & before.lit
        wanted = policy.units(e for _, e in before.records if e.ticket in alive) + old.entry.units
        if old.phase == OUT and new.phase == GONE and not old.entry.limit and wanted <= before.capacity:
            return REFUSED
        if new.was_reset and any(folder == HOLDING and entry.ticket == new.ticket for folder, entry in after.records):
            return RETURNED
    return None
