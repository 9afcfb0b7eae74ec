"""Who is called or freed is woken by a semaphore: it comes at once also where a chunk of sleep lasts an hour."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

from tests.helpers.world import HANG_S, until

if TYPE_CHECKING:
    from tests.helpers.world import World

SLEEPER = """
import sys
from ipclock import pool
from ipclock.patience import Patience
pool.GATE_CHUNK_S = pool.TURN_CHUNK_S = 3600.0
here = pool.Pool.open(sys.argv[1], "/dev/shm")
claim = here.acquire(pool.Claim("sleeper"), Patience(3600.0))
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
