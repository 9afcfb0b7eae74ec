"""Who is called or freed is woken at once, also where a chunk of sleep lasts an hour."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, cast

import pytest

from ipclock.linux.exit_watcher import ExitWatcher
from ipclock.pool import policy
from ipclock.pool.claim import Claim
from ipclock.pool.protocol import Pool
from ipclock.pool.wait_context import WaitContext
from tests.helpers.world import HANG_S, until

if TYPE_CHECKING:
    from collections.abc import Callable

    from ipclock.linux.semaphore import Semaphore
    from tests.helpers.world import World

SLEEPER = """
import sys
from ipclock.linux.exit_watcher import ExitWatcher
from ipclock.pool import policy, protocol
from ipclock.pool.wait_context import WaitContext
protocol.FIRST_CHUNK_S = protocol.GATE_CHUNK_S = protocol.BLIND_CHUNK_S = 3600.0
policy.NEAR_NAP_S = policy.LONGEST_NAP_S = 3600.0
class Watching(WaitContext):
    def watching(self, find):
        return ExitWatcher(find())
here = protocol.Pool.open(sys.argv[1], "/dev/shm")
claim = here.acquire(protocol.Claim("sleeper"), Watching(3600.0))
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


class Dozing:
    """A turn that is never posted: while one sleeps on it, these things happen, one a sleep."""

    def __init__(self, *meanwhile: Callable[[], object]) -> None:
        self.naps: list[float] = []
        self._meanwhile = iter(meanwhile)

    def wait(self, seconds: float) -> bool:
        """Sleep for no time at all."""
        self.naps.append(seconds)
        next(self._meanwhile, sys.exit)()
        return False

    def replaced(self) -> bool:
        """Nobody replaces it."""
        return False

    def close(self) -> None:
        """Forget it."""


def test_who_stands_far_back_sleeps_longer_until_it_is_near(world: World) -> None:
    here = Pool.open(world.name, "/dev/shm")
    context = WaitContext(3600.0)
    line = [Claim(f"waiter {number}") for number in range(100)]
    for claim in line:
        here.arrive(claim, context)
    last = line.pop()

    def leave(count: int) -> None:
        while len(line) >= count:
            here.give_up(line.pop())

    turn = Dozing(lambda: None, lambda: leave(60), lambda: leave(2), lambda: None)
    here.stake(last).turn = cast("Semaphore", turn)
    with pytest.raises(SystemExit):
        here.wait_turn(last, context)
    for claim in (*line, last):
        here.give_up(claim)
    here.close()

    assert turn.naps == [policy.nap(place) for place in (100, 100, 60, 1, 1)]


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
    with (
        ExitWatcher([own]) as seen,
        ExitWatcher([own, [gone.pid]]) as unseen,
        ExitWatcher([[gone.pid, *own]]) as orphan,
    ):
        pass

    assert (seen, unseen, orphan) == (True, False, True)


def test_the_end_of_a_build_whose_supervisor_lives_wakes_nobody() -> None:
    woken: list[int] = []
    build, other = (subprocess.Popen(["sleep", "60"]) for _ in range(2))
    with ExitWatcher([[os.getpid(), build.pid], [build.pid, os.getpid()], [other.pid]]):
        signal.signal(signal.SIGURG, lambda number, _frame: woken.append(number))
        build.kill()
        build.wait()
        assert signal.sigtimedwait([], 0.2) is None
        before = list(woken)
        other.kill()
        other.wait()
        until(lambda: woken, "the wake-up")

    assert before == []
