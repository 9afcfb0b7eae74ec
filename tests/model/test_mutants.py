"""The checker can fail: each mutant of the protocol, as somebody might write it, is caught, and for what it does."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from ipclock import liveness, policy
from ipclock.folder import GATE, HOLDING, QUEUED
from ipclock.pool import Pool
from ipclock.records import Entry
from tests.model.checker import OVER, OVERTAKEN, STUCK, UNHEALED, UNLEVEL, Checker, initial

if TYPE_CHECKING:
    from ipclock.patience import Patience
    from ipclock.pool import Claim


class PostBeforeRename(Pool):
    """The called waiter can wake too early, look, and sleep again."""

    def call_next(self) -> None:
        if self.store.entries(GATE):
            return
        for entry in self.store.entries(QUEUED):
            if liveness.verdict(self.store, QUEUED, entry) != policy.DEAD:
                self.turns.post(entry.ticket)
                self.store.move(entry, QUEUED, GATE)
                return


class NoCheckInAdmit(Pool):
    """A unit is believed, wherever it came from."""

    def admit(self, claim: Claim, patience: Patience) -> None:
        with self._mutex(patience):
            taken = [entry.slot for entry in self.store.entries(HOLDING)]
            slot = policy.lowest_free_slot(taken)
            self.store.move(claim.entry, GATE, HOLDING, slot)
            claim.slot = slot
            self.recover()
            self.call_next()


class NoRecover(Pool):
    """Nobody clears the dead away or levels the value; a release posts its unit, as with a bare semaphore."""

    def recover(self, *, sweep: bool = False) -> None:
        pass

    def release(self, claim: Claim) -> None:
        super().release(claim)
        self.gate.post()


class BlindPost(Pool):
    """A release posts its unit without a look at the records, after they have been levelled."""

    def release(self, claim: Claim) -> None:
        super().release(claim)
        self.gate.post()


class NobodyIsCalled(Pool):
    """Who gives up at the gate does not call the next one there."""

    def give_up(self, claim: Claim) -> None:
        self.turns.remove(claim.ticket)
        for state in (QUEUED, GATE):
            self.store.remove(state, Entry(claim.ticket))
        self.recover()


class LastComeFirstServed(Pool):
    """The line is called from its end."""

    def call_next(self) -> None:
        if not self.store.entries(GATE) and (queued := self.store.entries(QUEUED)):
            self.store.move(queued[-1], QUEUED, GATE)
            self.turns.post(queued[-1].ticket)


class StoppedKeepsTheGate(Pool):
    """A stopped waiter at the gate is left there."""

    def recover(self, *, sweep: bool = False) -> None:
        gate = [entry.ticket for entry in self.store.entries(GATE)]
        super().recover(sweep=sweep)
        for ticket in gate:
            if self.store.has(QUEUED, Entry(ticket)):
                self.store.move(Entry(ticket), QUEUED, GATE)


@pytest.mark.parametrize(
    ("mutant", "clients", "budget", "kind"),
    [
        (PostBeforeRename, 2, {}, STUCK),
        (NoCheckInAdmit, 2, {"post": 1}, OVER),
        (NoRecover, 2, {"kill": 1}, UNHEALED),
        (BlindPost, 2, {}, UNLEVEL),
        (NobodyIsCalled, 3, {"give_up": 1}, STUCK),
        (LastComeFirstServed, 3, {}, OVERTAKEN),
        (StoppedKeepsTheGate, 2, {"stop": 1}, UNHEALED),
    ],
)
def test_a_mutant_is_caught(mutant: type[Pool], clients: int, budget: dict[str, int], kind: str) -> None:
    violation = Checker(mutant).explore(initial(clients, 1, **budget)).violation

    assert violation
    assert (violation.kind, len(violation.trace) > 0) == (kind, True)
