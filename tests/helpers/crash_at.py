"""Children forked from the test: as another user, as an `ipclock` of their own, killed at a chosen audit event.

A fork spares each of a few hundred children the start of an interpreter, and lets a test become another user who may
not read the source tree. The production code has no hooks for this: Python itself reports what it is about to ask
of the kernel (sys.addaudithook), and `semaphore` reports what posix_ipc does not. Needs a test process without
threads.
"""

from __future__ import annotations

import ctypes
import difflib
import fcntl
import grp
import os
import pickle
import pwd
import select
import shlex
import signal
import subprocess
import sys
import tempfile
import traceback
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypeVar

import pytest

from ipclock import api, users
from ipclock.cli import (
    acquire,
    advice,
    cancel,
    command_line,
    doctor,
    drain,
    init,
    logs,
    release,
    reset,
    resume,
    status,
    wait,
    wrap,
)
from ipclock.linux import clockwait
from ipclock.pool import takeover
from ipclock.pool.protocol import Pool
from ipclock.run import supervisor
from tests.helpers.world import HANG_S

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from tests.helpers.world import World

T = TypeVar("T")
USER, OTHER_USER = 54321, 54322  # nobody's, on any usual machine
LOADED = (
    difflib,
    grp,
    pwd,
    shlex,
    advice,
    api,
    clockwait,
    acquire,
    cancel,
    doctor,
    drain,
    init,
    logs,
    release,
    reset,
    resume,
    status,
    wait,
    wrap,
    supervisor,
    takeover,
)  # before the fork: a child must not read the source tree

# What leaves something behind in a pool, or asks it; a crash comes right before the event.
POINTS = (
    *("open", "os.mkdir", "os.chmod", "os.chown", "os.rename", "os.remove", "os.listdir", "os.posix_spawn"),
    *("os.rmdir", "os.symlink"),
    *("fcntl.fcntl", "ipclock.sem_create", "ipclock.sem_post", "ipclock.sem_wait", "ipclock.sem_unlink"),
)


class Crash(NamedTuple):
    """Die right before the *nth* of POINTS that follows the *start*; with 0 live on, and only write them down.

    The start is the name of an event, or a piece of text that one of its arguments holds. The victim is the client
    itself, or with *generation* 1 its child, with 2 a child of that.
    """

    start: str
    nth: int = 0
    generation: int = 0


def _install(crash: Crash, trace: int) -> None:
    seen, generation = -1, 0

    def forked() -> None:
        nonlocal generation
        generation += 1

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        nonlocal seen
        if event not in POINTS or generation != crash.generation:
            return
        texts = [str(argument) for argument in arguments if isinstance(argument, str | int)]
        if texts and texts[0].startswith("/proc"):
            return  # a look that changes nothing, at as many processes as there happen to be
        if seen >= 0:
            seen += 1
            os.write(trace, f"{event} {' '.join(texts)}\n".encode())  # no audit event of its own
            if seen == crash.nth:
                os.kill(os.getpid(), signal.SIGKILL)
        elif event == crash.start or any(crash.start in text for text in texts):
            seen = 0

    os.register_at_fork(after_in_child=forked)
    sys.addaudithook(hook)


def become(uid: int, groups: Sequence[int] = ()) -> None:
    """Give up root's rights for those of user *uid*, a group of the same number, and more *groups*."""
    if uid != os.geteuid():
        os.setgroups(list(groups))
        os.setgid(uid)
        os.setuid(uid)


def enter(view: str) -> None:
    """Move into a user namespace of our own: "root", "same" and "nobody" are what we are in it, "" moves nowhere.

    Nobody else has a uid in it; `unshare -Ur`, `bwrap --unshare-user` and `unshare -U` make such ones.
    """
    if not view:
        return
    libc = ctypes.CDLL(None, use_errno=True)
    uid, gid = os.geteuid(), os.getegid()
    # who has changed its uid has a /proc of root's, and so could not say who is who
    if libc.prctl(4, 1) or libc.unshare(0x10000000):  # PR_SET_DUMPABLE, CLONE_NEWUSER
        raise OSError(ctypes.get_errno(), "no user namespace")
    if view != "nobody":
        for file, own in {"uid_map": uid, "setgroups": None, "gid_map": gid}.items():
            text = "deny" if own is None else f"{0 if view == 'root' else own} {own} 1"
            Path("/proc/self", file).write_text(text)
    users._ids.cache_clear()
    users._stand_in.cache_clear()


def needs_user_namespaces() -> None:
    """Skip the test where a user other than root cannot make a user namespace."""
    needs_root(0)
    try:
        in_child(lambda: enter("root"), USER)
    except AssertionError as error:
        pytest.skip(f"no user namespaces here: {str(error).splitlines()[-1]}")


def needs_root(uid: int) -> None:
    """Skip the test where it cannot become user *uid*."""
    if os.geteuid() not in (0, uid):
        pytest.skip("only root can become another user")


def in_child(function: Callable[[], T], uid: int | None = None, umask: int = 0o022, groups: Sequence[int] = ()) -> T:
    """Return what *function* returns in a forked child, as user *uid*. If the child crashes, only the test fails."""
    uid = os.geteuid() if uid is None else uid
    needs_root(uid)
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            become(uid, groups)
            os.umask(umask)
            answer: tuple[str, object] = ("value", function())
        except BaseException:
            answer = ("failure", traceback.format_exc())
        with open(writing, "wb") as stream:
            stream.write(pickle.dumps(answer))
        os._exit(0)
    os.close(writing)
    with open(reading, "rb") as stream:
        if not select.select([stream], [], [], HANG_S)[0]:
            os.kill(pid, signal.SIGKILL)
        data = stream.read()
    how = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if not data:
        raise AssertionError(f"the child ended with {how} and said nothing")
    kind, value = pickle.loads(data)
    if kind == "failure":
        raise AssertionError(value)
    returned: T = value
    return returned


@contextmanager
def child(run: Callable[[], object] = signal.pause, uid: int | None = None) -> Iterator[int]:
    """A forked process that runs the function and ends; killed and reaped at the end."""
    uid = os.geteuid() if uid is None else uid
    needs_root(uid)
    pid = os.fork()
    if pid == 0:
        become(uid)
        run()
        os._exit(0)
    try:
        yield pid
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


@contextmanager
def stopped_owner(world: World) -> Iterator[int]:
    """A process that is stopped while it has the pool's mutex; killed at the end."""

    def own() -> None:
        pool = Pool.open(world.name, "/dev/shm")
        with pool.store.mutex(lambda seconds, pid: None):
            os.kill(os.getpid(), signal.SIGSTOP)

    with child(own) as pid:
        os.waitid(os.P_PID, pid, os.WSTOPPED)
        yield pid


class Client:
    """A forked process that runs `ipclock` with *arguments*; its stdin, stdout and stderr are the test's to use."""

    def __init__(
        self,
        *arguments: str,
        env: Mapping[str, str],
        uid: int | None = None,
        groups: Sequence[int] = (),
        umask: int = 0o022,
        crash: Crash | None = None,
        view: str = "",
    ) -> None:
        uid = os.geteuid() if uid is None else uid
        needs_root(uid)
        stdin, self._stdin = os.pipe()
        self._stdout, stdout = os.pipe()
        self._stderr = os.memfd_create("stderr")
        self._trace = os.memfd_create("trace")
        self.pid = os.fork()
        if self.pid == 0:
            _child([stdin, stdout, self._stderr, self._trace], arguments, env, uid, groups, umask, crash, view)
        self._pidfd = os.pidfd_open(self.pid)
        self._code: int | None = None
        os.close(stdin)
        os.close(stdout)

    def line(self) -> str:
        """Return the next line of stdout; "" once all of its writers are gone."""
        text = b""
        while not text.endswith(b"\n"):
            if not select.select([self._stdout], [], [], HANG_S)[0]:
                raise AssertionError(f"no line on stdout; stderr: {self.errors()!r}")
            letter = os.read(self._stdout, 1)
            if not letter:
                break
            text += letter
        return text.decode().removesuffix("\n")

    def output(self) -> str:
        """Return all that is written to stdout, once all of its writers are gone."""
        text = b""
        while select.select([self._stdout], [], [], HANG_S)[0]:
            chunk = os.read(self._stdout, 1 << 16)
            if not chunk:
                return text.decode()
            text += chunk
        raise AssertionError(f"no end of stdout; stderr: {self.errors()!r}")

    def finish(self) -> None:
        """Close the stdin of the client and its build."""
        if self._stdin >= 0:
            os.close(self._stdin)
            self._stdin = -1

    def running(self) -> bool:
        """Return whether the client itself has not ended."""
        return self._code is None and not select.select([self._pidfd], [], [], 0)[0]

    def wait(self) -> int:
        """Return the exit status, -n for signal n."""
        if self._code is None:
            if not select.select([self._pidfd], [], [], HANG_S)[0]:
                raise AssertionError(f"the client does not end; trace {self.trace()[-3:]}, stderr: {self.errors()!r}")
            self._code = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        return self._code

    def end(self) -> int:
        """Let the build end, and return the exit status."""
        self.finish()
        return self.wait()

    def kill(self) -> int:
        """SIGKILL the client alone."""
        if self.running():
            os.kill(self.pid, signal.SIGKILL)
        return self.wait()

    def errors(self) -> str:
        """Return what was written to stderr so far."""
        return os.pread(self._stderr, 1 << 20, 0).decode()

    def trace(self) -> list[str]:
        """Return the events since the start of the count, the last one being where it was killed."""
        return os.pread(self._trace, 1 << 20, 0).decode().splitlines()

    def close(self) -> None:
        """End the client and close all that belongs to it."""
        self.finish()
        self.kill()
        for fd in (self._stdout, self._stderr, self._trace, self._pidfd):
            os.close(fd)


def _child(
    streams: list[int],
    arguments: tuple[str, ...],
    env: Mapping[str, str],
    uid: int,
    groups: Sequence[int],
    umask: int,
    crash: Crash | None,
    view: str,
) -> None:
    code = 255
    try:
        for number, fd in enumerate(streams):
            os.dup2(fd, number, inheritable=number < 3)
        # a copy of another client's stdin would keep that client's build from seeing its end
        os.closerange(len(streams), 4096)
        sys.stdin, sys.stdout, sys.stderr = (os.fdopen(fd, mode) for fd, mode in enumerate("rww"))
        os.chdir("/")
        os.environ.clear()
        os.environ.update(env)
        os.umask(umask)
        become(uid, groups)
        enter(view)
        if crash:
            _install(crash, 3)
        code = command_line.main(arguments)
    except BaseException:
        traceback.print_exc()
    finally:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        os._exit(code)


@contextmanager
def sysctl(path: str, value: int) -> Iterator[None]:
    """Set a number under /proc/sys for a while, one test at a time; skip the test where that is not allowed."""
    file = Path("/proc/sys", path)
    with Path(tempfile.gettempdir(), f"ipclock-tests.{os.geteuid()}.sysctl").open("w") as turn:
        fcntl.flock(turn, fcntl.LOCK_EX)
        try:
            before = file.read_text()
            file.write_text(f"{value}\n")
        except OSError as error:
            pytest.skip(f"{file} cannot be set: {error.strerror}")
        try:
            yield
        finally:
            file.write_text(before)


@cache
def _can_unshare(*options: str) -> str:
    try:
        done = subprocess.run(["unshare", *options, "true"], capture_output=True, text=True, check=False)
    except OSError as error:
        return str(error)
    return done.stderr


def unshared(options: list[str], script: str, *arguments: str, env: Mapping[str, str] | None = None) -> tuple[int, str]:
    """Run a shell script in namespaces of its own; return (exit status, stdout and stderr as they came)."""
    if problem := _can_unshare(*options):
        pytest.skip(f"unshare is not possible here: {problem.strip()}")
    done = subprocess.run(
        ["unshare", *options, "sh", "-euc", script, "sh", *arguments],
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=HANG_S,
        check=False,
    )
    return done.returncode, done.stdout
