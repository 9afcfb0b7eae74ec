"""A pool that a group shares: who may use it, what its files look like, and that its members wait for each other."""

from __future__ import annotations

import os
import re
import signal
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import posix_ipc
import pytest

import ipclock
from ipclock.linux import process
from ipclock.linux.semaphore import path_of
from ipclock.pool.directory import Directory
from ipclock.pool.records import Store
from tests.helpers.crash_at import OTHER_USER, USER, Client, Crash, in_child, needs_root, sysctl
from tests.helpers.world import let_everybody_in, until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.helpers.sample import Sample
    from tests.helpers.world import World

GROUP, OTHER_GROUP = 54400, 54401
STRANGER = 54323
MEMBERS = (USER, OTHER_USER)
BUILD = ("sh", "-c", "echo ready; cat")


class Users:
    """Clients of several users on one pool; members have GROUP besides a group of their own."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.clients: list[Client] = []
        self.env = world.env | {"HOME": "/nonexistent"}

    def start(self, uid: int, *arguments: str, umask: int = 0o022, crash: Crash | None = None, **env: str) -> Client:
        groups = (GROUP,) if uid in MEMBERS else ()
        client = Client(*arguments, env=self.env | env, uid=uid, groups=groups, umask=umask, crash=crash)
        self.clients.append(client)
        return client

    def run(self, uid: int, *arguments: str, umask: int = 0o022, **env: str) -> tuple[int, list[str]]:
        """Return (exit status, lines on stderr)."""
        client = self.start(uid, *arguments, umask=umask, **env)
        return client.end(), client.errors().splitlines()

    def forget(self) -> None:
        """Close all clients."""
        for client in self.clients:
            client.close()
        self.clients.clear()

    def share(self, uid: int = 0, **more: int) -> int:
        return self.run(uid, "init", "--mode", "0660", "--group", str(GROUP), **more)[0]

    def build(self, uid: int, **env: str) -> int:
        """Return the exit status of a build that ends at once."""
        return self.run(uid, "wrap", "-q", "-w", "20", "build", "--", "true", **env)[0]

    def wrap(self, uid: int, label: str) -> Client:
        return self.start(uid, "wrap", "-w", "20", label, "--", *BUILD)

    def at_gate(self, client: Client) -> Client:
        until(lambda: self.world.records("gate") or not client.running(), "a waiter at the gate")
        return client

    def access(self) -> dict[str, set[tuple[str, int]]]:
        """Return (mode, group) of all that belongs to the pool, by kind."""
        paths = [self.world.folder, *self.world.folder.rglob("*"), Path(path_of(self.world.name))]
        paths += [Path("/dev/shm", turn) for turn in self.world.turns()]
        found: dict[str, set[tuple[str, int]]] = {"folders": set(), "files": set()}
        for path in paths:
            status = path.lstat()
            kind = "folders" if path.is_dir() else "files"
            found[kind].add((oct(status.st_mode & 0o7777), status.st_gid))
        return found


SHARED = {"folders": {("0o2770", GROUP)}, "files": {("0o660", GROUP)}}


@pytest.fixture
def users(world: World) -> Iterator[Users]:
    """Nobody yet."""
    needs_root(0)
    made = Users(world)
    yield made
    made.forget()


@pytest.mark.parametrize("level", [0, 1, 2])
@pytest.mark.parametrize("owner", [0, USER])
def test_members_of_the_group_build_in_turn_and_strangers_do_not(owner: int, level: int, users: Users) -> None:
    with sysctl("fs/protected_regular", level):
        made = users.share(owner)
        first = users.wrap(USER, "first")
        assert first.line() == "ready"
        second = users.at_gate(users.wrap(OTHER_USER, "second"))
        third = users.wrap(0, "third")
        until(users.world.turns, "the turn of the third")
        fourth = users.wrap(USER, "fourth")
        until(lambda: len(users.world.turns()) == 2, "the turn of the fourth")
        access = users.access()
        stranger = users.run(STRANGER, "wrap", "late", "--", "true")
        order = [first.end(), second.line(), second.end(), third.line(), third.end(), fourth.line(), fourth.end()]

    name = "root, uid 0" if owner == 0 else f"uid {owner}"
    assert (made, access, order, users.world.settled()) == (
        0,
        SHARED,
        [0, "ready", 0, "ready", 0, "ready", 0],
        (1, {}),
    )
    assert stranger == (
        77,
        [
            f"ipclock: {users.world.folder}: belongs to another user ({name})",
            "   Use a pool of your own (--name), or ask the owner to share it:"
            " 'ipclock init --mode 0660 --group GROUP'.",
        ],
    )


@pytest.mark.parametrize("umask", [0o000, 0o777])
@pytest.mark.parametrize("owner", [0, USER])
def test_the_modes_are_exact_whatever_the_umask(owner: int, umask: int, users: Users) -> None:
    made = users.share(owner, umask=umask)

    assert (made, users.access(), users.build(OTHER_USER)) == (0, SHARED, 0)


def test_settings_share_a_pool_that_the_first_build_makes(users: Users) -> None:
    built = users.build(USER, LOCK_GROUP=str(GROUP))

    assert (built, users.access(), users.build(OTHER_USER, LOCK_GROUP=str(GROUP))) == (0, SHARED, 0)


def test_without_being_asked_no_pool_is_shared(users: Users) -> None:
    users.build(USER)

    assert (users.access()["files"], users.build(OTHER_USER)) == ({("0o600", USER)}, 77)


def test_the_mode_alone_shares_with_the_makers_own_group(users: Users) -> None:
    made = users.run(USER, "init", "--mode", "660")[0]

    assert (made, users.access()["folders"]) == (0, {("0o2770", USER)})


def test_a_private_mode_counts_more_than_a_group(users: Users) -> None:
    users.run(USER, "init", "--mode", "0600", LOCK_GROUP=str(GROUP))

    assert users.access()["files"] == {("0o600", USER)}


@pytest.mark.parametrize("by", [0, USER])
def test_a_private_pool_is_shared_while_it_is_in_use_and_made_private_again(by: int, users: Users) -> None:
    users.build(USER)
    holder = users.wrap(USER, "holder")
    assert holder.line() == "ready"

    shared = users.share(by)
    waiter = users.at_gate(users.wrap(OTHER_USER, "waiter"))
    access = users.access()
    order = [holder.end(), waiter.line(), waiter.end()]
    private = users.run(by, "init", "--mode", "0600")[0]

    # what root says of it is root's from then on
    private_to_its_maker = 0 if by == USER else 77
    assert (shared, access, order) == (0, SHARED, [0, "ready", 0])
    assert (private, users.build(OTHER_USER), users.build(USER)) == (0, 77, private_to_its_maker)
    assert (users.build(by), users.world.settled()) == (0, (1, {}))


@pytest.mark.parametrize("owner", [0, USER])
def test_a_member_may_not_change_who_shares_the_pool_but_may_ask_for_what_is_so(owner: int, users: Users) -> None:
    users.share(owner)

    refused = users.run(OTHER_USER, "init", "--mode", "0600")

    assert (refused[0], "another user" in refused[1][0], users.share(OTHER_USER), users.access()) == (
        77,
        True,
        0,
        SHARED,
    )


def planted(world: World, owner: int) -> list[Path]:
    """Return files that somebody has moved into the pool's folders, whoever they belong to."""
    paths = [world.folder / place for place in ("victim", "new/victim", "holding/7.1")]
    for path in paths:
        path.write_text("dear")
        path.chmod(0o600)
        os.chown(path, owner, owner)
    return paths


def access_to(paths: list[Path]) -> list[tuple[int, int, int]]:
    found = [path.stat() for path in paths]
    return [(status.st_uid, status.st_gid, status.st_mode & 0o7777) for status in found]


@pytest.mark.parametrize("owner", [0, STRANGER])
def test_what_a_member_has_moved_into_the_pool_is_not_given_to_another_group(owner: int, users: Users) -> None:
    users.share(0)
    holder = users.wrap(USER, "holder")
    assert holder.line() == "ready"
    paths = planted(users.world, owner)

    shared = users.run(0, "init", "--mode", "0660", "--group", str(OTHER_GROUP))[0]

    record = next(path for path in (users.world.folder / "holding").iterdir() if path not in paths)
    assert (shared, access_to(paths), access_to([record])) == (
        0,
        [(owner, owner, 0o600)] * 3,
        [(USER, OTHER_GROUP, 0o660)],
    )
    paths[-1].unlink()
    assert (holder.end(), users.build(0)) == (0, 0)


@pytest.mark.parametrize("owner", [0, STRANGER])
def test_what_the_pools_owner_has_moved_into_it_is_not_given_away_by_root(owner: int, users: Users) -> None:
    users.build(USER)
    paths = planted(users.world, owner)

    def share() -> None:  # a stranger's pool that came to the place after root had looked whose it is
        store = Store.open("/dev/shm", users.world.name[1:], create=False)
        store.share(GROUP)

    in_child(share)

    assert (access_to(paths), access_to([users.world.folder / "mutex"])) == (
        [(owner, owner, 0o600)] * 3,
        [(USER, GROUP, 0o660)],
    )


def test_a_group_that_one_is_no_member_of_is_refused_and_nothing_is_made(users: Users) -> None:
    refused = users.run(USER, "init", "--group", str(OTHER_GROUP))

    assert (refused[0], refused[1][0], users.world.folder.exists()) == (
        77,
        f"ipclock: {users.world.folder}: not permitted: you are not a member of the group to share it with",
        False,
    )


def test_an_unknown_group_or_mode_is_told(users: Users) -> None:
    found = [
        users.run(0, "init", "--group", "no such group")[1][0],
        users.run(0, "init", "--mode", "0666")[1][0],
        users.run(0, "init", LOCK_MODE="rw")[1][0],
    ]

    assert found == [
        "ipclock: --group: invalid value 'no such group': expected the name or number of a group",
        "ipclock: --mode: invalid value '0666': expected 0600 (owner only) or 0660 (owner and group)",
        "ipclock: $LOCK_MODE: invalid value 'rw': expected 0600 (owner only) or 0660 (owner and group)",
    ]


def test_a_member_recovers_from_what_another_member_left_when_killed(users: Users) -> None:
    users.share(0)
    holder = users.wrap(USER, "holder")
    assert holder.line() == "ready"
    at_gate = users.at_gate(users.wrap(USER, "at the gate"))
    in_line = users.wrap(USER, "in line")
    until(users.world.turns, "the turn of the one in line")
    last = users.wrap(OTHER_USER, "last")
    until(lambda: len(users.world.turns()) >= 2, "the turn of the last")

    killed = [client.kill() for client in (at_gate, in_line, holder)]
    holder.finish()  # its build ends here

    assert (killed, last.line(), last.end(), users.world.value()) == ([-signal.SIGKILL] * 3, "ready", 0, 1)


def test_a_semaphore_that_a_member_made_again_serves_all(users: Users) -> None:
    users.share(0)
    Path(path_of(users.world.name)).unlink()

    built = [users.build(uid) for uid in (USER, OTHER_USER, 0)]

    assert (built, users.access()) == ([0, 0, 0], SHARED)


def test_a_pool_that_was_removed_comes_back_shared(users: Users) -> None:
    users.share(USER)
    holder = users.wrap(USER, "holder")
    assert holder.line() == "ready"

    for path in sorted(users.world.folder.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    users.world.folder.rmdir()
    until(lambda: users.world.records("holding"), "the holder back")

    assert (users.access(), holder.end(), users.build(OTHER_USER)) == (SHARED, 0, 0)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("owner", [0, USER])
def test_a_maker_killed_anywhere_leaves_what_its_next_command_completes(
    owner: int, users: Users, sample: Sample
) -> None:
    arguments = ("init", "--mode", "0660", "--group", str(GROUP))
    points = users.start(owner, *arguments, crash=Crash(users.world.folder.name, 0))
    assert points.wait() == 0
    wrong, count = {}, len(points.trace())
    for nth in sample.of_trace(points.trace(), 8):
        remove(users.world)
        crashed = users.start(owner, *arguments, crash=Crash(users.world.folder.name, nth)).wait()
        facts = (crashed, users.share(owner), users.access(), users.build(OTHER_USER))
        users.forget()
        if facts != (-signal.SIGKILL, 0, SHARED, 0):
            wrong[nth] = facts

    assert (count > 30, wrong) == (True, {})


def remove(world: World) -> None:
    for path in sorted(world.folder.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    world.folder.rmdir()
    Path(path_of(world.name)).unlink(missing_ok=True)


def test_two_members_first_builds_at_once_make_one_shared_pool(users: Users) -> None:
    users.share(0)
    Path(path_of(users.world.name)).unlink()

    builds = [users.start(uid, "wrap", "-q", "build", "--", "true") for uid in MEMBERS * 8]

    assert ([build.end() for build in builds], users.access(), users.world.settled()) == ([0] * 16, SHARED, (1, {}))


def test_nobody_lets_others_run_without_a_slot_by_naming_a_process_around_them(users: Users) -> None:
    users.share(0)
    this = os.getpid()  # an ancestor of every client here, and root's

    refused = users.run(USER, "acquire", "--pid", str(this), "trick")
    ticket = users.start(0, "acquire", "--pid", str(this), "held").line()
    path = users.world.folder / "holding" / f"{ticket}.1"
    os.chown(path, USER, -1)  # as a member would have forged it
    late = ("wrap", "-q", "-n", "late", "--", "true")
    found = [users.run(uid, *late)[0] for uid in (OTHER_USER, 0)]
    os.chown(path, 0, -1)

    assert (refused[0], found, [users.run(uid, *late)[0] for uid in (OTHER_USER, 0)]) == (2, [75, 75], [0, 0])


def test_a_strangers_semaphore_in_a_shared_pools_place_is_refused(users: Users) -> None:
    users.share(0)
    Path(path_of(users.world.name)).unlink()

    def plant() -> None:
        os.umask(0)
        posix_ipc.Semaphore(users.world.name, posix_ipc.O_CREX, 0o666, 1000).close()

    in_child(plant, STRANGER)

    assert ([users.build(uid) for uid in (USER, 0)]) == [77, 77]


def test_a_group_writable_folder_without_setgid_is_its_owners_alone(users: Users) -> None:
    users.share(USER)
    users.world.folder.chmod(0o770)

    assert (users.build(OTHER_USER), users.build(USER), users.share(USER), users.build(OTHER_USER)) == (77, 0, 0, 0)


def test_run_ipclock_as_lock_folder_is_shared_the_same_way(users: Users, tmp_path: Path) -> None:
    let_everybody_in(tmp_path)
    users.env |= {"LOCK_DIR": str(tmp_path / "run" / "ipclock")}
    users.world.folder = tmp_path / "run" / "ipclock" / users.world.folder.name

    shared = users.share(0)
    outside = users.run(USER, "wrap", "-q", "--name", "/another", "a", "--", "true")

    assert (shared, users.access(), [users.build(uid) for uid in MEMBERS], outside[0]) == (0, SHARED, [0, 0], 77)


def test_a_member_for_whom_a_stranger_has_planted_a_turn_waits_for_its_turn_all_the_same(users: Users) -> None:
    users.share(USER)
    first = users.wrap(USER, "first")
    assert first.line() == "ready"
    planted = Path(f"/dev/shm/sem.{users.world.name[1:]}.3")
    planted.touch(0o600)
    os.chown(planted, STRANGER, STRANGER)
    second = users.at_gate(users.wrap(OTHER_USER, "second"))

    third = users.wrap(USER, "third")
    until(users.world.waiting, "the third in line")
    order = [first.end(), second.line(), second.end(), third.line(), third.end()]
    planted.unlink()

    assert order == [0, "ready", 0, "ready", 0]


@pytest.mark.parametrize("forged", ["process", "command", "beacon"])
def test_a_reset_by_root_ends_nothing_that_the_record_of_a_member_merely_names(forged: str, users: Users) -> None:
    users.share(0)
    victim = users.wrap(0, "victim")
    assert victim.line() == "ready"
    command = until(lambda: users.world.status()["holders"][0]["command_pid"], "the build in the record")
    record = (users.world.folder / "holding" / "1.1").stat()
    named = process.identify(command)
    text = {
        "process": f"kind=pid\nprocess={named}\n",
        "command": f"kind=fd\nprocess={named}\ncommand_pid={command}\ncommand_start={named.start}\n",
        "beacon": f"kind=fd\nprocess={named}\nbeacon={record.st_dev}:{record.st_ino}\n",
    }[forged]
    path = users.world.folder / "holding" / "99.2"
    in_child(lambda: path.write_text(f"label=forged\nuid=0\n{text}"), USER, groups=[GROUP])

    ended = users.run(0, "reset", "99", "--kill")[0]
    shown = [row["label"] for row in users.world.status()["holders"]]

    assert (ended, "victim" in shown, process.exists(named), victim.end()) == (77, True, True, 0)
    users.run(0, "reset")


def settings_of(uid: int, folder: Path, text: str) -> Path:
    """Write a settings file that is a user's and that everybody may read."""
    let_everybody_in(folder)
    file = folder / "build-config.sh"
    file.write_text(f"{text}\n")
    os.chown(file, uid, uid)
    return file


def said_of_slots(lines: list[str]) -> list[str]:
    return [line for line in lines if "slots of" in line or "init --max" in line]


@pytest.mark.parametrize(
    "command", [("wrap", "build", "--", "true"), ("wrap", "-n", "build", "--", "true"), ("init",)], ids=" ".join
)
def test_a_number_of_slots_that_a_member_brings_along_is_not_the_pools(command: tuple[str, ...], users: Users) -> None:
    users.share(USER)
    name = users.world.name

    plain = users.run(OTHER_USER, *command, MAX_PARALLEL_BUILDS="2")
    kept = users.world.status()["capacity"]

    assert (plain[0], said_of_slots(plain[1]), kept) == (
        0,
        [
            f"ipclock: slots of {name}: 1, as set by its owner {USER}, not 2",
            "   'ipclock init --max-parallel-builds 2' changes it for all users.",
        ],
        1,
    )


def test_a_quiet_build_tells_nothing_of_the_number_of_slots(users: Users) -> None:
    users.share(USER)
    builds = [users.run(uid, "wrap", "-q", "a", "--", "true", MAX_PARALLEL_BUILDS="2") for uid in (OTHER_USER, USER)]

    assert (builds, users.world.status()["capacity"]) == ([(0, []), (0, [])], 2)


@pytest.mark.parametrize("by", [0, USER, OTHER_USER], ids=["root", "owner", "member"])
def test_a_member_changes_the_number_of_slots_by_a_file_of_owner_or_root_or_by_init(
    by: int, users: Users, tmp_path: Path
) -> None:
    file = settings_of(by, tmp_path, "MAX_PARALLEL_BUILDS=2")
    users.share(USER)

    built = users.run(OTHER_USER, "wrap", "a", "--", "true", IPCLOCK_CONFIG=str(file))
    by_file = users.world.status()["capacity"]
    made = users.run(OTHER_USER, "init", "--max-parallel-builds", "3")
    now = users.world.status()

    heeded = by != OTHER_USER
    before = 2 if heeded else 1
    change = f"ipclock: slots of {users.world.name}: 2 from now on (before: 1)"
    assert (built[0], by_file, change in built[1]) == (0, before, heeded)
    assert made == (0, [f"ipclock: slots of {users.world.name}: 3 from now on (before: {before})"])
    assert (now["capacity"], now["resized"]["before"], now["resized"]["user"]) == (3, before, str(OTHER_USER))


@pytest.mark.parametrize("by", [USER, OTHER_USER], ids=["owner", "member"])
def test_a_file_that_changes_during_a_members_wait_counts_if_it_is_the_owners(
    by: int, users: Users, tmp_path: Path
) -> None:
    file = settings_of(by, tmp_path, "MAX_PARALLEL_BUILDS=1")
    users.share(USER)
    holder = users.wrap(USER, "holder")
    assert holder.line() == "ready"
    waiter = users.at_gate(users.start(OTHER_USER, "wrap", "-w", "3", "waiter", "--", "true", IPCLOCK_CONFIG=str(file)))

    file.write_text("MAX_PARALLEL_BUILDS=2\n")

    assert (waiter.end(), holder.end()) == (0 if by == USER else 75, 0)


def test_status_tells_who_changed_the_number_of_slots_under_those_who_were_there_before(users: Users) -> None:
    users.share(USER)
    holder = users.wrap(USER, "holder")
    assert holder.line() == "ready"

    users.run(USER, "init", "--max-parallel-builds", "2")
    while_there = users.world.run("status").stdout.splitlines()
    ended = holder.end()
    later = users.world.run("status").stdout

    assert (re.fullmatch(rf"  slots: 2 since .*, set by {USER} \(before: 1\)", while_there[1]) is not None, ended) == (
        True,
        0,
    )
    assert "since" not in later


def test_the_library_warns_of_a_number_of_slots_that_is_not_the_owners(users: Users) -> None:
    users.share(USER)
    name = users.world.name

    def hold() -> list[str]:
        os.environ["HISTORY"] = "off"
        with warnings.catch_warnings(record=True) as found:
            warnings.simplefilter("always")
            with ipclock.slot("a", name=name, max_parallel_builds=2):
                return [str(one.message) for one in found]

    said = in_child(hold, OTHER_USER, groups=[GROUP])

    told = f"slots of {name}: 1, as set by its owner {USER}, not 2"
    assert (said, users.world.status()["capacity"]) == ([told], 1)


def test_a_member_that_comes_while_the_folder_is_made_waits_until_it_is_shared(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    needs_root(0)

    def share(_: float) -> None:
        os.seteuid(0)
        os.chown(world.folder, USER, GROUP)
        world.folder.chmod(0o2770)
        os.seteuid(OTHER_USER)

    def arrive() -> int:
        world.folder.mkdir(0o700)
        os.chown(world.folder, USER, USER)
        os.setgroups([GROUP])
        os.seteuid(OTHER_USER)
        return Directory.open("/dev/shm", world.name[1:], create=True).owner

    monkeypatch.setattr("time.sleep", share)

    assert in_child(arrive) == USER
