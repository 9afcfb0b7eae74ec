"""Who does not know the commands yet, or mistypes one, gets the way to the right one, and nothing is done."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

import pytest

from ipclock import __version__
from ipclock.cli import command_line, mistakes
from ipclock.cli.command_line import COMMANDS
from ipclock.cli.parser import commands_of
from tests.helpers.terminal import LOCALES

if TYPE_CHECKING:
    from tests.helpers.world import World


def told(world: World, *arguments: str) -> tuple[int, str, list[str]]:
    result = world.run(*arguments)
    return result.returncode, result.stdout, result.stderr.splitlines()


def test_the_name_alone_and_help_print_the_help(world: World) -> None:
    alone, asked, option = (told(world, *words) for words in ((), ("help",), ("--help",)))

    assert (alone[0], alone[2], "\n    wrap " in alone[1]) == (0, [], True)
    assert alone == asked == option


@pytest.mark.parametrize("command", COMMANDS)
def test_help_and_a_command_is_that_commands_help(world: World, command: str) -> None:
    assert told(world, "help", command) == told(world, command, "--help")


def test_version_is_the_version(world: World) -> None:
    assert told(world, "version") == told(world, "--version") == (0, f"ipclock {__version__}\n", [])


def test_a_wrong_setting_keeps_nobody_from_the_help(world: World) -> None:
    world.env["BUILD_TIMEOUT"] = "soon"

    assert [told(world, *words)[0] for words in ((), ("help", "wrap"), ("version",), ("status",))] == [0, 0, 0, 78]


@pytest.mark.parametrize("language", LOCALES)
@pytest.mark.parametrize("command", COMMANDS)
def test_each_help_ends_with_examples_that_the_parser_understands(world: World, command: str, language: str) -> None:
    text = world.run(command, "--help", env={"IPCLOCK_LANG": language}).stdout

    examples = command_line._module(command).EXAMPLES
    *_, heading, last = text.split("\n\n")[-1].partition(":\n")
    assert (heading, last.split("\n")) == (":\n", [f"  {line}" for line in examples] + [""])
    options = commands_of(command_line.get_parser(command))[command]._option_string_actions
    named = [word for line in examples for word in line.split(" -- ")[0].replace("=", " ").split() if word[0] == "-"]
    assert (len(examples) <= 3, set(named) - set(options)) == (True, set())


@pytest.mark.parametrize(
    ("words", "said", "meant"),
    [
        ("statsu", "no such command: statsu", "ipclock stats"),
        ("STATUS", "no such command: STATUS", "ipclock status"),
        ("relase 7", "no such command: relase", "ipclock release"),
        ("run", "no such command: run", "ipclock wrap LABEL -- COMMAND"),
        ("ps", "no such command: ps", "ipclock status"),
        ("list", "no such command: list", "ipclock status"),
        ("top", "no such command: top", "ipclock status --watch"),
        ("unlock", "no such command: unlock", "ipclock reset"),
        ("help unlock", "no such command: unlock", "ipclock reset"),
        ("stats --sinse 7d", "unrecognized arguments: --sinse 7d", "--since"),
        ("wrap --per-lable=1 a -- true", "unrecognized arguments: --per-lable=1", "--per-label"),
        ("--versoin", "unrecognized arguments: --versoin", "--version"),
        ("--json status", "--json: the options of a command belong after it", "ipclock status --json"),
    ],
)
def test_what_is_mistyped_is_pointed_to_what_was_meant(world: World, words: str, said: str, meant: str) -> None:
    assert told(world, *words.split()) == (2, "", [f"ipclock: {said}", f"   Did you mean '{meant}'?"])


def test_a_pointer_leads_to_a_command_and_is_none_itself(world: World) -> None:
    led = {name: [line.split()[0] for line in lines] for name, lines in mistakes.POINTERS.items()}

    assert [name for name, commands in led.items() if not set(commands) & set(COMMANDS)] == []
    assert told(world, "kill", "7")[2][1] == "   Did you mean 'ipclock cancel TICKET'?"


def test_what_resembles_nothing_is_pointed_to_the_help(world: World) -> None:
    found = [told(world, *words) for words in (("zzzz",), ("status", "--zzzz"), ("--name", "/x"))]

    assert found == [
        (2, "", ["ipclock: no such command: zzzz", "   Try 'ipclock --help'."]),
        (2, "", ["ipclock: unrecognized arguments: --zzzz", "   Try 'ipclock status --help'."]),
        (2, "", ["ipclock: missing command", "   Try 'ipclock --help'."]),
    ]


@pytest.mark.parametrize(
    ("words", "missing", "example"),
    [
        (("wrap", "--", "make", "-j2"), "ipclock wrap LABEL -- COMMAND", "ipclock wrap make -- make -j2"),
        (("wrap", "-q", "--", "./my build.sh"), "ipclock wrap LABEL -- COMMAND", "ipclock wrap 'my build.sh' -- "),
        (("wrap",), "ipclock wrap LABEL -- COMMAND", "ipclock wrap staging -- make"),
        (("acquire",), "ipclock acquire LABEL", "ipclock acquire staging"),
    ],
)
def test_a_missing_label_is_told_with_an_example(
    world: World, words: tuple[str, ...], missing: str, example: str
) -> None:
    status, _, (said, remedy) = told(world, *words)

    assert (status, said) == (2, f"ipclock: missing label: {missing}")
    assert remedy.startswith(f"   For example: {example}")


@pytest.mark.parametrize("before", [["--name", "{}"], ["--name={}"], ["--name", "/other", "--name={}"]])
def test_the_options_of_a_pool_may_stand_before_the_command(world: World, before: list[str]) -> None:
    name = world.env.pop("SEMAPHORE_NAME")
    first = [word.format(name) for word in before]

    built = world.run(*first, "wrap", "-q", "a", "--", "sh", "-c", "echo $IPCLOCK_NAME $1", "sh", "--name")
    shown = world.run(*first, "status", "--json").stdout

    assert (built.stderr, built.stdout) == ("", f"{name} --name\n")
    assert f'"name": "{name}"' in shown


@pytest.mark.parametrize(
    ("words", "said", "meant"),
    [
        ("warp", "없는 명령입니다: warp", "혹시 'ipclock wrap'인가요?"),
        ("stats --sinse 7d", "알 수 없는 인수: --sinse 7d", "혹시 '--since'인가요?"),
        ("wrap", "레이블이 없습니다: ipclock wrap LABEL -- COMMAND", "예: ipclock wrap staging -- make"),
    ],
)
def test_the_same_is_told_in_korean(world: World, words: str, said: str, meant: str) -> None:
    world.env["LANG"] = "ko_KR.UTF-8"

    assert told(world, *words.split()) == (2, "", [f"ipclock: {said}", f"   {meant}"])


def test_quiet_leaves_errors_alone_wherever_it_is_an_option(world: World) -> None:
    parsers = commands_of(command_line.get_parser())
    quiet = [name for name, parser in parsers.items() if "-q" in parser._option_string_actions]
    world.ask("init")
    build = world.wrap("build", "--max-parallel-builds", "3", "-q").started()
    words = {"wrap": ["a", "--", "true"], "acquire": ["--pid", str(os.getpid()), "a"], "cancel": ["1"]}

    said = {name: told(world, name, "-q", *words.get(name, []))[2] for name in quiet}

    assert set(quiet) == {"wrap", "acquire", "release", "drain", "resume", "cancel", "reset"}
    assert ([lines for lines in said.values() if lines], build.wait()) == ([], -signal.SIGTERM)
    assert {told(world, name, "-q", "--name", "/ipclock-test-none")[2][0] for name in ("drain", "resume", "reset")} == {
        "ipclock: /dev/shm/ipclock.ipclock-test-none: no such pool"
    }


def test_quiet_and_verbose_are_the_same_options_everywhere() -> None:
    parsers = commands_of(command_line.get_parser()).values()
    spelled = [action.option_strings for parser in parsers for action in parser._actions]

    assert {names[1] for names in spelled if "-q" in names} == {"--quiet"}
    assert {names[1] for names in spelled if "-v" in names} == {"--verbose"}
