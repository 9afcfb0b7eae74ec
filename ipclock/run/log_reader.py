"""A log as it grows, read while its writer may cut it.

Guarantees that no byte is returned twice, and that a mark tells of those that were left out before they could be read.
What is read is what was written, to the byte.
"""

from __future__ import annotations

import os
from contextlib import suppress

from ipclock._typing import TYPE_CHECKING, NamedTuple
from ipclock.linux import inotify
from ipclock.run import logs
from ipclock.run.log_writer import CHUNK, CUT, mark

if TYPE_CHECKING:
    from ipclock.linux.inotify import Inotify

_LONGEST_MARK = 64
_BLOCK = 1 << 20


class Mark(NamedTuple):
    """Where the mark of a log lies in its file, how long it is, and how many bytes it stands for."""

    start: int
    length: int
    left_out: int

    @property
    def end(self) -> int:
        """Where the tail begins, in the file."""
        return self.start + self.length

    def counted(self, place: int) -> int:
        """Return how many bytes the build had written before what lies at a place of the file, in its tail."""
        return place - self.length + self.left_out


class LogReader:
    """A log from its beginning, or from its last lines on. With *watcher*, more of it wakes a sleep on that."""

    def __init__(self, path: str, uid: int | None = None, watcher: Inotify | None = None) -> None:
        """Open it. Raises LogUnreadable (77), FileNotFoundError."""
        self._path = path
        self._uid = uid
        self._watcher = watcher
        self._fd = self._open()
        self._offset = 0

    def _open(self) -> int:
        fd = logs.open_for_reading(self._path, self._uid)
        if self._watcher:  # then look: a file that takes its place before that is found by the next `read`
            with suppress(OSError):
                self._watcher.watch(self._path, inotify.MODIFIED | inotify.ATTRIBUTES)
        return fd

    def skip_to_last(self, lines: int) -> None:
        """Begin with the last so many lines that are there."""
        at = size = os.fstat(self._fd).st_size
        left = lines + (size > 0 and os.pread(self._fd, 1, size - 1) == b"\n")
        self._offset = size if not lines else 0
        while lines and at > 0:
            before = max(0, at - _BLOCK)
            data = os.pread(self._fd, at - before, before)
            if data.count(b"\n") >= left:
                end = len(data)
                for _ in range(left):
                    end = data.rfind(b"\n", 0, end)
                self._offset = before + end + 1
                return
            left -= data.count(b"\n")
            at = before

    def read(self) -> bytes:
        """Return what comes next, b"" if nothing has come (yet)."""
        while True:
            replaced = self._is_replaced()  # then read: what was replaced by then has grown for the last time
            if data := os.pread(self._fd, CHUNK, self._offset):
                self._offset += len(data)
                return data
            # half a line of the writer's about a full disk, which it has taken back
            self._offset = min(self._offset, os.fstat(self._fd).st_size)
            if not replaced:
                return b""
            try:
                fd = self._open()
            except FileNotFoundError:
                return b""
            told = self._go_on_in(fd)
            if told:
                return told

    def _is_replaced(self) -> bool:
        try:
            status = os.lstat(self._path)
        except OSError:
            return False
        return not os.path.samestat(status, os.fstat(self._fd))

    def _go_on_in(self, fd: int) -> bytes:
        """Go on in the file that has taken the place of ours, which was read to its end; return what tells of a gap."""
        told = b""
        now, before = _find_mark(fd), _find_mark(self._fd)
        if now is None:
            self._offset = 0  # not a cut: another log
        else:
            # the head stays as it is; a mark elsewhere is one that the build has written, not one of a cut
            cut = before is not None and before.start == now.start
            seen = before.counted(self._offset) if cut and before else self._offset
            lost = now.counted(now.end) - seen
            if lost > 0:
                told = mark(lost)
            self._offset = now.end + max(0, -lost)
        os.close(self._fd)
        self._fd = fd
        return told

    def close(self) -> None:
        """Close the log."""
        os.close(self._fd)


def _find_mark(fd: int) -> Mark | None:
    at, kept = 0, b""
    while data := os.pread(fd, _BLOCK, at):
        text = kept + data
        if found := CUT.search(text):
            return Mark(at - len(kept) + found.start(), len(found[0]), int(found[1]))
        at += len(data)
        kept = text[-_LONGEST_MARK:]
    return None
