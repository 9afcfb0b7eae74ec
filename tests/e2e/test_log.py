"""`wrap --log`: the output goes where it would go without it, and into a log; the command notices next to nothing."""

from __future__ import annotations

import fcntl
import os
import re
import signal
import struct
import subprocess
import sys
import termios
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.e2e.test_signal_table import PROBE, TABLE, came
from tests.e2e.test_signals import state_of
from tests.e2e.test_terminal import IPCLOCK, terminal  # noqa: F401 - a fixture
from tests.e2e.test_what_the_command_sees import probe, seen  # noqa: F401 - a fixture
from tests.helpers.crash_at import needs_root
from tests.helpers.world import HANG_S, STUB, script_of_nothing, until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.helpers.terminal import Terminal
    from tests.helpers.world import Build, World

WRAP = (*IPCLOCK, "wrap", "-q", "--log", "a", "--")
LINE = " ".join(WRAP)
# all of the modes but for the speeds
MODES = slice(0, 4)


@pytest.fixture(autouse=True)
def logs(world: World, tmp_path: Path) -> Path:
    """The folder of the logs."""
    folder = tmp_path / "logs"
    world.env |= {"LOG_DIR": str(folder)}
    return folder


@pytest.fixture
def shell(terminal: Callable[..., Terminal]) -> Terminal:  # noqa: F811
    """A shell with job control."""
    started = terminal("bash", "--norc", "--noprofile", "-i", PS1="$ ")
    started.wait_for("$ ")
    return started


def logged(logs: Path) -> bytes:
    """Return what the only log has, once no process writes it any more."""
    [log] = logs.iterdir()
    until(lambda: not writers(log), "the end of the log's writer")
    return log.read_bytes()


def writers(log: Path) -> list[int]:
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            links = [os.readlink(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd")]
        except OSError:
            continue
        found += [int(pid)] * (str(log) in links)
    return found


def modes(screen: Terminal) -> list[object]:
    return termios.tcgetattr(screen.master)[MODES]


def unread(fd: int) -> int:
    return struct.unpack("i", fcntl.ioctl(fd, termios.FIONREAD, bytes(4)))[0]


def python(code: str) -> tuple[str, ...]:
    return (sys.executable, "-c", code)


@pytest.mark.parametrize(("ending", "status"), [("exit 0", 0), ("exit 3", 3), ("kill -KILL $$", -signal.SIGKILL)])
def test_without_a_terminal_both_streams_are_kept_and_go_their_way(
    ending: str, status: int, world: World, logs: Path
) -> None:
    done = world.run("wrap", "-q", "--log", "a", "--", "sh", "-c", f"echo out; echo err >&2; {ending}")

    assert (done.returncode, done.stdout, done.stderr) == (status, "out\n", "err\n")
    assert (sorted(logged(logs).split()), world.settled()) == ([b"err", b"out"], (1, {}))


def test_without_the_option_nothing_is_kept(world: World, logs: Path) -> None:
    assert (world.run("wrap", "-q", "a", "--", "echo", "out").stdout, logs.exists()) == ("out\n", False)


def test_streams_that_are_one_keep_their_order(world: World, logs: Path) -> None:
    script = "for n in $(seq 500); do echo out $n; echo err $n >&2; done"
    done = subprocess.run(
        [*WRAP, "sh", "-c", script], env=world.env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=True
    )

    expected = "".join(f"out {n}\nerr {n}\n" for n in range(1, 501)).encode()
    assert (done.stdout, logged(logs)) == (expected, expected)


def test_a_log_keeps_its_head_and_its_tail(world: World, logs: Path) -> None:
    done = world.run("wrap", "-q", "--log", "a", "--", "seq", "20000", env={"LOG_LIMIT": "8K"})

    kept = logged(logs).split(b"\n")
    assert (done.stdout.split()[-1], kept[:2], kept[-2:]) == ("20000", [b"1", b"2"], [b"20000", b""])
    assert [line for line in kept if b"bytes left out" in line] != []
    assert len(b"\n".join(kept)) <= 8192


def test_the_record_names_the_log_and_its_writer(world: World, logs: Path) -> None:
    build = world.wrap("a", "-q", "--log").started()
    [name] = world.records("holding")
    record = dict(line.split("=", 1) for line in (world.folder / "holding" / name).read_text().splitlines())

    [log] = logs.iterdir()
    assert (record["log"], [int(record["log_writer"])]) == (str(log), writers(log))
    assert build.end() == 0


def test_a_reader_that_leaves_is_gone_for_the_command_too(world: World) -> None:
    # no write: it is told as it would be by the reader's own pipe
    code = "import select; poll = select.poll(); poll.register(1, 0); print('ready', 0, flush=True); poll.poll(); 1/0"
    build = world.popen("wrap", "-q", "--log", "a", "--", *python(code)).started()
    assert build.process.stdout
    build.process.stdout.close()
    looping = world.popen("wrap", "-q", "--log", "a", "--", "sh", "-c", "while echo more; do :; done")
    looping.line()
    assert looping.process.stdout
    looping.process.stdout.close()

    assert (build.wait(), looping.wait(), world.settled()) == (1, -signal.SIGPIPE, (1, {}))


def test_a_reader_that_is_slow_keeps_the_command_waiting(world: World, logs: Path) -> None:
    build = world.popen("wrap", "-q", "--log", "a", "--", "head", "-c", "1000000", "/dev/zero")
    pid = until(lambda: next((row["command_pid"] for row in world.status()["holders"]), None), "the command")
    waits = Path(f"/proc/{pid}/wchan")
    until(lambda: "pipe" in waits.read_text() and "pipe" in waits.read_text(), "the command at a full pipe")
    held_back = state_of(pid)
    assert build.process.stdout
    data = build.process.stdout.read()

    assert (held_back, len(data), build.wait(), len(logged(logs))) == ("S", 1000000, 0, 1000000)


def test_a_stream_that_nobody_reads_holds_up_no_other(world: World) -> None:
    script = "head -c 1000000 /dev/zero & sleep 0; exec >&-; echo told >&2; wait"
    build = world.popen("wrap", "-q", "--log", "a", "--", "sh", "-c", script)
    assert build.process.stderr
    assert build.process.stdout

    first = build.process.stderr.readline()  # before a byte of stdout is read

    assert (first, len(build.process.stdout.read()), build.wait()) == (b"told\n", 1000000, 0)


@pytest.fixture
def tiny(logs: Path) -> Iterator[Path]:
    """A disk for the logs with room for next to nothing."""
    needs_root(0)
    logs.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16k,mode=700", "ipclock-test", logs], check=True)
    yield logs
    subprocess.run(["umount", "-l", logs], check=True)


def test_a_full_disk_changes_nothing(world: World, tiny: Path) -> None:
    done = world.run("wrap", "-q", "--log", "a", "--", "seq", "100000")

    assert (done.returncode, len(done.stdout.split()), done.stderr) == (0, 100000, "")
    assert logged(tiny).startswith(b"1\n2\n")


@pytest.mark.parametrize("group", [False, True], ids=["to wrap alone", "to its group"])
def test_each_signal_reaches_the_command_once(group: bool, world: World) -> None:
    build = world.popen("wrap", "-q", "--log", "a", "--", *python(PROBE), process_group=0).started()

    heard = came(build, group=group)
    os.kill(build.command_pid, signal.SIGKILL)

    assert (heard, build.wait(), world.settled()) == ([str(int(one)) for one in TABLE], -signal.SIGKILL, (1, {}))


def test_what_is_left_behind_keeps_nobody(world: World, logs: Path) -> None:
    build = world.popen("wrap", "-q", "--log", "a", "--", "sh", "-c", "sleep 1000 & echo $!")
    pid = int(build.line())
    world.extra.append(pid)

    assert (build.wait(), state_of(pid), world.settled()) == (0, "S", (1, {}))
    os.kill(pid, signal.SIGKILL)
    assert logged(logs) == b"%d\n" % pid


def test_a_build_whose_ipclock_is_killed_counts_on_and_is_kept_to_its_end(world: World, logs: Path) -> None:
    build = world.wrap("a", "-q", "--log").started()
    build.signal(signal.SIGKILL)
    build.wait()

    answer = build.ask("echo still here")
    states = [row["state"] for row in world.status()["holders"]]
    build.tell("exit 0")
    until(lambda: not world.status()["holders"], "its end")

    assert (answer, states, logged(logs)) == (
        "still here",
        ["orphaned"],
        f"ready {build.command_pid}\nstill here\n".encode(),
    )


def test_a_build_that_never_starts_leaves_no_log(world: World, logs: Path, tmp_path: Path) -> None:
    holder = world.wrap("holder").started()
    refused = world.run("wrap", "-q", "-n", "--log", "a", "--", "true").returncode
    status = []
    for number in (signal.SIGTERM, signal.SIGKILL):
        waiter = world.popen("wrap", "-q", "--log", "a", "--", "true")
        until(lambda: any("log=" in path.read_text() for path in (world.folder / "gate").iterdir()), "a waiter")
        waiter.signal(number)
        status.append(waiter.wait())
        until(lambda: not list(logs.iterdir()), "no log")
    holder.end()
    broken = world.run("wrap", "-q", "--log", "a", "--", str(script_of_nothing(tmp_path))).returncode

    assert (refused, status, broken, world.settled()) == (75, [-signal.SIGTERM, -signal.SIGKILL], 127, (1, {}))
    until(lambda: not list(logs.iterdir()), "no log")


def test_a_log_that_cannot_be_is_told_before_the_wait(world: World) -> None:
    holder = world.wrap("holder").started()

    done = world.run("wrap", "--log", "a", "--", "echo", "out", env={"LOG_DIR": "/proc/none"})

    assert (done.returncode, done.stdout, "/proc/none" in done.stderr) == (73, "", True)
    assert (holder.end(), world.settled()) == (0, (1, {}))


def test_a_pool_of_several_hosts_keeps_none(world: World) -> None:
    done = world.run("wrap", "--log", "--engine", "zookeeper://127.0.0.1:1/pool", "a", "--", "echo", "out")

    assert (done.returncode, done.stdout, "--log" in done.stderr) == (69, "", True)


def test_a_nested_build_is_kept_in_both_logs(world: World, logs: Path) -> None:
    done = world.run("wrap", "-q", "--log", "outer", "--", *IPCLOCK, "wrap", "-q", "--log", "inner", "--", "echo", "x")

    until(lambda: not any(map(writers, logs.iterdir())), "the end of the writers")
    assert (done.stdout, [log.read_text() for log in logs.iterdir()]) == ("x\n", ["x\n", "x\n"])


@pytest.mark.parametrize(
    "setting", ["plain", "closed stdin", "closed stdout", "all three closed", "1500 descriptors", "40 open files"]
)
def test_a_command_sees_a_pipe_and_no_other_difference(
    setting: str,
    probe: Path,  # noqa: F811
    world: World,
    tmp_path: Path,
    logs: Path,
) -> None:
    config = tmp_path / "build-config.sh"
    config.write_text(f"HISTORY=off\nSEMAPHORE_NAME={world.name}\nLOG_DIR={logs}\n")
    wrap = (Path(sys.executable).with_name("ipclock"), "wrap", "-q", "--config", str(config))

    bare = seen(setting, tmp_path / "bare", *wrap, "a", "--", probe, tmp_path / "bare")
    kept = seen(setting, tmp_path / "kept", *wrap, "--log", "a", "--", probe, tmp_path / "kept")

    differences = set(bare[1]) ^ set(kept[1])
    # those of the streams, and the beacon's, which is another record each time
    known = {fact for fact in differences if re.match(r"descriptor ([12]:|\d+: \S+ 506002$)", fact)}
    assert (bare[0], kept[0], kept[2], differences - known) == (7, 7, "", set())
    assert [fact.split(":")[0] for fact in kept[1]] == [fact.split(":")[0] for fact in bare[1]]


TTYS = "exec 9>{}; for n in 0 1 2; do if test -t $n; then echo $n >&9; fi; done"


@pytest.mark.parametrize(
    "redirected",
    ["", "</dev/null", ">/dev/null", "2>/dev/null", ">/dev/null 2>&1", "</dev/null >/dev/null", "|cat", "<&-", ">&-"],
)
def test_what_was_a_terminal_is_one_and_nothing_else(
    redirected: str,
    world: World,
    terminal: Callable[..., Terminal],  # noqa: F811
    tmp_path: Path,
) -> None:
    found = []
    for wrap in ("", LINE):
        report = tmp_path / ("kept" if wrap else "bare")
        screen = terminal("sh", "-c", f"{wrap} sh -c '{TTYS.format(report)}' {redirected}")
        assert screen.wait() == 0
        found.append(report.read_text())

    assert found[1] == found[0]


# tells its size, when that is of as many columns; and writes nothing before
FITS = """
import os, signal
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGWINCH})
os.write(2, b"ready")
while os.get_terminal_size(1).columns != 100:
    signal.sigwait({signal.SIGWINCH})
print(*os.get_terminal_size(1))
"""


def resize(screen: Terminal, columns: int, rows: int) -> None:
    fcntl.ioctl(screen.master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))


def test_the_size_is_the_terminals_from_the_start(
    world: World,
    terminal: Callable[..., Terminal],  # noqa: F811
    tmp_path: Path,
    logs: Path,
) -> None:
    holder = world.wrap("holder").started()
    screen = terminal(*WRAP, "sh", "-c", f"stty size <&1 >{tmp_path / 'size'}", columns=70, rows=20)
    [log] = until(lambda: logs.exists() and list(logs.iterdir()), "a waiter")
    [relay] = until(lambda: world.waiting() and writers(log)[:1], "its relay")
    os.kill(relay, signal.SIGSTOP)
    resize(screen, 100, 40)
    holder.end()
    until(lambda: (tmp_path / "size").exists() and (tmp_path / "size").read_text(), "the size")
    os.kill(relay, signal.SIGCONT)

    assert (screen.wait(), (tmp_path / "size").read_text()) == (0, "40 100\n")


def test_a_new_size_is_there_for_a_command_that_writes_nothing_before_it(
    world: World,
    terminal: Callable[..., Terminal],  # noqa: F811
) -> None:
    screen = terminal(*WRAP, *python(FITS))
    screen.wait_for("ready")

    resize(screen, 100, 40)

    assert (screen.wait(), screen.text) == (0, "ready100 40\r\n")


def test_a_command_in_a_group_of_its_own_learns_of_a_new_size_when_it_writes(
    world: World,
    terminal: Callable[..., Terminal],  # noqa: F811
) -> None:
    leaves = "import os, signal; signal.signal(signal.SIGTTOU, signal.SIG_IGN)\n"
    leaves += "os.setpgid(0, 0); os.tcsetpgrp(0, os.getpid())\n"
    tell = "signal.signal(signal.SIGWINCH, lambda *_: os.write(1, b'%d %d' % os.get_terminal_size(1)))\n"
    screen = terminal(*WRAP, *python(leaves + tell + "print('ready', flush=True)\ninput()"))
    screen.wait_for("ready")

    resize(screen, 100, 40)

    screen.wait_for("100 40")
    screen.type("\n")
    assert screen.wait() == 0


def test_ctrl_c_reaches_the_build_once_and_wrap_dies_of_it(
    world: World,
    terminal: Callable[..., Terminal],  # noqa: F811
    logs: Path,
) -> None:
    screen = terminal(*WRAP, sys.executable, STUB, "--report", "2")
    screen.wait_for("ready")

    screen.type("\x03")
    screen.wait_for("signal 2")
    screen.type("echo answer\n")
    text = screen.wait_for("answer\r\nanswer")
    screen.type("kill 2\n")
    screen.wait_for("kill 2\r\nsignal 2")
    screen.type("\x1c")  # Ctrl-\

    assert (text.count("signal 2"), screen.wait(), world.settled()) == (1, -signal.SIGQUIT, (1, {}))
    assert (modes(screen), logged(logs).count(b"answer")) == (screen.before[MODES], 1)


@pytest.mark.parametrize("who", ["wrap", "command"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_the_terminal_is_as_before_whatever_ends_them(
    who: str,
    number: int,
    world: World,
    terminal: Callable[..., Terminal],  # noqa: F811
) -> None:
    screen = terminal(*WRAP, sys.executable, STUB)
    pid = int(screen.wait_for("ready").split()[1])

    os.kill(screen.pid if who == "wrap" else pid, number)

    assert (screen.wait(), modes(screen)) == (-number, screen.before[MODES])
    if (who, number) == ("wrap", signal.SIGKILL):
        os.kill(pid, signal.SIGKILL)


def test_ctrl_z_stops_build_and_wrapper_and_fg_goes_on(world: World, shell: Terminal, logs: Path) -> None:
    shell.type(f"{LINE} {sys.executable} {STUB}\n")
    shell.wait_for("ready")

    shell.type("\x1a")
    shell.wait_for("Stopped")
    state = world.status()["holders"][0]["state"]
    shell.type("fg\n")
    until(lambda: world.status()["holders"][0]["state"] == "running", "the build running again")
    shell.type("echo again\n")
    shell.wait_for("again\r\nagain")
    shell.type("exit 6\n")
    until(lambda: not world.records("holding"), "the build's end")
    shell.type("echo status=$?\n")
    shell.wait_for("status=6")
    shell.type("exit\n")

    assert (state, shell.wait(), world.settled()) == ("stopped", 0, (1, {}))
    assert logged(logs).endswith(b"\nagain\n")


def test_in_the_background_it_writes_stops_at_a_read_and_comes_back(world: World, shell: Terminal) -> None:
    shell.type(f"{LINE} sh -c 'echo begun; read -r word; echo got $word' &\n")
    shell.wait_for("begun")
    shell.type("echo shell''line\n")  # the shell has the keys
    shell.wait_for("shellline")
    until(lambda: [row["state"] for row in world.status()["holders"]] == ["stopped"], "the build stopped at its read")

    shell.type("fg\n")
    until(lambda: [row["state"] for row in world.status()["holders"]] == ["running"], "the build running again")
    shell.type("word\n")
    shell.wait_for("got word")
    shell.type("exit\n")

    assert (shell.wait(), world.settled()) == (0, (1, {}))


def test_output_ends_before_wrap_does(world: World, terminal: Callable[..., Terminal]) -> None:  # noqa: F811
    screen = terminal("sh", "-c", f"{LINE} seq 5000; echo behind")

    assert (screen.wait(), screen.text.split()[-2:]) == (0, ["5000", "behind"])


KEYS = """
import os, signal, termios, time, tty
modes, keys = {way}
old = termios.tcgetattr(modes)
tty.setcbreak(modes)
print("ready", flush=True)
for step in ("one", "two"):
    while not os.path.exists("{folder}/" + step):
        time.sleep(0.01)
    print(step, flush=True)
"""
READ = 'print("key", os.read(keys, 1), flush=True)\n'
# the terminal that a program sets the modes of, and that it reads
WAYS = {
    "stdin": "0, 0",
    "stdout, as ncurses": "1, 0",
    "stderr": "2, 0",
    "opened anew, as less": "[os.open(os.ttyname(2), os.O_RDONLY)] * 2",
    "stderr for stdin, as vim": "[os.dup2(2, 0)] * 2",
    "the controlling one": "[os.open('/dev/tty', os.O_RDWR)] * 2",
}


def steps(screen: Terminal, folder: Path) -> None:
    """See to it that the relay has done what it would do with a key that nobody has read yet."""
    for step in ("one", "two"):
        (folder / step).touch()
        screen.wait_for(f"{step}\r\n")


@pytest.mark.parametrize("way", WAYS)
def test_a_program_gets_each_key_without_echo_and_restores_the_modes(
    way: str,
    world: World,
    terminal: Callable[..., Terminal],  # noqa: F811
    tmp_path: Path,
    logs: Path,
) -> None:
    # the twin is open as 200 too, as in a script with `exec 3>&1`
    begins = "import os; os.dup2(0, 100); os.dup2(1, 200)"
    restores = "termios.tcsetattr(modes, termios.TCSANOW, old); os.dup2(100, 0); input()"
    screen = terminal(*WRAP, *python(begins + KEYS.format(way=WAYS[way], folder=tmp_path) + READ + restores))
    screen.wait_for("ready")
    until(lambda: modes(screen) != screen.before[MODES], "the modes of a program that takes keys")

    screen.type("q")
    steps(screen, tmp_path)
    screen.wait_for("key b'q'")
    until(lambda: modes(screen) == screen.before[MODES], "the modes of before")
    screen.type("line\n")

    assert (screen.wait(), screen.text) == (0, "ready\r\none\r\ntwo\r\nkey b'q'\r\nline\r\n")
    assert logged(logs) == b"ready\none\ntwo\nkey b'q'\n"


def test_keys_are_the_next_programs_once_the_one_that_wanted_them_is_killed(
    world: World,
    terminal: Callable[..., Terminal],  # noqa: F811
    tmp_path: Path,
) -> None:
    code = KEYS.format(way=WAYS["opened anew, as less"], folder=tmp_path / "never")
    script = f"{sys.executable} -c '{code}' & read -r go <{tmp_path / 'go'}; kill -KILL $!; wait $!; echo next"
    for step in ("one", "two"):
        script += f"; until [ -e {tmp_path / step} ]; do sleep 0.01; done; echo {step}"
    os.mkfifo(tmp_path / "go")
    screen = terminal(*WRAP, "sh", "-c", f"{script}; read -r word; echo got $word")
    screen.wait_for("ready")
    until(lambda: modes(screen) != screen.before[MODES], "the modes of a program that takes keys")

    (tmp_path / "go").write_text("\n")
    screen.wait_for("next")
    screen.type("word\n")
    steps(screen, tmp_path)

    screen.wait_for("got word")
    assert screen.wait() == 0


def test_modes_that_a_build_sets_in_the_background_are_not_the_terminals(world: World, shell: Terminal) -> None:
    code = "import termios; m = termios.tcgetattr(1); m[3] &= ~termios.ISIG; termios.tcsetattr(1, 0, m); print(*'set')"
    shell.type(f'{LINE} {sys.executable} -c "{code}" &\n')
    shell.wait_for("s e t")

    kept = termios.tcgetattr(shell.master)[3] & termios.ISIG
    shell.type("exit\n")

    assert (kept, shell.wait()) == (termios.ISIG, 0)


def test_a_password_is_neither_shown_nor_kept(
    world: World,
    terminal: Callable[..., Terminal],  # noqa: F811
    logs: Path,
) -> None:
    screen = terminal(*WRAP, *python("import getpass; print(len(getpass.getpass('secret? ')))"))
    screen.wait_for("secret?")
    until(lambda: modes(screen) != screen.before[MODES], "no echo")

    screen.type("hidden\n")

    assert (screen.wait(), "hidden" in screen.text, modes(screen)) == (0, False, screen.before[MODES])
    assert logged(logs) == b"6\n"


def test_stdin_from_a_file_stays_that(world: World, terminal: Callable[..., Terminal], tmp_path: Path) -> None:  # noqa: F811
    (tmp_path / "input").write_text("of a file\n")
    screen = terminal("sh", "-c", f"{LINE} cat <{tmp_path / 'input'}")

    assert (screen.wait(), screen.text) == (0, "of a file\r\n")


def test_a_terminal_that_hangs_up_ends_the_build_as_without_it(world: World, logs: Path) -> None:
    master, slave = os.openpty()
    code = "import signal; signal.signal(signal.SIGHUP, signal.SIG_IGN); print('begun', flush=True)\n"
    code += "import os\nwhile True: os.write(1, b'on\\n')"
    build: Build = world.popen("wrap", "-q", "--log", "a", "--", *python(code), stdout=slave, stderr=subprocess.PIPE)
    os.close(slave)
    until(lambda: b"begun" in os.read(master, 4096), "its output")
    os.close(master)

    assert (build.wait(), "Input/output error" in build.errors(), world.settled()) == (1, True, (1, {}))
    assert logged(logs).startswith(b"begun\n")


def test_a_paused_terminal_keeps_the_command_waiting_and_loses_nothing(
    world: World,
    terminal: Callable[..., Terminal],  # noqa: F811
) -> None:
    screen = terminal(*WRAP, "sh", "-c", "echo ready; read -r word; seq 30000; echo done")
    screen.wait_for("ready")
    screen.type("\x13\n")  # Ctrl-S
    pid = until(lambda: world.status()["holders"][0]["command_pid"], "the command noted")
    children = Path(f"/proc/{pid}/task/{pid}/children")
    seq = until(lambda: children.read_text(), "the output")
    until(lambda: "wait_woken" in Path(f"/proc/{seq.strip()}/wchan").read_text(), "a full terminal")

    screen.type("\x11")

    assert screen.wait() == 0
    assert screen.text.split()[-2:] == ["30000", "done"]
    assert len(screen.text.split()) == 30002


def test_the_end_of_a_slow_reader_is_not_awaited_after_ctrl_c(world: World) -> None:
    build = world.popen("wrap", "-q", "--log", "a", "--", "head", "-c", "100000", "/dev/zero")
    assert build.process.stdout
    stdout = build.process.stdout.fileno()
    until(lambda: unread(stdout) == 65536 and not world.records("holding"), "a full pipe, and the slot given back")
    until(lambda: "poll" in Path(f"/proc/{build.pid}/wchan").read_text(), "the wait for its reader")

    build.signal(signal.SIGINT)

    assert (build.process.wait(HANG_S), world.settled()) == (0, (1, {}))
