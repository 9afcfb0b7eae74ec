"""`acquire` and `release` by themselves: what they print, whom the slot is bound to, who may give it back."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.helpers.terminal import Terminal
from tests.helpers.world import Build, until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.helpers.world import World

IPCLOCK = f"{sys.executable} -m ipclock"
LIBRARY = Path(__file__).parents[2] / "contrib/oracle/lib/build-lock.sh"


def script(world: World, body: str) -> Build:
    """Start a bash script."""
    pipe = subprocess.PIPE
    process = subprocess.Popen(
        ["bash", "-uc", body.replace("ipclock ", f"{IPCLOCK} ")], env=world.env, stdin=pipe, stdout=pipe, stderr=pipe
    )
    build = Build(process)
    world.builds.append(build)
    return build


def test_the_ticket_alone_is_on_stdout_and_the_slot_is_the_parents(world: World) -> None:
    holder = script(world, "ticket=$(ipclock acquire staging); echo $ticket; read -r _; ipclock release $ticket")
    ticket = holder.line()
    row = world.status()["holders"][0]
    holder.tell("")

    assert (ticket, row["ticket"], row["pid"], row["label"], holder.wait(), world.settled()) == (
        "1",
        1,
        holder.pid,
        "staging",
        0,
        (1, {}),
    )


@pytest.mark.parametrize("how", ["IPCLOCK_TICKET=$ticket ipclock release", "ipclock release"])
def test_release_finds_the_ticket_in_the_environment_or_is_left_with_the_only_slot(world: World, how: str) -> None:
    done = script(world, f"ticket=$(ipclock acquire a); {how}; echo $?")

    assert (done.line(), done.wait(), world.settled()) == ("0", 0, (1, {}))


def test_release_asks_which_of_several_slots_is_meant(world: World) -> None:
    body = "ipclock acquire --max-parallel-builds 2 a; ipclock acquire b; ipclock release; echo $?"
    done = script(world, body)

    assert ([done.line() for _ in range(3)], done.wait()) == (["1", "2", "2"], 0)
    assert "several slots are held here; say which: 1 2" in done.errors()


def test_a_script_that_ends_without_a_release_has_given_its_slot_back(world: World) -> None:
    # the last command of `bash -c` takes the shell's place: the slot would be our own
    done = script(world, "ipclock acquire a; true")
    done.wait()

    assert (world.run("wrap", "-n", "next", "--", "true").returncode, world.settled()) == (0, (1, {}))


HELD_BY_FD = """
    ipclock init >/dev/null; exec 8>%s/new/mine; t=$(ipclock acquire --fd 8 a)
    trap 'ipclock release %s $t' EXIT
    sh -c 'echo $$; exec sleep 1000'; echo not reached
"""


def test_a_release_in_a_trap_leaves_the_slot_to_the_build_that_still_runs(world: World) -> None:
    holder = script(world, HELD_BY_FD % (world.folder, ""))
    child = int(holder.line())
    world.extra.append(child)

    holder.signal_at_rest(signal.SIGTERM)
    status = holder.wait()
    beside = world.run("wrap", "-n", "next", "--", "true").returncode
    world.kill(child)

    assert (status, beside, holder.errors().splitlines()[-1]) == (
        -signal.SIGTERM,
        75,
        f"ipclock: the slot of ticket 1 stays with what still runs in it: sleep 1000 (PID: {child})",
    )
    assert (world.run("wrap", "-w", "20", "next", "--", "true").returncode, world.settled()) == (0, (1, {}))


@pytest.mark.parametrize("option", ["--now", "--now -q"])
def test_release_now_gives_the_slot_back_whatever_still_runs(world: World, option: str) -> None:
    holder = script(world, HELD_BY_FD % (world.folder, option))
    world.extra.append(int(holder.line()))

    holder.signal_at_rest(signal.SIGTERM)
    holder.wait()

    assert (world.run("wrap", "-n", "next", "--", "true").returncode, "stays with" in holder.heard()) == (0, False)


def test_no_slot_in_time_prints_no_ticket(world: World) -> None:
    holder = world.wrap("holder").started()

    late = world.run("acquire", "-w", "0.1", "late")

    assert (late.returncode, late.stdout, holder.end(), world.settled()) == (75, "", 0, (1, {}))


def test_a_killed_acquire_keeps_no_place_although_the_script_has_the_file_open(world: World) -> None:
    holder = world.wrap("holder").started()
    body = f'exec 8>{world.folder}/new/mine; ipclock acquire --fd 8 a & echo "$!"; wait; echo ended; read -r _'
    waiting = script(world, body)
    pid = int(waiting.line())
    until(lambda: world.records("gate"), "the script's waiter at the gate")
    late = world.wrap("late")
    until(lambda: world.waiting() == 2, "another waiter in line")

    world.kill(pid)
    ended = waiting.line()
    holder.end()

    assert (ended, late.started().end(), world.settled()) == ("ended", 0, (1, {}))


def test_an_acquire_inside_a_build_takes_part_in_its_slot_and_releasing_that_gives_nothing_back(world: World) -> None:
    inner = f"t=$({IPCLOCK} acquire inner); echo $t; {IPCLOCK} release $t; {IPCLOCK} status"

    result = world.run("wrap", "-q", "outer", "--", "bash", "-c", inner)

    assert (result.returncode, result.stdout.splitlines()[:2]) == (0, ["2", "⏳ builds running: 1/1"])


@pytest.fixture
def shell(world: World) -> Iterator[Terminal]:
    """A script on a terminal that holds a slot while it waits for a child."""
    body = f'ipclock() {{ {IPCLOCK} "$@"; }}; set -e; source {LIBRARY}; acquire_lock staging; sleep 1000; echo no'
    screen = Terminal(["bash", "-c", body], world.env | {"TERM": "xterm"})
    yield screen
    screen.close()


def test_ctrl_c_on_a_terminal_ends_the_script_and_frees_its_slot(world: World, shell: Terminal) -> None:
    shell.wait_for("starting the build of staging")
    until(lambda: world.records("holding"), "the script with its slot")

    shell.type("\x03")

    assert (shell.wait(), world.run("wrap", "-n", "next", "--", "true").returncode) == (-signal.SIGINT, 0)
    assert ("\nno" in shell.text, world.settled()) == (False, (1, {}))
