"""`wrap --join`: a build that waits already with the same command is followed, and no other one is queued."""

from __future__ import annotations

import hashlib
import os
import signal
import sys
from typing import TYPE_CHECKING

import pytest

from tests.helpers.crash_at import OTHER_USER, USER, Client, needs_root
from tests.helpers.world import until

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.helpers.world import Build, World

FOLLOWS = "ipclock: b waits already with this command (ticket 2): following it"


def in_line(world: World, label: str, *words: str, **more: object) -> Build:
    """Start a build that waits, and return once its record says what it is to run."""
    before = world.waiting()
    build = world.popen("wrap", label, *words, **more)
    until(lambda: world.waiting() == before + 1, f"{label} in line")
    until(lambda: all("same=" in text for text in lines(world)), "the record of what it runs")
    return build


def lines(world: World) -> list[str]:
    folders = [world.folder / state for state in ("queued", "gate")]
    return [path.read_text() for folder in folders for path in folder.iterdir()]


def following(world: World, *words: str, **more: object) -> Build:
    """Start a build that finds one to follow, and return once it does."""
    build = world.popen("wrap", "--join", *words, **more)
    until(lambda: FOLLOWS in build.heard() or build.process.poll() is not None, "one that follows")
    return build


@pytest.mark.parametrize(("script", "status"), [("exit 0", 0), ("exit 3", 3), ("kill -HUP $$", -signal.SIGHUP)])
def test_it_ends_as_the_other_one_does_and_runs_nothing_itself(
    script: str, status: int, world: World, tmp_path: Path
) -> None:
    holder = world.wrap("a").started()
    command = ("b", "--", "sh", "-c", f"echo once >>{tmp_path}/ran; {script}")
    first = in_line(world, *command)
    second = following(world, *command)
    waiting = world.waiting()

    assert holder.end() == 0

    assert (waiting, second.wait(), first.wait()) == (1, status, status)
    assert ((tmp_path / "ran").read_text(), world.settled()) == ("once\n", (1, {}))


def test_it_shows_how_the_other_one_waits(world: World) -> None:
    holder = world.wrap("a").started()
    first = in_line(world, "b", "--", "true")
    second = following(world, "b", "--", "true")
    until(lambda: "position 1 in queue" in second.heard(), "the waiting line")

    assert (holder.end(), first.wait(), second.wait()) == (0, 0, 0)
    quiet = world.run("wrap", "--join", "-q", "b", "--", "true")
    assert (quiet.returncode, quiet.stderr) == (0, "")


@pytest.mark.parametrize("other", ["label", "command", "directory", "words"])
def test_one_of_another_kind_is_queued(other: str, world: World, tmp_path: Path) -> None:
    holder = world.wrap("a").started()
    first = in_line(world, "b", "--", "sh", "-c", "exit 0", cwd=tmp_path)
    label = "c" if other == "label" else "b"
    command = {"command": ("true",), "words": ("sh", "-c exit 0")}.get(other, ("sh", "-c", "exit 0"))
    second = world.popen("wrap", "--join", "-q", label, "--", *command, cwd="/" if other == "directory" else tmp_path)
    until(lambda: world.waiting() == 2, "two that wait")

    assert holder.end() == 0

    assert (first.wait(), second.wait() in (0, 2, 127), world.settled()) == (0, True, (1, {}))


def test_one_that_runs_already_is_not_followed(world: World) -> None:
    command = ("b", "--", "sh", "-c", "echo ready; cat")
    first = world.popen("wrap", "-q", "--join", *command)
    assert first.line() == "ready"
    second = world.popen("wrap", "-q", "--join", *command)
    until(lambda: world.records("gate"), "a second one in line")

    for build in (first, second):
        assert build.process.stdin
        build.process.stdin.close()

    assert (first.wait(), second.line(), second.wait(), world.settled()) == (0, "ready", 0, (1, {}))


def test_of_two_at_once_one_stands_in_line(world: World) -> None:
    holder = world.wrap("a").started()
    builds = [world.popen("wrap", "--join", "b", "--", "true") for _ in range(5)]
    until(lambda: sum("following it" in build.heard() for build in builds) == 4, "four that follow")

    assert (world.waiting(), holder.end(), [build.wait() for build in builds]) == (1, 0, [0] * 5)


def test_a_follower_that_leaves_lets_the_other_one_be(world: World) -> None:
    holder = world.wrap("a").started()
    first = in_line(world, "b", "--", "true")
    second = following(world, "b", "--", "true")
    timed = world.run("wrap", "--join", "-q", "-w", "0.1", "b", "--", "true")
    at_once = world.run("wrap", "--join", "-q", "-n", "b", "--", "true")
    second.signal(signal.SIGTERM)

    assert (second.wait(), timed.returncode, at_once.returncode) == (-signal.SIGTERM, 75, 75)
    assert (holder.end(), first.wait(), world.settled()) == (0, 0, (1, {}))


ENDS: dict[str, tuple[Callable[[World, Build], object], int]] = {
    "it is cancelled": (lambda world, build: world.run("cancel", "2"), -signal.SIGTERM),
    "it is interrupted": (lambda world, build: build.signal(signal.SIGINT), -signal.SIGINT),
    "it is superseded": (lambda world, build: world.popen("wrap", "-q", "--supersede", "b", "--", "false"), 76),
    "it is killed": (lambda world, build: build.signal(signal.SIGKILL), 80),
}


@pytest.mark.parametrize("how", ENDS)
def test_it_leaves_as_the_other_one_does(how: str, world: World) -> None:
    end, status = ENDS[how]
    holder = world.wrap("a").started()
    first = in_line(world, "b", "--", "true")
    second = following(world, "b", "--", "true")

    end(world, first)

    assert second.wait() == status
    assert (holder.end(), first.wait() in (status, -signal.SIGKILL)) == (0, True)


def test_a_build_whose_supervisor_was_killed_is_followed_to_its_end(world: World) -> None:
    holder = world.wrap("a").started()
    command = ("b", "--", "sh", "-c", "echo ready; cat")
    first = in_line(world, *command)
    second = following(world, *command)
    holder.end()
    assert first.line() == "ready"
    until(lambda: world.status()["holders"][0]["command_pid"] not in (None, first.pid), "the command noted")
    first.signal(signal.SIGKILL)
    first.wait()
    held = (world.records("holding"), second.process.poll())
    assert first.process.stdin
    first.process.stdin.close()

    assert (held, second.wait()) == ((["2.1"], None), 80)
    told = "ipclock: ticket 2 has ended without an exit status: its ipclock was killed"
    assert second.errors().splitlines()[-1] == told


def test_a_detached_one_prints_the_ticket_that_waits(world: World, tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    world.env["LOG_DIR"] = str(tmp_path / "logs")
    holder = world.wrap("a").started()

    told = [world.run("wrap", "--detach", "--join", "b", "--", "true") for _ in range(3)]

    assert [(one.returncode, one.stdout, one.stderr) for one in told] == [(0, "2\n", "")] * 3
    assert (world.waiting(), len(list((tmp_path / "logs").iterdir())), holder.end()) == (1, 1, 0)
    until(lambda: world.settled() == (1, {}), "the end of it")


def test_the_record_says_what_it_runs_by_a_checksum_alone(world: World, tmp_path: Path) -> None:
    holder = world.wrap("a").started()
    first = in_line(world, "b", "--", "true", "--token=secret", cwd=tmp_path)

    (text,) = lines(world)

    words = [str(tmp_path), "true", "--token=secret"]
    same = hashlib.sha256(b"\0".join(map(os.fsencode, words))).hexdigest()[:16]
    assert (f"\nsame={same}\n" in text, "secret" in text) == (True, False)
    assert (holder.end(), first.wait()) == (0, 0)


def test_another_users_build_is_not_followed(world: World) -> None:
    needs_root(0)
    clients: list[Client] = []

    def start(uid: int, *arguments: str) -> Client:
        clients.append(Client(*arguments, env=world.env | {"HOME": "/nonexistent"}, uid=uid, groups=(54400,)))
        return clients[-1]

    assert start(USER, "init", "--mode", "0660", "--group", "54400").end() == 0
    holder = start(USER, "wrap", "-q", "a", "--", "sh", "-c", "echo ready; cat")
    assert holder.line() == "ready"
    for number, uid in enumerate((USER, OTHER_USER)):
        start(uid, "wrap", "-q", "--join", "b", "--", "true")
        until(lambda: world.waiting() == number + 1, "one more in line")  # noqa: B023

    assert [client.end() for client in clients[1:]] == [0, 0, 0]
    for client in clients:
        client.close()


def test_a_pool_of_several_hosts_refuses_it(world: World) -> None:
    done = world.run("wrap", "--join", "a", "--", "true", env={"ENGINE": "zookeeper://127.0.0.1:1/pool"})

    assert (done.returncode, "not supported: --join" in done.stderr) == (69, True)


def test_a_build_that_need_not_wait_computes_no_checksum(world: World) -> None:
    command = [sys.executable, "-X", "importtime", "-m", "ipclock", "wrap", "-q", "a", "--", "true"]

    build = world.spawn(*command)

    assert (build.wait(), "hashlib" in build.errors()) == (0, False)
