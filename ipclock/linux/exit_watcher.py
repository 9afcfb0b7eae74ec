"""Wakes a sleeping client as soon as a build and its supervisor have ended, by a thread that waits for pidfds.

The sleeper is woken by SIGURG, a signal that nothing else sends and that does nothing: it only ends the sleep early.
A post would do it too, but could meet a semaphore that is being closed. For a main thread only. See pidfd_open(2).
"""

from __future__ import annotations

import _thread
import os
import select
import signal
from contextlib import suppress

from ipclock._typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable
    from types import TracebackType

MOST = 32  # builds; each costs two descriptors
AGAIN_MS = 20  # a signal that comes just before the sleep does not end it: so it is sent
TIMES = 3
OVER_MS = 5000  # until the thread ends that is not needed any more


class ExitWatcher:
    """Watches the *builds*, each by its PIDs, for the block, which gets whether each of them can be watched.

    The end of a build whose supervisor lives is not told: that one gives the slot back.
    """

    def __init__(self, builds: Iterable[list[int]]) -> None:
        self._complete = True
        self._builds: list[list[int]] = []
        for pids in builds:
            fds: list[int] = []
            with suppress(OSError):  # no descriptor left
                for pid in pids if len(self._builds) < MOST else []:
                    with suppress(ProcessLookupError):  # ended, or of another PID namespace
                        fds.append(os.pidfd_open(pid))
            if fds:
                self._builds.append(fds)
            else:
                self._complete = False
        self._over = _thread.allocate_lock()

    def __enter__(self) -> bool:
        signal.signal(signal.SIGURG, _nothing)
        try:
            _thread.start_new_thread(_watch, (self._builds, self._over, _thread.get_ident()))
        except RuntimeError:  # `ulimit -u`, or a cgroup's limit
            _close(self._builds)
            return False
        return self._complete

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        # the thread is not woken to end: it would contend for the interpreter with the start of the build
        self._over.acquire()


def _nothing(*_: object) -> None:
    pass


def _watch(builds: list[list[int]], over: _thread.LockType, sleeper: int) -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    waiting = select.poll()
    rest = {first: others for first, *others in builds}
    for fd in rest:
        waiting.register(fd, select.POLLIN)
    again = 0
    while not over.locked():
        ended = waiting.poll(AGAIN_MS if again else OVER_MS)
        again = max(0, again - 1)
        for fd, _event in ended:
            waiting.unregister(fd)
            if others := rest.pop(fd):
                rest[others[0]] = others[1:]
                waiting.register(others[0], select.POLLIN)
            else:
                again = TIMES
        if again and not over.locked():
            with suppress(ProcessLookupError):
                signal.pthread_kill(sleeper, signal.SIGURG)
    _close(builds)


def _close(builds: list[list[int]]) -> None:
    for fd in (fd for fds in builds for fd in fds):
        os.close(fd)
