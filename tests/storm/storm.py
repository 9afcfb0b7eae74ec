"""A storm: many real clients of one pool, of whom many are killed, stopped or interrupted, and an independent observer.

What happens to which job, and how long after its start, comes from the seed alone; when a process runs is the kernel's.
"""

from __future__ import annotations

import heapq
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from ipclock.pool import place
from tests.helpers.freezer import Freezer, is_there
from tests.helpers.world import HANG_S
from tests.storm.clients import SOURCED, TRAPPED, command
from tests.storm.observer import Observer
from tests.storm.strangers import GROUP, Stranger, run_loaded, users_ways

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.helpers.world import World
    from tests.storm.plan import Job

LOOK_S = 0.004
STOPPED_S = 0.8
FROZEN_S = 7.0  # longer than a waiter may be called without acting
IN_FLIGHT = 20
SANE = {0, 75, 76, 80, TRAPPED, *(-number for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM, signal.SIGKILL))}


class Report(NamedTuple):
    """What came of a storm. `worst` is the most slots in use at once beside the bound then; the rest are counts.

    `odd` has the clients that ended as none should, each with what it said.
    """

    ended: dict[str, int]
    odd: list[str]
    happened: dict[str, int]
    builds: int
    looks: int
    worst: tuple[int, int]
    violations: list[str]
    inversions: int
    left_over: tuple[int, dict[str, list[str]]]


class Storm:
    """The clients of one storm in a world of their own, and what happens to them."""

    def __init__(
        self,
        world: World,
        folder: Path,
        seed: int,
        slots: int,
        program: list[str] | None = None,
        *,
        removals: bool = False,
        fair: bool = False,
    ) -> None:
        self.world = world
        self.slots = slots
        self.removals = removals
        self.fair = fair
        # a pool that is made anew has its N from its maker's settings
        self.settings = folder / "build-config.sh" if removals else None
        self.shared = False
        self.lock_dirs = ["/dev/shm", str(folder / "one"), str(folder / "two")] if removals else ["/dev/shm"]
        self.program = program or [sys.executable, "-m", "ipclock"]
        self.dice = random.Random(seed)
        self.observer = Observer(folder, slots)
        self.clients: dict[str, subprocess.Popen[bytes] | Stranger] = {}
        self.frozen: dict[str, Freezer] = {}
        self.timers: list[tuple[float, int, Callable[[], None]]] = []
        self.ended: dict[str, int] = {}
        self.odd: list[str] = []
        self.cancels: list[subprocess.Popen[bytes]] = []
        logs = folder / "logs"
        logs.mkdir(0o700)
        world.env["LOG_DIR"] = str(logs)
        self.said = folder / "said"
        self.said.mkdir()
        self.happened: dict[str, int] = {}
        self._timer = 0

    def run(self, jobs: list[Job], seconds: float | None = None) -> Report:
        """Let the jobs come, at most IN_FLIGHT at a time, for so long at most, and report when all is over."""
        if any(job.uid is not None for job in jobs):
            self._share()
        self._init(self.slots)
        try:
            self._let_come(jobs, seconds)
        finally:
            for label in list(self.frozen):
                self._thaw(label)
            for client in self.clients.values():
                client.kill()
                client.wait()
        seen = self.observer
        return Report(
            self.ended,
            self.odd,
            self.happened,
            len(seen.begun),
            seen.looks,
            seen.worst,
            seen.violations,
            seen.inversions(jobs),
            self._pool().settled(),
        )

    def _let_come(self, jobs: list[Job], seconds: float | None) -> None:
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
        while self._is_busy() and time.monotonic() < over:
            self._turn()
        self._ipclock("resume")
        for draft in self._pool().records("new"):
            os.utime(self.world.folder / "new" / draft, (0, 0))  # of one that was killed: cleared away after a minute
        self._ipclock("init")

    def _share(self) -> None:
        """Let the two users use the pool and all that they need."""
        self.shared = True
        self.observer.let_users_in()
        for folder in self.lock_dirs[1:]:
            os.mkdir(folder)
            os.chmod(folder, 0o1777)

    def _is_busy(self) -> bool:
        return bool(self.cancels or self.observer.living() or self._pool().waiting() or self.world.records("holding"))

    def _pool(self) -> World:
        """Return the world, with the folder that is the pool's now."""
        if found := place.look_up(self.world.name[1:]):
            self.world.folder = Path(found.path)
        return self.world

    # What happens to the clients.

    def _start(self, job: Job) -> None:
        self.observer.starts(job)
        env = self.world.env | {"PYTHON": sys.executable, "LOCK_DIR": self.dice.choice(self.lock_dirs)}
        if self.fair:
            env |= {"FAIR": "session", "IPCLOCK_SESSION": job.label[-1]}
        line = command(job, self.observer.witness, self.program)
        with (self.said / job.label).open("wb") as said:
            self.clients[job.label] = self._client(job, line, env, said.fileno())
        if job.fate and job.way not in SOURCED:
            self._later(job.after, lambda: self._befall(job))

    def _client(self, job: Job, line: list[str], env: dict[str, str], said: int) -> subprocess.Popen[bytes] | Stranger:
        if not job.namespace and job.uid is None:
            null = subprocess.DEVNULL
            return subprocess.Popen(line, env=env, stdin=null, stdout=null, stderr=said)
        if job.namespace:
            self._count(f"own {job.namespace}")
        if job.uid is not None:
            self._count(f"of user {job.uid}")
        if job.uid is None or len(users_ways()) > 1:
            return Stranger(job.namespace, job.uid, said, lambda: os.execvpe(line[0], line, env))
        arguments = line[len(self.program) :]
        return Stranger(job.namespace, job.uid, said, lambda: run_loaded(arguments, env))

    def _later(self, seconds: float, action: Callable[[], None]) -> None:
        self._timer += 1
        heapq.heappush(self.timers, (time.monotonic() + seconds, self._timer, action))

    def _befall(self, job: Job) -> None:
        client = self.clients.get(job.label)
        if client is None or client.poll() is not None:
            return
        if job.fate == "kill build":
            pid = self.observer.begun[job.label][2] if job.label in self.observer.begun else 0
            if not pid:
                return
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        elif job.fate == "stop":
            self.observer.was_stopped.add(job.label)
            client.send_signal(signal.SIGSTOP)
            self._later(STOPPED_S, lambda: client.send_signal(signal.SIGCONT))
        elif job.fate == "freeze":
            if not is_there():
                return
            self.observer.was_stopped.add(job.label)
            try:
                self.frozen[job.label] = Freezer(client.pid, f"{self.world.name[1:]}-{job.label}")
            except ProcessLookupError:  # what it has left in its PID namespace goes on
                return
            self._later(FROZEN_S, lambda: self._thaw(job.label))
        else:
            client.send_signal(signal.SIGKILL if job.fate == "kill" else signal.Signals[job.fate])
        self._count(f"{job.fate}, a script" if job.way in SOURCED else job.fate)

    def _thaw(self, label: str) -> None:
        self.frozen.pop(label).thaw()

    def _turn(self) -> None:
        while self.timers and self.timers[0][0] <= time.monotonic():
            heapq.heappop(self.timers)[2]()
        self._look()
        for label, client in list(self.clients.items()):
            if (status := client.poll()) is not None:
                del self.clients[label]
                said = (self.said / label).read_text(errors="replace")
                (self.said / label).unlink()
                if not self._is_sane(status, self.observer.jobs[label], said):
                    self.odd.append(f"{label}: {status}: {said}")
                self.ended[str(status)] = self.ended.get(str(status), 0) + 1
        for cancel in [cancel for cancel in self.cancels if cancel.poll() is not None]:
            self.cancels.remove(cancel)
            said = cancel.communicate()[1].decode(errors="replace")
            if cancel.returncode not in (0, 2) and not (self.removals and cancel.returncode == 69):
                self.odd.append(f"cancel: {cancel.returncode}: {said}")
        time.sleep(LOOK_S)

    def _is_sane(self, status: int, job: Job, said: str) -> bool:
        # Python itself may be interrupted before any line of ours runs
        early = job.fate == "SIGINT" and "\nKeyboardInterrupt" in said and job.label not in self.observer.begun
        # between `init` and `acquire` of the library its file may be removed with the pool
        # and who may ask for which priority is not in the settings with which a pool is made anew
        refused = job.uid is not None and "-3" in job.options
        removed = self.removals and (status == 2 or (status == 77 and refused))
        too_large = status == 78 and job.slots > self.slots
        return status in SANE or (status == 1 and early) or removed or too_large

    def _look(self) -> None:
        for label in self.observer.look():
            job = self.observer.jobs[label]
            if job.fate and job.way in SOURCED:
                self._later(job.after, partial(self._befall, job))

    # What happens to the pool.

    def _weather(self) -> None:
        """Once in a while something happens to the pool itself."""
        chance = self.dice.random()
        if chance < 0.01:
            self._reset()
        elif chance < 0.02 and self.observer.begun:
            ticket = str(self.dice.choice([ticket for _, ticket, _ in self.observer.begun.values()]))
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
        elif chance < 0.10 and self.observer.begun:
            tickets = [ticket for _, ticket, _ in self.observer.begun.values()]
            self._cancel(str(self.dice.choice([*tickets[-IN_FLIGHT:], max(tickets) + 1, max(tickets) + 2])))
        elif chance < 0.12 and self.removals:
            self._remove()

    def _remove(self) -> None:
        """Remove the pool's place, and perhaps the folder of which it tells, under all who use it."""
        found = place.look_up(self.world.name[1:])
        if found and found.inside:
            os.unlink(place.path_of(self.world.name[1:]))
        if found and (found.inside is None or self.dice.random() < 0.5):
            shutil.rmtree(found.path, ignore_errors=True)
        self._count("removal")
        if self.dice.random() < 0.3:
            self._reset()

    def _reset(self, *ticket: str) -> None:
        self.observer.heard(self._ipclock("reset", *ticket))
        self._count("reset")

    def _cancel(self, ticket: str) -> None:
        line = [sys.executable, "-m", "ipclock", "cancel", "--grace", "0.3", ticket]
        self.cancels.append(subprocess.Popen(line, env=self.world.env, stderr=subprocess.PIPE))
        self._count("cancel")

    def _set_capacity(self, capacity: int) -> None:
        self.observer.changes(capacity)
        self._init(capacity)
        self.observer.changed(capacity)

    def _init(self, capacity: int) -> None:
        if self.settings:
            group = f"LOCK_GROUP={GROUP}\n" if self.shared else ""
            self.settings.write_text(f"MAX_PARALLEL_BUILDS={capacity}\n{group}")
            self.world.env["IPCLOCK_CONFIG"] = str(self.settings)
        shared = ["--mode", "0660", "--group", str(GROUP), "--priority-min", "-3"] if self.shared else []
        self._ipclock("init", *shared, *([] if self.settings else ["--max-parallel-builds", str(capacity)]))

    def _ipclock(self, *arguments: str) -> str:
        return self.world.run(*arguments).stderr

    def _count(self, what: str) -> None:
        self.happened[what] = self.happened.get(what, 0) + 1
