"""Who is called or freed is woken at once, also where a chunk of sleep lasts an hour."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from ipclock.deaths import Deaths
from tests.helpers.world import HANG_S, until

if TYPE_CHECKING:
    from tests.helpers.world import World

SLEEPER = """
import sys
from ipclock import pool
from ipclock.deaths import Deaths
from ipclock.patience import Patience
pool.FIRST_CHUNK_S = pool.GATE_CHUNK_S = pool.BLIND_CHUNK_S = pool.TURN_CHUNK_S = 3600.0
here = pool.Pool.open(sys.argv[1], "/dev/shm")
claim = here.acquire(pool.Claim("sleeper"), Patience(3600.0, watching=lambda find: Deaths(find())))
here.release(claim)
"""


def test_a_release_reaches_the_gate_and_a_call_reaches_the_line_without_a_tick(world: World) -> None:
    holder = world.wrap("holder").started()
    sleepers = []
    for count in (1, 2):
        sleepers.append(subprocess.Popen([sys.executable, "-c", SLEEPER, world.name], env=world.env))
        world.extra.append(sleepers[-1].pid)
        until(lambda count=count: world.waiting() == count, f"sleeper {count} in line")
    until(world.turns, "the second sleeper's turn")

    holder.end()

    assert ([sleeper.wait(HANG_S) for sleeper in sleepers], world.settled()) == ([0, 0], (1, {}))


@pytest.mark.parametrize("supervisor_first", [True, False])
def test_a_build_that_dies_with_its_supervisor_wakes_the_gate_without_a_tick(
    world: World, supervisor_first: bool
) -> None:
    holder = world.wrap("holder").started()
    sleeper = subprocess.Popen([sys.executable, "-c", SLEEPER, world.name], env=world.env)
    world.extra.append(sleeper.pid)
    until(lambda: world.records("gate") and sleeping(sleeper.pid), "the sleeper at the gate")

    if supervisor_first:
        holder.signal(signal.SIGKILL)
        holder.wait()
        world.kill(holder.command_pid)
    else:
        holder.signal(signal.SIGSTOP)
        world.kill(holder.command_pid)
        holder.signal(signal.SIGKILL)

    assert (sleeper.wait(HANG_S), world.settled()) == (0, (1, {}))


def sleeping(pid: int) -> bool:
    """Return whether the process sleeps in futex(2), and a second thread of it in poll(2)."""
    threads = Path(f"/proc/{pid}/task").iterdir()
    return sorted((thread / "wchan").read_text().partition("_")[0] for thread in threads) == ["futex", "poll"]


def test_what_cannot_be_watched_is_told() -> None:
    gone = subprocess.Popen(["true"])
    gone.wait()
    own = [os.getpid()]
    with Deaths([own]) as seen, Deaths([own, [gone.pid]]) as unseen, Deaths([[gone.pid, *own]]) as orphan:
        pass

    assert (seen, unseen, orphan) == (True, False, True)


def test_the_end_of_a_build_whose_supervisor_lives_wakes_nobody() -> None:
    woken: list[int] = []
    build, other = (subprocess.Popen(["sleep", "60"]) for _ in range(2))
    with Deaths([[os.getpid(), build.pid], [build.pid, os.getpid()], [other.pid]]):
        signal.signal(signal.SIGURG, lambda number, _frame: woken.append(number))
        build.kill()
        build.wait()
        assert signal.sigtimedwait([], 0.2) is None
        before = list(woken)
        other.kill()
        other.wait()
        until(lambda: woken, "the wake-up")

    assert before == []
