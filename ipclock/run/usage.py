"""What a build of this process uses, and whether the kernel ended it for want of memory. Decides nothing."""

from __future__ import annotations

import os
import signal

from ipclock._typing import TYPE_CHECKING
from ipclock.linux.memory import KIB, OomWatch, Peak

if TYPE_CHECKING:
    from resource import struct_rusage


class UsageMeter:
    """Follows one build, from its start until all of its processes that we wait for have ended."""

    def __init__(self) -> None:
        self.pid = 0
        self._largest = 0
        self._cpu_s = 0.0
        self._watch: OomWatch | None = None
        self._peak: Peak | None = None

    def begin(self, pid: int) -> None:
        """Note the build's process, which has just been started."""
        self.pid = pid
        self._watch = OomWatch()
        self._peak = Peak(pid)

    def tick(self) -> None:
        """Take a sample; about once a second will do."""
        if self._peak:
            self._peak.sample()

    def reaped(self, used: struct_rusage) -> None:
        """Count what a process of the build, which has ended, and those that it has waited for have used."""
        self._largest = max(self._largest, used.ru_maxrss * KIB)
        self._cpu_s += used.ru_utime + used.ru_stime

    def ran_out_of_memory(self, status: int) -> bool:
        """Return whether the kernel's OOM killer ended the build, which has come to this *status* (-n for a signal)."""
        return status == -signal.SIGKILL and self._watch is not None and self._watch.killed([self.pid])

    def memory(self) -> int:
        """Return the peak in bytes, of all processes together as sampled, or of the largest one as the kernel says."""
        return max(self._peak.bytes if self._peak else 0, self._largest)

    def cpu_s(self) -> float:
        """Return the seconds of CPU time of all processes that have ended and were waited for."""
        return round(self._cpu_s, 3)


def cores() -> int:
    """Return how many processors we may use (sched_getaffinity(2))."""
    return len(os.sched_getaffinity(0))
