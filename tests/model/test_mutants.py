"""The checker can fail: each mutant of the protocol, as somebody might write it, is caught, and for what it does."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from ipclock.pool import liveness, policy
from ipclock.pool.claim import Claim
from ipclock.pool.directory import GATE, HOLDING, QUEUED
from ipclock.pool.protocol import Pool
from ipclock.pool.record_name import RecordName
from ipclock.pool.wait_context import WaitContext
from tests.model.checker import (
    ADMITTED,
    DEAF,
    LEFT_OVER,
    OVER,
    OVERTAKEN,
    REFUSED,
    RETURNED,
    SLOW,
    STUCK,
    UNHEALED,
    UNLEVEL,
    Checker,
    client,
    initial,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from ipclock.pool.cancellation import Cancellation
    from ipclock.pool.record import Record
    from tests.model.world import Client

pytestmark = pytest.mark.timeout(180)  # what is marked starts first; these do nothing but compute


class PostBeforeRename(Pool):
    """The called waiter can wake too early, look, and sleep again (INV-5)."""

    def call_next(self) -> None:
        for entry in [] if self.store.entries(GATE) else self.store.entries(QUEUED):
            if liveness.verdict(self.store, QUEUED, entry) != policy.DEAD:
                self.turns.post(entry.ticket)
                self.store.move(entry, QUEUED, GATE)
                return


class NoSecondLook(Pool):
    """A call between the look and the making of the turn posts nothing, and nobody looks again (INV-5a)."""

    def wait_turn(self, claim: Claim, context: WaitContext) -> None:
        mine = self.stake(claim)
        if not self.store.has(GATE, claim.entry, mine.record):
            if mine.turn is None:
                mine.turn = self.turns.create(claim.ticket)
            mine.turn.wait(context.chunk(1))
            self.tick(claim, context)


class ForgetsReservedFirst(Pool):
    """A waiter that was just given a part of its units looks for a name that its record does not have."""

    def wait_turn(self, claim: Claim, context: WaitContext) -> None:
        claim.entry = claim.entry._replace(reserved=0)
        super().wait_turn(claim, context)


class NoCheckInAdmit(Pool):
    """A unit is believed, wherever it came from (INV-2, INV-2c)."""

    def admit(self, claim: Claim, context: WaitContext) -> None:
        with self._mutex(context):
            if self.store.has(GATE, claim.entry, self.stake(claim).record):
                slot = policy.lowest_free_slot([entry.slot for entry in self.store.entries(HOLDING)])
                claim.entry = self.store.move(claim.entry, GATE, HOLDING, slot=slot)
                self._drop_turn(claim)
            self.recover()
            self.call_next()


class NoRecover(Pool):
    """Nobody clears the dead away or levels; a release posts its unit, as with a bare semaphore (INV-4a)."""

    def recover(self, sweep: list[RecordName] | None = None) -> None:
        self.call_next()

    def release(self, claim: Claim) -> None:
        super().release(claim)
        self.gate.post()


class BlindPost(Pool):
    """A release posts its unit without a look at the records, after they have been levelled (INV-4)."""

    def release(self, claim: Claim) -> None:
        super().release(claim)
        self.gate.post()


class NobodyIsCalled(Pool):
    """Who leaves does not call the next one."""

    leaves = False

    def _leave(self, claim: Claim, *states: str) -> None:
        self.leaves = True
        super()._leave(claim, *states)

    def call_next(self) -> None:
        if not self.leaves:
            super().call_next()


class LastComeFirstServed(Pool):
    """The line is called from its end (INV-6)."""

    def _first(self, waiters: list[RecordName], holders: list[RecordName]) -> RecordName | None:
        return waiters[-1] if waiters else None

    def _overtakes(self, entry: RecordName, holders: list[RecordName]) -> bool:
        return False


class TwoAtTheGate(Pool):
    """Each waiter is called, though another one stands at the gate: the later one may take the unit (INV-6a)."""

    def call_next(self) -> None:
        for entry in self.store.entries(QUEUED):
            self.store.move(entry, QUEUED, GATE)
            self.turns.post(entry.ticket)


class NeverLooksAhead(Pool):
    """A waiter is admitted although one ahead, which was passed over before, may go by now (INV-6b)."""

    def _overtakes(self, entry: RecordName, holders: list[RecordName]) -> bool:
        return False


class StoppedKeepsTheGate(Pool):
    """A stopped waiter at the gate is left there."""

    def _clear_away(self, sweep: list[RecordName] | None) -> None:
        at_gate = self.store.entries(GATE)
        super()._clear_away(sweep)
        for entry in at_gate:
            if self.store.has(QUEUED, entry):
                self.store.move(entry, QUEUED, GATE)


class FrozenKeepsTheGate(Pool):
    """Whoever does not act is left at the gate, unless its state tells that it is stopped."""

    def _clear_away(self, sweep: list[RecordName] | None) -> None:
        quiet_s, self.store.quiet_s = self.store.quiet_s, lambda *_: 0.0
        super()._clear_away(sweep)
        self.store.quiet_s = quiet_s


class AsksForTheSupervisor(Pool):
    """A slot is free once the supervisor is killed, whoever still builds (INV-3)."""

    def _is_dead(self, state: str, entry: RecordName) -> bool:
        if state != HOLDING:
            return super()._is_dead(state, entry)
        holder = liveness.identity(self.store.read(state, entry))
        return not (holder and liveness.process.exists(holder))


class BlindAtTheGate(Pool):
    """The one at the gate waits for the pool-wide recover instead of looking for dead holders itself."""

    def _amiss(self) -> bool:
        return False


class TurnsAreForgotten(Pool):
    """Who is cleared away leaves its turn behind, and no sweep finds it."""

    def _clear(self, state: str, entry: RecordName) -> None:
        self.store.remove(state, entry)

    def _sweep_turns(self) -> None:
        pass


class NeverSweeps(Pool):
    """The dead in the line count when -n asks."""

    def _clear_away(self, sweep: list[RecordName] | None) -> None:
        super()._clear_away(None)


class LearnsTheEpochTooSoon(Pool):
    """A holder that looks in the middle of a reset takes the new epoch for one that spared it."""

    def keep(self, claim: Claim) -> None:
        if self._listed(claim):
            self.stake(claim).era = self.store.era
        elif not claim.evicted:
            with self._mutex(WaitContext(0)):
                if not self._listed(claim):
                    self._restore(claim)


class RecordsBeforeEpoch(Pool):
    """A reset that is killed half way has taken a record away under an epoch that the holder knows."""

    def reset(
        self, context: WaitContext, ticket: int | None = None, *, nested: bool = True
    ) -> list[tuple[RecordName, Record]]:
        with self._mutex(context):
            for entry in self.store.entries(HOLDING):
                self._clear(HOLDING, entry)
            self.store.epoch += 1
            self.recover(self.store.entries(QUEUED))
        return []


class NestedBuildsHaveNoRecord(Pool):
    """A nested build runs along in the slot around it, and nobody knows of it once that is given back (INV-2b)."""

    def join(self, claim: Claim, context: WaitContext, ticket: int) -> bool:
        with self._mutex(context):
            around = next((entry for entry in self.store.entries(HOLDING) if entry.ticket == ticket), None)
            if around:
                claim.entry = around._replace(ticket=self.store.draw_ticket(), within=around.outer)
                self.stake(claim).era = self.store.era
        return around is not None


class AdmitsTheCancelled(Pool):
    """A waiter that was cancelled after its last tick is admitted (INV-2d)."""

    def admit(self, claim: Claim, context: WaitContext) -> None:
        self._heed = lambda _claim: None  # type: ignore[method-assign]
        super().admit(claim, context)


class PostsBeforeTelling(Pool):
    """The woken waiter can look before the line is there, and sleep again."""

    def cancel(
        self, tickets: Iterable[int], cancellation: Cancellation, context: WaitContext
    ) -> list[tuple[RecordName, Record]]:
        with self._mutex(context):
            for state, entry in [place for ticket in tickets for place in self._places(ticket)]:
                self.turns.post(entry.ticket)
                with self.store.opened(state, entry) as file:
                    file.tell(cancellation.fields())
        return []


class NoLookAfterTheTurn(Pool):
    """A cancel before the turn was made posts nothing, and nobody looks again."""

    def wait_turn(self, claim: Claim, context: WaitContext) -> None:
        mine = self.stake(claim)
        while not self.store.has(GATE, claim.entry, mine.record):
            if mine.turn is None:
                mine.turn = self.turns.create(claim.ticket)
                context.tick(claim.ticket)
                continue
            mine.turn.wait(context.chunk(1))
            self.tick(claim, context)


class AdmissionsAreForgotten(Pool):
    """A party whose build has ended is served as if it had never had a turn (INV-6e)."""

    def _note_admission(self, entry: RecordName) -> None:
        pass


class NewcomersStandBehind(Pool):
    """The order of arrival is kept at the gate and in front of it, whatever was served (INV-6e)."""

    def _overtakes(self, entry: RecordName, holders: list[RecordName]) -> bool:
        ahead = [other for other in self.store.entries(QUEUED) if policy.rank(other) < policy.rank(entry)]
        return bool(ahead) and super()._overtakes(entry, holders)


INSIDE = (client(), client(inside=0), client())
HEAVY_BEHIND = (client(), client(units=2))
TWO_PARTIES = (client(party="a"), client(party="a"), client(party="b"))
OF_A_LABEL = (client(limit=1, label="a"), client(limit=1, label="a"), client())


@pytest.mark.parametrize(
    ("mutant", "clients", "budget", "kind"),
    [
        (PostBeforeRename, 2, {}, STUCK),
        (NoSecondLook, 2, {}, STUCK),
        (ForgetsReservedFirst, HEAVY_BEHIND, {"capacity": 2}, STUCK),
        (NoCheckInAdmit, 2, {"post": 1}, OVER),
        (AsksForTheSupervisor, 2, {"kill": 1}, OVER),
        (NoRecover, 2, {"kill": 1}, UNHEALED),
        (BlindPost, 2, {}, UNLEVEL),
        (NobodyIsCalled, 2, {"give_up": 1}, STUCK),
        (LastComeFirstServed, 3, {}, OVERTAKEN),
        (TwoAtTheGate, 2, {}, OVERTAKEN),
        (NeverLooksAhead, OF_A_LABEL, {"capacity": 2}, OVERTAKEN),
        (StoppedKeepsTheGate, 2, {"stop": 1}, UNHEALED),
        (FrozenKeepsTheGate, 2, {"freeze": 1}, UNHEALED),
        (BlindAtTheGate, 2, {"kill": 1}, SLOW),
        (TurnsAreForgotten, 2, {"kill": 1}, LEFT_OVER),
        (NeverSweeps, 2, {"nonblock": 1, "kill": 1}, REFUSED),
        (LearnsTheEpochTooSoon, 2, {"reset": 1, "keep": 2}, RETURNED),
        (RecordsBeforeEpoch, 1, {"reset": 1, "keep": 1, "kill": 1}, RETURNED),
        (NestedBuildsHaveNoRecord, INSIDE, {}, OVER),
        (AdmitsTheCancelled, 2, {"cancel": 1}, ADMITTED),
        (PostsBeforeTelling, 1, {"capacity": 0, "cancel": 1}, DEAF),
        (NoLookAfterTheTurn, 1, {"capacity": 0, "cancel": 1}, DEAF),
        (AdmissionsAreForgotten, TWO_PARTIES, {}, OVERTAKEN),
        (NewcomersStandBehind, TWO_PARTIES, {}, OVERTAKEN),
        (NeverLooksAhead, TWO_PARTIES, {}, OVERTAKEN),
    ],
)
def test_a_mutant_is_caught(
    mutant: type[Pool], clients: int | Sequence[Client], budget: dict[str, int], kind: str
) -> None:
    verdict = Checker(mutant).explore(initial(clients, **{"capacity": 1} | budget))

    assert verdict.violation
    assert verdict.violation.kind == kind, str(verdict.violation)
