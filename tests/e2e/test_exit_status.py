"""What `ipclock` exits with, and that a mistake is told in one line."""

from __future__ import annotations

import os
import resource
import signal
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from tests.helpers.world import World


@pytest.mark.parametrize("status", [0, 1, 2, 75, 126, 255])
def test_the_commands_own_status_passes_through(world: World, status: int) -> None:
    assert (world.run("wrap", "a", "--", "sh", "-c", f"exit {status}").returncode, world.settled()) == (status, (1, {}))


@pytest.mark.parametrize("name", ["HUP", "INT", "QUIT", "TERM", "USR1", "SEGV", "KILL"])
def test_wrap_dies_of_the_signal_that_ended_the_command(world: World, tmp_path: Path, name: str) -> None:
    def allow_core_files() -> None:
        resource.setrlimit(resource.RLIMIT_CORE, (resource.getrlimit(resource.RLIMIT_CORE)[1],) * 2)

    build = world.wrap("a", cwd=tmp_path, preexec_fn=allow_core_files).started()
    number = signal.Signals[f"SIG{name}"]

    build.tell(f"kill {number.value}")

    # the command may leave a core file, its wrapper leaves none beside it
    assert (build.wait(), world.settled(), len(list(tmp_path.iterdir())) <= 1) == (-number, (1, {}), True)


@pytest.mark.parametrize(
    ("command", "status", "reason"),
    [
        ("/nonexistent", 127, "No such file or directory"),
        ("no-such-command-anywhere", 127, "command not found"),
        ("/etc/passwd", 126, "Permission denied"),
        ("/etc", 126, "Permission denied"),
        ("", 127, "command not found"),
    ],
)
def test_a_command_that_cannot_be_started_is_126_or_127(world: World, command: str, status: int, reason: str) -> None:
    result = world.run("wrap", "-q", "a", "--", command)

    made = world.folder.exists()
    assert (result.returncode, result.stderr, made) == (status, f"ipclock: {command}: {reason}\n", False)


def test_a_command_that_is_not_there_does_not_wait_for_its_turn(world: World) -> None:
    holder = world.wrap("holder").started()

    found = world.run("wrap", "a", "--", "make -j4 all")

    assert (found.returncode, found.stderr.splitlines(), holder.end()) == (
        127,
        [
            "ipclock: make -j4 all: command not found",
            "   Separate its words: -- make -j4 all   or use a shell: -- sh -c 'make -j4 all'",
        ],
        0,
    )


@pytest.mark.parametrize("by_path", [True, False])
def test_a_script_without_an_interpreter_line_is_run_by_sh(world: World, tmp_path: Path, by_path: bool) -> None:
    script = tmp_path / "no-interpreter"
    script.write_text('printf "%s|" "$0" "$@"\nexit 7\n')
    script.chmod(0o755)
    command = str(script) if by_path else script.name

    result = world.run("wrap", "a", "--", command, "x y", "", env={"PATH": f"{tmp_path}:{os.environ['PATH']}"})

    assert (result.returncode, result.stdout) == (7, f"{script}|x y||")


def test_no_slot_in_time_is_75_or_what_was_asked_for(world: World) -> None:
    holder = world.wrap("holder").started()

    statuses = [
        world.run("wrap", *options, "late", "--", "true").returncode
        for options in (["-w", "0.1"], ["-n"], ["-w", "0"], ["-n", "-E", "9"], ["-E", "0", "-w", "0.1"])
    ]

    assert (statuses, holder.end(), world.settled()) == ([75, 75, 75, 9, 0], 0, (1, {}))


def test_another_status_for_no_slot_changes_no_other_status(world: World) -> None:
    assert [
        world.run("wrap", "-E", "9", "a", "--", "sh", "-c", "exit 75").returncode,
        world.run("wrap", "-E", "9", "a", "--", "/nonexistent").returncode,
        world.run("wrap", "-E", "9", "").returncode,
    ] == [75, 127, 2]


BAD_USAGE = [
    ["nonsense"],
    ["wrap"],
    ["wrap", "a"],
    ["wrap", "a", "--"],
    ["wrap", "--", "true"],
    ["wrap", "a", "true"],
    ["wrap", "a", "b", "--", "true"],
    ["wrap", "--unknown", "a", "--", "true"],
    ["wrap", "--time", "5", "a", "--", "true"],
    ["wrap", "-n", "-w", "5", "a", "--", "true"],
    ["wrap", "-E", "256", "a", "--", "true"],
    ["wrap", "", "--", "true"],
    ["wrap", "a\nb", "--", "true"],
    ["wrap", "a\x1b[31m", "--", "true"],
    ["wrap", "x" * 256, "--", "true"],
    ["wrap", "한" * 86, "--", "true"],
    ["wrap", "\udcff", "--", "true"],
    *(["wrap", "-w", bad, "a", "--", "true"] for bad in ("nan", "1e400", "inf", "x", "", "5 ")),
    ["wrap", "-w=-1", "a", "--", "true"],
    *(["wrap", "--max-parallel-builds", bad, "a", "--", "true"] for bad in ("-1", "x", "1000000000000", "")),
    *(["status", "--name", bad] for bad in ("a/b", "", "/", "a.17", ".a", "x" * 201, "\udcff")),
    ["init", "--lock-dir", "relative"],
    ["status", "--", "true"],
    ["reset", "x"],
    ["acquire", "--fd", "x", "a"],
    ["acquire", "--fd", "999", "a"],
    ["acquire", "--pid", "999999999", "a"],
]


@pytest.mark.parametrize("arguments", BAD_USAGE, ids=ascii)
def test_a_usage_mistake_is_2_and_told_without_a_traceback(world: World, arguments: list[str]) -> None:
    result = world.run(*arguments)

    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.startswith("ipclock: ")
    assert ("Traceback" in result.stderr, len(result.stderr.splitlines()) <= 2, world.leftovers()) == (False, True, {})


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *(("BUILD_TIMEOUT", bad) for bad in ("nan", "-1", "1e400", "x")),
        *(("MAX_PARALLEL_BUILDS", bad) for bad in ("-1", "x", "1000000000000")),
        *(("SEMAPHORE_NAME", bad) for bad in ("/a/b", "/", "\udcff")),
        ("LOCK_DIR", "relative"),
    ],
)
def test_the_same_mistake_in_environment_or_file_is_78_and_told_where(
    world: World, tmp_path: Path, key: str, value: str
) -> None:
    file = tmp_path / "build-config.sh"
    file.write_bytes(f"{key}='{value}'\n".encode(errors="surrogateescape"))
    del world.env["SEMAPHORE_NAME"]

    by_environment = world.run("wrap", "a", "--", "true", env={key: value})
    by_file = world.run("wrap", "--config", str(file), "a", "--", "true")

    assert (by_environment.returncode, by_environment.stderr.split(": ")[1]) == (78, f"${key}")
    assert (by_file.returncode, by_file.stderr.split(": ")[1]) == (78, str(file))


@pytest.mark.parametrize("arguments", [["a"], ["a", "--"], ["a", "make"], ["a", "make", "-j4"]])
def test_a_command_that_is_missing_or_not_behind_dashes_is_told(world: World, arguments: list[str]) -> None:
    result = world.run("wrap", *arguments)

    assert (result.returncode, result.stderr.splitlines()) == (
        2,
        [
            "ipclock: missing command: ipclock wrap LABEL -- COMMAND",
            f"   For example: ipclock wrap a -- {' '.join(arguments[1:]).lstrip('-') or 'make'}",
        ],
    )


def test_an_empty_settings_file_option_is_a_mistake_and_not_the_default(world: World) -> None:
    assert world.run("status", "--config", "").returncode == 78


def test_a_line_that_is_no_assignment_is_told_with_its_number(world: World, tmp_path: Path) -> None:
    file = tmp_path / "build-config.sh"
    file.write_text("# settings\nMAX_PARALLEL_BUILDS=2\nif true; then\n")

    result = world.run("wrap", "--config", str(file), "a", "--", "true")

    assert (result.returncode, result.stderr.splitlines()) == (
        78,
        [
            f"ipclock: {file}:3: not a KEY=VALUE line",
            "   A settings file holds lines of the form KEY=VALUE and comments.",
        ],
    )


@pytest.mark.parametrize("option", ["--version", "--help"])
def test_to_ask_is_no_mistake(world: World, option: str) -> None:
    result = world.run(option)

    assert (result.returncode, result.stderr, "ipclock" in result.stdout) == (0, "", True)


@pytest.mark.parametrize("command", ["wrap", "acquire", "release", "status", "reset", "init"])
def test_every_command_has_help_in_both_languages(world: World, command: str) -> None:
    english = world.run(command, "--help")
    korean = world.run(command, "--help", env={"LANG": "ko_KR.UTF-8"})

    assert (english.returncode, korean.returncode, english.stderr, korean.stderr) == (0, 0, "", "")
    assert not [word for word in ("usage:", "arguments:", "options:", "show ") if word in korean.stdout]
    assert [word in korean.stdout for word in ("사용법:", "옵션:", "도움말을 표시")] == [True] * 3


@pytest.mark.parametrize(
    ("mistake", "told"),
    [
        (["zzzz"], "없는 명령입니다: zzzz"),
        (["wrap", "--wait"], "-w/--wait/--timeout: 값이 필요합니다"),
        (
            ["wrap", "-n", "-w", "3", "a", "--", "true"],
            "-w/--wait/--timeout: -n/--nb/--nonblock 옵션과 함께 쓸 수 없습니다",
        ),
        (["status", "--watch=3"], "--watch: 값을 받지 않는 옵션입니다: '3'"),
        (["status", "--json=3"], "--json: 잘못된 값 '3' (쓸 수 있는 값: "),
        (["status", "more"], "알 수 없는 인수: more"),
    ],
)
@pytest.mark.parametrize("variables", [{"LANG": "ko_KR.UTF-8"}, {"LANG": "en_US.UTF-8", "IPCLOCK_LANG": "ko"}])
def test_a_mistake_on_the_command_line_is_told_in_korean(
    world: World, mistake: list[str], told: str, variables: dict[str, str]
) -> None:
    result = world.run(*mistake, env=variables)

    first, remedy = result.stderr.splitlines()
    assert (result.returncode, first.startswith(f"ipclock: {told}"), remedy.startswith("   도움말: ")) == (
        2,
        True,
        True,
    )


@pytest.mark.parametrize(
    ("mistake", "told"),
    [
        (["reset", "abc"], "TICKET: invalid value 'abc': expected a number"),
        (["acquire", "--pid", "9999999999", "a"], "--pid: invalid value '9999999999': expected a number"),
        (
            ["wrap", "-E", "256", "a", "--", "true"],
            "--conflict-exit-code: invalid value '256': expected a number from 0",
        ),
        (
            ["stats", "--since", "soon"],
            "--since: invalid value 'soon': expected a time in the past, such as 90s, 2h, 7d, 1w, yesterday",
        ),
    ],
)
def test_a_value_that_cannot_be_is_told_with_what_is_expected(world: World, mistake: list[str], told: str) -> None:
    result = world.run(*mistake)

    (line,) = result.stderr.splitlines()
    assert (result.returncode, line.startswith(f"ipclock: {told}")) == (2, True)


@pytest.mark.parametrize(("how", "status"), [(("-n",), 75), (("-w", "0.2"), 75), (("-n", "-E", "9"), 9)], ids=str)
def test_a_quiet_wrap_that_gets_no_slot_says_so_by_its_status_alone(
    how: tuple[str, ...], status: int, world: World
) -> None:
    holder = world.wrap("holder").started()

    found = world.run("wrap", "-q", *how, "a", "--", "true")

    assert (found.returncode, found.stdout, found.stderr, holder.end()) == (status, "", "", 0)


@pytest.mark.parametrize("limit", range(12, 26))
def test_whatever_the_limit_of_open_files_a_build_that_starts_is_waited_for(limit: int, world: World) -> None:
    limited = f"ulimit -n {limit}; exec {world.python} -m ipclock wrap -q a -- sh -c 'echo ran; sleep 0.2; exit 3'"
    done = world.spawn("sh", "-c", limited)

    status = done.wait()
    ran = done.process.stdout.read() if done.process.stdout else b""

    said = done.errors()
    assert ((ran, status) in ((b"ran\n", 3), (b"", 73)), "Traceback" in said, "internal" in said) == (
        True,
        False,
        False,
    )
    assert world.run("wrap", "-n", "a", "--", "true").returncode == 0
