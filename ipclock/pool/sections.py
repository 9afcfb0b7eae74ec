"""What a section does for the whole pool: clears away the dead, calls the next waiter, levels the semaphore.

A section is what happens in the mutex (PROTOCOL.md). Each one leaves the pool whole: the value of the semaphore is what
the records say (INV-4), and the head of the queue has been called (INV-5).
"""

from __future__ import annotations

import os
import time
from contextlib import contextmanager

from ipclock._typing import TYPE_CHECKING
from ipclock.linux import descriptors, procfs
from ipclock.linux.semaphore import MOST_UNITS, Semaphore, require_support
from ipclock.pool import liveness, policy, queue
from ipclock.pool.directory import GATE, HOLDING, NEW, QUEUED, STATES
from ipclock.pool.notes import Fairness
from ipclock.pool.record_name import parse
from ipclock.pool.records import LAST_DRAWN, Store
from ipclock.pool.semaphores import Turns, open_gate
from ipclock.pool.wait_context import WaitContext

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Self, TypeVar

    from ipclock.pool.record import Record
    from ipclock.pool.record_name import RecordName

    T = TypeVar("T")

CALLED_S = 5.0  # a waiter that is called and does not act for so long is passed over until it does


class Sections:
    """A named set of slots. Use it from one thread, and not after a fork.

    *capacity* becomes the pool's if it is given; else a pool keeps its own, and a new one gets 1. `heeds_us`: what this
    client says of the capacity counts.
    """

    def __init__(self, name: str, store: Store, gate: Semaphore, turns: Turns, capacity: int | None = None) -> None:
        self.name = name
        self.store = store
        self.gate = gate
        self.turns = turns
        self._found_dead: list[tuple[RecordName, Record]] = []
        self.heeds_us = True
        self._wanted = capacity
        self._former: int | None = None  # of the directory that was there before
        self._searched = False
        self._between: str | None = None
        self._unlisted = 0  # units that builds of an earlier directory of the pool hold, as long as it is not settled

    @classmethod
    def open(
        cls,
        name: str,
        lock_dir: str,
        capacity: int | None = None,
        *,
        group: int | None = None,
        repair: bool = False,
    ) -> Self:
        """Open the pool, making whatever it lacks; with *repair* a damaged semaphore is replaced, and modes are mended.

        A pool that is made is its maker's alone, or shared with *group* (gid).

        Raises PoolPermissionError (77), PoolCreateError (73), Unavailable and SemaphoreError (69).
        """
        require_support()  # before LOCK_DIR is made there
        procfs.require()
        store = Store.open(lock_dir, name[1:], create=True, group=group)
        try:
            if repair:
                store.refit()
            gate = open_gate(name, store, repair=repair)
        except BaseException:
            store.close()
            raise
        return cls(name, store, gate, Turns(name, store), capacity)

    def close(self) -> None:
        """Close what was opened; takes no slot away."""
        self.gate.close()
        self.store.close()

    def running(self) -> list[Record]:
        """Return the records of the holders."""
        return [record for entry in self.store.entries(HOLDING) if (record := self.store.read(HOLDING, entry))]

    def recover(self, sweep: list[RecordName] | None = None) -> None:
        """Clear away the dead, send a stopped one back from the gate, call the next one, level the value (INV-4).

        In the mutex. With *sweep* the dead among these in line go too, and what was left in `new/` and of turns; those
        at its head go when they would be called.
        """
        self._clear_away(sweep)
        self._pass_on()

    def _pass_on(self) -> None:
        """Call the next one, then level the value: a waiter that the post wakes wants the mutex next."""
        self.call_next()
        self._level()

    def _clear_away(self, sweep: list[RecordName] | None) -> None:
        holders = []
        for entry in self.store.entries(HOLDING):
            if self._is_dead(HOLDING, entry):
                record = self.store.read(HOLDING, entry)
                if record and not entry.within and not liveness.supervisor(record):  # else it is just leaving by itself
                    self._found_dead.append((entry, record))
                self._clear(HOLDING, entry)
            else:
                holders.append(entry)
        for entry in self.store.entries(GATE):
            if self._is_dead(GATE, entry):
                self._clear(GATE, entry)
            elif liveness.is_stopped(self.store, GATE, entry) or not self._eligible(GATE, entry, holders):
                self.store.move(entry, GATE, QUEUED)
            elif self.store.quiet_s(GATE, entry) > CALLED_S:
                self.store.move(entry, GATE, QUEUED, silent=1)
        if sweep is not None:
            for entry in sweep:
                if self._is_dead(QUEUED, entry):
                    self._clear(QUEUED, entry)
            self.store.sweep()
            self._sweep_turns()

    def _sweep_turns(self) -> None:
        """Remove the turns to which no record leads: of waiters that died after the pool was removed.

        One that lives and has not come back yet makes its own again.
        """
        waiting = {entry.ticket for state in (QUEUED, GATE) for entry in self.store.entries(state)}
        for ticket in self.turns.tickets() - waiting:
            self.turns.remove(ticket)

    def _level(self) -> None:
        if self.gate.value > MOST_UNITS:
            gate = open_gate(self.name, self.store, repair=True)
            self.gate.close()
            self.gate = gate
        lacking = policy.units_to_post(self._taken(), self._allowed(), self.gate.value)
        for _ in range(lacking):
            self.gate.post()
        for _ in range(-lacking):
            self.gate.try_wait()

    def call_next(self) -> None:
        """Call the first waiter that is there and not stopped, if none stands at the gate. In the mutex."""
        if self.store.entries(GATE):
            return
        if entry := self._first(self.store.entries(QUEUED), self.store.entries(HOLDING)):
            # rename, then post: a waiter that wakes first must find its record in gate/, or it sleeps on (INV-5)
            self.store.move(entry, QUEUED, GATE)
            self.turns.post(entry.ticket)

    def _first(
        self, waiters: list[RecordName], holders: list[RecordName], at_gate: RecordName | None = None
    ) -> RecordName | None:
        """Return the first of these that may go to the gate and can, or stands there; clear away the dead before it."""

        def may_go(entry: RecordName) -> bool:
            return entry == at_gate or self._may_go(entry, holders)

        return next(policy.in_order(waiters, queue.served(self.store, waiters), may_go), None)

    def _may_go(self, entry: RecordName, holders: list[RecordName]) -> bool:
        if entry.by or not self._eligible(QUEUED, entry, holders):
            return False
        if self._is_dead(QUEUED, entry):
            self._clear(QUEUED, entry)
            return False
        return not liveness.is_stopped(self.store, QUEUED, entry)

    def _eligible(self, state: str, entry: RecordName, holders: list[RecordName]) -> bool:
        return queue.eligible(self.store, state, entry, holders, self.capacity)

    def tidy(self, context: WaitContext) -> None:
        """Recover and call the next one, for a pool in which no client has taken a step lately."""
        with self._mutex(context):
            self.recover(policy.in_turn(self.store.entries(QUEUED), time.monotonic()))

    def keep_capacity(self) -> None:
        """Leave the capacity to others: this client's is not the pool's owner's."""
        self.heeds_us, self._wanted = False, None

    @property
    def capacity(self) -> int:
        """The number of slots, N."""
        found = self.store.capacity
        if found is None:
            found = self._former if self._wanted is None else self._wanted
        return 1 if found is None else found

    def found_dead(self) -> list[tuple[RecordName, Record]]:
        """Return the holders that this client has found dead and cleared away, each of them once."""
        found, self._found_dead = self._found_dead, []
        return found

    @contextmanager
    def _mutex(self, context: WaitContext) -> Iterator[None]:
        while True:
            # a look at a file whose server does not answer keeps us here, rather than all others out of the mutex
            self._wanted = context.capacity(self._wanted)
            with self.store.mutex(lambda seconds, pid: context.stuck(self.store.path, seconds, pid)):
                # a removed mutex excludes no client that opens the directory anew
                if not self.store.vanished():
                    # again: it may have changed while we waited for the mutex
                    self._wanted = context.capacity(self._wanted)
                    self._settle()
                    yield
                    return
            self._reopen()

    def _settle(self) -> None:
        """Take over the capacity that was asked for; in a new directory, see whether an old one left clients behind.

        Its builds count until they have written themselves again or have ended.
        """
        if self.store.capacity is None:
            self.store.capacity = self.capacity
        elif self._wanted not in (None, self.store.capacity):
            self.store.resize(self._wanted)
        self._wanted = None  # said once: a later change by another client stands
        if self._between is not None:
            if self._between != self._fair_between():
                self.store.fairness = None if self._between == "off" else Fairness(self._between)
            self._between = None
        if not self.store.settled:
            self._unlisted = self.store.unlisted()
            if not self._searched:
                self._spare_tickets()
                self._searched = True
            self.store.settled = not self._unlisted

    def _spare_tickets(self) -> None:
        """Skip the tickets of clients of an old directory, as far as their records or turns can be seen."""
        lost = [name.rpartition("/") for name in descriptors.locked_files(os.path.basename(self.store.path))]
        known = {entry.ticket for state, _, name in lost if state != NEW and (entry := parse(name))}
        seen = known | self.turns.tickets()
        # each by itself: anybody may have a lock, or a file beside the semaphores, by a number that would hide these
        self.store.skip_tickets(max((ticket for ticket in seen if ticket <= LAST_DRAWN), default=0))

    def _reopen(self) -> None:
        # for a directory that has none yet: one that is there may have got another capacity since
        self._former = self.capacity
        fresh = Sections.open(self.name, os.path.dirname(self.store.path), self._wanted, group=self.store.group)
        self.close()
        self.store, self.gate, self.turns, self._wanted = fresh.store, fresh.gate, fresh.turns, fresh._wanted
        self._searched = False

    def _allowed(self) -> int:
        return max(0, policy.limit(self.capacity, self.store.drained) - self._elsewhere)

    @property
    def _elsewhere(self) -> int:
        return 0 if self.store.settled else self._unlisted

    def _amiss(self) -> bool:
        """Look without the mutex whether a recover has anything to do; a wrong yes costs one for nothing."""
        return policy.units_to_post(self._taken(), self._allowed(), self.gate.value) != 0 or any(
            self._is_dead(HOLDING, entry) for entry in self.store.entries(HOLDING)
        )

    def _taken(self) -> int:
        """Return how many units are given, or kept for the waiter at the gate."""
        return policy.units(self.store.entries(HOLDING)) + sum(entry.reserved for entry in self.store.entries(GATE))

    def _is_dead(self, state: str, entry: RecordName) -> bool:
        return liveness.verdict(self.store, state, entry) == policy.DEAD

    def _clear(self, state: str, entry: RecordName) -> None:
        # the turn first: killed in between, the record stays and leads the next one here again
        self.turns.remove(entry.ticket)
        self.store.remove(state, entry)

    def _places(self, ticket: int) -> list[tuple[str, RecordName]]:
        """Return where the records of the living clients lie that have this ticket."""
        found = ((state, entry) for state in STATES[1:] for entry in self.store.entries(state))
        return [place for place in found if place[1].ticket == ticket and not self._is_dead(*place)]

    def _fair_between(self) -> str:
        fairness = self.store.fairness
        return fairness.between if fairness else "off"
