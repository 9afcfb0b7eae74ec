"""Clients in namespaces of their own and of other users, forked from the storm.

Forked, not run by unshare(1) and setpriv(1), for two reasons: Python may lie in a folder that only root may enter, and
what happens to a client must happen to `ipclock` itself, whose PID here no program between would tell.
"""

from __future__ import annotations

import ctypes
import encodings.ascii
import json
import os
import pickle
import resource
import select
import signal
import socket
import struct
import subprocess
import sys
import time
import traceback
import unicodedata
from contextlib import suppress
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, NoReturn

import psutil

from ipclock.cli import command_line
from tests.helpers import crash_at
from tests.helpers.crash_at import USER, become
from tests.helpers.world import HANG_S
from tests.storm.clients import BUILD_LOCK, WAYS

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

GROUP = 54400  # of the two users
LOADED = (
    crash_at,
    encodings.ascii,
    json,
    pickle,
    psutil,
    resource,
    unicodedata,
)  # before the fork: a user may not read the source tree
NEW_TIME, NEW_MOUNTS, NEW_PIDS = 0x80, 0x20000, 0x20000000
PRIVATE = 0x44000  # MS_REC | MS_PRIVATE
SET_DEATH_SIGNAL, SET_DUMPABLE = 1, 4
CREDENTIALS = struct.Struct("3i")
READY = b"!"
LIBC = ctypes.CDLL(None, use_errno=True)


class Namespace(NamedTuple):
    """What of a client is its own: PIDs, with a /proc of theirs and an init beside it, or as PID 1; clocks.

    The init stays until all others have ended. The clocks since boot are so many seconds and nanoseconds ahead.
    """

    pids: bool = False
    proc: bool = False
    init: bool = False
    ahead: tuple[int, int] | None = None


NAMESPACES = {
    "PIDs": Namespace(pids=True, proc=True, init=True),
    "PIDs, as PID 1": Namespace(pids=True, proc=True),
    "PIDs, a foreign /proc": Namespace(pids=True, init=True),
    "clocks": Namespace(ahead=(100_000, 0)),
    "clocks, a part of a tick": Namespace(ahead=(100_000, 5_000_000)),
    "clocks behind": Namespace(ahead=(-int(time.monotonic()), 0)),
    "PIDs, clocks": Namespace(pids=True, proc=True, init=True, ahead=(100_000, 0)),
}
NOWHERE = Namespace()


class Stranger:
    """A client that calls *run* as user *uid* in a namespace of NAMESPACES; to the storm it is like a Popen."""

    def __init__(self, namespace: str, uid: int | None, stderr: int, run: Callable[[], object]) -> None:
        self._inside = bool(namespace)
        self._told, theirs = socket.socketpair()
        self._told.settimeout(HANG_S)
        # the kernel tells by which PID we know the process that says it is ready
        self._told.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        self._child = os.fork()
        if self._child == 0:
            _client(NAMESPACES.get(namespace, NOWHERE), uid, stderr, run, theirs)
        theirs.close()
        self._status: int | None = None
        self._pidfd = -1

    @cached_property
    def pid(self) -> int:
        """The PID that the client has here. Waits for it. Raises RuntimeError if it cannot be one."""
        with self._told:
            told, credentials, _, _ = self._told.recvmsg(1 << 16, socket.CMSG_SPACE(CREDENTIALS.size))
        if told != READY:
            os.waitpid(self._child, 0)
            raise RuntimeError(told.decode())
        pid: int = CREDENTIALS.unpack(credentials[0][2])[0]
        with suppress(ProcessLookupError):  # has already ended
            self._pidfd = os.pidfd_open(pid)
        return pid

    def poll(self) -> int | None:
        """Return the exit status, -n for signal n; None until the client, and its init, have ended."""
        # known as soon as it can be: later the PID may be another process's
        return self._wait(os.WNOHANG) if self._is_known() else None

    def wait(self) -> int:
        """Return the exit status."""
        status = self._wait(0) if self.pid else None
        assert status is not None
        return status

    def send_signal(self, number: int) -> None:
        """Send a signal, unless the client has ended."""
        if self.pid and self._pidfd >= 0:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, number)

    def kill(self) -> None:
        """End the client, and all that lives in its PID namespace."""
        self.send_signal(signal.SIGKILL)
        if self.poll() is None:
            os.kill(self._child, signal.SIGKILL)

    def _is_known(self) -> bool:
        return "pid" in self.__dict__ or (bool(select.select([self._told], [], [], 0)[0]) and self.pid > 0)

    def _wait(self, options: int) -> int | None:
        if self._status is None:
            pid, how = os.waitpid(self._child, options)
            if pid:
                status = os.waitstatus_to_exitcode(how)
                # nobody can kill himself as the first of a PID namespace, nor be seen to be killed through one
                self._status = 128 - status if self._inside and status > 128 else status
                if self._pidfd >= 0:
                    os.close(self._pidfd)
                    self._pidfd = -1
        return self._status


def _client(space: Namespace, uid: int | None, stderr: int, run: Callable[[], object], told: socket.socket) -> NoReturn:
    try:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # as `ipclock` itself does
        null = os.open(os.devnull, os.O_RDWR)
        for source, fd in ((null, 0), (null, 1), (stderr, 2)):
            os.dup2(source, fd)
        if space != NOWHERE:
            _enter(space)
        if uid is not None:
            become(uid, (GROUP,))
            _must(LIBC.prctl(SET_DUMPABLE, 1, 0, 0, 0))  # as what a user has started is, and who became one is not
        told.send(READY)
    except BaseException:
        told.send(traceback.format_exc().encode())
        os._exit(255)
    with suppress(BaseException):
        run()
    os._exit(255)


def _enter(space: Namespace) -> None:
    """Return in the namespace, in a child or grandchild of the process that called."""
    _must(LIBC.unshare(NEW_PIDS * space.pids | NEW_MOUNTS * space.proc | NEW_TIME * bool(space.ahead)))
    if space.ahead:
        for clock in ("monotonic", "boottime"):
            Path("/proc/self/timens_offsets").write_text(f"{clock} {space.ahead[0]} {space.ahead[1]}")
    if child := os.fork():
        _reap_until(child)
    if space.pids:
        _must(LIBC.prctl(SET_DEATH_SIGNAL, signal.SIGKILL, 0, 0, 0))  # it does not hear the Ctrl-C that ends the storm
    if space.proc:
        _must(LIBC.mount(b"none", b"/", None, PRIVATE, None))
        _must(LIBC.mount(b"proc", b"/proc", b"proc", 0, None))
    if space.init and (child := os.fork()):
        _reap_until(child)


def _reap_until(child: int) -> NoReturn:
    """Reap until nobody is left, and end as the child did."""
    status = 255
    with suppress(ChildProcessError):
        while True:
            pid, how = os.wait()
            if pid == child:
                status = os.waitstatus_to_exitcode(how)
    os._exit(status if status >= 0 else 128 - status)


def _must(result: int) -> None:
    if result:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def run_loaded(arguments: list[str], env: Mapping[str, str]) -> NoReturn:
    """Be `ipclock` with these arguments, in a fork of an interpreter that has loaded it."""
    os.closerange(3, 4096)
    sys.stdin, sys.stdout, sys.stderr = (os.fdopen(fd, mode) for fd, mode in enumerate("rww"))
    os.environ.clear()
    os.environ.update(env)
    os.umask(0o022)
    for name, module in list(sys.modules.items()):
        if name.startswith("ipclock."):
            for value in vars(module).values():
                if hasattr(value, "cache_clear"):
                    value.cache_clear()  # the storm's own PIDs, clocks and users
    os._exit(command_line.main(arguments))


@cache
def users_ways() -> frozenset[str]:
    """Return the ways in which another user can ask: of those with an interpreter of its own, if it may have one."""
    line = [sys.executable, "-c", "import sys, ipclock.cli.command_line; open(sys.argv[1])", str(BUILD_LOCK)]
    env = {key: os.environ[key] for key in ("PATH", "PYTHONPATH") if key in os.environ}
    try:
        subprocess.run(line, user=USER, group=USER, extra_groups=[], cwd="/", env=env, capture_output=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return frozenset({"wrap"})
    return frozenset(WAYS)


def missing(*, namespaces: bool = False, users: bool = False) -> str:
    """Return why there can be no such clients here; "" if there can."""
    if (namespaces or users) and os.geteuid() != 0:
        return "only root can have clients in namespaces, or of other users"
    for name in NAMESPACES if namespaces else ():
        try:
            Stranger(name, None, 2, lambda: os._exit(0)).wait()
        except RuntimeError as error:
            return f"no namespace of its own for {name}: {str(error).splitlines()[-1]}"
    return ""
