"""`ipclock wait`: the ends of builds that others have started, told to as many as want to know."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from ipclock.history.finished import Row, record
from tests.helpers.crash_at import OTHER_USER, USER, Client, needs_root
from tests.helpers.detached import Gate, detach, keep_logs, watches
from tests.helpers.world import let_everybody_in, until

if TYPE_CHECKING:
    from tests.helpers.world import Build, World

SECONDS = 3
ASLEEP_ONCE_MORE = 2  # context switches of a process that is left alone


@pytest.fixture(autouse=True)
def logs(world: World, tmp_path: Path) -> Path:
    """Where the world's builds keep their output."""
    return keep_logs(world, tmp_path)


@pytest.fixture
def gate(tmp_path: Path) -> Gate:
    """What a build waits for."""
    return Gate(tmp_path / "gate")


def wait(world: World, *arguments: str, **more: dict[str, str]) -> Build:
    """Start a wait, and return it once it watches a process."""
    return watches(world.popen("wait", *arguments, **more))


@pytest.mark.parametrize(
    ("script", "status"),
    [("true", 0), ("exit 3", 3), ("exit 126", 126), ("kill -TERM $$", -15), ("kill -KILL $$", -9), ("exit 75", 75)],
)
def test_it_ends_as_the_build_has_ended(script: str, status: int, world: World, gate: Gate) -> None:
    ticket = detach(world, f"{gate.hold}; {script}")
    waiters = [wait(world, str(ticket)) for _ in range(2)]

    gate.open()

    told = "ipclock: ticket 1: the build's own exit status is 75\n" if status == 75 else ""
    assert [(waiter.wait(), waiter.errors()) for waiter in waiters] == [(status, told)] * 2


def test_it_waits_for_one_that_waits_itself_and_becomes_a_holder(world: World, gate: Gate) -> None:
    holder = world.wrap("holder").started()
    ticket = detach(world, f"{gate.hold}; exit 4")
    waiter = wait(world, str(ticket))
    holder.end()
    until(lambda: world.records("holding") == [f"{ticket}.1"], "the build")

    still = waiter.process.poll()
    gate.open()

    assert (still, waiter.wait(), world.settled()) == (None, 4, (1, {}))


def test_what_cannot_be_started_has_the_status_that_wrap_had(world: World, tmp_path: Path) -> None:
    holder = world.wrap("holder").started()
    script = tmp_path / "script"
    script.write_text("#!/bin/sh\n")
    script.chmod(0o755)
    ticket = world.run("wrap", "--detach", "a", "--", str(script)).stdout.strip()
    waiter = wait(world, ticket)
    script.unlink()

    holder.end()

    assert (waiter.wait(), waiter.errors()) == (127, "")


def test_one_that_is_not_over_in_time_is_75_and_may_be_waited_for_again(world: World, gate: Gate) -> None:
    ticket = detach(world, gate.hold)
    late = detach(world, "exit 5", label="late")

    found = [world.run("wait", *options) for options in (("-w", "0", "1"), ("-w", "0.2", "2"), ("-w0", "2", "1"))]
    waiters = [wait(world, str(one)) for one in (ticket, late)]
    gate.open()

    again = "'ipclock wait {0}' may be called again"
    runs = f"ipclock: ticket 1 (staging) has run for {{}}; {again.format(1)}\n"
    waits = f"ipclock: ticket 2 (late) waiting at position 1 in queue; {again.format(2)}\n"
    told = [done.stderr.replace("0 s;", "{};").replace("1 s;", "{};") for done in found]
    assert ([done.returncode for done in found], told) == ([75, 75, 75], [runs, waits, waits + runs])
    assert [waiter.wait() for waiter in waiters] == [0, 5]


def test_of_several_the_first_that_failed_counts_in_their_order_when_all_are_over(world: World, tmp_path: Path) -> None:
    world.run("init", "--max-parallel-builds", "3")
    gates = [Gate(tmp_path / f"gate {number}".replace(" ", "-")) for number in range(3)]
    scripts = zip(gates, ("true", "exit 6", "kill -HUP $$"), strict=True)
    one, two, three = (str(detach(world, f"{gate.hold}; {end}")) for gate, end in scripts)
    waiters = [wait(world, *order) for order in ((one, two, three), (three, two, one), (one, one))]

    for gate in reversed(gates):
        gate.open()

    assert [waiter.wait() for waiter in waiters] == [6, -signal.SIGHUP, 0]
    told = [f"ipclock: ticket {two}: exit status 6", f"ipclock: ticket {three}: signal 1"]
    assert [waiter.errors().splitlines() for waiter in waiters] == [told, told[::-1], []]


@pytest.mark.parametrize(
    ("end", "status", "told"),
    [
        ("timeout", 80, "ipclock: ticket 2 has ended without an exit status: it got no slot in the time allowed\n"),
        ("superseded", 76, ""),
        (signal.SIGTERM, -15, ""),
        (signal.SIGKILL, 80, "ipclock: ticket 2 has ended without an exit status: its ipclock was killed\n"),
    ],
)
def test_one_that_leaves_the_line_tells_why(end: str | int, status: int, told: str, world: World) -> None:
    holder = world.wrap("holder").started()
    leaving = world.wrap("a", "-q", *(["-w", "2"] if end == "timeout" else []))
    until(lambda: world.records("gate"), "a waiter")
    waiter = wait(world, "2")

    if isinstance(end, int):
        leaving.signal(end)
    elif end == "superseded":
        newer = world.wrap("a", "--supersede")

    assert (waiter.wait(), waiter.errors()) == (status, told)
    leaving.wait()
    holder.end()
    if end == "superseded":
        newer.started().end()


def test_an_orphan_is_waited_for_until_its_processes_are_gone(world: World, gate: Gate) -> None:
    ticket = detach(world, f"(exec >/dev/null; {gate.hold}) & exec sleep 1000")
    (row,) = until(lambda: [row for row in world.status()["holders"] if row["command_pid"]], "the build")
    waiter = wait(world, str(ticket))

    os.kill(row["pid"], signal.SIGKILL)
    until(lambda: world.status()["holders"][0]["state"] == "orphaned", "an orphan")
    os.kill(row["command_pid"], signal.SIGKILL)
    until(lambda: not Path(f"/proc/{row['command_pid']}").exists(), "the end of the command")
    watches(waiter)
    late = world.run("wait", "-w", "0", str(ticket)).returncode
    still = waiter.process.poll()
    gate.open()

    told = f"ipclock: ticket {ticket} has ended without an exit status: its ipclock was killed\n"
    assert (late, still, waiter.wait(), waiter.errors()) == (75, None, 80, told)


def test_a_script_that_holds_a_slot_has_no_exit_status(world: World, gate: Gate) -> None:
    ipclock = f"{sys.executable} -m ipclock"
    script = f"t=$({ipclock} acquire -q a); echo $t; {gate.hold}; {ipclock} release $t; echo released; read word"
    shell = world.spawn("bash", "-c", script)
    ticket = shell.line()
    waiter = wait(world, ticket)

    still = waiter.process.poll()
    gate.open()

    told = f"ipclock: ticket {ticket} has ended without an exit status: no command was started in its slot by ipclock\n"
    assert (still, shell.line(), waiter.wait(), waiter.errors()) == (None, "released", 80, told)


def test_a_program_that_gives_its_slot_back_and_lives_on_is_over(world: World) -> None:
    code = "import ipclock\nwith ipclock.slot('a'): print('in', flush=True); input()\nprint('out'); input()"
    program = world.spawn(sys.executable, "-c", code)
    assert program.line() == "in"
    waiter = wait(world, "1")

    program.tell("")

    assert (waiter.wait(), program.process.poll()) == (80, None)


@pytest.mark.parametrize(("script", "status"), [("true", 0), ("exit 3", 3), ("kill -TERM $$", -15)])
def test_the_history_tells_of_those_that_ended_while_nobody_waited(
    script: str, status: int, world: World, tmp_path: Path
) -> None:
    world.env["HISTORY"] = str(tmp_path / "history.db")
    world.run("wrap", "-q", "a", "--", "sh", "-c", script)

    found = world.run("wait", "1")

    assert (found.returncode, found.stderr) == (status, "")


@pytest.mark.parametrize(
    ("options", "status", "told"),
    [
        (["-w", "0.1"], 80, "it got no slot in the time allowed"),
        (["--supersede"], 76, ""),
    ],
)
def test_the_history_tells_of_those_that_left_the_line_too(
    options: list[str], status: int, told: str, world: World, tmp_path: Path
) -> None:
    world.env["HISTORY"] = str(tmp_path / "history.db")
    holder = world.wrap("holder").started()
    waiter = world.wrap("a", *options)
    if "--supersede" in options:
        until(lambda: world.waiting() == 1, "a waiter")
        world.run("wrap", "-w", "0.5", "--supersede", "a", "--", "true")
    waiter.wait()

    found = world.run("wait", "2")

    assert (found.returncode, told in found.stderr, holder.end()) == (status, True, 0), found.stderr


def test_without_a_history_the_status_of_the_past_is_not_known_and_no_ticket_is_invented(world: World) -> None:
    world.run("wrap", "-q", "a", "--", "true")

    found = [world.run("wait", ticket) for ticket in ("1", "2", "0")]

    assert [(done.returncode, done.stderr.splitlines()[0]) for done in found] == [
        (80, "ipclock: ticket 1 has ended without an exit status: its status was not kept"),
        (2, "ipclock: no such ticket: 2"),
        (2, "ipclock: no such ticket: 0"),
    ]


def test_a_row_that_comes_right_after_the_record_has_gone_is_waited_for(world: World, tmp_path: Path) -> None:
    path = tmp_path / "history.db"
    world.run("wrap", "-q", "a", "--", "true")
    waiter = world.popen("wait", "1", env={"HISTORY": str(path)})
    until(lambda: "nanosleep" in Path(f"/proc/{waiter.pid}/wchan").read_text(), "a look for the row")

    now = time.time()
    row = Row("a", 0, "root", 1, world.name, now, 0.0, now, 0.0, now, "failed", 3, 1, 1)
    record(str(path), [row], 90)

    assert waiter.wait() == 3


def rewind(path: Path, days: int) -> None:
    """Let what stands in a history have happened so many days earlier."""
    code = (
        "import sqlite3, sys; c = sqlite3.connect(sys.argv[1])\n"
        f"c.execute('UPDATE finished SET arrived = arrived - {days * 86400}, ended = ended - {days * 86400}')\n"
        "c.commit()"
    )
    subprocess.run([sys.executable, "-c", code, path], check=True)


def test_a_row_of_before_the_machine_was_started_is_that_of_the_build_whose_log_it_matches(
    world: World, logs: Path, tmp_path: Path
) -> None:
    history, days = tmp_path / "history.db", int(time.clock_gettime(time.CLOCK_BOOTTIME) / 86400) + 1
    world.env["HISTORY"] = str(history)
    assert world.run("wait", str(detach(world, "exit 3"))).returncode == 3
    until(lambda: '"builds": 1' in world.run("stats", "--json").stdout, "its row")
    (log,) = logs.iterdir()
    stem, begun, _ = log.name.rsplit(".", 2)
    rewind(history, days)

    # the pool that it ran in is gone with the boot; then ticket 1 is drawn again
    shutil.rmtree(world.folder)
    other = world.run("wait", "1")
    log = log.rename(logs / f"{stem}.{int(begun) - days * 86400}.log")
    same = world.run("wait", "1")
    log.rename(logs / f"{stem}.{int(begun) - days * 86400 + 60}.log")
    lost = world.run("wait", "1")
    world.run("wrap", "-q", "b", "--", "true", env={"HISTORY": "off"})
    drawn = world.run("wait", "1")
    for path in logs.iterdir():
        path.unlink()
    bare = world.run("wait", "1")

    not_kept, gone = "its status was not kept", "it was lost when the machine was started anew"
    found = [(done.returncode, done.stderr.strip().rpartition(": ")[2]) for done in (other, lost, drawn, bare)]
    assert (same.returncode, found) == (3, [(80, reason) for reason in (not_kept, gone, not_kept, not_kept)])


def test_a_pool_that_is_removed_under_a_build_ends_no_wait_for_it(world: World, gate: Gate) -> None:
    holder = detach(world, f"{gate.hold}; exit 3")
    late = detach(world, "exit 4")
    waiters = [wait(world, str(ticket)) for ticket in (holder, late)]

    shutil.rmtree(world.folder)
    for waiter in waiters:
        until(lambda pid=waiter.pid: reads_a_record(world, pid), "a wait that has found the new record")
    still = [waiter.process.poll() for waiter in waiters]
    gate.open()

    assert (still, [waiter.wait() for waiter in waiters]) == ([None, None], [3, 4])


def reads_a_record(world: World, pid: int) -> bool:
    """Return whether the process has a record open that lies in the pool's folder."""
    paths = map(os.path.realpath, Path(f"/proc/{pid}/fd").iterdir())
    return any(os.path.basename(path)[0].isdigit() and os.path.exists(path) for path in paths if world.name[1:] in path)


def test_a_reset_ends_no_wait_for_a_build_that_goes_on(world: World, gate: Gate) -> None:
    ticket = detach(world, f"{gate.hold}; exit 3")
    waiter = wait(world, str(ticket))

    world.run("reset")
    assert (world.records("holding"), waiter.process.poll()) == ([], None)
    gate.open()

    assert waiter.wait() == 3


def test_a_build_whose_pool_root_takes_over_is_waited_for_to_its_end(world: World) -> None:
    needs_root(0)
    env = world.env | {"HOME": "/nonexistent"}
    build = Client("wrap", "-q", "theirs", "--", "sh", "-c", "echo ready; read word; exit 5", env=env, uid=USER)
    assert build.line() == "ready"
    before = wait(world, "1")
    assert world.run("init").returncode == 0
    after = wait(world, "1")

    still = [waiter.process.poll() for waiter in (before, after)]
    told = "ipclock: ticket 1 has ended without an exit status: its status was not kept\n"

    # its client has its last word written into the record that it has made itself
    assert (still, build.end(), before.wait(), after.wait(), after.errors()) == ([None, None], 5, 5, 80, told)
    build.close()


def test_a_build_of_another_pid_namespace_is_waited_for(world: World) -> None:
    needs_root(0)
    inside = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc", sys.executable, "-m", "ipclock"]
    build = world.spawn(*inside, "wrap", "-q", "a", "--", "sh", "-c", "echo ready; read word; exit 5")
    assert build.line() == "ready"
    waiter = world.popen("wait", "1")
    until(lambda: "poll" in Path(f"/proc/{waiter.pid}/wchan").read_text(), "a wait")

    build.tell("go")

    assert (build.wait(), waiter.wait()) == (5, 5)


def test_it_sleeps_until_there_is_something_to_tell(world: World, gate: Gate) -> None:
    holder, late = detach(world, gate.hold), detach(world, "true")
    waiters = [wait(world, *arguments) for arguments in ((str(holder), str(late)), (str(late),), ("--idle",))]
    for waiter in waiters:
        until(lambda pid=waiter.pid: "S (sleeping)" in status(pid), "a process that sleeps")

    before = [switches(waiter) for waiter in waiters]
    time.sleep(SECONDS)
    after = [switches(waiter) for waiter in waiters]
    gate.open()

    woken = [end - begin for begin, end in zip(before, after, strict=True)]
    assert (max(woken) <= ASLEEP_ONCE_MORE, [waiter.wait() for waiter in waiters]) == (True, [0, 0, 0]), woken


def status(pid: int) -> str:
    return Path(f"/proc/{pid}/status").read_text()


def switches(waiter: Build) -> int:
    """Return how often a process has been given the processor, or has given it up."""
    return sum(int(line.split()[1]) for line in status(waiter.pid).splitlines() if "ctxt_switches" in line)


def test_idle_waits_for_all_that_hold_and_wait_and_for_those_that_come(
    world: World, gate: Gate, tmp_path: Path
) -> None:
    detach(world, gate.hold)
    waiter = wait(world, "--idle")
    second = Gate(tmp_path / "second")
    detach(world, second.hold)

    early = world.run("wait", "--idle", "-w", "0")
    gate.open()
    until(lambda: world.records("holding") == ["2.1"], "the second build")
    still = waiter.process.poll()
    second.open()

    told = "ipclock: 1 running, 1 waiting; 'ipclock wait --idle' may be called again\n"
    assert (early.returncode, early.stderr, still, waiter.wait()) == (75, told, None, 0)
    assert (world.run("wait", "--idle").returncode, world.settled()) == (0, (1, {}))


def test_a_dead_holder_that_nobody_clears_away_is_no_holder(world: World) -> None:
    holder = world.wrap("holder").started()
    waiters = [wait(world, "--idle"), wait(world, "1")]
    holder.signal(signal.SIGKILL)
    holder.wait()
    os.kill(holder.command_pid, signal.SIGKILL)

    assert ([waiter.wait() for waiter in waiters], world.records("holding")) == ([0, 80], ["1.1"])


@pytest.mark.parametrize("asked", ['"$IPCLOCK_TICKET"', "--idle"])
def test_inside_a_build_its_own_end_is_not_waited_for(asked: str, world: World) -> None:
    script = f"{sys.executable} -m ipclock wait {asked}"

    done = world.run("wrap", "-q", "a", "--", "sh", "-c", script)

    told = "ipclock: this command runs inside the build that it would wait for"
    assert (done.returncode, done.stderr.splitlines()[0]) == (2, told)


def test_ctrl_c_ends_the_wait_and_nothing_of_the_build(world: World, gate: Gate) -> None:
    ticket = detach(world, f"{gate.hold}; exit 3")
    waiter, other = wait(world, str(ticket)), wait(world, str(ticket))

    waiter.signal(signal.SIGINT)

    assert (waiter.wait(), world.records("holding")) == (-signal.SIGINT, ["1.1"])
    gate.open()
    assert other.wait() == 3


def test_f_shows_the_log_meanwhile_and_a_reader_that_leaves_ends_only_that(world: World, gate: Gate) -> None:
    ticket = detach(world, f"echo one; {gate.hold}; echo two; exit 3")
    waiter, other = (wait(world, "-f", str(ticket)) for _ in range(2))
    lines = [waiter.line(), other.line()]
    assert other.process.stdout
    other.process.stdout.close()

    gate.open()

    assert (lines, waiter.line(), waiter.wait(), other.wait()) == (["one", "one"], "two", 3, 3)


def test_f_waits_too_where_the_build_keeps_no_log(world: World) -> None:
    holder = world.wrap("holder").started()
    waiter = wait(world, "-f", "1")

    assert (holder.end(3), waiter.wait()) == (3, 3)


@pytest.mark.parametrize(
    ("arguments", "status", "told"),
    [
        ((), 2, "either tickets or --idle"),
        (("1", "--idle"), 2, "either tickets or --idle"),
        (("-f", "1", "2"), 2, "-f follows one build"),
        (("-w", "never", "1"), 2, "--wait: invalid value 'never'"),
        (("staging",), 2, "TICKET: invalid value 'staging'"),
        (("1", "--engine", "zookeeper://127.0.0.1:1/pool"), 69, "not supported: wait"),
        (("1", "--name", "/no-such-pool-anywhere"), 69, "no such pool"),
        (("--idle", "--name", "/no-such-pool-anywhere"), 69, "no such pool"),
    ],
)
def test_what_it_cannot_do_is_told(arguments: tuple[str, ...], status: int, told: str, world: World) -> None:
    done = world.run("wait", *arguments)

    assert (done.returncode, told in done.stderr) == (status, True), done.stderr


def test_members_of_a_pool_wait_for_each_others_builds_and_strangers_do_not(world: World, tmp_path: Path) -> None:
    needs_root(0)
    let_everybody_in(tmp_path)
    world.run("init", "--mode", "0660", "--group", str(USER))
    (tmp_path / "home").mkdir()
    os.chown(tmp_path / "home", USER, USER)
    env = world.env | {"LOG_DIR": str(tmp_path / "home" / "logs"), "HOME": str(tmp_path / "home")}
    build = Client("wrap", "-q", "theirs", "--", "sh", "-c", "echo ready; read word; exit 5", env=env, uid=USER)
    assert build.line() == "ready"
    waiter = wait(world, "1")

    stranger = Client("wait", "1", env=world.env | {"HOME": "/nonexistent"}, uid=OTHER_USER)
    refused = stranger.wait(), "belongs to another user" in stranger.errors()

    assert (refused, build.end(), waiter.wait()) == ((77, True), 5, 5)
    for client in (stranger, build):
        client.close()
