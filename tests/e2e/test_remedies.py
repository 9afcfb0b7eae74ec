"""What is recommended against a failure: it depends on who asks, and works for that caller."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from ipclock import errors
from ipclock.cli import advice
from ipclock.linux.semaphore import path_of
from tests.helpers.crash_at import OTHER_USER, USER, Client, in_child, needs_root, unshared
from tests.helpers.machine import ROOT, in_a_world_where

if TYPE_CHECKING:
    from tests.helpers.world import World

GROUP = 54400
# a machine on which USER has a name, and a group whose members are yet to be filled in
PEOPLE = """
mount -t tmpfs tmpfs /mnt
{{ cat /etc/passwd; echo "builder:x:54321:54321::/:/bin/sh"; }} >/mnt/passwd; mount --bind /mnt/passwd /etc/passwd
{{ cat /etc/group; echo "builders:x:54400:{members}"; }} >/mnt/group; mount --bind /mnt/group /etc/group
mount -t tmpfs -o mode=1777 tmpfs /dev/shm
{python} -m ipclock init {options} >/dev/null
"""
SHARED = "--mode 0660 --group builders"
STRANGER = "   The pool is for the members of builders: 'sudo adduser builder builders', and log in again."
SINCE_TODAY = (
    "   You are a member of builders, but not yet in this session: log in again, or run 'newgrp builders' first."
)
PRIVATE = "   Use a pool of your own (--name), or have it shared: 'sudo ipclock init --mode 0660 --group GROUP'."
CALLERS = {
    "a stranger": (SHARED, "", STRANGER),
    "a stranger among others": (SHARED, "root,daemon", STRANGER),
    "a member since today": (SHARED, "daemon,builder", SINCE_TODAY),
    "a stranger to a private pool": ("", "builder", PRIVATE),
}


@pytest.mark.parametrize("who", CALLERS)
@pytest.mark.parametrize(
    "command", [("wrap", "a", "--", "true"), ("status",), ("release", "1")], ids=lambda row: row[0]
)
def test_one_who_is_refused_is_told_how_to_get_in(who: str, command: tuple[str, ...], world: World) -> None:
    needs_root(0)
    options, members, remedy = CALLERS[who]
    script = PEOPLE.format(members=members, python=sys.executable, options=options)

    status, lines = in_a_world_where(script, world, *command, uid=USER)

    assert (status, lines[-1]) == (77, remedy)


def test_the_doctor_tells_the_same(world: World) -> None:
    needs_root(0)
    script = PEOPLE.format(members="builder", python=sys.executable, options=SHARED)

    _, lines = in_a_world_where(script, world, "doctor", uid=USER)

    assert SINCE_TODAY in lines


@pytest.mark.parametrize(("members", "remedy"), [("", STRANGER), ("builder", SINCE_TODAY)])
def test_one_who_would_share_a_new_pool_with_a_group_is_told_how_to_get_into_it(
    members: str, remedy: str, world: World
) -> None:
    needs_root(0)
    script = PEOPLE.format(members=members, python=sys.executable, options="--name other")

    status, lines = in_a_world_where(script, world, "init", *SHARED.split(), uid=USER)

    assert (status, lines[-1]) == (77, remedy)


def test_a_member_is_told_who_may_say_who_uses_the_pool(world: World) -> None:
    needs_root(0)
    world.run("init", "--mode", "0660", "--group", str(GROUP))

    client = Client(*("init", "--mode", "0600"), env=world.env | {"HOME": "/nonexistent"}, uid=USER, groups=[GROUP])
    status = client.wait()
    lines = client.errors().splitlines()
    client.close()

    assert (status, lines[-1]) == (77, "   Its owner or root may do that: 'sudo ipclock init ...'.")


@pytest.mark.parametrize(
    ("owner", "caller", "remedy"),
    [
        (USER, USER, "   'ipclock init --priority-min -5' allows it."),
        (0, USER, "   Its owner or root allows it: 'sudo ipclock init --priority-min -5'."),
    ],
)
def test_a_priority_is_allowed_without_sudo_by_the_owner(owner: int, caller: int, remedy: str, world: World) -> None:
    needs_root(0)
    env = world.env | {"HOME": "/nonexistent", "LOCK_MODE": "0660", "LOCK_GROUP": str(GROUP)}
    Client("init", env=env, uid=owner, groups=[GROUP]).wait()

    client = Client("wrap", "--priority", "-5", "a", "--", "true", env=env, uid=caller, groups=[GROUP])
    status = client.wait()
    lines = client.errors().splitlines()
    client.close()

    assert (status, lines[-1]) == (77, remedy)


# A timeout


def hint(world: World, owner: int, caller: int, **settings: str) -> str:
    """Return what a timeout of *caller* recommends in the pool of *owner*, which they share."""
    env = world.env | {"HOME": "/nonexistent", "LOCK_MODE": "0660", "LOCK_GROUP": str(GROUP)}
    for command in ("init", "drain"):
        Client(command, env=env, uid=owner, groups=[GROUP]).wait()
    late = Client("wrap", "-w", "0.1", "late", "--", "true", env=env | settings, uid=caller, groups=[GROUP])
    status = late.wait()
    line = late.errors().splitlines()[-1]
    late.close()
    assert status == 75
    return line


@pytest.mark.parametrize(
    ("owner", "caller", "command"),
    [
        (USER, USER, "ipclock reset"),
        (0, USER, "sudo ipclock reset"),
        (OTHER_USER, USER, "sudo ipclock reset"),
        (0, 0, "sudo ipclock reset"),
        (USER, 0, "sudo ipclock reset"),
    ],
)
def test_a_timeout_recommends_sudo_only_in_a_pool_of_somebody_elses(
    owner: int, caller: int, command: str, world: World
) -> None:
    needs_root(0)

    assert hint(world, owner, caller) == f"   force unlock: {command}"


@pytest.mark.parametrize("command", ["sudo ipclock reset", "ask the admin"])
@pytest.mark.parametrize("caller", [0, USER])
def test_a_hint_that_is_set_holds_to_the_letter(caller: int, command: str, world: World) -> None:
    needs_root(0)

    assert hint(world, USER, caller, RESET_HINT=command) == f"   force unlock: {command}"


# Where sudo finds the program

START = f"""#!{sys.executable}
import sys
from ipclock.cli.command_line import main
sys.exit(main())
"""


@pytest.mark.parametrize(
    ("folder", "command"),
    [("/mnt/a home/bin", "sudo '/mnt/a home/bin/ipclock' reset"), ("/usr/local/bin", "sudo ipclock reset")],
)
@pytest.mark.parametrize("by_path", [True, False])
def test_the_program_is_named_so_that_sudo_finds_it(folder: str, command: str, by_path: bool, world: World) -> None:
    script = f"""
    mount -t tmpfs tmpfs /mnt; mount -t tmpfs tmpfs /usr/local/bin; mkdir -p {shlex.quote(folder)}
    mount -t tmpfs -o mode=1777 tmpfs /dev/shm
    cd {shlex.quote(folder)}; printf %s "$1" >ipclock; chmod +x ipclock
    ./ipclock init >/dev/null; ./ipclock drain 2>/dev/null
    if [ "$2" = True ]; then exec ./ipclock wrap -w 0.1 late -- true; fi
    export PATH="$PWD:$PATH"; cd /; ipclock wrap -w 0.1 late -- true
    """

    status, output = unshared(["-m"], script, START, str(by_path), env=world.env | {"PYTHONPATH": str(ROOT)})

    assert (status, output.splitlines()[-1]) == (75, f"   force unlock: {command}")


def test_a_process_that_root_cannot_end_is_no_case_for_sudo() -> None:
    needs_root(0)
    error = errors.StillRunning(17, [40, 41])

    of_root, of_others = advice.for_caller(error)[1], in_child(lambda: advice.for_caller(error)[1], USER)

    assert ("sudo" in of_root, of_others) == (
        False,
        "'sudo ipclock reset 17 --kill' may end other users' processes too.",
    )


def test_a_damaged_semaphore_of_somebody_else_is_replaced_by_root(world: World) -> None:
    needs_root(0)
    Client("init", env=world.env | {"LOCK_MODE": "0660", "LOCK_GROUP": str(GROUP)}, uid=0).wait()
    Path(path_of(world.name)).write_bytes(b"")

    lines = []
    for uid in (0, USER):
        client = Client("wrap", "a", "--", "true", env=world.env | {"HOME": "/nonexistent"}, uid=uid, groups=[GROUP])
        client.wait()
        lines.append(client.errors().splitlines()[-1])
        client.close()

    assert lines == ["   'ipclock reset' replaces it.", "   'sudo ipclock reset' replaces it."]
