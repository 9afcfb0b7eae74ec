"""README.md and README.ko.md: what they show and name is true, and all Korean twins say the same as the English.

That everything is documented is asserted of the manual pages (tests/packaging/test_manual.py).
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from argparse import ArgumentParser, _SubParsersAction
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from ipclock import errors
from ipclock.cli import command_line
from ipclock.config.settings import SETTINGS

if TYPE_CHECKING:
    from tests.helpers.world import World

ROOT = Path(__file__).parents[2]
TEXTS = {name: (ROOT / name).read_text() for name in ("README.md", "README.ko.md")}
FOLDERS = ("*.md", ".github/*.md", "contrib/**/*.md", "ipclock/**/*.md", "tests/**/*.md")
PAGES = [page for folder in FOLDERS for page in sorted(ROOT.glob(folder))]
TWINS = [page for page in PAGES if page.with_suffix(".ko.md").exists()]
DEFAULTS = {setting.key: setting.default for setting in SETTINGS}
# what differs from run to run
VARYING = {
    r"^ {6}\S.*": "where it comes from",
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


def blocks(text: str) -> list[str]:
    """Return the lines of the blocks of code, but for those of the console that a shell is asked about."""
    found = re.findall(r"^```(?:sh|bash|python)\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    return [line for block in found for line in block.splitlines()]


def spans(text: str) -> list[str]:
    """Return all that stands in code within a line, in order of the alphabet."""
    return sorted(re.findall(r"(?<!`)`([^`\n]+)`(?!`)", text))


def rows(text: str) -> list[list[str]]:
    """Return the rows of all tables as cells."""
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in text.splitlines() if line[:1] == "|"]


def options() -> dict[str, set[str]]:
    """Return the options of each command."""
    action = next(action for action in command_line.get_parser()._actions if isinstance(action, _SubParsersAction))
    choices: dict[str, ArgumentParser] = action.choices
    return {name: set(parser._option_string_actions) for name, parser in choices.items()}


@pytest.mark.parametrize("name", TEXTS)
def test_each_command_is_named_and_each_named_one_exists(name: str) -> None:
    code = blocks(TEXTS[name]) + spans(TEXTS[name])
    called = {command for text in code for command in re.findall(r"(?:^|sudo |do )ipclock ([a-z]+)", text)}

    missing = set(command_line.COMMANDS) - called - set(code)

    assert (missing, called - set(command_line.COMMANDS)) == (set(), set())


@pytest.mark.parametrize("name", TEXTS)
def test_each_option_that_is_named_exists(name: str) -> None:
    known = options()
    # a line ends where the build's own words begin, but for the comment behind them
    lines = [re.sub(r" -- .*?(#|; done|$)", r" \1", line) for line in blocks(TEXTS[name])]
    called = [re.search(r"(?:^|sudo |do )ipclock ([a-z]+)(.*)", line) for line in lines]
    pairs = [(match[1], match[2]) for match in called if match]
    pairs += [("wrap", span) for span in spans(TEXTS[name]) if span.startswith("-")]

    named = {
        (command, option)
        for command, words in pairs
        for option in re.findall(r"(?<![\w-])--?[a-z][a-z-]*", words, re.ASCII)
    }

    assert len(named) >= 6
    assert {(command, option) for command, option in named if option not in known[command]} == set()


@pytest.mark.parametrize("name", TEXTS)
def test_each_setting_that_is_named_exists_and_the_default_wait_is_as_told(name: str) -> None:
    named = {key for line in blocks(TEXTS[name]) for key in re.findall(r"^([A-Z_]+)=", line)}

    wait = re.search(r"600(?: s at most|초)", TEXTS[name])

    assert ("MAX_PARALLEL_BUILDS" in named, named - set(DEFAULTS)) == (True, set())
    assert (DEFAULTS["BUILD_TIMEOUT"], wait is not None) == ("600", True)


@pytest.mark.parametrize("name", TEXTS)
def test_each_exit_status_that_is_named_is_one_of_ours(name: str) -> None:
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.IpclockError)]
    named = {int(row[0]) for row in rows(TEXTS[name]) if row[0].isdecimal()}

    assert ({2, 75, 76} - named, named - {kind.status for kind in kinds}) == (set(), set())


@pytest.mark.parametrize("page", TWINS, ids=lambda page: str(page.relative_to(ROOT)))
def test_a_readme_and_its_korean_twin_say_the_same_in_the_same_order(page: Path) -> None:
    def skeleton(text: str) -> tuple[object, ...]:
        code = [line.partition("# ")[0] for line in blocks(text)]
        links = [link.replace(".ko.md", ".md") for link in re.findall(r"\]\(([^)#]+)", text)]
        return (
            re.findall(r"^#+(?= )", text, re.MULTILINE),
            code,
            re.findall(r"^```console\n.*?^```$", text, re.DOTALL | re.MULTILINE),
            links,
            [len(row) for row in rows(text)],
            [row[0] for row in rows(text) if row[0].isdecimal()],
            spans(text),
        )

    assert skeleton(page.read_text()) == skeleton(page.with_suffix(".ko.md").read_text())


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_each_link_leads_somewhere(page: Path) -> None:
    # what looks like a link in code is none
    text = re.sub(r"^```.*?^```$|`[^`\n]+`", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    links = re.findall(r"\]\(([^)#\s]+)", text)

    assert [link for link in links if "://" not in link and not (page.parent / link).exists()] == []
