"""What another number of slots would have done: a past's builds once more, through the policy that admits.

Pure. A discrete-event simulation: builds arrive when they did and run as long as they did, and `policy` decides which
one is next, whether its slots, its label and its memory have room. Exact where nothing else has a say; does not know
priorities, drains, limits of single builds, nor that a build takes longer beside more others. Times are seconds of the
epoch, those that end in `_s` are spans, memory is in bytes.
"""

from __future__ import annotations

import heapq
import math
from typing import TYPE_CHECKING, NamedTuple

from ipclock.history.statistics import quantile
from ipclock.pool import policy
from ipclock.pool.record_name import RecordName

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

FEWEST = 20  # of fewer builds figures say nothing
# what happens at one moment, in this order: a slot that is released goes to one that gives up just then
_END, _ARRIVAL, _LEAVING = range(3)


class Arrival(NamedTuple):
    """A build as it came: `held_s` is None for one that gave up without a slot; `memory` is its peak, None unknown."""

    arrived: float
    label: str
    waited_s: float
    held_s: float | None
    slots: int
    memory: int | None


class Job(NamedTuple):
    """A build to replay: it takes `length_s` once it has its slots, and waits for them for `patience_s` at most."""

    entry: RecordName
    arrived: float
    length_s: float
    label: str
    memory: int
    patience_s: float


class Pool(NamedTuple):
    """What builds are replayed in. `per_label`: how many of a label at once, 0 any number. `memory`: None unknown.

    `holds`: a build for which memory is short waits, as with `--memory`; else it starts.
    """

    capacity: int
    per_label: int = 0
    memory: int | None = None
    holds: bool = False


class Course(NamedTuple):
    """What became of a job: its wait, and whether it got slots; `short`: it was its turn and memory was short."""

    waited_s: float
    admitted: bool
    short: bool = False


class Figures(NamedTuple):
    """Builds in numbers: waits (0 where there are none), the share of slot time in use from 0 to 1 (None: none).

    `short` is None where memory is not known. `too_large` builds take more slots than there are and are left out.
    """

    mean_s: float
    p90_s: float
    longest_s: float
    in_use: float | None
    gave_up: int
    short: int | None
    too_large: int


class Plan(NamedTuple):
    """What N slots would do, by N; with today's N (`slots`) and what really happened. Too few `builds`: no figures."""

    pool: str
    label: str | None
    begin: float
    end: float
    builds: int
    slots: int
    changed: bool
    memory: int | None
    actual: Figures | None
    replays: dict[int, Figures]


def jobs_of(arrivals: Sequence[Arrival], per_label: int = 0) -> list[Job]:
    """Return the jobs of builds in order of arrival. What is not known of one is the median of its label, or of all.

    One that gave up waits no longer than it did.
    """
    length = _typical(arrivals, lambda build: build.held_s)
    memory = _typical(arrivals, lambda build: build.memory)
    return [
        Job(
            entry=RecordName(ticket, units=build.slots, limit=per_label),
            arrived=build.arrived,
            length_s=length(build.label) if build.held_s is None else build.held_s,
            label=build.label,
            memory=round(memory(build.label)) if build.memory is None else build.memory,
            patience_s=build.waited_s if build.held_s is None else math.inf,
        )
        for ticket, build in enumerate(arrivals, 1)
    ]


def _typical(arrivals: Iterable[Arrival], value_of: Callable[[Arrival], float | None]) -> Callable[[str], float]:
    """Return what tells the median of a label, or that of all where the label has none."""
    known: dict[str, list[float]] = {}
    for build in arrivals:
        if (value := value_of(build)) is not None:
            known.setdefault(build.label, []).append(value)
    medians = {label: quantile(sorted(values), 0.5) for label, values in known.items()}
    everything = sorted(value for values in known.values() for value in values)
    otherwise = quantile(everything, 0.5) if everything else 0.0
    return lambda label: medians.get(label, otherwise)


def replay(jobs: Sequence[Job], pool: Pool) -> list[Course | None]:
    """Return what becomes of each job; None for one that takes more slots than there are."""
    return _Run(jobs, pool).courses()


class _Run:
    """One replay as it goes."""

    def __init__(self, jobs: Sequence[Job], pool: Pool) -> None:
        self._jobs = jobs
        self._pool = pool
        self._courses: list[Course | None] = [None] * len(jobs)
        self._events: list[tuple[float, int, int]] = []  # ends and leavings: when, which of both, of which job
        self._queue: list[tuple[tuple[int, int], int]] = []  # by rank
        self._passed_over: dict[str, list[tuple[tuple[int, int], int]]] = {}  # by the label that has no room
        self._of_label: dict[str, dict[int, tuple[RecordName, str]]] = {}  # the running ones, where labels count
        self._short: set[int] = set()
        self._held = 0
        self._running = 0
        self._left = pool.memory or 0

    def courses(self) -> list[Course | None]:
        events, jobs = self._events, self._jobs
        for number, job in enumerate(jobs):
            while events and events[0][:2] < (job.arrived, _ARRIVAL):
                self._happen(*heapq.heappop(events))
            if job.entry.units > self._pool.capacity:
                continue
            heapq.heappush(self._queue, (policy.rank(job.entry), number))
            if job.patience_s < math.inf:
                heapq.heappush(events, (job.arrived + job.patience_s, _LEAVING, number))
            self._admit(job.arrived)
        while events:
            self._happen(*heapq.heappop(events))
        return self._courses

    def _happen(self, now: float, what: int, number: int) -> None:
        job = self._jobs[number]
        if what == _END:
            self._held -= job.entry.units
            self._running -= 1
            self._left += job.memory
            if self._pool.per_label:
                del self._of_label[job.label][number]
        elif self._courses[number]:
            return
        else:
            self._courses[number] = Course(job.patience_s, admitted=False, short=number in self._short)
        # one of its label may have room now
        if waiting := self._passed_over.get(job.label):
            heapq.heappush(self._queue, heapq.heappop(waiting))
        self._admit(now)

    def _admit(self, now: float) -> None:
        """Admit from the head of the queue whatever may go."""
        queue, pool = self._queue, self._pool
        while queue:
            number = queue[0][1]
            job = self._jobs[number]
            if self._courses[number]:  # it gave up
                heapq.heappop(queue)
                if waiting := self._passed_over.get(job.label):
                    heapq.heappush(queue, heapq.heappop(waiting))
            elif pool.per_label and not self._label_has_room(job):
                heapq.heappush(self._passed_over.setdefault(job.label, []), heapq.heappop(queue))
            elif not policy.may_admit(self._held, job.entry.units, pool.capacity) or not self._memory_has_room(number):
                return
            else:
                heapq.heappop(queue)
                self._start(number, now)

    def _label_has_room(self, job: Job) -> bool:
        beside = self._of_label.setdefault(job.label, {}).values()
        return policy.has_room_for_label(job.entry, job.label, beside)

    def _memory_has_room(self, number: int) -> bool:
        if self._pool.memory is None:
            return True
        fits = policy.has_memory(self._left, self._jobs[number].memory, alone=not self._running)
        if not fits:
            self._short.add(number)
        return fits or not self._pool.holds

    def _start(self, number: int, now: float) -> None:
        job = self._jobs[number]
        self._held += job.entry.units
        self._running += 1
        self._left -= job.memory
        if self._pool.per_label:
            self._of_label[job.label][number] = job.entry, job.label
        heapq.heappush(self._events, (now + job.length_s, _END, number))
        self._courses[number] = Course(now - job.arrived, admitted=True, short=number in self._short)


def figures(
    jobs: Sequence[Job], courses: Sequence[Course | None], pool: Pool, begin: float, end: float, label: str | None
) -> Figures:
    """Return a replay in numbers: of the builds of one label or all; the slots were in use by all from *begin* on."""
    pairs = list(zip(jobs, courses, strict=True))
    asked = [(job, course) for job, course in pairs if label in (None, job.label)]
    known = [course for _job, course in asked if course]
    used = sum(
        job.entry.units * _overlap(job.arrived + course.waited_s, job.length_s, begin, end)
        for job, course in pairs
        if course and course.admitted
    )
    return Figures(
        *_waits([course.waited_s for course in known]),
        in_use=_share(used, pool.capacity * (end - begin)),
        gave_up=sum(not course.admitted for course in known),
        short=None if pool.memory is None else sum(course.short for course in known),
        too_large=len(asked) - len(known),
    )


def recorded(arrivals: Sequence[Arrival], slot_s: float, begin: float, end: float, label: str | None) -> Figures:
    """Return what really happened in numbers, in *slot_s* of slot time."""
    asked = [build for build in arrivals if label in (None, build.label)]
    used = sum(
        build.slots * _overlap(build.arrived + build.waited_s, build.held_s, begin, end)
        for build in arrivals
        if build.held_s is not None
    )
    return Figures(
        *_waits([build.waited_s for build in asked]),
        in_use=_share(used, slot_s),
        gave_up=sum(build.held_s is None for build in asked),
        short=None,
        too_large=0,
    )


def _waits(waits: list[float]) -> tuple[float, float, float]:
    waits.sort()
    return (math.fsum(waits) / len(waits), quantile(waits, 0.9), waits[-1]) if waits else (0.0, 0.0, 0.0)


def _overlap(start: float, length_s: float, begin: float, end: float) -> float:
    return max(0.0, min(start + length_s, end) - max(start, begin))


def _share(part: float, whole: float) -> float | None:
    return min(1.0, part / whole) if whole > 0 else None
