"""A second process that ends a build in time if its supervisor cannot: because it was killed, stopped, or hangs.

On an engine whose slots are lost to time, a build must not outlive the moment up to which its slot is vouched for. The
supervisor tells the watchdog that moment again and again; if it does not, the watchdog acts.
"""

from __future__ import annotations

import os
import struct
import time
from contextlib import suppress

from ipclock.linux import polling, process, terminal, terminate

NEWS = struct.Struct("idd")
LOOK_S = 1.0


class Watchdog:
    """Make it before there are threads: they do not fork. It is no child of ours, so no build is kept by it."""

    def __init__(self) -> None:
        reading, self._writing = os.pipe()
        pid = os.fork()
        if pid == 0:
            try:
                if os.fork() == 0:
                    os.close(self._writing)
                    terminal.leave()
                    os.chdir("/")  # no mount is kept busy
                    _stand_by(reading)
            finally:
                os._exit(0)
        os.close(reading)
        os.set_blocking(self._writing, False)
        os.waitpid(pid, 0)

    def renew(self, pid: int, until: float, grace: float) -> None:
        """Tell that the build *pid* may run until then (time.monotonic), less *grace*; 0 for one that has ended."""
        with suppress(OSError):  # full, if the watchdog is stopped; gone, if it was killed
            os.write(self._writing, NEWS.pack(pid, until, grace))


def _stand_by(reading: int) -> None:
    build: process.Identity | None = None
    until = grace = float("inf")
    supervised = True
    while supervised or (build and process.exists(build)):
        left = max(0.0, min(LOOK_S, until - grace - time.monotonic())) if build else LOOK_S
        if polling.readable([reading] if supervised else [], left):
            news = os.read(reading, NEWS.size)
            supervised = len(news) == NEWS.size
            if supervised:
                pid, until, grace = NEWS.unpack(news)
                if not pid:
                    return
                with suppress(OSError):
                    build = build or process.identify(pid)
        elif build and time.monotonic() >= until - grace:
            _end_build(build, until)
            return


def _end_build(build: process.Identity, until: float) -> None:
    terminate.end(lambda: [build.pid] if process.exists(build) else [], grace_s=max(0.0, until - time.monotonic()))
