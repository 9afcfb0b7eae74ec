"""Signals and killed processes: who gets them, who dies of them, and what becomes of the slot."""

from __future__ import annotations

import ast
import os
import pty
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.helpers.world import until

if TYPE_CHECKING:
    from tests.helpers.world import World

FORWARDED = ["HUP", "INT", "QUIT", "TERM", "USR1", "USR2"]
ENDING = ["HUP", "INT", "QUIT", "TERM"]


def state_of(pid: int) -> str:
    """Return the state letter of a process."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


@pytest.mark.parametrize("name", FORWARDED)
def test_a_signal_sent_to_wrap_reaches_the_build_once_and_wrap_stays_with_it(world: World, name: str) -> None:
    number = signal.Signals[f"SIG{name}"]
    build = world.wrap(stub=("--report", str(number.value))).started()

    build.signal(number)

    # the answer comes behind every signal that was sent before it
    assert (build.line(), build.ask("echo still here"), build.end(4)) == (f"signal {number.value}", "still here", 4)
    assert world.settled() == (1, {})


@pytest.mark.parametrize("name", ENDING)
@pytest.mark.parametrize("place", ["gate", "queued"])
def test_a_signal_ends_a_wait_and_wrap_dies_of_it(world: World, name: str, place: str) -> None:
    holder = world.wrap("holder").started()
    first = world.wrap("first")
    until(lambda: world.records("gate"), "the first waiter at the gate")
    waiter = first
    if place == "queued":
        waiter = world.wrap("second")
        until(lambda: world.turns(), "the second waiter asleep on its turn")
    number = signal.Signals[f"SIG{name}"]

    waiter.signal(number)

    assert waiter.wait() == -number
    holder.end()
    if place == "queued":
        first.started().end()
    assert world.settled() == (1, {})


def test_a_terminal_that_goes_away_ends_the_build_of_a_wrap_that_leads_its_session(world: World) -> None:
    pid, terminal = pty.fork()
    if pid == 0:
        os.execvpe(sys.executable, [sys.executable, "-m", "ipclock", "wrap", "a", "--", "sleep", "1000"], world.env)
    world.extra.append(pid)
    holder = until(lambda: next((row for row in world.status()["holders"] if row["command_pid"]), None), "the build")
    world.extra.append(holder["command_pid"])

    os.close(terminal)  # as sshd does when the connection of `ssh -t` drops

    until(lambda: os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT), "the end of wrap")
    world.extra.clear()  # their PIDs may be somebody else's from here on
    assert (os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), world.settled()) == (-signal.SIGHUP, (1, {}))


def test_an_ignored_hangup_stays_ignored_for_the_wait_and_for_the_build(world: World) -> None:
    def as_nohup_does() -> None:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)

    holder = world.wrap("holder").started()
    waiter = world.wrap("waiter", preexec_fn=as_nohup_does)
    until(lambda: world.records("gate"), "the waiter at the gate")
    waiter.signal(signal.SIGHUP)
    holder.end()
    waiter.started()
    waiter.signal(signal.SIGHUP)
    os.kill(waiter.command_pid, signal.SIGHUP)

    assert (waiter.ask("echo on"), waiter.end(3), world.settled()) == ("on", 3, (1, {}))


def test_ignored_child_signals_of_the_caller_do_not_hide_the_status(world: World) -> None:
    build = world.wrap(preexec_fn=lambda: signal.signal(signal.SIGCHLD, signal.SIG_IGN)).started()

    assert build.end(7) == 7


def test_the_build_gets_signals_as_the_caller_left_them(world: World) -> None:
    # what Python ignores for itself (SIGPIPE, SIGXFSZ) and what wrap blocks must not reach the build
    look = ["grep", "-E", "SigBlk|SigIgn", "/proc/self/status"]
    direct = subprocess.run(look, capture_output=True, text=True, check=True)

    wrapped = world.run("wrap", "-q", "a", "--", *look)

    # glibc's posix_spawn ignores 32 and 33, which are its own and mean nothing to a program
    outputs = (wrapped.stdout, direct.stdout)
    seen, expected = ([int(word, 16) & 0x7FFFFFFF for word in text.split()[1::2]] for text in outputs)
    assert (wrapped.returncode, seen) == (0, expected)


def test_the_build_stays_in_the_callers_process_group_and_session(world: World) -> None:
    build = world.wrap().started()

    assert (os.getpgid(build.command_pid), os.getsid(build.command_pid)) == (os.getpgid(build.pid), os.getsid(0))
    build.end()


def test_a_build_whose_supervisor_was_killed_counts_until_its_end(world: World) -> None:
    build = world.wrap("orphan").started()
    waiter = world.wrap("next")
    until(lambda: world.records("gate"), "the waiter at the gate")

    build.signal(signal.SIGKILL)
    build.wait()
    orphan = world.status()["holders"][0]
    text = world.run("status").stdout
    build.tell("exit 0")
    waiter.started()

    assert (orphan["state"], [row["pid"] for row in orphan["processes"]]) == ("orphaned", [build.command_pid])
    assert ("orphaned" in text, f"      {build.command_pid}  " in text) == (True, True)
    assert (waiter.end(), world.settled()) == (0, (1, {}))


def test_a_killed_build_gives_its_slot_on(world: World) -> None:
    build = world.wrap("killed").started()
    waiter = world.wrap("next")
    until(lambda: world.records("gate"), "the waiter at the gate")

    os.kill(build.command_pid, signal.SIGKILL)

    assert (build.wait(), waiter.started().end(), world.settled()) == (-signal.SIGKILL, 0, (1, {}))


@pytest.mark.parametrize("victim", [0, 1])
def test_a_killed_waiter_is_passed_over(world: World, victim: int) -> None:
    holder = world.wrap("holder").started()
    waiters = []
    for count in (1, 2, 3):
        waiters.append(world.wrap(f"waiter {count}"))
        until(lambda count=count: world.waiting() == count, f"waiter {count} in line")
    killed = waiters.pop(victim)

    killed.signal(signal.SIGKILL)
    killed.wait()
    holder.end()

    assert [waiter.started().end() for waiter in waiters] == [0, 0]
    assert world.settled() == (1, {})


def test_a_stopped_waiter_at_the_gate_is_passed_over_and_gets_its_turn_later(world: World) -> None:
    holder = world.wrap("holder").started()
    stopped = world.wrap("stopped")
    until(lambda: world.records("gate"), "the first waiter at the gate")
    second = world.wrap("second")
    until(lambda: world.waiting() == 2, "the second waiter in line")

    stopped.signal(signal.SIGSTOP)
    until(lambda: state_of(stopped.pid) == "T", "the first waiter stopped")
    holder.end()
    second.started()
    stopped.signal(signal.SIGCONT)
    until(lambda: world.records("gate") == ["2"], "the first waiter at the gate again")

    assert (second.end(), stopped.started().end(), world.settled()) == (0, 0, (1, {}))


def test_a_stopped_build_keeps_its_slot_and_is_shown_as_stopped(world: World) -> None:
    build = world.noted(world.wrap())

    os.kill(build.command_pid, signal.SIGSTOP)
    until(lambda: state_of(build.command_pid) == "T", "the build stopped")
    state = world.status()["holders"][0]["state"]
    refused = world.run("wrap", "-n", "b", "--", "true").returncode
    os.kill(build.command_pid, signal.SIGCONT)

    assert (state, refused, build.end()) == ("stopped", 75, 0)


def test_a_daemon_that_a_finished_build_leaves_behind_keeps_nothing(world: World) -> None:
    build = world.wrap().started()
    daemon = int(build.ask("daemon").split()[1])
    world.extra.append(daemon)

    ended = build.end()

    assert (ended, world.run("wrap", "-n", "b", "--", "true").returncode, state_of(daemon) in "SD") == (0, 0, True)
    assert world.settled() == (1, {})


def test_the_wait_of_many_ends_in_the_order_of_their_tickets(world: World, tmp_path: Path) -> None:
    holder = world.wrap("holder").started()
    log = tmp_path / "order"
    waiters = []
    for number in range(8):
        waiters.append(world.popen("wrap", f"w{number}", "--", "sh", "-c", f"printf {number} >>{log}"))
        until(lambda number=number: world.waiting() == number + 1, f"waiter {number} in line")

    holder.end()

    assert ([waiter.wait() for waiter in waiters], log.read_text(), world.settled()) == ([0] * 8, "01234567", (1, {}))


INTERRUPTING = """
import os, signal, sys
class Finder:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name == "ipclock.{room}":
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Finder)
"""


@pytest.mark.parametrize("room", ["cli.command_line", "cli.fast_parser", "cli.wrap", "pool.protocol"])
def test_ctrl_c_in_the_middle_of_the_start_up_ends_it_without_a_word(world: World, tmp_path: Path, room: str) -> None:
    (tmp_path / "sitecustomize.py").write_text(INTERRUPTING.format(room=room))

    result = world.run("wrap", "a", "--", "true", env={"PYTHONPATH": str(tmp_path)})

    assert (result.returncode, result.stdout, result.stderr) == (-signal.SIGINT, "", "")


EARLY = """
import os, signal, sys
module = "ipclock." + sys.argv.pop(1)
def strike(event, arguments):
    if event == "import" and arguments[0] == module:
        os.kill(os.getpid(), signal.SIGINT)
sys.addaudithook(strike)
from ipclock.__main__ import run
run()
"""


@pytest.mark.parametrize("module", ["_typing", "cli.command_line", "run.supervisor", "pool.protocol"])
def test_a_ctrl_c_in_the_first_moment_ends_it_by_sigint_and_nothing_is_said(world: World, module: str) -> None:
    started = world.spawn(sys.executable, "-c", EARLY, module, "wrap", "-q", "early", "--", "echo", "built")

    assert (started.wait(), started.errors()) == (-signal.SIGINT, "")


def test_a_ctrl_c_that_is_ignored_from_the_start_stays_ignored(world: World) -> None:
    command = [sys.executable, "-c", EARLY, "cli.command_line", "wrap", "-q", "early", "--", "echo", "built"]
    ignoring = world.spawn("sh", "-c", "trap '' INT; exec \"$@\"", "sh", *command)

    assert (ignoring.line(), ignoring.wait(), ignoring.errors()) == ("built", 0, "")


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"LANG": "C"},
        {"LC_ALL": "C"},
        {"LC_CTYPE": "C.UTF-8"},
        {"LC_CTYPE": "POSIX"},
        {"LANG": "C", "LC_CTYPE": "C"},
    ],
    ids=str,
)
def test_a_build_gets_the_environment_that_the_caller_has_given(given: dict[str, str], world: World) -> None:
    env = {key: world.env[key] for key in ("PATH", "SEMAPHORE_NAME", "HISTORY") if key in world.env} | given
    code = "import os; print(sorted(entry for entry in open('/proc/self/environ').read().split('\\0') if entry))"

    bare, wrapped = (
        subprocess.run([*words, sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
        for words in ([], [sys.executable, "-m", "ipclock", "wrap", "-q", "a", "--"])
    )

    entries = ast.literal_eval(wrapped.stdout)
    assert [entry for entry in entries if not entry.startswith("IPCLOCK_")] == ast.literal_eval(bare.stdout)
