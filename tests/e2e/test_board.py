"""`status` on a terminal: the table, the live view, and a terminal that is given back as it was."""

from __future__ import annotations

import fcntl
import os
import re
import signal
import struct
import sys
import termios
import time
import unicodedata
from typing import TYPE_CHECKING

import pytest

from ipclock.history.finished import Row, record
from tests.helpers.terminal import Terminal
from tests.helpers.world import until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.helpers.world import World

STATUS = [sys.executable, "-m", "ipclock", "status"]
ESCAPE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


@pytest.fixture
def terminal(world: World) -> Iterator[Callable[..., Terminal]]:
    opened: list[Terminal] = []

    def start(*command: str, columns: int = 120, rows: int = 24, **env: str) -> Terminal:
        opened.append(Terminal(command, world.env | {"TERM": "xterm"} | env, columns, rows))
        return opened[-1]

    yield start
    for one in opened:
        one.close()


@pytest.fixture
def past(world: World, tmp_path: Path) -> None:
    """Ten builds of "staging" that took 1000 s each."""
    world.env["HISTORY"] = str(tmp_path / "history.db")
    now = time.time()
    fields = {"uid": 0, "user": "root", "pool": world.name, "code": 0, "slots": 1, "capacity": 1, "outcome": "done"}
    times = {"arrived": now - 1000, "waited_s": 0.0, "admitted": now - 1000, "held_s": 1000.0, "ended": now}
    for ticket in range(10):
        record(world.env["HISTORY"], [Row(label="staging", ticket=ticket, **fields, **times)], 90)


def plain(text: str) -> list[str]:
    return [line.rstrip() for line in ESCAPE.sub("", text).replace("\r", "").split("\n")]


def columns_of(text: str) -> int:
    return sum(2 if unicodedata.east_asian_width(letter) in "WF" else 1 for letter in text)


@pytest.mark.usefixtures("past")
def test_the_table_tells_who_builds_how_far_and_who_waits_for_how_long(
    world: World, terminal: Callable[..., Terminal]
) -> None:
    holder = world.wrap("staging").started()
    waiter = world.wrap("[red]next[/]")
    until(lambda: world.records("gate"), "the waiter at the gate")

    screen = terminal(*STATUS, columns=400)  # room for any path of an interpreter
    status = screen.wait()

    head, holders, row, waiters, second = plain(screen.text)[:5]
    origin = ["command", "directory", "caller"]
    assert (status, head, holders.split(), waiters.split()) == (
        0,
        "⏳ builds running: 1/1",
        ["ticket", "slot", "label", "PID", "user", "age", "of", "usual", "CPU", "memory", *origin],
        ["ticket", "position", "waiting", "PID", "user", "waited", "limit", "estimate", *origin],
    )
    assert row.split()[:5] == ["1", "1", "staging", str(holder.command_pid), "root"]
    assert re.search(r"0 % / 16 min +\d+ % +\d+ MB +\S*python", row)
    waits = rf" +2 +1  \[red\]next\[/\] +{waiter.pid}  root +\d s  10 min  starting in about 1[67] min .*stub_build.*"
    assert re.fullmatch(waits, second)
    assert (holder.end(), waiter.started().end()) == (0, 0)


@pytest.mark.usefixtures("past")
def test_the_json_tells_the_same(world: World) -> None:
    holder = world.wrap("staging").started()
    waiter = world.wrap("next")
    until(lambda: world.records("gate"), "the waiter at the gate")

    pool = world.status()

    (row,), (next_row,) = pool["holders"], pool["waiters"]
    assert (row["usual_s"], row["memory"] > 1 << 20, "stub_build" in row["command"]) == (1000, True, True)
    assert [900 < seconds <= 1000 for seconds in next_row["left_s"]] == [True, True]
    assert (holder.end(), waiter.started().end()) == (0, 0)


@pytest.mark.usefixtures("past")
def test_a_waiter_is_told_how_long_it_will_be(world: World) -> None:
    holder = world.wrap("staging").started()
    waiter = world.popen("wrap", "late", "--", "true")
    assert waiter.process.stderr

    line = waiter.process.stderr.readline().decode()
    holder.end()

    assert (waiter.wait(), len(re.findall(r" · starting in about 1[67] min · staging", line))) == (0, 1)


@pytest.mark.parametrize("columns", [30, 60, 80])
def test_no_row_is_wider_than_the_terminal(world: World, terminal: Callable[..., Terminal], columns: int) -> None:
    holder = world.wrap("스테이징 배포 " * 10, "--slots", "2", "--max-parallel-builds", "2").started()
    waiter = world.wrap("다음 배포 " * 10)
    until(lambda: world.records("gate"), "the waiter at the gate")

    screen = terminal(*STATUS, columns=columns, LANG="ko_KR.UTF-8")
    status = screen.wait()

    assert (status, max(map(columns_of, plain(screen.text))) <= columns) == (0, True)
    assert (holder.end(), waiter.started().end()) == (0, 0)


@pytest.mark.parametrize("columns", [80, 110, 120, 200])
def test_a_long_command_is_cut_and_leaves_the_other_columns_whole(
    world: World, terminal: Callable[..., Terminal], columns: int
) -> None:
    holder = world.wrap("staging", stub=("--report", "28") * 40).started()
    waiter = world.wrap("next")
    until(lambda: world.records("gate"), "the waiter at the gate")

    screen = terminal(*STATUS, columns=columns)
    screen.wait()

    _head, heads, row, waits, second = plain(screen.text)[:5]
    assert [text in heads + waits for text in ("slot", "label", "PID", "age", "CPU", "memory", "waited")] == [True] * 7
    assert (row.split()[:4], "…" in row, second.split()[:4]) == (
        ["1", "1", "staging", str(holder.command_pid)],
        columns >= 110,  # where there is a command
        ["2", "1", "next", str(waiter.pid)],
    )
    assert (holder.end(), waiter.started().end()) == (0, 0)


def test_without_rich_a_terminal_shows_the_lines(
    world: World, terminal: Callable[..., Terminal], tmp_path: Path
) -> None:
    (tmp_path / "rich.py").write_text("raise ImportError")
    holder = world.noted(world.wrap("staging"))

    once = terminal(*STATUS, PYTHONPATH=str(tmp_path))
    live = terminal(*STATUS, "--watch", PYTHONPATH=str(tmp_path))
    live.wait_for("q: quit")
    live.type("q")

    line = f"staging (PID: {holder.command_pid})"
    assert (once.wait(), live.wait(), line in once.text, line in live.text) == (0, 0, True, True)
    assert holder.end() == 0


def test_the_live_view_follows_the_pool_and_gives_the_screen_back(
    world: World, terminal: Callable[..., Terminal]
) -> None:
    world.ask("init")
    screen = terminal(*STATUS, "--watch")
    screen.wait_for("no build is running")
    holder = world.wrap("staging").started()
    screen.wait_for("staging")

    screen.type("q")

    assert (screen.wait(), screen.text.count("\x1b[?1049h"), screen.text.endswith("\x1b[?25h\x1b[?1049l")) == (
        0,
        1,
        True,
    )
    assert holder.end() == 0


def test_the_live_view_follows_the_window(world: World, terminal: Callable[..., Terminal]) -> None:
    holder = world.wrap("staging").started()
    screen = terminal(*STATUS, "--watch", columns=80)
    screen.wait_for("staging")

    fcntl.ioctl(screen.master, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 140, 0, 0))
    screen.wait_for("command")  # a column that a narrow terminal has no room for
    screen.type("q")

    assert (screen.wait(), holder.end()) == (0, 0)


@pytest.mark.parametrize("how", ["SIGTERM", "SIGHUP", "Ctrl-C"])
def test_a_live_view_that_is_ended_gives_the_terminal_back(
    world: World, terminal: Callable[..., Terminal], how: str
) -> None:
    world.ask("init")
    screen = terminal(*STATUS, "--watch")
    screen.wait_for("q: quit")

    if how == "Ctrl-C":
        screen.type("\x03")
    else:
        os.kill(screen.pid, signal.Signals[how])
    status = screen.wait()

    number = signal.SIGINT if how == "Ctrl-C" else signal.Signals[how]
    assert (status, screen.text.endswith("\x1b[?1049l"), termios.tcgetattr(screen.master) == screen.before) == (
        -number,
        True,
        True,
    )


def test_ctrl_z_gives_the_shell_its_screen_and_fg_takes_it_again(
    world: World, terminal: Callable[..., Terminal]
) -> None:
    world.ask("init")
    shell = terminal("bash", "--norc", "--noprofile", "-i", PS1="$ ")
    shell.wait_for("$ ")
    shell.type(" ".join(STATUS) + " --watch\n")
    shell.wait_for("q: quit")

    shell.type("\x1a")
    stopped = shell.wait_for("Stopped")
    shell.type("fg\n")
    until(lambda: shell.text.count("\x1b[?1049h") == 2, "the other screen again")
    shell.type("q")
    until(lambda: shell.text.count("\x1b[?1049l") == 2, "the shell's screen again")
    shell.type("exit\n")

    assert (stopped.count("\x1b[?1049l"), shell.wait()) == (1, 0)


@pytest.mark.parametrize("options", [["--watch"], ["--watch", "--json"]])
def test_a_live_view_wants_a_terminal(world: World, options: list[str]) -> None:
    result = world.run("status", *options)

    assert (result.returncode, result.stdout, result.stderr.splitlines()[0]) == (
        2,
        "",
        "ipclock: --watch needs a terminal",
    )
