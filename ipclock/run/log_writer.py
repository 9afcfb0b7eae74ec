"""Writes the output of a build into its log, in a process of its own that lives for as long as the build can write.

The build writes into a pipe, and never waits for a disk or fails for a full one. The writer outlives a supervisor that
is killed: else the next word of its build would end that by SIGPIPE. A log keeps to its limit by leaving out the
middle: the file is made anew from its head, a mark and its tail, and takes the old one's place by rename(2).
"""

from __future__ import annotations

import os
import re
import signal
from contextlib import suppress

from ipclock._typing import TYPE_CHECKING
from ipclock.errors import reason_of
from ipclock.linux import isolated

if TYPE_CHECKING:
    from typing import NoReturn

CHUNK = 1 << 16
LEAST = 1 << 12  # bytes: with less there would be no room for head, mark and tail
CUT = re.compile(rb"\n\[ipclock: (\d+) bytes left out\]\n")
_LOST = "\n[ipclock: {count} bytes lost: {reason}]\n"


def mark(left_out: int) -> bytes:
    """Return what stands in a log for the bytes that it lacks."""
    return b"\n[ipclock: %d bytes left out]\n" % left_out


class CappedFile:
    """A log that keeps to *limit* bytes: its head, half as long, and its tail. Never raises OSError."""

    def __init__(self, fd: int, path: str, limit: int) -> None:
        self._fd = fd
        self._path = path
        self._limit = max(LEAST, limit)
        self._head = self._limit // 2
        self._size = os.fstat(fd).st_size
        self._left_out = 0
        self._lost = 0
        self._reason = ""

    def add(self, data: bytes) -> None:
        """Append *data*. What cannot be written is counted, and told by a line when there is room again."""
        if self._lost:
            line = _LOST.format(count=self._lost, reason=self._reason).encode()
            if left := self._append(line):
                if left < len(line):  # or it would be told twice, once by half
                    with suppress(OSError):
                        os.ftruncate(self._fd, self._size - (len(line) - left))
                        self._size -= len(line) - left
                self._lost += len(data)
                return
            self._lost = 0
        self._lost = self._append(data)

    def _append(self, data: bytes) -> int:
        """Write *data*, and return how many bytes of it could not be written."""
        try:
            while data:
                if self._size >= self._limit:
                    self._cut()
                written = os.write(self._fd, data[: self._limit - self._size])
                self._size += written
                data = data[written:]
        except OSError as error:
            self._reason = reason_of(error)
        return len(data)

    def _cut(self) -> None:
        """Leave out the middle: the tail that stays is a quarter of the limit, so a byte is copied a few times only."""
        head = os.pread(self._fd, self._head, 0)
        tail = os.pread(self._fd, self._limit // 4, self._size - self._limit // 4)
        if not self._left_out:
            # a mark that the build itself has shown, of another log, must not come before ours: readers take the first
            shown = CUT.search(head)
            end = head.rfind(b"\n", 0, shown.start() if shown else len(head))
            head = head[: max(0, end)] if shown or end >= 0 else head
        tail = tail[tail.find(b"\n") + 1 :]
        draft = f"{os.path.dirname(self._path)}/.{os.path.basename(self._path)}"
        with suppress(FileNotFoundError):
            os.unlink(draft)
        status = os.fstat(self._fd)
        fd = os.open(draft, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            left_out = self._left_out + self._size - len(head) - len(tail) - self._mark_size()
            text = head + mark(left_out) + tail
            while text:
                text = text[os.write(fd, text) :]
            with suppress(PermissionError):
                os.fchown(fd, status.st_uid, status.st_gid)
            os.fchmod(fd, status.st_mode & 0o777)
            os.rename(draft, self._path)
        except BaseException:
            os.close(fd)
            with suppress(OSError):
                os.unlink(draft)
            raise
        os.close(self._fd)
        self._fd, self._left_out, self._head = fd, left_out, len(head)
        self._size = os.fstat(fd).st_size

    def _mark_size(self) -> int:
        return len(mark(self._left_out)) if self._left_out else 0


class LogWriter:
    """The process that writes what comes through `pipe` into the log. `pid` is also its session.

    Make it before there are threads.
    """

    def __init__(self, fd: int, path: str, limit: int) -> None:
        reading, self.pipe = os.pipe()
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        try:
            self.pid = os.fork() or _write(reading, fd, path, limit)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
            os.close(reading)
            os.close(fd)


def _write(reading: int, fd: int, path: str, limit: int) -> NoReturn:
    """Be the writer, until no process has the pipe open for writing any more."""
    try:
        os.setsid()
        os.chdir("/")
        isolated.close_all_but([reading, fd])
        log = CappedFile(fd, path, limit)
        while data := os.read(reading, CHUNK):
            log.add(data)
    finally:
        os._exit(0)
