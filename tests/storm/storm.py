"""A storm: many real clients of one pool, of whom many are killed, stopped or interrupted, and an independent observer.

What happens to which job, and how long after its start, comes from the seed alone; when a process runs is the kernel's.

The observer uses nothing of ipclock. Each build stamps its begin with O_APPEND and has a flock(2) on a file of its own;
/proc/locks tells, in one reading, which builds live. The rule: the slots of all that live, without those that a reset
named as evicted, are no more than the N in force when the last of them was admitted. That is within GRACE_S before its
stamp, or since its start for a client that was stopped. Builds that began under a higher N are never stopped, so an
older N may only be exceeded by nobody admitted since.
"""

from __future__ import annotations

import heapq
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from ipclock import place
from tests.helpers.freezer import Freezer, is_there
from tests.helpers.world import HANG_S

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.helpers.world import World

GRACE_S = 3.0
LOOK_S = 0.004
STOPPED_S = 0.8
FROZEN_S = 7.0  # longer than a waiter may be called without acting
IN_FLIGHT = 20
TRAPPED = 9
SANE = {0, 75, 76, TRAPPED, *(-number for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM, signal.SIGKILL))}

# one process: what a build leaves behind is not counted, by ipclock's default, but would be by the observer
BUILD = """
exec 9>>"$1/$IPCLOCK_LABEL"
flock -n 9 || exit 99
echo "$IPCLOCK_LABEL $IPCLOCK_TICKET $$" >>"$1.log"
exec sleep "$2"
"""
# a script holds its slot by its own process: what it starts must not count for the observer either
SCRIPT = """
IPCLOCK_LABEL=$3
IPCLOCK_TICKET=$("$4" -m ipclock acquire -q -w 60 "$3") || exit
exec 9>>"$1/$3"
flock -n 9 || exit 99
echo "$3 $IPCLOCK_TICKET $$" >>"$1.log"
sleep "$2" 9>&-
exec 9>&-
"$4" -m ipclock release -q "$IPCLOCK_TICKET"
"""
# a script that sources the library: its build is another process, which goes on when a signal ends the script
LIBRARY = f"""
ipclock() {{ "$PYTHON" -m ipclock "$@"; }}
build() {{ IPCLOCK_LABEL=$label sh -c '{BUILD}' sh "$@"; }}
source {Path(__file__).parents[2]}/contrib/oracle/lib/build-lock.sh
label=$3
acquire_lock "$label" || exit
%s
release_lock
"""
OWN_TRAP = f"trap 'release_lock; exit {TRAPPED}' TERM HUP INT"
SOURCED = {
    "foreground": 'build "$@"',
    "background": 'build "$@" & wait',
    "foreground, trap on EXIT": 'trap release_lock EXIT; build "$@"',
    "background, trap on EXIT": 'trap release_lock EXIT; build "$@" & wait',
    "background, trap on signals": f'{OWN_TRAP}; build "$@" & wait',
}
# a build that starts another one inside of it, and ends before that does
NESTED = f"""
setsid "$PYTHON" -m ipclock wrap -q -w 60 "$IPCLOCK_LABEL" -- sh -c '{BUILD}' sh "$@" </dev/null >/dev/null 2>&1 &
sleep 0.2
"""
LOCK = re.compile(r"FLOCK +ADVISORY +WRITE +\d+ +[0-9a-f]+:[0-9a-f]+:(\d+) ")
EVICTED = re.compile(r"ipclock: (job-\d+) \(PID: ")
FORGOTTEN = re.compile(r"\(PIDs: ([\d, ]+)\): forgotten")


WAYS, WEIGHTS = ["wrap", "acquire", "nested", *SOURCED], [12, 4, 6] + [2] * len(SOURCED)


class Job(NamedTuple):
    """One client as the plan has it: how it asks, how long it builds, what happens to it how long after its start.

    The `way` that it asks is `wrap`, `acquire`, `nested`, or one of SOURCED; what happens to those happens `after` the
    build's start.
    """

    label: str
    options: tuple[str, ...]
    slots: int
    way: str
    seconds: float
    fate: str
    after: float


class Report(NamedTuple):
    """What came of a storm. `worst` is the most slots in use at once beside the bound then; the rest are counts."""

    ended: dict[str, int]
    happened: dict[str, int]
    builds: int
    looks: int
    worst: tuple[int, int]
    violations: list[str]
    inversions: int
    left_over: tuple[int, dict[str, list[str]]]


def plan(seed: int, jobs: int, *, removals: bool = False) -> list[Job]:
    """Return what the seed has in store. With *removals* nobody holds a slot that no lock tells of."""
    dice = random.Random(seed)
    fates = ["", "kill", "kill build", "stop", "stop", "SIGTERM", "SIGINT", "freeze"]
    found = []
    for number in range(jobs):
        slots = dice.choices([1, 2], [9, 1])[0]
        options = ["--slots", "2"] if slots == 2 else []
        options += dice.choice([[], [], [], ["--priority", "5"], ["--priority", "-3"]])
        way = "wrap" if options else dice.choices(WAYS, WEIGHTS)[0]
        fate = dice.choices(fates, [24, 4, 4, 4, 4, 4, 4, 1])[0]
        seconds, after = round(dice.uniform(0.01, 0.25), 3), round(dice.uniform(0.0, 1.5), 3)
        if way == "nested" or (way == "acquire" and removals):
            way, seconds = "nested", 0.3 + seconds
        if way in SOURCED:
            fate = dice.choice(["", "kill", "SIGTERM", "SIGTERM", "SIGHUP", "SIGINT"])
            seconds, after = 0.2 + seconds, after / 10
        found.append(Job(f"job-{number}", tuple(options), slots, way, seconds, fate, after))
    return found


class Storm:
    """The clients of one storm in a world of their own, and what is seen of them."""

    def __init__(
        self,
        world: World,
        folder: Path,
        seed: int,
        slots: int,
        program: list[str] | None = None,
        *,
        removals: bool = False,
    ) -> None:
        self.world = world
        self.witness = folder / "witness"
        self.witness.mkdir()
        self.log = folder / "witness.log"
        self.log.touch()
        self.slots = slots
        self.removals = removals
        # a pool that is made anew has its N from its maker's settings
        self.settings = folder / "build-config.sh" if removals else None
        self.lock_dirs = ["/dev/shm", str(folder / "one"), str(folder / "two")] if removals else ["/dev/shm"]
        self.program = program or [sys.executable, "-m", "ipclock"]
        self.dice = random.Random(seed)
        self.capacities = [(0.0, slots)]
        self.clients: dict[str, subprocess.Popen[bytes]] = {}
        self.jobs: dict[str, Job] = {}
        self.started: dict[str, float] = {}
        self.begun: dict[str, tuple[float, int, int]] = {}
        self.inodes: dict[int, str] = {}
        self.was_stopped: set[str] = set()
        self.evicted: set[str] = set()
        self.forgotten: set[int] = set()
        self.timers: list[tuple[float, int, Callable[[], None]]] = []
        self.ended: dict[str, int] = {}
        self.happened: dict[str, int] = {}
        self.violations: list[str] = []
        self.worst = (0, slots)
        self.looks = 0
        self._read = 0
        self._timer = 0

    def run(self, jobs: list[Job], seconds: float | None = None) -> Report:
        """Let the jobs come, at most IN_FLIGHT at a time, for so long at most, and report when all is over."""
        self._init(self.slots)
        deadline = time.monotonic() + seconds if seconds else float("inf")
        waiting = iter(jobs)
        more = True
        while more or self.clients:
            while more and len(self.clients) < IN_FLIGHT:
                job = next(waiting, None)
                more = job is not None and time.monotonic() < deadline
                if more and job:
                    self._start(job)
                    self._weather()
            self._turn()
        self._set_capacity(self.slots)
        over = time.monotonic() + HANG_S
        # builds of killed supervisors and scripts, and the waiter of a script that was killed
        while (self._living() or self._pool().waiting() or self.world.records("holding")) and time.monotonic() < over:
            self._turn()
        self._ipclock("resume")
        self._ipclock("init")
        return Report(
            self.ended,
            self.happened,
            len(self.begun),
            self.looks,
            self.worst,
            self.violations,
            self._inversions(jobs),
            self._pool().settled(),
        )

    def _pool(self) -> World:
        """Return the world, with the folder that is the pool's now."""
        if found := place.look(self.world.name[1:]):
            self.world.folder = Path(found.path)
        return self.world

    # What happens.

    def _start(self, job: Job) -> None:
        self.jobs[job.label] = job
        place = [str(self.witness), str(job.seconds)]
        if job.way == "acquire":
            command = ["sh", "-c", SCRIPT, "sh", *place, job.label, sys.executable]
        elif job.way in SOURCED:
            command = ["bash", "-uc", LIBRARY % SOURCED[job.way], "bash", *place, job.label]
        else:
            build = ["sh", "-c", NESTED if job.way == "nested" else BUILD, "sh", *place]
            command = [*self.program, "wrap", "-q", "-w", "60", *job.options, job.label, "--", *build]
        self.started[job.label] = time.monotonic()
        null = subprocess.DEVNULL
        env = self.world.env | {"PYTHON": sys.executable, "LOCK_DIR": self.dice.choice(self.lock_dirs)}
        self.clients[job.label] = subprocess.Popen(command, env=env, stdin=null, stdout=null, stderr=null)
        if job.fate and job.way not in SOURCED:
            self._later(job.after, lambda: self._befall(job))

    def _later(self, seconds: float, action: Callable[[], None]) -> None:
        self._timer += 1
        heapq.heappush(self.timers, (time.monotonic() + seconds, self._timer, action))

    def _befall(self, job: Job) -> None:
        client = self.clients.get(job.label)
        if client is None or client.poll() is not None:
            return
        if job.fate == "kill build":
            if job.label not in self.begun:
                return
            with suppress(ProcessLookupError):
                os.kill(self.begun[job.label][2], signal.SIGKILL)
        elif job.fate == "stop":
            self.was_stopped.add(job.label)
            client.send_signal(signal.SIGSTOP)
            self._later(STOPPED_S, lambda: client.send_signal(signal.SIGCONT))
        elif job.fate == "freeze":
            if not is_there():
                return
            self.was_stopped.add(job.label)
            self._later(FROZEN_S, Freezer(client.pid, f"{self.world.name[1:]}-{job.label}").thaw)
        else:
            client.send_signal(signal.SIGKILL if job.fate == "kill" else signal.Signals[job.fate])
        self._count(f"{job.fate}, a script" if job.way in SOURCED else job.fate)

    def _weather(self) -> None:
        """Once in a while something happens to the pool itself."""
        chance = self.dice.random()
        if chance < 0.01:
            self._reset()
        elif chance < 0.02 and self.begun:
            ticket = str(self.dice.choice([ticket for _, ticket, _ in self.begun.values()]))
            self._reset(ticket)
        elif chance < 0.04:
            self._set_capacity(self.dice.randint(2, self.slots + 1))
            self._count("N changed")
        elif chance < 0.05:
            self._ipclock("drain", "--for", "0.5")
            self._count("drain")
        elif chance < 0.07:
            self.world.post()
            self._count("stranger's post")
        elif chance < 0.09 and self.removals:
            self._remove()

    def _remove(self) -> None:
        """Remove the pool's place, and perhaps the folder of which it tells, under all who use it."""
        found = place.look(self.world.name[1:])
        if found and found.inside:
            os.unlink(place.path_of(self.world.name[1:]))
        if found and (found.inside is None or self.dice.random() < 0.5):
            shutil.rmtree(found.path, ignore_errors=True)
        self._count("removal")
        if self.dice.random() < 0.3:
            self._reset()

    def _reset(self, *ticket: str) -> None:
        told = self._ipclock("reset", *ticket)
        self.evicted.update(EVICTED.findall(told))
        self.forgotten.update(int(pid) for listed in FORGOTTEN.findall(told) for pid in listed.split(","))
        self._count("reset")

    def _set_capacity(self, capacity: int) -> None:
        # in force at some moment of the call: both count until it is over
        self.capacities.append((time.monotonic(), max(capacity, self.capacities[-1][1])))
        self._init(capacity)
        self.capacities.append((time.monotonic(), capacity))

    def _init(self, capacity: int) -> None:
        if self.settings:
            self.settings.write_text(f"MAX_PARALLEL_BUILDS={capacity}\n")
            self.world.env["IPCLOCK_CONFIG"] = str(self.settings)
        self._ipclock("init", *([] if self.settings else ["--max-parallel-builds", str(capacity)]))

    def _ipclock(self, *arguments: str) -> str:
        return self.world.run(*arguments).stderr

    def _count(self, what: str) -> None:
        self.happened[what] = self.happened.get(what, 0) + 1

    # What is seen.

    def _turn(self) -> None:
        while self.timers and self.timers[0][0] <= time.monotonic():
            heapq.heappop(self.timers)[2]()
        self._look()
        for label, client in list(self.clients.items()):
            if (status := client.poll()) is not None:
                del self.clients[label]
                early = self.jobs[label].fate == "SIGINT" and label not in self.begun
                # Python itself may be interrupted before any line of ours runs
                # and between `init` and `acquire` of the library its file may be removed with the pool
                sane = status in SANE or (status == 1 and early) or (status == 2 and self.removals)
                key = str(status) if sane else f"{status}!"
                self.ended[key] = self.ended.get(key, 0) + 1
        time.sleep(LOOK_S)

    def _living(self) -> list[str]:
        with open("/proc/locks") as file:
            inodes = {int(inode) for inode in LOCK.findall(file.read())}
        for path in self.witness.iterdir() if inodes - self.inodes.keys() else []:
            self.inodes[path.stat().st_ino] = path.name
        return [self.inodes[inode] for inode in inodes if inode in self.inodes]

    def _look(self) -> None:
        living = self._living()
        now = time.monotonic()
        with self.log.open() as file:
            file.seek(self._read)
            for line in file.read().splitlines():
                label, ticket, pid = line.split()
                self.begun[label] = (now, int(ticket), int(pid))
                job = self.jobs[label]
                if job.fate and job.way in SOURCED:
                    self._later(job.after, partial(self._befall, job))
            self._read = file.tell()
        self.looks += 1
        counted = [label for label in living if label in self.begun and not self._is_evicted(label)]
        if not counted:
            return
        used = sum(self.jobs[label].slots for label in counted)
        last = max(counted, key=lambda label: self.begun[label][0])
        bound = self._bound(last)
        self.worst = max(self.worst, (used, bound), key=lambda pair: (pair[0] - pair[1], pair[0]))
        if used > bound:
            self.violations.append(f"{used} slots of {bound}: {sorted(counted)}")

    def _is_evicted(self, label: str) -> bool:
        # a build of a removed folder is named by its processes alone
        return label in self.evicted or self.begun[label][2] in self.forgotten

    def _bound(self, label: str) -> int:
        """Return the highest N that was in force when the build can have been admitted."""
        at = self.begun[label][0]
        since = self.started[label] if label in self.was_stopped else max(self.started[label], at - GRACE_S)
        before = [capacity for when, capacity in self.capacities if when <= since][-1:]
        return max(before + [capacity for when, capacity in self.capacities if since < when <= at])

    def _inversions(self, jobs: list[Job]) -> int:
        """Count the pairs of undisturbed plain builds that began more than GRACE_S in the wrong order."""
        plain = {job.label for job in jobs if not (job.fate or job.options) and job.way == "wrap"} - self.evicted
        order = sorted((ticket, at) for label, (at, ticket, _) in self.begun.items() if label in plain)
        return sum(late < early - GRACE_S for place, (_, early) in enumerate(order) for _, late in order[place + 1 :])
