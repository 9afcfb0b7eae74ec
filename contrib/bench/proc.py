"""What /proc tells of processes: who descends from whom, who sleeps, what they use."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable

TICK_NS = 1_000_000_000 // os.sysconf("SC_CLK_TCK")
GONE = (FileNotFoundError, ProcessLookupError)


class Usage(NamedTuple):
    """CPU time in nanoseconds and how often woken, both since the start; memory in kB, shared pages by their share."""

    cpu_ns: int = 0
    wakeups: int = 0
    pss_kb: int = 0

    def since(self, before: Usage) -> Usage:
        """Return what was used between the two, and the memory of now."""
        return Usage(self.cpu_ns - before.cpu_ns, self.wakeups - before.wakeups, self.pss_kb)


class Look:
    """All processes of the machine as one reading of /proc found them."""

    def __init__(self) -> None:
        self.stats: dict[int, list[str]] = {}  # the fields of /proc/PID/stat from the third on
        self.children: dict[int, list[int]] = {}
        for name in os.listdir("/proc"):
            if name.isdecimal():
                with suppress(*GONE), open(f"/proc/{name}/stat") as file:
                    fields = file.read().rpartition(")")[2].split()
                    self.stats[int(name)] = fields
                    self.children.setdefault(int(fields[1]), []).append(int(name))

    def tree(self, pid: int) -> list[int]:
        """Return the process and all its descendants, parents first."""
        found = [pid]
        for parent in found:
            found += self.children.get(parent, [])
        return found

    def asleep(self, pid: int) -> bool:
        """Whether the process and all its descendants sleep, or have ended."""
        return all(self.stats[member][0] in "SZ" for member in self.tree(pid) if member in self.stats)

    def usage(self, pid: int) -> Usage:
        """Return what the process and its descendants have used so far, with children that they have reaped."""
        found = []
        for member in self.tree(pid):
            with suppress(*GONE):
                found.append(_usage(member, self.stats[member]))
        return total(found)


def total(usages: Iterable[Usage]) -> Usage:
    """Return what all use together."""
    columns = zip(*usages, strict=True)
    return Usage(*map(sum, columns))


def _usage(pid: int, stat: list[str]) -> Usage:
    cpu_ns = (int(stat[13]) + int(stat[14])) * TICK_NS  # cutime, cstime
    wakeups = 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        cpu_ns += int((task / "schedstat").read_text().split()[0])
        wakeups += int(_field(task / "status", "voluntary_ctxt_switches"))
    return Usage(cpu_ns, wakeups, int(_field(Path(f"/proc/{pid}/smaps_rollup"), "Pss")))


def available_kb() -> int:
    """Return how much memory the machine has to spare."""
    return int(_field(Path("/proc/meminfo"), "MemAvailable"))


def marked(mark: str) -> list[int]:
    """Return the processes that have `BENCH_MARK=mark...` in their environment: started with it, or heirs to it."""
    wanted = f"\0BENCH_MARK={mark}".encode()
    found = []
    for name in os.listdir("/proc"):
        with suppress(OSError):  # gone, or somebody else's
            if name.isdecimal() and wanted in b"\0" + Path(f"/proc/{name}/environ").read_bytes():
                found.append(int(name))
    return found


def _field(path: Path, key: str) -> str:
    for line in path.read_text().splitlines():
        name, _, value = line.partition(":")
        if name == key:
            return value.split()[0]
    raise FileNotFoundError(f"{path}: no {key}")  # as of a process that is just ending
