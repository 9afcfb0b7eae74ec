"""A pool and its counters as metrics for Prometheus. The only importer of prometheus_client, which is optional.

Guarantees: a pool has at most `counters.MAX_LABELS` + 1 labels; what stands in one is printable, since a person may
look at it too, and escaped by the library.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ipclock.errors import NoLibrary
from ipclock.history.counters import BOUNDS, OTHERS
from ipclock.history.outcomes import OUTCOMES
from ipclock.utf8 import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from prometheus_client import Metric

    from ipclock.history.counters import Total
    from ipclock.pool.snapshot import Snapshot

FORMATS = ("openmetrics", "prometheus")
OTHER = "other"


def text(now: Snapshot, totals: list[Total], form: str) -> bytes:
    """Return the metrics in one of FORMATS: OpenMetrics 1.0, or the text format that Prometheus had before it.

    Raises NoLibrary (69).
    """
    try:
        from prometheus_client import CollectorRegistry, exposition
        from prometheus_client.openmetrics import exposition as openmetrics
    except ImportError:
        raise NoLibrary("prometheus_client", "metrics") from None

    class Collector:
        def collect(self) -> Iterable[Metric]:
            yield from _gauges(now, printable(now.name))
            yield from _counters(printable(now.name), totals, created=form == "openmetrics")

    registry = CollectorRegistry(auto_describe=False)
    registry.register(Collector())
    generate: Callable[..., bytes] = (openmetrics if form == "openmetrics" else exposition).generate_latest
    return generate(registry)


def _gauges(now: Snapshot, pool: str) -> Iterator[Metric]:
    from prometheus_client.core import GaugeMetricFamily

    oldest = max((waiter.waited_s or 0.0 for waiter in now.waiters), default=0.0)
    values = {
        "slots": ("Slots of the pool.", now.capacity),
        "slots_in_use": ("Slots that builds hold.", now.taken),
        "builds_waiting": ("Builds that wait for a slot.", len(now.waiters)),
        "oldest_wait_seconds": ("How long the build that has waited longest has waited, 0 if none waits.", oldest),
        "drained": ("1 if no build is started now, by ipclock drain or because there are no slots.", now.drained),
        "orphans": (
            "Builds that go on and hold a slot although their ipclock was killed.",
            sum(holder.state == "orphaned" for holder in now.holders),
        ),
    }
    for name, (help_text, value) in values.items():
        family = GaugeMetricFamily(f"ipclock_{name}", help_text, labels=["pool"])
        family.add_metric([pool], value)
        yield family


def _counters(pool: str, totals: list[Total], *, created: bool) -> Iterator[Metric]:
    from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily

    waits = CounterMetricFamily(
        "ipclock_waits", "Builds that have asked for a slot and ended, with one or without.", labels=["pool", "label"]
    )
    timeouts = CounterMetricFamily(
        "ipclock_timeouts", "Builds that got no slot in the time that they would wait.", labels=["pool", "label"]
    )
    finished = CounterMetricFamily(
        "ipclock_finished_builds", "Builds that have ended, by how they did.", labels=["pool", "label", "outcome"]
    )
    wait = HistogramMetricFamily(
        "ipclock_wait_seconds", "How long builds have waited for a slot, or until they left.", labels=["pool", "label"]
    )
    hold = HistogramMetricFamily("ipclock_hold_seconds", "How long builds have held a slot.", labels=["pool", "label"])
    families: list[Any] = [waits, timeouts, finished, wait, hold]
    for label, known in sorted(_by_label(totals).items()):
        values = [pool, label]
        since = min(total.since for total in known) if created else None
        by_outcome = {outcome: sum(total.builds for total in known if total.outcome == outcome) for outcome in OUTCOMES}
        waits.add_metric(values, sum(total.builds for total in known), created=since)
        timeouts.add_metric(values, by_outcome["timeout"], created=since)
        # also those of which there is none: the first one is an increase only where a 0 was before it
        for outcome, builds in by_outcome.items():
            finished.add_metric([*values, outcome], builds, created=since)
        held = [total for total in known if total.hold_to is not None]
        wait.add_metric(values, _buckets(known, lambda total: total.wait_to), sum(total.waited_s for total in known))
        hold.add_metric(values, _buckets(held, lambda total: total.hold_to), sum(total.held_s for total in held))
        if since is not None:
            for family in (wait, hold):
                family.add_sample(f"{family.name}_created", {"pool": pool, "label": label}, since)
    yield from families


def _by_label(totals: list[Total]) -> dict[str, list[Total]]:
    found: dict[str, list[Total]] = {}
    for total in totals:
        # two that look alike then are one: a series must not occur twice
        found.setdefault(OTHER if total.label == OTHERS else printable(total.label), []).append(total)
    return found


def _buckets(totals: list[Total], bound: Callable[[Total], float | None]) -> list[tuple[str, float]]:
    counted = dict.fromkeys(BOUNDS, 0)
    for total in totals:
        # one that another version has drawn may be none of ours
        upper = next(limit for limit in BOUNDS if limit >= (bound(total) or 0.0))
        counted[upper] += total.builds
    so_far = 0
    return [
        ("+Inf" if limit == BOUNDS[-1] else str(limit), so_far := so_far + builds) for limit, builds in counted.items()
    ]
