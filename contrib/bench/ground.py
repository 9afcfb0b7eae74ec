"""Where the benchmark takes place: its folders, its programs, its processes. All of it is gone afterwards.

Only processes that were started here, or inherited our mark in their environment, are ever killed, by PID.
"""

from __future__ import annotations

import itertools
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from contrib.bench import observe, proc
from contrib.bench.peers import HERE, PEERS, environment

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from contrib.bench.peers import Peer

ROOT = HERE.parent.parent
SHM = Path("/dev/shm")
HANG_S = 120.0
AT_ONCE = 12  # how many of a crowd start at the same time
LOOKS, LOOK_S = 4, 0.02  # asleep in so many looks, so far apart: it waits
OURS = ("*.git", "*.venv", "*_cache", "build", "*.egg-info", "__pycache__", ".hypothesis")


class Hang(Exception):
    """Something did not come within its time."""


def until(probe: Callable[[], bool], what: str, seconds: float = HANG_S) -> None:
    """Return as soon as *probe* is true; raise Hang if it does not become so."""
    deadline = time.monotonic() + seconds
    while not probe():
        if time.monotonic() > deadline:
            raise Hang(f"waited {seconds:g} s in vain for: {what}")
        time.sleep(0.002)


class Client:
    """A process that we started, and reap. It reads nothing, what it writes is thrown away."""

    def __init__(self, command: list[str], settings: dict[str, str]) -> None:
        null = [(os.POSIX_SPAWN_OPEN, fd, os.devnull, os.O_RDWR, 0) for fd in range(3)]
        defaults = [signal.SIGPIPE, signal.SIGXFSZ]  # Python ignores them, a job must not
        self.over = False
        self.pid = os.posix_spawnp(command[0], command, settings, file_actions=null, setsid=True, setsigdef=defaults)

    def ended(self) -> bool:
        """Whether it has ended."""
        self.over = self.over or os.waitpid(self.pid, os.WNOHANG) != (0, 0)
        return self.over

    def wait(self) -> None:
        """Wait for its end."""
        wait_for_one([self])
        if not self.ended():
            raise Hang(f"a command did not end within {HANG_S:g} s")

    def kill(self) -> None:
        """Kill it. It is to be waited for: some peers take a zombie for a living process."""
        if not self.ended():
            os.kill(self.pid, signal.SIGKILL)


def wait_for_one(clients: list[Client]) -> None:
    """Sleep until one of them ends, or HANG_S is over."""
    watch = select.poll()
    with ExitStack() as stack:
        for client in clients:
            if client.over:
                return
            fd = os.pidfd_open(client.pid)
            stack.callback(os.close, fd)
            watch.register(fd, select.POLLIN)
        watch.poll(HANG_S * 1000)


class Lock:
    """A fresh lock of one peer with n slots, the jobs that run under it, and what the observer sees of them."""

    def __init__(self, ground: Ground, peer: Peer, n: int, name: str) -> None:
        self.peer, self.n, self.name = peer, n, name
        self.ground = ground
        self.folder = ground.shm / name
        self.folder.mkdir()
        self.home = ground.folder / name
        self.home.mkdir()
        self.log = self.home / "stamps"
        self.log.touch()
        self.clients: list[Client] = []
        self.daemons: list[int] = []
        self.fifos: dict[str, int] = {}
        self._places = ground.places | {"n": str(n), "folder": str(self.folder), "name": name, "home": str(self.home)}
        settings = environment(self._filled(peer.settings))
        self.settings = settings | {"HOME": str(self.home), "BENCH_MARK": name}

    def open(self) -> None:
        """Do what the peer asks to be done once beforehand."""
        self._run(self.peer.prepare)
        self.daemons = proc.marked(self.name)

    def _filled(self, template: str) -> str:
        return " ".join(word.format(**self._places) for word in template.split())

    def _run(self, template: str) -> None:
        if template:
            null = subprocess.DEVNULL
            command = self._filled(template).split()
            subprocess.run(
                command, env=self.settings, stdin=null, stdout=null, stderr=null, check=False, timeout=HANG_S
            )

    def start(self, *job: str) -> Client:
        """Start the peer around a job."""
        return self.start_bare(*self._filled(self.peer.command).split(), *job)

    def start_bare(self, *command: str) -> Client:
        """Start a command in the peer's environment."""
        client = Client(list(command), self.settings)
        self.clients.append(client)
        return client

    def job(self, name: str, span: str = "0") -> list[str]:
        """Return the job that stamps its begin and end under a name, and lasts so many ms or until a FIFO says so."""
        return [f"{self.ground.places['tools']}/stamp", str(self.log), name, span]

    def start_held(self, name: str) -> Client:
        """Start a job that lasts until `let_go`."""
        path = self.home / f"{name}.fifo"
        os.mkfifo(path)
        # with a reader of our own the job's open never blocks; with our end closed, by our death too, the job ends
        self.fifos[name] = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        return self.start(*self.job(name, str(path)))

    def let_go(self, name: str) -> None:
        """Let a held job end."""
        os.write(self.fifos[name], b"x")

    def let_all_go(self) -> None:
        """Let all held jobs end, and wait for them."""
        for name in self.fifos:
            self.let_go(name)
        for client in self.clients:
            client.wait()

    def spans(self) -> dict[str, observe.Span]:
        """Return what the jobs have stamped so far."""
        return observe.read(self.log)

    def until_begun(self, name: str, seconds: float = HANG_S) -> observe.Span:
        """Wait until a job runs."""
        until(lambda: name in self.spans(), f"{self.peer.name} to begin {name}", seconds)
        return self.spans()[name]

    def until_ended(self, name: str) -> int:
        """Wait until a job has stamped its end, and return when that was."""
        until(lambda: self.spans()[name].end is not None, f"{self.peer.name} to end {name}")
        return self.spans()[name].end or 0

    def killed(self, name: str, at: int) -> None:
        """Note for the observer that a job was killed, and when."""
        with self.log.open("a") as file:
            file.write(f"{name} end 0 {at}\n")

    def close(self) -> None:
        """End whatever still runs, and remove every trace of the lock."""
        for client in self.clients:
            client.kill()
        for fd in self.fifos.values():
            os.close(fd)
        self._run(self.peer.finish)
        for client in self.clients:
            client.wait()
        sweep(self.name)
        shutil.rmtree(self.folder)
        shutil.rmtree(self.home)


def until_waiting(clients: list[Client]) -> None:
    """Wait until each of them sleeps with all that it has started, seen so several times, or has ended."""
    seen = dict.fromkeys(clients, 0)
    deadline = time.monotonic() + HANG_S
    while seen:
        _count_sleepers(seen)
        if time.monotonic() > deadline:
            raise Hang(f"{len(seen)} processes did not come to rest within {HANG_S:g} s")
        time.sleep(LOOK_S)


def _count_sleepers(seen: dict[Client, int]) -> None:
    look = proc.Look()
    for client in list(seen):
        seen[client] = seen[client] + 1 if look.asleep(client.pid) else 0
        if seen[client] == LOOKS or client.ended():
            del seen[client]


def gather(start: Callable[[], Client], number: int) -> list[Client]:
    """Start a crowd, a few at a time, and wait until all wait."""
    crowd: list[Client] = []
    seen: dict[Client, int] = {}
    deadline = time.monotonic() + 3 * HANG_S
    while len(crowd) < number or seen:
        while len(crowd) < number and len(seen) < AT_ONCE:
            crowd.append(start())
            seen[crowd[-1]] = 0
        _count_sleepers(seen)
        if time.monotonic() > deadline:
            raise Hang(f"a crowd of {number} did not gather within {3 * HANG_S:g} s")
        time.sleep(LOOK_S)
    return crowd


def sweep(mark: str) -> None:
    """Kill the processes and remove the semaphores and places whose mark begins so: what no lock knows of any more."""
    until(lambda: not _kill_marked(mark), f"the end of what carries the mark {mark}")
    for path in [*SHM.glob(f"sem.{mark}*"), *SHM.glob(f"ipclock.{mark}*")]:
        path.unlink(missing_ok=True)


def _kill_marked(mark: str) -> list[int]:
    pids = proc.marked(mark)
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    return [pid for pid in pids if pid in proc.marked(mark)]


class Ground:
    """The folders and programs of one benchmark."""

    def __init__(self, python: str | None) -> None:
        self.stack = ExitStack()
        self.name = f"ipclock-bench-{os.getpid()}-"
        self._numbers = itertools.count(1)
        self.folder = Path(self.stack.enter_context(tempfile.TemporaryDirectory(prefix=self.name)))
        self.shm = Path(self.stack.enter_context(tempfile.TemporaryDirectory(prefix=self.name, dir=SHM)))
        self.places = {"tools": str(self.folder), "scripts": str(HERE / "scripts"), "home": str(self.folder)}
        try:
            self._compile()
            self.places["python"] = python or self._install()
            self.places["bin"] = str(Path(self.places["python"]).parent)
        except BaseException:
            self.close()
            raise

    def _compile(self) -> None:
        for name in ("stamp", "floor"):
            target, source = str(self.folder / name), str(HERE / f"{name}.c")
            subprocess.run(["cc", "-O2", "-Wall", "-o", target, source, "-pthread"], check=True)

    def _install(self) -> str:
        """Install this checkout, as a user would, and the peers that PyPI has; return the Python there."""
        source, venv = self.folder / "source", self.folder / "venv"
        shutil.copytree(ROOT, source, ignore=shutil.ignore_patterns(*OURS))
        subprocess.run([sys.executable, "-m", "venv", "--upgrade-deps", venv], check=True)
        pip = [str(venv / "bin/python"), "-m", "pip", "install", "-q", "--disable-pip-version-check"]
        subprocess.run([*pip, str(source)], check=True)
        for peer in PEERS:
            if peer.pypi and peer.pypi != "ipclock":
                subprocess.run([*pip, peer.pypi], check=False)
        return pip[0]

    @contextmanager
    def lock(self, peer: Peer, n: int) -> Iterator[Lock]:
        """A lock that nobody else uses, for as long as the block lasts."""
        lock = Lock(self, peer, n, f"{self.name}{next(self._numbers):05}")
        try:
            lock.open()
            yield lock
        finally:
            lock.close()

    def close(self) -> None:
        """Remove the folders, and whatever is left of a lock that was not closed to its end."""
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        sweep(self.name)
        self.stack.close()
