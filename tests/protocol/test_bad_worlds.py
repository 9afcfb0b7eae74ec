"""Worlds that go wrong around living builds: files vanish or are damaged, owners are stopped, /dev/shm has no room."""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import socket
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import posix_ipc
import pytest

from ipclock.cli import command_line
from ipclock.errors import MutexStuckError, SlotTimeout
from ipclock.linux.exit_watcher import ExitWatcher
from ipclock.linux.semaphore import path_of
from ipclock.pool.claim import Claim
from ipclock.pool.protocol import Pool
from ipclock.pool.records import Store
from ipclock.pool.wait_context import WaitContext
from tests.helpers.crash_at import OTHER_USER, USER, Client, in_child, needs_root, stopped_owner
from tests.helpers.machine import FULL, NO_SHM, READ_ONLY, in_a_world_where
from tests.helpers.world import remove_pool, until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.helpers.world import Build, World

DAMAGE = b"this is no semaphore at all, no!"
# A command that fails if another one of its kind runs at the same time.
ALONE = 'exec 9>>"$0"; flock -n 9 || exit 99; echo begin >>"$0"; echo end >>"$0"'


def pair(world: World) -> tuple[Build, Build]:
    """Return a holder and a waiter at the gate."""
    holder = world.wrap("holder").started()
    waiter = world.wrap("waiter")
    until(lambda: world.records("gate"), "the waiter at the gate")
    return holder, waiter


def shm(world: World) -> Path:
    return Path(path_of(world.name))


def replaced(path: Path) -> Path:
    """Remove what lies at the path, and return the path."""
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    return path


def seen(world: World) -> dict[str, list[str]]:
    """Return the records in the folders where builds are listed."""
    return {state: world.records(state) for state in ("queued", "gate", "holding")}


def tickets(world: World) -> tuple[list[int], list[int]]:
    """Return the tickets of (the holders, the waiters) that `status` shows; none while the pool is not there."""
    done = world.run("status", "--json")
    now = {"holders": [], "waiters": []} if done.returncode == 69 else json.loads(done.stdout)
    return [row["ticket"] for row in now["holders"]], [row["ticket"] for row in now["waiters"]]


def turns(world: World) -> list[int]:
    """Return the tickets whose turn semaphores are there."""
    return sorted(int(path.name.rpartition(".")[2]) for path in shm(world).parent.glob(f"{shm(world).name}.*"))


def another_build(world: World) -> tuple[int, int, dict[str, list[str]]]:
    """Return what becomes of one more build: its status, the value after it, what is left."""
    status = world.run("wrap", "-w", "20", "another", "--", "true").returncode
    return status, *world.settled()


# The semaphore


def test_a_semaphore_that_was_removed_is_made_again_for_all(world: World) -> None:
    holder, waiter = pair(world)

    shm(world).unlink()
    until(shm(world).exists, "a new semaphore")

    assert (holder.end(), waiter.started().end(), another_build(world)) == (0, 0, (0, 1, {}))


def test_a_semaphore_that_is_removed_right_before_the_release_keeps_nobody_waiting(world: World) -> None:
    holder, waiter = pair(world)

    shm(world).unlink()
    ended = holder.end()

    assert (ended, waiter.started().end(), another_build(world)) == (0, 0, (0, 1, {}))


def test_a_damaged_semaphore_is_named_with_its_remedy_and_a_reset_repairs_it(world: World) -> None:
    world.ask("init")
    shm(world).write_bytes(DAMAGE)

    refused = world.run("wrap", "late", "--", "true")
    reset = world.run("reset")

    assert (refused.returncode, refused.stderr.splitlines(), reset.returncode, another_build(world)) == (
        69,
        [
            f"ipclock: {shm(world)}: not a usable semaphore: wrong size or content",
            "   'ipclock reset' replaces it.",
        ],
        0,
        (0, 1, {}),
    )


def test_a_reset_of_a_damaged_semaphore_frees_the_waiters_of_the_old_one(world: World) -> None:
    holder, waiter = pair(world)
    draft = shm(world).with_name(shm(world).name + ".draft")
    draft.write_bytes(DAMAGE)

    draft.rename(shm(world))
    reset = world.run("reset").returncode
    waiter.started()

    assert (reset, holder.end(), waiter.end(), another_build(world)) == (0, 0, 0, (0, 1, {}))


# what sem_open(3) would map without a look, and what that would do to us
MARK = (128).to_bytes(4, sys.byteorder)
CORRUPT: dict[str, Callable[[Path], object]] = {
    "size 0": lambda path: path.touch(),  # SIGBUS
    "garbage": lambda path: path.write_bytes(DAMAGE),  # SIGABRT
    "zeros": lambda path: path.write_bytes(bytes(32)),  # posts wake nobody
    "too long": lambda path: path.write_bytes(bytes(8) + MARK + bytes(20) + b"\0"),
    "too short": lambda path: path.write_bytes(bytes(8) + MARK),
    "a value out of range": lambda path: path.write_bytes(b"\xff" * 4 + bytes(4) + MARK + bytes(20)),
    "gigantic": lambda path: [path.touch(), os.truncate(path, 1 << 40)],
    "a folder": lambda path: path.mkdir(),
    "a folder with files": lambda path: [path.mkdir(), (path / "file").touch()],
    "a FIFO": os.mkfifo,
    "a socket": lambda path: bound(path),
    "a link": lambda path: path.symlink_to("/dev/zero"),
    "a link to itself": lambda path: path.symlink_to(path),
}


def bound(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))


@pytest.mark.parametrize("how", CORRUPT)
@pytest.mark.parametrize("command", [("wrap", "late", "--", "true"), ("acquire", "late")])
def test_no_corrupt_semaphore_crashes_a_client(command: tuple[str, ...], how: str, world: World) -> None:
    world.ask("init")
    shm(world).unlink()
    CORRUPT[how](shm(world))

    refused = world.run(*command)

    assert (refused.returncode, refused.stderr.splitlines()[0].split(": ")[:3], world.leftovers()) == (
        69,
        ["ipclock", str(shm(world)), "not a usable semaphore"],
        {},
    )


@pytest.mark.parametrize("how", CORRUPT)
@pytest.mark.parametrize("command", ["reset", "init"])
def test_a_reset_replaces_a_corrupt_semaphore_or_says_that_it_cannot(command: str, how: str, world: World) -> None:
    world.ask("init")
    shm(world).unlink()
    CORRUPT[how](shm(world))

    done = world.run(command)

    # what is in a folder may be dear to somebody: root alone takes that away, with the name
    kept = "folder" in how and os.geteuid() != 0
    assert (done.returncode, shm(world).is_dir()) == ((77, True) if kept else (0, False))
    if kept:
        shutil.rmtree(shm(world))
    assert another_build(world) == (0, 1, {})


def test_a_reset_by_one_who_may_not_remove_the_corrupt_semaphore_names_its_owner(world: World) -> None:
    needs_root(0)
    world.ask("init", "--mode", "0660", "--group", str(USER))
    shm(world).write_bytes(DAMAGE)

    client = Client("reset", env=world.env | {"HOME": "/nonexistent"}, uid=OTHER_USER, groups=[USER])
    status, lines = client.wait(), client.errors().splitlines()
    client.close()

    assert (status, lines[0]) == (77, f"ipclock: {shm(world)}: belongs to another user (root, uid 0)")


DISASTERS: dict[str, Callable[[World], object]] = {
    "semaphore with garbage": lambda world: replaced(shm(world)).write_bytes(DAMAGE),
    "semaphore of size 0": lambda world: replaced(shm(world)).touch(),
    "semaphore now a link": lambda world: replaced(shm(world)).symlink_to("/nowhere"),
    "pool now a file": lambda world: replaced(world.folder).touch(),
    "pool now everybody's": lambda world: world.folder.chmod(0o777),
    "no folder for drafts and records": lambda world: [replaced(world.folder / name) for name in ("holding", "new")],
    "folder for holders only removed": lambda world: replaced(world.folder / "holding"),
    "folder for holders now a file": lambda world: replaced(world.folder / "holding").touch(),
    "no descriptor left": lambda world: resource.setrlimit(resource.RLIMIT_NOFILE, (3, 3)),
    "own record now a folder": lambda world: replaced(world.folder / "holding" / "1.1").mkdir(),
}


@pytest.mark.parametrize("disaster", DISASTERS)
def test_a_build_outlives_whatever_happens_to_its_pool(disaster: str, world: World) -> None:
    def child() -> str:
        pool = Pool.open(world.name, "/dev/shm")
        claim = pool.acquire(Claim("build"), WaitContext(5))
        DISASTERS[disaster](world)
        # what a supervisor does once a second while its build runs, and once at its end: were it to raise here, the
        # build would go on without supervisor and slot
        pool.watch(claim)
        pool.watch(claim)
        pool.release(claim)
        return "went on"

    assert in_child(child) == "went on"


def test_a_strangers_post_admits_nobody_too_many_and_is_taken_back(world: World) -> None:
    holder, waiter = pair(world)

    for _ in range(3):
        world.post()
    until(lambda: world.value() == 0, "the value levelled")

    assert (seen(world), tickets(world)) == ({"queued": [], "gate": ["2"], "holding": ["1.1"]}, ([1], [2]))
    assert (holder.end(), waiter.started().end(), world.settled()) == (0, 0, (1, {}))


def test_units_too_many_are_taken_back_by_whoever_comes_next(world: World) -> None:
    world.ask("init")

    for _ in range(3):
        world.post()

    assert (world.value(), world.run("init").returncode, world.value()) == (4, 0, 1)


def test_a_unit_that_a_stranger_took_comes_back(world: World) -> None:
    world.ask("init")
    thief = posix_ipc.Semaphore(world.name)
    thief.acquire(0)
    thief.close()

    assert (world.value(), another_build(world)) == (0, (0, 1, {}))


# The folder


@pytest.fixture(params=["/dev/shm", "/run"])
def anywhere(request: pytest.FixtureRequest, world: World) -> Iterator[World]:
    """A pool with its folder in /dev/shm, or in a lock folder of its own that goes with it."""
    if request.param == "/run":
        lock_dir = Path(request.param, f"ipclock{world.name.replace('/', '-')}")
        world.env["LOCK_DIR"] = str(lock_dir)
        world.folder = lock_dir / world.folder.name
    yield world
    if request.param == "/run":
        world.close()
        shutil.rmtree(lock_dir, ignore_errors=True)


def remove_folder(world: World) -> None:
    """Remove the pool's folder, or all of it where somebody does not make it anew at once."""
    shutil.rmtree(world.folder.parent if "LOCK_DIR" in world.env else world.folder, ignore_errors=True)


@pytest.mark.parametrize("semaphore", ["kept", "removed"])
def test_builds_write_themselves_again_into_a_pool_that_was_removed(semaphore: str, anywhere: World) -> None:
    anywhere.run("init", "--max-parallel-builds", "2")
    builds = [anywhere.wrap(label).started() for label in ("first", "second")]

    remove_folder(anywhere)
    if semaphore == "removed":
        shm(anywhere).unlink()
    until(lambda: len(anywhere.records("holding")) == 2, "both records again", 10)
    until(shm(anywhere).exists, "the semaphore again", 10)
    waiter = anywhere.wrap("waiter")
    until(lambda: anywhere.records("gate"), "the waiter at the gate")

    assert (tickets(anywhere), anywhere.status()["capacity"], anywhere.value()) == (([1, 2], [3]), 2, 0)
    assert ([build.end() for build in builds], waiter.started().end(), anywhere.settled()) == ([0, 0], 0, (2, {}))


def test_a_waiter_writes_itself_again_into_a_pool_that_was_removed(anywhere: World) -> None:
    holder, waiter = pair(anywhere)

    remove_folder(anywhere)
    until(lambda: sorted([*tickets(anywhere)[0], *tickets(anywhere)[1]]) == [1, 2], "both again", 10)

    assert (holder.end(), waiter.started().end(), anywhere.settled()) == (0, 0, (1, {}))


def test_files_removed_one_by_one_come_back(world: World) -> None:
    holder, waiter = pair(world)

    for folder, _, files in os.walk(world.folder, topdown=False):
        for path in [*(Path(folder, name) for name in files), Path(folder)]:
            with suppress(OSError):  # somebody may write again where we just were
                path.rmdir() if path.is_dir() else path.unlink()
    until(lambda: tickets(world) == ([1], [2]), "both again", 10)

    assert (holder.end(), waiter.started().end(), another_build(world)) == (0, 0, (0, 1, {}))


def test_a_waiter_that_finds_the_pool_removed_first_leaves_the_holder_its_slot(world: World) -> None:
    def child() -> tuple[int, list[str]]:
        holding, waiting = Pool.open(world.name, "/dev/shm"), Pool.open(world.name, "/dev/shm")
        held, claim = holding.acquire(Claim("holder"), WaitContext(5)), Claim("waiter")
        waiting.arrive(claim, WaitContext(5))
        shutil.rmtree(world.folder)
        waiting.keep(claim)
        waiting.admit(claim, WaitContext(5))
        holding.watch(held)
        return claim.slot, world.records("holding")

    assert in_child(child) == (0, ["1.1"])


@pytest.mark.parametrize("step", ["draft", "publish"])
def test_a_waiter_bears_that_the_pool_is_removed_again_while_it_writes_itself(
    step: str, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool, claim, context = Pool.open(world.name, "/dev/shm"), Claim("waiter"), WaitContext(60)
    pool.arrive(claim, context)
    write = getattr(Store, step)

    def remove_and_write(*arguments: Any) -> Any:
        monkeypatch.undo()
        remove_folder(world)
        return write(*arguments)

    monkeypatch.setattr(Store, step, remove_and_write)
    remove_folder(world)
    for _ in range(2):
        pool.stake(claim).kept_at = 0.0  # as if a second had passed
        pool.tick(claim, context)
    written = world.records("gate")
    pool.give_up(claim)
    pool.close()

    assert (written, world.settled()) == (["1"], (1, {}))


def test_who_comes_to_a_pool_that_was_removed_gets_nobodys_ticket(world: World) -> None:
    holder, waiter = pair(world)
    for build in (holder, waiter):  # so that they cannot write themselves again yet
        build.signal(signal.SIGSTOP)

    remove_folder(world)
    late = world.wrap("late")
    until(world.waiting, "the late build in line")
    drawn = tickets(world)
    for build in (waiter, holder):
        build.signal(signal.SIGCONT)
    until(lambda: sum(map(len, tickets(world))) == 3, "all three")

    assert (drawn, tickets(world), holder.end()) == (([], [3]), ([1], [2, 3]), 0)
    assert {build.started().end() for build in (waiter, late)} == {0}


def test_two_builds_that_have_drawn_one_ticket_from_two_folders_have_two_slots(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Pool, "_spare_tickets", lambda _: None)  # as where it may not look at the first one

    def child() -> tuple[list[str], int, list[str]]:
        pools = [Pool.open(world.name, "/dev/shm", 2) for _ in range(2)]
        first = pools[0].acquire(Claim("first"), WaitContext(5))
        shutil.rmtree(world.folder)
        second = pools[1].acquire(Claim("second"), WaitContext(5))
        pools[0].watch(first)
        listed, taken = world.records("holding"), world.status()["taken"]
        pools[0].release(first)
        left = world.records("holding")
        pools[1].release(second)
        return listed, taken, left

    assert (in_child(child), world.settled()) == ((["1.1", "1.2"], 2, ["1.1"]), (2, {}))


def test_a_waiter_whose_ticket_was_drawn_again_from_a_new_folder_gets_another_one(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Pool, "_spare_tickets", lambda _: None)

    def child() -> tuple[list[str], list[int]]:
        pools = [Pool.open(world.name, "/dev/shm") for _ in range(4)]
        labels = ("holder", "waiter", "holder anew", "waiter anew")
        claims = [Claim(label) for label in labels]
        pools[0].acquire(claims[0], WaitContext(5))
        pools[1].arrive(claims[1], WaitContext(5))
        pools[0].release(claims[0])
        shutil.rmtree(world.folder)
        pools[2].acquire(claims[2], WaitContext(5))
        pools[3].arrive(claims[3], WaitContext(5))
        pools[1].keep(claims[1])
        listed = [*world.records("gate"), *world.records("queued")]
        for pool, claim in zip(pools[2:], claims[2:], strict=True):
            pool.give_up(claim)
        pools[1].wait_at_gate(claims[1], WaitContext(5))
        pools[1].admit(claims[1], WaitContext(5))
        tickets = [claim.ticket for claim in claims]
        pools[1].release(claims[1])
        return listed, tickets

    assert (in_child(child), world.settled()) == ((["2", "3"], [1, 3, 1, 2]), (1, {}))


@pytest.mark.parametrize("settled", [False, True], ids=["before", "after the new pool was settled"])
def test_the_turn_of_a_waiter_that_was_killed_before_it_came_back_is_removed(settled: bool, anywhere: World) -> None:
    builds = [*pair(anywhere), anywhere.wrap("killed")]
    until(lambda: turns(anywhere) == [3], "the turn of the one in line")
    builds.append(anywhere.wrap("last"))
    until(lambda: turns(anywhere) == [3, 4], "the turn of the last one")
    for build in builds:  # so that they cannot write themselves again yet
        build.signal(signal.SIGSTOP)
    killed = builds.pop(2)

    remove_folder(anywhere)
    if settled:
        builds[0].signal(signal.SIGCONT)
        until(lambda: anywhere.records("holding"), "the holder back")
    killed.signal(signal.SIGKILL)
    killed.wait()
    refused = anywhere.run("wrap", "-n", "another", "--", "true").returncode
    left = turns(anywhere)
    for build in builds:
        build.signal(signal.SIGCONT)
    until(lambda: tickets(anywhere) == ([1], [2, 4]), "all three")
    # the first one of the two to come back goes to the gate; the other one, if it had no turn, makes one
    until(lambda: turns(anywhere) in ([4], [2, 4]), "the turn of the last one")

    assert (refused, left) == (75, [])
    holder, *waiters = builds
    assert (holder.end(), {waiter.started().end() for waiter in waiters}, anywhere.settled()) == (0, {0}, (1, {}))


def test_a_turn_that_was_removed_is_made_again_and_wakes_its_waiter(world: World) -> None:
    holder, waiter = pair(world)
    late = world.wrap("late")
    until(lambda: turns(world) == [3], "the turn of the one in line")

    turn = replaced(Path(path_of(f"{world.name}.3")))
    until(turn.exists, "the turn again", 10)
    again = posix_ipc.Semaphore(f"{world.name}.3")
    again.release()
    until(lambda: again.value == 0, "the waiter to wake up by it", 10)
    again.close()

    assert (holder.end(), waiter.started().end(), late.started().end(), world.settled()) == (0, 0, 0, (1, {}))


def test_who_cannot_make_its_turn_again_waits_on(world: World) -> None:
    holder, waiter = pair(world)
    late = world.wrap("late", env={"PROGRESS_INTERVAL": "1"})
    until(lambda: turns(world) == [3], "the turn of the one in line")
    late.signal(signal.SIGSTOP)
    turn = replaced(Path(path_of(f"{world.name}.3")))
    turn.mkdir()
    late.signal(signal.SIGCONT)

    told = late.heard().count("⏳")
    until(lambda: late.heard().count("⏳") >= told + 3, "a look after its turn, which comes after a line")
    ended = holder.end(), waiter.started().end(), late.started().end()
    turn.rmdir()

    assert (ended, "ipclock:" in late.heard(), world.settled()) == ((0, 0, 0), False, (1, {}))


def test_an_orphan_counts_although_its_pool_was_removed(anywhere: World) -> None:
    orphan = anywhere.wrap("orphan").started()
    orphan.signal(signal.SIGKILL)
    orphan.wait()

    remove_folder(anywhere)
    late = anywhere.wrap("late")
    until(anywhere.waiting, "the late build in line")
    refused = anywhere.run("wrap", "-n", "another", "--", "true").returncode
    kept = anywhere.records("holding"), anywhere.waiting()
    os.kill(orphan.command_pid, signal.SIGKILL)

    assert (refused, kept, late.started().end(), anywhere.settled()) == (75, ([], 1), 0, (1, {}))


def test_a_holders_record_that_was_removed_is_written_again_under_its_ticket(world: World) -> None:
    holder = world.wrap("holder").started()

    (world.folder / "holding" / "1.1").unlink()
    until(lambda: world.records("holding"), "the record again", 10)
    shown = [(row["ticket"], row["label"], row["command_pid"], row["state"]) for row in world.status()["holders"]]

    assert (shown, holder.end(), another_build(world)) == (
        [(1, "holder", holder.command_pid, "running")],
        0,
        (0, 1, {}),
    )


def test_a_waiters_record_that_was_removed_is_written_again_under_its_ticket(world: World) -> None:
    holder, waiter = pair(world)
    late = world.wrap("late")
    until(lambda: world.waiting() == 2, "the late build in line")

    (world.folder / "gate" / "2").unlink()
    until(lambda: tickets(world) == ([1], [2, 3]), "the record again", 10)
    ended = [holder.end()]
    for _ in range(2):
        # who was called while the record was missing may keep its place at the gate
        holding = until(lambda: world.records("holding"), "the next holder")
        ended.append({"2.1": waiter, "3.1": late}[holding[0]].started().end())

    assert (ended, another_build(world)) == ([0, 0, 0], (0, 1, {}))


def test_a_build_that_was_written_again_still_counts_when_its_supervisor_is_killed(world: World) -> None:
    holder = world.wrap("holder").started()
    (world.folder / "holding" / "1.1").unlink()
    until(lambda: world.records("holding"), "the record again", 10)

    holder.signal(signal.SIGKILL)
    holder.wait()
    refused = world.run("wrap", "-n", "late", "--", "true").returncode
    os.kill(holder.command_pid, signal.SIGKILL)

    assert (refused, another_build(world)) == (75, (0, 1, {}))


def test_a_record_that_a_reset_took_away_is_not_written_again(world: World) -> None:
    def child() -> tuple[bool, int, int, list[str]]:
        pool, admin = Pool.open(world.name, "/dev/shm"), Pool.open(world.name, "/dev/shm")
        claim = pool.acquire(Claim("build"), WaitContext(5))
        admin.reset(WaitContext(5))
        pool.watch(claim)
        between = pool.gate.value
        pool.release(claim)
        return claim.evicted, between, pool.gate.value, world.records("holding")

    assert in_child(child) == (True, 1, 1, [])


@pytest.mark.parametrize("file", ["mutex", "ticket", "capacity", "epoch"])
def test_a_number_that_was_removed_alone_costs_nobody_anything(file: str, world: World) -> None:
    holder, waiter = pair(world)

    (world.folder / file).unlink()
    late = world.wrap("late")
    until(lambda: world.waiting() == 2, "the late build in line")

    assert (tickets(world), holder.end(), waiter.started().end(), late.started().end(), another_build(world)) == (
        ([1], [2, 3]),
        0,
        0,
        0,
        (0, 1, {}),
    )


def test_sections_exclude_each_other_after_the_mutex_was_removed(world: World) -> None:
    def child() -> str:
        before = Pool.open(world.name, "/dev/shm")
        (world.folder / "mutex").unlink()
        after = Pool.open(world.name, "/dev/shm")
        with after.store.mutex(lambda seconds, pid: None):
            try:
                before.tidy(WaitContext(0))
            except MutexStuckError:
                return "kept out"
        return "both in"

    assert in_child(child) == "kept out"


def test_a_reset_is_heeded_by_a_holder_from_before_the_epoch_was_removed(world: World) -> None:
    def child() -> tuple[bool, list[str]]:
        pool = Pool.open(world.name, "/dev/shm")
        claim = pool.acquire(Claim("build"), WaitContext(5))
        (world.folder / "epoch").unlink()
        pool.watch(claim)
        Pool.open(world.name, "/dev/shm").reset(WaitContext(5))
        pool.watch(claim)
        return claim.evicted, world.records("holding")

    assert in_child(child) == (True, [])


def test_a_missing_lock_folder_is_made(world: World, tmp_path: Path) -> None:
    path = tmp_path / "run" / "ipclock"

    made = world.run("init", "--lock-dir", str(path))

    assert (made.returncode, made.stdout) == (0, f"{path}/ipclock.{world.name[1:]}\n")


# Records


def test_waiters_pass_a_damaged_record_in_line(world: World) -> None:
    world.ask("init")
    (world.folder / "ticket").write_text("7\n")
    for ticket in ("5", "6"):
        (world.folder / "queued" / ticket).touch()
    (world.folder / "gate" / "4").write_bytes(b"\xff" * 5000)

    assert another_build(world) == (0, 1, {})


def test_a_damaged_holder_counts_is_shown_and_goes_by_a_reset(world: World) -> None:
    world.ask("init")
    (world.folder / "ticket").write_text("7\n")
    (world.folder / "holding" / "5.1").touch()

    refused = world.run("wrap", "-n", "late", "--", "true").returncode
    shown = [(row["ticket"], row["slot"], row["state"]) for row in world.status()["holders"]]
    line = world.run("status").stdout.splitlines()[1]
    reset = world.run("reset", "5").returncode

    assert (refused, shown, line, reset, another_build(world)) == (
        75,
        [(5, 1, "unknown")],
        "  - [?] ? (PID: ?) unknown: its process is not visible from here · ticket 5",
        0,
        (0, 1, {}),
    )


ABSURD = "9" * 26
HOSTILE = {
    "holding/5.1": [
        f"kind=pid\nlabel=x\nprocess={ABSURD}:1:x:1\n",
        "kind=pid\nlabel=x\nprocess=-1:1:x:1\ncommand_pid=-1\n",
        f"kind=pid\nlabel=x\nuid={ABSURD}\ncommand_pid={ABSURD}\ncommand_start={ABSURD}\n",
        f"kind=fd\nlabel=x\nbeacon={ABSURD}:{ABSURD}\nadmitted={ABSURD}\nadmitted_mono=nan\nmemory={ABSURD}\n",
    ],
    "drained": [f"until={ABSURD}\nuid={ABSURD}\n", "until=1e400\n", "until=9999999999\n"],
    "fair": [f"between=user\n{ABSURD}=u0,0\n7=u0,{ABSURD}\n8=,\n", "between=nobody\n", "7=u0,0\n"],
    "ticket": [ABSURD, "999999999999999999"],
    "epoch": [ABSURD],
    "capacity": [ABSURD],
    "priority": [ABSURD],
    "mutex": [ABSURD],
    "settled": [ABSURD],
    f"holding/{ABSURD}.1": [""],
    f"holding/7.{ABSURD}": [""],
    f"queued/9,p{ABSURD},u{ABSURD},b{ABSURD}": [""],
    "queued/999999999999999999": [""],
}
COMMANDS = (
    ("status",),
    ("status", "--json"),
    ("metrics",),
    ("wrap", "-q", "-w", "0.2", "late", "--", "true"),
    ("release", "5"),
    ("wait", "-w", "0", "5"),
    ("wait", "-w", "0", "--idle"),
    ("logs",),
    ("drain", "--for", "1h"),
    ("resume",),
)


@pytest.mark.parametrize(("file", "text"), [(file, text) for file, texts in HOSTILE.items() for text in texts])
def test_no_number_in_a_file_ends_a_command_and_a_reset_mends_it(file: str, text: str, world: World) -> None:
    world.ask("init")
    path = world.folder / file
    path.write_text(text)

    ended = {world.run(*command).returncode for command in COMMANDS}
    mended = world.run("reset").returncode

    assert (ended - {0, 2, 69, 75, 77, 80}, mended, another_build(world)) == (set(), 0, (0, 1, {}))


@pytest.mark.parametrize("value", [2**31 - 1, 2**31 + 5, 2**32 - 1])
def test_a_semaphore_with_more_units_than_can_be_taken_back_is_replaced(value: int, world: World) -> None:
    holder, waiter = pair(world)
    with shm(world).open("r+b") as file:
        for build in (holder, waiter):  # either would mend it in its next section
            build.signal(signal.SIGSTOP)
        file.write(value.to_bytes(4, sys.byteorder))

    newcomer = world.run("wrap", "-n", "late", "--", "true").returncode
    for build in (holder, waiter):
        build.signal(signal.SIGCONT)
    ended = holder.end(), waiter.started().end()

    assert (newcomer, ended, world.run("reset").returncode, another_build(world)) == (69, (0, 0), 0, (0, 1, {}))


# The mutex (INV-7, INV-7a)


def test_a_stopped_owner_of_the_mutex_is_named_and_waited_for_no_longer_than_asked(world: World) -> None:
    with stopped_owner(world) as owner:
        refused = world.run("wrap", "-w", "1.1", "late", "--", "true")
        shown = world.run("status").returncode
        os.kill(owner, signal.SIGCONT)
        after = another_build(world)

    assert (refused.returncode, refused.stderr.splitlines(), shown, after) == (
        75,
        [
            f"❌ {world.folder}: the pool is locked by process {owner}, which does not respond",
            f"   Continue the process (kill -CONT {owner}) or kill it (kill -KILL {owner}).",
        ],
        0,
        (0, 1, {}),
    )


def test_a_stopped_owner_of_the_mutex_is_named_while_somebody_waits_for_it(world: World, tmp_path: Path) -> None:
    written = tmp_path / "stderr"
    with stopped_owner(world) as owner, written.open("wb") as stderr:
        late = world.wrap("late", stderr=stderr)
        until(written.read_bytes, "a line about the mutex")
        before = seen(world)
        os.kill(owner, signal.SIGCONT)
        late.started()

    assert (written.read_text().splitlines(), before, late.end(), another_build(world)) == (
        [
            f"⏳ the pool is locked by process {owner}, which does not respond",
            "✓ build slot acquired (1/1)",
            "✓ starting the build of late.",
        ],
        {"queued": [], "gate": [], "holding": []},
        0,
        (0, 1, {}),
    )


def test_a_killed_owner_of_the_mutex_keeps_nobody(world: World) -> None:
    with stopped_owner(world):
        late = world.wrap("late")

    assert (late.started().end(), world.settled()) == (0, (1, {}))


# The machine


WORLDS = {
    "missing": (NO_SHM, 69, "ipclock: /dev/shm: not available: no such directory"),
    "read-only": (READ_ONLY, 73, "ipclock: {folder}: cannot create or write: Read-only file system"),
    "full": (FULL, 73, "ipclock: {folder}: cannot create or write: No space left on device"),
}


@pytest.mark.parametrize(
    ("command", "shape"),
    [
        *((command, shape) for command in (("wrap", "late", "--", "true"), ("init",)) for shape in WORLDS),
        (("reset",), "missing"),
    ],
    ids=str,
)
def test_without_a_usable_dev_shm_one_line_says_so(command: tuple[str, ...], shape: str, world: World) -> None:
    script, status, first = WORLDS[shape]

    found, lines = in_a_world_where(script, world, *command)

    assert (found, lines[:1], [line[:3] for line in lines[1:]]) == (
        status,
        [first.format(folder=world.folder)],
        ["   "],
    )


def test_a_dev_shm_that_may_not_be_listed_is_good_enough_for_the_semaphores(world: World) -> None:
    needs_root(0)
    unlisted = "mount -t tmpfs -o mode=1733 tmpfs /dev/shm; mount -t tmpfs -o mode=1777 tmpfs /mnt"
    command = ["wrap", "-q", "--lock-dir", "/mnt", "late", "--", "true"]

    assert in_a_world_where(unlisted, world, *command, uid=USER) == (0, [])


def test_a_dev_shm_that_is_a_file_is_refused_in_one_line(world: World) -> None:
    status, lines = in_a_world_where(f"{NO_SHM}\ntouch /dev/shm", world, "wrap", "late", "--", "true")

    assert (status in (69, 73), lines[0][:17], [line[:3] for line in lines[1:]]) == (True, "ipclock: /dev/shm", ["   "])


def test_without_dev_shm_the_status_is_that_of_an_empty_pool_or_a_clear_line(world: World) -> None:
    status, lines = in_a_world_where(NO_SHM, world, "status")

    assert (status in (0, 69), [line for line in lines if "Traceback" in line or "internal" in line]) == (True, [])


@pytest.mark.parametrize("limit", ["size", "nr_inodes"])
def test_on_a_device_with_little_room_a_build_runs_or_one_line_says_why_not(limit: str, world: World) -> None:
    found = {}
    for room in range(1, 18):
        size = f"{room * 4}k" if limit == "size" else f"{room}"
        status, lines = in_a_world_where(
            f"mount -t tmpfs -o {limit}={size} tmpfs /dev/shm", world, "wrap", "-q", "-w", "5", "late", "--", "true"
        )
        reason = lines[0].rpartition(": ")[2] if lines else ""
        found[size] = (status, reason, len(lines))

    outcomes = set(found.values())
    assert outcomes == {(73, "No space left on device", 2), (0, "", 0)}, found


def test_a_device_that_fills_up_while_a_build_runs_lets_it_end_and_others_queue(world: World) -> None:
    script = f"""
mount -t tmpfs -o size=256k tmpfs /dev/shm
"$@" wrap -q builds -- sh -c 'cat /dev/zero >/dev/shm/filler 2>/dev/null; exit 7' || echo "ended with $?"
"$@" wrap -q full -- true 2>&1 || echo "refused with $?"
rm /dev/shm/filler
"$@" wrap -q again -- true; echo "then $?"
ls /dev/shm/ipclock.{world.name[1:]}/queued /dev/shm/ipclock.{world.name[1:]}/holding
exit
"""
    status, lines = in_a_world_where(script, world)

    assert (status, lines[0], [line for line in lines if "refused" in line or "then" in line][-1]) == (
        0,
        "ended with 7",
        "then 0",
    )


def test_a_pool_on_a_device_that_became_read_only_is_refused_in_one_line_and_usable_afterwards(world: World) -> None:
    script = """
mount -t tmpfs tmpfs /mnt
mount -t tmpfs tmpfs /dev/shm
"$@" init >/dev/null
mount -o remount,ro /dev/shm
for command in "wrap late -- true" "acquire --pid 1 late" "release 1" init reset status; do
    "$@" $command >/dev/null 2>/mnt/lines || echo "$command: $? $(sed 's/.*: //;q' /mnt/lines)"
done
mount -o remount,rw /dev/shm
"$@" wrap -q late -- true && echo runs
exit
"""

    status, lines = in_a_world_where(script, world)

    commands = ["wrap late -- true", "acquire --pid 1 late", "release 1", "init", "reset", "status"]
    assert (status, lines) == (0, [*(f"{command}: 73 Read-only file system" for command in commands), "runs"])


def test_without_an_inode_left_a_build_ends_as_ever_and_others_leave_in_one_line_or_wait(world: World) -> None:
    pool = f"/dev/shm/ipclock.{world.name[1:]}"
    script = f"""
mount -t tmpfs tmpfs /mnt
mount -t tmpfs -o nr_inodes=41 tmpfs /dev/shm
"$@" wrap -q holder -- sh -c 'echo >/mnt/holds; until [ -e /mnt/go ]; do sleep 0.05; done; exit 7' &
holder=$!
until [ -e /mnt/holds ]; do sleep 0.05; done
"$@" wrap -q -w 20 first -- echo "first runs" >/mnt/first &
until [ "$(ls {pool}/gate)" ]; do sleep 0.05; done
n=0; while touch /dev/shm/filler.$n 2>/dev/null; do n=$((n + 1)); done
for free in 0 1 2 3; do
    "$@" wrap -q -w 0.3 late -- true 2>/mnt/lines && exit 1
    echo "$free free: $? $(wc -l </mnt/lines)"
    rm /dev/shm/filler.$free
done
echo >/mnt/go
wait "$holder" || echo "ended with $?"
rm /dev/shm/filler.*
"$@" wrap -q -w 20 again -- cat /mnt/first && echo "then 0"
ls {pool}/queued {pool}/gate {pool}/holding | grep '^[0-9]' || echo "none left"
exit
"""

    status, lines = in_a_world_where(script, world)

    # a record takes one, the turn of a waiter behind the gate two more while it is made: a name is as dear as a file
    assert (status, lines) == (
        0,
        [
            "0 free: 73 2",
            "1 free: 73 2",
            "2 free: 75 0",
            "3 free: 75 0",
            "ended with 7",
            "first runs",
            "then 0",
            "none left",
        ],
    )


@pytest.mark.parametrize("made", [True, False], ids=["a pool", "no pool"])
def test_with_few_descriptors_a_build_runs_or_one_line_says_why_not(made: bool, world: World) -> None:
    found = {}
    for limit in range(7, 26):
        if made:
            world.ask("init")
        else:
            remove_pool(world.name[1:])
        shell = ["sh", "-c", f'ulimit -n {limit}; exec "$@"', "sh"]
        build = world.spawn(*shell, sys.executable, "-m", "ipclock", "wrap", "-q", "-w", "5", "late", "--", "true")
        status, lines = build.wait(), build.errors().splitlines()
        remedy = f"   Raise the limit of open files ('ulimit -n', now {limit})."
        told = [line.replace(remedy, "remedy").rpartition(": ")[2] for line in lines]
        found[limit] = status, *told

    assert set(found.values()) == {(73, "Too many open files", "remedy"), (0,)}, found
    assert another_build(world)[:2] == (0, 1)  # a sweep takes away what did not come beyond a draft


class Watching(WaitContext):
    def watching(self, find: Callable[[], list[list[int]]]) -> ExitWatcher:
        return ExitWatcher(find())


def test_one_who_may_start_no_thread_waits_on_at_the_gate(world: World) -> None:
    needs_root(0)
    world.ask("init", "--mode", "0660", "--group", str(USER))
    holder = world.wrap("holder").started()

    def wait() -> str:
        resource.setrlimit(resource.RLIMIT_NPROC, (1, 1))  # and that is the waiter itself
        pool = Pool.open(world.name, "/dev/shm")
        claim = Claim("waiter")
        try:
            pool.acquire(claim, Watching(1.5))
        except SlotTimeout as error:
            return str(error)
        return f"got slot {claim.slot}"

    waited = in_child(wait, OTHER_USER, groups=[USER])

    assert (waited, holder.end(), another_build(world)) == ("timed out: no build slot within 1.5 s.", 0, (0, 1, {}))


def test_one_who_may_start_no_process_is_told_so_and_gives_its_slot_back(world: World) -> None:
    needs_root(0)
    world.ask("init", "--mode", "0660", "--group", str(USER))

    def build() -> tuple[int, list[str]]:
        resource.setrlimit(resource.RLIMIT_NPROC, (1, 1))
        os.environ.update(SEMAPHORE_NAME=world.name, HISTORY="off", HOME="/nonexistent", LANG="C.UTF-8")
        fd = os.memfd_create("stderr")
        os.dup2(fd, 2)
        sys.stderr = os.fdopen(2, "w")
        status = command_line.main(["wrap", "-q", "late", "--", "true"])
        return status, os.pread(fd, 4096, 0).decode().splitlines()

    told = in_child(build, OTHER_USER, groups=[USER])

    remedy = "   The limit of processes is reached: raise that of 'ulimit -u' or of the cgroup."
    assert (told, another_build(world)) == (
        (126, ["ipclock: true: Resource temporarily unavailable", remedy]),
        (0, 1, {}),
    )


# The beginning


def test_twenty_first_users_at_once_make_one_pool(world: World, tmp_path: Path) -> None:
    witness = tmp_path / "witness"
    witness.touch()

    builds = [world.popen("wrap", f"build {n}", "--", "sh", "-c", ALONE, str(witness)) for n in range(20)]
    statuses = [build.wait() for build in builds]

    assert (statuses, witness.read_text(), world.settled()) == ([0] * 20, "begin\nend\n" * 20, (1, {}))


def test_a_supervisor_in_which_something_fails_says_so_once_and_stays_with_its_build(world: World) -> None:
    broken = (
        "import sys; from ipclock.cli.command_line import main; from ipclock.pool.protocol import Pool;"
        "Pool.watch = lambda *_: 1 / 0; sys.exit(main())"
    )
    build = ("sh", "-c", "echo ready; cat")
    failing = world.spawn(sys.executable, "-c", broken, "wrap", "-q", "failing", "--", *build)
    assert failing.line() == "ready"

    until(lambda: "division" in failing.heard(), "the warning")
    refused = world.run("wrap", "-n", "late", "--", "true").returncode
    assert failing.process.stdin
    failing.process.stdin.close()

    ended = failing.wait(), failing.heard()
    assert (ended, refused, world.settled()) == ((0, "ipclock: warning: division by zero\n"), 75, (1, {}))
