"""The protocol: how a client of a pool arrives, waits, is admitted and leaves. One method a step.

Read it against PROTOCOL.md beside it, which holds the words, the invariants (INV-n) and the reasons. In short: the
records are the truth, the semaphore is the gate; a step under the mutex brings the semaphore's value back to what
the records say and calls the next waiter. Guarantees the invariants for a client that is killed or stopped at any line.
Does not guarantee anything about the processes of a build that close its beacon themselves. `sections` has what a
section does for the whole pool, `administration` what is done to it. One file, because the order of the steps is one
argument.
"""

from __future__ import annotations

import os
import time
from contextlib import suppress

from ipclock import users
from ipclock._typing import TYPE_CHECKING
from ipclock.errors import (
    Interrupted,
    IpclockError,
    NoPoolError,
    PoolPermissionError,
    PriorityNotAllowedError,
    SemaphoreError,
    SlotBusy,
    SupersededError,
    TooManySlotsError,
)
from ipclock.linux import process
from ipclock.linux.semaphore import Semaphore
from ipclock.pool import liveness, policy, queue
from ipclock.pool.administration import Administration
from ipclock.pool.cancellation import BY, ENDING, Cancellation
from ipclock.pool.claim import AlreadyWaits, Claim, stamp
from ipclock.pool.directory import GATE, HOLDING, QUEUED, STATES, TRIES
from ipclock.pool.records import Store
from ipclock.pool.semaphores import Turns, open_gate
from ipclock.pool.stake import Stake
from ipclock.pool.wait_context import WaitContext

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeVar

    from ipclock.pool.record import OwnRecord
    from ipclock.pool.record_name import RecordName

    T = TypeVar("T")

FIRST_CHUNK_S = 0.1  # a waiter that does not get its unit at once shows so soon
GATE_CHUNK_S = 1.0
BLIND_CHUNK_S = 0.33  # the waiter at the gate looks for dead holders where their end does not wake it
KEEP_DUE_S = 1.0
RECOVER_DUE_S = 0.5  # without a section; with the nap of a near waiter less than two seconds
LEAVE_PATIENCE_S = 10.0  # for the mutex on the way out; the beacon is out by then, so nothing depends on it


class Pool(Administration):
    """A pool as its clients use it: the steps of a client's life. Use it from one thread, and not after a fork."""

    def __init__(self, name: str, store: Store, gate: Semaphore, turns: Turns, capacity: int | None = None) -> None:
        super().__init__(name, store, gate, turns, capacity)
        self._stakes: dict[Claim, Stake] = {}

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
            if mine.record:  # of the directory that is gone
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
            self.recover()  # what was reserved for the waiter there is free again

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
        """Light the holder's beacon. Raises NoPoolError if the pool has another directory by now.

        Beacon, then look at the place: one that puts another directory there looks for beacons afterwards, so either it
        finds ours, or we find its directory (INV-8).
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
        """Return whether a waiter precedes the waiter at the gate: a newcomer, or one that was passed over so far."""
        return self._first([entry, *self.store.entries(QUEUED)], holders, entry) != entry

    def release(self, claim: Claim, ended: int | None = None) -> None:
        """Give the slot back. A claim whose record is gone (a reset) gives nothing: its slot is not its own.

        *ended* is the exit status of its build, or -n for signal n, for processes that wait for its end.
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
            with suppress(OSError):  # of a full file system: then the canceller ends the build itself
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
        directory, resets = self.store.era
        if claim.slot and directory == mine.era[0] and resets != mine.era[1]:
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
        """Give the waiter another ticket: another client has drawn its own from the new directory."""
        mine = self.stake(claim)
        claim.entry = claim.entry._replace(ticket=self.store.draw_ticket())
        if mine.turn:
            mine.turn.close()
            mine.turn = None

    def _own_slot(self, entry: RecordName) -> int:
        """Return the slot for a holder that is listed again: that of its nested builds, else its own if it is free."""
        holders = self.store.entries(HOLDING)
        # with its very ticket: another build, which has drawn it from another directory
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
