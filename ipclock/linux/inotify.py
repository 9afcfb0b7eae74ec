"""Being woken by what happens to files: inotify(7).

The only user of it. Says that something has happened, and to what name; what is so now, the caller has to look up. So
watch, then look: what happens in between wakes the next sleep.
"""

from __future__ import annotations

import ctypes
import os
import struct
from contextlib import suppress

from ipclock._typing import NamedTuple

MODIFIED, ATTRIBUTES, LEFT, CAME, DELETED = 0x2, 0x4, 0x40, 0x80, 0x200  # IN_... of sys/inotify.h
_ONLY_A_FOLDER, _NO_LINK = 0x1000000, 0x2000000
_EVENT = struct.Struct("iIII")
_MOST = 1 << 16  # bytes at once


class Event(NamedTuple):
    """What has happened to a watched file, by the number of its watch; in a watched directory to `name`, else ""."""

    watch: int
    what: int
    name: str


class Inotify:
    """The descriptor `fd`, which can be polled: it is readable when something has happened."""

    def __init__(self) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self.fd = self._checked(self._libc.inotify_init1(os.O_CLOEXEC | os.O_NONBLOCK))

    def watch(self, path: str, what: int, *, directory: bool = False) -> int:
        """Watch for *what* to happen to a file, or in a *directory*; return the number of the watch. Raises OSError.

        No link is followed.
        """
        flags = what | _NO_LINK | (_ONLY_A_FOLDER if directory else 0)
        return self._checked(self._libc.inotify_add_watch(self.fd, os.fsencode(path), flags))

    def forget(self, watch: int) -> None:
        """End a watch; one whose file is gone has ended."""
        self._libc.inotify_rm_watch(self.fd, watch)

    def events(self) -> list[Event]:
        """Return what has happened since the last call. Some of it may be lost in a flood, but not that there was any.

        Never blocks.
        """
        found = []
        with suppress(BlockingIOError):
            while data := os.read(self.fd, _MOST):
                while data:
                    watch, what, _cookie, length = _EVENT.unpack_from(data)
                    name = data[_EVENT.size : _EVENT.size + length].rstrip(b"\0")
                    found.append(Event(watch, what, os.fsdecode(name)))
                    data = data[_EVENT.size + length :]
        return found

    def close(self) -> None:
        """End all watches."""
        os.close(self.fd)

    def _checked(self, result: int) -> int:
        if result < 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
        return result
