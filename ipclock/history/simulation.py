"""How long a build will have to wait, foretold from how long others took: pure functions over plain values.

Plays the line through many times, each time with other lengths out of those that builds of the same labels had, in a
fixed pattern: the same question has the same answer. What is not known is never made up: then there is no answer.
All spans are in seconds.
"""

from __future__ import annotations

import heapq
import math
from bisect import bisect_right

from ipclock._typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

PLAYS = 101  # a prime: then each factor makes the plays go through a label's past in another order
FACTOR = 40
FEWEST = 5  # with fewer builds in its past a label's length counts as unknown
TAIL = 0.05  # of the plays at either end are left out of the range
SOON_S = 10
# up to so many seconds a range is shown in steps of so many
STEPS = ((120, 10), (1200, 60), (7200, 300), (math.inf, 1800))


class Work(NamedTuple):
    """A build that has run for `age` seconds, or is to run. `spans`: what those of its label took, in order."""

    spans: Sequence[float]
    slots: int = 1
    age: float = 0.0


class Range(NamedTuple):
    """A span that lies from `low` to `high`."""

    low: float
    high: float


class Told(NamedTuple):
    """An estimate as it is shown, "soon", "about" the middle, "at most" or "between", and what that claims."""

    how: str
    low: float
    high: float


def wait(running: Sequence[Work], ahead: Sequence[Work], slots: int, capacity: int) -> Range | None:
    """Return how long one that wants so many *slots* waits behind those *ahead*; None where that cannot be told.

    Slots are given in order only: what is ahead is served first, however much it wants.
    """
    if capacity < max([slots, *(work.slots for work in ahead)]):
        return None
    waits = sorted(_play(number, running, ahead, slots, capacity) for number in range(PLAYS))
    cut = int(TAIL * PLAYS)
    found = Range(waits[cut], waits[-1 - cut])
    return found if math.isfinite(found.high) else None


def _play(number: int, running: Sequence[Work], ahead: Sequence[Work], slots: int, capacity: int) -> float:
    """Return the wait if each build takes as long as its place in this play says."""
    free = capacity - sum(work.slots for work in running)
    ends: list[tuple[float, int]] = []
    factor = 1
    now = 0.0
    for work in (*running, *ahead, Work((), slots)):
        if len(ends) >= len(running):
            while free < work.slots:
                now, freed = heapq.heappop(ends)
                free += freed
            free -= work.slots
        heapq.heappush(ends, (now + _left(work, (number * factor % PLAYS + 0.5) / PLAYS), work.slots))
        factor = factor * FACTOR % PLAYS
    return now


def _left(work: Work, share: float) -> float:
    """Return how long the build goes on, by that one of its label's which *share* of the others stay below.

    Only those count that took longer than it has run; where none did, it may go on for ever.
    """
    if len(work.spans) < FEWEST:
        return math.inf
    first = bisect_right(work.spans, work.age) if work.age else 0
    rest = len(work.spans) - first
    return work.spans[first + int(share * rest)] - work.age if rest else math.inf


def rounded(known: Range) -> Told:
    """Return what is shown: whole steps, never less than what is known."""
    if known.high <= SOON_S:
        return Told("soon", 0, SOON_S)
    step = next(step for limit, step in STEPS if known.high <= limit)
    low, high = known.low // step * step, -(-known.high // step) * step
    if not low:
        return Told("at most", 0, high)
    if high - low <= 2 * step:
        return Told("about", low, low + 2 * step)
    return Told("between", low, high)
