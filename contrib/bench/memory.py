"""Six builds that do not fit in memory together: how many the kernel kills, and how long they take.

    sudo .venv/bin/python contrib/bench/memory.py

In a cgroup of 1.5 GB six builds are started at once. Each grows to 400 MB in 3 s, keeps it for 2 s of CPU time, and
ends. They run without ipclock, with a fixed number of slots, and with six slots and MEMORY=auto, for which a single
build has run before. Prints a table in Markdown; takes about two minutes. Needs root and a hierarchy of memory
cgroups (version 1 or 2). Settings of ipclock in the environment apply, those in its file do not.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

MB = 1_000_000
LIMIT = 1500 * MB
SIZE = 400 * MB
GROW_S, WORK_S = 3.0, 2.0
BUILDS = 6
ENTER = 'echo $$ >"$0"/cgroup.procs && exec "$@"'


def build() -> None:
    """Be a build."""
    kept = []
    for _ in range(100):
        kept.append(b"\1" * (SIZE // 100))
        time.sleep(GROW_S / 100)
    end = time.process_time() + WORK_S
    while time.process_time() < end:
        pass


@contextmanager
def limited() -> Iterator[Path]:
    """A memory cgroup of LIMIT bytes, without swap; whoever is left in it is killed."""
    mounts = [line.split() for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    tops = [Path(fields[4]) for fields in mounts if fields[-3] in ("cgroup", "cgroup2")]
    problem = "none is mounted"
    for group in (top / f"ipclock-bench-{os.getpid()}" for top in tops):
        try:
            group.mkdir()
        except OSError as error:
            problem = str(error)
            continue
        try:
            if _limit(group):
                break
        except OSError as error:
            problem = str(error)
        group.rmdir()
    else:
        sys.exit(f"no cgroup can be given a limit of memory here: {problem}")
    try:
        yield group
    finally:
        while True:
            for pid in (group / "cgroup.procs").read_text().split():
                with suppress(ProcessLookupError):
                    os.kill(int(pid), signal.SIGKILL)
            try:
                group.rmdir()
                break
            except OSError:  # the kernel has not done with the last of them
                time.sleep(0.1)


def _limit(group: Path) -> bool:
    files = {"limit_in_bytes": LIMIT, "memsw.limit_in_bytes": LIMIT, "max": LIMIT, "swap.max": 0}
    found = {group / f"memory.{name}": value for name, value in files.items() if (group / f"memory.{name}").exists()}
    for file, value in found.items():
        file.write_text(str(value))
    return bool(found)


class Result(NamedTuple):
    """How many builds came to their end, how many were killed, and how long all took together, in seconds."""

    done: int
    killed: int
    seconds: float


def run(group: Path, settings: dict[str, str] | None, builds: int = BUILDS) -> Result:
    """Start the builds at once, in slots if there are *settings* for `ipclock wrap`, and wait for all."""
    wrap = [] if settings is None else [sys.executable, "-m", "ipclock", "wrap", "-q", "bench", "--"]
    command = ["sh", "-c", ENTER, str(group), *wrap, sys.executable, __file__, "build"]
    begun = time.monotonic()
    started = [subprocess.Popen(command, env={**os.environ, **(settings or {})}) for _ in range(builds)]
    codes = [one.wait() for one in started]
    return Result(codes.count(0), codes.count(-signal.SIGKILL), time.monotonic() - begun)


def row(how: str, result: Result) -> Result:
    """Print a row of the table."""
    print(f"| {how} | {result.killed} | {result.done} | {result.seconds:.1f} |", flush=True)
    return result


def measure(folder: str, name: str) -> None:
    """Run all, and print the table."""
    empty = Path(folder, "build-config.sh")
    empty.touch()
    common = {"SEMAPHORE_NAME": name, "LOCK_DIR": folder, "IPCLOCK_CONFIG": str(empty)}
    fixed = {**common, "MEMORY": "", "HISTORY": f"{folder}/fixed"}
    auto = {**common, "MEMORY": "auto", "HISTORY": f"{folder}/auto", "MAX_PARALLEL_BUILDS": str(BUILDS)}
    with limited() as group:
        print(f"| {BUILDS} builds at once | OOM-killed | done | seconds |\n|---|---|---|---|", flush=True)
        row("without ipclock", run(group, None))
        numbers = range(1, BUILDS + 1)
        results = [row(f"N={n}", run(group, {**fixed, "MAX_PARALLEL_BUILDS": str(n)})) for n in numbers]
        run(group, auto, builds=1)
        found = row(f"N={BUILDS}, MEMORY=auto", run(group, auto))
    best = min((result.seconds for result in results if result.done == BUILDS), default=None)
    if best is None or found.done < BUILDS:
        print(f"\nMEMORY=auto: {BUILDS - found.done} of {BUILDS} builds failed")
    else:
        print(f"\nMEMORY=auto takes {found.seconds / best:.2f} times as long as the best fixed N without a kill")


def main() -> None:
    """Measure in a pool of its own, and remove all traces of it."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C: tidy up
    name = f"ipclock-bench-{os.getpid()}"
    try:
        with tempfile.TemporaryDirectory() as folder:
            measure(folder, name)
    finally:
        for path in (*Path("/dev/shm").glob(f"sem.{name}*"), Path(f"/dev/shm/ipclock.{name}")):
            path.unlink(missing_ok=True)


if __name__ == "__main__":
    build() if sys.argv[1:] == ["build"] else main()
