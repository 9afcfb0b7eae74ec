"""What a past of waits and holds amounts to: pure functions over plain values.

Knows nothing of files or clocks. Times and spans are in seconds, memory is in bytes. Counts, sums and means are exact;
percentiles of a label with very many builds are those of an evenly spaced part of them.
"""

from __future__ import annotations

from ipclock._typing import TYPE_CHECKING, NamedTuple
from ipclock.history.outcomes import FAILURES

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


class Part(NamedTuple):
    """The builds of one label with one outcome: `builds` in number, sums over all, and values of every `stride`-th.

    `waited_s` and `held_s` are sums; `slot_s` is the slot time within the past that was asked for. `holds` and
    `memories` are shorter than `waits` where builds had no slot, or their memory is not known.
    """

    label: str
    outcome: str
    builds: int
    waited_s: float
    held_s: float
    slot_s: float
    stride: int
    waits: list[float]
    holds: list[float]
    memories: list[float]


class Past(NamedTuple):
    """What ended in a pool from `begin` to `end`; `capacities` are (from when, N) in order, the first at `begin`."""

    begin: float
    end: float
    capacities: list[tuple[float, int]]
    parts: list[Part]


class Bin(NamedTuple):
    """The waits that were over within a span of time: how many, how long together, and the longest of them."""

    builds: int
    waited_s: float
    longest_s: float

    def and_also(self, other: Bin) -> Bin:
        """Return both together."""
        return Bin(self.builds + other.builds, self.waited_s + other.waited_s, max(self.longest_s, other.longest_s))


class Grid(NamedTuple):
    """So many `spans` of `step_s` each, one after the other, the first from `begin`."""

    begin: float
    step_s: float
    spans: int


class Box(NamedTuple):
    """What 5, 25, 50, 75 and 95 of 100 values stay below."""

    p5: float
    p25: float
    p50: float
    p75: float
    p95: float


class Spread(NamedTuple):
    """The mean of some values, and what a half, 90 and 99 of 100 of them stay below."""

    mean: float
    p50: float
    p90: float
    p99: float


class Summary(NamedTuple):
    """The builds of one label, or of all (""). `outcomes` counts each; a Spread without any value is None.

    `waited_s` is over all, those that left without a slot too; `held_s` over those that ended well; `memory` over all
    whose peak is known.
    """

    label: str
    builds: int
    outcomes: dict[str, int]
    waited_s: Spread | None
    held_s: Spread | None
    memory: Spread | None

    @property
    def failed(self) -> int:
        """How many builds failed or were killed."""
        return sum(self.outcomes.get(outcome, 0) for outcome in FAILURES)

    @property
    def timed_out(self) -> int:
        """How many waits ended at their time limit."""
        return self.outcomes.get("timeout", 0)


class Report(NamedTuple):
    """A past in numbers: `held_slot_s` of `slot_s` slot time was in use. `fits` is how many builds fit into the memory.

    That is by the peak that 9 of 10 builds stay below; None where the one or the other is not known.
    """

    held_slot_s: float
    slot_s: float
    all: Summary
    labels: list[Summary]
    total_memory: int | None
    fits: int | None

    @property
    def in_use(self) -> float | None:
        """The share of the slot time in use, 0 to 1; None where there was none."""
        return min(1.0, self.held_slot_s / self.slot_s) if self.slot_s else None


def report(past: Past, total_memory: int | None) -> Report:
    """Return what the past amounts to, the label with the most builds first."""
    by_label: dict[str, list[Part]] = {}
    for part in past.parts:
        by_label.setdefault(part.label, []).append(part)
    labels = [_summary_of(label, parts) for label, parts in by_label.items()]
    whole = _summary_of("", past.parts)
    return Report(
        held_slot_s=sum(part.slot_s for part in past.parts),
        slot_s=available(past),
        all=whole,
        labels=sorted(labels, key=lambda summary: (-summary.builds, summary.label)),
        total_memory=total_memory,
        fits=int(total_memory / whole.memory.p90) if total_memory and whole.memory and whole.memory.p90 else None,
    )


def boxes(past: Past) -> dict[str, Box]:
    """Return how the time that builds took is spread, by label, over those that ended well."""
    found = {part.label: sorted(part.holds) for part in past.parts if part.outcome == "done" and part.holds}
    shares = (0.05, 0.25, 0.5, 0.75, 0.95)
    return {label: Box(*(quantile(holds, share) for share in shares)) for label, holds in found.items()}


def available(past: Past) -> float:
    """Return how many slot seconds there were."""
    ends = [when for when, _ in past.capacities[1:]] + [past.end]
    return sum((end - begin) * capacity for (begin, capacity), end in zip(past.capacities, ends, strict=False))


def _summary_of(label: str, parts: Sequence[Part]) -> Summary:
    outcomes: dict[str, int] = {}
    for part in parts:
        outcomes[part.outcome] = outcomes.get(part.outcome, 0) + part.builds
    builds = sum(outcomes.values())
    done = [part for part in parts if part.outcome == "done"]
    memories = _evenly(parts, lambda part: part.memories)
    return Summary(
        label=label,
        builds=builds,
        outcomes=outcomes,
        waited_s=_spread_of(_evenly(parts, lambda part: part.waits), sum(part.waited_s for part in parts), builds),
        held_s=_spread_of(
            _evenly(done, lambda part: part.holds), sum(part.held_s for part in done), sum(part.builds for part in done)
        ),
        memory=_spread_of(memories, sum(memories), len(memories)),
    )


def _evenly(parts: Sequence[Part], values: Callable[[Part], list[float]]) -> list[float]:
    """Return the parts' values in order, thinned so that each stands for as many builds as any other.

    Strides are powers of two: one divides the other.
    """
    widest = max((part.stride for part in parts), default=1)
    return sorted(value for part in parts for value in values(part)[:: widest // part.stride])


def _spread_of(ordered: list[float], total: float, count: int) -> Spread | None:
    if not ordered:
        return None
    return Spread(total / count, quantile(ordered, 0.5), quantile(ordered, 0.9), quantile(ordered, 0.99))


def quantile(ordered: Sequence[float], share: float) -> float:
    """Return the value below which *share* of the *ordered* values lie; between two of them, in proportion."""
    at = share * (len(ordered) - 1)
    below = int(at)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (at - below)
