"""Memory: what is left for one more build, what a build uses, whether the kernel killed it for want of memory.

Measures only, and decides nothing. Sizes are in bytes. Knows both versions of cgroups(7), also where only a part of
their hierarchy is mounted, as in containers; what cannot be found out sets no limit. *root* is where `/` lies.
"""

from __future__ import annotations

import os
import time
from contextlib import suppress
from itertools import accumulate

from ipclock._typing import TYPE_CHECKING
from ipclock.linux import process, procfs

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

KIB = 1024
LOG_RECORD_BYTES = 8192  # of /dev/kmsg: none is longer, and a read gets one
LOWEST_KERNEL_LEVEL = 7  # above: written into the log by a program
SHARE = 100  # of its own cost: how long a measuring of a build's peak makes the next one wait

_V1, _V2 = "cgroup", "cgroup2"  # as mountinfo names their file systems


def _only_number(path: str) -> int:
    return int(procfs.lines(path)[0])


def available(root: str = "") -> int:
    """Return how many bytes one more build may take before the kernel has to swap or kill.

    MemAvailable of proc_meminfo(5), or the headroom of the tightest memory cgroup around us where that is less: its
    limit without what is charged to it, of which the inactive file cache would be reclaimed first (cgroups(7),
    "Memory" in cgroup-v2.rst). Raises OSError where there is no /proc/meminfo.
    """
    left = procfs.numbers(f"{root}/proc/meminfo")["MemAvailable"] * KIB
    return max(0, min([left, *(headroom for _, headroom in _limits(root))]))


def total(root: str = "") -> int:
    """Return how many bytes all builds together could ever have: MemTotal, or the tightest limit around us.

    Raises OSError where there is no /proc/meminfo.
    """
    whole = procfs.numbers(f"{root}/proc/meminfo")["MemTotal"] * KIB
    return min([whole, *(limit for limit, _ in _limits(root))])


def pressure(root: str = "") -> float | None:
    """Return for how many percent of the last ten seconds all that could run had to wait for memory.

    "full avg10" of the machine or of our cgroup, whichever is higher (accounting/psi.rst); None without PSI.
    """
    files = [f"{root}/proc/pressure/memory", *(f"{directory}/memory.pressure" for directory in _levels(root, _V2)[:1])]
    found = []
    for path in files:
        with suppress(OSError, KeyError):  # a kernel without PSI, or one that was started with psi=0
            found.append(float(procfs.fields(path)["full"][0].removeprefix("avg10=")))
    return max(found, default=None)


def _limits(root: str) -> Iterator[tuple[int, int]]:
    """Yield the limit of each memory cgroup around us, and how much of it is left."""
    for directory in _levels(root, _V2):
        with suppress(OSError, ValueError):  # the root has no such file; "max" is no limit
            limit = _only_number(f"{directory}/memory.max")
            cache = procfs.numbers(f"{directory}/memory.stat")["inactive_file"]
            yield limit, limit - _only_number(f"{directory}/memory.current") + cache
    for directory in _levels(root, _V1):
        with suppress(OSError):
            fields = procfs.numbers(f"{directory}/memory.stat")
            # of limit_in_bytes here and above, where it is not mounted for us to see too
            limit = fields["hierarchical_memory_limit"]
            yield limit, limit - _only_number(f"{directory}/memory.usage_in_bytes") + fields["total_inactive_file"]


def _levels(root: str, version: str) -> list[str]:
    """Return the directories of our (memory) cgroup of that version and of its ancestors, itself first.

    As far as they are mounted where we see them: a mount may show only a branch of the hierarchy.
    """
    controller = "memory" if version == _V1 else ""
    found: list[list[str]] = [[]]
    with suppress(OSError):
        for line in procfs.lines(f"{root}/proc/self/cgroup"):
            _, controllers, path = line.split(":", 2)
            # a path with ".." leads out of our cgroup namespace, to where no mount shows it
            if controller in controllers.split(",") and ".." not in path.split("/"):
                found += [
                    list(accumulate(filter(None, path.removeprefix(branch).split("/")), "{}/{}".format, initial=top))
                    for branch, top in _mounts(root, version)
                    if f"{path}/".startswith(f"{branch}/")
                ]
    # another mount may hide one of these
    return max(
        (directories[::-1] for directories in found if not directories or os.path.isdir(directories[-1])), key=len
    )


def _mounts(root: str, version: str) -> Iterator[tuple[str, str]]:
    """Yield (branch, mount point) of each mount of the hierarchy (proc_pid_mountinfo(5)); "" is the whole of it."""
    for mount in procfs.mounts(f"{root}/proc/self/mountinfo"):
        if mount.kind == version and (version == _V2 or "memory" in mount.options):
            yield mount.source[1].rstrip("/"), root + mount.path


def of_tree(pid: int) -> int:
    """Return how many bytes a process and all its descendants use now; 0 where there is none.

    Pages that several share are counted once, in parts: PSS of smaps_rollup (proc_pid_smaps(5)). Of a process that
    we may not look into, RSS of statm. Its cost grows with the memory: the kernel walks through all pages.
    """
    return sum(map(_of, (pid, *process.descendants_of(pid))))


def _of(pid: int) -> int:
    with suppress(OSError, KeyError):  # not ours to see; a zombie
        return procfs.numbers(f"{procfs.at(pid)}/smaps_rollup")["Pss"] * KIB
    with suppress(OSError):  # gone meanwhile
        return int(procfs.text(f"{procfs.at(pid)}/statm").split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return 0


def high_water(pid: int | str) -> int:
    """Return the most bytes that a process has had resident since its program was started; 0 where there is none.

    VmHWM of proc_pid_status(5): unlike the ru_maxrss of its rusage it does not count what was there before execve(2).
    """
    with suppress(OSError, KeyError):  # gone meanwhile; a zombie
        return procfs.numbers(f"{procfs.at(pid)}/status")["VmHWM"] * KIB
    return 0


class Peak:
    """Follows how much memory a process and its descendants use at most: `bytes` is the most ever seen, 0 if none.

    What comes and goes between two samples is missed. May be asked as often as one likes: it takes about 1 % of a
    core at most.
    """

    def __init__(self, pid: int) -> None:
        self.bytes = 0
        self._pid = pid
        self._next = 0.0

    def sample(self) -> None:
        """Look at the processes now, unless the last look was so expensive that it is too early."""
        if time.monotonic() < self._next:
            return
        begun = time.thread_time()
        self.bytes = max(self.bytes, of_tree(self._pid))
        self._next = time.monotonic() + SHARE * (time.thread_time() - begun)


class OomWatch:
    """Knows which processes the kernel's out-of-memory killer has killed since the watch began.

    The kernel's log names the victims. Where it may not be read (kernel.dmesg_restrict; another PID namespace), the
    `oom_kill` counters of our memory cgroup and its ancestors tell only that one was killed.
    """

    def __init__(self, root: str = "") -> None:
        self._root = root
        self._counted = _kills(root)
        self._victims: set[int] = set()
        self._log = _open_log(root)
        self._complete = self._log is not None

    def killed(self, pids: Collection[int]) -> bool:
        """Return whether one of the processes was killed for want of memory since the watch began.

        By counters alone: whether any process was, in one of those cgroups or (version 2) below them. False where
        there are no counters either.
        """
        if self._log is not None:
            self._read_log(self._log)
        if not self._victims.isdisjoint(pids):
            return True
        now = {} if self._complete else _kills(self._root)
        return any(count > self._counted.get(path, count) for path, count in now.items())

    def close(self) -> None:
        """Give the kernel's log back; what it told so far stays known."""
        if self._log is not None:
            os.close(self._log)
            self._log = None

    def _read_log(self, log: int) -> None:
        while True:
            try:
                record = os.read(log, LOG_RECORD_BYTES)
            except BlockingIOError:
                return
            except BrokenPipeError:  # records were overwritten before we came; the next read goes on behind them
                self._complete = False
                continue
            if not record:
                return
            # "4,1024,9000,-;Memory cgroup out of memory: Killed process 17 (cc1plus) total-vm:…"
            level, _, text = record.decode(errors="replace").partition(",")
            _, found, victim = text.partition("Killed process ")
            if found and int(level) <= LOWEST_KERNEL_LEVEL:
                self._victims.add(int(victim.split()[0]))


def _open_log(root: str) -> int | None:
    """Open the kernel's log at its end; None where that is not allowed, or its PIDs are not ours."""
    if process.is_contained():
        return None
    try:
        log = os.open(f"{root}/dev/kmsg", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        os.lseek(log, 0, os.SEEK_END)
    except OSError:
        return None
    return log


def _kills(root: str) -> dict[str, int]:
    """Return how many processes the killer has taken in each memory cgroup around us, by its file."""
    files = [f"{directory}/memory.events" for directory in _levels(root, _V2)]
    files += [f"{directory}/memory.oom_control" for directory in _levels(root, _V1)]
    found = {}
    for path in files:
        with suppress(OSError, KeyError):  # the root has none; an older kernel does not count
            found[path] = procfs.numbers(path)["oom_kill"]
    return found
