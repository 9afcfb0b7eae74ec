"""`status` and `reset`: what they show, and what they leave alone."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from datetime import datetime
from typing import TYPE_CHECKING

import pytest

from ipclock.linux.locks import try_lock
from tests.helpers.terminal import Terminal
from tests.helpers.world import until

if TYPE_CHECKING:
    from tests.helpers.world import World

IPCLOCK = [sys.executable, "-m", "ipclock"]
HOLDER = {
    "ticket": int,
    "slot": int,
    "slots": int,
    "label": str,
    "pid": int,
    "command_pid": int,
    "user": str,
    "since": str,
    "held_s": float,
    "state": str,
    "here": bool,
    "processes": list,
    "within": type(None),
    "host": str,
    "session_s": type(None),
    "token": str,
    "command": str,
    "cpu_s": float,
    "memory": int,
    "usual_s": type(None),
}
WAITER = {
    "ticket": int,
    "position": int,
    "slots": int,
    "priority": int,
    "held_back": str,
    "label": str,
    "pid": int,
    "user": str,
    "since": str,
    "waited_s": float,
    "timeout_s": float,
    "at_gate": bool,
    "host": str,
    "session_s": type(None),
    "left_s": type(None),
}
POOL = {
    "schema": int,
    "name": str,
    "capacity": int,
    "taken": int,
    "free": int,
    "drained": bool,
    "drain": type(None),
    "resized": type(None),
    "holders": list,
    "waiters": list,
    "made": bool,
    "folder": str,
    "unlisted": int,
    "unlisted_pids": list,
}


def types(row: dict[str, object]) -> dict[str, type]:
    return {key: type(value) for key, value in row.items()}


def test_json_has_the_documented_keys_and_types(world: World) -> None:
    holder = world.noted(world.wrap("Staging Deployment 배포"))
    first = world.wrap("first", "-w", "10m")
    until(lambda: world.records("gate"), "the first waiter at the gate")
    second = world.wrap("second")
    until(lambda: world.waiting() == 2, "the second waiter in line")

    pool = world.status()

    assert (types(pool), [types(row) for row in pool["holders"]], [types(row) for row in pool["waiters"]]) == (
        POOL,
        [HOLDER],
        [WAITER, WAITER],
    )
    row = pool["holders"][0]
    assert (pool["schema"], row["label"], row["user"], row["slot"]) == (1, "Staging Deployment 배포", "root", 1)
    assert datetime.fromisoformat(row["since"]).utcoffset() is not None
    assert [(w["position"], w["timeout_s"], w["at_gate"]) for w in pool["waiters"]] == [(1, 600, True), (2, 600, False)]
    assert (holder.end(), first.started().end(), second.started().end()) == (0, 0, 0)


def test_schema_2_is_shown_to_who_asks_for_it_and_schema_1_to_the_others(world: World) -> None:
    holder = world.wrap("staging").started()

    first, one, two = (json.loads(world.run("status", word).stdout) for word in ("--json", "--json=1", "--json=2"))

    row = two["holders"][0]
    assert (set(first), set(one), first["schema"], one["schema"], two["schema"]) == (set(POOL), set(POOL), 1, 1, 2)
    assert (two["slots"], two["slots_in_use"], two["drain"], two["made"], row["label"]) == (1, 1, None, True, "staging")
    assert (types(row)["held_seconds"], types(row)["memory_bytes"], "stub_build" in row["command"]) == (
        float,
        int,
        True,
    )
    assert (row["host"], row["token"], row["usual_seconds"], holder.end()) == (None, None, None, 0)


def test_status_takes_no_mutex_and_writes_nothing(world: World) -> None:
    world.ask("init")
    fd = os.open(world.folder / "mutex", os.O_RDWR)
    assert try_lock(fd)

    def stamps() -> dict[str, tuple[int, int]]:
        paths = [world.folder, *world.folder.rglob("*")]
        return {str(path): (path.stat().st_mtime_ns, path.stat().st_ctime_ns) for path in paths}

    before = stamps()
    result = world.run("status")
    os.close(fd)

    assert (result.returncode, stamps() == before) == (0, True)


def test_the_text_shows_holders_and_the_line(world: World) -> None:
    holder = world.noted(world.wrap("Staging Deployment"))
    waiter = world.wrap("next")
    until(lambda: world.records("gate"), "the waiter at the gate")

    lines = world.run("status").stdout.splitlines()

    told = [line for line in lines if not line.startswith("      ")]  # where they come from: test_status_facts
    assert [re.sub(r"[0-9.]+ (MB|GB)$", "n MB", line.split("] ")[-1]) for line in told] == [
        "⏳ builds running: 1/1",
        f"Staging Deployment (PID: {holder.command_pid}) · ticket 1 · n MB",
        "⏳ builds waiting: 1",
        f"next (PID: {waiter.pid}) waiting for 0 s · ticket 2",
    ]
    assert (holder.end(), waiter.started().end()) == (0, 0)


def test_a_reset_names_every_living_build_and_lets_it_go_on(world: World) -> None:
    builds = [world.noted(world.wrap(label, "--max-parallel-builds", "2")) for label in ("one", "two")]

    reset = world.run("reset")

    assert (reset.returncode, reset.stdout, reset.stderr.splitlines()) == (
        0,
        "",
        [
            f"ipclock: one (PID: {builds[0].command_pid}) lost its slot; the build keeps running",
            f"ipclock: two (PID: {builds[1].command_pid}) lost its slot; the build keeps running",
            "✓ all locks have been released.",
        ],
    )
    assert (world.value(), [build.end(3) for build in builds], world.settled()) == (2, [3, 3], (2, {}))


def test_a_reset_of_one_ticket_frees_one_slot(world: World) -> None:
    builds = [world.wrap(label, "--max-parallel-builds", "2").started() for label in ("one", "two")]

    reset = world.run("reset", "1")

    assert (reset.returncode, reset.stderr.splitlines()[-1]) == (0, "✓ the slot of ticket 1 has been released.")
    assert ([row["label"] for row in world.status()["holders"]], world.value()) == (["two"], 1)
    assert ([build.end() for build in builds], world.settled()) == ([0, 0], (2, {}))


def test_the_end_of_an_evicted_build_gives_nobody_a_slot(world: World) -> None:
    evicted = world.wrap("evicted").started()
    world.run("reset")
    holder = world.wrap("holder").started()
    waiter = world.wrap("waiter")
    until(lambda: world.records("gate"), "the waiter at the gate")

    evicted.end()

    assert (world.value(), world.records("gate"), world.records("holding")) == (0, ["3"], ["2.1"])
    assert (holder.end(), waiter.started().end(), world.settled()) == (0, 0, (1, {}))


def test_an_unknown_ticket_is_told(world: World) -> None:
    world.ask("init")

    result = world.run("reset", "17")

    assert (result.returncode, result.stderr.splitlines()[0]) == (2, "ipclock: no such ticket: 17")


@pytest.mark.timeout(90)
def test_a_reset_names_who_keeps_the_mutex_and_leaves(world: World) -> None:
    world.ask("init")
    fd = os.open(world.folder / "mutex", os.O_RDWR)
    assert try_lock(fd)
    os.pwrite(fd, b"%-20d\n" % os.getpid(), 0)

    result = world.run("reset")
    os.close(fd)

    assert (result.returncode, result.stderr.splitlines()) == (
        75,
        [
            f"⏳ the pool is locked by process {os.getpid()}, which does not respond",
            f"❌ {world.folder}: the pool is locked by process {os.getpid()}, which does not respond",
            f"   Continue the process (kill -CONT {os.getpid()}) or kill it (kill -KILL {os.getpid()}).",
        ],
    )


def test_a_release_of_a_ticket_that_is_gone_is_a_warning_and_of_somebody_elses_is_refused(world: World) -> None:
    holder = world.noted(world.wrap("holder"))

    gone = world.run("release", "99")
    foreign = world.run("release", "1")

    assert (gone.returncode, gone.stderr) == (0, "ipclock: warning: no slot to release (ticket 99)\n")
    assert (foreign.returncode, foreign.stderr.splitlines()) == (
        77,
        [
            f"ipclock: the slot of ticket 1 belongs to another build: holder (PID: {holder.command_pid})",
            "   The build releases its slot by itself, at the latest when it ends.",
        ],
    )
    assert (world.records("holding"), holder.end()) == (["1.1"], 0)


def test_a_slot_acquired_for_a_process_ends_with_that_process(world: World) -> None:
    owner = subprocess.Popen(["sleep", "1000"])
    world.extra.append(owner.pid)
    taken = world.run("acquire", "--pid", str(owner.pid), "bound")
    holder = world.status()["holders"][0]
    waiter = world.wrap("next")
    until(lambda: world.records("gate"), "the waiter at the gate")

    owner.kill()
    owner.wait()

    assert (taken.returncode, taken.stdout, holder["pid"], holder["state"]) == (0, "1\n", owner.pid, "running")
    assert (waiter.started().end(), world.settled()) == (0, (1, {}))


def test_a_label_that_somebody_wrote_with_control_characters_is_shown_escaped(world: World) -> None:
    holder = world.noted(world.wrap("holder"))
    with (world.folder / "holding" / "1.1").open("a") as record:
        record.write("label=\x1b[2Jgone\n")

    text, pool = world.run("status").stdout, world.status()

    assert ("\x1b" in text, pool["holders"][0]["label"], holder.end()) == (False, "\\x1b[2Jgone", 0)


def test_a_record_holds_no_command_line_and_no_environment(world: World) -> None:
    holder = world.noted(world.wrap("holder", stub=("--report", "12"), env={"PASSWORD": "s3cret"}))

    text = (world.folder / "holding" / "1.1").read_text()
    told = world.run("status", "--json").stdout

    keys = {line.partition("=")[0] for line in text.splitlines()}
    assert (keys, "s3cret" in text + told, "--report" in text, holder.end()) == (
        {
            *("kind", "label", "process", "waiter", "caller", "uid", "timeout"),
            *("arrived", "arrived_mono", "admitted", "admitted_mono", "command_pid", "command_start"),
        },
        False,
        False,
        0,
    )


def test_the_tickets_that_are_shown_are_those_that_a_reset_takes(world: World) -> None:
    holder = world.noted(world.wrap("Staging Deployment"))
    waiter = world.wrap("next")
    until(lambda: world.records("gate"), "the waiter at the gate")

    lines = world.run("status", env={"IPCLOCK_LANG": "ko"}).stdout.splitlines()

    # two lines are asked for to the letter; more may follow on them
    assert lines[0] == "⏳ 진행 중인 빌드: 1/1"
    begun = rf"  - \[\d{{4}}(-\d\d){{2}} \d\d(:\d\d){{2}}\] Staging Deployment \(PID: {holder.command_pid}\)"
    shown = re.match(rf"{begun} · 티켓 (\d+)(?: ·|$)", lines[1])
    assert shown
    assert any(line.endswith(" · 티켓 2") for line in lines)
    assert world.run("reset", shown[3], env={"IPCLOCK_LANG": "en"}).stderr.splitlines()[-1] == (
        "✓ the slot of ticket 1 has been released."
    )
    assert (waiter.started().end(), holder.end()) == (0, 0)


STYLE = "\x1b["


@pytest.mark.parametrize(
    ("option", "env", "is_coloured"),
    [
        ((), {}, False),
        ((), {"FORCE_COLOR": "1"}, True),
        ((), {"FORCE_COLOR": "1", "NO_COLOR": "1"}, False),
        (("--color", "always"), {"NO_COLOR": "1"}, True),
        (("--color=never",), {"FORCE_COLOR": "1"}, False),
        (("--color", "auto"), {"FORCE_COLOR": "1"}, True),
    ],
)
def test_a_pipe_has_the_same_lines_with_colours_where_they_are_asked_for(
    world: World, option: tuple[str, ...], env: dict[str, str], is_coloured: bool
) -> None:
    world.ask("init")
    plain = world.run("status").stdout

    shown = world.run("status", *option, env=env).stdout

    assert (re.sub(r"\x1b\[\d*m", "", shown), STYLE in shown) == (plain, is_coloured)


@pytest.mark.parametrize(
    ("option", "env", "is_coloured"),
    [
        ((), {}, True),
        ((), {"NO_COLOR": "1"}, False),
        (("--color", "never"), {"FORCE_COLOR": "1"}, False),
        (("--color", "always"), {"NO_COLOR": "1"}, True),
    ],
)
def test_a_terminal_has_colours_unless_they_are_refused(
    world: World, option: tuple[str, ...], env: dict[str, str], is_coloured: bool
) -> None:
    world.ask("init")
    terminal = Terminal([*IPCLOCK, "status", *option], world.env | {"TERM": "xterm"} | env)
    try:
        assert (terminal.wait(), STYLE in terminal.text) == (0, is_coloured)
    finally:
        terminal.close()


def test_another_word_for_colours_is_a_mistake(world: World) -> None:
    done = world.run("status", "--color", "sometimes")

    assert (done.returncode, "--color" in done.stderr, "auto, always or never" in done.stderr) == (2, True, True)
