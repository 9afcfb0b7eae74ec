"""`log`: the finished builds in a pipe, on a terminal through a pager, and as JSON."""

from __future__ import annotations

import json
import sys
import time
from typing import TYPE_CHECKING

import pytest

from tests.helpers.histories import build, keep, wait
from tests.helpers.terminal import Terminal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.helpers.world import World

DAY = 86400.0
IPCLOCK = [sys.executable, "-m", "ipclock", "log"]


@pytest.fixture
def past(world: World, tmp_path: Path) -> Path:
    """Give the world's pool a past: three builds and a wait, of two labels and two users, within nine days."""
    path = tmp_path / "history.db"
    world.env["HISTORY"] = str(path)
    now = time.time()
    keep(
        str(path),
        [
            build("web", now - 9 * DAY, 60, pool=world.name, ticket=1),
            build("스테이징 배포", now - 2 * DAY, 60, pool=world.name, ticket=2, user="mira"),
            build("web", now - DAY, 60, pool=world.name, ticket=3, outcome="failed", code=2),
            wait("web", now - 700, 600, pool=world.name, ticket=4),
            build("other", now - 60, 60, pool="/another", ticket=5),
        ],
    )
    return path


@pytest.fixture
def terminal(world: World, past: Path) -> Iterator[Callable[..., Terminal]]:
    """Run `ipclock log` on terminals."""
    opened: list[Terminal] = []

    def start(*arguments: str, columns: int = 80, rows: int = 24, **env: str) -> Terminal:
        opened.append(Terminal([*IPCLOCK, *arguments], world.env | {"TERM": "xterm"} | env, columns, rows))
        return opened[-1]

    yield start
    for one in opened:
        one.close()


@pytest.mark.parametrize(
    ("options", "tickets"),
    [
        ([], [4, 3, 2, 1]),
        (["-n", "2"], [4, 3]),
        (["-n", "0"], []),
        (["--failed"], [3]),
        (["--label", "스테이징 배포"], [2]),
        (["--user", "mira"], [2]),
        (["--since", "7d"], [4, 3, 2]),
        (["--label", "web", "--since", "3d", "--failed"], [3]),
        (["--label", "never built"], []),
    ],
)
def test_json_has_the_builds_that_were_asked_for_the_newest_first(
    options: list[str], tickets: list[int], world: World, past: Path
) -> None:
    done = world.run("log", "--json", *options)

    found = json.loads(done.stdout)
    assert (done.returncode, done.stderr, found["schema"], found["name"]) == (0, "", 2, world.name)
    assert [row["ticket"] for row in found["builds"]] == tickets


def test_a_pipe_gets_lines_and_no_pager(world: World, past: Path) -> None:
    done = world.run("log", env={"IPCLOCK_PAGER": "echo paged", "TERM": "xterm"})

    assert (done.returncode, done.stderr, [line[19:].split() for line in done.stdout.splitlines()]) == (
        0,
        "",
        [
            ["label", "user", "outcome", "waited", "took", "memory"],
            ["web", "root", "timed", "out", "10", "min", "-", "-"],
            ["web", "root", "failed", "(2)", "0", "s", "1", "min", "2.0", "GB"],
            ["스테이징", "배포", "mira", "done", "0", "s", "1", "min", "2.0", "GB"],
            ["web", "root", "done", "0", "s", "1", "min", "2.0", "GB"],
        ],
    )


def test_none_is_said_in_a_line(world: World, past: Path) -> None:
    done = world.run("log", "--label", "never built")

    assert (done.returncode, done.stdout) == (0, "no such build in the history\n")


@pytest.mark.parametrize(
    ("options", "env", "paged"),
    [
        ([], {"IPCLOCK_PAGER": "sed s/^/one:/", "PAGER": "sed s/^/two:/"}, "one:"),
        ([], {"PAGER": "sed s/^/two:/"}, "two:"),
        (["--json"], {"PAGER": "sed s/^/two:/"}, "two:"),
        (["--no-pager"], {"PAGER": "sed s/^/two:/"}, ""),
        ([], {"IPCLOCK_PAGER": "cat", "PAGER": "sed s/^/two:/"}, ""),
        ([], {"IPCLOCK_PAGER": "", "PAGER": "sed s/^/two:/"}, ""),
        ([], {"PAGER": "sed s/^/two:/", "TERM": "dumb"}, ""),
        ([], {"PATH": "/nonexistent"}, ""),
    ],
    ids=str,
)
def test_a_terminal_has_the_pager_that_was_chosen(
    options: list[str], env: dict[str, str], paged: str, terminal: Callable[..., Terminal]
) -> None:
    screen = terminal(*options, **env)

    status, shown = screen.wait(), screen.text.splitlines()
    assert (status, len(shown) > 3, {line[: len(paged)] for line in shown}) == (0, True, {paged})


def test_less_shows_the_first_screen_and_is_left_by_q(terminal: Callable[..., Terminal]) -> None:
    screen = terminal(rows=4)
    screen.wait_for(":")
    screen.type("q")

    assert (screen.wait(), "timed out" in screen.text, screen.text.count("web")) == (0, True, 2)


def test_ctrl_c_is_the_pagers(terminal: Callable[..., Terminal]) -> None:
    screen = terminal(PAGER="trap 'echo caught; exit 0' INT; echo ready; while :; do sleep 1; done")
    screen.wait_for("ready")
    screen.type("\x03")

    assert (screen.wait(), "caught" in screen.text) == (0, True)


def test_a_pager_that_is_left_early_is_no_failure(world: World, past: Path, terminal: Callable[..., Terminal]) -> None:
    # more than a pipe holds
    keep(str(past), [build("many", time.time() - 9, 1, pool=world.name) for _ in range(5000)])

    screen = terminal(PAGER="head -1")

    assert (screen.wait(), len(screen.text.splitlines())) == (0, 1)


@pytest.mark.parametrize(("columns", "language"), [(80, "en"), (80, "ko"), (120, "en"), (120, "ko"), (40, "ko")])
def test_no_line_is_wider_than_the_terminal(columns: int, language: str, terminal: Callable[..., Terminal]) -> None:
    screen = terminal("--no-pager", columns=columns, IPCLOCK_LANG=language)

    status, shown = screen.wait(), screen.text.splitlines()
    widths = [sum(2 if "\uac00" <= letter <= "\ud7a3" else 1 for letter in line) for line in shown]
    assert (status, len(shown), max(widths) <= columns) == (0, 5, True)


def test_without_a_history_it_says_so(world: World) -> None:
    done = world.run("log", env={"HISTORY": "off"})

    assert (done.returncode, "no history is kept (HISTORY=off)" in done.stderr) == (2, True)
