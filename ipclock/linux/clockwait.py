"""Sleeping on a named semaphore by the monotonic clock: sem_clockwait of glibc 2.30, which posix_ipc does not know.

sem_timedwait(3) sleeps until a time on the wall clock. If that is set back by an hour meanwhile, the sleeper oversleeps
by an hour, however short its chunks are: its time limit passes, and a dead holder is not noticed. Loaded only by those
who have to sleep.
"""

from __future__ import annotations

import ctypes
import time

_LIBC = ctypes.CDLL(None)
_LIBC.sem_open.restype = ctypes.c_void_p
_TIMESPEC = ctypes.c_long * 2
AVAILABLE = hasattr(_LIBC, "sem_clockwait")


def open_again(name: str) -> int | None:
    """Return the address of a semaphore that this process has open: there is one mapping of a file. None: gone."""
    address: int | None = _LIBC.sem_open(name.encode(), 0)
    return address


def wait(address: int, seconds: float) -> bool:
    """Take one unit within *seconds*; return whether it was taken. False comes early when a signal was handled."""
    until = _TIMESPEC(*divmod(time.monotonic_ns() + int(seconds * 1e9), 10**9))
    clock = ctypes.c_int(time.CLOCK_MONOTONIC)
    return bool(_LIBC.sem_clockwait(ctypes.c_void_p(address), clock, ctypes.byref(until)) == 0)


def close(address: int) -> None:
    """Undo `open_again`."""
    _LIBC.sem_close(ctypes.c_void_p(address))
