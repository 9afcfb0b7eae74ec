"""`wrap --for PID`: the wait, or the build, ends with the process that has asked for it, whatever is between."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.helpers.crash_at import child
from tests.helpers.world import Build, until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.helpers.world import World

TERMED = -signal.SIGTERM


class Caller:
    """A process that is to end at some time."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(["sleep", "600"])
        self.pid = self.process.pid

    def end(self) -> None:
        self.process.kill()
        self.process.wait()


@pytest.fixture
def caller() -> Iterator[Caller]:
    """One that lives."""
    made = Caller()
    yield made
    made.end()


def told(build: Build) -> str:
    return build.errors().splitlines()[-1]


@pytest.mark.parametrize("where", ["gate", "queued"])
def test_a_wait_is_given_up_when_the_caller_has_ended(where: str, world: World, caller: Caller, tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    world.env["HISTORY"] = str(tmp_path / "history.db")
    holder = world.wrap("a").started()
    ahead = world.wrap("b", "-q") if where == "queued" else None
    until(lambda: world.waiting() == bool(ahead), "the one ahead")
    waiter = world.wrap("c", "--for", str(caller.pid))
    until(lambda: world.waiting() == 1 + bool(ahead) and (not ahead or world.turns()), "the waiter in line")

    caller.end()

    assert (waiter.wait(), told(waiter)) == (TERMED, f"ipclock: c: cancelled: process {caller.pid} has ended")
    with closing(sqlite3.connect(tmp_path / "history.db")) as connection:
        assert connection.execute("SELECT label, outcome FROM finished").fetchall() == [("c", "cancelled")]
    rest = [holder.end()] + [one.started().end() for one in [ahead] if one]
    assert (set(rest), world.settled()) == ({0}, (1, {}))


def test_a_build_ends_when_the_caller_has_ended(world: World, caller: Caller) -> None:
    build = world.wrap("a", "--for", str(caller.pid)).started()
    inner = int(build.ask("daemon closed").split()[1])

    caller.end()

    assert (build.wait(), told(build)) == (TERMED, f"ipclock: a: cancelled: process {caller.pid} has ended")
    assert (until(lambda: not Path(f"/proc/{inner}").exists(), "the end of all of it"), world.settled()) == (
        True,
        (1, {}),
    )


def test_one_that_ends_while_a_shell_between_lives_counts(world: World) -> None:
    """The parent of `wrap` goes on; who is named is what counts."""
    wrap = f"{sys.executable} -m ipclock wrap -q --for $$ a -- sh -c 'echo ready; exec sleep 600'"
    outer = world.spawn("sh", "-c", f"({wrap}; echo $?) & wait")
    assert outer.line() == "ready"

    outer.process.kill()

    assert outer.line() == str(128 + signal.SIGTERM)
    assert world.settled() == (1, {})


def test_a_build_whose_caller_lives_on_is_let_be(world: World, caller: Caller) -> None:
    build = world.wrap("a", "--for", str(caller.pid)).started()

    assert (build.end(3), caller.process.poll()) == (3, None)


def test_a_detached_build_ends_with_its_caller(world: World, caller: Caller, tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    world.env["LOG_DIR"] = str(tmp_path / "logs")
    done = world.run("wrap", "--detach", "--for", str(caller.pid), "a", "--", "sleep", "600")
    until(lambda: world.records("holding"), "the build")

    caller.end()

    until(lambda: world.settled() == (1, {}), "the end of the build")
    log = next((tmp_path / "logs").iterdir())
    until(lambda: "cancelled" in log.read_text(), "the line in its log")
    assert (done.returncode, log.read_text()) == (0, f"ipclock: a: cancelled: process {caller.pid} has ended\n")


@pytest.mark.parametrize("kind", ["none", "a zombie", "no number", "zero"])
def test_a_process_that_does_not_live_is_a_mistake(kind: str, world: World) -> None:
    with child(lambda: None) as pid:
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        named = {"none": "4194304", "a zombie": str(pid), "no number": "x", "zero": "0"}[kind]
        done = world.run("wrap", "-q", "--for", named, "a", "--", "true")

    assert (done.returncode, "--for: invalid value" in done.stderr, world.records("new")) == (2, True, [])


def test_another_process_under_the_same_pid_is_not_the_caller(world: World, caller: Caller) -> None:
    """It is held by a pidfd, which never becomes that of another one."""
    build = world.wrap("a", "--for", str(caller.pid)).started()

    links = [os.readlink(f"/proc/{build.pid}/fd/{fd}") for fd in os.listdir(f"/proc/{build.pid}/fd")]

    assert ("anon_inode:[pidfd]" in links, build.end()) == (True, 0)
