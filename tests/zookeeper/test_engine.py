"""What the commands promise on a pool of several hosts, before a real server on loopback."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.e2e.test_acquire import LIBRARY, script
from tests.helpers.world import until

if TYPE_CHECKING:
    from pathlib import Path

    from tests.zookeeper.servers import Server
    from tests.zookeeper.world import SharedWorld


def test_fifty_waiters_are_served_in_order(shared: SharedWorld, tmp_path: Path) -> None:
    served = tmp_path / "served"
    first = shared.wrap("first").started()
    note = ("sh", "-c", f'echo "$IPCLOCK_TICKET $IPCLOCK_TOKEN" >> {served}')
    waiters = [shared.popen("wrap", "-q", "next", "--", *note) for _ in range(50)]
    until(lambda: len(shared.nodes("line")) == 50, "50 in line", 60)

    first.end()
    statuses = {waiter.process.wait(60) for waiter in waiters}

    rows = [tuple(map(int, line.split())) for line in served.read_text().splitlines()]
    tickets, tokens = zip(*rows, strict=True)
    # the token rises from one admission to the next
    assert (statuses, list(tickets), sorted(set(tokens)), shared.settled()) == (
        {0},
        list(range(2, 52)),
        list(tokens),
        (1, {}),
    )


def test_a_raised_capacity_admits_those_who_wait(shared: SharedWorld) -> None:
    builds = [shared.wrap("a", "--max-parallel-builds", "2").started(), shared.wrap("b").started()]
    more = [shared.wrap("c"), shared.wrap("d")]
    until(lambda: len(shared.nodes("line")) == 2, "two in line")

    shared.run("init", "--max-parallel-builds", "4")
    slots = sorted(int(build.started().ask("env IPCLOCK_SLOT")) for build in [*builds[:0], *more])

    assert (slots, [build.end() for build in [*builds, *more]], shared.settled()) == ([3, 4], [0] * 4, (4, {}))


def test_who_would_not_wait_gets_a_slot_that_is_free_every_time(shared: SharedWorld) -> None:
    free = [shared.run("wrap", "-n", "-q", "a", "--", "true").returncode for _ in range(10)]
    build = shared.wrap().started()
    taken = shared.run("wrap", "-n", "-q", "a", "--", "true").returncode

    assert (set(free), taken, build.end(), shared.settled()) == ({0}, 75, 0, (1, {}))


def test_an_interrupted_waiter_leaves_the_line_wherever_it_stands(shared: SharedWorld) -> None:
    build = shared.wrap().started()
    waiters = [shared.wrap() for _ in range(3)]
    until(lambda: len(shared.nodes("line")) == 3, "three in line")
    last = next(row["pid"] for row in shared.status()["waiters"] if row["position"] == 3)

    os.kill(last, signal.SIGTERM)
    until(lambda: len(shared.nodes("line")) == 2, "the last one gone")
    left = [waiter for waiter in waiters if waiter.pid != last]
    build.end()

    gone = next(waiter for waiter in waiters if waiter.pid == last)
    first, second = sorted(left, key=lambda waiter: waiter.pid)
    assert gone.wait() == -signal.SIGTERM
    ended = []
    while left:
        running = until(lambda: [one for one in left if one.process.stdout and shared.nodes("slots")], "a holder")
        holder = shared.status()["holders"]
        build = next((one for one in running if holder and one.pid == holder[0]["pid"]), None)
        if build:
            left.remove(build)
            ended.append(build.started().end())
    assert (first is not second, ended, shared.settled()) == (True, [0, 0], (1, {}))


def test_a_signal_for_the_build_reaches_it(shared: SharedWorld) -> None:
    build = shared.wrap(stub=("--report", str(int(signal.SIGTERM)))).started()

    build.signal(signal.SIGTERM)

    assert (build.line(), build.end(3), shared.settled()) == (f"signal {int(signal.SIGTERM)}", 3, (1, {}))


def test_drained_nobody_starts_until_it_is_resumed(shared: SharedWorld) -> None:
    shared.run("init")
    drained = shared.run("drain", "--reason", "maintenance").returncode
    waiter = shared.wrap()
    until(lambda: shared.records("gate"), "the waiter at the gate")
    seen = shared.status()

    resumed = shared.run("resume").returncode
    waiter.started()

    assert (drained, resumed, seen["drain"]["reason"], len(seen["waiters"])) == (0, 0, "maintenance", 1)
    assert (waiter.end(), shared.settled()) == (0, (1, {}))


def test_a_label_is_the_same_in_a_locale_without_its_letters(shared: SharedWorld) -> None:
    ascii_only = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    build = shared.wrap("스테이징 배포", env=ascii_only).started()

    shown = shared.run("status", env=ascii_only)

    assert (shared.status()["holders"][0]["label"], shown.returncode, build.end()) == ("스테이징 배포", 0, 0)
    assert ascii("스테이징 배포")[1:-1] in shown.stdout


def test_who_starts_no_build_leaves_the_number_of_slots_as_it_is(shared: SharedWorld) -> None:
    shared.run("init", "--max-parallel-builds", "2")

    for command in ("drain", "resume", "release", "reset"):
        shared.run(command, env={"MAX_PARALLEL_BUILDS": "5"})

    assert (shared.status()["capacity"], shared.settled()) == (2, (2, {}))


def test_a_drain_ends_by_itself(shared: SharedWorld) -> None:
    shared.run("init")
    shared.run("drain", "--for", "2s")
    waiter = shared.wrap()
    until(lambda: shared.records("gate"), "the waiter at the gate")

    assert (waiter.started().end(), shared.settled()) == (0, (1, {}))


def test_status_tells_host_and_session_of_holder_and_waiter(shared: SharedWorld) -> None:
    build = shared.wrap("a").started()
    waiter = shared.wrap("b")
    until(lambda: shared.records("gate"), "the waiter at the gate")

    seen = shared.status()
    text = shared.run("status").stdout

    rows = [*seen["holders"], *seen["waiters"]]
    host = socket.gethostname()
    assert [(row["host"], 0 <= row["session_s"] < 600) for row in rows] == [(host, True), (host, True)]
    assert (text.count(host), seen["holders"][0]["token"]) == (2, build.ask("env IPCLOCK_TOKEN"))
    assert (build.end(), waiter.started().end()) == (0, 0)


def test_one_whose_slot_was_reset_notices_and_gives_back_nobody_elses(shared: SharedWorld, tmp_path: Path) -> None:
    build = shared.wrap("a").started()
    waiter = shared.wrap("b")
    until(lambda: shared.records("gate"), "the waiter at the gate")

    shared.run("reset")
    waiter.started()
    until(lambda: "a reset released the slot of a" in build.heard(), "the warning")
    ended = build.end(4)
    held = shared.nodes("slots")

    assert (ended, held, waiter.end(), shared.settled()) == (4, ["2.1"], 0, (1, {}))


# The slot of a script


def test_a_script_holds_its_slot_until_it_gives_it_back(shared: SharedWorld) -> None:
    holder = script(shared, "t=$(ipclock acquire a); echo $t; read -r _; ipclock release $t; echo $?; read -r _")
    ticket = holder.line()
    row = shared.status()["holders"][0]
    holder.tell("")

    assert (ticket, row["pid"], row["label"], holder.line(), shared.nodes("slots")) == ("1", holder.pid, "a", "0", [])
    holder.tell("")
    assert (holder.wait(), shared.settled()) == (0, (1, {}))


def test_the_slot_of_a_killed_script_is_free_at_once(shared: SharedWorld) -> None:
    holder = script(shared, "ipclock acquire a; read -r _")
    holder.line()

    holder.signal(signal.SIGKILL)

    assert shared.wrap().started().end() == 0
    assert (holder.wait(), shared.settled()) == (-signal.SIGKILL, (1, {}))


def test_acquire_ends_as_its_wait_did(shared: SharedWorld) -> None:
    build = shared.wrap().started()

    late = shared.run("acquire", "-w", "0.5", "late")
    busy = shared.run("acquire", "-n", "busy")
    stopped = shared.popen("acquire", "stopped")
    until(lambda: shared.records("gate"), "the waiter at the gate")
    stopped.signal(signal.SIGTERM)

    assert (late.returncode, late.stdout, busy.returncode, stopped.wait()) == (75, "", 75, -signal.SIGTERM)
    assert (build.end(), shared.settled()) == (0, (1, {}))


def test_a_build_inside_a_build_needs_no_slot_of_its_own(shared: SharedWorld) -> None:
    inner = "python -m ipclock".replace("python", shared.python)

    done = shared.run("wrap", "outer", "--", "sh", "-c", f"{inner} wrap -w 1 inner -- echo in; {inner} acquire x")

    assert (done.returncode, done.stdout, shared.settled()) == (0, "in\n0\n", (1, {}))


def test_the_library_for_bash_holds_a_slot_of_several_hosts(shared: SharedWorld, tmp_path: Path) -> None:
    tool = tmp_path / "ipclock"
    tool.write_text(f'#!/bin/sh\nexec {shared.python} -m ipclock "$@"\n')
    tool.chmod(0o755)
    body = f"source {LIBRARY}; acquire_lock a || exit; echo held; read -r _; release_lock; echo free; read -r _"
    holder = shared.spawn("bash", "-uc", body, env={"PATH": f"{tmp_path}:{shared.env['PATH']}"})

    said = [holder.line(), shared.status()["holders"][0]["pid"]]
    holder.tell("")
    said += [holder.line(), len(shared.nodes("slots"))]
    holder.tell("")

    assert (said, holder.wait(), shared.settled()) == (["held", holder.pid, "free", 0], 0, (1, {}))


def test_finished_builds_and_scripts_are_kept_in_the_history(shared: SharedWorld, tmp_path: Path) -> None:
    shared.env["HISTORY"] = str(tmp_path / "history.db")
    shared.run("wrap", "-q", "a", "--", "false")
    holder = script(shared, "ipclock acquire -q b; read -r _")
    holder.line()
    holder.signal(signal.SIGKILL)

    def told() -> dict[str, int]:
        found = json.loads(shared.run("stats", "--json").stdout)
        return {row["label"]: row["builds"] for row in found["labels"]}

    assert until(lambda: told() if len(told()) == 2 else None, "both in the history") == {"a": 1, "b": 1}


# What this engine cannot do


def test_python_programs_are_refused(shared: SharedWorld) -> None:
    code = "import ipclock\ntry: ipclock.slot('a')\nexcept ipclock.IpclockError as error: print(error.status, error)"

    done = subprocess.run([shared.python, "-c", code], env=shared.env, capture_output=True, text=True, check=True)

    assert (done.stdout[:3], done.stdout.endswith("not supported: ipclock.slot\n")) == ("69 ", True)


@pytest.mark.parametrize(
    ("command", "asked"),
    [
        (["wrap", "--slots", "2", "a", "--", "true"], "--slots"),
        (["wrap", "--priority", "5", "a", "--", "true"], "--priority"),
        (["wrap", "--per-label", "1", "a", "--", "true"], "--per-label"),
        (["wrap", "--supersede", "a", "--", "true"], "--supersede"),
        (["wrap", "--memory", "1G", "a", "--", "true"], "MEMORY, MIN_FREE_MEMORY"),
        (["acquire", "--fd", "9", "a"], "--fd"),
        (["init", "--priority-min", "-5"], "PRIORITY_MIN"),
        (["init", "--fair", "user"], "FAIR"),
        (["init", "--mode", "0660"], "LOCK_GROUP, LOCK_MODE"),
    ],
)
def test_what_it_cannot_do_is_refused_by_name(shared: SharedWorld, command: list[str], asked: str) -> None:
    refused = shared.run(*command)

    assert (refused.returncode, refused.stdout, refused.stderr.splitlines()[0].split(": ", 3)[2:]) == (
        69,
        "",
        ["not supported", asked],
    )


@pytest.mark.parametrize("command", [["status"], ["metrics"], ["drain"], ["resume"], ["reset"]], ids=" ".join)
def test_where_there_is_no_pool_a_command_that_makes_none_says_so(shared: SharedWorld, command: list[str]) -> None:
    refused = shared.run(*command)

    assert (refused.returncode, refused.stdout, refused.stderr.splitlines()[0].partition(": no such")[2]) == (
        69,
        "",
        " pool",
    )
    assert (shared.run("release", "1").returncode, shared.client.exists(shared.name)) == (0, None)


def test_the_doctor_examines_the_settings_alone(shared: SharedWorld) -> None:
    done = shared.run("doctor", "--json")

    checks = json.loads(done.stdout)["checks"]
    rows = {row["name"]: row for row in checks}
    assert (done.returncode, rows["pool"]["level"], rows["pool"]["finding"].rpartition(": ")[2]) == (
        69,
        "bad",
        "ipclock doctor",
    )
    assert ("semaphore" in rows, rows["BUILD_TIMEOUT"]["finding"]) == (False, "600 (default)")


def test_a_reset_does_not_kill_on_other_hosts(shared: SharedWorld) -> None:
    build = shared.wrap().started()

    refused = shared.run("reset", "--kill")

    assert (refused.returncode, shared.nodes("slots"), build.end()) == (69, ["1.1"], 0)


@pytest.mark.parametrize(
    "engine",
    ["zookeeper://", "http://h/p", "zookeeper://h", "zookeeper://h/p?user=x", "zookeeper://h/p?session=1"],
)
def test_an_address_that_is_none_is_told(shared: SharedWorld, engine: str) -> None:
    refused = shared.run("status", "--engine", engine)

    assert (
        refused.returncode,
        refused.stdout,
        "zookeeper://HOST" in refused.stderr or "session=" in refused.stderr,
    ) == (
        2,
        "",
        True,
    )


def test_what_is_no_pool_is_left_alone(shared: SharedWorld) -> None:
    shared.client.create(shared.name, b"something else")

    refused = shared.run("wrap", "a", "--", "true")

    assert (refused.returncode, shared.client.get(shared.name)[0]) == (69, b"something else")


def test_without_a_server_the_commands_end_and_say_so(shared: SharedWorld, server: Server) -> None:
    engine = f"zookeeper://127.0.0.1:1{shared.name}"
    stopped = shared.popen("status", "--engine", engine)
    until(lambda: len(os.listdir(f"/proc/{stopped.pid}/task")) > 1, "its threads")
    stopped.signal(signal.SIGINT)
    interrupted = stopped.process.wait(5)  # before it would give up by itself

    done = shared.run("status", "--engine", engine)

    assert (done.returncode, done.stdout, "no ZooKeeper server responds" in done.stderr) == (69, "", True)
    assert interrupted == -signal.SIGINT


def test_a_pool_is_kept_by_its_password(shared: SharedWorld, tmp_path: Path) -> None:
    right, wrong = tmp_path / "right", tmp_path / "wrong"
    right.write_text("builds:secret\n")
    wrong.write_text("builds:guess\n")
    engine = shared.env["ENGINE"]

    made = shared.run("init", env={"ENGINE": f"{engine}&auth={right}"}).returncode
    with_it = shared.run("wrap", "-q", "a", "--", "true", env={"ENGINE": f"{engine}&auth={right}"}).returncode
    others = [
        shared.run("wrap", "a", "--", "true", env={"ENGINE": f"{engine}&auth={wrong}"}),
        shared.run("wrap", "a", "--", "true"),
        shared.run("reset", env={"ENGINE": f"{engine}&auth={wrong}"}),
    ]

    shown = "secret" in json.dumps([done.stderr for done in others])
    assert (made, with_it, [done.returncode for done in others], shown) == (0, 0, [77, 77, 77], False)


def test_nothing_of_it_is_loaded_by_a_pool_of_this_machine(shared: SharedWorld) -> None:
    command = [shared.python, "-X", "importtime", "-m", "ipclock", "wrap", "-q", "a", "--", "true"]
    run = {"capture_output": True, "text": True, "check": True}

    local = subprocess.run(command, env=shared.env | {"ENGINE": ""}, **run).stderr
    on_server = subprocess.run(command, env=shared.env, **run).stderr

    assert [("kazoo" in said, "ipclock.zookeeper.session" in said) for said in (local, on_server)] == [
        (False, False),
        (True, True),
    ]
