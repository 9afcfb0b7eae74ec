"""What a hand-off and a wait cost, in counts that no other load on the machine changes."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.crash.sweep import problem
from tests.helpers.world import until

if TYPE_CHECKING:
    from tests.helpers.world import Build, World

WRAP = [sys.executable, "-m", "ipclock", "wrap", "-q"]
OUT = re.compile(r"fcntl\(\d+, F_OFD_SETLK, \{l_type=F_UNLCK")
SECONDS = 5


def traced(world: World, log: Path, label: str, *command: str) -> Build:
    """Start a build under strace, which notes the calls of our process alone."""
    if reason := problem():
        pytest.skip(reason)
    return world.spawn("strace", "-qq", "-o", str(log), *WRAP, label, "--", *command)


def test_from_the_end_of_a_build_to_the_post_it_takes_forty_five_calls_at_most(world: World, tmp_path: Path) -> None:
    log = tmp_path / "log"

    def hand_off() -> list[str]:
        """Return the calls from the beacon's end to the post; none if the waiter was not asleep, so not to be woken."""
        holder = traced(world, log, "holder", "sh", "-c", "echo ready 0; read word")
        holder.line()
        waiter = world.wrap("waiter", "-q")
        until(lambda: world.records("gate"), "the waiter at the gate")
        holder.tell("go")
        assert (holder.wait(), waiter.started().end()) == (0, 0)
        calls = log.read_text().splitlines()
        *_, beacon, _mutex = [place for place, call in enumerate(calls) if OUT.match(call)]
        posts = [place for place, call in enumerate(calls) if place > beacon and "FUTEX_WAKE," in call]
        return calls[beacon : posts[0]] if posts else []

    calls = until(hand_off, "a hand-off to one who sleeps")

    # and no look at whether the pool is fair
    assert (len(calls) <= 45, [call for call in calls if '"fair"' in call]) == (True, [])


def test_from_the_wake_up_to_the_start_of_a_build_it_takes_seventy_calls_at_most(world: World, tmp_path: Path) -> None:
    log = tmp_path / "log"

    def hand_off() -> list[str]:
        """Return the calls from the last sleep on; none if the waiter was not asleep when its turn came."""
        holder = world.wrap("holder").started()
        waiter = traced(world, log, "waiter", "true")
        until(lambda: world.records("gate"), "the waiter at the gate")
        until(lambda: "FUTEX_WAIT_BITSET," in log.read_text(), "the waiter asleep")
        holder.end()
        waiter.wait()
        calls = log.read_text().splitlines()
        asleep = [place for place, call in enumerate(calls) if "FUTEX_WAIT_BITSET," in call][-1]
        return [] if "ETIMEDOUT" in calls[asleep] else calls[asleep:]

    calls = until(hand_off, "a hand-off to one who sleeps")
    start = next(place for place, call in enumerate(calls) if "CLONE_VFORK" in call or call.startswith("vfork"))

    assert (start <= 70, [call for call in calls if '"fair"' in call]) == (True, [])


def test_who_waits_wakes_up_about_once_a_second(world: World) -> None:
    holder = world.wrap("holder").started()
    at_gate = world.wrap("at the gate", "-q")
    until(lambda: world.records("gate"), "the first waiter at the gate")
    in_line = world.wrap("in line", "-q")
    until(world.turns, "the second waiter asleep")

    before = [wake_ups(waiter.process.pid) for waiter in (at_gate, in_line)]
    time.sleep(SECONDS)
    after = [wake_ups(waiter.process.pid) for waiter in (at_gate, in_line)]
    holder.end()

    assert [late - early <= 2 * SECONDS for early, late in zip(before, after, strict=True)] == [True, True]
    assert (at_gate.started().end(), in_line.started().end()) == (0, 0)


def wake_ups(pid: int) -> int:
    """Return how often all threads of the process have gone to sleep."""
    texts = [path.read_text() for path in Path(f"/proc/{pid}/task").glob("*/status")]
    return sum(int(text.partition("nonvoluntary")[0].partition("voluntary_ctxt_switches:")[2]) for text in texts)


def test_starting_a_build_opens_no_file_of_the_machine_but_what_it_needs(world: World, tmp_path: Path) -> None:
    if reason := problem():
        pytest.skip(reason)
    world.run("wrap", "first", "--", "true")  # a new pool looks for builds of an older one
    result = subprocess.run(
        ["strace", "-qq", "-e", "trace=openat", "-o", tmp_path / "log", *WRAP, "a", "--", "true"],
        env=world.env,
        check=False,
    )

    opened = re.findall(r'openat\([^,]+, "(/proc/[^"]*|/sys/[^"]*)"', (tmp_path / "log").read_text())
    per_process = [path for path in opened if re.match(r"/proc/\d", path)]
    assert (result.returncode, len(per_process) <= 8, len(opened) <= 30) == (0, True, True)
