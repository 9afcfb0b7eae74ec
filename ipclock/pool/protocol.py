"""The protocol: how a client of a pool arrives, waits, is admitted and leaves. One method a step.

Read it against PROTOCOL.md beside it, which holds the words, the invariants (INV-n) and the reasons. In short: the
records are the truth, the semaphore is the gate; a step under the mutex brings the semaphore's value back to what
the records say and calls the next waiter. Guarantees the invariants for a client that is killed or stopped at any line.
Does not guarantee anything about the processes of a build that close its beacon themselves.
One file, because the order of the steps is one argument.
"""

from __future__ import annotations

import os
import time
from contextlib import ExitStack, contextmanager, suppress

from ipclock import users
from ipclock._typing import TYPE_CHECKING
from ipclock.errors import (
    Interrupted,
    IpclockError,
    NoPoolError,
    NoTicket,
    NotYourBuild,
    PoolPermissionError,
    PriorityNotAllowedError,
    SemaphoreError,
    SlotBusy,
    SupersededError,
    TooManySlotsError,
)
from ipclock.linux import descriptors, process, procfs
from ipclock.linux.semaphore import MOST_UNITS, Semaphore, give, require_support
from ipclock.pool import liveness, policy, queue
from ipclock.pool.cancellation import BY, ENDING, Cancellation
from ipclock.pool.claim import AlreadyWaits, Claim, stamp
from ipclock.pool.directory import GATE, HOLDING, NEW, QUEUED, STATES, TRIES
from ipclock.pool.notes import Fairness
from ipclock.pool.record_name import parse
from ipclock.pool.records import LAST_DRAWN, Store
from ipclock.pool.semaphores import Turns, open_gate
from ipclock.pool.stake import Stake
from ipclock.pool.wait_context import WaitContext
from ipclock.utf8 import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from typing import Self, TypeVar

    from ipclock.pool.notes import Drain
    from ipclock.pool.record import OwnRecord, Record
    from ipclock.pool.record_name import RecordName

    T = TypeVar("T")

FIRST_CHUNK_S = 0.1  # a waiter that does not get its unit at once shows so soon
GATE_CHUNK_S = 1.0
BLIND_CHUNK_S = 0.33  # the one at the gate looks for holders that died, where their end does not wake it
CALLED_S = 5.0  # a waiter that is called and does not act for so long is passed over until it does
KEEP_DUE_S = 1.0
RECOVER_DUE_S = 0.5  # without a section; with the nap of one who is near less than two seconds
LEAVE_PATIENCE_S = 10.0  # for the mutex on the way out; the beacon is out by then, so nothing depends on it


class Pool:
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
        self._stakes: dict[Claim, Stake] = {}
        self._wanted = capacity
        self._former: int | None = None  # of the folder that was there before
        self._searched = False
        self._between: str | None = None
        self._unlisted = 0  # units that builds of an earlier folder of the pool hold, as long as it is not settled

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

    def acquire(self, claim: Claim, context: WaitContext, *, block: bool = True) -> Claim:
        """Wait until the claim holds a slot and return it. `release` gives it back.

        Raises SlotTimeout or SlotBusy (75), AlreadyWaits, and whatever *context* raises; then nothing is left behind.
        """
        try:
            self._insist(claim, lambda: self.arrive(claim, context, block=block))
            context.arrived(claim.ticket)
            while not claim.slot:
                with suppress(NoPoolError):  # removed just now: a tick makes it anew
                    self.wait_turn(claim, context)
                    self.wait_at_gate(claim, context)
                    self.admit(claim, context)
        except BaseException as error:
            self.give_up(claim, status_of(error))
            raise
        return claim

    def stake(self, claim: Claim) -> Stake:
        """Return what the claim has in the pool; nothing before it arrives and once it has left."""
        return self._stakes.setdefault(claim, Stake())

    def _insist(self, claim: Claim, step: Callable[[], T]) -> T:
        """Return what a step returns that lists the claim, and do it again in a pool that is removed meanwhile."""
        mine = self.stake(claim)
        for _ in range(TRIES - 1):
            with suppress(NoPoolError):
                return step()
            if mine.record:  # of the folder that is gone
                mine.record.unlock()
                mine.record.close()
                mine.record = None
        return step()

    # The steps, in the order of a client's life.

    def arrive(self, claim: Claim, context: WaitContext, *, block: bool = True) -> None:
        """Queue the claim under a new ticket. Without *block*, raise SlotBusy (75) unless a slot is due to it."""
        claim.times = stamp("arrived")
        claim.caller = claim.caller or _parent()
        ready = block or claim.ready()
        with self._mutex(context):
            claim.entry = claim.entry._replace(party=self._party(claim))
            self._clear_away(None if block else self.store.entries(QUEUED))
            self._level()
            self._refuse(claim, block=block, ready=ready)
            if claim.joins and block and (ticket := self._same_that_waits(claim)):
                raise AlreadyWaits(ticket)
            self.store.publish(self._draft(claim, context), QUEUED, claim.entry)
            self._pass_others(claim)
            self.call_next()

    def _party(self, claim: Claim) -> str:
        fairness = self.store.fairness
        return claim.party(fairness.between) if fairness else ""

    def _draft(self, claim: Claim, context: WaitContext) -> OwnRecord:
        """Write the claim's record and return it; draw its ticket."""
        mine = self.stake(claim)
        this = process.identify(os.getpid())
        fields = {
            "kind": "pid" if claim.holder and claim.holder_fd is None else "fd",
            "label": claim.label,
            "process": str(claim.holder or this),
            "waiter": str(this),
            "timeout": f"{context.timeout:g}",
            **claim.times,
        }
        if users.shows_all():  # a uid of a user namespace is another user's outside
            fields["uid"] = str(os.getuid())
        if claim.caller:
            fields["caller"] = str(claim.caller)
        if claim.same:
            fields["same"] = claim.same
        if claim.memory:
            fields["memory"] = str(claim.memory)
        mine.record = self.store.draft(fields, claim.holder_fd)
        claim.entry = claim.entry._replace(ticket=self.store.draw_ticket())
        return mine.record

    def join(self, claim: Claim, context: WaitContext, ticket: int) -> bool:
        """Make the claim a holder in the slot of *ticket*, whose build it runs inside of; False if that is given back.

        At once: it takes no unit and does not wait, or it would wait for the build around it. The slot is given on
        when the last one of those in it has ended.
        """
        claim.times = stamp("arrived") | stamp("admitted")
        claim.caller = claim.caller or _parent()
        claim.memory = 0  # the build around it is expected to need it
        return self._insist(claim, lambda: self._join(claim, context, ticket))

    def _join(self, claim: Claim, context: WaitContext, ticket: int) -> bool:
        mine = self.stake(claim)
        with self._mutex(context):
            listed = self.store.entries(HOLDING)
            unlisted = [entry for entry, _ in liveness.unlisted_around_us(self.store)]
            around = next((entry for entry in [*listed, *unlisted] if entry.ticket == ticket), None)
            if around is None:
                return False
            self.store.skip_tickets(around.outer)
            record = self._draft(claim, context)
            claim.entry = claim.entry._replace(units=around.units, within=around.outer, party=around.party)
            self._hold(claim)
            entry = claim.entry._replace(slot=around.slot if around in listed else self._own_slot(around))
            self.store.publish(record, HOLDING, entry)
            claim.entry, mine.era = entry, self.store.era
        return True

    def _refuse(self, claim: Claim, *, block: bool, ready: bool) -> None:
        wanted = claim.entry
        if wanted.priority < self.store.lowest_priority and not users.rules(self.store.owner):
            raise PriorityNotAllowedError(wanted.priority, self.store.lowest_priority)
        if 0 < self.capacity < wanted.units:
            raise TooManySlotsError(wanted.units, self.capacity)
        if not (
            block or (ready and queue.due_at_once(self.store, wanted, claim.label, self.capacity, self._allowed()))
        ):
            held = min(self.capacity, policy.units(self.store.entries(HOLDING)) + self._elsewhere)
            raise SlotBusy(held, self.capacity, len(queue.waiting(self.store)))

    def _same_that_waits(self, claim: Claim) -> int:
        """Return the ticket of a waiter that is to run the same, 0 for none.

        In the section of the arrival: of two that come at once, one waits.
        """
        for state, entry in queue.of_label(self.store, claim.label):
            record = self.store.read(state, entry)
            said = record.fields if record and record.user == os.getuid() else {}
            if claim.same and said.get("same") == claim.same and BY not in said and not self._is_dead(state, entry):
                return entry.ticket
        return 0

    def _pass_others(self, claim: Claim) -> None:
        """Replace those of the same label that wait, if asked to; send one back from the gate that others precede."""
        at_gate = self.store.entries(GATE)
        for state, entry in queue.of_label(self.store, claim.label) if claim.supersede else []:
            if entry.ticket != claim.ticket:
                self.store.move(entry, state, QUEUED, by=claim.ticket)
                self.turns.post(entry.ticket)
        holders = self.store.entries(HOLDING)
        for entry in self.store.entries(GATE):
            if self._overtakes(entry, holders):
                self.store.move(entry, GATE, QUEUED)
        if at_gate and not self.store.entries(GATE):
            self.recover()  # what was reserved for the one who stood there is free again

    def wait_turn(self, claim: Claim, context: WaitContext) -> None:
        """Sleep until the claim's record lies in `gate/`."""
        mine = self.stake(claim)
        if self.store.has(GATE, claim.entry, mine.record):
            return
        claim.entry = claim.entry._replace(reserved=0)  # a waiter that was sent back from the gate has none
        while not self.store.has(GATE, claim.entry, mine.record):
            if mine.turn is None:
                # then look again: a call that came before the turn existed could not post it
                with suppress(PoolPermissionError):  # a stranger has planted something there: its own ticks wake it
                    mine.turn = self.turns.create(claim.ticket)
                    self._leave_if_cancelled(claim)  # as well: a cancel could not post the turn either
                    context.tick(claim.ticket)
                    continue
                time.sleep(context.chunk(self._nap(claim)))  # there is no turn to sleep on
                self.tick(claim, context)
                continue
            mine.turn.wait(context.chunk(self._nap(claim)))
            self.tick(claim, context)

    def _nap(self, claim: Claim) -> float:
        mine = self.stake(claim)
        if mine.place > policy.NEAR and (changed := self.store.changed_at(QUEUED)) != mine.placed_at:
            mine.place, mine.placed_at = queue.place(self.store, claim.ticket), changed
        return policy.nap(mine.place)

    def wait_at_gate(self, claim: Claim, context: WaitContext) -> None:
        """Sleep until a unit was taken from the semaphore, or the record was moved away from the gate.

        One for which all of its units are reserved sleeps until it is `ready`.
        """
        mine = self.stake(claim)
        if not self.store.has(GATE, claim.entry, mine.record):
            return
        with context.watching(self._builds) as watched:
            chunk = FIRST_CHUNK_S
            while self.store.has(GATE, claim.entry, mine.record):
                if claim.entry.reserved == claim.entry.units:
                    if claim.ready():
                        return
                    time.sleep(context.chunk(chunk))  # memory that becomes free wakes no waiter
                elif self.gate.wait(context.chunk(chunk)):
                    return
                self.tick(claim, context, at_gate=True)
                chunk = GATE_CHUNK_S if watched else BLIND_CHUNK_S

    def _builds(self) -> list[list[int]]:
        """Return the processes of each build; while we are at the gate, no other client is admitted."""
        return [liveness.processes(record) for record in self.running()]

    def running(self) -> list[Record]:
        """Return the records of the holders."""
        return [record for entry in self.store.entries(HOLDING) if (record := self.store.read(HOLDING, entry))]

    def admit(self, claim: Claim, context: WaitContext) -> None:
        """Make the claim a holder if its record lies in `gate/` and its units are free by the records (INV-2).

        Otherwise the unit that it took is void: recover restores the value, less what is reserved for it now, and the
        claim goes back to waiting: at the gate, or in line if it may not be the next one any more.
        """
        mine = self.stake(claim)
        ready = claim.ready()
        with self._mutex(context):
            self._heed(claim)  # in the section: no build is admitted once it is cancelled (INV-2d)
            if not claim.cancelled and self.store.has(GATE, claim.entry, mine.record):
                self._decide(claim, ready)
            if claim.slot:
                self._pass_on()
            else:
                self.recover()
        if not claim.slot:
            self._leave_if_cancelled(claim)

    def _decide(self, claim: Claim, ready: bool) -> None:
        mine = self.stake(claim)
        holders = self.store.entries(HOLDING)
        held, wanted, allowed = policy.units(holders), claim.entry.units, self._allowed()
        if not self._eligible(GATE, claim.entry, holders) or self._overtakes(claim.entry, holders):
            self.store.move(claim.entry, GATE, QUEUED)
        elif ready and policy.may_admit(held, wanted, allowed):
            slot = policy.lowest_free_slot([entry.slot for entry in holders])
            era = self.store.era
            claim.times |= stamp("admitted")
            mine.write(**claim.times)
            self._hold(claim)
            self._note_admission(claim.entry)
            claim.entry = self.store.move(claim.entry, GATE, HOLDING, slot=slot)
            mine.era, claim.held = era, held + wanted
            self._drop_turn(claim)
        else:
            reserved = policy.units_to_reserve(held, wanted, allowed)
            if reserved != claim.entry.reserved:
                claim.entry = self.store.move(claim.entry, GATE, GATE, reserved=reserved)

    def _hold(self, claim: Claim) -> None:
        """Light the holder's beacon. Raises NoPoolError if the pool has another folder by now.

        Beacon, then look at the place: one that puts another folder there looks for beacons afterwards, so either it
        finds ours, or we find its folder (INV-8).
        """
        mine = self.stake(claim)
        if mine.record:
            mine.record.hold(claim.entry.units)
            if not self.store.stands():
                mine.record.let_go(claim.entry.units)
                raise NoPoolError(self.store.path)

    def _note_admission(self, entry: RecordName) -> None:
        """Let the admission count for the waiter's party, if the pool is fair.

        Note, then rename: killed in between, a party has had a turn too much, once; the other way round a turn would be
        free, and a party whose builds die at their start could take all of them.
        """
        if entry.party and (fairness := self.store.fairness):
            latest = policy.Admission(entry.party, entry.ticket, entry.priority)
            with suppress(OSError):  # of a full file system: the order suffers, the build does not
                self.store.fairness = fairness._replace(admissions=policy.noted(fairness.admissions, latest))

    def _overtakes(self, entry: RecordName, holders: list[RecordName]) -> bool:
        """Return whether a waiter precedes the one at the gate: a newcomer, or one that was passed over so far."""
        return self._first([entry, *self.store.entries(QUEUED)], holders, entry) != entry

    def release(self, claim: Claim, ended: int | None = None) -> None:
        """Give the slot back. A claim whose record is gone (a reset) gives nothing: its slot is not its own.

        *ended* is the exit status of its build, or -n for signal n, for those who wait for its end.
        """
        self._leave(claim, ended, HOLDING)

    def give_up(self, claim: Claim, ended: int | None = None) -> None:
        """Take the claim off the records, wherever its record lies."""
        self._leave(claim, ended, QUEUED, GATE, HOLDING)

    def _leave(self, claim: Claim, ended: int | None, *states: str) -> None:
        mine = self.stake(claim)
        if mine.record is None:
            return
        self._heed(claim)
        if ended is not None:
            with suppress(OSError):  # of a full file system
                mine.write(ended=ended)
        # out first: from here on anybody can clear the record, so neither a daemon that inherited the
        # descriptor nor a mutex that does not come free can keep the slot
        mine.record.unlock()
        with suppress(IpclockError), self._mutex(WaitContext(LEAVE_PATIENCE_S)):
            self._drop_turn(claim)
            if not self._listed(claim):
                # under the old epoch another client has cleared it since the beacon went out
                claim.evicted = claim.slot > 0 and mine.era != self.store.era
            for state in states:
                for entry in self.store.entries(state):
                    if entry.ticket == claim.ticket:
                        self.store.remove(state, entry, mine.record)
            self._pass_on()
        mine.record.close()
        del self._stakes[claim]
        # the process that was woken may be queued on our processor, and would wait for the end of our time slice
        os.sched_yield()

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

    # What happens beside a client's own steps.

    def tick(self, claim: Claim, context: WaitContext, *, at_gate: bool = False) -> None:
        """Look after the pool between two sleeps of a waiter. Raises SlotTimeout (75) when the time is up."""
        mine = self.stake(claim)
        # first: a client that was stopped, and is ended by SIGTERM for that, has been cancelled all the same
        self._leave_if_cancelled(claim)
        context.tick(claim.ticket)
        self._act(claim)
        with suppress(NoPoolError):  # removed again while it was made anew: the next tick makes it
            if time.monotonic() - mine.kept_at >= KEEP_DUE_S:
                mine.kept_at = time.monotonic()
                self.keep(claim)
                self._keep_turn(claim)
                self._keep_party(claim)
            if self.store.idle_s() >= RECOVER_DUE_S or (at_gate and self._amiss()):
                self.tidy(context)

    def _act(self, claim: Claim) -> None:
        """Show that the claim's process acts; if it was passed over because it did not, let it be called again."""
        mine = self.stake(claim)
        if mine.record:
            mine.record.touch()
        silent = claim.entry._replace(reserved=0, silent=1)
        if self.store.has(QUEUED, silent, mine.record):
            with suppress(NoPoolError), self._mutex(WaitContext(LEAVE_PATIENCE_S)):
                if self.store.has(QUEUED, silent, mine.record):
                    self.store.move(silent, QUEUED, QUEUED)
                    self.recover()

    def tidy(self, context: WaitContext) -> None:
        """Recover and call the next one, for a pool in which no client has taken a step lately."""
        with self._mutex(context):
            self.recover(policy.in_turn(self.store.entries(QUEUED), time.monotonic()))

    def watch(self, claim: Claim) -> None:
        """Look after the pool from time to time while *claim* holds its slot; whatever is wrong, the build goes on.

        A build that was cancelled is to be ended: `claim.cancelled` says so, and the record that this client does it.
        """
        with suppress(IpclockError):
            self._heed(claim)
            self.keep(claim)
            if self._amiss():
                self.tidy(WaitContext(0))

    def _heed(self, claim: Claim) -> None:
        """Take note of what another client has added to the claim's record: that it is cancelled."""
        mine = self.stake(claim)
        if mine.record and (cancelled := Cancellation.read(mine.record.news())):
            with suppress(OSError):  # of a full file system: then the one who cancels ends the build itself
                mine.write(**{ENDING: 1})
            claim.cancelled = cancelled

    def _leave_if_cancelled(self, claim: Claim) -> None:
        """Raise CancelledError for a waiter that is to leave."""
        self._heed(claim)
        if claim.cancelled:
            raise claim.cancelled.error(claim.label)

    def keep(self, claim: Claim) -> None:
        """See that the claim's record and the semaphore are still there; write the record again if it vanished.

        A logout's RemoveIPC or a cleaner removes files under living builds; a reset does so on purpose, and tells
        by a new epoch: a holder that it took away becomes `evicted`.
        """
        mine = self.stake(claim)
        if self.store.vanished():
            self._reopen()
        elif self.gate.replaced():
            # a damaged one in its place: a reset replaces it, until then the old one serves to sleep on
            with suppress(SemaphoreError, PoolPermissionError):
                gate = open_gate(self.name, self.store)
                self.gate.close()
                self.gate = gate
        if claim.evicted or (self._listed(claim) and (not claim.slot or mine.era == self.store.era)):
            return
        with self._mutex(WaitContext(LEAVE_PATIENCE_S)):
            # look again, alone: between two looks the record may have been renamed, or a reset is half done: who
            # learns its epoch before it comes to unlink the record would outlive the reset
            if self._listed(claim):
                mine.era = self.store.era
            else:
                self._restore(claim)

    def _keep_turn(self, claim: Claim) -> None:
        mine = self.stake(claim)
        # after the record, since a client that clears the record removes its turn too
        if mine.turn and mine.turn.replaced():
            with suppress(IpclockError):  # until it can be made, the waiter has its own ticks
                turn = self.turns.create(claim.ticket)
                mine.turn.close()
                mine.turn = turn

    def _keep_party(self, claim: Claim) -> None:
        """Take the party into the name of the record, or out of it, once the pool has become fair or is so no more."""
        mine = self.stake(claim)
        if claim.slot or (party := self._party(claim)) == claim.entry.party:
            return
        with self._mutex(WaitContext(LEAVE_PATIENCE_S)):
            for state in (QUEUED, GATE):
                # under no other name: what others have marked in it must stay
                if self.store.has(state, claim.entry, mine.record):
                    reserved = claim.entry.reserved
                    claim.entry = self.store.move(claim.entry, state, state, reserved=reserved, party=party)
                    break
            self._pass_on()

    def _listed(self, claim: Claim) -> bool:
        mine = self.stake(claim)
        if claim.slot:
            return self.store.has(HOLDING, claim.entry, mine.record)
        in_line = claim.entry._replace(reserved=0)
        queued = (in_line, in_line._replace(silent=1))
        places = [(GATE, claim.entry), (GATE, in_line), *((QUEUED, entry) for entry in queued)]
        return any(self.store.has(*place, mine.record) for place in places)

    def _restore(self, claim: Claim) -> None:
        mine = self.stake(claim)
        if mine.record is None:
            return
        for entry in [] if claim.slot else self.store.entries(QUEUED):
            if entry.ticket == claim.ticket and entry.by and self.store.has(QUEUED, entry, mine.record):
                raise SupersededError(claim.label, entry.by, self._pid_of(entry.by))
        folder, resets = self.store.era
        if claim.slot and folder == mine.era[0] and resets != mine.era[1]:
            claim.evicted = True
            return
        old, fields = mine.record, dict(mine.record.fields)
        if claim.slot:
            claim.entry = claim.entry._replace(slot=self._own_slot(claim.entry))
        elif claim.ticket in {entry.ticket for state in STATES[1:] for entry in self.store.entries(state)}:
            self._draw_again(claim)
        # what the build, or the script, has inherited is the open file of the old record, and so its beacon
        inherited = claim.slot or claim.holder_fd is not None
        mine.record = self.store.redraft(fields, old.holder_fd) if inherited else self.store.draft(fields)
        self.store.publish(mine.record, HOLDING if claim.slot else QUEUED, claim.entry)
        self.store.skip_tickets(claim.ticket)
        old.close()
        self.recover()

    def _draw_again(self, claim: Claim) -> None:
        """Give the waiter another ticket: another client has drawn its own from the new folder."""
        mine = self.stake(claim)
        claim.entry = claim.entry._replace(ticket=self.store.draw_ticket())
        if mine.turn:
            mine.turn.close()
            mine.turn = None

    def _own_slot(self, entry: RecordName) -> int:
        """Return the slot for a holder that is listed again: that of its nested builds, else its own if it is free."""
        holders = self.store.entries(HOLDING)
        # with its very ticket: another build, which has drawn it from another folder
        taken = [other.slot for other in holders if other.outer != entry.outer or other.ticket == entry.ticket]
        inside = [other.slot for other in holders if other.outer == entry.outer]
        free = [slot for slot in (*inside, entry.slot) if slot not in taken]
        return free[0] if free else policy.lowest_free_slot(taken)

    def _pid_of(self, ticket: int) -> int:
        for state in (QUEUED, GATE, HOLDING):
            for entry in self.store.entries(state):
                if entry.ticket == ticket and (found := liveness.identity(self.store.read(state, entry))):
                    return found.pid
        return 0

    def _reopen(self) -> None:
        # for a folder that has none yet: one that is there may have got another capacity since
        self._former = self.capacity
        fresh = Pool.open(self.name, os.path.dirname(self.store.path), self._wanted, group=self.store.group)
        self.close()
        self.store, self.gate, self.turns, self._wanted = fresh.store, fresh.gate, fresh.turns, fresh._wanted
        self._searched = False

    def keep_capacity(self) -> None:
        """Leave the capacity to others: this client's is not the pool's owner's."""
        self.heeds_us, self._wanted = False, None

    def resize(self, capacity: int, context: WaitContext) -> None:
        """Make *capacity* the pool's, for those who wait already too. Running builds are never stopped for it."""
        self._wanted = capacity
        self.tidy(context)

    def drain(self, drain: Drain | None, context: WaitContext) -> None:
        """Admit no build from now on, or (None) go on admitting. Running builds are never stopped for it."""
        with self._mutex(context):
            self.store.drain = drain
            self.recover(self.store.entries(QUEUED))

    def be_fair(self, between: str, context: WaitContext) -> None:
        """Let builds of one priority take turns between users or sessions ("user", "session"), or not ("off").

        Those that wait follow at their ticks. Raises ForeignPoolError (77): the pool's owner says that.
        """
        with self._mutex(context):
            if between != self._fair_between():
                self.store.require_owner()
                self.store.fairness = None if between == "off" else Fairness(between)

    def heed_fairness(self, between: str) -> None:
        """Do the same in the next section, for the pool's owner or root."""
        self._between = between

    def _fair_between(self) -> str:
        fairness = self.store.fairness
        return fairness.between if fairness else "off"

    def allow_priority(self, lowest: int, context: WaitContext) -> None:
        """Let all members of the pool ask for a priority from *lowest* on.

        Raises ForeignPoolError (77): its owner says that.
        """
        with self._mutex(context):
            if lowest != self.store.lowest_priority:
                self.store.require_owner()
                self.store.lowest_priority = lowest

    def share(self, group: int | None, context: WaitContext) -> None:
        """Let *group* (gid) use the pool too, or only its owner.

        Raises ForeignPoolError (77) for others than owner and root.
        """
        with self._mutex(context):
            self.store.share(group)
            give(self.gate, self.store.mode, group)

    def reset(
        self, context: WaitContext, ticket: int | None = None, *, nested: bool = True
    ) -> list[tuple[RecordName, Record]]:
        """Take all holders, or those in the slot of *ticket*, off the records; return those of the living.

        A reset of all also forgets the builds of an earlier folder, which only their locks tell of. Without *nested*
        only the one with *ticket* goes; the slot stays taken while others live in it. Their processes go on. Works in
        place: waiters sleep on the semaphore that is there, so it is never replaced.
        Raises NoTicket (2).
        """
        with self._mutex(context):
            holders = self.store.entries(HOLDING)
            outer = {entry.outer for entry in holders if ticket in (None, entry.ticket)}
            if ticket is not None and not outer:
                raise NoTicket(ticket)
            entries = [entry for entry in holders if entry.outer in outer and (nested or entry.ticket == ticket)]
            # epoch first: a holder that misses its record under the old epoch would write it again
            self.store.epoch += 1
            if ticket is None:  # one slot given back says nothing of the builds of an earlier folder
                self.store.settled = True
                self.store.remove_strays()
            living = [entry for entry in entries if not self._is_dead(HOLDING, entry)]
            evicted = [(entry, record) for entry in living if (record := self.store.read(HOLDING, entry))]
            for entry in entries:
                self._clear(HOLDING, entry)
            self.recover(self.store.entries(QUEUED))
        return evicted

    def cancel(
        self, tickets: Iterable[int], cancellation: Cancellation, context: WaitContext
    ) -> list[tuple[RecordName, Record]]:
        """Ask the clients that have these tickets to end, by a line in their records; return what they were asked in.

        All of them, or none. A client heeds it at its next tick; a waiter in line is woken for it.
        Raises NoTicket (2), NotYourBuild and PoolPermissionError (77).
        """
        with self._mutex(context), ExitStack() as closing:
            found = []
            for ticket in tickets:
                places = self._places(ticket)
                if not places:
                    raise NoTicket(ticket)
                found += [(place, closing.enter_context(self.store.opened(*place))) for place in places]
            for (_state, entry), file in found:
                if not (file.is_ours or self.store.is_ours()):
                    label = printable(file.record.fields.get("label", "?"))
                    raise NotYourBuild(entry.ticket, label, file.record.user)
            for (state, entry), file in found:
                # append, then post: a waiter that wakes first must find the line, or it sleeps on
                file.tell(cancellation.fields())
                if state == QUEUED:
                    self.turns.post(entry.ticket)
        return [(entry, file.record) for (_state, entry), file in found]

    def _places(self, ticket: int) -> list[tuple[str, RecordName]]:
        """Return where the records of the living clients lie that have this ticket."""
        found = ((state, entry) for state in STATES[1:] for entry in self.store.entries(state))
        return [place for place in found if place[1].ticket == ticket and not self._is_dead(*place)]

    def drop(self, ticket: int, context: WaitContext) -> list[tuple[RecordName, Record]]:
        """Clear away what the dead have left that had this ticket, as a sweep would in time; return what it was."""
        dropped = []
        with self._mutex(context):
            for state in STATES[1:]:
                for entry in self.store.entries(state):
                    if entry.ticket == ticket and self._is_dead(state, entry):
                        if record := self.store.read(state, entry):
                            dropped.append((entry, record))
                        self._clear(state, entry)
            self.recover()
        return dropped

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

    # Helpers of the steps.

    @contextmanager
    def _mutex(self, context: WaitContext) -> Iterator[None]:
        while True:
            # a look at a file whose server does not answer keeps us here, rather than all others out of the mutex
            self._wanted = context.capacity(self._wanted)
            with self.store.mutex(lambda seconds, pid: context.stuck(self.store.path, seconds, pid)):
                # a removed mutex excludes no client that opens the folder anew
                if not self.store.vanished():
                    # again: it may have changed while we waited for the mutex
                    self._wanted = context.capacity(self._wanted)
                    self._settle()
                    yield
                    return
            self._reopen()

    def _settle(self) -> None:
        """Take over the capacity that was asked for; in a new folder, see whether an old one left clients behind.

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
        """Skip the tickets of clients of an old folder, as far as their records or turns can be seen."""
        lost = [name.rpartition("/") for name in descriptors.locked_files(os.path.basename(self.store.path))]
        known = {entry.ticket for state, _, name in lost if state != NEW and (entry := parse(name))}
        seen = known | self.turns.tickets()
        # each by itself: anybody may have a lock, or a file beside the semaphores, by a number that would hide these
        self.store.skip_tickets(max((ticket for ticket in seen if ticket <= LAST_DRAWN), default=0))

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
        """Return how many units are given, or kept for the one at the gate."""
        return policy.units(self.store.entries(HOLDING)) + sum(entry.reserved for entry in self.store.entries(GATE))

    def _is_dead(self, state: str, entry: RecordName) -> bool:
        return liveness.verdict(self.store, state, entry) == policy.DEAD

    def _clear(self, state: str, entry: RecordName) -> None:
        # the turn first: killed in between, the record stays and leads the next one here again
        self.turns.remove(entry.ticket)
        self.store.remove(state, entry)

    def _drop_turn(self, claim: Claim) -> None:
        mine = self.stake(claim)
        # one that could not be removed is tried again when the claim leaves
        if mine.turn and self.turns.remove(claim.ticket):
            mine.turn.close()
            mine.turn = None


def _parent() -> process.Identity | None:
    """Return our parent; None for one that cannot be seen."""
    try:
        return process.identify(os.getppid())
    except OSError:
        return None


def status_of(error: BaseException) -> int | None:
    """Return what a process ends with that meets the error, -n for signal n; None where that is not ours to say."""
    if isinstance(error, Interrupted):
        return -error.signum
    return error.status if isinstance(error, IpclockError) else None
