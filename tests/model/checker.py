"""Breadth-first exploration of every interleaving of the protocol's steps, and what must hold in each state."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, NamedTuple

from ipclock.folder import GATE, HOLDING, QUEUED
from ipclock.pool import Pool
from ipclock.records import Entry
from tests.model.world import (
    ADMIT,
    ASLEEP,
    AT_GATE,
    BUILD,
    DEAD,
    GONE,
    LOOK,
    ORPHAN,
    OUT,
    WAITING,
    Client,
    FakePatience,
    Killed,
    Schedule,
    State,
    Suspended,
    World,
    processes_of,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

OVER = "more than N builds"
STUCK = "a waiter is stuck beside a free slot"
UNHEALED = "one tick of the waiters does not free the slot"
OVERTAKEN = "a waiter was overtaken"
UNLEVEL = "the value is not the number of free slots"


class Violation(NamedTuple):
    """What went wrong, and the steps that lead to it."""

    kind: str
    trace: tuple[str, ...]


class Verdict(NamedTuple):
    """The result of an exploration."""

    states: int
    transitions: int
    violation: Violation | None


def initial(clients: int, capacity: int, **budget: int) -> State:
    """Return an empty pool with so many clients still to come, and what may go wrong how often.

    Kinds: kill, give_up, reset, post, stop, resize (to 1 or 2 slots).
    """
    none: frozenset[tuple[str, Entry]] = frozenset()
    return State(
        (Client(),) * clients, none, frozenset(), frozenset(), capacity, capacity, 0, 0, tuple(sorted(budget.items()))
    )


class Checker:
    """Explores a protocol: `Pool`, or a mutant of it."""

    def __init__(self, kind: type[Pool] = Pool) -> None:
        self._kind = kind

    def explore(self, start: State, most: int = 10_000_000) -> Verdict:
        """Visit every state that can be reached from *start*, at most so many; stop at the first violation."""
        came: dict[State, tuple[State, str] | None] = {start: None}
        queue = deque([start])
        transitions = 0
        while queue and len(came) < most:
            state = queue.popleft()
            moved = False
            for name, successor, voluntary in self._successors(state):
                transitions += 1
                moved = moved or (voluntary and successor != state)
                kind = _step_violation(state, successor) or _state_violation(successor)
                if successor not in came:
                    came[successor] = (state, name)
                    queue.append(successor)
                if kind:
                    return Verdict(len(came), transitions, Violation(kind, (*_trace(came, state), name)))
            if not moved and _starves(state):
                kind = STUCK if not state.disturbed else None if self._heals(state) else UNHEALED
                if kind:
                    return Verdict(len(came), transitions, Violation(kind, _trace(came, state)))
        return Verdict(len(came), transitions, None)

    def _successors(self, state: State) -> Iterator[tuple[str, State, bool]]:
        """Yield (what happened, the state then, whether it happens by itself) for every possible step."""
        for index in range(len(state.clients)):
            if index and state.clients[index - 1].phase == OUT:
                break  # clients are alike: they arrive in the order of their numbers
            for name, step, voluntary in self._steps_of(state, index):
                for successor in self._outcomes(state, index, step):
                    yield f"client {index} {name}: {_shown(successor)}", successor, voluntary
        for name, kind, step in self._events(state):
            for successor in self._outcomes(state, None, step):
                if kind:
                    successor = successor._replace(budget=state.spend(kind))
                yield f"{name}: {_shown(successor)}", successor, False

    def _steps_of(self, state: State, index: int) -> Iterator[tuple[str, Callable[[World], None], bool]]:
        client = state.clients[index]
        if client.stopped:
            yield "is continued", lambda world: world.update(index, stopped=False), False
        elif client.phase == OUT:
            yield "arrives", _arrive, True
        elif client.phase == LOOK:
            yield "looks", _look, True
        elif client.phase == ASLEEP and dict(state.turns).get(client.ticket, 0) > 0:
            yield "wakes", lambda world: world.wake(index), True
        elif client.phase == AT_GATE and state.value > 0:
            yield "takes a unit", lambda world: world.take_unit(index), True
        elif client.phase == ADMIT:
            yield "asks to be admitted", _admit, True
        elif client.phase == BUILD:
            yield "ends its build", _release, True
        elif client.phase == ORPHAN:
            yield "ends as an orphan", _orphan_ends, True
        if client.stopped:
            return
        if client.phase in (ASLEEP, AT_GATE):
            yield "ticks", _tick, False
        if client.phase in WAITING and state.left("give_up"):
            yield "gives up", _give_up, False
        if client.phase in (*WAITING, BUILD) and state.left("kill"):
            yield "is killed", _be_killed, False
        if client.phase in WAITING and state.left("stop"):
            yield "is stopped", _be_stopped, False

    def _events(self, state: State) -> Iterator[tuple[str, str, Callable[[World], None]]]:
        if state.left("reset"):
            yield "a reset", "reset", _reset
        if state.left("post"):
            yield "a stranger posts", "post", _post
        if state.left("resize"):
            other = 1 if state.capacity > 1 else 2
            yield f"N becomes {other}", "resize", lambda world: world.pool.resize(other, FakePatience())

    def _outcomes(self, state: State, actor: int | None, step: Callable[[World], None]) -> set[State]:
        """Return every state in which *step* can end, over all kills and interleavings inside it."""
        found: set[State] = set()
        prefixes: list[tuple[int, ...]] = [()]
        while prefixes:
            schedule = Schedule(prefixes.pop())
            world = World(state, schedule, self._kind)
            world.actor = actor
            with processes_of(world):
                try:
                    step(world)
                except Suspended:
                    pass
                except Killed:
                    _die(world)
            found.add(world.freeze())
            prefixes.extend(schedule.others())
        return found

    def _heals(self, state: State) -> bool:
        """Return whether one tick of every waiter, and what follows by itself, ends the starvation."""
        calm = state._replace(budget=())
        for index, client in enumerate(calm.clients):
            if client.phase in (ASLEEP, AT_GATE) and not client.stopped:
                calm = next(iter(self._outcomes(calm, index, _tick)))
        for _ in range(100):
            steps = [s for _, s, voluntary in self._successors(calm) if voluntary and s != calm]
            if not steps:
                return not _starves(calm)
            calm = steps[0]
            if not _starves(calm):
                return True
        return False


def _arrive(world: World) -> None:
    index = world.actor or 0
    world.pool.arrive(world.claim(index), FakePatience())
    world.update(index, phase=LOOK)


def _look(world: World) -> None:
    index = world.actor or 0
    world.pool.wait_turn(world.claim(index), FakePatience())
    world.update(index, phase=AT_GATE)


def _admit(world: World) -> None:
    index = world.actor or 0
    claim = world.claim(index)
    claim.slot = 0
    world.pool.admit(claim, FakePatience())
    world.update(index, phase=BUILD if claim.slot else LOOK, slot=claim.slot)


def _release(world: World) -> None:
    index = world.actor or 0
    # the build has ended before its supervisor does anything
    world.update(index, phase=DEAD)
    world.pool.release(world.claim(index))
    world.update(index, phase=GONE)


def _give_up(world: World) -> None:
    index = world.actor or 0
    world.budget = world.before.spend("give_up")
    world.pool.give_up(world.claim(index))
    world.update(index, phase=GONE)


def _tick(world: World) -> None:
    index = world.actor or 0
    world.pool.tidy(FakePatience())
    client = world.clients[index]
    if client.phase == ASLEEP:
        world.update(index, phase=LOOK)
    elif client.phase == AT_GATE and (GATE, Entry(client.ticket)) not in world.records:
        world.update(index, phase=ADMIT)  # `wait_at_gate` ends, and `admit` finds that it is not at the gate


def _be_killed(world: World) -> None:
    world.budget = world.before.spend("kill")
    world.disturbed = True
    raise Killed


def _die(world: World) -> None:
    """The acting process is gone; its beacon goes out unless a build has it."""
    client = world.clients[world.actor or 0]
    if client.phase == BUILD:
        world.update(world.actor or 0, phase=ORPHAN)
        return
    world.lit.discard(client.ticket)
    world.update(world.actor or 0, phase=DEAD)


def _orphan_ends(world: World) -> None:
    index = world.actor or 0
    world.lit.discard(world.clients[index].ticket)
    world.update(index, phase=DEAD)


def _be_stopped(world: World) -> None:
    index = world.actor or 0
    world.budget = world.before.spend("stop")
    world.disturbed = True
    world.update(index, stopped=True, was_stopped=True)


def _reset(world: World) -> None:
    for index, client in enumerate(world.clients):
        if client.phase in (BUILD, ORPHAN):
            world.update(index, evicted=True)
    world.pool.reset(FakePatience())


def _post(world: World) -> None:
    world.value += 1
    world.posted = True


def _builds(state: State) -> list[Client]:
    return [client for client in state.clients if client.phase in (BUILD, ORPHAN) and not client.evicted]


def _step_violation(before: State, after: State) -> str | None:
    for old, new in zip(before.clients, after.clients, strict=True):
        if old.phase == ADMIT and new.phase in (BUILD, ORPHAN):
            if len(_builds(after)) > after.capacity:
                return OVER
            ahead = [
                client
                for client in before.clients
                if client.phase in WAITING and client.ticket < new.ticket and not client.was_stopped
            ]
            if ahead:
                return OVERTAKEN
    return None


def _state_violation(state: State) -> str | None:
    if state.disturbed or state.posted or any(client.phase == ADMIT for client in state.clients):
        return None
    held = sum(folder == HOLDING for folder, _ in state.records)
    return UNLEVEL if state.value != max(0, state.capacity - held) else None


def _starves(state: State) -> bool:
    """Return whether somebody who is alive and not stopped waits although a slot is free."""
    held = sum(folder == HOLDING and entry.ticket in state.lit for folder, entry in state.records)
    waits = any(client.phase in WAITING and not client.stopped for client in state.clients)
    return waits and held < state.capacity


def _trace(came: dict[State, tuple[State, str] | None], state: State) -> tuple[str, ...]:
    names: list[str] = []
    while step := came[state]:
        state, name = step
        names.append(name)
    return tuple(reversed(names))


def _shown(state: State) -> str:
    folders = {name: sorted(e.file for f, e in state.records if f == name) for name in (QUEUED, GATE, HOLDING)}
    clients = [client.phase + " stopped" * client.stopped for client in state.clients]
    return f"{folders} lit {sorted(state.lit)} value {state.value} turns {dict(state.turns)} clients {clients}"
