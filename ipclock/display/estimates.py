"""What is known beyond a pool's records: what the builds use now, what they usually take, and so how long a wait lasts.

Looks at processes and into the history no more often than a reader needs, since every waiter pays for it. Tells
nothing where it does not know: no history, too few builds of a label, a build that already takes longer than any did.
"""

from __future__ import annotations

import time

from ipclock._typing import TYPE_CHECKING, NamedTuple
from ipclock.errors import HistoryFailed
from ipclock.history import finished, simulation
from ipclock.history.simulation import Range, Work
from ipclock.linux import process_view

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ipclock.history.finished import Expected
    from ipclock.pool.snapshot import Holder, Snapshot

FARTHEST = 20  # place in line up to which there is an estimate
LEARNT_S = 300.0  # how long what the history says of a label is believed


class Activity(NamedTuple):
    """What a build uses now: `cpu_s` so far, `percent` of one processor since the last look (None at the first one).

    `memory` in bytes, of its own processes together.
    """

    cpu_s: float
    percent: float | None
    memory: int


class Standing(NamedTuple):
    """A pool as it stands: what each build uses by ticket, what is usual by label, how long each still waits."""

    pool: Snapshot
    uses: dict[int, Activity]
    usual: dict[str, float]
    waits: dict[int, Range]


class Estimator:
    """One reader's view of the builds of a pool. *path* is the history's, None where none is kept."""

    def __init__(self, path: str | None) -> None:
        self._path = path
        self._learnt: dict[str, tuple[float, Expected | None]] = {}
        self._failed_at = float("-inf")
        self._seen: dict[int, tuple[float, Activity]] = {}

    def on(self, pool: Snapshot) -> Standing:
        """Return all that there is to tell of a pool."""
        labels = [holder.label for holder in pool.holders] + [waiter.label for waiter in pool.waiters[:FARTHEST]]
        self._learn(labels)
        usual = ((holder.label, self.usual(holder.label)) for holder in pool.holders)
        waits = {waiter.ticket: left for waiter in pool.waiters[:FARTHEST] if (left := self.wait(pool, waiter.ticket))}
        return Standing(pool, self.look(pool.holders), {label: span for label, span in usual if span}, waits)

    def look(self, holders: Iterable[Holder]) -> dict[int, Activity]:
        """Return what each build uses now, by ticket; those that cannot be seen from here are left out."""
        seen: dict[int, tuple[float, Activity]] = {}
        for holder in holders:
            pid = holder.command_pid or holder.pid
            roots = [row.pid for row in holder.processes] or ([pid] if pid and holder.here else [])
            if use := process_view.use_of(roots):
                now = time.monotonic()
                percent = None
                if before := self._seen.get(holder.ticket):
                    percent = max(0.0, use.cpu_s - before[1].cpu_s) / max(1e-3, now - before[0]) * 100
                seen[holder.ticket] = now, Activity(use.cpu_s, percent, use.memory)
        self._seen = seen
        return {ticket: activity for ticket, (_, activity) in seen.items()}

    def _learn(self, labels: Iterable[str]) -> None:
        """Ask the history what it says of the labels' builds, at once; not again for a while if that failed."""
        now = time.monotonic()
        if self._path is None or now - self._failed_at <= LEARNT_S:
            return
        due = {label for label in labels if label not in self._learnt or now - self._learnt[label][0] > LEARNT_S}
        try:
            found = finished.expected_many(self._path, due) if due else {}
        except HistoryFailed:  # it takes a second, for which a waiter at the gate would stop all others
            found, self._failed_at = {}, now
        self._learnt.update((label, (now, found.get(label))) for label in due)

    def expected(self, label: str) -> Expected | None:
        """Return what the history says of a label's builds."""
        self._learn([label])
        return self._learnt.get(label, (0.0, None))[1]

    def usual(self, label: str) -> float | None:
        """Return how long a build of the label usually takes, in seconds."""
        known = self.expected(label)
        return known.usual_s if known else None

    def wait(self, now: Snapshot, ticket: int) -> Range | None:
        """Return how much longer a waiter waits; None for one that later ones pass, and where it is not known."""
        own = next((waiter for waiter in now.waiters if waiter.ticket == ticket), None)
        if own is None or own.held_back or now.drained:
            return None
        ahead = [waiter for waiter in now.waiters if waiter.position < own.position and not waiter.held_back]
        self._learn([*(holder.label for holder in now.outermost), *(waiter.label for waiter in ahead)])
        running = [Work(self._spans(holder.label), holder.slots, holder.held_s or 0.0) for holder in now.outermost]
        before = [Work(self._spans(waiter.label), waiter.slots) for waiter in ahead]
        return simulation.wait(running, before, own.slots, now.capacity)

    def _spans(self, label: str) -> tuple[float, ...]:
        known = self.expected(label)
        return known.spans if known else ()
