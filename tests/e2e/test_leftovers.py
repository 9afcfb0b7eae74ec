"""What a build leaves running: counted, waited for, ended or left alone, as it was asked for."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from ipclock.cli import command_line
from ipclock.pool.local import LocalPool
from tests.helpers.crash_at import USER, Client, needs_root
from tests.helpers.world import until

if TYPE_CHECKING:
    from ipclock.pool.snapshot import Snapshot
    from tests.helpers.world import Build, World

HOW = ["", "closed", "deaf closed"]


def alive(*pids: int) -> list[int]:
    """Return those of the processes that are there and no zombies."""
    found = []
    for pid in pids:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except (FileNotFoundError, ProcessLookupError):
            continue
        found += [] if state in "ZX" else [pid]
    return found


def with_daemon(world: World, *options: str, how: str = "") -> tuple[Build, int]:
    """Return a build that runs, and the PID of a daemon that it has started."""
    build = world.noted(world.wrap("build", *options))
    daemon = int(build.ask(f"daemon {how}").split()[1])
    world.extra.append(daemon)
    return build, daemon


def orphaned(world: World, build: Build) -> str:
    """Kill the supervisor, and return the ticket."""
    build.signal(signal.SIGKILL)
    build.wait()
    return str(world.status()["holders"][0]["ticket"])


# The end of a build


@pytest.mark.parametrize("how", HOW)
def test_killed_leftovers_are_gone_before_the_next_build_starts(how: str, world: World) -> None:
    build, daemon = with_daemon(world, "--leftovers", "kill", how=how)
    waiter = world.wrap("next")
    until(lambda: world.records("gate"), "the waiter at the gate")

    build.tell("exit 7")
    waiter.started()

    left = alive(daemon)
    assert (left, build.wait(), build.errors().splitlines()[-1], waiter.end(), world.settled()) == (
        [],
        7,
        f"ipclock: killing what the command has left running (PID: {daemon})",
        0,
        (1, {}),
    )


@pytest.mark.parametrize("how", HOW)
def test_leftovers_that_are_waited_for_keep_the_slot_until_they_are_gone(how: str, world: World) -> None:
    build, daemon = with_daemon(world, "--leftovers", "wait", how=how)
    waiter = world.wrap("next")
    until(lambda: world.records("gate"), "the waiter at the gate")

    build.tell("exit 7")
    until(lambda: not alive(build.command_pid), "the end of the command")
    until(lambda: world.status()["holders"][0]["command_pid"] == daemon, "the daemon shown as the build")
    kept = world.records("gate")
    os.kill(daemon, signal.SIGKILL)

    assert (kept, build.wait(), waiter.started().end(), world.settled()) == (["2"], 7, 0, (1, {}))
    assert build.errors().splitlines()[-1] == f"⏳ waiting for what the command has left running (PID: {daemon})"


def test_a_signal_to_wrap_ends_the_leftovers_that_it_waits_for(world: World) -> None:
    build, daemon = with_daemon(world, "--leftovers", "wait", how="closed")
    build.tell("exit 0")
    until(lambda: world.status()["holders"][0]["command_pid"] == daemon, "the wait for the daemon")

    build.signal(signal.SIGTERM)

    assert (build.wait(), alive(daemon), world.settled()) == (-signal.SIGTERM, [], (1, {}))


@pytest.mark.parametrize("trap", ["", "trap 'exit 3' TERM"], ids=["dies of it", "has a trap"])
def test_a_signal_to_wrap_during_the_command_ends_what_it_has_left_too(trap: str, world: World) -> None:
    script = f"{trap}\nsleep 1000 & echo $!; wait"
    build = world.popen("wrap", "-q", "--leftovers", "wait", "a", "--", "sh", "-c", script)
    left = int(build.line())
    world.extra.append(left)

    build.signal(signal.SIGTERM)

    assert (build.wait(), alive(left), world.settled()) == (3 if trap else -signal.SIGTERM, [], (1, {}))


def test_children_from_before_wrap_are_none_of_its_leftovers(world: World) -> None:
    script = "sleep 300 & echo $!; exec ipclock wrap -q --leftovers kill build -- true".replace(
        "ipclock", f"{world.python} -m ipclock", 1
    )
    shell = world.spawn("sh", "-c", script)
    earlier = int(shell.line())
    world.extra.append(earlier)

    ended = shell.wait()

    assert (ended, alive(earlier), world.settled()) == (0, [earlier], (1, {}))


def test_orphans_of_a_running_build_leave_no_zombies_behind(world: World) -> None:
    script = "(sleep 300 & echo $!); read _; exit 3"
    build = world.popen("wrap", "--leftovers", "wait", "build", "--", "sh", "-c", script)
    orphan = int(build.line())
    world.extra.append(orphan)

    os.kill(orphan, signal.SIGKILL)
    until(lambda: not Path(f"/proc/{orphan}").exists(), "the orphan reaped")
    build.tell("end")

    assert (build.wait(), world.settled()) == (3, (1, {}))


@pytest.mark.parametrize("where", ["option", "environment"])
def test_what_is_no_way_to_treat_leftovers_is_refused(where: str, world: World) -> None:
    options = ("--leftovers", "burn") if where == "option" else ()
    done = world.run("wrap", *options, "a", "--", "true", env={"LEFTOVERS": "burn"})

    place, status = ("--leftovers", 2) if where == "option" else ("$LEFTOVERS", 78)
    assert (done.returncode, done.stderr) == (
        status,
        f"ipclock: {place}: invalid value 'burn': expected release, wait or kill\n",
    )


# A forced end


@pytest.mark.parametrize("how", ["", "deaf"])
def test_an_orphan_is_ended_with_its_whole_tree_by_a_reset_that_kills(how: str, world: World) -> None:
    build, daemon = with_daemon(world, how=how)
    ticket = orphaned(world, build)
    waiter = world.wrap("next")
    until(lambda: world.records("gate"), "the waiter at the gate")

    done = world.run("reset", ticket, "--kill")
    left = alive(build.command_pid, daemon)

    assert (done.returncode, left, done.stderr.splitlines()) == (
        0,
        [],
        [
            f"ipclock: build (PID: {build.command_pid}) was killed",
            f"✓ the slot of ticket {ticket} has been released.",
        ],
    )
    assert (waiter.started().end(), world.settled()) == (0, (1, {}))


@pytest.mark.parametrize("state", ["running", "stopped"])
def test_a_supervised_build_gets_the_signal_once_and_is_gone_before_the_next_starts(state: str, world: World) -> None:
    build = world.wrap("build", stub=("--report", str(int(signal.SIGTERM)))).started()
    daemon = int(build.ask("daemon").split()[1])
    world.extra.append(daemon)
    waiter = world.wrap("next")
    until(lambda: world.records("gate"), "the waiter at the gate")
    if state == "stopped":
        build.signal(signal.SIGSTOP)

    done = world.run("reset", "--kill")
    left = alive(build.pid, build.command_pid, daemon)

    # it only reports SIGTERM, so SIGKILL has to end it
    assert (done.returncode, left, build.line()) == (0, [], "signal 15")
    with pytest.raises(AssertionError, match="no line from the build"):
        build.line()
    assert (waiter.started().end(), world.settled()) == (0, (1, {}))


def test_a_script_that_has_acquired_is_ended(world: World) -> None:
    script = f"{world.python} -m ipclock acquire -q --pid $$ script; sleep 300 & echo $!; wait"
    shell = world.spawn("sh", "-c", script)
    ticket, child = shell.line(), int(shell.line())
    world.extra.append(child)

    done = world.run("reset", ticket, "--kill")

    assert (done.returncode, shell.wait(), alive(child), world.settled()) == (0, -signal.SIGTERM, [], (1, {}))


@pytest.mark.parametrize("ticket", [["1"], []])
def test_a_build_may_not_end_itself(ticket: list[str], world: World) -> None:
    done = world.run("wrap", "-q", "a", "--", world.python, "-m", "ipclock", "reset", *ticket, "--kill")

    assert (done.returncode, done.stderr.splitlines()[0], world.settled()) == (
        2,
        "ipclock: this command runs inside the build that it would kill",
        (1, {}),
    )


def test_a_killing_reset_of_nobody_is_a_reset(world: World) -> None:
    assert world.run("init").returncode == 0

    done = world.run("reset", "--kill")

    assert (done.returncode, done.stderr, world.settled()) == (
        0,
        "✓ no slot is held: nothing to release.\n",
        (1, {}),
    )


def test_processes_that_may_not_be_ended_keep_the_slot_and_are_named(world: World) -> None:
    needs_root(0)
    env = world.env | {"HOME": "/nonexistent"}
    user = Client("wrap", "-q", "build", "--", "sh", "-c", "echo ready; cat", env=env, uid=USER)
    assert user.line() == "ready"
    root = Client("wrap", "-q", "root's", "--max-parallel-builds", "2", "--", "sh", "-c", "echo ready; cat", env=env)
    assert root.line() == "ready"

    refused = Client("reset", "2", "--kill", env=env, uid=USER)
    facts = (refused.wait(), refused.errors().splitlines(), sorted(world.records("holding")))
    ended = (root.end(), user.end())
    for client in (user, root, refused):
        client.close()

    assert (facts[0], len(facts[1]), facts[2], ended) == (77, 2, ["1.1", "2.2"], (0, 0))
    assert facts[1][1] == "   'sudo ipclock reset 2 --kill' can also kill processes of other users."


@pytest.mark.parametrize(("ticket", "expected"), [(["2"], 2), ([], 0)], ids=["of its ticket", "of all"])
def test_a_forced_reset_takes_no_slot_from_a_build_that_was_admitted_after_it_looked(
    ticket: list[str], expected: int, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.run("wrap", "-q", "first", "--", "true")
    look = LocalPool.snapshot

    def look_and_admit(pool: LocalPool) -> Snapshot:
        found = look(pool)
        if not world.builds:
            world.wrap("late").started()
        return found

    monkeypatch.setattr(LocalPool, "snapshot", look_and_admit)
    for key, value in world.env.items():
        monkeypatch.setenv(key, value)

    status = command_line.main(["reset", *ticket, "--kill"])
    held = [row["label"] for row in world.status()["holders"]]

    assert (status, held, world.builds[0].end()) == (expected, ["late"], 0)
