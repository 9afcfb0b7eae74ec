"""Open-file-description locks (fcntl(2), F_OFD_*): the beacons and the mutex.

The only importer of fcntl. Such a lock belongs to the open file, not to the process: it lasts until it is undone or
the last process that inherited the descriptor is gone, and the kernel sees to that. A POSIX lock (lockf) would be
lost with its taker, and with the first close of any descriptor of the file.
"""

from __future__ import annotations

import fcntl
import os
import struct

HIGH_DESCRIPTOR = 100

_FLOCK = struct.Struct("hhqqi4x")  # struct flock: l_type, l_whence, l_start, l_len (0: to the end), l_pid


def _ask(fd: int, command: int, kind: int, byte: int | None = None) -> int:
    start, length = (0, 0) if byte is None else (byte, 1)
    answer = fcntl.fcntl(fd, command, _FLOCK.pack(kind, os.SEEK_SET, start, length, 0))
    return int(_FLOCK.unpack(answer)[0])


def try_lock(fd: int, byte: int | None = None) -> bool:
    """Take the write lock if nobody has it; return whether it is ours now. Needs a writable descriptor.

    Locks one *byte* of the file, which need not exist, or else the whole file.
    """
    try:
        _ask(fd, fcntl.F_OFD_SETLK, fcntl.F_WRLCK, byte)
    except BlockingIOError:
        return False
    return True


def unlock(fd: int) -> None:
    """Undo every lock of this open file, for all processes that share it."""
    _ask(fd, fcntl.F_OFD_SETLK, fcntl.F_UNLCK)


def is_locked(fd: int, byte: int | None = None) -> bool:
    """Return whether another open file has a lock on the *byte*, or anywhere. Takes nothing and never blocks.

    Through the very open file that has the lock it looks free.
    """
    return _ask(fd, fcntl.F_OFD_GETLK, fcntl.F_WRLCK, byte) != fcntl.F_UNLCK


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
