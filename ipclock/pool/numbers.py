"""The mutex of a pool, and the numbers beside its records: N, the last ticket, the resets, the lowest priority.

Guarantees: a number changes by one write(2) of fixed width, so a reader, and the next one after a SIGKILL, finds the
old one or the new one. One that was damaged counts as none.
"""

from __future__ import annotations

import os
import time
from contextlib import contextmanager

from ipclock._typing import TYPE_CHECKING
from ipclock.bounded import LAST_PID, LAST_TICKET, LAST_WORD, whole
from ipclock.config.values import MAX_CAPACITY
from ipclock.errors import IpclockError, NoPoolError, from_os
from ipclock.linux.locks import is_locked, try_lock, unlock
from ipclock.pool.directory import Directory

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ipclock.pool.record_name import RecordName

_HIGHEST_NICE, _LOWEST_NICE = -20, 19  # the file counts from there: its numbers have no sign


class Numbers(Directory):
    """The mutex and the numbers of an opened pool directory."""

    # what the state directories hold, as far as it was read in the section that we are in: no other client changes it
    # then
    _seen: dict[str, list[RecordName]] | None = None

    @contextmanager
    def mutex(self, busy: Callable[[float, int], None]) -> Iterator[None]:
        """Hold the pool's mutex. While another process has it, `busy(seconds so far, their PID)` is called often.

        It may raise to stop waiting. The kernel frees the mutex of a dead owner; a stopped one keeps it. An OSError
        inside leaves as PoolPermissionError (77), PoolCreateError (73), or NoPoolError (69): the pool was removed.
        """
        fd = self._fds["mutex"]
        self._lock_mutex(fd, busy)
        self._seen = {}  # what was listed before it had the mutex, others have changed since
        try:
            # names the owner to the waiters (INV-7a); its time stamp says when a section ran last (`idle_s`)
            os.pwrite(fd, b"%-20d\n" % os.getpid(), 0)
            yield
        except FileNotFoundError:
            raise NoPoolError(self.path) from None
        except IpclockError:  # some of ours are OSErrors too
            raise
        except OSError as error:
            raise from_os(error, self.path) from None
        finally:
            self._seen = None
            unlock(fd)

    def _lock_mutex(self, fd: int, busy: Callable[[float, int], None]) -> None:
        begun = time.monotonic()
        pause = 0.00005
        while True:
            if try_lock(fd):
                return
            busy(time.monotonic() - begun, self._number("mutex", LAST_PID) or 0)
            time.sleep(pause)  # F_OFD_SETLKW knows no deadline and would sit out a stopped owner for ever
            pause = min(pause * 2, 0.005 if time.monotonic() - begun < 1 else 0.05)

    def mutex_owner(self) -> int | None:
        """Return the PID that is written into the mutex while a process has it, 0 for none; None while it is free."""
        return (self._number("mutex", LAST_PID) or 0) if is_locked(self._fds["mutex"]) else None

    def idle_s(self) -> float:
        """Return the seconds since the mutex was last taken.

        A step of the wall clock makes it wrong until the next taking.
        """
        return abs(time.time() - os.fstat(self._fds["mutex"]).st_mtime)

    def _number(self, name: str, most: int) -> int | None:
        # a line: what damage has left behind it is never written over
        try:
            line = os.pread(self._fds[name], 32, 0).partition(b"\n")[0]
        except OSError as error:
            raise from_os(error, self.path) from None
        return whole(line.decode(errors="replace").strip(), most)

    def _write_number(self, name: str, value: int) -> None:
        # one pwrite of fixed width: a reader, or the next one after a SIGKILL, sees the old or the new number
        os.pwrite(self._fds[name], b"%020d\n" % value, 0)

    @property
    def capacity(self) -> int | None:
        """The pool's capacity; None in a pool that has none yet, or one that cannot be."""
        # a client that levels to a damaged number would post for hours, in the mutex
        return self._number("capacity", MAX_CAPACITY)

    @capacity.setter
    def capacity(self, value: int) -> None:
        self._write_number("capacity", value)

    @property
    def lowest_priority(self) -> int:
        """The lowest priority, nice(1) says the most favourable, that others than root may ask for."""
        found = self._number("priority", _LOWEST_NICE - _HIGHEST_NICE)
        return 0 if found is None else found + _HIGHEST_NICE

    @lowest_priority.setter
    def lowest_priority(self, value: int) -> None:
        self._write_number("priority", value - _HIGHEST_NICE)

    @property
    def epoch(self) -> int:
        """How many resets the pool has seen."""
        return self._number("epoch", LAST_TICKET) or 0

    @epoch.setter
    def epoch(self, value: int) -> None:
        self._write_number("epoch", value)

    @property
    def era(self) -> tuple[tuple[int, int], int]:
        """Which directory this is and how many resets it has seen: what a holder compares to tell a reset."""
        return self.identity, self.epoch

    @property
    def settled(self) -> bool:
        """Whether it is known that no build of another directory of this name holds units.

        Known under one place: a directory that comes to another one has missed what was there in between.
        """
        # an inode and no mere yes: a directory that becomes the pool's again would still say so (INV-8a)
        return self._number("settled", LAST_WORD) == self.place.status.st_ino

    @settled.setter
    def settled(self, value: bool) -> None:
        self._write_number("settled", self.place.status.st_ino if value else 0)
