"""`status` tells where a build comes from: its command, its directory, who has asked for it, on which terminal."""

from __future__ import annotations

import json
import os
import re
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from ipclock.linux import process_view
from tests.helpers.crash_at import OTHER_USER, USER, Client, needs_root
from tests.helpers.terminal import Terminal
from tests.helpers.world import until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.helpers.world import World

FACTS = ("command", "directory", "terminal", "caller_pid", "caller_gone", "detached", "log")
IPCLOCK = f"{sys.executable} -m ipclock"


def rows(world: World, *more: str) -> dict[str, dict[str, Any]]:
    """Return what schema 2 tells of each client, by label."""
    told = json.loads(world.run("status", "--json=2", *more).stdout)
    return {row["label"]: {key: row[key] for key in FACTS} for row in (*told["holders"], *told["waiters"])}


def facts(world: World) -> list[str]:
    """Return the lines of the text that tell where a build comes from."""
    return [line.strip() for line in world.run("status").stdout.splitlines() if line.startswith("      ")]


def test_a_build_and_a_waiter_tell_command_directory_and_caller(world: World, tmp_path: Path) -> None:
    holder = world.wrap("a", cwd=tmp_path).started()
    waiter = world.popen("wrap", "-q", "b", "--", "echo", "hello", cwd=tmp_path)
    until(lambda: world.records("gate"), "the waiter at the gate")

    told, lines = rows(world), facts(world)

    us = {"directory": str(tmp_path), "caller_pid": os.getpid(), "caller_gone": False, "detached": False, "log": None}
    session = process_view.terminal_of(os.getpid()) or None
    assert told["b"] == us | {"command": "echo hello", "terminal": session}
    assert (told["a"] | {"command": None}, "stub_build" in told["a"]["command"]) == (
        us | {"command": None, "terminal": session},
        True,
    )
    assert (len(lines), lines[1].startswith(f"echo hello · in {tmp_path} · for ")) == (2, True)
    assert f"[{os.getpid()}]" in lines[1]
    assert (holder.end(), waiter.wait()) == (0, 0)


def test_one_whose_caller_has_died_is_told_apart(world: World) -> None:
    holder = world.wrap("a").started()
    shell = world.spawn("sh", "-c", f"{IPCLOCK} wrap -q b -- true & echo $!; exec sleep 600")
    world.extra.append(int(shell.line()))
    until(lambda: world.records("gate"), "the waiter at the gate")
    before = rows(world)["b"]
    shell.signal(signal.SIGKILL)
    shell.wait()

    told, lines = rows(world)["b"], facts(world)

    assert (before["caller_pid"], before["caller_gone"]) == (shell.pid, False)
    assert (told["caller_pid"], told["caller_gone"], "caller gone" in lines[1]) == (None, True, True)
    assert holder.end() == 0


def test_a_detached_build_tells_its_log_and_who_has_asked_for_it(world: World, tmp_path: Path) -> None:
    world.env["LOG_DIR"] = str(tmp_path / "logs")
    tmp_path.chmod(0o700)
    done = world.run("wrap", "--detach", "a", "--", "sleep", "600", cwd=tmp_path)
    until(lambda: world.status()["holders"], "the build")
    until(lambda: (rows(world)["a"]["command"] or "").startswith("sleep"), "its command")
    (log,) = (tmp_path / "logs").iterdir()

    told, lines = rows(world)["a"], facts(world)

    assert (done.returncode, told) == (
        0,
        {
            "command": "sleep 600",
            "directory": str(tmp_path),
            "terminal": None,
            "caller_pid": os.getpid(),
            "caller_gone": False,
            "detached": True,
            "log": str(log),
        },
    )
    assert (lines[0].startswith("sleep 600 · in "), lines[0].endswith(f" · detached · log: {log}")) == (True, True)
    assert world.run("cancel", "1").returncode == 0


def test_no_record_holds_a_command_line(world: World) -> None:
    holder = world.popen("wrap", "-q", "a", "--", "sh", "-c", "echo ready; cat", "--password=secret")
    assert holder.line() == "ready"
    waiter = world.popen("wrap", "-q", "b", "--", "echo", "--password=secret")
    until(lambda: world.records("gate"), "the waiter at the gate")

    kept = [path.read_text() for path in world.folder.rglob("*") if path.is_file()]

    assert ([text for text in kept if "secret" in text], "secret" in str(rows(world))) == ([], True)
    holder.tell("")
    assert holder.process.stdin
    holder.process.stdin.close()
    assert (holder.wait(), waiter.wait()) == (0, 0)


def test_a_table_has_room_for_it_on_a_wide_terminal(world: World, tmp_path: Path) -> None:
    holder = world.wrap("a", cwd=tmp_path).started()
    waiter = world.popen("wrap", "-q", "b", "--", "echo", "hello", cwd=tmp_path)
    until(lambda: world.records("gate"), "the waiter at the gate")

    screens = {}
    for columns in (100, 400):
        terminal = Terminal([sys.executable, "-m", "ipclock", "status"], world.env | {"TERM": "xterm"}, columns=columns)
        assert terminal.wait() == 0
        screens[columns] = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", terminal.text)
        terminal.close()

    found = {
        columns: [word in text for word in ("command", "directory", "caller")] for columns, text in screens.items()
    }
    assert found == {100: [False] * 3, 400: [True] * 3}
    assert (screens[400].count(str(tmp_path)) >= 2, "echo hello" in screens[400]) == (True, True)
    assert (holder.end(), waiter.wait()) == (0, 0)


def test_a_build_on_a_terminal_tells_which(world: World) -> None:
    terminal = Terminal([sys.executable, "-m", "ipclock", "wrap", "-q", "a", "--", "cat"], world.env)
    try:
        until(lambda: world.status()["holders"], "the build")
        until(lambda: rows(world)["a"]["command"] == "cat", "its command")

        assert re.fullmatch(r"pts/\d+", rows(world)["a"]["terminal"])
    finally:
        terminal.close()


@pytest.fixture
def clients() -> Iterator[list[Client]]:
    """What a test has started as other users."""
    started: list[Client] = []
    yield started
    for client in started:
        client.close()


@pytest.mark.parametrize("looker", [OTHER_USER, 0])
def test_of_another_users_build_the_directory_is_not_known_but_to_root(
    looker: int, world: World, clients: list[Client]
) -> None:
    needs_root(0)

    def start(uid: int, *arguments: str) -> Client:
        clients.append(Client(*arguments, env=world.env | {"HOME": "/nonexistent"}, uid=uid, groups=(54400,)))
        return clients[-1]

    assert start(USER, "init", "--mode", "0660", "--group", "54400").end() == 0
    assert start(USER, "wrap", "-q", "a", "--", "sh", "-c", "echo ready; cat").line() == "ready"
    until(lambda: (rows(world)["a"]["command"] or "").startswith("sh"), "its command")

    look = start(looker, "status", "--json=2")
    text = ""
    while line := look.line():
        text += line
    row = json.loads(text)["holders"][0]

    assert (row["directory"], row["command"], row["caller_gone"]) == (
        "/" if looker == 0 else None,
        "sh -c echo ready; cat",
        False,
    )
