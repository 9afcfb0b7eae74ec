"""Waiting for descriptors, whatever their numbers."""

from __future__ import annotations

import fcntl
import os
import resource

from ipclock.linux import polling


def test_a_descriptor_that_select_does_not_know_is_waited_for() -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(4096, before[1]), before[1]))
    reading, writing = os.pipe()
    high = fcntl.fcntl(reading, fcntl.F_DUPFD_CLOEXEC, 2000)
    try:
        empty = polling.readable([high, reading], 0)
        os.write(writing, b"x")
        full = polling.readable([high, reading], 10)
        os.read(reading, 1)
        os.close(writing)
        closed = polling.readable([high], 10)
    finally:
        os.close(high)
        os.close(reading)
        resource.setrlimit(resource.RLIMIT_NOFILE, before)

    assert (high, empty, full, closed) == (2000, [], [high, reading], [high])
