"""Who builds, by what the kernel and the builds themselves say, and whether that is more than N.

Uses nothing of ipclock. Each build stamps its begin with O_APPEND and has a flock(2) on a file of its own;
/proc/locks tells, in one reading, which builds live. The rule: the slots of all that live, without those that a reset
named as evicted, are no more than the N in force when the last of them was admitted. That is within GRACE_S before its
stamp, or since its start for a client that was stopped. Builds that began under a higher N are never stopped, so an
older N may only be exceeded by nobody admitted since.
"""

from __future__ import annotations

import os
import re
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from tests.helpers.world import let_everybody_in

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tests.storm.plan import Job

GRACE_S = 3.0
LOCK = re.compile(r"FLOCK +ADVISORY +WRITE +\d+ +[0-9a-f]+:[0-9a-f]+:(\d+) ")
EVICTED = re.compile(r"ipclock: (job-\d+) \(PID: ")
FORGOTTEN = re.compile(r"\(PIDs: ([\d, ]+)\): forgotten")


class Observer:
    """What is seen of a storm."""

    def __init__(self, folder: Path, slots: int) -> None:
        self.witness = folder / "witness"
        self.witness.mkdir()
        self.log = folder / "witness.log"
        self.log.touch()
        self.jobs: dict[str, Job] = {}
        self.started: dict[str, float] = {}
        self.begun: dict[str, tuple[float, int, int]] = {}
        self.was_stopped: set[str] = set()
        self.evicted: set[str] = set()
        self.forgotten: set[int] = set()
        self.capacities = [(0.0, slots)]
        self.violations: list[str] = []
        self.worst = (0, slots)
        self.looks = 0
        self._inodes: dict[int, str] = {}
        self._read = 0

    def let_users_in(self) -> None:
        """Let builds of other users write what it sees."""
        let_everybody_in(self.witness.parent)
        self.witness.chmod(0o777)
        self.log.chmod(0o666)

    # What it is told.

    def starts(self, job: Job) -> None:
        """A client is started now."""
        self.jobs[job.label] = job
        self.started[job.label] = time.monotonic()

    def heard(self, reset: str) -> None:
        """A reset has named whose slots it took."""
        self.evicted.update(EVICTED.findall(reset))
        self.forgotten.update(int(pid) for listed in FORGOTTEN.findall(reset) for pid in listed.split(","))

    def changes(self, capacity: int) -> None:
        """N is going to be another one: in force at some moment until `changed`, so the higher one counts till then."""
        self.capacities.append((time.monotonic(), max(capacity, self.capacities[-1][1])))

    def changed(self, capacity: int) -> None:
        """N is another one."""
        self.capacities.append((time.monotonic(), capacity))

    # What it sees.

    def living(self) -> list[str]:
        """Return the labels of the builds that live, of those that have been seen to begin."""
        return self._named(_locked())

    def look(self) -> list[str]:
        """Judge the builds that live, and return the labels of those that have begun since the last look."""
        locked = _locked()
        new = list(self._stamps())
        self.looks += 1
        counted = [label for label in self._named(locked) if not self._is_evicted(label)]
        if counted:
            self._judge(counted)
        return new

    def inversions(self, jobs: list[Job]) -> int:
        """Count the pairs of undisturbed plain builds that began more than GRACE_S in the wrong order."""
        plain = {job.label for job in jobs if not (job.fate or job.options) and job.way == "wrap"} - self.evicted
        order = sorted((ticket, at) for label, (at, ticket, _) in self.begun.items() if label in plain)
        return sum(late < early - GRACE_S for place, (_, early) in enumerate(order) for _, late in order[place + 1 :])

    def _stamps(self) -> Iterable[str]:
        now = time.monotonic()
        with self.log.open() as file:
            file.seek(self._read)
            for line in file.read().splitlines():
                label, ticket, pid = line.split()
                inside = "PIDs" in self.jobs[label].namespace
                self.begun[label] = (now, int(ticket), self._outside(label, pid) if inside else int(pid))
                # not by a listing of all: whatever else is locked on the machine would have it listed at each look
                self._inodes[(self.witness / label).stat().st_ino] = label
                yield label
            self._read = file.tell()

    def _named(self, locked: set[int]) -> list[str]:
        return [self._inodes[inode] for inode in locked if inode in self._inodes]

    def _outside(self, label: str, pid: str) -> int:
        """Return the PID that a build of another PID namespace has here; 0 if it has ended."""
        file = str(self.witness / label)
        for name in filter(str.isdigit, os.listdir("/proc")):
            with suppress(OSError):
                # the build has it open by this number; a child that is about to close it may too
                if os.readlink(f"/proc/{name}/fd/9") == file and _innermost(name) == pid:
                    return int(name)
        return 0

    def _judge(self, counted: list[str]) -> None:
        used = sum(self.jobs[label].slots for label in counted)
        bound = self._bound(max(counted, key=lambda label: self.begun[label][0]))
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


def _locked() -> set[int]:
    """Return the inodes of all files of which somebody has a lock for writing by flock(2)."""
    with open("/proc/locks") as file:
        return {int(inode) for inode in LOCK.findall(file.read())}


def _innermost(pid: str) -> str:
    rows = [row.split() for row in Path(f"/proc/{pid}/status").read_text().splitlines()]
    return next(row[-1] for row in rows if row[:1] == ["NSpid:"])
