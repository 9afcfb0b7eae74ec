"""One pool of its own, real `ipclock` processes on it, and ways to wait for what they do."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import posix_ipc

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

T = TypeVar("T")
STUB = str(Path(__file__).with_name("stub_build.py"))
HANG_S = 30.0  # a guard against hangs, not an expectation
SHM = Path("/dev/shm")


def let_everybody_in(folder: Path) -> None:
    """Let other users reach a test's own folder, whose parents are the user's alone."""
    for path in (folder, *folder.parents):
        if path == Path(tempfile.gettempdir()):
            return
        path.chmod(0o755)


def script_of_nothing(folder: Path) -> Path:
    """Make a script whose interpreter is not there: it is found, and cannot be started."""
    script = folder / "script-of-nothing"
    script.write_text("#!/nonexistent/interpreter\n")
    script.chmod(0o755)
    return script


def until(probe: Callable[[], T], what: str, seconds: float = HANG_S) -> T:
    """Return the first true value of *probe*; fail by name when it does not come."""
    deadline = time.monotonic() + seconds
    while True:
        asked = time.monotonic()
        if value := probe():
            return value
        if asked > deadline:
            raise AssertionError(f"waited {seconds:g} s in vain for: {what}")
        # a probe that costs much leaves the processors to what is waited for
        select.select([], [], [], max(0.005, 2 * (time.monotonic() - asked)))


class Build:
    """A started `ipclock wrap` around the stub build, or around any other command."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.process = process
        self.pid = process.pid
        self.command_pid = 0
        self._unread = self._heard = b""

    def line(self, seconds: float = HANG_S) -> str:
        """Return the next line of the build's stdout."""
        assert self.process.stdout
        fd = self.process.stdout.fileno()
        deadline = time.monotonic() + seconds
        while b"\n" not in self._unread:
            ready, _, _ = select.select([fd], [], [], max(0.0, deadline - time.monotonic()))
            chunk = os.read(fd, 65536) if ready else b""
            if not chunk:
                raise AssertionError(f"no line from the build; so far {self._unread!r}, stderr {self.errors()!r}")
            self._unread += chunk
        line, _, self._unread = self._unread.partition(b"\n")
        return line.decode()

    def started(self) -> Build:
        """Wait until the stub build runs."""
        word, pid = self.line().split()
        assert word == "ready"
        self.command_pid = int(pid)
        return self

    def tell(self, text: str) -> None:
        """Give the stub build an order."""
        assert self.process.stdin
        self.process.stdin.write(text.encode() + b"\n")
        self.process.stdin.flush()

    def ask(self, text: str) -> str:
        """Give an order and return the line that answers it."""
        self.tell(text)
        return self.line()

    def end(self, status: int = 0) -> int:
        """Let the stub build exit, and return what `ipclock` exits with."""
        self.tell(f"exit {status}")
        return self.wait()

    def wait(self) -> int:
        """Return the exit status, -n for signal n."""
        return self.process.wait(HANG_S)

    def heard(self) -> str:
        """Return what was written to stderr so far."""
        assert self.process.stderr
        os.set_blocking(self.process.stderr.fileno(), False)
        self._heard += self.process.stderr.read() or b""
        return self._heard.decode()

    def errors(self) -> str:
        """Return what was written to stderr, once the process has ended."""
        if self.process.poll() is None:
            return "(still running)"
        assert self.process.stderr
        return self.process.stderr.read().decode()

    def signal(self, number: int) -> None:
        """Send a signal to `ipclock` itself."""
        os.kill(self.pid, number)

    def signal_at_rest(self, number: int) -> None:
        """Send a signal to a shell that waits for its child.

        bash sleeps on a signal that comes right after its fork, until the child has ended.
        """
        until(lambda: " (bash) S " in Path(f"/proc/{self.pid}/stat").read_text(), "a shell that waits")
        self.signal(number)


class World:
    """A pool named for one test, in the real /dev/shm."""

    def __init__(self, name: str) -> None:
        self.name = "/" + name
        self.python = sys.executable
        self.folder = SHM / f"ipclock.{name}"
        self.builds: list[Build] = []
        self.extra: list[int] = []
        kept = {"PATH", "HOME", "COVERAGE_PROCESS_START", "PYTHONPATH"}
        self.env = {key: value for key, value in os.environ.items() if key in kept}
        self.env |= {"SEMAPHORE_NAME": self.name, "XDG_CONFIG_HOME": "/nonexistent", "LANG": "C.UTF-8", "TERM": "dumb"}
        self.env |= {"HISTORY": "off"}

    def popen(self, *arguments: str, env: dict[str, str] | None = None, **options: Any) -> Build:
        """Start `ipclock` with *arguments*."""
        return self.spawn(sys.executable, "-m", "ipclock", *arguments, env=env, **options)

    def spawn(self, *command: str, env: dict[str, str] | None = None, **options: Any) -> Build:
        """Start any command in the pool's environment."""
        streams = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | options
        process = subprocess.Popen(command, env=self.env | (env or {}), **streams)
        build = Build(process)
        self.builds.append(build)
        return build

    def wrap(self, label: str = "staging", *options: str, stub: tuple[str, ...] = (), **more: Any) -> Build:
        """Start `ipclock wrap` around the stub build."""
        return self.popen("wrap", *options, label, "--", sys.executable, STUB, *stub, **more)

    def run(
        self, *arguments: str, env: dict[str, str] | None = None, **options: Any
    ) -> subprocess.CompletedProcess[str]:
        """Run `ipclock` to its end."""
        return subprocess.run(
            [sys.executable, "-m", "ipclock", *arguments],
            env=self.env | (env or {}),
            capture_output=True,
            text=True,
            timeout=HANG_S,
            check=False,
            **options,
        )

    def status(self) -> dict[str, Any]:
        """Return `ipclock status --json`, of a pool that is not there what a waiting test looks at."""
        before = self.folder.exists()
        result = self.run("status", "--json")
        if result.returncode == 69 and not (before and self.folder.exists()):
            return {"holders": [], "waiters": [], "drain": None}
        assert (result.returncode, result.stderr) == (0, "")
        parsed: dict[str, Any] = json.loads(result.stdout)
        return parsed

    def value(self) -> int:
        """Return the semaphore's value."""
        semaphore = posix_ipc.Semaphore(self.name)
        try:
            return int(semaphore.value)
        finally:
            semaphore.close()

    def post(self) -> None:
        """Post the semaphore as a stranger would."""
        semaphore = posix_ipc.Semaphore(self.name)
        semaphore.release()
        semaphore.close()

    def records(self, state: str) -> list[str]:
        """Return the names of the records in a state folder."""
        try:
            return sorted(path.name for path in (self.folder / state).iterdir())
        except FileNotFoundError:
            return []

    def waiting(self) -> int:
        """Return how many records lie in `queued/` and `gate/`."""
        return len(self.records("queued")) + len(self.records("gate"))

    def turns(self) -> list[str]:
        """Return the turn semaphores that exist."""
        return sorted(path.name for path in SHM.glob(f"sem.{self.name[1:]}.*"))

    def leftovers(self) -> dict[str, list[str]]:
        """Return what no client has any use for once all of them are gone; empty means nothing has leaked."""
        found = {state: self.records(state) for state in ("new", "queued", "gate", "holding")} | {"turns": self.turns()}
        return {place: names for place, names in found.items() if names}

    def settled(self) -> tuple[int, dict[str, list[str]]]:
        """Return (the semaphore's value, what is left over), after every client has ended."""
        return self.value(), self.leftovers()

    def shown(self, label: str) -> str:
        """Return how a reset names a build."""
        return label

    def kill(self, pid: int) -> None:
        """Kill a process that the test started indirectly."""
        _kill(pid)

    def close(self) -> None:
        """End every process that the test started, and remove the pool."""
        for build in self.builds:
            for pid in (build.command_pid, build.pid):
                if pid and (pid != build.pid or build.process.poll() is None):
                    _kill(pid)
        for pid in (*self.extra, *clients_of(self.name)):
            _kill(pid)
        for build in self.builds:
            build.process.wait(HANG_S)
            for stream in (build.process.stdin, build.process.stdout, build.process.stderr):
                if stream:
                    with suppress(BrokenPipeError):
                        stream.close()
        remove_pool(self.name[1:])


def clients_of(name: str) -> Iterator[int]:
    """Yield the processes that have the pool *name* in their environment: one that goes on would make it anew."""
    wanted = f"SEMAPHORE_NAME={name}".encode()
    for pid in map(int, filter(str.isdigit, os.listdir("/proc"))):
        with suppress(OSError):  # gone meanwhile, or not ours to see
            if pid != os.getpid() and wanted in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"):
                yield pid


def remove_pool(name: str) -> list[str]:
    """Remove every trace of the pool *name* (without its slash); return what there was."""
    found = list(_traces(name))
    for path in found:
        if path.is_dir() and not path.is_symlink():
            for inner in sorted(path.rglob("*"), reverse=True):
                inner.rmdir() if inner.is_dir() and not inner.is_symlink() else inner.unlink()
            path.rmdir()
        else:
            path.unlink()
    return [path.name for path in found]


def _traces(name: str) -> Iterator[Path]:
    for path in list(SHM.iterdir()):
        if path.name in (f"ipclock.{name}", f"sem.{name}") or path.name.startswith(f"sem.{name}."):
            yield path


def _kill(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
