"""Which command lines are a shell's with one line, and which lines are one command. The rest: e2e/test_acquire.py."""

from __future__ import annotations

import pytest

from ipclock.cli import holder


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["sh", "-c", "make"], "make"),
        (["/bin/bash", "-eu", "-c", "make", "sh", "x"], "make"),
        (["-bash", "-lc", "make"], "make"),
        (["dash", "-c", "-e", "make"], "make"),
        (["bash", "--norc", "-i"], None),
        (["bash", "build.sh", "-c", "x"], None),
        (["bash", "--command", "x"], None),
        (["python3", "-c", "make"], None),
        (["sh", "-c"], None),
        ([], None),
    ],
)
def test_a_shell_with_one_line_is_known_by_its_options(arguments: list[str], line: str | None) -> None:
    assert holder._line(arguments) == line


@pytest.mark.parametrize(
    ("line", "one"),
    [
        ("ipclock acquire 'a; b'", True),
        ("ipclock acquire a 2>/dev/null\n", True),
        ('LANG=C exec ipclock acquire "$LABEL" 2>&1', True),
        ("ipclock acquire a; make", False),
        ("ipclock acquire a && make", False),
        ("ipclock acquire a & make", False),
        ("ipclock acquire a | cat", False),
        ("(ipclock acquire a)", False),
        ("t=$(ipclock acquire a)", False),
        ("t=`ipclock acquire a`", False),
        ("ipclock acquire a\nmake", False),
        ("ipclock acquire 'a", False),
    ],
)
def test_a_line_is_one_command_if_nothing_parts_it(line: str, one: bool) -> None:
    assert holder._is_one_command(line) is one
