"""The quick reader: it reads what is usual, and never anything else than argparse would."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from ipclock.cli import command_line
from ipclock.cli.fast_parser import Reader
from ipclock.errors import IpclockError

OPTIONS = ["-w", "--wait", "--timeout", "-n", "--nb", "-E", "-q", "-v", "--quiet", "--slots", "--name", "--supersede"]
OPTIONS += [
    "--export-jobs",
    "--leftovers",
    "--pid",
    "--fd",
    "--json",
    "--json=1",
    "--json=2",
    "--json=3",
    "--json=",
    "--html",
    "--watch",
    "--reason",
    "--for",
    "--kill",
]
VALUES = [
    "staging",
    "10",
    "0.5",
    "-1",
    "-w5",
    "--wait=5",
    "--wai",
    "",
    "-",
    "스테이징 배포",
    "300",
    "-x",
    "-h",
    "--",
    "a b",
]
COMMANDS = some.sampled_from(command_line.COMMANDS)
WORDS = some.lists(some.sampled_from(OPTIONS + VALUES * 2), max_size=6)


def by_argparse(command: str, words: list[str]) -> dict[str, Any] | None:
    """Return what argparse makes of a command line; None if it refuses or only helps."""
    try:
        args, unknown = command_line.get_parser(command).parse_known_args([command, *words])
    except (IpclockError, SystemExit):
        return None
    return None if unknown else vars(args)


@settings(deadline=None, derandomize=True, max_examples=1500)
@given(COMMANDS, WORDS)
def test_what_it_reads_is_what_argparse_reads(command: str, words: list[str]) -> None:
    reader = Reader()
    command_line._module(command).add_arguments(reader)

    found = reader.read(words)

    assert found is None or by_argparse(command, words) == {"command": command, **vars(found)}


@pytest.mark.parametrize(
    "line",
    [
        "wrap staging",
        "wrap -q -w 600 staging",
        "wrap --slots 2 --per-label 1 a",
        "acquire --fd 9 a",
        "status --json",
        "status --json=2",
        "doctor --json --name x",
        "init",
    ],
)
def test_the_usual_needs_no_argparse(line: str) -> None:
    command, *words = line.split()
    reader = Reader()
    command_line._module(command).add_arguments(reader)

    found = reader.read(words)

    assert found is not None
    assert by_argparse(command, words) == {"command": command, **vars(found)}


@pytest.mark.parametrize(
    "line",
    [
        *("wrap", "wrap a b", "wrap -q -v a", "wrap -w -1 a", "wrap -w=5 a", "wrap -h", "wrap -w", "acquire --fd x a"),
        *("status --json=3", "status --json 2", "status --json x", "stats --json --html x", "wrap --quiet=1 a"),
    ],
)
def test_the_rest_is_left_to_argparse(line: str) -> None:
    command, *words = line.split()
    reader = Reader()
    command_line._module(command).add_arguments(reader)

    assert reader.read(words) is None


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (["--form", "a"], None),  # argparse takes it for the form
        (["--form=2", "a"], ("2", "a")),
        (["a", "--form"], ("1", "a")),
        (["--form", "--loud", "a"], ("1", "a")),
    ],
)
def test_a_value_that_may_be_left_out_is_no_argument(words: list[str], found: tuple[str, str] | None) -> None:
    reader = Reader()
    reader.add_argument("--form", nargs="?", const="1", choices=("1", "2"))
    reader.add_argument("--loud", action="store_true")
    reader.add_argument("label")

    read = reader.read(words)

    assert (read and (read.form, read.label)) == found
