"""The wall clock is set by an hour while somebody waits and somebody holds: limits, order and slots do not notice.

Our processes alone see the step (tests/helpers/wall_clock.c). The stamps of files stay the machine's, so the last
section always looks an hour off.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.helpers.world import until

if TYPE_CHECKING:
    from tests.helpers.world import Build, World

HOUR = 3600
LIMIT_S = 2.0
SOURCE = Path(__file__).parent.parent / "helpers" / "wall_clock.c"


class Clock:
    """The wall clock that processes with `env` see: `set` moves it off the machine's."""

    def __init__(self, path: Path, library: Path) -> None:
        self._path = path
        self.env = {"LD_PRELOAD": str(library), "WALL_CLOCK": str(path)}
        path.write_bytes(bytes(8))

    def set(self, seconds: int) -> None:
        """Step to so many seconds off the machine's time."""
        with self._path.open("r+b") as file:
            file.write(seconds.to_bytes(8, sys.byteorder, signed=True))


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The clock that can be set, for LD_PRELOAD."""
    if shutil.which("gcc") is None:
        pytest.skip("gcc is not installed")
    made = tmp_path_factory.mktemp("library") / "wall_clock.so"
    subprocess.run(["gcc", "-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-o", made, SOURCE, "-ldl"], check=True)
    return made


@pytest.fixture
def clock(tmp_path: Path, library: Path, world: World) -> Clock:
    """A clock for all processes of the world."""
    made = Clock(tmp_path / "clock", library)
    world.env |= made.env
    return made


def pair(world: World, *options: str) -> tuple[Build, Build]:
    """Return a holder and a waiter at the gate."""
    holder = world.wrap("holder").started()
    waiter = world.wrap("waiter", *options)
    until(lambda: world.records("gate"), "the waiter at the gate")
    return holder, waiter


def another_build(world: World) -> tuple[int, int, dict[str, list[str]]]:
    """Return what becomes of one more build: its status, the value after it, what is left."""
    status = world.run("wrap", "-q", "-w", "20", "another", "--", "true").returncode
    return status, *world.settled()


STEPS = {"forth": (HOUR,), "back": (-HOUR,), "forth and back": (HOUR, -HOUR), "back and forth": (-HOUR, HOUR)}


@pytest.mark.parametrize("step", [HOUR, -HOUR])
def test_our_processes_see_the_step_on_the_wall_clock_alone(step: int, clock: Clock, world: World) -> None:
    code = "import sys, time; print(time.time(), time.monotonic()); sys.stdin.readline()"
    clock.set(step)

    wall, monotonic = map(float, world.spawn(sys.executable, "-uc", code).line().split())

    assert (abs(wall - time.time() - step) < HOUR / 2, abs(monotonic - time.monotonic()) < HOUR / 2) == (True, True)


@pytest.mark.parametrize("how", STEPS)
def test_the_time_limit_of_a_wait_stays_the_same(how: str, clock: Clock, world: World) -> None:
    begun = time.monotonic()
    holder, waiter = pair(world, "-w", f"{LIMIT_S:g}")

    for step in STEPS[how]:
        clock.set(step)
    status = waiter.wait()

    assert (status, time.monotonic() - begun >= LIMIT_S, holder.end(), another_build(world)) == (
        75,
        True,
        0,
        (0, 1, {}),
    )


@pytest.mark.parametrize("how", STEPS)
def test_the_waiters_get_their_slots_in_order(how: str, clock: Clock, world: World) -> None:
    holder, first = pair(world)
    second = world.wrap("second")
    until(world.turns, "the second one asleep on its turn")

    for step in STEPS[how]:
        clock.set(step)
    ended = holder.end()
    order = [first.started().end(), second.started().end()]

    assert (ended, order, another_build(world)) == (0, [0, 0], (0, 1, {}))


@pytest.mark.parametrize("how", STEPS)
def test_a_holder_keeps_its_slot_and_its_age(how: str, clock: Clock, world: World) -> None:
    holder = world.wrap("holder").started()

    for step in STEPS[how]:
        clock.set(step)
    row = world.status()["holders"][0]
    refused = world.run("wrap", "-n", "late", "--", "true").returncode

    assert (row["state"], row["held_s"] < HOUR / 2, refused, holder.end(), another_build(world)) == (
        "running",
        True,
        75,
        0,
        (0, 1, {}),
    )


@pytest.mark.parametrize("how", STEPS)
def test_the_slot_of_a_killed_build_is_given_on(how: str, clock: Clock, world: World) -> None:
    holder, waiter = pair(world)

    for step in STEPS[how]:
        clock.set(step)
    holder.signal(signal.SIGKILL)
    os.kill(holder.command_pid, signal.SIGKILL)

    assert (waiter.started().end(), another_build(world)) == (0, (0, 1, {}))


@pytest.mark.parametrize("how", STEPS)
def test_a_slot_for_a_process_is_kept_as_long_as_the_process_lives(how: str, clock: Clock, world: World) -> None:
    owner = world.spawn("sleep", "1000")
    taken = world.run("acquire", "--pid", str(owner.pid), "bound").returncode

    for step in STEPS[how]:
        clock.set(step)
    refused = world.run("wrap", "-n", "late", "--", "true").returncode
    owner.signal(signal.SIGKILL)
    owner.wait()

    assert (taken, refused, another_build(world)) == (0, 75, (0, 1, {}))
