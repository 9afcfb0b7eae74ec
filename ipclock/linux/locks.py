"""Open-file-description locks (fcntl(2), F_OFD_*): the beacons and the mutex.

Such a lock belongs to the open file, not to the process: it lasts until it is undone or
the last process that inherited the descriptor is gone, and the kernel sees to that. A POSIX lock (lockf) would be
lost with its taker, and with the first close of any descriptor of the file.
"""

from __future__ import annotations

import fcntl
import os
import struct

from ipclock._typing import NamedTuple
from ipclock.linux import procfs

HIGH_DESCRIPTOR = 100

_FLOCK = struct.Struct("hhqqi4x")  # struct flock: l_type, l_whence, l_start, l_len (0: to the end), l_pid
_TABLE = "/proc/locks"


class ByteRange(NamedTuple):
    """Bytes of a file, which need not be there: the first one, and how many; 0 for all from there on."""

    start: int
    length: int = 1


WHOLE = ByteRange(0, 0)


def _ask(fd: int, command: int, kind: int, where: ByteRange) -> int:
    answer = fcntl.fcntl(fd, command, _FLOCK.pack(kind, os.SEEK_SET, *where, 0))
    return int(_FLOCK.unpack(answer)[0])


def try_lock(fd: int, where: ByteRange = WHOLE) -> bool:
    """Take the write lock if it is free; return whether it is ours now. Needs a writable descriptor."""
    try:
        _ask(fd, fcntl.F_OFD_SETLK, fcntl.F_WRLCK, where)
    except BlockingIOError:
        return False
    return True


def unlock(fd: int, where: ByteRange = WHOLE) -> None:
    """Undo the locks of this open file, for all processes that share it."""
    _ask(fd, fcntl.F_OFD_SETLK, fcntl.F_UNLCK, where)


def is_locked(fd: int, where: ByteRange = WHOLE) -> bool:
    """Return whether another open file has a lock there. Takes nothing and never blocks.

    Through the very open file that has the lock it looks free.
    """
    return _ask(fd, fcntl.F_OFD_GETLK, fcntl.F_WRLCK, where) != fcntl.F_UNLCK


def holds(fd: int, where: ByteRange = WHOLE) -> bool:
    """Return whether this very open file has a lock there: another one of the file sees it, it itself does not."""
    try:
        other = os.open(f"/proc/self/fd/{fd}", os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        return False
    try:
        return is_locked(other, where) and not is_locked(fd, where)
    finally:
        os.close(other)


def table(start: int) -> dict[tuple[int, int], int]:
    """Return how many bytes each write lock has that begins at *start*, by its file (st_dev, st_ino).

    From /proc/locks, which all users may read and which has the locks of all users, containers and removed files. None
    where the kernel shows no such table.
    """
    # a table of several pages is read in pieces, between which an end may move a row from one into the other
    return _read_table(start) | _read_table(start)


def _read_table(start: int) -> dict[tuple[int, int], int]:
    try:
        rows = [line.split() for line in procfs.lines(_TABLE)]
    except OSError:
        return {}
    wanted = ["OFDLCK", "WRITE", str(start)]
    ours = (row for row in rows if [*row[1:4:2], *row[6:7]] == wanted and row[7].isdigit())
    return {_file(row[5]): int(row[7]) - start + 1 for row in ours}


def _file(text: str) -> tuple[int, int]:
    major, minor, inode = text.split(":")
    return os.makedev(int(major, 16), int(minor, 16)), int(inode)


def is_writable(fd: int) -> bool:
    """Return whether the descriptor is open for writing, as a write lock needs it."""
    return fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_ACCMODE != os.O_RDONLY


def out_of_the_way(fd: int) -> int:
    """Move the descriptor to a high number and return it.

    Shell scripts use 3 to 9 for files of their own, and `exec 3>log` in a build would drop its beacon. Where
    `ulimit -n` leaves no high number the descriptor stays as it is.
    """
    try:
        high = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, HIGH_DESCRIPTOR)
    except OSError:
        return fd
    os.close(fd)
    return high
