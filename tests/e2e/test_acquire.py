"""`acquire` and `release` by themselves: what they print, whom the slot is bound to, who may give it back."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from shutil import which
from textwrap import dedent
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
    return run_by(world, ["bash", "-u"], body)


def run_by(world: World, interpreter: list[str], body: str) -> Build:
    """Start a script that lies in a file."""
    reading, writing = os.pipe()
    os.write(writing, body.replace("ipclock ", f"{IPCLOCK} ").encode())
    os.close(writing)
    build = world.spawn(*interpreter, f"/dev/fd/{reading}", pass_fds=[reading])
    os.close(reading)
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


@pytest.mark.parametrize("shell", [["bash"], ["dash"], ["zsh", "-f"]], ids=lambda shell: str(shell[0]))
@pytest.mark.parametrize(
    "taking",
    [
        "t=$(ipclock acquire a)",
        "t=$(ipclock acquire a | tail -n1)",
        "t=$(ipclock acquire a; true)",
        "t=$(true && ipclock acquire a || exit)",
        "t=$(ipclock acquire a >file; cat file)",
        "t=$(ipclock acquire a | (read -r t; echo $t))",
        "t=$(sh -c 'ipclock acquire a 2>/dev/null')",
        "t=$(timeout 60 ipclock acquire a)",
        "t=$(timeout 60 ipclock acquire a | cat)",
        "t=1; ipclock acquire a >/dev/null",
        "t=1; ipclock acquire a | cat",
    ],
)
def test_the_slot_is_the_scripts_by_whatever_way_it_gets_the_ticket(
    world: World, tmp_path: Path, shell: list[str], taking: str
) -> None:
    if not which(shell[0]):
        pytest.skip(f"needs {shell[0]}")
    rest = 'echo "has $t"; read -r _; ipclock release "$t"; echo "$?"'
    holder = run_by(world, shell, f"cd {tmp_path}; {taking}; {rest}")
    line = holder.line()
    line = holder.line() if line == "1" else line
    pids = [row["pid"] for row in world.status()["holders"]]
    holder.tell("")

    assert (line, pids, holder.line(), holder.wait(), world.settled()) == ("has 1", [holder.pid], "0", 0, (1, {}))


@pytest.mark.parametrize(
    "body",
    [
        "(t=$(ipclock acquire a); %s; ipclock release $t) | cat",
        "(ipclock acquire a >/dev/null; %s) | cat",
        "x=$(t=$(ipclock acquire a); %s; ipclock release $t); echo $x",
        "x=$(ipclock acquire a >/dev/null; %s); echo $x",
        "sh -c 't=$(ipclock acquire a); %s; ipclock release $t' | cat",
        "sh -c 'ipclock acquire a >/dev/null; %s' | cat",
        "sh -c 'ipclock acquire a | { read t; %s; ipclock release $t; }' | cat",
        "x=$(sh -c 't=$(ipclock acquire a | tail -n1); %s; ipclock release $t'); echo $x",
    ],
)
def test_a_part_of_a_script_that_keeps_the_ticket_holds_the_slot_and_gives_it_back(world: World, body: str) -> None:
    build = "ipclock status | grep -c PID"

    done = script(world, f"{body % build}; ipclock wrap -n next -- echo next")

    assert ([done.line(), done.line()], done.wait(), world.settled()) == (["1", "next"], 0, (1, {}))
    assert ("warning" in done.errors()) is False


LINES = ["ipclock acquire a | cat", "ipclock acquire a; true", "true; ipclock acquire a | tail -n1 | cat; true"]
PYTHON = "import subprocess; print(subprocess.run({line!r}, shell=True, stdout=subprocess.PIPE).stdout, flush=True)"
MAKEFILE = "t := $(shell {line})\nall:\n\t@echo \"b'$t'\"\n"


@pytest.mark.parametrize("line", LINES)
@pytest.mark.parametrize(("interpreter", "body"), [([sys.executable], PYTHON), (["make", "-f"], MAKEFILE)])
def test_a_command_line_whose_ticket_goes_past_it_gets_no_slot(
    world: World, interpreter: list[str], body: str, line: str
) -> None:
    caller = run_by(world, interpreter, body.format(line=line))
    ticket, status = caller.line(), caller.wait()

    error, remedy = caller.errors().splitlines()

    assert (ticket, status, f"(PID: {caller.pid})" in error, f"--pid {caller.pid} or" in remedy) == (
        "b''",
        0,
        True,
        True,
    )
    assert world.folder.exists() is False  # nothing was made, nothing queued


def test_a_program_that_runs_acquire_itself_holds_the_slot(world: World) -> None:
    body = """
        import subprocess
        t = subprocess.run("ipclock acquire a", shell=True, stdout=subprocess.PIPE, text=True).stdout.strip()
        print(t, flush=True)
        input()
    """
    caller = run_by(world, [sys.executable], dedent(body))

    line, rows = caller.line(), world.status()["holders"]
    caller.tell("")

    assert (line, [row["pid"] for row in rows], caller.wait()) == ("1", [caller.pid], 0)


def test_a_waiter_leaves_when_the_process_that_would_hold_the_slot_ends(world: World) -> None:
    holder = world.wrap("holder").started()
    late = script(world, "ipclock acquire late & echo $!; read -r _")
    pid = int(late.line())
    world.extra.append(pid)
    until(world.waiting, "the script's waiter")

    late.signal(signal.SIGKILL)
    late.wait()
    until(lambda: not world.waiting(), "the waiter to leave")

    assert ("--pid" in late.errors(), holder.end(), world.settled()) == (True, 0, (1, {}))


def test_a_release_of_what_ended_with_its_process_says_so_and_advises_no_reset(world: World) -> None:
    ended = script(world, "ipclock acquire a")
    ended.wait()

    late = world.run("release", "1")

    assert (late.returncode, late.stderr.splitlines()) == (
        0,
        [f"ipclock: warning: no slot to release (ticket 1): it ended with process {ended.pid}"],
    )


@pytest.mark.parametrize("how", ["IPCLOCK_TICKET=$ticket ipclock release", "ipclock release"])
def test_release_finds_the_ticket_in_the_environment_or_is_left_with_the_only_slot(world: World, how: str) -> None:
    done = script(world, f"ticket=$(ipclock acquire a); {how}; echo $?")

    assert (done.line(), done.wait(), world.settled()) == ("0", 0, (1, {}))


def test_release_asks_which_of_several_slots_is_meant(world: World) -> None:
    body = "ipclock acquire --max-parallel-builds 2 a; ipclock acquire b; ipclock release; echo $?"
    done = script(world, body)

    assert ([done.line() for _ in range(3)], done.wait()) == (["1", "2", "2"], 0)
    assert "several slots are held; pass one of these tickets: 1 2" in done.errors()


def test_a_script_that_ends_without_a_release_has_given_its_slot_back(world: World) -> None:
    done = script(world, "ipclock acquire a")
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
        f"ipclock: the slot of ticket 1 stays held until these processes end: sleep 1000 (PID: {child})",
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
    build = 'sh -c "echo building; exec sleep 1000"; echo no'
    body = f'ipclock() {{ {IPCLOCK} "$@"; }}; set -e; source {LIBRARY}; acquire_lock staging; {build}'
    screen = Terminal(["bash", "-c", body], world.env | {"TERM": "xterm"})
    yield screen
    screen.close()


def test_ctrl_c_on_a_terminal_ends_the_script_and_frees_its_slot(world: World, shell: Terminal) -> None:
    shell.wait_for("\nbuilding")

    shell.type("\x03")

    assert (shell.wait(), world.run("wrap", "-n", "next", "--", "true").returncode) == (-signal.SIGINT, 0)
    assert ("\nno" in shell.text, world.settled()) == (False, (1, {}))
