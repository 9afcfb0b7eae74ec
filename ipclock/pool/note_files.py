"""The notes of a pool (`notes`) as files in its directory: a drain, who has changed N, between whom the pool is fair.

Guarantees: a note changes by one rename(2), so a reader finds the old one or the whole new one. One that cannot be read
raises nothing: it drains the pool, or counts for nothing.
"""

from __future__ import annotations

import os
import stat
import time
from contextlib import suppress

from ipclock.pool.directory import NEW, RECORD_FLAGS, SAFE_FLAGS, unlink
from ipclock.pool.notes import Drain, Fairness, Resize, lines, parse_fields
from ipclock.pool.numbers import Numbers

_MOST_BYTES = 1 << 16  # of a note: as many admissions as are ever remembered take half of it


class NoteFiles(Numbers):
    """The notes of an opened pool directory, beside its numbers."""

    @property
    def drained(self) -> bool:
        """Whether no build is to be admitted."""
        return self.drain is not None

    @property
    def drain(self) -> Drain | None:
        """Who keeps builds from being started, and why; None where builds may start.

        What cannot be read or understood keeps them from it all the same.
        """
        try:
            found = self._note("drained")
            drain = Drain.read(*found) if found else None
        except OSError:
            return Drain()
        over = drain and drain.until is not None and drain.until <= time.monotonic()
        return None if over else drain

    @drain.setter
    def drain(self, value: Drain | None) -> None:
        if value is not None:
            self._lay_down("drained", value.fields())
            return
        with suppress(FileNotFoundError):
            unlink("drained", self._root)

    @property
    def resized(self) -> Resize | None:
        """Who has given the pool the capacity that it has, and when; None where it was not changed."""
        with suppress(OSError):
            found = Resize.read(*(self._note("resized") or ({}, 0)))
            return found if found and found.capacity == self.capacity else None
        return None

    def resize(self, capacity: int) -> None:
        """Change the capacity and say so. In the mutex."""
        # killed in between, the note speaks of another capacity than there is, so it counts for nothing
        note = Resize(self.capacity or 0, capacity, os.getuid(), round(time.time(), 3))
        with suppress(OSError):  # it is for people; the number counts
            self._lay_down("resized", note.fields())
        self.capacity = capacity

    @property
    def fairness(self) -> Fairness | None:
        """Between whom the pool is fair, and who was admitted last; None for first come, first served.

        So it is too where the note cannot be read or understood.
        """
        with suppress(OSError):
            found = self._note("fair")
            return Fairness.read(found[0]) if found else None
        return None

    @fairness.setter
    def fairness(self, value: Fairness | None) -> None:
        if value is not None:
            self._lay_down("fair", value.fields())
            return
        with suppress(FileNotFoundError):
            unlink("fair", self._root)

    def _note(self, name: str) -> tuple[dict[str, str], int] | None:
        """Return what a note says, and whose file it is; None where it is not there. Raises OSError."""
        try:
            fd = os.open(name, os.O_RDONLY | SAFE_FLAGS, dir_fd=self._root)
        except FileNotFoundError:
            return None
        try:
            status = os.fstat(fd)
            return parse_fields(os.read(fd, _MOST_BYTES)) if stat.S_ISREG(status.st_mode) else {}, status.st_uid
        finally:
            os.close(fd)

    def _lay_down(self, name: str, fields: dict[str, str]) -> None:
        """Write a note. In the mutex, in which no client sweeps what has no lock in `new/`."""
        fd, draft = self._new_file()
        try:
            os.write(fd, lines(fields))
            # a rename: a reader without the mutex finds the old note or the whole new one
            os.rename(draft, name, src_dir_fd=self._fds[NEW], dst_dir_fd=self._root)
        except IsADirectoryError:
            unlink(name, self._root)
            os.rename(draft, name, src_dir_fd=self._fds[NEW], dst_dir_fd=self._root)
        except OSError:
            os.unlink(draft, dir_fd=self._fds[NEW])
            raise
        finally:
            os.close(fd)

    def _new_file(self) -> tuple[int, str]:
        """Make a file in `new/`; return its descriptor and its name."""
        name = f"{os.getpid()}.{time.monotonic_ns()}"
        with self.creating():
            return os.open(name, RECORD_FLAGS | os.O_CREAT | os.O_EXCL, self.mode, dir_fd=self._fds[NEW]), name
