"""A local user that pretends to have builds of root's new pool: what that brings about, and what ends it."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from ipclock.linux.locks import try_lock
from ipclock.pool.local import LocalPool
from ipclock.pool.record import Beacons
from tests.helpers.crash_at import USER, Client, child, needs_root
from tests.helpers.world import SHM, until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.helpers.world import World

LATE = ("wrap", "-q", "-n", "late", "--", "true")


@contextmanager
def pretender(world: World, record: str, units: int) -> Iterator[int]:
    """A process of another user, with a removed file by a record's name, locked as by a holder of so many units."""
    pool = world.name[1:]
    folder = SHM / f"{pool}.theirs" / f"ipclock.{pool}" / "holding"
    ready = SHM / f"{pool}.ready"

    def pretend() -> None:
        folder.mkdir(parents=True)
        fd = os.open(folder / record, os.O_CREAT | os.O_RDWR)
        assert try_lock(fd, Beacons.of(pool, SHM.stat().st_dev).holder(units))
        (folder / record).unlink()
        ready.touch()
        signal.pause()

    with child(pretend, USER) as pid:
        until(ready.exists, "the lock")
        for path in (folder, *folder.parents[:2]):
            path.rmdir()
        ready.unlink()
        yield pid


@pytest.mark.parametrize("digits", [17, 18, 25, 39])
@pytest.mark.parametrize("by", ["a record", "a turn"])
def test_a_ticket_that_somebody_pretends_to_have_leaves_numbers_for_all_others(
    by: str, digits: int, world: World
) -> None:
    needs_root(0)
    number = "9" * digits
    turn = SHM / f"sem.{world.name[1:]}.{number}"
    with pretender(world, f"{number}.1", 1):
        if by == "a turn":
            turn.touch()
            os.chown(turn, USER, USER)
        made = world.run("init").returncode, world.run("reset").returncode
    turn.unlink(missing_ok=True)

    first, second = world.wrap("first").started(), world.wrap("second")
    until(lambda: world.records("gate"), "the second at the gate")
    tickets = [int(name.partition(".")[0]) for state in ("holding", "gate") for name in world.records(state)]

    assert (made, [len(str(ticket)) < 20 for ticket in tickets]) == ((0, 0), [True, True])
    assert (first.end(), second.started().end(), world.settled()) == (0, 0, (1, {}))


def test_locks_that_no_record_lists_are_told_with_their_processes_and_a_reset_forgets_them(world: World) -> None:
    needs_root(0)
    env = {"MAX_PARALLEL_BUILDS": "3"}
    with pretender(world, "7.1", 2) as pid:
        world.run("init", env=env)
        first = world.wrap("first").started()
        second = world.wrap("second")
        line = until(second.heard, "the waiting line")
        status = world.run("status").stdout.splitlines()
        shown = json.loads(world.run("status", "--json").stdout)
        refused = world.run("wrap", "-n", "late", "--", "true")
        checks = json.loads(world.run("doctor", "--json").stdout)["checks"]
        [check] = [row for row in checks if row["name"] == "locks"]
        reset = world.run("reset").stderr.splitlines()
        opened = second.started().end(), first.end(), world.run(*LATE).returncode

    facts = [shown[key] for key in ("capacity", "taken", "free", "unlisted", "unlisted_pids")]
    assert (facts, re.findall("· (slots held.*?: 2)", line)) == (
        [3, 1, 0, 2, [pid]],
        ["slots held by locks without a record here: 2"],
    )
    told = f"slots held by locks without a record here: 2 (PIDs: {pid})"
    assert (status[1], refused.returncode, "3 of 3 in use" in refused.stderr) == (f"  {told}", 75, True)
    assert (check["level"], check["finding"], check["remedy"]) == (
        "warn",
        told,
        "They stay in use until these processes end, or until 'sudo ipclock reset' ignores them.",
    )
    assert (reset[1:], opened) == (
        [f"ipclock: {told}: ignored from now on; the builds keep running", "✓ all locks have been released."],
        (0, 0, 0),
    )


@pytest.mark.parametrize(("ticket", "said"), [("", 77), ("8", 0)])
def test_a_reset_that_ends_builds_says_which_it_cannot_end(ticket: str, said: int, world: World) -> None:
    needs_root(0)
    with pretender(world, "7.1", 2) as pid:
        world.run("init", env={"MAX_PARALLEL_BUILDS": "3"})
        build = world.wrap("mine").started()
        reset = world.run("reset", "--kill", *filter(None, [ticket]))
        counted = world.status()["unlisted"]

    told = f"slots held by locks without a record here: 2 (PIDs: {pid}): not killed"
    assert (reset.returncode, told in reset.stderr, counted, build.wait()) == (said, said == 77, 2, -signal.SIGTERM)


def test_one_who_may_not_look_at_the_processes_is_told_the_number_and_who_can(world: World) -> None:
    needs_root(0)
    with pretender(world, "7.1", 1):
        world.run("init", "--mode", "0660", "--group", str(USER + 1))
        client = Client("status", env=world.env | {"HOME": "/nonexistent"}, uid=USER + 1)
        lines = [client.line(), client.line()]
        client.close()

    assert lines[1] == "  slots held by locks without a record here: 1 (PIDs: ?)"


def test_a_settled_pool_is_not_kept_shut(world: World) -> None:
    needs_root(0)
    world.ask("init")
    with pretender(world, "7.1", 1):
        assert (world.run(*LATE).returncode, world.status()["unlisted"]) == (0, 0)


def test_a_build_of_a_removed_folder_is_told_until_it_is_listed_again(world: World) -> None:
    holder = world.wrap("holder").started()
    os.kill(holder.pid, signal.SIGSTOP)
    moved = Path(f"{world.folder}.moved")
    world.folder.rename(moved)
    try:
        world.ask("init")
        stopped = world.status()
        os.kill(holder.pid, signal.SIGCONT)
        until(lambda: world.records("holding"), "the record again")
        again = world.status()
    finally:
        os.kill(holder.pid, signal.SIGCONT)
        shutil.rmtree(moved)

    facts = [(now["taken"], now["unlisted"], holder.command_pid in now["unlisted_pids"]) for now in (stopped, again)]
    assert (facts, holder.end()) == ([(0, 1, True), (1, 0, False)], 0)


def test_a_pretended_ticket_hides_none_of_a_build_whose_folder_was_removed(world: World) -> None:
    needs_root(0)
    holder = world.wrap("holder").started()
    os.kill(holder.pid, signal.SIGSTOP)  # so that it does not write itself again by itself
    moved = SHM / f"{world.name[1:]}.moved"
    moved.mkdir()
    world.folder.rename(moved / world.folder.name)
    try:
        with pretender(world, f"{'9' * 18}.1", 1):
            late = world.wrap("late", env={"MAX_PARALLEL_BUILDS": "3"}).started()
        tickets = [name.partition(".")[0] for name in world.records("holding")]
    finally:
        os.kill(holder.pid, signal.SIGCONT)
        shutil.rmtree(moved)

    assert ("1" in tickets, late.end(), holder.end()) == (False, 0, 0)


def test_a_slot_is_kept_by_what_holds_the_lock_that_its_record_names_whosever_the_record_is(
    world: World, tmp_path: Path
) -> None:
    needs_root(0)
    world.ask("init")
    lock = os.open(tmp_path / "beacon", os.O_CREAT | os.O_RDWR)
    assert try_lock(lock, Beacons.of(world.name[1:], SHM.stat().st_dev).holder(1))
    status = os.fstat(lock)
    record = world.folder / "holding" / "7.1"
    record.write_text(f"kind=fd\nlabel=script\nuid=0\nbeacon={status.st_dev}:{status.st_ino}\n")
    os.chown(record, USER, USER)  # as what root writes in the pool of a user

    with child() as pid:
        pool = LocalPool.open(world.name, "/dev/shm")
        kept = pool.kept_by(7)
        pool.close()
    os.close(lock)

    assert kept == [pid]
