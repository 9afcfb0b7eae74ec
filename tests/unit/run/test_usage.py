"""What a build has used, as its meter tells: real processes, started from this large one."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

import pytest

from ipclock.linux import memory
from ipclock.run.usage import UsageMeter

if TYPE_CHECKING:
    from collections.abc import Sequence

MIB = 1 << 20
BUSYBODY = "import os, sys; kept = bytearray(b'1') * int(sys.argv[1]); os.write(1, b'x'); os.read(0, 1)"
PYTHON = [sys.executable, "-I", "-S", "-c", BUSYBODY]


@pytest.fixture(autouse=True)
def large() -> None:
    """This process was much larger than a small build once."""
    bytearray(b"1") * (64 * MIB)


def measured(command: Sequence[str], ticks: int) -> int | None:
    """Return the memory of a build that writes once it is grown and ends at a byte, looked at so many times between."""
    heard, writing = os.pipe()
    reading, told = os.pipe()
    streams = [(os.POSIX_SPAWN_DUP2, reading, 0), (os.POSIX_SPAWN_DUP2, writing, 1)]
    meter = UsageMeter()
    pid = os.posix_spawnp(command[0], command, os.environ, file_actions=streams)
    meter.begin(pid)
    os.read(heard, 1)
    for _ in range(ticks):
        meter.tick()
    os.write(told, b"\n")
    meter.reaped(os.wait4(pid, 0)[2])
    for fd in (heard, writing, reading, told):
        os.close(fd)
    return meter.memory()


def test_of_a_small_build_that_was_seen_its_own_memory_counts_and_not_ours() -> None:
    found = measured(["sh", "-c", "echo x; read line"], ticks=1)

    assert found is not None
    assert (0 < found < 8 * MIB < memory.high_water("self")) is True


def test_the_size_of_a_small_build_that_nobody_saw_is_not_known() -> None:
    assert measured(["sh", "-c", "echo x; read line"], ticks=0) is None


@pytest.mark.parametrize("ticks", [0, 1])
def test_of_a_large_build_its_memory_is_known_whether_it_was_seen_or_not(ticks: int) -> None:
    size = memory.high_water("self") + 50 * MIB

    found = measured([*PYTHON, str(size)], ticks)

    assert found is not None
    assert (size <= found < size + 32 * MIB) is True


def test_what_was_there_between_two_looks_counts() -> None:
    freed = "import os, sys; bytearray(b'1') * (40 << 20); os.write(1, b'x'); os.read(0, 1)"

    found = measured([sys.executable, "-I", "-S", "-c", freed], ticks=1)

    assert found is not None
    assert (40 * MIB <= found < 64 * MIB) is True


def test_of_who_is_gone_or_a_zombie_there_is_no_high_water() -> None:
    pid = os.posix_spawnp("true", ["true"], os.environ)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    zombie = memory.high_water(pid)
    os.waitpid(pid, 0)

    assert (zombie, memory.high_water(pid)) == (0, 0)
