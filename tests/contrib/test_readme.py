"""README.md and README.ko.md: what they show is what a shell shows, and what they name is what there is."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from ipclock import errors
from ipclock.cli import command_line
from ipclock.config.settings import SETTINGS

if TYPE_CHECKING:
    from tests.helpers.world import World

ROOT = Path(__file__).parents[2]
README, KOREAN = (ROOT / name for name in ("README.md", "README.ko.md"))
TEXTS = {path.name: path.read_text() for path in (README, KOREAN)}
# what differs from run to run
VARYING = {
    r"PID: \d+": "PID",
    r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d": "TIME",
    r"\b\d+(/600)?( s\b|초)": r"SPAN\1",
    r"\d+ MB": "MB",
}


def sessions(text: str) -> list[tuple[str, list[str]]]:
    """Return each command of the console that a README shows, with the lines that it prints."""
    (block,) = re.findall(r"^```console test\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    parts = re.split(r"^\$ (.*)\n", block, flags=re.MULTILINE)[1:]
    return [(command, shown.splitlines()) for command, shown in zip(parts[::2], parts[1::2], strict=True)]


def steady(line: str) -> str:
    """Return a line without what differs from run to run."""
    for pattern, word in VARYING.items():
        line = re.sub(pattern, word, line)
    return line


@pytest.mark.parametrize("name", TEXTS)
def test_a_shell_shows_what_the_readme_shows(name: str, world: World, tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    for program, text in {
        "ipclock": f'exec {sys.executable} -m ipclock "$@"',
        "sleep": f"read -r _ <{fifo}",  # until `wait` is typed: however busy the machine is, the second build waits
    }.items():
        path = tmp_path / program
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)
    env = {"PATH": f"{tmp_path}:{world.env['PATH']}", "PROGRESS_INTERVAL": "600"}
    shell = world.spawn("bash", "--norc", env=env, stderr=subprocess.STDOUT)
    told = [(command, [steady(line) for line in lines]) for command, lines in sessions(TEXTS[name])]

    shown = []
    for command, lines in told:
        shell.tell(command)
        if command == "wait":
            fifo.write_text("go\n")
        shown.append((command, [steady(shell.line()) for _ in lines]))

    assert shown == told
    shell.tell("exit 0")
    assert (shell.wait(), shell.process.stdout and shell.process.stdout.read()) == (0, b"")


@pytest.mark.parametrize("name", TEXTS)
def test_each_command_is_named(name: str) -> None:
    named = set(re.findall(r"(?:^|; )ipclock ([a-z]+)", TEXTS[name], re.MULTILINE))

    assert named == set(command_line.COMMANDS)


def rows(text: str) -> list[list[str]]:
    """Return the rows of all tables as cells."""
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in text.splitlines() if line[:1] == "|"]


@pytest.mark.parametrize("name", TEXTS)
def test_each_setting_is_named_with_its_default(name: str) -> None:
    cells = [row for row in rows(TEXTS[name]) if re.match(r"`[A-Z_]+`", row[0])]
    named = {key: row[1] for row in cells for key in re.findall(r"`([A-Z_]+)`", row[0])}

    assert set(named) == {setting.key for setting in SETTINGS}
    given = {setting.key: setting.default for setting in SETTINGS if setting.default}
    assert {key: value for key, value in given.items() if value not in named[key].replace("`", "").split(", ")} == {}


@pytest.mark.parametrize("name", TEXTS)
def test_each_exit_status_is_named(name: str) -> None:
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.IpclockError)]
    first = [row[0] for row in rows(TEXTS[name]) if re.fullmatch(r"[\d, ]+", row[0])]

    assert {int(number) for cell in first for number in cell.split(", ")} == {kind.status for kind in kinds} | {
        126,
        127,
    }


def code(text: str) -> list[str]:
    """Return all that stands in code, in order of the alphabet."""
    return sorted(re.findall(r"(?<!`)`([^`\n]+)`(?!`)", text))


def test_the_readmes_name_the_same() -> None:
    assert code(TEXTS["README.md"]) == code(TEXTS["README.ko.md"])


@pytest.mark.parametrize("name", TEXTS)
def test_each_link_leads_somewhere(name: str) -> None:
    links = re.findall(r"\]\(([^)#]+)", TEXTS[name])

    assert [link for link in links if not (ROOT / link).exists()] == []
