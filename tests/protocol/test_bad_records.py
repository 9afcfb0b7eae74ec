"""Records and numbers that nobody of this version has written: empty, garbage, gigantic, or of a newer version."""

from __future__ import annotations

import os
import resource
import socket
from contextlib import contextmanager
from typing import TYPE_CHECKING
from unittest.mock import ANY

import pytest

from ipclock.linux.locks import try_lock
from ipclock.pool.directory import STATES
from ipclock.pool.place import name_of
from ipclock.pool.record import Beacons
from tests.helpers.crash_at import USER, needs_root
from tests.helpers.world import until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.helpers.world import World

GIGANTIC = 1 << 31  # bytes; a hole, so that it costs no memory but to those who read it
MEMORY = 1 << 29  # what a client may use
NEWER = "kind=lease\nlabel=from the future\nregion=eu\nweights={3}\n"
NEWER_KEYS = "kind=fd\nlabel=from the future\nregion=eu\nweights={3}\n"
DAMAGE = {
    "empty": b"",
    "garbage": bytes(range(256)) * 20,
    "text without an end": b"kind=fd",
    "keys without values": b"kind\nlabel\n\n=\n==\n",
    "zeros": bytes(4096),
    "kind of a newer version": NEWER.encode(),
}


def planted(world: World, state: str, name: str, content: bytes) -> Path:
    """Put a record into a state folder of a pool whose last ticket is 7."""
    world.ask("init")
    (world.folder / "ticket").write_text(f"{7:020}\n")
    path = world.folder / state / name
    path.write_bytes(content)
    return path


@contextmanager
def lit(path: Path) -> Iterator[None]:
    """Hold the record's beacon, as what the folder in which it lies says of its client."""
    fd = os.open(path, os.O_RDWR)
    beacons = Beacons.of(name_of(str(path.parents[1])), path.stat().st_dev)
    assert try_lock(fd, beacons.holder() if path.parent.name == "holding" else beacons.waiter)
    try:
        yield
    finally:
        os.close(fd)


def shown(world: World) -> list[tuple[int, str, str]]:
    return [(row["ticket"], row["label"], row["state"]) for row in world.status()["holders"]]


def refused(world: World) -> int:
    """Return the status of a build that would not wait."""
    return world.run("wrap", "-q", "-n", "late", "--", "true").returncode


def another_build(world: World) -> tuple[int, int, dict[str, list[str]]]:
    """Return what becomes of one more build: its status, the value after it, what is left."""
    status = world.run("wrap", "-q", "-w", "20", "another", "--", "true").returncode
    return status, *world.settled()


# Holders


@pytest.mark.parametrize("what", DAMAGE)
@pytest.mark.parametrize("beacon", ["held", "free"])
def test_a_record_that_cannot_be_understood_counts_and_is_shown_until_a_reset(
    beacon: str, what: str, world: World
) -> None:
    path = planted(world, "holding", "5.1", DAMAGE[what])

    if beacon == "held":
        with lit(path):
            while_held = refused(world), [row[2] for row in shown(world)]
    else:
        while_held = refused(world), [row[2] for row in shown(world)]
    after = refused(world), world.records("holding")
    reset = world.run("reset", "5").returncode

    assert (while_held, after, reset, another_build(world)) == ((75, ["unknown"]), (75, ["5.1"]), 0, (0, 1, {}))


def test_a_holder_of_a_newer_version_is_shown_by_what_is_understood_of_it(world: World) -> None:
    path = planted(world, "holding", "5.1", NEWER.encode())

    with lit(path):
        assert shown(world) == [(5, "from the future", "unknown")]


def test_unknown_keys_change_nothing(world: World) -> None:
    path = planted(world, "holding", "5.1", NEWER_KEYS.encode())

    with lit(path):
        counts = refused(world), shown(world)

    assert (counts, another_build(world)) == ((75, [(5, "from the future", "unknown")]), (0, 1, {}))


# Waiters


@pytest.mark.parametrize("what", DAMAGE)
def test_a_waiter_that_cannot_be_understood_keeps_its_place_while_it_lives(what: str, world: World) -> None:
    path = planted(world, "queued", "5", DAMAGE[what])

    with lit(path):
        late = world.wrap("late")
        until(lambda: world.records("gate") == ["5"], "the other one at the gate")
        now = [(row["ticket"], row["position"]) for row in world.status()["waiters"]]

    assert (now, late.started().end(), world.settled()) == ([(5, 1), (8, 2)], 0, (1, {}))


# What is no file, and names without room


def plant(path: Path, what: str) -> None:
    """Put at a record's place what is no file."""
    path.unlink()
    if what == "link":
        path.symlink_to("/etc/passwd")
    elif what == "socket":
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(str(path))
    else:
        path.mkdir()
        if what == "full folder":
            (path / "dear").touch()


@pytest.mark.parametrize("what", ["link", "socket", "folder", "full folder"])
@pytest.mark.parametrize("state", ["queued", "gate"])
def test_what_is_no_file_keeps_no_place_in_line(state: str, what: str, world: World) -> None:
    plant(planted(world, state, "5", b""), what)

    assert (refused(world), another_build(world)) == (0, (0, 1, {state: ANY} if what == "full folder" else {}))


@pytest.mark.parametrize("what", ["link", "socket", "folder", "full folder"])
def test_what_is_no_file_counts_as_a_build_until_a_reset(what: str, world: World) -> None:
    plant(planted(world, "holding", "5.1", b""), what)

    before = refused(world), shown(world)
    reset = world.run("reset").returncode, shown(world)

    assert (before, reset, another_build(world)) == (
        (75, [(5, "?", "unknown")]),
        (0, []),
        (0, 1, {"holding": ANY} if what == "full folder" else {}),
    )


@pytest.mark.parametrize("state", ["queued", "gate"])
def test_a_name_that_leaves_no_room_for_a_mark_stops_nobody(state: str, world: World) -> None:
    path = planted(world, state, "5,z" + "x" * 252, b"kind=fd\n")

    with lit(path):
        ended = refused(world), world.run("reset").returncode

    assert (ended, another_build(world)) == ((0, 0), (0, 1, {}))


# Gigantic ones


@pytest.mark.parametrize(("state", "name"), [("holding", "5.1"), ("queued", "5"), ("gate", "5")])
def test_a_gigantic_record_is_not_read_to_its_end(state: str, name: str, world: World) -> None:
    path = planted(world, state, name, b"kind=fd\nlabel=gigantic\n")
    os.truncate(path, GIGANTIC)

    def spare() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))

    with lit(path):
        runs = [
            world.run(*command, preexec_fn=spare)
            for command in (("status",), ("wrap", "-n", "late", "--", "true"), ("init",), ("doctor",))
        ]

    assert ([run.returncode for run in runs], "gigantic" in runs[0].stdout, another_build(world)) == (
        [0, 75, 0, 0],
        True,
        (0, 1, {}),
    )


def test_a_thousand_damaged_records_in_line_are_passed_at_once(world: World) -> None:
    world.ask("init")
    (world.folder / "ticket").write_text(f"{2000:020}\n")
    for ticket in range(1, 1001):
        (world.folder / "queued" / str(ticket)).write_bytes(b"\xff" * 100)

    assert another_build(world) == (0, 1, {})


# Numbers

NUMBERS = {
    "empty": b"",
    "garbage": b"\xff\xfe\n",
    "text": b"four\n",
    "negative": b"-4\n",
    "a hole": bytes(64),
    "huge": b"9" * 31 + b"\n",
}


@pytest.mark.parametrize("content", NUMBERS)
@pytest.mark.parametrize("file", ["mutex", "ticket", "capacity", "epoch"])
def test_a_damaged_number_costs_nobody_anything(file: str, content: str, world: World) -> None:
    holder = world.wrap("holder").started()
    waiter = world.wrap("waiter")
    until(lambda: world.records("gate"), "the waiter at the gate")

    (world.folder / file).write_bytes(NUMBERS[content])
    late = world.wrap("late")
    until(lambda: world.waiting() == 2, "the late build in line")
    lined = [row["label"] for row in world.status()["waiters"]]

    assert (lined, holder.end(), waiter.started().end(), late.started().end(), another_build(world)) == (
        ["waiter", "late"],
        0,
        0,
        0,
        (0, 1, {}),
    )


def test_a_capacity_that_is_asked_for_counts_whatever_the_file_held(world: World) -> None:
    world.ask("init")
    (world.folder / "capacity").write_text("7" * 80)

    world.ask("init", "--max-parallel-builds", "3")

    assert (world.status()["capacity"], world.value()) == (3, 3)


def test_a_reset_gives_the_parts_of_a_pool_their_modes_again(world: World) -> None:
    world.ask("init")
    for state in STATES:
        (world.folder / state).chmod(0o500)

    world.run("reset")

    assert ({oct((world.folder / state).stat().st_mode) for state in STATES}, another_build(world)) == (
        {oct(0o40700)},
        (0, 1, {}),
    )


@pytest.mark.parametrize("state", STATES)
def test_a_reset_by_root_makes_a_pool_anew_of_which_a_part_is_somebody_elses(state: str, world: World) -> None:
    needs_root(0)
    world.ask("init")
    os.chown(world.folder / state, USER, USER)

    reset = world.run("reset")

    assert (reset.returncode, "took the pool over" in reset.stderr, (world.folder / state).stat().st_uid) == (
        0,
        True,
        0,
    )


@pytest.mark.parametrize("digits", ["1001", "9" * 18, "9" * 31])
def test_a_capacity_that_cannot_be_is_none(digits: str, world: World) -> None:
    world.ask("init")
    (world.folder / "capacity").write_text(f"{digits}\n")

    shown = world.status()["capacity"]

    assert (shown, another_build(world)) == (1, (0, 1, {}))
