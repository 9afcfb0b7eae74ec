"""What the wrapped command meets: its environment, its streams, its slot, and a `wrap` inside a `wrap`."""

from __future__ import annotations

import os
import signal
import sys
from typing import TYPE_CHECKING

import pytest

from tests.helpers.world import remove_pool, until

if TYPE_CHECKING:
    from pathlib import Path

    from tests.helpers.world import World

IPCLOCK = f"{sys.executable} -m ipclock"


def test_the_build_knows_its_slot(world: World) -> None:
    first = world.wrap("첫째", "--max-parallel-builds", "3").started()
    second = world.wrap("second").started()
    third = world.wrap("third").started()
    seen = [
        [build.ask(f"env IPCLOCK_{key}") for key in ("NAME", "LABEL", "TICKET", "SLOT")]
        for build in (first, second, third)
    ]
    second.end()

    again = world.wrap("again").started()

    assert seen == [
        [world.name, "첫째", "1", "1"],
        [world.name, "second", "2", "2"],
        [world.name, "third", "3", "3"],
    ]
    assert (again.ask("env IPCLOCK_SLOT"), first.end(), third.end(), again.end(), world.settled()) == (
        "2",  # the lowest that is free
        0,
        0,
        0,
        (3, {}),
    )


def test_arguments_streams_and_descriptors_pass_through(world: World) -> None:
    read, write = os.pipe()
    script = 'cat; printf "%s|" "$@"; echo err >&2; echo jobserver >&"$0"'
    arguments = ("a b", "", "--", "-n", "한글", "*", "--name", "x")

    result = world.run(
        "wrap", "-q", "a", "--", "bash", "-c", script, str(write), *arguments, input="in|", pass_fds=(write,)
    )

    os.close(write)
    assert (result.stdout, result.stderr, os.read(read, 100)) == (
        "in|" + "".join(f"{argument}|" for argument in arguments),
        "err\n",
        b"jobserver\n",
    )
    os.close(read)


def test_a_wrap_inside_a_build_runs_at_once_without_a_second_slot(world: World) -> None:
    inner = f"{IPCLOCK} wrap inner -- {IPCLOCK} status"

    result = world.run("wrap", "outer", "--", "sh", "-c", f"{inner}; exit 5")

    lines = [line[:5] for line in result.stdout.splitlines()]
    assert (result.returncode, [line for line in lines if line.strip()]) == (5, ["⏳ bui", "  - [", "    -"])
    assert (result.stderr.count("slot acquired"), world.settled()) == (1, (1, {}))


def test_a_nested_build_is_found_by_ancestry_where_the_descriptor_was_closed(world: World) -> None:
    command = [*IPCLOCK.split(), "wrap", "-n", "inner", "--", "true"]
    code = f"import subprocess, sys; sys.exit(subprocess.run({command}).returncode)"

    assert world.run("wrap", "outer", "--", sys.executable, "-c", code).returncode == 0


def test_a_nested_build_is_found_by_the_descriptor_where_the_supervisor_was_killed(world: World) -> None:
    script = f"echo ready $$; read -r _; {IPCLOCK} wrap -q -n inner -- echo inside"
    outer = world.popen("wrap", "outer", "--", "sh", "-c", script).started()

    outer.signal(signal.SIGKILL)
    outer.wait()
    outer.tell("")

    assert outer.line() == "inside"


def test_a_nested_build_in_another_pool_takes_a_slot_there(world: World, pool_name: str) -> None:
    other = f"/{pool_name}-other"
    inner = f"{IPCLOCK} wrap --name {other} inner -- {IPCLOCK} status --name {other}"

    try:
        result = world.run("wrap", "-q", "outer", "--", "sh", "-c", inner)
    finally:
        remove_pool(other[1:])

    assert ("inner" in result.stdout, result.stdout.splitlines()[0]) == (True, "⏳ builds running: 1/1")


def test_a_build_nested_in_its_pool_by_way_of_another_one_waits_for_nobody(world: World, pool_name: str) -> None:
    other = f"/{pool_name}-other"
    inner = f"{IPCLOCK} wrap -q --name {other} middle -- {IPCLOCK} wrap -n -q inner -- echo ran"

    try:
        result = world.run("wrap", "-q", "outer", "--", "sh", "-c", inner)
    finally:
        remove_pool(other[1:])

    assert (result.returncode, result.stdout, result.stderr) == (0, "ran\n", "")


@pytest.mark.parametrize("opened", [False, True])
def test_a_forged_ticket_is_ignored_with_a_warning(world: World, opened: bool) -> None:
    holder = world.wrap("holder").started()
    env = {"IPCLOCK_NAME": world.name, "IPCLOCK_TICKET": "1"}
    record = str(world.folder / "holding" / "1.1") if opened else os.devnull

    with open(record, "rb") as file:
        forger = world.run("wrap", "-n", "forger", "--", "true", env=env, pass_fds=(file.fileno(),))

    assert (forger.returncode, forger.stderr.splitlines()) == (
        75,
        [
            "ipclock: warning: IPCLOCK_TICKET='1' ignored: this process does not run in that slot",
            "❌ no free build slot: 1 of 1 in use, 0 waiting",
        ],
    )
    assert (holder.end(), world.settled()) == (0, (1, {}))


@pytest.mark.parametrize("ticket", ["99", "x", "-1", "１"])
def test_a_stale_or_senseless_ticket_is_ignored_with_a_warning(world: World, ticket: str) -> None:
    result = world.run("wrap", "-n", "a", "--", "true", env={"IPCLOCK_NAME": world.name, "IPCLOCK_TICKET": ticket})

    assert (result.returncode, "ignored" in result.stderr) == (0, True)


def test_without_waiting_a_free_slot_is_taken_only_if_nobody_ahead_needs_it(world: World) -> None:
    free = world.run("wrap", "-n", "a", "--", "true").returncode
    holder = world.wrap("holder").started()
    taken = world.run("wrap", "-n", "a", "--", "true").returncode
    waiter = world.wrap("waiter")
    until(lambda: world.records("gate"), "the waiter at the gate")
    # stopped, it has not taken the slot that is about to come free
    waiter.signal(signal.SIGSTOP)
    world.ask("init", "--max-parallel-builds", "2")
    waiter.signal(signal.SIGCONT)

    assert (free, taken, waiter.started().end(), holder.end()) == (0, 75, 0, 0)


def test_a_lowered_capacity_stops_nobody_and_admits_nobody(world: World) -> None:
    builds = [world.wrap(f"b{n}", "--max-parallel-builds", "2").started() for n in (1, 2)]
    world.ask("init", "--max-parallel-builds", "1")
    waiter = world.wrap("waiter")
    until(lambda: world.records("gate"), "the waiter at the gate")

    first = builds[0].end()
    still = (world.value(), world.records("gate"))
    second = builds[1].end()

    assert (first, still, second, waiter.started().end(), world.settled()) == (0, (0, ["3"]), 0, 0, (1, {}))


def test_an_option_sets_the_capacity_and_its_absence_leaves_it(world: World) -> None:
    world.run("wrap", "--max-parallel-builds", "3", "a", "--", "true")

    world.run("wrap", "a", "--", "true")

    assert (world.status()["capacity"], world.settled()) == (3, (3, {}))


def test_a_drained_pool_admits_nobody_until_it_is_not(world: World) -> None:
    world.ask("init")
    (world.folder / "drained").touch()
    waiter = world.wrap("waiter")
    until(lambda: world.records("gate"), "the waiter at the gate")
    during = world.status()

    (world.folder / "drained").unlink()

    assert (during["drained"], during["free"], waiter.started().end(), world.settled()) == (True, 0, 0, (1, {}))


def test_a_lock_folder_of_its_own_is_made_and_used(world: World, tmp_path: Path) -> None:
    folder = tmp_path / "a b" / "locks"

    result = world.run("init", "--lock-dir", str(folder))

    assert (result.returncode, result.stdout) == (0, f"{folder}/ipclock.{world.name[1:]}\n")
    assert world.run("wrap", "--lock-dir", str(folder), "a", "--", "true").returncode == 0
