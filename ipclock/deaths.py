"""Wakes a sleeping client as soon as one of some processes ends, by a thread that waits for pidfds (pidfd_open(2)).

The sleeper is woken by a signal, SIGURG, which nobody else sends and which does nothing: it only ends the sleep early.
A post would do it too, but could meet a semaphore that is being closed. For a main thread only.
"""

from __future__ import annotations

import _thread
import os
import select
import signal
from contextlib import suppress

from ipclock.values import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable
    from types import TracebackType

MOST = 64  # processes; each costs a descriptor
AGAIN_MS = 20  # a signal that comes just before the sleep does not end it: so it is sent
TIMES = 3


class Deaths:
    """Watches the processes *pids* for the block, which gets whether each of them can be watched."""

    def __init__(self, pids: Iterable[int]) -> None:
        self._complete = True
        self._fds: list[int] = []
        for pid in pids:
            try:
                if len(self._fds) >= MOST:
                    raise ProcessLookupError
                self._fds.append(os.pidfd_open(pid))
            except OSError:  # gone, of another PID namespace, or no descriptor left
                self._complete = False
        self._over = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)

    def __enter__(self) -> bool:
        signal.signal(signal.SIGURG, _nothing)
        _thread.start_new_thread(_watch, (self._fds, self._over, _thread.get_ident()))
        return self._complete

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        # the thread closes what it has: to wait for it would delay the build that is about to start
        os.eventfd_write(self._over, 1)


def _nothing(*_: object) -> None:
    pass


def _watch(fds: list[int], over: int, sleeper: int) -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    waiting = select.poll()
    for fd in (*fds, over):
        waiting.register(fd, select.POLLIN)
    again = 0
    try:
        while True:
            ended = [fd for fd, _event in waiting.poll(AGAIN_MS if again else None)]
            if over in ended:
                return
            for fd in ended:
                waiting.unregister(fd)
            again = TIMES if ended else again - 1
            with suppress(ProcessLookupError):
                signal.pthread_kill(sleeper, signal.SIGURG)
    finally:
        for fd in (*fds, over):
            os.close(fd)
