"""On a real terminal, and without one: who gets Ctrl-C, and what a person reads."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import unicodedata
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.helpers.terminal import Terminal
from tests.helpers.world import HANG_S, STUB, until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.helpers.world import World

IPCLOCK = [sys.executable, "-m", "ipclock"]


@pytest.fixture
def terminal(world: World) -> Iterator[Callable[..., Terminal]]:
    """Open terminals in the test's world."""
    opened: list[Terminal] = []

    def start(*command: str, columns: int = 80, rows: int = 24, **env: str) -> Terminal:
        opened.append(Terminal(command, world.env | {"TERM": "xterm"} | env, columns, rows))
        return opened[-1]

    yield start
    for one in opened:
        one.close()


def columns_of(text: str) -> int:
    return sum(2 if unicodedata.east_asian_width(letter) in "WF" else 1 for letter in text)


def test_ctrl_c_reaches_the_build_once_and_wrap_dies_of_it(world: World, terminal: Callable[..., Terminal]) -> None:
    screen = terminal(*IPCLOCK, "wrap", "a", "--", sys.executable, STUB, "--report", "2")
    screen.wait_for("ready")

    screen.type("\x03")
    screen.wait_for("signal 2")
    # the answer comes behind a second signal, had there been one
    screen.type("echo answer\n")
    text = screen.wait_for("answer\r\nanswer")
    screen.type("kill 15\n")

    assert (text.count("signal 2"), screen.wait(), world.settled()) == (1, -signal.SIGTERM, (1, {}))


def test_one_ctrl_c_stops_a_loop_of_the_calling_shell(world: World, terminal: Callable[..., Terminal]) -> None:
    loop = f"while true; do {sys.executable} -m ipclock wrap a -- {sys.executable} {STUB}; done"
    screen = terminal("bash", "-c", loop)
    screen.wait_for("ready")

    screen.type("\x03")

    # a traceback of the build has the word too, if it was interrupted right there
    assert (screen.wait(), len(re.findall(r"ready \d", screen.text)), world.settled()) == (-signal.SIGINT, 1, (1, {}))


def test_ctrl_c_ends_a_wait_and_leaves_the_line_clean(world: World, terminal: Callable[..., Terminal]) -> None:
    holder = world.wrap("holder").started()
    screen = terminal(*IPCLOCK, "wrap", "late", "--", "true")
    screen.wait_for("waiting")

    screen.type("\x03")

    last = "\r\x1b[2A\x1b[Jipclock: late has left the queue\r\n"
    assert (screen.wait(), screen.text.endswith(last), holder.end(), world.settled()) == (
        -signal.SIGINT,
        True,
        0,
        (1, {}),
    )


def test_ctrl_z_stops_build_and_wrapper_and_fg_goes_on(world: World, terminal: Callable[..., Terminal]) -> None:
    shell = terminal("bash", "--norc", "--noprofile", "-i", PS1="$ ")
    shell.wait_for("$ ")
    shell.type(f"{sys.executable} -m ipclock wrap -q a -- {sys.executable} {STUB}\n")
    shell.wait_for("ready")

    shell.type("\x1a")
    shell.wait_for("Stopped")
    state = world.status()["holders"][0]["state"]
    shell.type("fg\n")
    until(lambda: world.status()["holders"][0]["state"] == "running", "the build running again")
    shell.type("exit 6\n")
    until(lambda: not world.records("holding"), "the build's end")
    shell.type("echo status=$?\n")
    shell.wait_for("status=6")
    shell.type("exit\n")

    assert (state, shell.wait(), world.settled()) == ("stopped", 0, (1, {}))


@pytest.mark.parametrize("wrapped", [False, True], ids=["bare", "wrapped"])
def test_a_timeout_at_a_prompt_reads_stops_goes_on_and_is_interrupted_as_without_wrap(
    wrapped: bool, world: World, terminal: Callable[..., Terminal]
) -> None:
    shell = terminal("bash", "--norc", "--noprofile", "-i", PS1="$ ")
    shell.wait_for("$ ")
    wrap = f"{sys.executable} -m ipclock wrap -q a -- " if wrapped else ""
    shell.type(wrap + "timeout 1000 sh -c 'echo rea''dy; while read -r word; do echo got $word; done'\n")
    shell.wait_for("ready")

    shell.type("one\n")
    shell.wait_for("got one")
    shell.type("\x1a")
    shell.wait_for("Stopped")
    shell.type("fg\n")
    shell.type("two\n")
    shell.wait_for("got two")
    prompts = shell.text.count("\x1b[?2004h$ ")
    shell.type("\x03")
    until(lambda: shell.text.count("\x1b[?2004h$ ") > prompts, "the prompt")
    shell.type("exit\n")

    assert (shell.wait(), world.settled() if wrapped else (1, {})) == (130, (1, {}))


def test_the_build_has_the_terminal_to_itself(world: World, terminal: Callable[..., Terminal]) -> None:
    screen = terminal(*IPCLOCK, "wrap", "-q", "a", "--", "sh", "-c", "tty <&0; read -r word; echo got $word; tty >&2")
    screen.wait_for("/dev/pts/")

    screen.type("hello\n")

    assert (screen.wait(), "got hello" in screen.text, screen.text.count("/dev/pts/")) == (0, True, 2)


# what draws the three lines, each but the first one only if it has changed
BLOCK = re.compile(
    r"\r(?:\x1b\[2A)?([^\r\x1b]+)\x1b\[K\r\n"
    r"(?:\x1b\[33m[^\x1b]*\x1b\[0m\x1b\[K)?\r\n"
    r"(?:\x1b\[2m([^\x1b]*)\x1b\[0m\x1b\[K)?(?:\x1b\[J|\x1b\[999C)?"
)


@pytest.mark.parametrize(("language", "columns"), [("C.UTF-8", 40), ("ko_KR.UTF-8", 40), ("ko_KR.UTF-8", 41)])
def test_three_lines_are_rewritten_in_place_and_cut_to_the_width(
    world: World, terminal: Callable[..., Terminal], language: str, columns: int
) -> None:
    holder = world.wrap("아주 긴 이름의 스테이징 배포").started()
    screen = terminal(*IPCLOCK, "wrap", "late", "--", "echo", "first output", columns=columns, LANG=language)
    until(lambda: len(BLOCK.findall(screen.text)) >= 2, "the lines written twice")

    holder.end()
    status = screen.wait()

    blocks = BLOCK.findall(screen.text)
    rest = BLOCK.sub("", screen.text)
    widths = [columns_of(line) for block in blocks for line in block if line]
    assert (status, max(widths) < columns, min(widths) > columns - 4) == (0, True, True)
    # cleared before anything else is written
    assert (rest.startswith("\r\x1b[2A\x1b[J"), rest.endswith("first output\r\n")) == (True, True)


def test_a_low_terminal_gets_one_line_and_no_colours_where_nobody_wants_them(
    world: World, terminal: Callable[..., Terminal]
) -> None:
    holder = world.wrap("holder").started()
    low = terminal(*IPCLOCK, "wrap", "low", "--", "true", rows=4)
    plain = terminal(*IPCLOCK, "wrap", "plain", "--", "true", NO_COLOR="1")
    until(lambda: all(screen.text.count("\x1b[K") >= 4 for screen in (low, plain)), "the lines written twice")

    holder.end()

    assert (low.wait(), plain.wait()) == (0, 0)
    assert ("\n" in low.text.split("✓")[0], "\x1b[3" in plain.text, "holder (PID" in plain.text) == (False, False, True)


def test_without_a_terminal_there_are_lines_at_the_start_at_a_change_and_at_the_interval(world: World) -> None:
    holder = world.noted(world.wrap("holder"))
    waiter = world.popen("wrap", "late", "--", "true", env={"PROGRESS_INTERVAL": "1"})
    assert waiter.process.stderr
    lines = [waiter.process.stderr.readline().decode() for _ in range(2)]
    holder.end()
    rest = waiter.process.stderr.read().decode().splitlines()

    assert (waiter.wait(), rest) == (0, ["✓ build slot acquired (1/1)", "✓ starting the build of late."])
    waited = [int(line.partition("(")[2].partition("/")[0]) for line in lines]
    assert (waited[0] < waited[1], waited[1] < 30) == (True, True)
    # what the build uses is told from the second look on
    assert [re.sub(r"\d+ s, (CPU \d+ %, )?\d+ MB\)$", "n s, n MB)", line.strip()) for line in lines] == [
        f"⏳ waiting ({n}/600 s, left: {600 - n} s, builds: 1/1) · position 1 in queue"
        f" · holder (PID: {holder.command_pid}, n s, n MB)"
        for n in waited
    ]


def test_nothing_of_ours_is_on_stdout_and_quiet_silences_the_rest(world: World) -> None:
    loud = world.run("wrap", "a", "--", "echo", "out")
    quiet = world.run("wrap", "-q", "a", "--", "echo", "out")

    assert (loud.stdout, quiet.stdout, quiet.stderr) == ("out\n", "out\n", "")
    assert loud.stderr == "✓ build slot acquired (1/1)\n✓ starting the build of a.\n"


@pytest.mark.parametrize(
    ("encoding", "first"),
    [("ascii", "[ok] \\ube4c\\ub4dc"), ("euc-kr", "[ok] 빌드 슬롯 획득 (1/1)"), ("utf-8", "✓ 빌드 슬롯 획득 (1/1)")],
)
def test_an_encoding_without_the_symbols_gets_them_spelled_out(world: World, encoding: str, first: str) -> None:
    env = world.env | {"LANG": "ko_KR.UTF-8", "PYTHONIOENCODING": encoding}

    result = subprocess.run(
        [*IPCLOCK, "wrap", "배포", "--", "true"], env=env, capture_output=True, timeout=HANG_S, check=True
    )

    assert result.stderr.decode(encoding).startswith(first)


def test_a_closed_stderr_hinders_no_build(world: World) -> None:
    result = subprocess.run(
        ["sh", "-c", f"{sys.executable} -m ipclock wrap a -- echo out 2>&-"],
        env=world.env,
        stdout=subprocess.PIPE,
        timeout=HANG_S,
        check=False,
    )

    assert (result.returncode, result.stdout, world.settled()) == (0, b"out\n", (1, {}))


@pytest.mark.parametrize(("command", "status"), [("wrap a -- sh -c 'exit 3'", 3), ("wrap a -- /no", 127), ("no", 2)])
def test_a_full_stderr_changes_no_status(world: World, command: str, status: int) -> None:
    result = subprocess.run(
        ["sh", "-c", f"{sys.executable} -m ipclock {command} 2>/dev/full"], env=world.env, timeout=HANG_S, check=False
    )

    assert result.returncode == status


def test_a_reader_that_leaves_early_is_no_error(world: World) -> None:
    holders = world.wrap("holder").started()
    script = f"{sys.executable} -m ipclock status --json | head -c 1; echo ${{PIPESTATUS[0]}}"

    result = subprocess.run(["bash", "-c", script], env=world.env, capture_output=True, text=True, check=True)

    assert (result.stdout, result.stderr, holders.end()) == ("{0\n", "", 0)


def test_an_output_that_is_full_is_told(world: World) -> None:
    world.ask("init")

    with Path("/dev/full").open("w") as full:
        result = subprocess.run(
            [*IPCLOCK, "status"], env=world.env, stdout=full, stderr=subprocess.PIPE, timeout=HANG_S, check=False
        )

    assert (result.returncode, result.stderr.decode().splitlines()[0]) == (
        73,
        f"ipclock: stdout: cannot create or write: {os.strerror(28)}",
    )


def test_a_waiter_whose_terminal_is_paused_keeps_nobody_waiting(
    world: World, terminal: Callable[..., Terminal]
) -> None:
    holder = world.wrap("holder").started()
    screen = terminal(*IPCLOCK, "wrap", "paused", "--", "true")
    screen.wait_for("waiting")
    behind = world.wrap("behind")
    until(lambda: world.waiting() == 2, "another waiter in line")

    screen.type("\x13")  # Ctrl-S; a write to the terminal would block now (INV-7b)
    holder.end()

    assert (behind.started().end(), screen.wait(), world.settled()) == (0, 0, (1, {}))


def test_a_stderr_that_nobody_reads_keeps_no_build_from_its_slot(world: World) -> None:
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    with suppress(BlockingIOError):
        while True:
            os.write(writing, b"x" * 4096)
    os.set_blocking(writing, True)
    holder = world.wrap("holder").started()
    waiter = world.wrap("waiter", stderr=writing)
    until(lambda: world.records("gate"), "the waiter at the gate")

    holder.end()

    assert (waiter.started().end(3), world.settled()) == (3, (1, {}))
    os.close(reading)
    os.close(writing)


def test_a_closed_stdout_is_no_bug(world: World) -> None:
    world.ask("init")

    result = subprocess.run(
        ["sh", "-c", f"{sys.executable} -m ipclock status >&-"],
        env=world.env,
        capture_output=True,
        text=True,
        timeout=HANG_S,
        check=False,
    )

    assert (result.returncode, result.stderr) == (0, "")


def shell_on(terminal: Callable[..., Terminal]) -> Terminal:
    shell = terminal("bash", "--norc", "--noprofile", "-i", PS1="$ ")
    shell.wait_for("$ ")
    return shell


def test_a_waiter_in_the_background_writes_lines_and_moves_no_cursor(
    world: World, terminal: Callable[..., Terminal]
) -> None:
    holder = world.wrap("holder").started()
    shell = shell_on(terminal)

    shell.type(f"{sys.executable} -m ipclock wrap back -- echo built &\n")
    shell.wait_for("waiting")
    second = world.wrap("second")
    until(lambda: world.waiting() == 2, "another one in line")
    holder.end()
    shell.wait_for("built")

    assert ("\x1b[" in shell.text.replace("\x1b[?2004", ""), second.started().end()) == (False, 0)


def test_of_two_waiters_on_a_terminal_one_draws(world: World, terminal: Callable[..., Terminal]) -> None:
    holder = world.wrap("holder").started()
    wrap = f"{sys.executable} -m ipclock wrap"
    both = terminal("sh", "-c", f"{wrap} one -- true & {wrap} two -- true; wait")
    until(lambda: both.text.count("\x1b[K") >= 6, "the lines written again and again")
    until(lambda: world.waiting() == 2, "both in line")
    drawn = both.text

    holder.end()
    both.wait()

    # the line of the other one ends where it ends, and is not drawn again
    lines = re.findall(r"waiting \([^\n]*\n", drawn)
    assert len([line for line in lines if "\x1b[K" not in line]) == 1


def test_nobody_draws_where_the_command_of_another_wrap_writes(
    world: World, terminal: Callable[..., Terminal], tmp_path: Path
) -> None:
    ipclock = f"{sys.executable} -m ipclock"
    first = f"{ipclock} wrap first -- sh -c 'echo ready; until [ -e go ]; do sleep 0.1; done'"
    started = f"until {ipclock} status | grep -q first; do :; done"
    both = terminal("sh", "-c", f"cd {tmp_path}; {first} & {started}; {ipclock} wrap second -- true; wait")
    both.wait_for("ready")
    both.wait_for("waiting")
    third = world.wrap("third")
    until(lambda: world.waiting() == 2, "another one in line")
    (tmp_path / "go").touch()

    assert (both.wait(), "\x1b[" in both.text, third.started().end()) == (0, False, 0)
