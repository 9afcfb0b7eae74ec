"""The parts: what is measured, one function each. Every one takes a Bench and adds to its samples.

The peers take turns within each round, in an order drawn anew, so that what else the machine does hits all alike.
"""

from __future__ import annotations

import math
import os
import random
import signal
import sys
import time
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from contrib.bench import observe, proc
from contrib.bench.ground import Hang, gather, until_waiting, wait_for_one
from contrib.bench.peers import PEERS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from contrib.bench.ground import Client, Ground, Lock
    from contrib.bench.peers import Peer

T = TypeVar("T")
START_UP = "start-up: `TOOL -- true`, ms"
BEYOND = "start-up beyond `python -c pass` of the same environment, ms"
HAND_OFF = "hand-off from the end of one build to the start of the next, ms"
CPU, WAKE_UPS, MEMORY = (
    "waiters: CPU time, ms each second",
    "waiters: wake-ups each second",
    "waiters: memory (PSS), MB",
)
THROUGHPUT = {0: "throughput: jobs of `true` each second", 10: "throughput: jobs of 10 ms each second"}
RECOVERY = "recovery after SIGKILL, ms until the next build starts"
STATUS = "`ipclock status`, ms"
NEVER = math.inf
PATIENCE_S = 4.0  # a slot that has not come back by then is lost
IN_FLIGHT = 32  # so many jobs at a time ask for a slot
TOO_LONG_S = 60.0
PAUSE_S = 0.3


class Sizes(NamedTuple):
    """How much of everything. Each number of jobs has beside it how many seconds they may take, by a smaller run.

    A crowd is watched for `watch_s` seconds once it has stood for `calm_s`: then the last arrivals have been noticed.
    """

    startups: int
    hand_offs: int
    long_wait_s: float
    long_hand_offs: int
    crowds: tuple[int, ...]
    calm_s: float
    watch_s: float
    jobs: tuple[tuple[int, float], ...]
    slots: tuple[int, ...]
    arrivals: int
    recoveries: int
    status_calls: int


FULL = Sizes(
    60, 15, 10.0, 5, (1, 100, 1000), 35.0, 15.0, ((20, math.inf), (200, 15.0), (2000, 60.0)), (1, 2, 8), 40, 4, 20
)
QUICK = Sizes(3, 1, 1.0, 1, (1, 20), 0.0, 1.0, ((20, math.inf),), (1, 2), 8, 1, 3)


class Sample(NamedTuple):
    """One value of a measure (with its unit), in one case, of one peer."""

    measure: str
    case: str
    peer: str
    round: int
    value: float


class Seen(NamedTuple):
    """What the observer found: so many jobs at once, where n were allowed."""

    peer: str
    n: int
    overlap: int
    killed: bool  # a wrapper was


class Bench:
    """What all parts share: the ground, the peers, how much, and what came of it."""

    def __init__(self, ground: Ground, peers: list[Peer], sizes: Sizes, rounds: int, seed: int) -> None:
        self.ground, self.peers, self.sizes, self.rounds = ground, peers, sizes, rounds
        self.dice = random.Random(seed)
        self.samples: list[Sample] = []
        self.seen: list[Seen] = []
        self.notes: list[str] = []

    def add(self, measure: str, case: str, peer: str, number: int, value: float) -> None:
        """Note a value."""
        self.samples.append(Sample(measure, case, peer, number, value))

    def turns(self, rounds: int, things: Iterable[T]) -> Iterator[tuple[int, T]]:
        """Give all things a turn in each round, with the round's number."""
        for number in range(self.rounds or rounds):
            yield from ((number, thing) for thing in self.shuffled(things))

    def shuffled(self, things: Iterable[T]) -> list[T]:
        """Return the things in an order of their own."""
        order = list(things)
        self.dice.shuffle(order)
        return order

    def pairs(self, *slots: int) -> list[tuple[Peer, int]]:
        """Return each peer with each number of slots that it can count to."""
        return [(peer, n) for peer in self.peers for n in slots if n == 1 or peer.counts]

    @contextmanager
    def lock(self, peer: Peer, n: int = 1, *, killed: bool = False) -> Iterator[Lock]:
        """A fresh lock, over which the observer watches. What hangs is noted, and given up."""
        with self.ground.lock(peer, n) as lock:
            with self.hangs_noted(lock):
                yield lock
            if spans := lock.spans():
                self.seen.append(Seen(peer.name, n, observe.overlap(spans.values()), killed))

    @contextmanager
    def hangs_noted(self, lock: Lock) -> Iterator[None]:
        """Note what hangs, and go on behind the block."""
        try:
            yield
        except Hang as hang:
            self.notes.append(f"{lock.peer.name}, N={lock.n}: {hang}")


def start_up(bench: Bench) -> None:
    """`TOOL -- true`, and what an interpreter alone costs in the same environment."""
    with ExitStack() as stack:
        runs: dict[str, Callable[[], Client]] = {}
        bare: dict[str, str] = {}
        for peer in bench.peers:
            lock = stack.enter_context(bench.lock(peer))
            runs[peer.name] = lambda lock=lock: lock.start("true")  # type: ignore[misc]
            if peer.pypi:
                bare[peer.name] = "python -c pass"
        _add_interpreters(bench, stack, runs, bare)
        for run in runs.values():
            run().wait()  # what is made once is there
        for number in range(bench.rounds or bench.sizes.startups):
            took = {name: _timed(runs[name]) for name in bench.shuffled(runs)}
            for name, ms in took.items():
                bench.add(START_UP, "", name, number, ms)
                if name in bare:
                    bench.add(BEYOND, "", name, number, ms - took[bare[name]])


def _add_interpreters(
    bench: Bench, stack: ExitStack, runs: dict[str, Callable[[], Client]], bare: dict[str, str]
) -> None:
    known = {peer.name: peer for peer in PEERS}
    lock = stack.enter_context(bench.lock(known["floor"]))
    python = bench.ground.places["python"]
    runs["python -c pass"] = lambda: lock.start_bare(python, "-c", "pass")
    ours = Path(sys.executable).with_name("ipclock")
    if ours.exists() and not ours.parent.samefile(bench.ground.places["bin"]):
        # where this benchmark runs: an editable install may pay at every start for how it is found
        runs["python -c pass, editable"] = lambda: lock.start_bare(sys.executable, "-c", "pass")
        peer = known["ipclock"]._replace(command=f"{ours} wrap -q -w 600 bench --")
        editable = stack.enter_context(bench.lock(peer))
        runs["ipclock, editable"] = lambda: editable.start("true")
        bare["ipclock, editable"] = "python -c pass, editable"


def _timed(run: Callable[[], Client]) -> float:
    begun = time.monotonic_ns()
    run().wait()
    return (time.monotonic_ns() - begun) / 1e6


def hand_off(bench: Bench) -> None:
    """From the end of one build to the start of the next, fresh and after a long wait."""
    pairs = bench.pairs(1, 2)
    for number, (peer, n) in bench.turns(bench.sizes.hand_offs, pairs):
        with bench.lock(peer, n) as lock:
            _line_up(lock)
            time.sleep(PAUSE_S)
            _hand_over(bench, lock, number, f"after {PAUSE_S:g} s")
    long_s = bench.sizes.long_wait_s
    for number in range(bench.rounds or bench.sizes.long_hand_offs):
        with ExitStack() as stack:
            locks = [stack.enter_context(bench.lock(peer, n)) for peer, n in bench.shuffled(pairs)]
            for lock in locks:
                with bench.hangs_noted(lock):
                    _line_up(lock)
            time.sleep(long_s)
            for lock in bench.shuffled(locks):
                with bench.hangs_noted(lock):
                    _hand_over(bench, lock, number, f"after {long_s:g} s")


def _line_up(lock: Lock) -> None:
    for number in range(lock.n):
        lock.start_held(f"holder-{number}")
        lock.until_begun(f"holder-{number}")
    until_waiting([lock.start_held("waiter")])


def _hand_over(bench: Bench, lock: Lock, number: int, case: str) -> None:
    if "waiter" not in lock.spans():  # else it did not wait, which the observer has seen
        lock.let_go("holder-0")
        begun = lock.until_begun("waiter").begin
        ms = (begun - lock.until_ended("holder-0")) / 1e6
        bench.add(HAND_OFF, f"N={lock.n}, {case}", lock.peer.name, number, ms)
    lock.let_all_go()


class Cost(NamedTuple):
    """What one waiter costs: seconds to start it, kB of memory, processors while it waits."""

    start_s: float = 0.0
    pss_kb: float = 0.0
    cores: float = 0.0

    def forbids(self, size: int) -> str:
        """Return why there is no crowd of this size here, empty if there may be one."""
        seconds, cores = self.start_s * size, self.cores * size
        if seconds > TOO_LONG_S:
            return f"it would take {seconds:.0f} s to start them"
        if cores > (os.cpu_count() or 1) / 2:
            return f"they would keep {cores:.1f} processors busy"
        if self.pss_kb * size > proc.available_kb() / 2:
            return f"they would take {self.pss_kb * size / 1e6:.1f} GB"
        return ""


def waiters(bench: Bench) -> None:
    """What 1, 100, 1000 waiters cost while nothing happens."""
    for peer in bench.shuffled(bench.peers):
        cost = Cost()
        for size in bench.sizes.crowds:
            if why := cost.forbids(size):
                bench.notes.append(f"{peer.name}: no {size} waiters, {why}")
                continue
            with bench.lock(peer) as lock:
                begun = time.monotonic()
                crowd = _crowd(lock, size)
                start_s = (time.monotonic() - begun) / size
                time.sleep(bench.sizes.calm_s if size > 1 else 0)
                used, seconds = _watch(bench, lock, crowd)
                cost = Cost(start_s, used.pss_kb / size, used.cpu_ns / 1e9 / seconds / size)


def _crowd(lock: Lock, size: int) -> list[Client]:
    """Return so many waiters behind a holder; the first of them arrived before the others."""
    lock.start_held("holder")
    lock.until_begun("holder")
    numbers = iter(range(size))

    def start() -> Client:
        return lock.start(*lock.job(f"waiter-{next(numbers)}"))

    return gather(start, 1) + gather(start, size - 1)


def _watch(bench: Bench, lock: Lock, crowd: list[Client]) -> tuple[proc.Usage, float]:
    """Add what the waiters and the peer's daemons use in a while; return what all of them did, in how many seconds."""
    waiting = [client.pid for client in crowd]
    pids = waiting + lock.daemons
    look, begun = proc.Look(), time.monotonic()
    before = {pid: look.usage(pid) for pid in pids}
    time.sleep(bench.sizes.watch_s)
    look, seconds = proc.Look(), time.monotonic() - begun
    used = {pid: look.usage(pid).since(before[pid]) for pid in pids}
    everybody = proc.total(used.values())
    groups = {"all": (everybody, 1)}
    if len(crowd) > 1:
        groups["the first in line"] = (used[waiting[0]], 1)
        groups["each of the others"] = (proc.total(used[pid] for pid in waiting[1:]), len(crowd) - 1)
    for group, (usage, share) in groups.items():
        case = f"{len(crowd)} waiting, {group}"
        bench.add(CPU, case, lock.peer.name, 0, usage.cpu_ns / 1e6 / seconds / share)
        bench.add(WAKE_UPS, case, lock.peer.name, 0, usage.wakeups / seconds / share)
        bench.add(MEMORY, case, lock.peer.name, 0, usage.pss_kb / 1e3 / share)
    return everybody, seconds


def throughput(bench: Bench) -> None:
    """Jobs in each second, with so many of them asking at a time."""
    pairs = [(peer, n, ms) for peer, n in bench.pairs(*bench.sizes.slots) for ms in THROUGHPUT]
    rates: dict[tuple[str, int, int], float] = {}
    for jobs, limit_s in bench.sizes.jobs:
        for number, (peer, n, ms) in bench.turns(1, pairs):
            expected = jobs / rates.get((peer.name, n, ms), math.inf)
            if expected > limit_s:
                bench.notes.append(f"{peer.name}, N={n}: no {jobs} jobs of {ms} ms, they would take {expected:.0f} s")
                continue
            with bench.lock(peer, n) as lock:
                rate = rates[peer.name, n, ms] = _run_jobs(lock, jobs, ms)
                bench.add(THROUGHPUT[ms], f"{jobs} jobs, N={n}", peer.name, number, rate)


def _run_jobs(lock: Lock, jobs: int, ms: int) -> float:
    running: list[Client] = []
    begun = time.monotonic()
    for number in range(jobs):
        running.append(lock.start(*(lock.job(f"job-{number}", str(ms)) if ms else ["true"])))
        while len(running) >= IN_FLIGHT:
            running = _still_running(running)
    while running:
        running = _still_running(running)
    return jobs / (time.monotonic() - begun)


def _still_running(clients: list[Client]) -> list[Client]:
    wait_for_one(clients)
    left = [client for client in clients if not client.ended()]
    if len(left) == len(clients):
        raise Hang(f"none of {len(clients)} jobs ended")
    return left


def order(bench: Bench) -> None:
    """Pairs served in another order than they came, of builds that arrived one after another for certain."""
    for number, peer in bench.turns(1, bench.peers):
        with bench.lock(peer) as lock:
            lock.start_held("holder")
            lock.until_begun("holder")
            names = [f"waiter-{place}" for place in range(bench.sizes.arrivals)]
            for name in names:
                until_waiting([lock.start(*lock.job(name, "5"))])
            lock.let_all_go()
            pairs = len(names) * (len(names) - 1) // 2
            value = observe.inversions(names, lock.spans())
            bench.add(f"inversions of order, of {pairs} pairs", "", peer.name, number, value)


def recovery(bench: Bench) -> None:
    """How long a slot is gone whose holder was killed, and whether it is kept for a build whose wrapper was."""
    for number, peer in bench.turns(bench.sizes.recoveries, bench.peers):
        is_the_build = True
        with bench.lock(peer) as lock:
            holder = _held(lock)
            is_the_build = lock.spans()["holder"].pid == holder.pid
            at = _kill_all(lock, holder)
            _add_recovery(bench, lock, number, "wrapper and build killed", at)
        if is_the_build:
            continue  # there is no wrapper left to kill
        with bench.lock(peer, killed=True) as lock:
            holder = _held(lock)
            holder.kill()
            holder.wait()
            with suppress(Hang):
                lock.until_begun("waiter", 1.5)
            lock.let_go("holder")
            at = lock.until_ended("holder")
            if lock.spans().get("waiter", observe.Span(0, at)).begin >= at:  # else it did not wait for the build
                _add_recovery(bench, lock, number, "wrapper killed, since its build ended", at)


def _held(lock: Lock) -> Client:
    """Return the holder's wrapper, with a waiter behind it."""
    holder = lock.start_held("holder")
    lock.until_begun("holder")
    until_waiting([lock.start_held("waiter")])
    return holder


def _kill_all(lock: Lock, holder: Client) -> int:
    """Kill the wrapper and what it has started; return when."""
    started = proc.Look().tree(holder.pid)[1:]
    at = time.monotonic_ns()
    holder.kill()
    for pid in started:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    holder.wait()
    lock.killed("holder", at)
    return at


def _add_recovery(bench: Bench, lock: Lock, number: int, case: str, at: int) -> None:
    value = NEVER
    with suppress(Hang):
        value = (lock.until_begun("waiter", PATIENCE_S).begin - at) / 1e6
        lock.let_go("waiter")
    bench.add(RECOVERY, case, lock.peer.name, number, value)


def status(bench: Bench) -> None:
    """`ipclock status` of an idle pool and of one with a crowd."""
    for peer in bench.peers:
        if peer.name != "ipclock":
            continue
        for size in (0, bench.sizes.crowds[-1]):
            with bench.lock(peer) as lock:
                lock.start("true").wait()
                if size:
                    _crowd(lock, size)
                ours = f"{bench.ground.places['bin']}/ipclock"
                for number, options in bench.turns(bench.sizes.status_calls, [(), ("--json",)]):
                    ms = _timed(lambda: lock.start_bare(ours, "status", *options))  # noqa: B023
                    case = f"{' '.join(['status', *options])}, {size} waiting"
                    bench.add(STATUS, case, peer.name, number, ms)


PARTS: dict[str, Callable[[Bench], None]] = {
    "start-up": start_up,
    "hand-off": hand_off,
    "waiters": waiters,
    "throughput": throughput,
    "order": order,
    "recovery": recovery,
    "status": status,
}
