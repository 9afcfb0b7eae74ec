"""Keeps the output of an attached build in a log too: `wrap --log`.

In place of each output stream the command gets a pipe, or a pseudo-terminal where it is a terminal. A process of its
own, which lives as long as the build can write, carries what comes to where it would have gone, and into the log. All
else stays as it was: stdin, session, process group and controlling terminal. So Ctrl-C, Ctrl-Z and jobs are the
kernel's as without us, and no end of ours leaves a terminal raw. In a session of the pseudo-terminal, as script(1) has
it, no command would stop at Ctrl-Z, one in the background would take what is typed for the shell, and a SIGKILL to the
group would miss it.
"""

from __future__ import annotations

import os
import select
import signal
import sys
import termios
from contextlib import suppress

from ipclock._typing import TYPE_CHECKING
from ipclock.errors import LogFailed
from ipclock.linux import isolated, process
from ipclock.linux.terminal import Twin
from ipclock.run import logs
from ipclock.run.log_writer import CHUNK, CappedFile

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import NoReturn

    from ipclock.config.settings import Settings
    from ipclock.pool.claim import Claim
    from ipclock.pool.engine import Client


PIPE_MAX = 1 << 20  # /proc/sys/fs/pipe-max-size


class Relay:
    """The supervisor's side of it. The log of a build that never began is removed."""

    def __init__(self, settings: Settings) -> None:
        logs.directory_of(settings)
        self._settings = settings
        self._channels: list[_Channel] = []
        self._streams: dict[int, int] = {}

    def arrived(self, pool: Client, claim: Claim, apart: set[int]) -> None:
        """The claim stands in line: make its log, and the process that writes it. Call before there are threads.

        *apart* gets the session of that process, which is none of the build's. Raises LogFailed (73).
        """
        fd, path = logs.begin(self._settings, claim)
        try:
            self._open_channels()
            pid = self._fork(fd, path)
        except (OSError, termios.error) as error:
            raise LogFailed(path, str(error.args[-1])) from None
        os.close(fd)
        apart.add(pid)
        pool.note(claim, log=path, log_writer=pid)

    def _open_channels(self) -> None:
        known: dict[tuple[int, int, int], _Channel] = {}
        for number, stream in ((1, sys.stdout), (2, sys.stderr)):
            if stream is None:  # closed from the start, and stays so: the number may be that of a file of ours
                continue
            status = os.fstat(number)
            # one channel for both where both are the same file, or their order would be lost
            key = (status.st_dev, status.st_ino, status.st_rdev)
            known[key] = known.get(key) or _Channel(number)
            self._streams[number] = known[key].writing
        self._channels = list(known.values())

    def _fork(self, fd: int, path: str) -> int:
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        try:
            pid = os.fork() or _serve(self._channels, fd, path, self._settings.log_limit)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        for channel in self._channels:
            channel.leave()
        return pid

    def streams(self) -> dict[int, int]:
        """Return the descriptors for a command that starts now, by the number that it is to have each under."""
        for channel in self._channels:
            channel.resize()  # since the wait began
        return self._streams

    def ring(self) -> None:
        """The command has started, or the terminal may have another size."""
        for channel in self._channels:
            with suppress(OSError):  # it has ended before us
                os.write(channel.bell, b"!")

    def end(self) -> None:
        """The command has ended."""
        while signal.sigtimedwait(isolated.LEAVING, 0):
            pass  # it was for the command, and must not end `drain`
        for channel in self._channels:
            os.close(channel.bell)

    def drain(self) -> None:
        """Wait until all that the command has written is where it belongs, or a signal asks us to leave."""
        left = {channel.told for channel in self._channels}
        while left and not signal.sigpending() & isolated.LEAVING:
            left -= _ready(dict.fromkeys(left, select.POLLIN), isolated.POLL_S).keys()


class _Channel:
    """One output on its way from the command to *target*, a descriptor.

    `writing` is the command's. The supervisor has `bell`, to be rung at the start and for each new size, and closed at
    the command's end; `told` ends when all that had come by then was carried.
    """

    def __init__(self, target: int) -> None:
        self._target = target
        self._twin = Twin(target) if os.isatty(target) else None
        self._reading, self.writing = (self._twin.master, self._twin.slave) if self._twin else os.pipe()
        self._listening, self.bell = os.pipe()
        self.told, self._telling = os.pipe()
        self.descriptors = [target, self._reading, self._listening, self._telling]  # of the relay process
        self._supervisor = os.getpid()
        self._begun = False
        self._typing = False  # a program takes its keys from the twin

    def leave(self) -> None:
        """Leave its descriptors to the relay process."""
        for fd in (self._listening, self._telling):
            os.close(fd)
        if self._twin:
            self._twin.leave_master()
        else:
            os.close(self._reading)

    def resize(self) -> bool:
        """Take over the size of a terminal; return whether it was another one."""
        return self._twin is not None and self._twin.resize()

    def has_begun(self) -> bool:
        """Return whether a command has ever had it; wait until that is known."""
        return self._begun or bool(os.read(self._listening, 1))

    def carry(self, keep: Callable[[bytes], None]) -> None:
        """Carry all that comes, until no process can write any more or the target is gone, as the command then sees."""
        # of the target a hangup, or that no reader is left: without us the next write would fail
        watched = {self._listening: select.POLLIN, self._reading: select.POLLIN, self._target: 0}
        timeout: float | None = None
        before = PIPE_MAX  # bytes: as many at most were written before the command's end
        with suppress(OSError, termios.error):  # what a write there fails for ends it too
            while True:
                ready = _ready(watched, timeout)
                if self._listening in ready and not self._listen():
                    del watched[self._listening]
                    timeout = 0
                if self._reading in ready:
                    data = self._read()
                    if data is None:
                        break
                    keep(data)
                    self._show(data)
                    before -= len(data) if timeout == 0 else 0
                if ready.get(self._target, 0) & ~select.POLLIN:
                    break
                if self._target in ready:
                    self._type()
                watched[self._target] = select.POLLIN if self._typing else 0
                if not ready or before <= 0:
                    self._tell()
                    timeout, before = None, PIPE_MAX
        self._tell()
        os.close(self._reading)
        os.close(self._target)

    def _tell(self) -> None:
        if self._telling >= 0:
            os.close(self._telling)
            self._telling = -1

    def _listen(self) -> bool:
        """Heed the bell; return whether there is still a supervisor to ring it."""
        if os.read(self._listening, CHUNK):
            self._begun = True
            self._follow_size()
            return True
        self._supervisor = 0
        return False

    def _read(self) -> bytes | None:
        if self._twin is None:
            return os.read(self._reading, CHUNK) or None
        data, modes_changed = self._twin.read(CHUNK)
        if modes_changed and self._is_in_front():
            self._twin.show_modes()
            self._typing = self._twin.takes_keys(process.descendants_of(self._supervisor))
        self._follow_size()
        return data

    def _type(self) -> None:
        """Hand on keys, if the program that wants them is still there: they are no other one's meanwhile."""
        self._typing = False
        with suppress(OSError):
            if self._twin and self._is_in_front() and self._twin.takes_keys(process.descendants_of(self._supervisor)):
                self._twin.type()
                self._typing = True

    def _show(self, data: bytes) -> None:
        while data:
            try:
                data = data[os.write(self._target, data) :]
            except BlockingIOError:  # another process has made it so, for all that share it
                _ready({self._target: select.POLLOUT})

    def _follow_size(self) -> None:
        if self.resize() and self._supervisor:
            with suppress(OSError):  # once more, for those that the kernel has told: they may have asked before us
                os.killpg(max(1, process.foreground_of(self._supervisor)), signal.SIGWINCH)

    def _is_in_front(self) -> bool:
        """Whether the command may set modes now: in the background it would have been stopped for it."""
        with suppress(OSError):
            us, group = self._supervisor, process.foreground_of(self._supervisor)
            return group < 1 or group == os.getpgid(us) or group in process.descendants_of(us)
        return False


def _ready(watched: Mapping[int, int], timeout_s: float | None = None) -> dict[int, int]:
    """Return what has come, of the events that are *watched* for each descriptor, or as an error or a hangup."""
    poll = select.poll()  # select(2) knows no descriptor above 1023
    for fd, events in watched.items():
        poll.register(fd, events)
    return dict(poll.poll(None if timeout_s is None else 1000 * timeout_s))


def _serve(channels: list[_Channel], fd: int, path: str, limit: int) -> NoReturn:
    """Be the relay process."""
    try:
        import threading

        os.setsid()
        os.chdir("/")
        isolated.close_all_but([fd, *(one for channel in channels for one in channel.descriptors)])
        log, lock = CappedFile(fd, path, limit), threading.Lock()

        def keep(data: bytes) -> None:
            with lock:
                log.add(data)

        # one that has to wait for its reader keeps the other from nothing
        threads = [threading.Thread(target=channel.carry, args=[keep]) for channel in channels]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if not any(channel.has_begun() for channel in channels):
            os.unlink(path)
    finally:
        os._exit(0)
