"""Each signal, to `wrap` and to its process group: the command gets what it would get without it, stops and all."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from ipclock.run.sentinel import Sentinel
from tests.e2e.test_signals import state_of
from tests.helpers.crash_at import USER, Client, needs_root
from tests.helpers.world import let_everybody_in, until

if TYPE_CHECKING:
    from tests.helpers.world import Build, World

# says which signals have come, in one line for each SIGRTMAX that ends them; nothing is lost of what is blocked
PROBE = """
import os, signal
every = signal.valid_signals()
signal.pthread_sigmask(signal.SIG_BLOCK, every)
print("ready", os.getpid(), flush=True)
came = []
while True:
    number = signal.sigtimedwait(every - {signal.SIGCHLD}, 60).si_signo
    if number != signal.SIGRTMAX:
        came.append(number)
        continue
    print(*came, flush=True)
    came = []
"""
NOT_SENT = {signal.SIGKILL, signal.SIGSTOP, signal.SIGCHLD, signal.SIGRTMAX}
TABLE = sorted(signal.valid_signals() - NOT_SENT)


def came(build: Build, *, group: bool) -> list[str]:
    """Return what the probe says of each signal."""
    found = []
    for number in TABLE:
        os.killpg(build.pid, number) if group else os.kill(build.pid, number)
        os.kill(build.pid, signal.SIGRTMAX)
        found.append(build.line())
    return found


@pytest.mark.parametrize("group", [False, True], ids=["to wrap alone", "to its group"])
def test_each_signal_reaches_the_command_once(group: bool, world: World) -> None:
    bare = world.spawn(sys.executable, "-c", PROBE, process_group=0).started()
    wrapped = world.popen("wrap", "-q", "a", "--", sys.executable, "-c", PROBE, process_group=0).started()

    direct, through = came(bare, group=group), came(wrapped, group=group)
    os.kill(bare.pid, signal.SIGKILL)
    os.kill(wrapped.command_pid, signal.SIGKILL)

    assert (through, direct) == (direct, [str(int(number)) for number in TABLE])
    assert (wrapped.wait(), world.settled()) == (-signal.SIGKILL, (1, {}))


LEAVES = "import os; os.setpgid(0, 0)" + PROBE  # as timeout(1) and `bash -i` do; without effect in a group's leader


def test_a_command_that_has_left_the_group_of_a_job_gets_what_comes_to_the_job(world: World) -> None:
    bare = world.spawn(sys.executable, "-c", LEAVES, process_group=0).started()
    wrapped = world.popen("wrap", "-q", "a", "--", sys.executable, "-c", LEAVES, process_group=0).started()

    direct, through = came(bare, group=True), came(wrapped, group=True)
    left = os.getpgid(wrapped.command_pid) != wrapped.pid
    os.kill(bare.pid, signal.SIGKILL)
    os.kill(wrapped.command_pid, signal.SIGKILL)
    wrapped.wait()

    assert (left, through, direct) == (True, direct, [str(int(number)) for number in TABLE])


def test_a_command_that_has_left_a_scripts_group_gets_nothing_of_what_comes_to_that(world: World) -> None:
    script = """trap : USR1; "$@" & echo; while ! wait $!; do :; done"""
    heard = []
    for wrap in ((), (sys.executable, "-m", "ipclock", "wrap", "-q", "a", "--")):
        build = world.spawn("bash", "-c", script, "bash", *wrap, sys.executable, "-c", LEAVES, process_group=0)
        build.line()
        build.started()
        os.killpg(build.pid, signal.SIGUSR1)
        for number in (signal.SIGUSR2, signal.SIGRTMAX):  # to wrap alone, or to the probe: behind the other one
            os.kill(parent_of(build.command_pid) if wrap else build.command_pid, number)
        heard.append(build.line())
        os.kill(build.command_pid, signal.SIGKILL)

    assert heard == [str(int(signal.SIGUSR2))] * 2


def parent_of(pid: int) -> int:
    """Return the PID of its parent."""
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


# what timeout(1) does when the time is up, at a line of its input
TIMEOUT = """
import os, signal, subprocess, sys
os.setpgid(0, 0)
child = subprocess.Popen(sys.argv[1:], stdin=subprocess.DEVNULL)
input()
signal.signal(signal.SIGUSR1, signal.SIG_IGN)
os.kill(child.pid, signal.SIGUSR1)
os.kill(0, signal.SIGUSR1)
child.wait()
"""


def test_a_timeout_around_a_command_with_a_group_of_its_own_sends_it_one_signal(world: World) -> None:
    wrap = (sys.executable, "-m", "ipclock", "wrap", "-q", "a", "--")
    build = world.spawn(sys.executable, "-c", TIMEOUT, *wrap, sys.executable, "-c", LEAVES).started()
    wrapper = parent_of(build.command_pid)
    build.tell("")

    heard = ""
    while not heard:
        os.kill(wrapper, signal.SIGRTMAX)
        heard = build.line()
    for number in (signal.SIGUSR2, signal.SIGRTMAX):
        os.kill(wrapper, number)
    behind = build.line()
    os.kill(build.command_pid, signal.SIGKILL)

    assert (heard, behind) == (str(int(signal.SIGUSR1)), str(int(signal.SIGUSR2)))


def test_a_timeout_within_a_timeout_ends_all(world: World) -> None:
    wrap = (sys.executable, "-m", "ipclock", "wrap", "-q", "a", "--")

    build = world.spawn("timeout", "1", *wrap, "timeout", "1000", "sleep", "1000")

    assert (build.wait(), world.settled()) == (124, (1, {}))


def test_a_signal_that_a_setuid_command_may_not_be_sent_leaves_wrap_beside_it(world: World, tmp_path: Path) -> None:
    needs_root(0)
    let_everybody_in(tmp_path)
    command = shutil.copy("/usr/bin/setpriv", tmp_path)
    os.chmod(command, 0o4755)
    build = (command, "--reuid", "0", "sleep", "1000")
    client = Client("wrap", "-q", "a", "--", *build, env=world.env, uid=USER)
    try:
        pid = until(lambda: next((row["command_pid"] for row in world.status()["holders"]), None), "the build")
        os.kill(client.pid, signal.SIGTERM)
        os.kill(client.pid, signal.SIGUSR1)
        os.kill(pid, signal.SIGKILL)
        status = client.wait()
        said = client.errors()
    finally:
        client.close()

    assert (status, said) == (-signal.SIGKILL, "")


def test_an_alarm_from_before_wrap_ends_the_command_and_wrap(world: World) -> None:
    code = "import os, signal, sys; signal.setitimer(signal.ITIMER_REAL, 1); os.execvp(sys.argv[1], sys.argv[1:])"
    wrap = (sys.executable, "-m", "ipclock", "wrap", "-q", "a", "--", "sleep", "1000")

    build = world.spawn(sys.executable, "-c", code, *wrap)

    assert (build.wait(), world.settled()) == (-signal.SIGALRM, (1, {}))


def test_a_signal_of_before_the_command_started_is_not_kept_from_it(world: World) -> None:
    # blocked from the start, and pending: the command has inherited the mask, not the signal
    code = (
        "import os, signal, sys; signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1});"
        "os.kill(0, signal.SIGUSR1); os.execvp(sys.argv[1], sys.argv[1:])"
    )
    wrap = (sys.executable, "-m", "ipclock", "wrap", "-q", "a", "--", sys.executable, "-c", PROBE)
    build = world.spawn(sys.executable, "-c", code, *wrap, process_group=0).started()

    build.signal(signal.SIGRTMAX)
    heard = build.line()
    os.kill(build.command_pid, signal.SIGKILL)

    assert (heard, build.wait()) == (str(int(signal.SIGUSR1)), -signal.SIGKILL)


# the file that has the argument as its name is the sign that the command catches signals
AT_THE_START = """
import os, signal, sys, time
from ipclock.cli.command_line import main
spawn, caught = os.posix_spawnp, sys.argv.pop(1)
def strike(*arguments, **options):
    if not caught:
        os.kill(0, signal.SIGUSR1)
    pid = spawn(*arguments, **options)
    while caught and not os.path.exists(caught):
        time.sleep(0.001)
    if caught:
        os.kill(0, signal.SIGUSR1)
    return pid
os.posix_spawnp = strike
sys.exit(main(sys.argv[1:]))
"""


def test_a_signal_to_the_group_right_before_the_command_is_there_is_not_kept_from_it(world: World) -> None:
    wrap = ("wrap", "-q", "a", "--", "sleep", "1000")

    build = world.spawn(sys.executable, "-c", AT_THE_START, "", *wrap, process_group=0)

    assert (build.wait(), world.settled()) == (-signal.SIGUSR1, (1, {}))


@pytest.mark.parametrize("how", ["caught", "blocked"])
def test_a_signal_to_the_group_right_after_the_command_is_there_comes_once(
    how: str, world: World, tmp_path: Path
) -> None:
    sign = tmp_path / "sign"
    code = f"""
import os, signal, time
came = []
if {how == "caught"}:
    signal.signal(signal.SIGUSR1, lambda number, frame: came.append(number))
    signal.signal(signal.SIGUSR2, lambda number, frame: came.append(number))
else:
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1, signal.SIGUSR2])
os.close(os.open({str(sign)!r}, os.O_CREAT))
print("ready", os.getpid(), flush=True)
while signal.SIGUSR2 not in {{*came, *signal.sigpending()}}:
    time.sleep(0.001)
came += sorted(signal.sigpending())
print(*map(int, came), flush=True)
"""
    wrap = ("wrap", "-q", "a", "--", sys.executable, "-c", code)

    build = world.spawn(sys.executable, "-c", AT_THE_START, str(sign), *wrap, process_group=0).started()
    build.signal(signal.SIGUSR2)

    assert (build.line(), build.wait()) == ("10 12", 0)


def test_nothing_of_wrap_outlives_it(world: World) -> None:
    build = world.wrap().started()
    helpers = [pid for pid in children(build.pid) if pid != build.command_pid]

    build.signal(signal.SIGKILL)
    until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in helpers), "the end of its helpers")

    assert (len(helpers), state_of(build.command_pid)) == (1, "S")


def children(pid: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def test_without_its_sentinel_each_signal_from_outside_its_pid_namespace_is_passed_on(world: World) -> None:
    needs_root(0)
    wrap = (sys.executable, "-m", "ipclock", "wrap", "-q", "a", "--", sys.executable, "-c", PROBE)
    build = world.spawn("unshare", "-pf", "--kill-child", *wrap).started()
    [outside] = children(build.pid)
    probe = next(pid for pid in children(outside) if b"wrap" not in Path(f"/proc/{pid}/cmdline").read_bytes())
    [sentinel] = [pid for pid in children(outside) if pid != probe]

    os.kill(sentinel, signal.SIGKILL)
    until(lambda: children(outside) == [probe], "its end")
    heard = []
    for number in (signal.SIGUSR1, signal.SIGUSR2, signal.SIGTERM):
        os.kill(outside, number)
        os.kill(outside, signal.SIGRTMAX)
        heard.append(build.line())
    os.kill(probe, signal.SIGKILL)

    assert (heard, build.wait()) == ([str(int(one)) for one in (10, 12, 15)], 128 + signal.SIGKILL)


def test_the_number_of_a_sentinel_that_was_reaped_is_signalled_no_more() -> None:
    sentinel = Sentinel()
    os.kill(sentinel.pid, signal.SIGKILL)
    os.waitpid(sentinel.pid, 0)
    shell = subprocess.Popen(["sh", "-c", "sleep 1000 >&2 & echo $!"], stdout=subprocess.PIPE, text=True)
    other = int(shell.communicate()[0])  # no child of ours: it stands for who has got the number since

    sentinel.pid = other
    sentinel.close()
    state = state_of(other)
    os.kill(other, signal.SIGKILL)

    assert state in "RS"


STOPPING = "echo ready $$; kill -{} $$; echo went on"


@pytest.mark.parametrize("name", ["STOP", "TSTP", "TTIN"])
def test_wrap_stops_with_a_command_that_stops_where_a_shell_sees_it(name: str, world: World) -> None:
    build = world.popen("wrap", "-q", "a", "--", "sh", "-c", STOPPING.format(name), process_group=0).started()

    _, status = os.waitpid(build.pid, os.WUNTRACED)
    os.killpg(build.pid, signal.SIGCONT)

    assert (os.WSTOPSIG(status), build.line(), build.wait()) == (signal.Signals[f"SIG{name}"], "went on", 0)


def test_wrap_does_not_stop_where_no_shell_would_continue_it(world: World) -> None:
    build = world.popen("wrap", "-q", "a", "--", "sh", "-c", STOPPING.format("STOP")).started()
    until(lambda: state_of(build.command_pid) == "T", "the command stopped")

    os.kill(build.command_pid, signal.SIGCONT)

    assert (build.line(), build.wait(), world.settled()) == ("went on", 0, (1, {}))


def test_wrap_that_has_stopped_with_its_command_gives_the_slot_back_when_that_is_killed(world: World) -> None:
    build = world.popen("wrap", "-q", "a", "--", "sh", "-c", STOPPING.format("STOP"), process_group=0).started()
    os.waitpid(build.pid, os.WUNTRACED)

    os.kill(build.command_pid, signal.SIGKILL)

    assert (build.wait(), world.settled()) == (-signal.SIGKILL, (1, {}))
