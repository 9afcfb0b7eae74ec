"""`doctor` warns of other usual callers who would come to another pool, or to another number of slots."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from tests.helpers.crash_at import USER, needs_root
from tests.helpers.machine import in_a_world_where

if TYPE_CHECKING:
    from tests.helpers.world import World

# settings files of everybody's: in /etc, root's own, a user's, and one of scripts
FILES = {
    "etc": "/etc/ipclock/build-config.sh",
    "root": "/home/root/.config/ipclock/build-config.sh",
    "user": "/home/builder/.config/ipclock/build-config.sh",
    "scripts": "/home/scripts/build-config.sh",
}
MACHINE = """
umask 022
mount -t tmpfs tmpfs /mnt && cp -a /etc/. /mnt/ && mount --bind /mnt /etc
mount -t tmpfs tmpfs /home; mount -t tmpfs -o mode=1777 tmpfs /dev/shm
sed -i "s|^\\(root:.*\\):/root:|\\1:/home/root:|" /etc/passwd  # the interpreter may lie in /root
echo "builder:x:54321:54321::/home/builder:/bin/sh" >>/etc/passwd
"""
OTHERS = "users without a settings file"


def warnings(
    world: World, files: dict[str, str], *options: str, uid: int = USER, home: str = "/home/builder"
) -> list[tuple[str, str]]:
    """Return (finding, remedy) of what `doctor` warns of the callers, where the files say so."""
    needs_root(0)
    script = MACHINE
    for name, text in files.items():
        script += f"mkdir -p $(dirname {FILES[name]}); printf '{text}' >{FILES[name]}\n"
    world.env |= {"HOME": home}
    world.env.pop("XDG_CONFIG_HOME")
    if world.env["SEMAPHORE_NAME"].startswith("/ipclock-test"):
        del world.env["SEMAPHORE_NAME"]
    status, lines = in_a_world_where(script, world, "doctor", "--json", *options, uid=uid)
    assert lines[0] == "{", lines
    checks = [row for row in json.loads("\n".join(lines))["checks"] if row["name"] == "callers"]
    assert (status, bool(checks)) == (0, True)
    return [(row["finding"], row["remedy"]) for row in checks if row["level"] == "warn"]


@pytest.mark.parametrize(
    "files",
    [
        {},
        {"etc": "SEMAPHORE_NAME=web\\nMAX_PARALLEL_BUILDS=2\\n"},
        {"etc": "SEMAPHORE_NAME=web\\n", "user": "SEMAPHORE_NAME=/web\\nBUILD_TIMEOUT=3\\n"},
        {"user": "MAX_PARALLEL_BUILDS=2\\n"},  # nobody else says how many
        {"user": "SEMAPHORE_NAME=/oracle-build\\n", "root": "LOCK_DIR=/run\\n"},
    ],
    ids=str,
)
def test_where_all_callers_come_to_one_pool_there_is_no_warning(files: dict[str, str], world: World) -> None:
    assert warnings(world, files) == []


def test_a_variable_of_the_environment_is_named_once_for_all_who_lack_it(world: World) -> None:
    world.env["SEMAPHORE_NAME"] = "/web"

    found = warnings(world, {"etc": "BUILD_TIMEOUT=3\\n"})

    assert found == [
        (
            "SEMAPHORE_NAME: /web here ($SEMAPHORE_NAME), /oracle-build (default) for root (sudo), "
            f"{OTHERS}, this user (cron)",
            "Move $SEMAPHORE_NAME to /etc/ipclock/build-config.sh, which all of them read.",
        )
    ]


def test_a_users_own_file_is_named_with_the_line(world: World) -> None:
    found = warnings(world, {"user": "# mine\\nMAX_PARALLEL_BUILDS=3\\n", "etc": "\\n\\nMAX_PARALLEL_BUILDS=2\\n"})

    assert found == [
        (
            f"MAX_PARALLEL_BUILDS: 3 here ({FILES['user']}:2), 2 ({FILES['etc']}:3) for root (sudo), {OTHERS}",
            f"Move {FILES['user']}:2 to {FILES['etc']}, which all of them read.",
        )
    ]


def test_each_difference_is_one_warning(world: World) -> None:
    world.env["MAX_PARALLEL_BUILDS"] = "4"

    found = warnings(
        world,
        {"etc": "MAX_PARALLEL_BUILDS=1\\n", "user": "MAX_PARALLEL_BUILDS=2\\n"},
    )

    assert [text.partition(" here ")[2] for text, _ in found] == [
        f"($MAX_PARALLEL_BUILDS), 1 ({FILES['etc']}:1) for root (sudo), {OTHERS}",
        f"($MAX_PARALLEL_BUILDS), 2 ({FILES['user']}:1) for this user (cron)",
    ]


def test_the_file_of_the_scripts_is_compared_with_those_who_do_not_read_it(world: World) -> None:
    world.env["IPCLOCK_CONFIG"] = FILES["scripts"]

    found = warnings(world, {"scripts": "MAX_PARALLEL_BUILDS=1\\nSEMAPHORE_NAME=/web\\n"})

    assert [text for text, _ in found] == [
        f"SEMAPHORE_NAME: /web here ({FILES['scripts']}:2), /oracle-build (default) for root (sudo), {OTHERS}, "
        "this user (cron)"
    ]


def test_who_reads_the_file_of_the_scripts_without_this_environment_is_a_caller_too(world: World) -> None:
    world.env |= {"IPCLOCK_CONFIG": FILES["scripts"], "MAX_PARALLEL_BUILDS": "3"}

    found = warnings(world, {"scripts": "MAX_PARALLEL_BUILDS=1\\n"})

    assert [text for text, _ in found] == [
        f"MAX_PARALLEL_BUILDS: 3 here ($MAX_PARALLEL_BUILDS), 1 ({FILES['scripts']}:1) for scripts using "
        f"{FILES['scripts']}"
    ]


def test_a_file_of_roots_own_is_named(world: World) -> None:
    found = warnings(
        world, {"root": "SEMAPHORE_NAME=/roots\\n", "etc": "SEMAPHORE_NAME=/web\\n"}, uid=0, home="/home/root"
    )

    assert found == [
        (
            f"SEMAPHORE_NAME: /roots here ({FILES['root']}:1), /web ({FILES['etc']}:1) for {OTHERS}",
            f"Move {FILES['root']}:1 to {FILES['etc']}, which all of them read.",
        )
    ]


def test_under_sudo_the_user_is_a_caller(world: World) -> None:
    world.env["SUDO_UID"] = str(USER)

    found = warnings(world, {"user": "SEMAPHORE_NAME=/mine\\n"}, uid=0, home="/home/root")

    assert found == [
        (
            f"SEMAPHORE_NAME: /oracle-build here (default), /mine ({FILES['user']}:1) for builder",
            f"Move {FILES['user']}:1 to {FILES['etc']}, which all of them read.",
        )
    ]


def test_a_name_that_is_given_as_an_option_is_no_difference_but_the_number_of_its_slots_is(world: World) -> None:
    found = warnings(world, {"user": "MAX_PARALLEL_BUILDS=3\\n", "etc": "MAX_PARALLEL_BUILDS=2\\n"}, "--name", "/web")

    assert [text.partition(":")[0] for text, _ in found] == ["MAX_PARALLEL_BUILDS"]


def test_a_pool_of_several_hosts_in_one_file_only_is_told_although_it_is_not_examined(world: World) -> None:
    needs_root(0)
    world.env.pop("SEMAPHORE_NAME")
    world.env["ENGINE"] = "zookeeper://zk1/web?auth=/etc/secret"

    done = world.run("doctor", "--json")

    levels = {row["name"]: (row["level"], row["finding"]) for row in json.loads(done.stdout)["checks"]}
    assert (done.returncode, levels["pool"][0], levels["callers"][0]) == (69, "bad", "warn")
    assert levels["callers"][1].startswith("ENGINE: zookeeper://zk1/web here ($ENGINE), not set (default) for ")
