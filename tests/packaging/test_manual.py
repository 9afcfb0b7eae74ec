"""The manual pages say what the parser, the table of settings and the kinds of failure say, and `man` shows them."""

from __future__ import annotations

import os
import re
import subprocess
from argparse import SUPPRESS, ArgumentParser, _SubParsersAction
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import ipclock
from ipclock import errors, i18n
from ipclock.cli import command_line
from ipclock.config.settings import SETTINGS

if TYPE_CHECKING:
    from collections.abc import Iterator

LANGUAGES = ("en", "ko")
FOLDERS = {"en": "share/man", "ko": "share/man/ko"}
PAGES = {f"{language}-{page}": (language, page) for language in LANGUAGES for page in ("1", "5")}
FILES = {"1": "man1/ipclock.1", "5": "man5/ipclock-build-config.5"}
EXIT_STATUS = {"en": "EXIT STATUS", "ko": "종료 상태"}
OPTION = re.compile(r"(?<![\w-])--?[A-Za-z][\w-]*", re.ASCII)  # Korean particles follow without a space
# of other programs, in the examples
FOREIGN = {"--ignore-signal", "-eq", "-c", "-FRX"}


def page(installed: Path, language: str, section: str) -> str:
    """Return a page's source, with its dashes and quotes as people read them."""
    path = installed / FOLDERS[language] / FILES[section]
    return path.read_text().replace(r"\-", "-").replace(r"\(aq", "'")


def parser_in(language: str) -> ArgumentParser:
    i18n.use(language)
    try:
        return command_line.get_parser()
    finally:
        i18n.use("en")


def parsers(parser: ArgumentParser) -> Iterator[tuple[str, ArgumentParser]]:
    """Yield the parser of all, as "", and each command's."""
    yield "", parser
    for action in parser._actions:
        if isinstance(action, _SubParsersAction):
            yield from action.choices.items()


def options_of(parser: ArgumentParser) -> set[str]:
    return {text for action in parser._actions if action.help != SUPPRESS for text in action.option_strings}


def failures(kind: type = errors.IpclockError) -> Iterator[type]:
    yield kind
    for below in kind.__subclasses__():
        yield from failures(below)


@pytest.mark.parametrize("language", LANGUAGES)
def test_each_command_of_the_page_has_the_parsers_options_and_no_others(installed: Path, language: str) -> None:
    text = page(installed, language, "1")
    commands = re.findall(r"^\.SS \\fBipclock (\S+)\\fR$(.*?)(?=^\.S[SH])", text, re.M | re.S)
    shown = {
        command: set(re.findall(r"\\fB(-[^\\]+)\\fR", "\n".join(re.findall(r"^\.TP\n(.*)$", body, re.M))))
        for command, body in commands
    }

    known = {
        command: options_of(parser) - {"-h", "--help"}
        for command, parser in parsers(command_line.get_parser())
        if command
    }

    assert shown == known


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_option_that_the_page_speaks_of_exists(installed: Path, language: str) -> None:
    spoken = set(OPTION.findall(re.sub(r"\\f.", "", page(installed, language, "1"))))

    known = set[str]().union(*(options_of(parser) for _, parser in parsers(command_line.get_parser())))

    assert (spoken - known, known - spoken) == (FOREIGN, set())


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_page_has_every_help_text_in_its_language(installed: Path, language: str) -> None:
    text = " ".join(page(installed, language, "1").split())

    helps = [
        action.help % {"prog": "ipclock"}
        for command, parser in parsers(parser_in(language))
        for action in parser._actions
        if command and action.help not in (None, SUPPRESS) and "-h" not in action.option_strings
    ]

    assert (len(helps) > 20, [said for said in helps if said not in text]) == (True, [])


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_table_of_exit_statuses_is_that_of_the_failures(installed: Path, language: str) -> None:
    section = page(installed, language, "1").split(f".SH {EXIT_STATUS[language]}\n")[1].split("\n.SH ")[0]
    table = section.split(".TS\n")[1].split(".TE")[0]

    shown = re.findall(r"^(\S+)\|T\{$", table, re.M)

    others = {"0", "126", "127", r"128+\fIn\fR"}
    assert (len(shown), set(shown)) == (len(set(shown)), {str(kind.status) for kind in failures()} | others)


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_variable_of_our_own_is_in_the_page(installed: Path, language: str) -> None:
    source = "".join(path.read_text() for path in Path(ipclock.__file__).parent.rglob("*.py"))
    own = re.compile(r"IPCLOCK_[A-Z]+")

    spoken = set(own.findall(page(installed, language, "1")))

    assert spoken == set(own.findall(source))


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_settings_page_has_every_key_with_its_option_default_and_meaning(installed: Path, language: str) -> None:
    text = page(installed, language, "5")
    entries = re.findall(r"^\.TP\n\\fB([A-Z_]+)\\fR(?: \((.*)\))?\n(.*)$", text, re.M)

    shown = {key: re.findall(r"\\fB(.*?)\\fR", notes) for key, notes, _ in entries}

    known = {setting.key: [value for value in (setting.option, setting.default) if value] for setting in SETTINGS}
    without_meaning = [key for key, _, meaning in entries if meaning[:2] in ("", ".T", ".S")]
    headings = re.findall(r"^\.SH (.*)$", text, re.M)
    assert (shown, without_meaning, known.keys() & set(headings)) == (known, [], set())


@pytest.mark.parametrize("name", PAGES)
def test_mandoc_has_nothing_to_warn_of(installed: Path, name: str) -> None:
    language, section = PAGES[name]
    path = installed / FOLDERS[language] / FILES[section]

    result = subprocess.run(["mandoc", "-Tlint", "-W", "warning", path], capture_output=True, text=True, check=False)

    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")


@pytest.mark.parametrize(
    ("arguments", "heading"),
    [
        (["ipclock"], "EXIT STATUS"),
        (["ipclock-build-config"], "SETTINGS"),
        (["-L", "ko", "ipclock"], "종료 상태"),
        (["-L", "ko", "5", "ipclock-build-config"], "설정"),
    ],
)
def test_man_shows_the_installed_page(installed: Path, arguments: list[str], heading: str) -> None:
    # with -M it would look into no language's folder; from bin/ in PATH it finds share/man beside it
    path = f"{installed}/bin:{os.environ['PATH']}"
    env = {"PATH": path, "LC_ALL": "C.UTF-8", "MANWIDTH": "100", "MANPAGER": "cat"}

    result = subprocess.run(["man", *arguments], env=env, capture_output=True, text=True, check=False)

    assert (result.returncode, heading in result.stdout.splitlines()) == (0, True), result.stderr
