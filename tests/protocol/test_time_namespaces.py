"""Clients whose clocks since boot are shifted, in a time namespace: they and others know each other's processes."""

from __future__ import annotations

import json
import sys
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from tests.helpers.crash_at import child, unshared
from tests.helpers.machine import ROOT
from tests.helpers.world import until

if TYPE_CHECKING:
    from tests.helpers.world import Build, World

# an offset of whole clock ticks, one of a part of one, one that puts the start of all that runs before zero
SHIFTS = {"ahead": (100_000, 0), "part of a tick": (100_000, 5_000_000), "behind": (-1, 0)}
SHIFT = """
import ctypes, os, sys
if ctypes.CDLL(None).unshare(0x80):  # CLONE_NEWTIME
    sys.exit("no time namespace")
seconds, nanoseconds, *command = sys.argv[1:]
if seconds == "-1":
    seconds = str(-int(float(open("/proc/uptime").read().split()[0])))
for clock in ("monotonic", "boottime"):
    with open("/proc/self/timens_offsets", "w") as file:
        file.write(f"{clock} {seconds} {nanoseconds}")
pid = os.fork()
if pid == 0:
    os.execv(command[0], command)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"""


def start(world: World, shift: str, script: str) -> Build:
    """Start a shell script in a time namespace of its own, where `ipclock` is what is tested."""
    unshared(["-T"], "true")
    shell = ["/bin/sh", "-uc", f'ipclock() {{ "$0" -m ipclock "$@"; }}\n{script}', sys.executable]
    into = [sys.executable, "-c", SHIFT, *map(str, SHIFTS[shift]), *shell]
    return world.spawn(*into, env={"PYTHONPATH": str(ROOT)})


def shifted(world: World, shift: str, script: str) -> tuple[int, list[str]]:
    """Run the script; return (exit status, lines on stdout)."""
    ran = start(world, shift, script)
    assert ran.process.stdout
    return ran.wait(), ran.process.stdout.read().decode().splitlines()


def late(world: World) -> int:
    return world.run("wrap", "-q", "-n", "late", "--", "true").returncode


@pytest.mark.parametrize("shift", SHIFTS)
def test_a_slot_of_a_process_outside_counts_for_those_inside_until_that_ends(shift: str, world: World) -> None:
    with child() as pid:
        assert world.run("acquire", "--pid", str(pid), "outside").returncode == 0

        inside = shifted(world, shift, "ipclock wrap -q -n late -- true; echo $?; ipclock status --json")
        kept = late(world)
    after = shifted(world, shift, "ipclock wrap -q -n late -- true; echo $?")

    shown: dict[str, Any] = json.loads("".join(inside[1][1:]))
    [holder] = shown["holders"]
    assert (inside[1][0], holder["label"], holder["held_s"] < 60, kept, after) == (
        "75",
        "outside",
        True,
        75,
        (0, ["0"]),
    )


@pytest.mark.parametrize("shift", SHIFTS)
def test_a_slot_of_a_process_inside_counts_for_those_outside_until_that_ends(shift: str, world: World) -> None:
    script = """
sleep 1000 >/dev/null 2>&1 </dev/null & pid=$!
ipclock acquire -q --pid $pid inside
ipclock wrap -q -n late -- true; echo $?
read -r _
kill -9 $pid
"""
    inside = start(world, shift, script)

    found = [inside.line(), inside.line(), late(world), world.status()["holders"][0]["held_s"] < 60]
    inside.tell("go on")

    assert (found, inside.wait(), late(world)) == (["1", "75", 75, True], 0, 0)


def test_a_build_is_nested_in_one_from_outside_of_the_time_namespace(world: World) -> None:
    inside = "import os, subprocess, sys; sys.exit(subprocess.run(sys.argv[1:]).returncode)"  # closes the beacon
    late = ("wrap", "-q", "-n", "late", "--", "true")
    shift = [sys.executable, "-c", SHIFT, "100000", "0", sys.executable, "-c", inside]
    unshared(["-T"], "true")

    built = world.run("wrap", "-q", "outer", "--", *shift, sys.executable, "-m", "ipclock", *late)

    assert (built.returncode, built.stderr, world.settled()) == (0, "", (1, {}))


@pytest.mark.parametrize("shift", SHIFTS)
def test_a_drain_ends_in_time_inside_and_outside(shift: str, world: World) -> None:
    world.ask("init")

    world.run("drain", "--for", "1h")
    inside = shifted(world, shift, "ipclock wrap -q -n late -- true; echo $?; ipclock status --json")
    ends = world.status()["drain"]["until"], json.loads("".join(inside[1][1:]))["drain"]["until"]
    apart = abs(datetime.fromisoformat(ends[0]) - datetime.fromisoformat(ends[1]))
    shifted(world, shift, "ipclock drain --for 1s")
    over = until(lambda: world.run("wrap", "-q", "-n", "late", "--", "true").returncode == 0, "the end of the drain")

    assert (inside[1][0], apart < timedelta(seconds=5), over) == ("75", True, True)


@pytest.mark.parametrize("shift", SHIFTS)
def test_a_script_inside_knows_the_slot_that_it_has_taken_as_its_own(shift: str, world: World) -> None:
    script = """
ticket=$(ipclock acquire -q mine)
ipclock wrap -q -n inner -- echo nested
ipclock release "$ticket" 2>&1; echo $?
"""

    assert (shifted(world, shift, script), world.settled()) == ((0, ["nested", "0"]), (1, {}))


@pytest.mark.parametrize("shift", SHIFTS)
def test_a_reset_ends_the_build_on_the_other_side_of_the_namespaces_edge(shift: str, world: World) -> None:
    build = "ipclock wrap -q build -- sleep 1000 & echo; wait $!; echo $?"
    inside = start(world, shift, build)
    until(lambda: world.records("holding"), "the build inside")
    by_outside = world.run("reset", "--kill").returncode, [inside.line(), inside.line()]

    outside = world.wrap("outside").started()
    by_inside = shifted(world, shift, "ipclock reset --kill 2>/dev/null; echo $?"), outside.wait()

    assert (by_outside, by_inside) == ((0, ["", "143"]), ((0, ["0"]), -15))
