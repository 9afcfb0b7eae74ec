"""Commands that make no pool: what they say where there is none, or where there is nothing for them to do."""

from __future__ import annotations

import json
import os
import time
from typing import TYPE_CHECKING

import pytest

from tests.helpers.crash_at import OTHER_USER, USER, Client, needs_root
from tests.helpers.histories import build, keep
from tests.helpers.machine import in_a_world_where
from tests.helpers.world import SHM, World, remove_pool

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

EMPTY = "mount -t tmpfs -o mode=1777 tmpfs /dev/shm"
LOOKING = [["status"], ["status", "--json"], ["metrics"]]
CHANGING = [["reset"], ["reset", "17"], ["reset", "--kill"], ["drain"], ["resume"]]


@pytest.fixture
def beside(world: World) -> Iterator[World]:
    """A pool whose name resembles that of the other one, which is not made."""
    made = World(f"{world.name[1:]}-web")
    assert made.run("init").returncode == 0
    yield made
    made.close()


def traces(world: World) -> list[str]:
    return [name for name in os.listdir(SHM) if name.endswith(world.name[1:])]


@pytest.mark.parametrize("command", LOOKING + CHANGING, ids=" ".join)
def test_where_there_is_no_pool_a_command_that_makes_none_says_so(command: list[str], world: World) -> None:
    done = world.run(*command)

    assert (done.returncode, done.stdout, done.stderr.splitlines()[0], traces(world)) == (
        69,
        "",
        f"ipclock: {world.folder}: no such pool",
        [],
    )


@pytest.mark.parametrize("command", [*LOOKING, ["reset"]], ids=" ".join)
def test_a_name_that_resembles_the_one_typed_is_offered(command: list[str], world: World, beside: World) -> None:
    done = world.run(*command, "--name", f"{world.name}-wbe")

    assert (done.returncode, f"Did you mean {beside.name}" in done.stderr) == (69, True)


def test_a_name_that_the_caller_may_not_see_is_not_offered(world: World, beside: World) -> None:
    needs_root(0)
    (SHM / f"ipclock.{world.name[1:]}-w\x1b").mkdir()
    seen = []
    for mode, groups in (("0600", [OTHER_USER]), ("0660", []), ("0660", [OTHER_USER])):
        beside.run("init", "--mode", mode, "--group", str(OTHER_USER))
        client = Client(
            "status", "--name", f"{world.name}-we", env=world.env | {"HOME": "/nonexistent"}, uid=USER, groups=groups
        )
        seen.append((client.wait(), beside.name in client.errors(), "\\x1b" in client.errors()))
        client.close()
    (SHM / f"ipclock.{world.name[1:]}-w\x1b").rmdir()

    assert seen == [(69, False, False), (69, False, False), (69, True, False)]


def test_nothing_was_made_on_the_machine_and_the_status_says_so(world: World) -> None:
    del world.env["SEMAPHORE_NAME"]

    text = in_a_world_where(EMPTY, world, "status")
    plain = in_a_world_where(EMPTY, world, "status", "--json")
    others = [in_a_world_where(EMPTY, world, *command)[0] for command in CHANGING]

    pool = json.loads("\n".join(plain[1]))
    assert text == (
        0,
        ["✓ no build is running (0/1)", "  no pool yet: 'ipclock init' or the first build creates it"],
    )
    assert (plain[0], pool["made"], pool["folder"], pool["capacity"]) == (0, False, None, 1)
    assert others == [69] * len(CHANGING)


def test_the_status_of_a_pool_names_its_folder(world: World) -> None:
    made = world.run("init").stdout.strip()

    pool = world.status()

    assert (pool["made"], pool["folder"]) == (True, made)


# release: a trap may run twice


@pytest.mark.parametrize("made", [True, False])
@pytest.mark.parametrize(("options", "why"), [(["17"], " (ticket 17)"), ([], ": pass TICKET or set IPCLOCK_TICKET")])
def test_a_release_of_nothing_is_a_warning(made: bool, options: list[str], why: str, world: World) -> None:
    if made:
        world.ask("init")

    done, quiet = world.run("release", *options), world.run("release", "-q", *options)

    told = f"ipclock: warning: no slot to release{why}\n"
    assert [(run.returncode, run.stdout, run.stderr) for run in (done, quiet)] == [(0, "", told), (0, "", "")]
    assert bool(traces(world)) == made


def test_a_release_of_a_ticket_of_a_pool_that_is_gone_names_it(world: World) -> None:
    ticket = world.run("acquire", "--pid", str(os.getpid()), "script").stdout.strip()
    remove_pool(world.name[1:])

    done = world.run("release", env={"IPCLOCK_TICKET": ticket})

    assert (done.returncode, done.stderr) == (0, f"ipclock: warning: no slot to release (ticket {ticket})\n")


# What there is to do


def test_a_reset_of_a_pool_in_which_no_slot_is_held_says_so(world: World) -> None:
    world.ask("init")

    done = world.run("reset")

    assert (done.returncode, done.stderr) == (0, "✓ no slot is held: nothing to release.\n")


def test_a_resume_of_a_pool_that_is_not_drained_says_so(world: World) -> None:
    world.ask("init")

    done = world.run("resume")

    assert (done.returncode, done.stderr) == (0, "ipclock: the pool was not drained: it accepts builds\n")


def test_a_second_drain_says_what_it_replaces(world: World) -> None:
    world.ask("init")
    world.run("drain", "--reason", "disk is being replaced", "--for", "2h")
    until = world.run("status").stdout.splitlines()[1].strip()

    second = world.run("drain", "--reason", "memory, too")

    assert (second.returncode, second.stderr.splitlines()) == (
        0,
        ["✓ drained by root: memory, too (0 running, 0 waiting)", f"   before: {until}"],
    )
    assert until.startswith("drained by root until ")


@pytest.mark.parametrize("command", [["reset"], ["drain"], ["resume"], ["release", "1"]], ids=" ".join)
def test_the_number_of_slots_is_none_of_its_business(command: list[str], world: World) -> None:
    world.ask("init", "--max-parallel-builds", "2")

    done = world.run(*command, env={"MAX_PARALLEL_BUILDS": "5"})

    assert (done.returncode, world.status()["capacity"]) == (0, 2)


@pytest.mark.parametrize(
    "command",
    ["release", "status", "logs", "wait", "log", "stats", "plan", "metrics", "drain", "resume", "reset", "doctor"],
)
def test_an_option_without_an_effect_is_refused(command: str, world: World) -> None:
    world.ask("init")
    options = [["--max-parallel-builds=3"]] + [["--lock-dir=/dev/shm"]] * (command != "doctor")

    done = [world.run(command, *option) for option in options]

    assert [(run.returncode, run.stdout, run.stderr.splitlines()[0]) for run in done] == [
        (2, "", f"ipclock: unrecognized arguments: {' '.join(option)}") for option in options
    ]


# The history outlives its pool


@pytest.mark.parametrize("form", [[], ["--json"], ["--html", "-"]], ids=str)
def test_stats_of_a_pool_of_which_nothing_is_known_says_so(form: list[str], world: World, tmp_path: Path) -> None:
    history = tmp_path / "history.db"
    keep(str(history), [build("staging", time.time() - 60, 30, pool="/another")])

    done = world.run("stats", *form, env={"HISTORY": str(history)})

    assert (done.returncode, done.stdout, done.stderr.splitlines()[0]) == (
        69,
        "",
        f"ipclock: {world.folder}: no such pool",
    )


@pytest.mark.parametrize("known", ["the pool", "the past"])
def test_stats_tells_of_a_pool_that_is_there_and_of_one_that_was(known: str, world: World, tmp_path: Path) -> None:
    history = tmp_path / "history.db"
    pool = world.name if known == "the past" else "/another"
    keep(str(history), [build("staging", time.time() - 60, 30, pool=pool)])
    if known == "the pool":
        world.ask("init")

    done = world.run("stats", env={"HISTORY": str(history)})

    assert (done.returncode, done.stdout.splitlines()[0].startswith(("no build has ended", "since "))) == (0, True)
