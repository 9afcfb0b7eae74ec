"""Several users on one machine: whose pool it is, what root may do in it, what a hostile user cannot bring about."""

from __future__ import annotations

import os
import signal
import sys
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import posix_ipc
import pytest

from ipclock.errors import InvalidValueError, IpclockError
from ipclock.linux.semaphore import create, path_of
from ipclock.pool.records import Store
from tests.helpers.crash_at import OTHER_USER, USER, Client, child, in_child, needs_root, sysctl
from tests.helpers.world import let_everybody_in, until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.helpers.world import World

STATUSES = (0, 2, 69, 73, 75, 77)  # all that a command may end with in a world that somebody else makes
BUILD = ("sh", "-c", "echo ready; cat")


class Users:
    """Clients of several users on one pool."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.clients: list[Client] = []

    def start(self, uid: int, *arguments: str, umask: int = 0o022) -> Client:
        client = Client(*arguments, env=self.world.env | {"HOME": "/nonexistent"}, uid=uid, umask=umask)
        self.clients.append(client)
        return client

    def run(self, uid: int, *arguments: str, umask: int = 0o022) -> tuple[int, list[str]]:
        """Return (exit status, lines on stderr)."""
        client = self.start(uid, *arguments, umask=umask)
        return client.end(), client.errors().splitlines()

    def build(self, uid: int, *options: str) -> int:
        """Return the exit status of a build that ends at once."""
        return self.run(uid, "wrap", "-q", "-w", "10", *options, "build", "--", "true")[0]

    def wrap(self, uid: int, label: str) -> Client:
        return self.start(uid, "wrap", "-w", "20", label, "--", *BUILD)

    def at_gate(self, client: Client) -> Client:
        until(lambda: self.world.records("gate") or not client.running(), "a waiter at the gate")
        return client

    def owners(self) -> set[int]:
        """Return the owners of all that belongs to the pool."""
        paths = [self.world.folder, *self.world.folder.rglob("*"), Path(path_of(self.world.name))]
        turns = [Path("/dev/shm", turn) for turn in self.world.turns()]
        return {path.lstat().st_uid for path in paths + turns}


@pytest.fixture
def users(world: World) -> Iterator[Users]:
    """Nobody yet."""
    needs_root(0)
    made = Users(world)
    yield made
    for client in made.clients:
        client.close()


def sem(world: World) -> Path:
    return Path(path_of(world.name))


# Whose pool


@pytest.mark.parametrize("owner", [0, OTHER_USER])
@pytest.mark.parametrize("command", [("wrap", "late", "--", "true"), ("status",), ("reset",), ("init",), ("release",)])
def test_a_private_pool_is_refused_to_others_by_its_owners_number(
    command: tuple[str, ...], owner: int, users: Users
) -> None:
    users.build(owner)
    folder = users.world.folder
    before = sorted(path.name for path in folder.rglob("*"))

    refused = users.run(USER, *command)

    assert (refused, sorted(path.name for path in folder.rglob("*"))) == (
        (
            77,
            [
                f"ipclock: {folder}: belongs to another user ({'root, uid 0' if owner == 0 else f'uid {owner}'})",
                "   Use a pool of your own (--name), or ask the owner to share it:"
                " 'sudo ipclock init --mode 0660 --group GROUP'.",
            ],
        ),
        before,
    )


def test_users_have_pools_of_their_own_in_lock_folders_of_their_own(users: Users, tmp_path: Path) -> None:
    found = []
    for uid in (USER, OTHER_USER):
        home = f"{users.world.folder}.{uid}"
        name = f"{users.world.name}.of-{uid}"
        found.append(users.run(uid, "wrap", "-q", "--lock-dir", home, "--name", name, "build", "--", "true"))
        in_child(partial(remove, home, name))

    # /dev/shm is sticky and anybody's, so each could make a folder of their own there
    assert found == [(0, []), (0, [])]


def remove(home: str, name: str) -> None:
    for path in sorted(Path(home).rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    Path(home).rmdir()
    Path("/dev/shm", f"ipclock.{name[1:]}").unlink()
    posix_ipc.unlink_semaphore(name)


@pytest.mark.parametrize("umask", [0o000, 0o777])
def test_a_users_first_build_makes_a_private_pool_whatever_the_umask(umask: int, users: Users) -> None:
    first = users.run(USER, "wrap", "-q", "build", "--", "true", umask=umask)
    modes = {oct(path.stat().st_mode & 0o7777) for path in (users.world.folder, *users.world.folder.rglob("*"))}

    assert (first, modes, oct(sem(users.world).stat().st_mode & 0o7777), users.build(USER), users.world.settled()) == (
        (0, []),
        {oct(0o700), oct(0o600)},
        oct(0o600),
        0,
        (1, {}),
    )


# Root in a user's pool


@pytest.mark.parametrize("level", [0, 1, 2])
def test_root_leaves_a_users_pool_usable_by_its_owner(level: int, users: Users) -> None:
    with sysctl("fs/protected_regular", level):
        found = [users.build(USER), users.build(0), users.run(0, "reset")[0]]
        found += [users.build(USER), users.run(USER, "status")[0], users.run(USER, "reset")[0], users.build(USER)]

    assert (found, users.owners(), users.world.settled()) == ([0] * 7, {USER}, (1, {}))


@pytest.mark.parametrize("missing", ["semaphore", "folder", "both", "numbers"])
def test_what_root_makes_again_in_a_users_pool_is_the_users(missing: str, users: Users) -> None:
    users.build(USER)
    if missing in ("semaphore", "both"):
        sem(users.world).unlink()
    if missing == "folder":
        for path in (users.world.folder / state for state in ("new", "queued", "gate", "holding")):
            path.rmdir()
    if missing == "numbers":
        for path in (users.world.folder / number for number in ("mutex", "ticket", "capacity", "epoch")):
            path.unlink()

    assert (users.build(0), users.owners(), users.build(USER), users.world.settled()) == (0, {USER}, 0, (1, {}))


def test_root_and_the_owner_wait_for_each_other(users: Users) -> None:
    users.build(USER)
    first = users.wrap(USER, "first")
    assert first.line() == "ready"
    second = users.at_gate(users.wrap(0, "second"))
    third = users.wrap(USER, "third")
    until(lambda: users.world.turns(), "the turn of the third")
    owners = users.owners()

    order = [first.end(), second.line(), second.end(), third.line(), third.end()]

    assert (order, owners, users.world.settled()) == ([0, "ready", 0, "ready", 0], {USER}, (1, {}))


def test_status_tells_root_from_the_owner(users: Users) -> None:
    users.build(USER)
    builds = [users.wrap(0, "root's")]
    assert builds[0].line() == "ready"
    builds.append(users.at_gate(users.wrap(USER, "user's")))
    shown = users.world.status()

    rows = [(row["label"], row["user"]) for row in shown["holders"] + shown["waiters"]]

    assert (rows, [build.end() for build in builds]) == ([("root's", "root"), ("user's", str(USER))], [0, 0])


def test_the_owner_recovers_from_a_build_of_root_that_was_killed(users: Users) -> None:
    users.build(USER)
    killed = users.wrap(0, "killed")
    assert killed.line() == "ready"
    waiter = users.at_gate(users.wrap(USER, "waiter"))

    status = killed.kill()
    kept = users.world.records("holding")
    killed.finish()  # the build goes on until here

    assert (status, kept, waiter.line(), waiter.end(), users.world.settled()) == (
        -signal.SIGKILL,
        ["2.1"],
        "ready",
        0,
        (1, {}),
    )


def test_the_owner_recovers_from_a_waiting_root_that_was_killed(users: Users) -> None:
    users.build(USER)
    holder = users.wrap(USER, "holder")
    assert holder.line() == "ready"
    at_gate = users.at_gate(users.wrap(0, "at the gate"))
    in_line = users.wrap(0, "in line")
    until(lambda: users.world.turns(), "the turn of the one in line")

    killed = [at_gate.kill(), in_line.kill(), holder.end()]

    assert (killed, users.build(USER), users.world.settled()) == ([-signal.SIGKILL] * 2 + [0], 0, (1, {}))


def test_root_takes_the_slot_of_a_user_away_and_the_user_goes_on(users: Users) -> None:
    evicted = users.wrap(USER, "evicted")
    assert evicted.line() == "ready"
    waiter = users.at_gate(users.wrap(USER, "waiter"))

    reset, lines = users.run(0, "reset")

    assert (
        reset,
        len(lines),
        waiter.line(),
        waiter.end(),
        evicted.end(),
        users.build(USER),
        users.world.settled(),
    ) == (
        0,
        2,
        "ready",
        0,
        0,
        0,
        (1, {}),
    )


def test_the_owner_may_not_take_away_a_semaphore_of_root_but_is_told(users: Users) -> None:
    in_child(lambda: bool(posix_ipc.Semaphore(users.world.name, posix_ipc.O_CREX, 0o600, 1)), 0)

    status, lines = users.run(USER, "wrap", "late", "--", "true")

    assert (status, lines[0]) == (77, f"ipclock: {sem(users.world)}: belongs to another user (root, uid 0)")


# Somebody hostile was here first


def plant_folder(world: World, elsewhere: Path) -> None:
    world.folder.mkdir(0o755)


def plant_open_folder(world: World, elsewhere: Path) -> None:
    world.folder.mkdir()
    world.folder.chmod(0o777)


def plant_link(world: World, elsewhere: Path) -> None:
    world.folder.symlink_to(elsewhere)


def plant_fifo(world: World, elsewhere: Path) -> None:
    os.mkfifo(world.folder)


def plant_semaphore(world: World, elsewhere: Path) -> None:
    umask = os.umask(0)
    posix_ipc.Semaphore(world.name, posix_ipc.O_CREX, 0o666, 1000).close()
    os.umask(umask)


def plant_semaphore_link(world: World, elsewhere: Path) -> None:
    sem(world).symlink_to(elsewhere / "victim")


def plant_garbage(world: World, elsewhere: Path) -> None:
    sem(world).touch()
    sem(world).chmod(0o666)


PLANTS = [
    plant_folder,
    plant_open_folder,
    plant_link,
    plant_fifo,
    plant_semaphore,
    plant_semaphore_link,
    plant_garbage,
]


@pytest.fixture
def elsewhere(tmp_path: Path) -> Path:
    """A folder with a file that nobody may write to by way of us."""
    (tmp_path / "victim").write_text("dear")
    return tmp_path


def untouched(elsewhere: Path) -> bool:
    return [(path.name, path.read_text()) for path in elsewhere.iterdir()] == [("victim", "dear")]


@pytest.mark.parametrize("plant", PLANTS)
@pytest.mark.parametrize("command", [("wrap", "late", "--", "true"), ("init",)], ids=lambda row: row[0])
def test_what_a_hostile_user_has_planted_is_refused(
    command: tuple[str, ...], plant: Callable[[World, Path], None], users: Users, elsewhere: Path
) -> None:
    in_child(lambda: plant(users.world, elsewhere), OTHER_USER)

    status, lines = users.run(USER, *command)

    assert (status in (69, 77), lines[0][:18], len(lines) <= 2, untouched(elsewhere)) == (
        True,
        "ipclock: /dev/shm/",
        True,
        True,
    )


@pytest.mark.parametrize("plant", [plant_semaphore, plant_semaphore_link, plant_garbage, plant_link, plant_fifo])
def test_root_is_not_led_astray_by_what_is_planted_either(
    plant: Callable[[World, Path], None], users: Users, elsewhere: Path
) -> None:
    in_child(lambda: plant(users.world, elsewhere), OTHER_USER)

    status, lines = users.run(0, "wrap", "late", "--", "true")

    assert (status in (69, 77), len(lines) <= 2, untouched(elsewhere)) == (True, True, True)


@pytest.mark.parametrize("place", ["mutex", "ticket", "capacity", "epoch", "settled", "drained"])
@pytest.mark.parametrize("how", ["link", "second link"])
def test_root_in_a_hostile_pool_writes_into_no_file_elsewhere(
    how: str, place: str, users: Users, elsewhere: Path
) -> None:
    users.build(USER)
    # as if protected_hardlinks were off: the worst that the pool's owner can prepare
    victim = users.world.folder.with_name(users.world.folder.name + ".victim")
    victim.write_text("dear")
    link = users.world.folder / place
    link.unlink(missing_ok=True)
    link.symlink_to(victim) if how == "link" else link.hardlink_to(victim)

    status, lines = users.run(0, "wrap", "-w", "0.1", "late", "--", "true")
    users.run(0, "reset")

    content = victim.read_text(), oct(victim.stat().st_mode & 0o777), victim.stat().st_uid
    victim.unlink()
    assert (status in (0, 73, 75, 77), [line for line in lines if "internal" in line], content) == (
        True,
        [],
        ("dear", oct(0o644), 0),
    )


@pytest.mark.parametrize("state", ["new", "queued", "gate", "holding"])
def test_root_in_a_hostile_pool_makes_and_removes_nothing_elsewhere(state: str, users: Users, elsewhere: Path) -> None:
    users.build(USER)
    (users.world.folder / state).rmdir()
    (users.world.folder / state).symlink_to(elsewhere)

    status, lines = users.run(0, "wrap", "-w", "0.1", "late", "--", "true")
    users.run(0, "reset")

    assert (status in (73, 77), len(lines), untouched(elsewhere)) == (True, 2, True)


def test_a_planted_record_cannot_make_root_wait_for_ever_nor_crash(users: Users, elsewhere: Path) -> None:
    users.build(USER)

    def plant() -> None:
        for state, name in (("queued", "5"), ("gate", "4"), ("holding", "3.1")):
            (users.world.folder / state / name).symlink_to(elsewhere / "victim")
        os.mkfifo(users.world.folder / "queued" / "6")

    in_child(plant, USER)

    status, _ = users.run(0, "wrap", "-w", "0.5", "late", "--", "true")

    # what cannot be looked at counts as alive, until somebody takes it away
    assert (status, users.run(0, "reset")[0], untouched(elsewhere)) == (75, 0, True)


# Somebody hostile replaces things while root looks at them


def flip(shapes: list[Callable[[], None]], away: Callable[[], None]) -> None:
    """Put one shape after the other in the place, for ever."""
    while True:
        for shape in shapes:
            with suppress(OSError, posix_ipc.Error):
                away()
            with suppress(OSError, posix_ipc.Error):
                shape()


def discard(path: Path) -> None:
    """Remove whatever lies at the path, a pool's folder with all that is in it."""
    if path.is_dir() and not path.is_symlink():
        for inner in sorted(path.rglob("*"), reverse=True):
            inner.rmdir() if inner.is_dir() and not inner.is_symlink() else inner.unlink()
        path.rmdir()
    else:
        path.unlink()


def make_pool(folder: Path) -> None:
    """Make a pool's folder as its owner would, with one record."""
    folder.mkdir(0o700)
    for state in ("new", "queued", "gate", "holding"):
        (folder / state).mkdir(0o700)
    for number in ("mutex", "ticket", "capacity", "epoch", "settled"):
        (folder / number).touch(0o600)
    (folder / "holding" / "1.1").touch(0o600)


def at_the_pools_path(world: World, elsewhere: Path) -> Callable[[], None]:
    folder = world.folder
    other = elsewhere / "pool"
    shapes = [
        partial(make_pool, folder),
        partial(folder.symlink_to, other),
        partial(os.mkfifo, folder),
        folder.touch,
        folder.mkdir,
    ]
    return partial(flip, shapes, partial(discard, folder))


def at_a_state_folder(world: World, elsewhere: Path) -> Callable[[], None]:
    state = world.folder / "holding"
    aside = world.folder / "aside"

    def away() -> None:
        state.unlink() if state.is_symlink() else state.rename(aside)

    return partial(
        flip, [partial(state.symlink_to, elsewhere / "pool" / "holding"), partial(aside.rename, state)], away
    )


def at_a_number(world: World, elsewhere: Path) -> Callable[[], None]:
    number = world.folder / "epoch"
    target = elsewhere / "pool" / "epoch"
    return partial(flip, [partial(number.symlink_to, target), number.touch, partial(os.mkfifo, number)], number.unlink)


def at_the_records(world: World, elsewhere: Path) -> Callable[[], None]:
    record = world.folder / "holding" / "1.1"
    target = elsewhere / "pool" / "holding" / "1.1"
    return partial(flip, [record.touch, partial(record.symlink_to, target), partial(os.mkfifo, record)], record.unlink)


def at_the_semaphore(world: World, elsewhere: Path) -> Callable[[], None]:
    path = sem(world)

    def semaphore() -> None:
        # not by sem_open(3): killed there, as the racer is at the end, it leaves a temporary name for ever
        with suppress(IpclockError):
            if made := create(world.name, 0o666):
                made.post()
                made.close()

    shapes = [semaphore, partial(path.symlink_to, elsewhere / "pool" / "epoch"), path.touch, partial(os.mkfifo, path)]
    return partial(flip, shapes, path.unlink)


RACES = [at_the_pools_path, at_a_state_folder, at_a_number, at_the_records, at_the_semaphore]


def state_of(folder: Path) -> dict[str, tuple[object, ...]]:
    """Return everything about the files of a tree that a write, a truncation, a chmod or an unlink would change."""
    found = {}
    for path in sorted(folder.rglob("*")):
        status = path.lstat()
        content = path.read_text() if path.is_file() else ""
        found[str(path)] = (status.st_ino, status.st_mode, status.st_uid, status.st_gid, status.st_nlink, content)
    return found


@pytest.mark.timeout(120)
@pytest.mark.parametrize("race", RACES)
def test_whatever_is_replaced_while_root_looks_nothing_elsewhere_is_touched(
    race: Callable[[World, Path], Callable[[], None]], users: Users, elsewhere: Path
) -> None:
    make_pool(elsewhere / "pool")
    for path in (elsewhere / "pool").rglob("*"):
        if path.is_file():
            path.write_text("dear")
    let_everybody_in(elsewhere)
    if race is not at_the_pools_path:
        users.build(USER)
    before = state_of(elsewhere)
    commands = [
        ("wrap", "-q", "-w", "0.2", "build", "--", "true"),
        ("reset",),
        ("init",),
        ("status",),
        ("init", "--mode", "0660", "--group", "54400"),
        ("reset", "1", "--kill"),
        ("release", "1"),
    ]

    with child(race(users.world, elsewhere), USER):
        found = [users.run(0, *command) for command in commands * 6]

    wrong = [(status, lines) for status, lines in found if status not in STATUSES or "internal" in "".join(lines)]
    assert (wrong, state_of(elsewhere)) == ([], before)


# What was moved into the pool, which needs no right to the file itself


def moved(world: World, to: str) -> Path:
    """Return a file of root's that a user has moved into its pool, from a folder of its own."""
    path = world.folder / to
    victim = world.folder / "victim"  # of the same file system
    victim.write_text("dear")
    victim.chmod(0o600)
    victim.rename(path)
    return path


@pytest.mark.parametrize("part", ["mutex", "ticket", "capacity", "epoch", "priority", "settled"])
@pytest.mark.parametrize("command", [("wrap", "-q", "-n", "late", "--", "true"), ("reset", "1"), ("status",)])
def test_a_file_of_roots_that_was_moved_to_a_parts_place_is_not_written_to(
    command: tuple[str, ...], part: str, users: Users
) -> None:
    users.build(USER)
    path = moved(users.world, part)
    with path.open() as victim:
        before = os.fstat(victim.fileno())
        status, lines = users.run(0, *command)
        after, content = os.fstat(victim.fileno()), victim.read()

    told = f"ipclock: {path}: not permitted: not part of the pool"
    # root's reset takes the name over
    assert (status, told in lines) == ((2, False) if command[0] == "reset" else (77, True))
    assert (content, after.st_uid, after.st_mode, after.st_mtime_ns) == ("dear", 0, before.st_mode, before.st_mtime_ns)


@pytest.mark.parametrize("owner", [0, OTHER_USER], ids=["root's", "another user's"])
@pytest.mark.parametrize("way", [os.rename, os.link], ids=["moved", "linked"])
def test_what_takes_the_place_of_a_scripts_draft_is_not_given_away(
    way: Callable[[Path, Path], None], owner: int, users: Users
) -> None:
    users.build(USER)
    draft, victim = users.world.folder / "new" / "draft", users.world.folder / "victim"
    victim.write_text("dear")
    os.chown(victim, owner, owner)
    victim.chmod(0o600)
    before = victim.stat()

    def adopt() -> str:
        fd = os.open(draft, os.O_CREAT | os.O_EXCL | os.O_WRONLY)
        store = Store.open("/dev/shm", users.world.name[1:], create=False)

        def swap(event: str, arguments: tuple[object, ...]) -> None:
            if event == "open" and arguments[0] == "draft" and victim.exists():
                draft.unlink()
                way(victim, draft)
                if way is os.link:
                    victim.unlink()  # so that the one link that is left does not tell

        sys.addaudithook(swap)
        try:
            store.draft({}, fd)
        except InvalidValueError as error:
            return error.where
        return "adopted"

    refused = in_child(adopt)

    after = draft.stat()
    assert (refused, draft.read_text(), (after.st_ino, after.st_uid, after.st_mode)) == (
        "--fd",
        "dear",
        (before.st_ino, before.st_uid, before.st_mode),
    )
