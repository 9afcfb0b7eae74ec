"""Many builds on one server while workers and server are frozen and killed at random, before an independent observer.

    python -m tests.zookeeper.chaos --seconds 300

The observer looks at the builds' processes every few milliseconds: never may more of the guarded ones live than there
are slots. A build is unguarded from the moment on in which all its processes are frozen together, as a paused machine
would be: nobody can end it then, so its token has to be refused.
"""

from __future__ import annotations

import argparse
import collections
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

from ipclock.linux import process
from tests.zookeeper import servers

POLL_S = 0.005
FAULTS = ("stop supervisor", "kill supervisor", "stop build", "freeze all", "stop server", "kill server")
WEIGHTS = (5, 4, 3, 4, 3, 1)


class Worker:
    """One `ipclock wrap` after the other."""

    def __init__(self, command: list[str], env: dict[str, str]) -> None:
        self.command = command
        self.env = env
        self.process = subprocess.Popen(command, env=env, stderr=subprocess.DEVNULL, start_new_session=True)
        self.thaw_at = 0.0
        self.frozen: list[int] = []

    def freeze(self, pids: list[int], seconds: float) -> None:
        """Stop processes of the worker for a while."""
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGSTOP)
        self.frozen, self.thaw_at = pids, time.monotonic() + seconds

    def thaw(self) -> None:
        """Let go on what was stopped, if it is time."""
        if self.frozen and time.monotonic() >= self.thaw_at:
            for pid in self.frozen:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGCONT)
            self.frozen = []


class Chaos:
    """The run: its server, its workers, and what the observer has seen."""

    def __init__(self, folder: Path, seed: int, workers: int, slots: int, session: float, pause: float) -> None:
        self.random = random.Random(seed)
        self.slots = slots
        self.pause = pause
        self.session = session
        self.log = folder / "started"
        self.log.touch()
        self.server = servers.Server(folder / "zookeeper").start()
        self.server_back_at = 0.0
        env = {key: os.environ[key] for key in ("PATH", "HOME") if key in os.environ}
        engine = f"zookeeper://{self.server.address}/chaos?session={session:g}"
        env |= {"ENGINE": engine, "HISTORY": "off", "MAX_PARALLEL_BUILDS": str(slots), "LANG": "C.UTF-8"}
        # every third one outlives any session: left behind, it would meet the next ones
        build = (
            f'echo "$$ $PPID $IPCLOCK_TOKEN" >> {self.log}; exec sleep $(($$ % 3 ? $$ % 3 - 1 : 12)).$(($$ % 90 + 10))'
        )
        wrap = [sys.executable, "-m", "ipclock", "wrap", "-q", "-w", "60", "chaos", "--", "sh", "-c", build]
        self.workers = [Worker(wrap, env | {"CHAOS_WORKER": str(number)}) for number in range(workers)]
        self.read = 0
        self.builds: dict[process.Identity, tuple[int, int]] = {}  # supervisor's PID, token
        self.unguarded: set[process.Identity] = set()
        self.seen = collections.Counter[str]()
        self.most = 0
        self.newest = 0

    def run(self, seconds: float) -> int:
        """Run for so long; return how many times too many builds were seen."""
        end = time.monotonic() + seconds
        fault_at = time.monotonic() + 3
        while time.monotonic() < end:
            self.observe()
            for worker in self.workers:
                worker.thaw()
                status = worker.process.poll()
                if status is not None:
                    self.seen[f"status {status}"] += 1
                    worker.__init__(worker.command, worker.env)  # type: ignore[misc]
            self.mend_server()
            if time.monotonic() >= fault_at:
                self.fault()
                fault_at = time.monotonic() + self.random.uniform(0.2, 2 * self.pause)
            time.sleep(POLL_S)
        return self.seen["TOO MANY"]

    def observe(self) -> None:
        """Take note of new builds, and count those that live."""
        with self.log.open() as log:
            log.seek(self.read)
            for line in iter(log.readline, ""):
                if not line.endswith("\n"):
                    break
                self.read += len(line)
                pid, parent, token = map(int, line.split())
                self.seen["builds"] += 1
                self.seen["started in another order than admitted, side by side"] += token < self.newest
                self.newest = max(self.newest, token)
                with suppress(OSError):
                    self.builds[process.identify(pid)] = parent, token
        for build in [build for build in self.builds if process.exists(build) is False]:
            del self.builds[build]
            self.unguarded.discard(build)
        guarded = [build for build in self.builds if build not in self.unguarded]
        self.most = max(self.most, len(guarded))
        self.seen["most, with the unguarded"] = max(self.seen["most, with the unguarded"], len(self.builds))
        if len(guarded) > self.slots:
            self.seen["TOO MANY"] += 1
            print("TOO MANY", [(build.pid, *self.builds[build]) for build in guarded], flush=True)

    def fault(self) -> None:
        """Do some harm."""
        kind = self.random.choices(FAULTS, WEIGHTS)[0]
        idle = [worker for worker in self.workers if not worker.frozen and worker.process.poll() is None]
        holders = {parent for parent, _token in self.builds.values()}
        idle = [worker for worker in idle if worker.process.pid in holders] or idle
        worker = self.random.choice(idle) if idle else None
        seconds = self.random.uniform(0.1, 2 * self.session)
        if "server" in kind:
            if self.server_back_at:
                return
            self.server_back_at = time.monotonic() + self.random.uniform(0.1, 0.8 * self.session)
            self.server.signal(signal.SIGSTOP) if kind == "stop server" else self.server.kill()
        elif worker is None:
            return
        elif kind == "kill supervisor":
            worker.process.kill()
        else:
            mine = {build: row for build, row in self.builds.items() if row[0] == worker.process.pid}
            if kind == "stop supervisor":
                worker.freeze([worker.process.pid], seconds)
            elif not mine:
                return
            elif kind == "stop build":
                worker.freeze([build.pid for build in mine], seconds)
            else:
                self.unguarded |= set(mine)
                worker.freeze([*self.watchdogs(worker), worker.process.pid, *(build.pid for build in mine)], seconds)
        self.seen[kind] += 1

    def watchdogs(self, worker: Worker) -> list[int]:
        """Return the watchdogs of a worker: those with its mark and command line that are not it."""
        mark = f"CHAOS_WORKER={worker.env['CHAOS_WORKER']}\0".encode()
        found = []
        for entry in Path("/proc").iterdir():
            with suppress(OSError):
                if entry.name.isdigit() and mark in (entry / "environ").read_bytes():
                    ours = b"\0wrap\0" in (entry / "cmdline").read_bytes()
                    found += [int(entry.name)] * (ours and int(entry.name) != worker.process.pid)
        return found

    def mend_server(self) -> None:
        """Bring the server back, if it is time."""
        if self.server_back_at and time.monotonic() >= self.server_back_at:
            self.server_back_at = 0.0
            assert self.server.process
            if self.server.process.poll() is None:
                self.server.signal(signal.SIGCONT)
            else:
                self.server.begin()

    def close(self) -> None:
        """End all of it."""
        for worker in self.workers:
            for pid in [*worker.frozen, worker.process.pid]:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            worker.process.wait()
        for build in self.builds:
            with suppress(OSError):
                process.send(build, signal.SIGKILL)
        self.server.kill()


def main() -> int:
    """Run, and print what was seen."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--seconds", type=float, default=300)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--workers", type=int, default=10)
    parser.add_argument("--slots", type=int, default=3)
    parser.add_argument("--session", type=float, default=6)
    parser.add_argument("--pause", type=float, default=0.8, help="mean time from one fault to the next")
    args = parser.parse_args()
    if reason := servers.missing():
        sys.exit(reason)
    with tempfile.TemporaryDirectory() as folder:
        chaos = Chaos(Path(folder), args.seed, args.workers, args.slots, args.session, args.pause)
        try:
            wrong = chaos.run(args.seconds)
        finally:
            chaos.close()
    for what, count in sorted(chaos.seen.items()):
        print(f"{count:7}  {what}")
    print(f"{chaos.most:7}  guarded builds at once, of {args.slots} slots; load {os.getloadavg()[0]:.1f}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
