"""Clients to whom /proc shows the processes of another PID namespace, or which have no /proc."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

from tests.helpers.crash_at import unshared
from tests.helpers.machine import ROOT, in_a_world_where

if TYPE_CHECKING:
    from tests.helpers.world import World

NO_PROC = "umount -l /proc"


def inside(world: World, script: str) -> list[str]:
    """Return what a shell script prints in a PID namespace of its own, with the /proc of the one around it."""
    ipclock = 'ipclock() { "$0" -m ipclock "$@"; }'
    env = world.env | {"PYTHONPATH": str(ROOT)}
    unshared(["-p", "-f"], "true")
    command = ["unshare", "-p", "-f", "--kill-child", "sh", "-uc", f"{ipclock}\n{script}", sys.executable]
    ran = world.spawn(*command, env=env)
    assert ran.process.stdout
    ran.wait()
    return ran.process.stdout.read().decode().splitlines()


def test_a_slot_is_bound_to_the_process_here_and_not_to_the_one_that_proc_has_by_its_pid(world: World) -> None:
    script = """
sleep 1000 >/dev/null 2>&1 </dev/null & pid=$!
ipclock acquire -q --pid $pid held
ipclock wrap -q -n late -- true; echo $?
kill -9 $pid; wait $pid
ipclock wrap -q -n late -- true; echo $?
"""

    lines = inside(world, script)

    assert lines == ["1", "75", "0"]


def test_a_script_gets_its_slot_for_itself_and_gives_it_back(world: World) -> None:
    script = """
ticket=$(ipclock acquire -q mine)
ipclock status | sed -n 's/.*\\(mine (PID: [0-9]*)\\).*/\\1/p'; echo $$
ipclock release -q $ticket
ipclock wrap -q -n late -- true; echo $?
"""

    assert inside(world, script) == ["mine (PID: 1)", "1", "0"]


def test_a_reset_ends_the_processes_of_the_build_and_no_others(world: World) -> None:
    script = """
ipclock wrap -q build -- sh -c 'echo running; exec sleep 1000' & pid=$!
until ipclock status | grep -q 'build (PID'; do sleep 0.05; done
ipclock reset 1 --kill
wait $pid; echo $?
"""

    assert inside(world, script) == ["running", "143"]


def test_a_nested_build_knows_by_its_ancestors_that_it_is_one(world: World) -> None:
    closing = "import subprocess, sys; sys.exit(subprocess.run(sys.argv[1:]).returncode)"
    script = f"""ipclock wrap -q outer -- "$0" -c '{closing}' "$0" -m ipclock wrap -q -n inner -- echo nested"""

    assert inside(world, script) == ["nested"]


def test_the_doctor_tells_of_a_foreign_proc(world: World) -> None:
    lines = inside(world, "ipclock doctor | grep -A1 ' proc:'")

    assert lines == [
        "warn proc: shows another PID namespace, with other PIDs: looking up processes takes longer",
        "   Mount the proc of this PID namespace, as 'unshare --mount-proc' does.",
    ]


@pytest.mark.parametrize(
    "command",
    [("wrap", "late", "--", "true"), ("acquire", "late"), ("init",), ("status",), ("reset",), ("release", "1")],
    ids=lambda words: words[0],
)
@pytest.mark.parametrize("made", [True, False], ids=["a pool", "no pool"])
def test_without_proc_one_line_says_so(made: bool, command: tuple[str, ...], world: World) -> None:
    if made:
        world.ask("init")
    before = world.leftovers()

    status, lines = in_a_world_where(NO_PROC, world, *command)

    assert (status, lines, world.leftovers()) == (
        69,
        [
            "ipclock: /proc: not available: not mounted",
            "   ipclock identifies processes by it: mount -t proc proc /proc",
        ],
        before,
    )


def test_without_proc_the_doctor_says_so_too(world: World) -> None:
    status, lines = in_a_world_where(NO_PROC, world, "doctor")

    told = [line for line in lines if " proc:" in line]
    assert (status, told) == (69, ["bad  proc: /proc: not available: not mounted"])
