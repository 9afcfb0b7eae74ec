"""Clients inside a user namespace and outside of it, on one pool: they count each other, or are told why not."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from ipclock.linux.semaphore import path_of
from tests.helpers.crash_at import OTHER_USER, USER, Client, needs_user_namespaces
from tests.helpers.world import remove_pool, until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.helpers.world import World

GROUP = 54400
STRANGER = 54323
VIEWS = ("root", "same", "nobody")  # what a user is in its own user namespace; nobody else is anybody in it
BUILD = ("sh", "-c", "echo ready; cat")
LATE = ("wrap", "-q", "-n", "late", "--", "true")
HIDDEN = "a user without a uid in this user namespace"


class Users:
    """Clients of several users on one pool, in user namespaces of their own where a *view* is given."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.env = world.env | {"HOME": "/nonexistent"}
        self.clients: list[Client] = []

    def start(self, uid: int, *arguments: str, view: str = "", **env: str) -> Client:
        groups = [GROUP] if uid in (USER, OTHER_USER) else []
        self.clients.append(Client(*arguments, env=self.env | env, uid=uid, groups=groups, view=view))
        return self.clients[-1]

    def run(self, uid: int, *arguments: str, view: str = "", **env: str) -> tuple[int, list[str]]:
        """Return (exit status, lines on stderr)."""
        client = self.start(uid, *arguments, view=view, **env)
        return client.end(), client.errors().splitlines()

    def wrap(self, uid: int, label: str, view: str = "") -> Client:
        client = self.start(uid, "wrap", "-q", "-w", "20", label, "--", *BUILD, view=view)
        assert client.line() == "ready"
        return client

    def json(self, uid: int, command: str, view: str = "") -> dict[str, Any]:
        """Return what a command prints as JSON."""
        client = self.start(uid, command, "--json", view=view)
        text = "".join(iter(client.line, ""))
        assert client.end() in (0, 69), client.errors()
        found: dict[str, Any] = json.loads(text)
        return found

    def wrong(self, uid: int, view: str) -> list[str]:
        """Return what `doctor` finds wrong inside."""
        checks = self.json(uid, "doctor", view)["checks"]
        return [row["name"] for row in checks if row["level"] == "bad"]

    def share(self, uid: int = 0) -> None:
        assert self.run(uid, "init", "--mode", "0660", "--group", str(GROUP)) == (0, [])


@pytest.fixture
def users(world: World) -> Iterator[Users]:
    """Nobody yet."""
    needs_user_namespaces()
    made = Users(world)
    yield made
    for client in made.clients:
        client.close()


@pytest.mark.parametrize("view", VIEWS)
def test_a_pool_counts_its_owners_build_outside_for_the_one_inside(view: str, users: Users) -> None:
    holder = users.wrap(USER, "outside")

    refused = users.run(USER, *LATE, view=view)[0]
    shown = [row["label"] for row in users.json(USER, "status", view)["holders"]]
    wrong = users.wrong(USER, view)
    waiter = users.start(USER, "wrap", "-q", "-w", "20", "inside", "--", *BUILD, view=view)
    until(lambda: users.world.records("gate") or not waiter.running(), "the waiter at the gate")

    assert (refused, shown, wrong, holder.end(), waiter.line(), waiter.end(), users.world.settled()) == (
        75,
        ["outside"],
        [],
        0,
        "ready",
        0,
        (1, {}),
    )


@pytest.mark.parametrize("view", VIEWS)
def test_a_pool_that_was_made_inside_is_its_users_outside_too(view: str, users: Users) -> None:
    holder = users.wrap(USER, "inside", view)

    refused = users.run(USER, *LATE)[0]
    shown = [(row["label"], row["user"]) for row in users.json(USER, "status")["holders"]]
    reset = users.run(USER, "reset", view=view)[0]

    assert (refused, shown, reset, users.run(USER, *LATE), holder.end(), users.world.settled()) == (
        75,
        [("inside", str(USER))],
        0,
        (0, []),
        0,
        (1, {}),
    )


@pytest.mark.parametrize("owner", [0, USER])
@pytest.mark.parametrize("view", VIEWS)
def test_a_member_inside_builds_in_turn_with_those_outside(view: str, owner: int, users: Users) -> None:
    users.share(owner)
    holder = users.wrap(USER, "outside")
    refused = users.run(OTHER_USER, *LATE, view=view)[0]
    inside = users.start(OTHER_USER, "wrap", "-q", "-w", "20", "inside", "--", *BUILD, view=view)
    until(lambda: users.world.records("gate") or not inside.running(), "the waiter inside at the gate")
    behind = users.start(OTHER_USER, "wrap", "-q", "-w", "20", "behind", "--", *BUILD, view=view)
    until(lambda: users.world.turns() or not behind.running(), "the turn of the one inside")
    found = [Path("/dev/shm", name).stat() for name in users.world.turns()]
    turns = [(oct(status.st_mode & 0o7777), status.st_gid) for status in found]
    last = users.start(USER, "wrap", "-q", "-w", "20", "outside again", "--", *BUILD)
    until(lambda: len(users.world.turns()) == 2, "the turn of the last one")

    order = [holder.end(), inside.line(), inside.end(), behind.line(), behind.end(), last.line(), last.end()]

    assert (refused, turns, order, users.world.settled()) == (
        75,
        [("0o660", GROUP)],
        [0, "ready", 0, "ready", 0, "ready", 0],
        (1, {}),
    )


@pytest.mark.parametrize("view", VIEWS)
def test_a_member_inside_finds_nothing_wrong_and_makes_a_lost_semaphore_for_all(view: str, users: Users) -> None:
    users.share()
    Path(path_of(users.world.name)).unlink()

    built = users.run(USER, *LATE, view=view), users.run(OTHER_USER, *LATE), users.run(0, *LATE)

    assert (built, users.wrong(USER, view)) == (((0, []),) * 3, [])


@pytest.mark.parametrize("shared", [False, True], ids=["private", "shared"])
@pytest.mark.parametrize("owner", [0, USER])
@pytest.mark.parametrize("view", VIEWS)
def test_a_stranger_inside_is_refused_for_the_true_reason(view: str, owner: int, shared: bool, users: Users) -> None:
    users.share(owner) if shared else users.run(owner, "init")
    before = users.world.folder.stat()

    found = [users.run(STRANGER, *command, view=view) for command in (LATE, ("status",), ("init",), ("reset",))]

    line = f"ipclock: {users.world.folder}: belongs to another user ({HIDDEN})"
    assert ([(status, lines[:1]) for status, lines in found], users.world.folder.stat()) == ([(77, [line])] * 4, before)
    assert {lines[1] for _, lines in found} == {
        "   Run ipclock outside of the user namespace, or use a pool of your own (--name)."
    }


@pytest.mark.parametrize("view", VIEWS)
def test_a_group_that_there_is_not_inside_is_told(view: str, users: Users) -> None:
    refused = users.run(USER, "init", "--mode", "0660", "--group", str(GROUP), view=view)

    assert (refused[0], refused[1][:1], users.world.folder.exists()) == (
        77,
        [f"ipclock: {users.world.folder}: not permitted: the group has no gid in this user namespace"],
        False,
    )


@pytest.mark.parametrize("view", VIEWS)
def test_a_group_of_the_settings_that_there_is_not_inside_keeps_no_member_from_a_pool(view: str, users: Users) -> None:
    users.share()

    assert users.run(USER, *LATE, view=view, LOCK_GROUP=str(GROUP)) == (0, [])


@pytest.mark.parametrize("view", VIEWS)
def test_a_strangers_folder_for_everybody_is_not_taken_for_roots_inside(view: str, users: Users) -> None:
    folder = Path("/run", users.world.name[1:], "of a stranger")  # as it could be in /tmp
    folder.mkdir(parents=True)
    os.chown(folder, STRANGER, STRANGER)
    for path in (folder, folder.parent):
        path.chmod(0o1777)
    try:
        beneath = users.run(USER, "init", "--lock-dir", str(folder.parent), view=view)[0]
        remove_pool(users.world.name[1:])
        refused = users.run(USER, "init", "--lock-dir", str(folder), view=view)
    finally:
        shutil.rmtree(folder.parent)

    assert (beneath, refused[0], refused[1][:1]) == (
        0,
        77,
        [f"ipclock: {folder}: not permitted: writable by all users, but not owned by root with the sticky bit"],
    )


@pytest.mark.parametrize("view", VIEWS)
def test_nobody_lets_one_inside_run_without_a_slot_by_naming_a_process_around_it(view: str, users: Users) -> None:
    users.share()
    ticket = users.start(0, "acquire", "--pid", str(os.getpid()), "held").line()
    os.chown(users.world.folder / "holding" / f"{ticket}.1", OTHER_USER, -1)  # as a member would have forged it

    assert users.run(USER, *LATE, view=view)[0] == 75


def test_one_who_is_root_inside_alone_may_ask_for_no_better_priority(users: Users) -> None:
    users.share()

    refused = users.run(USER, "wrap", "--priority", "-5", "late", "--", "true", view="root")

    assert refused[0] == 77


@pytest.mark.parametrize("view", VIEWS)
def test_a_user_inside_is_a_user_of_its_own_in_a_fair_pool(view: str, users: Users) -> None:
    assert users.run(USER, "init", "--fair", "user")[0] == 0
    holder = users.wrap(USER, "outside")
    inside = users.start(USER, "wrap", "-q", "inside", "--", "true", view=view)
    until(lambda: users.world.records("gate"), "the one inside at the gate")
    (inner,) = users.world.records("gate")
    (outer,) = users.world.records("holding")

    assert (outer, inner.startswith("2,fu"), inner.partition(",f")[2] != outer.partition(",f")[2]) == (
        f"1.1,fu{USER}",
        True,
        True,
    )
    assert (holder.end(), inside.end()) == (0, 0)


@pytest.mark.parametrize("view", VIEWS)
def test_a_pool_is_drained_and_resumed_from_inside(view: str, users: Users) -> None:
    users.share()

    drained = users.run(USER, "drain", "--reason", "works", view=view)[0], users.run(OTHER_USER, *LATE)[0]
    who = users.json(0, "status")["drain"]["user"]

    assert (drained, who, users.run(USER, "resume", view=view)[0], users.run(0, *LATE)) == (
        (0, 75),
        str(USER),
        0,
        (0, []),
    )


def test_one_who_is_root_inside_has_the_hooks_of_its_own_settings(users: Users) -> None:
    folder = Path("/run", users.world.name[1:])
    folder.mkdir()
    settings = folder / "build-config.sh"
    settings.write_text("ON_ACQUIRE='true'\n")
    for path in (folder, settings):
        os.chown(path, USER, USER)
    try:
        built = users.run(USER, *LATE[:2], "--config", str(settings), *LATE[2:], view="root")
    finally:
        shutil.rmtree(folder)

    assert built == (0, [])
