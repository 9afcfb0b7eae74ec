"""Root is never locked out of a name, and living builds count on; the owner of an idle pool may move it."""

from __future__ import annotations

import os
import re
import shutil
import signal
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from ipclock.linux.locks import try_lock
from ipclock.pool import place
from tests.helpers.crash_at import OTHER_USER, USER, Client, Crash, child, in_child, needs_root
from tests.helpers.world import until
from tests.protocol.test_users import PLANTS, elsewhere, plant_folder, sem, untouched

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.helpers.sample import Sample
    from tests.helpers.world import World

__all__ = ["elsewhere"]
GROUP = 64000
BUILD = ("sh", "-c", "echo ready; cat")
SHARED = ("--mode", "0660", "--group", str(GROUP))


class Users:
    """Clients of several users on one pool, each a member of GROUP unless it is a stranger."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.env = world.env | {"HOME": "/nonexistent"}
        self.clients: list[Client] = []

    def start(self, uid: int, *arguments: str, member: bool = True, crash: Crash | None = None) -> Client:
        groups = [GROUP] if member and uid else []
        self.clients.append(Client(*arguments, env=self.env, uid=uid, groups=groups, crash=crash))
        return self.clients[-1]

    def run(self, uid: int, *arguments: str, member: bool = True) -> tuple[int, list[str]]:
        """Return (exit status, lines on stderr)."""
        client = self.start(uid, *arguments, member=member)
        return client.end(), client.errors().splitlines()

    def forget(self) -> None:
        """Close all clients."""
        for client in self.clients:
            client.close()
        self.clients.clear()

    def busy(self, uid: int, member: bool = True) -> int:
        """Return the status of a build that would not wait."""
        return self.run(uid, "wrap", "-q", "-n", "late", "--", "true", member=member)[0]

    def wrap(self, uid: int, label: str, *, member: bool = True) -> Client:
        client = self.start(uid, "wrap", "-q", "-w", "20", label, "--", *BUILD, member=member)
        assert client.line() == "ready"
        return client


@pytest.fixture
def users(world: World) -> Iterator[Users]:
    """Nobody yet."""
    needs_root(0)
    made = Users(world)
    yield made
    made.forget()


def owners(world: World) -> set[tuple[int, int]]:
    """Return owner and group of what is the pool's own."""
    paths = [world.folder, *world.folder.iterdir(), sem(world)]
    return {(path.lstat().st_uid, path.lstat().st_gid) for path in paths}


# Root


@pytest.mark.parametrize("command", [("init",), ("init", *SHARED), ("init", "--lock-dir", "/run/ipclock-test")])
def test_root_makes_a_users_old_pool_its_own(command: tuple[str, ...], users: Users) -> None:
    users.run(USER, "wrap", "-q", "-n", "once", "--", "true", member=False)

    status, lines = users.run(0, *command)
    found = place.look_up(users.world.name[1:])
    assert found
    users.world.folder = Path(found.path)
    group = GROUP if SHARED[0] in command else 0
    facts = owners(users.world), users.busy(0), users.busy(USER), users.busy(OTHER_USER)
    shutil.rmtree("/run/ipclock-test", ignore_errors=True)

    told = [f"ipclock: took the pool over from {USER}; running builds that keep their slots: 0"]
    usable = 0 if group else 77
    assert (status, lines, facts) == (0, told, ({(0, group)}, 0, usable, usable))


@pytest.mark.parametrize("member", [True, False], ids=["of a member", "of a stranger"])
@pytest.mark.parametrize("fate", ["running", "orphaned", "stopped"])
def test_the_living_builds_of_a_pool_that_root_takes_over_count(fate: str, member: bool, users: Users) -> None:
    build = users.wrap(USER, "theirs", member=member)
    until(lambda: users.world.status()["holders"][0]["command_pid"], "the build in the record")
    if fate == "orphaned":
        build.kill()
    if fate == "stopped":
        os.kill(build.pid, signal.SIGSTOP)

    lines = users.run(0, "init", *SHARED)[1]
    shown = [(row["label"], row["user"]) for row in users.world.status()["holders"]]
    kept = users.busy(0), users.busy(OTHER_USER)
    if fate == "stopped":
        os.kill(build.pid, signal.SIGCONT)
    waiter = users.start(0, "wrap", "-q", "-w", "20", "next", "--", "true")
    until(lambda: users.world.records("gate"), "the waiter at the gate")
    build.end()

    assert (lines[0][-3:], shown, kept) == (": 1", [("theirs", str(USER))], (75, 75))
    assert (waiter.end(), users.world.settled()) == (0, (1, {}))


def test_what_a_build_has_left_running_counts_after_root_has_taken_the_pool_over(users: Users) -> None:
    build = users.start(USER, "wrap", "-q", "theirs", "--", "sh", "-c", "sleep 1000 <&- >&- 2>&- & echo $!; read -r _")
    child = int(build.line())
    users.world.extra.append(child)
    command = until(lambda: users.world.status()["holders"][0]["command_pid"], "the build in the record")

    users.run(0, "init", *SHARED)
    build.kill()
    os.kill(command, signal.SIGKILL)
    kept = users.busy(0), users.busy(OTHER_USER)
    os.kill(child, signal.SIGKILL)

    assert (kept, users.run(0, "wrap", "-q", "-w", "20", "next", "--", "true")[0]) == ((75, 75), 0)


def test_the_waiters_of_a_pool_that_root_shares_with_them_wait_on(users: Users) -> None:
    build = users.wrap(USER, "theirs")
    waiter = users.start(USER, "wrap", "-q", "-w", "20", "waiter", "--", *BUILD)
    until(lambda: users.world.records("gate"), "the waiter at the gate")

    users.run(0, "init", *SHARED)
    until(lambda: users.world.records("gate"), "the waiter back")
    build.end()

    assert (waiter.line(), waiter.end(), users.world.settled()) == ("ready", 0, (1, {}))


def plant_file(world: World, elsewhere: Path) -> None:
    world.folder.write_text("mine")


def plant_parts(world: World, elsewhere: Path) -> None:
    """A folder in which nothing is what it should be."""
    world.folder.mkdir(0o700)
    (world.folder / "mutex").mkdir()
    (world.folder / "holding").symlink_to(elsewhere)
    (world.folder / "gate").touch()
    (world.folder / "capacity").symlink_to(elsewhere / "victim")


def plant_pointer(world: World, elsewhere: Path) -> None:
    os.symlink(f"{elsewhere}/ipclock.{world.name[1:]}@1:2", world.folder)


def plant_numbers(world: World, elsewhere: Path) -> None:
    world.folder.mkdir(0o700)
    (world.folder / "ticket").write_text("9" * 31 + "\n")
    (world.folder / "holding").mkdir()
    (world.folder / "holding" / f"{'9' * 30}.1").write_text(f"kind=pid\nprocess={'9' * 20}:1:x:1\n")


MORE = [plant_file, plant_parts, plant_pointer, plant_numbers]


@pytest.mark.parametrize("plant", [*PLANTS, *MORE])
def test_a_build_of_root_that_is_refused_names_the_command_that_helps(
    plant: Callable[[World, Path], None], users: Users, elsewhere: Path
) -> None:
    in_child(partial(plant, users.world, elsewhere), OTHER_USER)

    status, lines = users.run(0, "wrap", "-q", "-n", "late", "--", "true")

    # a folder that root can use is used, and what is said there of a build counts
    helps = re.compile(r"   '(sudo )?ipclock (init' takes it over|reset' replaces it)")
    assert (status == 0, status == 75 or bool(helps.match(lines[-1] if lines else ""))) in [
        (True, False),
        (False, True),
    ]


@pytest.mark.parametrize("plant", [*PLANTS, *MORE])
@pytest.mark.parametrize("command", ["init", "reset"])
def test_root_takes_over_whatever_lies_there_and_touches_nothing_else(
    command: str, plant: Callable[[World, Path], None], users: Users, elsewhere: Path
) -> None:
    in_child(partial(plant, users.world, elsewhere), OTHER_USER)

    status, _ = users.run(0, command)

    # a reset leaves a folder alone that root can use
    owner = OTHER_USER if command == "reset" and plant in (plant_folder, plant_numbers) else 0
    assert (status, users.world.folder.stat().st_uid, users.busy(0), users.world.settled()) == (0, owner, 0, (1, {}))
    assert untouched(elsewhere)


@pytest.mark.parametrize("command", ["init", "reset"])
def test_a_mutex_that_its_owner_never_gives_back_keeps_root_out_of_nothing(command: str, users: Users) -> None:
    users.run(USER, "init", member=False)

    def keep() -> None:
        try_lock(os.open(users.world.folder / "mutex", os.O_RDWR))
        signal.pause()

    with child(keep, USER) as pid:
        until(lambda: locked_by(users.world), "the mutex taken")
        os.kill(pid, 0)
        status = users.run(0, "init")[0]
        found = users.busy(0), users.run(0, command)[0], users.world.folder.stat().st_uid

    assert (status, found) == (0, (0, 0, 0))


def locked_by(world: World) -> bool:
    from ipclock.linux.locks import is_locked

    fd = os.open(world.folder / "mutex", os.O_RDWR)
    try:
        return is_locked(fd)
    finally:
        os.close(fd)


def test_what_a_former_owner_still_has_open_has_no_effect(users: Users) -> None:
    users.run(USER, "init", member=False)
    kept = [os.open(users.world.folder / name, os.O_RDWR) for name in ("capacity", "mutex")]

    users.run(0, "init", *SHARED)
    os.pwrite(kept[0], b"%020d\n" % 9, 0)
    try_lock(kept[1])

    assert (users.world.status()["capacity"], users.busy(0)) == (1, 0)
    for fd in kept:
        os.close(fd)


@pytest.mark.parametrize("command", [("init",), ("reset",), ("wrap", "-n", "late", "--", "true")])
def test_nobody_but_root_takes_anything_over(command: tuple[str, ...], users: Users) -> None:
    users.run(OTHER_USER, "init", member=False)

    refused = users.run(USER, *command)[0]

    assert (refused, users.world.folder.stat().st_uid) == (77, OTHER_USER)


@pytest.mark.timeout(300)
def test_a_takeover_killed_anywhere_is_completed_by_the_next(users: Users, sample: Sample) -> None:
    def theirs() -> Client:
        shutil.rmtree(users.world.folder, ignore_errors=True)
        sem(users.world).unlink(missing_ok=True)
        return users.wrap(USER, "theirs", member=False)

    build = theirs()
    points = users.start(0, "init", *SHARED, crash=Crash(users.world.folder.name, 0))
    assert points.end() == 0
    build.end()
    wrong, count = {}, len(points.trace())
    for nth in sample.of_trace(points.trace(), 8):
        build = theirs()
        crashed = users.start(0, "init", *SHARED, crash=Crash(users.world.folder.name, nth)).end()
        before = users.busy(0)
        facts = (crashed, before, users.run(0, "init", *SHARED)[0], users.busy(OTHER_USER), owners(users.world))
        build.end()
        until(lambda: users.busy(OTHER_USER) == 0, "the slot")
        users.forget()
        # its semaphore is removed last
        if facts not in [(-signal.SIGKILL, before, 0, 75, {(0, GROUP)}) for before in (75, 77)]:
            wrong[nth] = facts

    left = list(Path("/dev/shm").glob(f".*{users.world.name[1:]}*"))
    assert (count > 60, wrong, left) == (True, {}, [])


# Its owner


def test_an_idle_pool_is_moved_by_its_owner_with_all_that_was_set_in_it(world: World, tmp_path: Path) -> None:
    world.ask("init", "--max-parallel-builds", "3", "--priority-min", "-5", "--fair", "session")
    world.run("wrap", "-q", "once", "--", "true")
    fair = (world.folder / "fair").read_text()
    world.run("drain", "--reason", "moving")

    moved = world.run("init", "--move", "--lock-dir", str(tmp_path))
    now = world.status()
    folder = tmp_path / f"ipclock.{world.name[1:]}"
    still_fair = (folder / "fair").read_text()
    back = world.run("init", "--move")
    world.run("resume")
    ticket = world.run("wrap", "-q", "next", "--", "sh", "-c", "echo $IPCLOCK_TICKET").stdout

    assert (moved.stdout, now["capacity"], now["drain"]["reason"], ticket) == (f"{folder}\n", 3, "moving", "2\n")
    assert (fair.startswith("between=session\n1=s"), still_fair) == (True, fair)
    assert (back.stdout, folder.exists(), world.settled()) == (f"{world.folder}\n", False, (3, {}))


@pytest.mark.parametrize("who", ["holder", "waiter"])
def test_a_pool_in_use_is_not_moved(who: str, world: World, tmp_path: Path) -> None:
    holder = world.wrap("holder").started()
    if who == "waiter":
        world.run("drain")
        world.wrap("waiter")
        until(lambda: world.records("queued") or world.records("gate"), "the waiter in line")
        holder.end()

    refused = world.run("init", "--move", "--lock-dir", str(tmp_path))

    assert (refused.returncode, list(tmp_path.iterdir()), world.folder.is_dir()) == (75, [], True)


def test_a_pool_is_not_moved_by_others(users: Users, tmp_path: Path) -> None:
    users.run(0, "init", *SHARED)

    directory = Path(f"/tmp/{users.world.name[1:]}")

    refused = users.run(USER, "init", "--move", "--lock-dir", str(directory))[0]

    made = directory.exists(), users.world.folder.with_name(f".{users.world.folder.name}").is_symlink()
    assert (refused, users.world.folder.stat().st_uid, made) == (77, 0, (False, False))
