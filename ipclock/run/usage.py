"""What a build of this process uses, and whether the kernel ended it for want of memory. Decides nothing."""

from __future__ import annotations

import os
import resource
import signal

from ipclock._typing import TYPE_CHECKING
from ipclock.linux import process
from ipclock.linux.memory import KIB, OomWatch, Peak, high_water

if TYPE_CHECKING:
    from resource import struct_rusage

ROUGHLY = 512 * KIB  # the kernel counts pages by processor, and sums them up now and then


class UsageMeter:
    """Follows one build, from its start until all of its processes that we wait for have ended.

    The kernel says of each process that has ended how large it was, but at least how large we were when it was started:
    until its execve(2) it was a copy of us. So what is not above that tells nothing; of a build that small the samples
    count, and the size of one that ends before the first of them is not known.
    """

    def __init__(self) -> None:
        self.pid = 0
        self._ours = 0
        self._largest = 0
        self._cpu_s = 0.0
        self._watch: OomWatch | None = None
        self._peak: Peak | None = None

    def begin(self, pid: int) -> None:
        """Note the build's process, which has just been started."""
        self.pid = pid
        self._ours = (high_water("self") or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * KIB) + ROUGHLY
        self._watch = OomWatch()
        self._peak = Peak(pid)

    def tick(self) -> None:
        """Take a sample; about once a second will do."""
        if self._peak:
            self._peak.sample()
            if max(self._peak.bytes, self._largest) <= self._ours:  # what is larger the kernel tells at its end
                self._largest = max(self._largest, *map(high_water, (self.pid, *process.descendants_of(self.pid))))

    def reaped(self, used: struct_rusage) -> None:
        """Count what a process of the build, which has ended, and those that it has waited for have used."""
        if used.ru_maxrss * KIB > self._ours:
            self._largest = max(self._largest, used.ru_maxrss * KIB)
        self._cpu_s += used.ru_utime + used.ru_stime

    def ran_out_of_memory(self, status: int) -> bool:
        """Return whether the kernel's OOM killer ended the build, which has come to this *status* (-n for a signal)."""
        return status == -signal.SIGKILL and self._watch is not None and self._watch.killed([self.pid])

    def memory(self) -> int | None:
        """Return the peak in bytes, of all processes together as sampled, or of the largest one as the kernel says.

        None where neither is known.
        """
        return max(self._peak.bytes if self._peak else 0, self._largest) or None

    def cpu_s(self) -> float:
        """Return the seconds of CPU time of all processes that have ended and were waited for."""
        return round(self._cpu_s, 3)


def cores() -> int:
    """Return how many processors we may use (sched_getaffinity(2))."""
    return len(os.sched_getaffinity(0))
