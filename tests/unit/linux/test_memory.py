"""What memory is left and used, and who was killed for want of it: on real processes in real memory cgroups.

The layouts that the machine at hand does not have lie in a folder, as the kernel shows them.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from ipclock.linux import memory, process
from ipclock.linux.memory import OomWatch, Peak
from tests.helpers.crash_at import USER, become, child, in_child, sysctl
from tests.helpers.world import until

if TYPE_CHECKING:
    from collections.abc import Iterator

MIB = 1 << 20
NO_LIMIT = 9223372036854771712  # as version 1 writes it
HYBRID = """\
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
36 31 0:33 / /sys/fs/cgroup/cpu rw,relatime shared:10 - cgroup cgroup rw,cpu
35 31 0:32 / /sys/fs/cgroup/memory rw,relatime shared:9 - cgroup cgroup rw,memory
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime shared:11 - cgroup2 cgroup2 rw
"""
UNIFIED = "35 23 0:30 {branch} /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n"


class Kernel:
    """A folder with files as the kernel shows them, in place of `/`."""

    def __init__(self, path: Path, groups: str, mounts: str, available: int = 8000) -> None:
        self.root = str(path)
        self.path = path
        self.write("/proc/meminfo", f"MemTotal:  {16000 * 1024} kB\nMemAvailable:  {available * 1024} kB\n")
        self.write("/proc/self/cgroup", groups)
        self.write("/proc/self/mountinfo", mounts)

    def write(self, path: str, text: str) -> None:
        """Write a file; its folder is made."""
        file = self.path / path.lstrip("/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(os.fsencode(text))

    def group(self, folder: str, limit: int | None, used: int, cache: int = 0, kills: int = 0) -> None:
        """Make a cgroup of version 2; sizes in MiB."""
        self.write(f"{folder}/memory.max", "max\n" if limit is None else f"{limit * MIB}\n")
        self.write(f"{folder}/memory.current", f"{used * MIB}\n")
        self.write(f"{folder}/memory.stat", f"anon 1\nfile 2\ninactive_file {cache * MIB}\nactive_file 4096\n")
        self.write(f"{folder}/memory.events", f"low 0\noom 7\noom_kill {kills}\noom_group_kill 0\n")

    def old_group(self, folder: str, limit: int | None, used: int, cache: int = 0, kills: int = 0) -> None:
        """Make a cgroup of version 1; sizes in MiB, the limit is the tightest of its own and its ancestors'."""
        bytes_ = NO_LIMIT if limit is None else limit * MIB
        self.write(f"{folder}/memory.usage_in_bytes", f"{used * MIB}\n")
        stat = f"inactive_file 1\nhierarchical_memory_limit {bytes_}\ntotal_inactive_file {cache * MIB}\n"
        self.write(f"{folder}/memory.stat", stat)
        self.write(f"{folder}/memory.oom_control", f"oom_kill_disable 0\nunder_oom 0\noom_kill {kills}\n")

    def measured(self) -> tuple[int, int]:
        """Return (available, total) in MiB."""
        return memory.available(self.root) // MIB, memory.total(self.root) // MIB


class Group:
    """A real memory cgroup with a limit."""

    def __init__(self, path: Path, limit: int) -> None:
        self.path = path
        path.mkdir()
        files = ("memory.limit_in_bytes", "memory.memsw.limit_in_bytes", "memory.max", "memory.swap.max")
        for name, value in zip(files, (limit, limit, limit, 0), strict=True):
            if (path / name).exists():
                (path / name).write_text(str(value))

    def enter(self) -> None:
        """Move this process in."""
        (self.path / "cgroup.procs").write_text(str(os.getpid()))

    def remove(self) -> None:
        """Remove the group, once the kernel has done with the processes that ended in it."""

        def removed() -> bool:
            try:
                self.path.rmdir()
            except OSError:
                return False
            return True

        until(removed, f"the end of {self.path}")


@contextmanager
def group(limit: int, above: Group | None = None) -> Iterator[Group]:
    """A memory cgroup of so many bytes; skips the test where none can be made."""
    top = above.path if above else next((path for path in map(Path, _tops()) if _serves(path)), None)
    if top is None:
        pytest.skip("no hierarchy of memory cgroups is mounted here")
    try:
        made = Group(top / f"ipclock-test-{os.getpid()}", limit)
    except OSError as error:
        pytest.skip(f"no memory cgroup can be made here: {error}")
    try:
        yield made
    finally:
        made.remove()


def _tops() -> list[str]:
    lines = [line.split() for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    return [line[4] for line in lines if "cgroup" in line or "cgroup2" in line]


def _serves(top: Path) -> bool:
    controlled = top / "cgroup.subtree_control"
    return (top / "memory.limit_in_bytes").exists() or (
        controlled.exists() and "memory" in controlled.read_text().split()
    )


def take(size: int) -> bytearray:
    """Return memory that is really there: every page of it has been written."""
    return bytearray(b"\1") * size


GROWN = """
import os, signal, sys
size, copies, apart = map(int, sys.argv[1:])
kept = [] if apart else bytearray(b"\\1") * size
for _ in range(copies):
    if os.fork() == 0:
        break
kept = kept or bytearray(b"\\1") * size
os.write(1, b"x")
signal.pause()
"""


@contextmanager
def grown(size: int, copies: int = 0, *, apart: bool = False) -> Iterator[int]:
    """A process of so many bytes, with children that share all of them or (*apart*) have as many each; yields its PID.

    A fresh program: what a fork shares with the growing process that runs the tests would count too.
    """
    command = [sys.executable, "-I", "-S", "-c", GROWN, str(size), str(copies), str(int(apart))]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as started:
        assert started.stdout
        try:
            assert started.stdout.read(1 + copies) == b"x" * (1 + copies)
            yield started.pid
        finally:
            for one in (*process.descendants_of(started.pid), started.pid):
                os.kill(one, signal.SIGKILL)


def kill_by_kernel(size: int = 512 * MIB) -> tuple[int, int]:
    """Take more than there may be, in a child; return its PID and how it ended."""
    pid = os.fork()
    if pid == 0:
        take(size)  # the kernel picks the largest: not the one that waits for it
        os._exit(0)
    return pid, os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


# What is left


def test_without_a_limit_the_machine_sets_it() -> None:
    fields = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
    whole = int(fields["MemTotal"].split()[0]) * 1024

    assert (0 < memory.available() <= memory.total() <= whole) is True


# a fresh program: what a fork copies of the process that runs the tests would count too
MEASURE = """
import os, sys
from ipclock.linux import memory
open(f"{sys.argv[1]}/cgroup.procs", "w").write(str(os.getpid()))
before = memory.available()
kept = bytearray(b"\\1") * int(sys.argv[2])
print(memory.total(), before, before - memory.available(), len(kept))
"""


def test_in_a_group_its_limit_is_the_total_and_what_it_uses_is_not_left() -> None:
    with group(256 * MIB) as own:
        program = [sys.executable, "-c", MEASURE, own.path, str(64 * MIB)]
        done = subprocess.run(program, capture_output=True, check=True)
    whole, before, used, kept = map(int, done.stdout.split())

    # the kernel counts in batches: a part of what was kept may have been counted before
    assert (whole, 192 * MIB < before <= 256 * MIB, abs(used - kept) < 16 * MIB) == (256 * MIB, True, True)


def test_a_file_that_is_only_cached_leaves_its_memory_to_builds() -> None:
    def measure() -> list[int]:
        own.enter()
        before = memory.available()
        with tempfile.NamedTemporaryFile(dir="/var/tmp") as file:  # /tmp may be a tmpfs, which no reclaim empties
            file.write(bytes(64 * MIB))
            os.fsync(file.fileno())
            return [before - memory.available(), charged()]

    def charged() -> int:
        usage = next(path for name in ("usage_in_bytes", "current") if (path := own.path / f"memory.{name}").exists())
        return int(usage.read_text())

    with group(256 * MIB) as own:
        lost, used = in_child(measure)

    assert (used > 64 * MIB, lost < 16 * MIB) == (True, True)


def test_a_tighter_group_further_up_counts() -> None:
    def measure(inner: Group) -> tuple[int, bool]:
        inner.enter()
        kept = take(16 * MIB)
        return memory.total(), memory.available() <= 128 * MIB - len(kept)

    with group(128 * MIB) as outer, group(256 * MIB, above=outer) as inner:
        assert in_child(lambda: measure(inner)) == (128 * MIB, True)


def test_of_version_2_the_tightest_group_around_us_counts_and_max_is_no_limit(tmp_path: Path) -> None:
    kernel = Kernel(tmp_path, "0::/user.slice/user-1000.slice/a.scope\n", UNIFIED.format(branch="/"))
    user = "/sys/fs/cgroup/user.slice"
    kernel.write("/sys/fs/cgroup/memory.stat", "inactive_file 1\n")  # the root has no limit, not even "max"
    kernel.group(user, limit=6000, used=5000, cache=300)
    kernel.group(f"{user}/user-1000.slice", limit=None, used=4000)
    kernel.group(f"{user}/user-1000.slice/a.scope", limit=4000, used=1000)

    assert kernel.measured() == (1300, 4000)


def test_a_group_that_is_over_its_limit_leaves_nothing(tmp_path: Path) -> None:
    kernel = Kernel(tmp_path, "0::/a\n", UNIFIED.format(branch="/"))
    kernel.group("/sys/fs/cgroup/a", limit=1000, used=1001)

    assert kernel.measured() == (0, 1000)


def test_a_wide_limit_does_not_hide_that_the_machine_is_full(tmp_path: Path) -> None:
    kernel = Kernel(tmp_path, "0::/a\n", UNIFIED.format(branch="/"), available=50)
    kernel.group("/sys/fs/cgroup/a", limit=90000, used=1)

    assert kernel.measured() == (50, 16000)


def test_of_a_container_only_its_branch_is_mounted(tmp_path: Path) -> None:
    branch = r"/system.slice/a\134x2db.service"  # a backslash and a blank, as mountinfo writes them
    mounts = UNIFIED.format(branch=branch).replace("/sys/fs/cgroup ", r"/sys/fs/c\040group ")
    kernel = Kernel(tmp_path, "0::/system.slice/a\\x2db.service/inner\n", mounts)
    kernel.group("/sys/fs/c group", limit=2000, used=500)
    kernel.group("/sys/fs/c group/inner", limit=None, used=400)

    assert kernel.measured() == (1500, 2000)


def test_a_branch_that_we_are_not_in_says_nothing_of_us(tmp_path: Path) -> None:
    kernel = Kernel(tmp_path, "0::/docker/17\n", UNIFIED.format(branch="/docker/1"))
    kernel.group("/sys/fs/cgroup", limit=1, used=1)
    kernel.group("/sys/fs/cgroup/7", limit=1, used=1)

    assert kernel.measured() == (8000, 16000)


def test_a_group_outside_our_namespace_is_not_looked_for(tmp_path: Path) -> None:
    kernel = Kernel(tmp_path, "0::/../b\n", UNIFIED.format(branch="/"))
    kernel.group("/sys/fs/b", limit=1, used=1)
    kernel.group("/sys/fs/cgroup/b", limit=1, used=1)

    assert kernel.measured() == (8000, 16000)


def test_of_two_mounts_the_one_that_shows_more_ancestors_counts(tmp_path: Path) -> None:
    narrow = UNIFIED.format(branch="/a").replace("/sys/fs/cgroup", "/sys/fs/own")
    hidden = UNIFIED.format(branch="/").replace("/sys/fs/cgroup", "/sys/fs/hidden")
    kernel = Kernel(tmp_path, "0::/a/b\n", hidden + narrow + UNIFIED.format(branch="/") + narrow)
    for folder in ("own/b", "cgroup/a/b"):
        kernel.group(f"/sys/fs/{folder}", limit=None, used=1)
    kernel.group("/sys/fs/cgroup/a", limit=3000, used=1000)

    assert kernel.measured() == (2000, 3000)


def test_of_version_1_the_tightest_group_counts_beside_an_empty_unified_mount(tmp_path: Path) -> None:
    kernel = Kernel(tmp_path, "9:name=systemd:/x\n4:cpu,memory:/a/b\n0::/\n", HYBRID)
    kernel.write("/sys/fs/cgroup/cpu/a/b/cpu.shares", "1024\n")
    kernel.old_group("/sys/fs/cgroup/memory", limit=None, used=9000)
    kernel.old_group("/sys/fs/cgroup/memory/a", limit=5000, used=4500, cache=200)
    kernel.old_group("/sys/fs/cgroup/memory/a/b", limit=5000, used=100)

    assert kernel.measured() == (700, 5000)


def test_of_version_1_a_limit_above_the_mounted_branch_counts(tmp_path: Path) -> None:
    mounts = HYBRID.replace("0:32 /", "0:32 /docker/17")
    kernel = Kernel(tmp_path, "4:memory:/docker/17\n0::/\n", mounts)
    kernel.old_group("/sys/fs/cgroup/memory", limit=3000, used=100)  # of /docker

    assert kernel.measured() == (2900, 3000)


def test_a_mount_with_a_strange_name_confuses_nobody(tmp_path: Path) -> None:
    strange = "77 23 0:99 / /home/user/a\rb\vc\u2028d\udcff rw,relatime - fuse.sshfs user@host: rw\n"
    kernel = Kernel(tmp_path, "0::/a\n", strange + UNIFIED.format(branch="/"))
    kernel.group("/sys/fs/cgroup/a", limit=3000, used=1000)

    assert kernel.measured() == (2000, 3000)


@pytest.mark.parametrize("missing", ["cgroup", "mountinfo"])
def test_what_cannot_be_found_out_sets_no_limit(tmp_path: Path, missing: str) -> None:
    kernel = Kernel(tmp_path, "0::/a\n", UNIFIED.format(branch="/"))
    kernel.group("/sys/fs/cgroup/a", limit=1, used=1)
    (tmp_path / "proc/self" / missing).unlink()

    assert kernel.measured() == (8000, 16000)


# Pressure


@pytest.mark.parametrize(("machine", "own", "expected"), [(2.5, 31.25, 31.25), (40.0, 1.0, 40.0), (7.0, None, 7.0)])
def test_the_higher_pressure_counts(tmp_path: Path, machine: float, own: float | None, expected: float) -> None:
    kernel = Kernel(tmp_path, "0::/a\n", UNIFIED.format(branch="/"))
    kernel.group("/sys/fs/cgroup/a", limit=None, used=1)
    text = "some avg10=99.00 avg60=0.00 avg300=0.00 total=9\nfull avg10={:.2f} avg60=98.00 avg300=0.00 total=8\n"
    kernel.write("/proc/pressure/memory", text.format(machine))
    if own is not None:
        kernel.write("/sys/fs/cgroup/a/memory.pressure", text.format(own))

    assert memory.pressure(kernel.root) == expected


def test_without_the_kernels_help_pressure_is_unknown(tmp_path: Path) -> None:
    kernel = Kernel(tmp_path, "0::/a\n", UNIFIED.format(branch="/"))

    assert memory.pressure(kernel.root) is None


def test_the_pressure_of_this_machine_is_a_share() -> None:
    if not Path("/proc/pressure/memory").exists():
        pytest.skip("this kernel tells no pressure")
    assert 0.0 <= (memory.pressure() or 0.0) <= 100.0


# What a build uses


def test_what_a_tree_shares_counts_once() -> None:
    with grown(64 * MIB, copies=3) as pid:
        found = memory.of_tree(pid)

    assert 64 * MIB <= found < 128 * MIB


def test_what_each_of_a_tree_has_for_itself_counts_in_full() -> None:
    with grown(32 * MIB, copies=3, apart=True) as pid:
        found = memory.of_tree(pid)

    assert 128 * MIB <= found < 192 * MIB


def test_of_a_process_that_we_may_not_look_into_its_size_is_known_all_the_same() -> None:
    with grown(64 * MIB) as pid:
        seen = [memory.of_tree(pid), in_child(lambda: memory.of_tree(pid), USER)]

    assert [64 * MIB <= size < 512 * MIB for size in seen] == [True, True]


def test_who_is_gone_or_a_zombie_uses_nothing() -> None:
    with child(lambda: None) as pid:
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        zombie = memory.of_tree(pid)

    assert (zombie, memory.of_tree(pid)) == (0, 0)


# The peak


def test_the_peak_stays_known_after_the_memory_is_given_back() -> None:
    reading, writing = os.pipe()
    heard, told = os.pipe()

    def run() -> None:
        kept = take(64 * MIB)
        os.write(writing, b"x")
        os.read(heard, 1)
        kept.clear()
        os.write(writing, b"x")
        signal.pause()

    with child(run) as pid:
        os.read(reading, 1)
        peak = Peak(pid)
        peak.sample()
        os.write(told, b"x")
        os.read(reading, 1)
        later = memory.of_tree(pid)

    for fd in (reading, writing, heard, told):
        os.close(fd)
    # the rest is a copy of what this process has
    assert (peak.bytes >= 64 * MIB, peak.bytes - later > 32 * MIB) == (True, True)


def test_a_later_and_higher_use_becomes_the_peak(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = iter([5, 9, 7, 8])
    seen: list[int] = []
    monkeypatch.setattr(memory, "of_tree", lambda pid: seen.append(next(sizes)) or seen[-1])
    peak = Peak(1)
    while len(seen) < 4:
        peak.sample()

    assert peak.bytes == 9


def test_a_build_that_was_never_seen_has_no_peak() -> None:
    with child() as pid:
        pass
    peak = Peak(pid)
    peak.sample()

    assert peak.bytes == 0


class Look:
    """A look at a tree that takes so many seconds of CPU time."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.count = 0

    def __call__(self, _pid: int) -> int:
        until_s = time.thread_time() + self.seconds
        while time.thread_time() < until_s:
            pass
        self.count += 1
        return 1


def test_after_an_expensive_look_many_asks_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    look = Look(0.3)  # the next one is due half a minute later
    monkeypatch.setattr(memory, "of_tree", look)
    peak = Peak(1)
    for _ in range(1000):
        peak.sample()

    assert look.count == 1


def test_a_look_comes_again_when_its_cost_has_been_made_up_for(monkeypatch: pytest.MonkeyPatch) -> None:
    look = Look(0.001)
    monkeypatch.setattr(memory, "of_tree", look)
    peak = Peak(1)

    until(lambda: peak.sample() or look.count == 5, "the fifth look")

    assert (look.count, peak.bytes) == (5, 1)


# Killed by the kernel


def watch_a_kill(own: Group, uid: int = 0) -> tuple[int, list[bool]]:
    """Return how a build that is killed ends, and what a watch as user *uid* says of it, and of another."""
    own.enter()
    become(uid)
    watch = OomWatch()
    before = watch.killed([os.getpid()])
    pid, how = kill_by_kernel()
    answers = [before, watch.killed({pid}), watch.killed({pid}), watch.killed({os.getpid()})]
    watch.close()
    return how, answers


def needs_the_first_namespace() -> None:
    """Skip the test where our PIDs are not those that the kernel's log names."""
    if process.is_contained():
        pytest.skip("the kernel's log names PIDs of another namespace")


def needs_the_log() -> None:
    """Skip the test where the kernel's log cannot be read."""
    try:
        Path("/dev/kmsg").open("rb").close()
    except OSError as error:
        pytest.skip(f"the kernel's log cannot be read: {error}")


def test_the_log_tells_whom_the_kernel_killed() -> None:
    needs_the_first_namespace()
    needs_the_log()
    with group(128 * MIB) as own:
        assert in_child(lambda: watch_a_kill(own)) == (-signal.SIGKILL, [False, True, True, False])


def test_without_the_log_a_counter_tells_that_somebody_was_killed() -> None:
    with sysctl("kernel/dmesg_restrict", 1), group(128 * MIB) as own:
        assert in_child(lambda: watch_a_kill(own, USER)) == (-signal.SIGKILL, [False, True, True, True])


def test_a_kill_before_the_watch_is_not_told() -> None:
    def kill_and_watch() -> tuple[int, bool]:
        own.enter()
        pid, how = kill_by_kernel()
        return how, OomWatch().killed({pid})

    with group(128 * MIB) as own:
        assert in_child(kill_and_watch) == (-signal.SIGKILL, False)


def test_a_kill_by_somebody_is_not_the_kernels() -> None:
    def kill_and_watch(uid: int) -> bool:
        own.enter()
        become(uid)
        watch = OomWatch()
        with child() as pid:
            pass
        return watch.killed({pid})

    with sysctl("kernel/dmesg_restrict", 1), group(128 * MIB) as own:
        assert [in_child(lambda uid=uid: kill_and_watch(uid)) for uid in (0, USER)] == [False, False]


@pytest.mark.parametrize(("folder", "expected"), [("/a", True), ("", True), ("/b", False)])
def test_of_version_2_a_counter_around_us_tells(tmp_path: Path, folder: str, expected: bool) -> None:
    kernel = Kernel(tmp_path, "0::/a\n", UNIFIED.format(branch="/"))
    for one in ("", "/a", "/b"):
        kernel.group(f"/sys/fs/cgroup{one}", limit=None, used=1, kills=3)
    watch = OomWatch(kernel.root)
    before = watch.killed({1})
    kernel.group(f"/sys/fs/cgroup{folder}", limit=None, used=1, kills=4)

    assert (before, watch.killed({1})) == (False, expected)


def test_of_version_1_a_counter_around_us_tells(tmp_path: Path) -> None:
    kernel = Kernel(tmp_path, "4:memory:/a\n0::/\n", HYBRID)
    kernel.old_group("/sys/fs/cgroup/memory/a", limit=None, used=1, kills=0)
    watch = OomWatch(kernel.root)
    kernel.old_group("/sys/fs/cgroup/memory/a", limit=None, used=1, kills=1)

    assert watch.killed({1}) is True


def test_without_log_and_counters_nobody_was_killed(tmp_path: Path) -> None:
    kernel = Kernel(tmp_path, "0::/\n", "")

    assert OomWatch(kernel.root).killed({1}) is False


LOG = """\
4,1,9000,-;python3 invoked oom-killer: gfp_mask=0xcc0(GFP_KERNEL), order=0, oom_score_adj=0
3,2,9001,-;Memory cgroup out of memory: Killed process 17 (Killed process 99) total-vm:118980kB, anon-rss:50688kB
12,3,9002,-;a program says: Killed process 18 (cc1plus)
6,4,9003,-;oom_reaper: reaped process 19 (cc1plus), now anon-rss:0kB, file-rss:0kB, shmem-rss:0kB
3,5,9004,-;Out of memory: Killed process 20 (c1 \\xea\\xb0\\x80) total-vm:118980kB
"""


def test_the_log_is_believed_for_the_kernels_own_words_only(tmp_path: Path) -> None:
    needs_the_first_namespace()
    kernel = Kernel(tmp_path, "0::/\n", "")
    kernel.write("/dev/kmsg", LOG.replace("17", "16"))
    watch = OomWatch(kernel.root)
    for line in LOG.splitlines():
        with (tmp_path / "dev/kmsg").open("a") as file:
            file.write(line + "\n")
        watch.killed(set())  # the kernel gives one record a read

    told = [pid for pid in range(1, 100) if watch.killed({pid})]
    watch.close()

    assert (told, watch.killed({20})) == ([17, 20], True)


def test_a_closed_watch_has_given_its_descriptor_back() -> None:
    before = os.listdir("/proc/self/fd")
    for _ in range(3):
        watch = OomWatch()
        watch.close()
        watch.close()

    assert len(os.listdir("/proc/self/fd")) == len(before)
