"""What is kept of each wait and hold, whoever has to write it."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from tests.helpers.machine import memory_group
from tests.helpers.world import script_of_nothing, until

if TYPE_CHECKING:
    from pathlib import Path

    from tests.helpers.world import Build, World


def in_line(world: World, label: str) -> Build:
    before = world.waiting()
    build = world.wrap(label)
    until(lambda: world.waiting() > before, f"{label} in line")
    return build


def rows(path: Path) -> list[tuple[object, ...]]:
    """Return what the history says of each wait or hold, without times."""
    with closing(sqlite3.connect(path)) as connection:
        query = "SELECT label, outcome, code, slots, capacity, slot FROM finished ORDER BY id"
        return connection.execute(query).fetchall()


def test_each_end_of_a_wait_or_a_hold_is_kept(world: World, tmp_path: Path) -> None:
    path = tmp_path / "history.db"
    world.env["HISTORY"] = str(path)
    world.run("wrap", "good", "--", "true")
    world.run("wrap", "bad", "--", "false")
    world.run("wrap", "killed", "--", "sh", "-c", "kill -TERM $$")
    holder = world.wrap("holder").started()
    world.run("wrap", "-w", "0.1", "late", "--", "true")
    world.run("wrap", "-n", "busy", "--", "true")
    leaving = in_line(world, "leaving")
    leaving.signal(signal.SIGINT)
    leaving.wait()
    older = in_line(world, "older")
    newer = world.wrap("older", "--supersede")
    older.wait()
    holder.end()
    newer.started().end()

    assert rows(path) == [
        ("good", "done", 0, 1, 1, 1),
        ("bad", "failed", 1, 1, 1, 1),
        ("killed", "signal", 15, 1, 1, 1),
        ("late", "timeout", None, 1, 1, None),
        ("busy", "busy", None, 1, 1, None),
        ("leaving", "interrupted", None, 1, 1, None),
        ("older", "superseded", None, 1, 1, None),
        ("holder", "done", 0, 1, 1, 1),
        ("older", "done", 0, 1, 1, 1),
    ]


def test_a_command_that_cannot_be_started_is_kept_with_its_status(world: World, tmp_path: Path) -> None:
    path = tmp_path / "history.db"
    world.env["HISTORY"] = str(path)

    commands = ("mkae", "/etc", str(script_of_nothing(tmp_path)))
    found = [world.run("wrap", "a", "--", command).returncode for command in commands]

    assert (found, rows(path)) == (
        [127, 126, 127],
        [("a", "failed", 127, 1, 1, None), ("a", "failed", 126, 1, 1, None), ("a", "failed", 127, 1, 1, None)],
    )


def test_a_history_that_cannot_be_written_costs_one_warning_and_never_the_build(world: World, tmp_path: Path) -> None:
    world.env["HISTORY"] = str(tmp_path)

    done = world.run("wrap", "-q", "a", "--", "sh", "-c", "exit 7")

    assert (done.returncode, done.stderr) == (
        7,
        f"ipclock: warning: {tmp_path}: cannot use the history: not a regular file."
        " Move the file away or set another one (HISTORY=/path); HISTORY=off keeps no history.\n",
    )


@pytest.fixture
def path(world: World, tmp_path: Path) -> Path:
    world.env["HISTORY"] = str(tmp_path / "history.db")
    return tmp_path / "history.db"


def test_a_slot_given_back_by_a_script_is_kept_as_done(world: World, path: Path) -> None:
    ticket = world.run("acquire", "--pid", str(os.getpid()), "script").stdout.strip()
    world.run("release", ticket)

    assert rows(path) == [("script", "done", None, 1, 1, 1)]


def test_a_script_that_ends_with_its_slot_is_kept_by_whoever_notices(world: World, path: Path) -> None:
    script = subprocess.Popen(["sleep", "1000"])
    world.extra.append(script.pid)
    world.run("acquire", "--pid", str(script.pid), "script")
    script.kill()
    script.wait()

    world.run("wrap", "next", "--", "true")

    assert sorted(rows(path)) == [("next", "done", 0, 1, 1, 1), ("script", "orphaned", None, 1, 1, 1)]


def test_a_build_whose_supervisor_is_killed_is_kept_once_it_ends(world: World, path: Path) -> None:
    holder = world.wrap("holder").started()
    waiter = in_line(world, "waiter")
    holder.signal(signal.SIGKILL)
    before = rows(path) if path.exists() else []
    world.kill(holder.command_pid)
    waiter.started().end()

    assert (before, sorted(rows(path))) == (
        [],
        [("holder", "orphaned", None, 1, 1, 1), ("waiter", "done", 0, 1, 1, 1)],
    )


def test_an_evicted_build_is_kept_once_and_by_its_own_supervisor(world: World, path: Path) -> None:
    build = world.wrap("build").started()
    world.run("acquire", "--pid", str(os.getpid()), "script", "--max-parallel-builds", "2")
    world.run("reset")
    before = rows(path)
    # it learns of the reset at a tick
    until(lambda: build.ask("echo") is not None and world.records("holding") == [], "the reset")
    build.end()

    assert (before, [row[:2] for row in rows(path)]) == (
        [("script", "evicted", None, 1, 2, 2)],
        [("script", "evicted"), ("build", "evicted")],
    )


def test_a_program_of_somebody_else_is_not_forked_for_it(world: World, path: Path) -> None:
    code = "import ipclock, sys; sys.addaudithook(lambda event, _: print(event) if event == 'os.fork' else None)"
    code += "\nwith ipclock.slot('program'): pass"

    build = world.spawn(world.python, "-c", code)
    build.wait()

    assert (build.process.stdout and build.process.stdout.read(), rows(path)) == (
        b"",
        [("program", "done", None, 1, 1, 1)],
    )


STAMPS = ("admitted=never", "admitted_mono=inf", "arrived=nan", "arrived_mono=1e300", "arrived=-1")


@pytest.mark.parametrize("stamp", STAMPS)
def test_a_record_that_somebody_has_damaged_is_not_kept(stamp: str, world: World, path: Path) -> None:
    ticket = world.run("acquire", "--pid", str(os.getpid()), "script").stdout.strip()
    with (world.folder / "holding" / f"{ticket}.1").open("a") as record:
        record.write(f"{stamp}\n")

    released = world.run("release", ticket)

    assert (released.returncode, released.stderr, path.exists()) == (0, "", False)


def test_what_somebody_has_written_into_a_dead_ones_record_costs_no_other_row(world: World, path: Path) -> None:
    script = subprocess.Popen(["sleep", "1000"])
    world.extra.append(script.pid)
    ticket = world.run("acquire", "--pid", str(script.pid), "script").stdout.strip()
    with (world.folder / "holding" / f"{ticket}.1").open("ab") as record:
        record.write(b"label=\xff\x1b[2J" + b"x" * 1000 + b"\n")
    script.kill()
    script.wait()

    world.run("wrap", "next", "--", "true")

    (label, *_), last = sorted(rows(path), key=lambda row: row[0] == "next")
    assert (str(label).isprintable(), str(label)[-9:], last) == (True, "x" * 9, ("next", "done", 0, 1, 1, 1))


def test_a_record_that_lacks_a_time_is_not_kept(world: World, path: Path) -> None:
    ticket = world.run("acquire", "--pid", str(os.getpid()), "script").stdout.strip()
    record = world.folder / "holding" / f"{ticket}.1"
    record.write_text(record.read_text().replace("admitted_mono=", "other="))

    released = world.run("release", ticket)

    assert (released.returncode, released.stderr, path.exists()) == (0, "", False)


def test_the_memory_of_a_build_is_its_own_and_not_that_of_what_runs_it(world: World, tmp_path: Path) -> None:
    path = tmp_path / "history.db"
    world.env["HISTORY"] = str(path)
    grow = "bytearray(b'1') * (50 << 20)"

    world.run("wrap", "tiny", "--", "true")
    world.run("wrap", "grown", "--", world.python, "-I", "-S", "-c", grow)
    shown = {row["label"]: row["memory"] for row in json.loads(world.run("stats", "--json").stdout)["labels"]}

    with closing(sqlite3.connect(path)) as connection:
        kept = dict(connection.execute("SELECT label, memory FROM finished").fetchall())
    # where `true` takes longer than to the first look it is known
    tiny, grown = kept["tiny"] or 0, kept["grown"]
    assert (tiny < 4 << 20, 50 << 20 <= grown < 70 << 20) == (True, True)
    assert ((shown["tiny"] or {"p50": 0})["p50"], shown["grown"]["p50"]) == (tiny, grown)


def test_a_build_that_the_kernel_ended_for_want_of_memory_is_told_with_what_ran_beside_it(
    world: World, tmp_path: Path
) -> None:
    group = memory_group(f"ipclock-test-{os.getpid()}", 100 << 20)
    path = tmp_path / "history.db"
    world.env["HISTORY"] = str(path)
    world.ask("init", "--max-parallel-builds", "2")
    beside = world.wrap("beside").started()
    enter = f"echo $$ >{group}/cgroup.procs; exec {world.python} -c 'bytearray(300 << 20)'"

    try:
        done = world.run("wrap", "-q", "greedy", "--", "sh", "-c", enter)
    finally:
        until(lambda: not (group / "cgroup.procs").read_text(), "the group empty")
        group.rmdir()

    told = ": out of memory; also running: beside\n"
    assert (done.returncode, done.stderr.endswith(told), rows(path), beside.end()) == (
        -signal.SIGKILL,
        True,
        [("greedy", "oom", 9, 1, 2, 2)],
        0,
    )
