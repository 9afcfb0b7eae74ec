"""The clocks since boot, as the machine's first time namespace has them (time_namespaces(7)).

Another one shifts what time.monotonic() and the start times in /proc say. What others read is written by the first
one's clocks.
"""

from __future__ import annotations

import os
import time
from functools import cache

from ipclock.linux import procfs

_FIRST = 0xEFFFFFFA  # PROC_TIME_INIT_INO of include/linux/proc_ns.h


@cache
def boot_id() -> str:
    """Return the id of this boot (random(4)). Raises OSError."""
    return procfs.text("/proc/sys/kernel/random/boot_id").strip()


@cache
def _offsets() -> dict[str, int] | None:
    """Return how many nanoseconds each clock is ahead of the first namespace's; None where that cannot be told."""
    try:
        ours = os.stat("/proc/self/ns/time").st_ino
        if ours == _FIRST:
            return {}
        if ours != os.stat("/proc/self/ns/time_for_children").st_ino:
            return None  # the file is about that one
        rows = procfs.fields("/proc/self/timens_offsets")
    except FileNotFoundError:  # a kernel without time namespaces, or no /proc
        return {}
    return {clock: int(seconds) * 10**9 + int(nanoseconds) for clock, (seconds, nanoseconds) in rows.items()}


def ahead() -> float:
    """Return how many seconds time.monotonic() is ahead of the first namespace's; 0 where that cannot be told."""
    return (_offsets() or {}).get("monotonic", 0) / 1e9


def monotonic() -> float:
    """Return time.monotonic() of the first namespace."""
    return time.monotonic() - ahead()


def elapsed(begun: float | None, now: float) -> float | None:
    """Return the seconds since a moment, to the millisecond, 0 where clocks disagree; None where it is not known."""
    return None if begun is None else round(max(0.0, now - begun), 3)


def starts_ahead() -> int | None:
    """Return how many nanoseconds the start times in /proc are ahead; None where that cannot be told."""
    offsets = _offsets()
    return None if offsets is None else offsets.get("boottime", 0)
