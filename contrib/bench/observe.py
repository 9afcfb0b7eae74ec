"""The observer: what ran when, by the stamps of the jobs alone. Knows nothing of locks, slots or peers."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path


class Span(NamedTuple):
    """From when to when a job ran, in nanoseconds of CLOCK_MONOTONIC; `end` is None while it runs."""

    pid: int
    begin: int
    end: int | None = None


def read(log: Path) -> dict[str, Span]:
    """Return the jobs in the order of their stamps, by name. A line that is still being written does not count."""
    spans: dict[str, Span] = {}
    for line in log.read_text().splitlines(keepends=True):
        if not line.endswith("\n"):
            continue
        name, what, pid, at = line.split()
        if what == "begin":
            spans[name] = Span(int(pid), int(at))
        elif spans[name].end is None:  # a job that was killed has its end from who killed it, and only the first counts
            spans[name] = spans[name]._replace(end=int(at))
    return spans


def overlap(spans: Iterable[Span]) -> int:
    """Return how many jobs ran at once at most. One that ends at the instant another begins does not overlap it."""
    steps = []
    for span in spans:
        steps.append((span.begin, 1))
        if span.end is not None:
            steps.append((span.end, -1))
    running = most = 0
    for _, step in sorted(steps):
        running += step
        most = max(most, running)
    return most


def inversions(arrived: Sequence[str], spans: Mapping[str, Span]) -> int:
    """Count the pairs that began in another order than they arrived."""
    begun = [spans[name].begin for name in arrived]
    return sum(later < earlier for place, earlier in enumerate(begun) for later in begun[place + 1 :])
