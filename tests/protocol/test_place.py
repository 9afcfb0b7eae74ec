"""One name is one pool: whatever LOCK_DIR each caller has, whoever was first, whatever was removed or planted since."""

from __future__ import annotations

import os
import shutil
import signal
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from ipclock.errors import IpclockError
from ipclock.pool import place
from ipclock.pool.claim import Claim
from ipclock.pool.protocol import Pool
from ipclock.pool.record import OwnRecord
from ipclock.pool.records import Store
from ipclock.pool.wait_context import WaitContext
from tests.helpers.crash_at import OTHER_USER, USER, Client, Crash, in_child, needs_root, unshared
from tests.helpers.world import let_everybody_in, remove_pool, until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.helpers.sample import Sample
    from tests.helpers.world import World


@pytest.fixture
def lock_dir(world: World, tmp_path: Path) -> Iterator[Path]:
    """A LOCK_DIR that all users may reach and use, as /tmp is."""
    let_everybody_in(tmp_path)
    made = tmp_path / "locks"
    made.mkdir()
    made.chmod(0o1777)
    yield made
    world.close()


def wanting(lock_dir: Path | str) -> dict[str, str]:
    return {"LOCK_DIR": str(lock_dir)}


def at(world: World) -> Path:
    """Return the place of the pool."""
    return Path(place.path_of(world.name[1:]))


def refused(world: World, **env: str) -> int:
    """Return the status of a build that would not wait."""
    return world.run("wrap", "-q", "-n", "late", "--", "true", env=env).returncode


# Whoever comes


@pytest.mark.parametrize("first", ["with LOCK_DIR", "without"])
def test_callers_with_and_without_a_lock_dir_share_one_pool(first: str, world: World, lock_dir: Path) -> None:
    own, other = ({}, wanting(lock_dir)) if first == "without" else (wanting(lock_dir), {})

    holder = world.wrap("holder", env=own).started()
    busy = refused(world, **other)
    shown = [world.run("status", env=env).stdout.count("holder") for env in (own, other)]
    waiter = world.wrap("waiter", env=other)
    until(lambda: "waiter" in world.run("status", env=own).stdout, "the waiter in line")

    assert (busy, shown, holder.end(), waiter.started().end(), refused(world, **other)) == (75, [1, 1], 0, 0, 0)


def test_two_lock_dirs_lead_to_the_folder_of_the_first(world: World, lock_dir: Path, tmp_path: Path) -> None:
    first, second = (world.run("init", env=wanting(path)) for path in (lock_dir, tmp_path / "another"))

    folder = lock_dir / at(world).name
    assert (first.stdout, second.stdout, (tmp_path / "another").exists()) == (f"{folder}\n", f"{folder}\n", False)


def test_a_lock_dir_reached_by_a_link_is_the_same_one(world: World, lock_dir: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(lock_dir)

    made = world.run("init", env=wanting(tmp_path / "link"))

    assert (made.stdout, refused(world)) == (f"{lock_dir / at(world).name}\n", 0)


def test_two_makers_at_once_make_one_pool(world: World, lock_dir: Path, tmp_path: Path) -> None:
    wanted = ({}, wanting(lock_dir), wanting(tmp_path / "another"), {})
    made = []
    for _ in range(10):
        makers = [world.popen("init", env=env) for env in wanted]
        told = {(maker.wait(), maker.process.stdout and maker.process.stdout.read()) for maker in makers}
        made.append((len(told), *(status for status, _ in told)))
        shutil.rmtree(folder_of(world))
        remove_pool(world.name[1:])

    assert made == [(1, 0)] * 10


def folder_of(world: World) -> Path:
    found = place.look_up(world.name[1:])
    assert found
    return Path(found.path)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("other", [True, False], ids=["then without LOCK_DIR", "then with the same one"])
def test_a_maker_killed_anywhere_leaves_one_pool_to_the_next(
    other: bool, world: World, lock_dir: Path, sample: Sample
) -> None:
    points = client(world, "init", crash=Crash(str(lock_dir), 0), env=wanting(lock_dir))
    assert points.end() == 0
    wrong = {}
    for nth in sample.of_trace(points.trace(), 8):
        shutil.rmtree(folder_of(world), ignore_errors=True)
        shutil.rmtree(lock_dir / at(world).name, ignore_errors=True)
        remove_pool(world.name[1:])
        crashed = client(world, "init", crash=Crash(str(lock_dir), nth), env=wanting(lock_dir)).end()
        holder = world.wrap("holder", env={} if other else wanting(lock_dir)).started()
        facts = (crashed, refused(world, **wanting(lock_dir)), refused(world), holder.end())
        if facts != (-signal.SIGKILL, 75, 75, 0):
            wrong[nth] = facts

    assert (len(points.trace()) > 20, wrong) == (True, {})


def client(world: World, *arguments: str, crash: Crash, env: dict[str, str]) -> Client:
    return Client(*arguments, env=world.env | env, crash=crash)


# What is removed under living builds


@pytest.mark.parametrize("lost", ["place", "folder", "both"])
@pytest.mark.parametrize("fate", ["stopped", "orphaned"])
def test_a_build_counts_though_its_pool_was_removed_and_another_lock_dir_comes(
    fate: str, lost: str, world: World, lock_dir: Path
) -> None:
    holder = world.wrap("holder", env=wanting(lock_dir)).started()
    # either way it cannot write itself again now
    holder.signal(signal.SIGSTOP if fate == "stopped" else signal.SIGKILL)

    if lost != "place":
        shutil.rmtree(lock_dir / at(world).name)
    if lost != "folder":
        at(world).unlink()
    busy = refused(world), refused(world, **wanting(lock_dir))
    waiter = world.wrap("waiter")
    until(world.waiting if at(world).is_dir() else lambda: waiting(world), "the waiter in line")
    if fate == "stopped":
        holder.signal(signal.SIGCONT)
        until(lambda: [row["label"] for row in world.status()["holders"]] == ["holder"], "the holder back")
    holder.tell("exit 0")

    assert (busy, waiter.started().end(), refused(world, **wanting(lock_dir))) == ((75, 75), 0, 0)


@pytest.mark.parametrize("way", ["release", "reset"])
def test_a_build_counts_though_another_gives_its_slot_back_in_the_new_folder(
    way: str, world: World, lock_dir: Path
) -> None:
    world.env |= wanting(lock_dir) | {"MAX_PARALLEL_BUILDS": "2"}
    orphan = world.wrap("orphan").started()
    orphan.signal(signal.SIGKILL)  # its command goes on, and cannot write itself again
    shutil.rmtree(lock_dir / at(world).name)

    ticket = world.run("acquire", "--pid", str(os.getpid()), "script").stdout.strip()
    world.run(way, ticket)
    holder = world.wrap("holder").started()
    busy = refused(world)
    orphan.tell("exit 0")

    assert (ticket.isdigit(), busy, holder.end(), refused(world)) == (True, 75, 0, 0)


@pytest.mark.parametrize("step", ["draft", "draw_ticket", "publish"])
@pytest.mark.parametrize("way", ["arrives", "joins"])
def test_a_client_whose_pool_is_removed_while_it_is_listed_is_listed_in_the_new_one(
    way: str, step: str, world: World, lock_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    outer = world.wrap("outer").started() if way == "joins" else None
    pool = Pool.open(world.name, str(lock_dir), 1)
    claim, write = Claim("client"), getattr(Store, step)

    def remove_and_write(*arguments: object) -> object:
        monkeypatch.undo()
        shutil.rmtree(folder_of(world))
        if outer:
            until(lambda: world.records("holding"), "the outer build back")
        return write(*arguments)

    monkeypatch.setattr(Store, step, remove_and_write)
    if outer:
        joined = pool.join(claim, WaitContext(60), 1)
        pool.release(claim)
        facts = joined, pool.stake(claim).record, outer.end()
    else:
        pool.acquire(claim, WaitContext(60))
        facts = True, pool.release(claim), 0
    pool.close()

    assert (facts, refused(world)) == ((True, None, 0), 0)


def test_a_place_that_is_made_anew_while_it_is_opened_is_looked_at_again(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    # of a tmpfs, where no folder gets the inode of one that was removed just now
    lock_dir = Path(f"{at(world)}.locks")
    lock_dir.mkdir()
    opened_and_closed(world, lock_dir)
    look = place.look_up

    def look_and_replace(pool: str) -> place.Place | None:
        found = look(pool)
        monkeypatch.undo()
        shutil.rmtree(folder_of(world))
        opened_and_closed(world, lock_dir)
        return found

    monkeypatch.setattr(place, "look_up", look_and_replace)
    store = Store.open("/dev/shm", world.name[1:], create=True)
    store.close()

    found = store.path, refused(world)
    shutil.rmtree(lock_dir)
    assert found == (str(lock_dir / at(world).name), 0)


def test_a_maker_that_finds_a_symlink_where_it_was_about_to_make_the_folder_uses_that(
    world: World, lock_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    look = place.look_up

    def look_too_early(pool: str) -> place.Place | None:
        found = look(pool)
        monkeypatch.undo()
        opened_and_closed(world, lock_dir)
        return found

    monkeypatch.setattr(place, "look_up", look_too_early)
    store = Store.open("/dev/shm", world.name[1:], create=True)
    store.close()

    assert store.path == str(lock_dir / at(world).name)


def test_who_comes_to_another_folder_after_a_removal_gets_nobodys_ticket(world: World, lock_dir: Path) -> None:
    builds = [world.wrap("holder", env=wanting(lock_dir)).started(), world.wrap("waiter", env=wanting(lock_dir))]
    until(lambda: waiting(world), "the waiter in line")
    for build in builds:  # so that they cannot write themselves again yet
        build.signal(signal.SIGSTOP)

    at(world).unlink()
    late = world.wrap("late")
    until(world.waiting, "the late build in line")
    drawn = [row["ticket"] for row in world.status()["waiters"]]
    for build in builds:
        build.signal(signal.SIGCONT)
    until(lambda: len(world.status()["holders"]) + waiting(world) == 3, "all three")

    assert (drawn, builds[0].end(), {build.started().end() for build in (builds[1], late)}) == ([3], 0, {0})


def test_a_build_admitted_while_another_folder_comes_is_found_by_it_or_finds_it(world: World, lock_dir: Path) -> None:
    found = []
    for step in ("hold", "stands", "move"):
        found.append(in_child(partial(race, step, world, lock_dir)))
        remove_pool(world.name[1:])

    # in between each finds the other one: both step back, and try again
    assert found == [(False, True), (False, False), (True, False)]


def race(step: str, world: World, lock_dir: Path) -> tuple[bool, bool]:
    """Let another folder come to the place, and a client to it, right before a step of an admission.

    Return which of the two was admitted.
    """
    first, second = Claim("first"), Claim("second")
    pool = Pool.open(world.name, "/dev/shm", 1)
    pool.arrive(first, WaitContext(60))
    other: list[Pool] = []
    away = at(world).with_name(f"away.{at(world).name}")

    def come() -> None:
        at(world).rename(away)  # whole, so that nothing but the look at the place tells
        other.append(Pool.open(world.name, str(lock_dir), 1))
        other[0].arrive(second, WaitContext(60))
        other[0].admit(second, WaitContext(60))

    target = OwnRecord if step == "hold" else Store
    original = getattr(target, step)

    def interrupted(*arguments: object, **options: object) -> object:
        if not other:
            come()
        return original(*arguments, **options)

    setattr(target, step, interrupted)
    try:
        with suppress(IpclockError):
            pool.admit(first, WaitContext(60))
    finally:
        setattr(target, step, original)
        shutil.rmtree(away, ignore_errors=True)
    return bool(first.slot), bool(second.slot)


def waiting(world: World) -> int:
    return len(world.status()["waiters"])


def test_a_build_that_may_not_be_looked_at_counts_though_its_pool_was_removed(world: World, lock_dir: Path) -> None:
    needs_root(0)
    world.run("init", "--mode", "0660", "--group", str(GROUP))
    holder = member(world, USER, "wrap", "-q", "holder", "--", "sh", "-c", "echo ready; cat")
    assert holder.line() == "ready"
    holder.kill()

    shutil.rmtree(world.folder)
    Path("/dev/shm", f"sem.{world.name[1:]}").unlink()
    late = ("wrap", "-q", "-n", "late", "--", "true")
    busy = member(world, OTHER_USER, *late).end()
    holder.finish()
    until(lambda: member(world, OTHER_USER, *late).end() == 0, "the slot")

    assert busy == 75


GROUP = 64000


def member(world: World, uid: int, *arguments: str) -> Client:
    shared = {"LOCK_MODE": "0660", "LOCK_GROUP": str(GROUP), "HOME": "/nonexistent"}
    return Client(*arguments, env=world.env | shared, uid=uid, groups=[GROUP])


# What others put there


def stranger(world: World, path: Path, identity: tuple[int, int] | None = None) -> None:
    """Let a stranger point the place of the pool to a folder."""
    status = path.stat()
    place.point(world.name[1:], str(path), identity or (status.st_dev, status.st_ino))


def made_by(world: World, uid: int, lock_dir: Path) -> Path:
    """Make the pool's folder as this user, without a place that tells of it."""
    in_child(partial(opened_and_closed, world, lock_dir), uid)
    at(world).unlink()
    return lock_dir / at(world).name


def opened_and_closed(world: World, lock_dir: Path) -> None:
    Store.open(str(lock_dir), world.name[1:], create=True).close()


@pytest.mark.parametrize("owner", [0, USER, OTHER_USER])
def test_a_place_that_a_stranger_made_is_refused_wherever_it_leads(owner: int, world: World, lock_dir: Path) -> None:
    needs_root(0)
    folder = made_by(world, owner, lock_dir)
    before = stamps(folder)
    in_child(partial(stranger, world, folder), OTHER_USER)

    found = [outcome(world, USER, wish) for wish in ("/dev/shm", str(lock_dir), "/tmp/elsewhere")]

    mine = ("ForeignPoolError", 77)
    assert (found, stamps(folder) == before) == ([mine, mine, ("PoolElsewhereError", 78)], True)


def outcome(world: World, uid: int, lock_dir: str) -> tuple[str, int]:
    def child() -> tuple[str, int]:
        try:
            Store.open(lock_dir, world.name[1:], create=True).close()
        except IpclockError as error:
            return type(error).__name__, error.status
        return "opened", 0

    return in_child(child, uid)


def stamps(folder: Path) -> list[tuple[str, int]]:
    return [(str(path), path.lstat().st_ctime_ns) for path in sorted([folder, *folder.rglob("*")])]


@pytest.mark.parametrize(
    "text", ["relative/{name}@1:2", "/run/../tmp/{name}@1:2", "/run/other@1:2", "/run/{name}", "/run/{name}@1", "/"]
)
def test_a_link_that_is_not_ours_is_refused(text: str, world: World) -> None:
    at(world).symlink_to(text.format(name=at(world).name))

    assert outcome(world, os.geteuid(), "/dev/shm") == ("PoolPermissionError", 77)


@pytest.mark.parametrize("plant", ["folder", "link on the way"])
def test_another_folder_at_the_same_path_is_not_the_pool(plant: str, world: World, lock_dir: Path) -> None:
    folder = lock_dir / at(world).name
    opened_and_closed(world, lock_dir)
    folder.rename(lock_dir / "away")
    if plant == "folder":
        shutil.copytree(lock_dir / "away", folder)
    else:
        lock_dir.rename(lock_dir.with_name("real"))
        lock_dir.symlink_to(lock_dir.with_name("real"))

    found = outcome(world, os.geteuid(), "/dev/shm")

    assert found[1] in (73, 77)


def test_a_lock_dir_of_a_mount_namespace_of_its_own_is_told_from_the_machines(world: World, lock_dir: Path) -> None:
    needs_root(0)
    holder = world.wrap("holder", env=wanting(lock_dir)).started()
    command = [world.python, "-m", "ipclock", "wrap", "-q", "-n", "late", "--", "true"]

    private = f'mount -t tmpfs tmpfs {lock_dir}\nexec "$@"'
    status, _ = unshared(["-m"], private, *command, env=world.env | wanting(lock_dir))
    elsewhere = refused(world, **wanting(lock_dir))

    assert (status, elsewhere, holder.end()) == (75, 77, 0)


def test_a_pool_that_may_not_be_used_is_named_beside_the_folder_that_was_asked_for(
    world: World, lock_dir: Path, tmp_path: Path
) -> None:
    needs_root(0)
    world.run("init", env=wanting(tmp_path))
    there = sorted(lock_dir.iterdir())

    late = Client("wrap", "late", "--", "true", env=world.env | wanting(lock_dir) | {"HOME": "/"}, uid=USER)
    status = late.end()

    name = at(world).name
    assert (status, late.errors().splitlines()[0], sorted(lock_dir.iterdir())) == (
        78,
        f"ipclock: {lock_dir}/{name}: the pool of this name lies in {tmp_path}/{name}, which cannot be used: "
        "it belongs to another user",
        there,
    )


@pytest.mark.parametrize("maker", [USER, 0], ids=["a member", "root"])
def test_a_place_that_a_member_or_root_made_is_used_by_all_members(maker: int, world: World, lock_dir: Path) -> None:
    needs_root(0)
    world.env |= wanting(lock_dir)
    member(world, maker, "init").end()
    folder = lock_dir / at(world).name
    at(world).unlink()  # as a logout or a cleaner does
    again = member(world, USER, "wrap", "-q", "-n", "first", "--", "true").end()

    del world.env["LOCK_DIR"]
    others = [member(world, uid, "wrap", "-q", "-n", "next", "--", "true").end() for uid in (OTHER_USER, 0, USER)]

    assert (again, others, place.look_up(world.name[1:]) is not None, folder.is_dir()) == (0, [0, 0, 0], True, True)


def test_root_and_users_at_once_make_one_pool(world: World, lock_dir: Path) -> None:
    needs_root(0)
    found = []
    for _ in range(8):
        dirs = [str(lock_dir / name) for name in ("root", "user")]
        for path in dirs:
            Path(path).mkdir(exist_ok=True)
            Path(path).chmod(0o1777)
        callers = [(0, dirs[0]), (USER, dirs[1]), (OTHER_USER, "/dev/shm"), (0, "/dev/shm")]
        clients = [
            Client("wrap", "-q", "-w", "5", "a", "--", "true", env=world.env | wanting(path) | {"HOME": "/"}, uid=uid)
            for uid, path in callers
        ]
        statuses = {client.end() for client in clients}
        folders = [at(world).is_dir(), *(Path(path, at(world).name, "mutex").exists() for path in dirs)]
        found.append((statuses <= {0, 77, 78}, 0 in statuses, sum(folders)))
        for client in clients:
            client.close()
        shutil.rmtree(folder_of(world))
        remove_pool(world.name[1:])

    assert found == [(True, True, 1)] * 8
