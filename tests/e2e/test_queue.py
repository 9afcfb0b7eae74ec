"""What may run beside what, and who comes first: slots of several builds, labels, priorities, superseding, draining."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from ipclock.linux import descriptors
from ipclock.linux.locks import try_lock
from ipclock.pool.record_name import key_of
from tests.helpers.crash_at import USER, Client, needs_root
from tests.helpers.freezer import Freezer, is_there
from tests.helpers.world import until

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.helpers.world import Build, World

BUILD = ("sh", "-c", "echo ready; cat")


def in_line(world: World, label: str, *options: str, count: int = 1) -> Build:
    """Return a build that waits, with so many in line."""
    build = world.wrap(label, *options)
    until(lambda: world.waiting() == count, f"{label} in line")
    return build


# Labels


def test_two_builds_of_a_label_run_one_after_the_other_and_others_pass(world: World) -> None:
    world.ask("init", "--max-parallel-builds", "2")
    first = world.wrap("a", "--per-label", "1").started()
    second = in_line(world, "a", "--per-label", "1")

    other = world.wrap("b", "--per-label", "1").started()
    waiter = world.status()["waiters"][0]
    other_ended = other.end()
    kept = world.waiting()
    first.end()

    assert (waiter["held_back"], other_ended, kept, second.started().end(), world.settled()) == (
        "label",
        0,
        1,
        0,
        (2, {}),
    )


def test_a_waiter_is_told_that_its_label_runs(world: World) -> None:
    world.ask("init", "--max-parallel-builds", "2")
    first = world.wrap("a").started()
    second = world.wrap("a", "-w", "0.5", env={"MAX_PER_LABEL": "1"})

    assert (second.wait(), "another build of this label is running" in second.errors(), first.end()) == (75, True, 0)


def test_a_build_that_wants_to_be_alone_gets_no_company_of_its_label(world: World) -> None:
    world.ask("init", "--max-parallel-builds", "2")
    first = world.wrap("a", "--per-label", "1").started()

    refused = world.run("wrap", "-n", "a", "--", "true").returncode
    other = world.run("wrap", "-n", "b", "--", "true").returncode

    assert (refused, other, first.end()) == (75, 0, 0)


# Slots


def test_a_build_takes_as_many_slots_as_it_asks_for(world: World) -> None:
    world.ask("init", "--max-parallel-builds", "3")
    heavy = world.wrap("heavy", "--slots", "2").started()
    light = world.wrap("light").started()

    pool = world.status()
    full = (world.value(), world.run("wrap", "-n", "late", "--", "true").returncode)

    assert (pool["taken"], [row["slots"] for row in pool["holders"]], full) == (3, [2, 1], (0, 75))
    assert (heavy.ask("env IPCLOCK_SLOT"), light.ask("env IPCLOCK_SLOT")) == ("1", "2")
    assert (heavy.end(), light.end(), world.settled()) == (0, 0, (3, {}))


def test_a_heavy_build_at_the_head_is_not_starved_by_light_ones(world: World) -> None:
    world.ask("init", "--max-parallel-builds", "2")
    first = world.wrap("first").started()
    heavy = in_line(world, "heavy", "--slots", "2")
    until(lambda: world.records("gate") == ["2,u2,r1"], "the free slot reserved")
    light = in_line(world, "light", count=2)

    value = world.value()
    first.end()
    heavy.started()
    behind = world.waiting()

    assert (value, behind, heavy.end(), light.started().end(), world.settled()) == (0, 1, 0, 0, (2, {}))


@pytest.mark.parametrize("ending", ["TERM", "KILL"])
def test_what_was_reserved_for_one_that_leaves_is_given_on(ending: str, world: World) -> None:
    world.ask("init", "--max-parallel-builds", "2")
    first = world.wrap("first").started()
    heavy = in_line(world, "heavy", "--slots", "2")
    until(lambda: world.records("gate") == ["2,u2,r1"], "the free slot reserved")
    light = in_line(world, "light", count=2)

    heavy.signal(signal.Signals[f"SIG{ending}"])
    light.started()

    assert (heavy.wait() < 0, light.end(), first.end(), world.settled()) == (True, 0, 0, (2, {}))


def test_more_slots_than_there_are_is_refused_at_once(world: World) -> None:
    done = world.run("wrap", "--slots", "3", "a", "--", "true")

    assert (done.returncode, done.stderr.splitlines(), world.settled()) == (
        78,
        [
            "ipclock: 3 slots requested, but the pool has 1",
            "   Request fewer slots (--slots), or raise MAX_PARALLEL_BUILDS.",
        ],
        (1, {}),
    )


def test_a_build_too_heavy_for_a_lowered_capacity_is_told_and_lets_others_pass(world: World) -> None:
    world.ask("init", "--max-parallel-builds", "2")
    first = world.wrap("first").started()
    heavy = in_line(world, "heavy", "--slots", "2", "-w", "20")

    world.ask("init", "--max-parallel-builds", "1")
    first.end()
    light = world.run("wrap", "-w", "20", "light", "--", "true").returncode
    waiter = world.status()["waiters"][0]
    until(lambda: "needs 2 of 1 slots" in heavy.heard(), "the heavy one to say why it waits")
    world.ask("init", "--max-parallel-builds", "2")

    assert (light, waiter["held_back"], heavy.started().end(), world.settled()) == (0, "size", 0, (2, {}))


# Priority


def test_a_hotfix_goes_to_the_head_of_the_line_but_past_no_running_build(world: World) -> None:
    running = world.wrap("running").started()
    first = in_line(world, "first")
    second = in_line(world, "second", count=2)

    hotfix = in_line(world, "hotfix", "--priority", "-5", count=3)
    until(lambda: world.records("gate") == ["4,p-5"], "the hotfix at the gate")
    shown = [(row["label"], row["priority"], row["position"]) for row in world.status()["waiters"]]
    order = [running.end(), hotfix.started().end(), first.started().end(), second.started().end()]

    assert (shown, order, world.settled()) == (
        [("hotfix", -5, 1), ("first", 0, 2), ("second", 0, 3)],
        [0] * 4,
        (1, {}),
    )


def test_others_than_root_may_ask_for_a_favour_only_where_the_pool_allows_it(world: World) -> None:
    needs_root(0)
    env = world.env | {"HOME": "/nonexistent"}

    def run(*arguments: str) -> tuple[int, str]:
        client = Client(*arguments, env=env, uid=USER)
        ended = client.end(), client.errors()
        client.close()
        return ended

    hurry = ("wrap", "-q", "--priority", "-5", "a", "--", "true")
    refused = run(*hurry)
    nice = run("wrap", "-q", "--priority", "5", "a", "--", "true")[0]
    allowed = (run("init", "--priority-min", "-5")[0], run(*hurry)[0])

    assert (refused, nice, allowed) == (
        (
            77,
            "ipclock: priority -5 is not allowed: the lowest in this pool is 0\n"
            "   'ipclock init --priority-min -5' allows it.\n",
        ),
        0,
        (0, 0),
    )


# Supersede


@pytest.mark.parametrize("place", ["gate", "queued"])
def test_a_newer_build_takes_the_place_of_an_older_one_that_waits(place: str, world: World) -> None:
    running = world.wrap("app").started()
    other = in_line(world, "other") if place == "queued" else None
    older = in_line(world, "app", count=1 + bool(other))

    newer = world.wrap("app", "--supersede")
    left = older.wait()
    running.end()
    if other:
        other.started().end()
    newer.started()

    ticket = 3 + bool(other)
    assert (left, older.errors().splitlines()[-1]) == (
        76,
        f"ipclock: app: superseded by a newer build of the same label (ticket {ticket}, PID: {newer.pid})",
    )
    assert (newer.end(), world.settled()) == (0, (1, {}))


def test_a_label_that_only_resembles_another_one_by_its_sum_supersedes_nobody(world: World) -> None:
    holder = world.wrap("holder").started()
    older = in_line(world, "app-29685295", count=1)

    newer = in_line(world, "app-32060020", "--supersede", count=2)

    assert (key_of("app-29685295"), holder.end(), older.started().end(), newer.started().end()) == (
        key_of("app-32060020"),
        0,
        0,
        0,
    )


def test_superseding_touches_neither_running_builds_nor_other_labels(world: World) -> None:
    running = world.wrap("app").started()
    other = in_line(world, "other")

    newer = in_line(world, "app", "--supersede", count=2)

    assert (running.end(), other.started().end(), newer.started().end(), world.settled()) == (0, 0, 0, (1, {}))


# Clients that do not act


@pytest.mark.skipif(not is_there(), reason="no freezer of cgroups that we may use")
def test_a_frozen_waiter_is_passed_over_and_comes_to_its_turn_once_it_acts_again(world: World) -> None:
    holder = world.wrap("holder").started()
    waiter = in_line(world, "waiter")
    until(lambda: world.records("gate"), "the waiter at the gate")
    last = in_line(world, "last", count=2)

    ice = Freezer(waiter.pid, world.name[1:])
    holder.end()
    last.started()
    shown = world.run("status", "--json").stdout
    passed = [(row["label"], row["held_back"]) for row in json.loads(shown)["waiters"]]
    ice.thaw()
    until(lambda: world.records("queued") == [] and world.records("gate") == ["2"], "the waiter at the gate again")
    ended = last.end(), waiter.started().end()

    assert (passed, ended, world.settled()) == ([("waiter", "silent")], (0, 0), (1, {}))


def test_a_waiter_that_is_stopped_in_another_pid_namespace_is_passed_over(world: World) -> None:
    holder = world.wrap("holder").started()
    command = (sys.executable, "-m", "ipclock", "wrap", "-q", "waiter", "--", "true")
    world.spawn("unshare", "--pid", "--fork", "--mount-proc", "--kill-child", *command)
    until(lambda: world.records("gate"), "the waiter at the gate")
    stranger = children_of(world.builds[-1].pid)[0]

    os.kill(stranger, signal.SIGSTOP)
    holder.end()
    last = world.wrap("last").started()
    os.kill(stranger, signal.SIGCONT)

    assert (last.end(), world.builds[1].wait()) == (0, 0)
    assert world.settled() == (1, {})


def children_of(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


# Drain


def test_a_drained_pool_tells_everybody_why_and_starts_nothing_until_it_is_resumed(world: World) -> None:
    running = world.wrap("running").started()

    drained = world.run("drain", "--reason", "disk is being replaced")
    ended = running.end()
    waiter = in_line(world, "waiter")
    pool, text = world.status(), world.run("status").stdout
    impatient = world.run("wrap", "-w", "1", "impatient", "--", "true")
    value, refused = world.value(), world.run("wrap", "-n", "late", "--", "true").returncode
    resumed = world.run("resume")
    waiter.started()

    told = "drained by root: disk is being replaced"
    assert (drained.returncode, drained.stderr) == (0, f"✓ {told} (1 running, 0 waiting)\n")
    assert (ended, value, refused, told in text, pool["free"]) == (0, 0, 75, True, 0)
    assert pool["drain"] == {"reason": "disk is being replaced", "user": "root", "until": None}
    assert (impatient.returncode, told in impatient.stderr) == (75, True)
    assert (resumed.stderr, waiter.end()) == ("✓ new builds are accepted again.\n", 0)
    assert world.settled() == (1, {})


def test_a_drain_ends_by_itself(world: World) -> None:
    world.ask("init")
    world.run("drain", "--for", "1")
    waiter = world.wrap("waiter", "-w", "25")

    assert (waiter.started().end(), world.status()["drained"], world.settled()) == (0, False, (1, {}))


def test_a_drain_that_ends_on_another_day_says_which(world: World) -> None:
    world.ask("init")

    told = world.run("drain", "--for", "3d").stderr

    assert time.strftime(" until %Y-%m-%d ", time.localtime(time.time() + 3 * 86400)) in told


def test_no_slots_at_all_is_a_drain(world: World) -> None:
    world.ask("init", "--max-parallel-builds", "0")
    waiter = in_line(world, "waiter")
    text, resumed = world.run("status").stdout, world.run("resume").stderr
    world.ask("init", "--max-parallel-builds", "1")

    assert ("drained: MAX_PARALLEL_BUILDS=0" in text, resumed) == (
        True,
        "ipclock: warning: no build starts while MAX_PARALLEL_BUILDS is 0\n",
    )
    assert (waiter.started().end(), world.settled()) == (0, (1, {}))


@pytest.mark.parametrize("options", [["--for", "0"], ["--for", "soon"], ["--for", "100000000d"], ["--reason", "a\nb"]])
def test_a_senseless_drain_is_a_usage_mistake(options: list[str], world: World) -> None:
    done = world.run("drain", *options)

    assert (done.returncode, done.stderr.startswith(f"ipclock: {options[0]}: invalid value")) == (2, True)


# The number of slots


@pytest.fixture(params=["environment", "file"])
def said(request: pytest.FixtureRequest, tmp_path: Path) -> dict[str, str]:
    """The environment of a command for which MAX_PARALLEL_BUILDS is 5."""
    if request.param == "environment":
        return {"MAX_PARALLEL_BUILDS": "5"}
    file = tmp_path / "build-config.sh"
    file.write_text("MAX_PARALLEL_BUILDS=5\n")
    return {"IPCLOCK_CONFIG": str(file)}


def test_who_starts_no_build_leaves_the_number_of_slots_as_it_is(world: World, said: dict[str, str]) -> None:
    world.ask("init", "--max-parallel-builds", "2")
    ticket = world.run("acquire", "a").stdout.strip()

    commands = ("release " + ticket, "drain", "resume", "reset", "status", "stats", "metrics", "doctor")
    seen = {}
    for command in commands:
        world.run(*command.split(), env=said)
        seen[command] = (world.status()["capacity"], world.value())

    assert seen == {command: (2, 0 if command == "drain" else 2) for command in commands}


def test_who_starts_a_build_or_makes_the_pool_says_how_many_slots_there_are(world: World, said: dict[str, str]) -> None:
    seen = []
    for command in (["wrap", "a", "--", "true"], ["acquire", "a"], ["init"]):
        world.ask("init", "--max-parallel-builds", "2")
        seen.append((world.run(*command, env=said).returncode, world.status()["capacity"]))

    assert seen == [(0, 5)] * 3


def replaced_in_place(path: Path, text: str) -> None:
    path.write_text(text)


def replaced_by_rename(path: Path, text: str) -> None:
    draft = path.with_suffix(".new")
    draft.write_text(text)
    draft.rename(path)


@pytest.fixture
def settings(world: World, tmp_path: Path) -> Path:
    """The settings file of all commands, which gives two slots."""
    file = tmp_path / "build-config.sh"
    file.write_text("MAX_PARALLEL_BUILDS=2\n")
    world.env["IPCLOCK_CONFIG"] = str(file)
    return file


LIBRARY = """
import ipclock
with ipclock.slot("waiter"):
    print("ready 0", flush=True)
    input()
"""


@pytest.mark.parametrize("replace", [replaced_in_place, replaced_by_rename])
@pytest.mark.parametrize("program", [None, LIBRARY], ids=["command", "library"])
def test_a_lowered_number_lets_nobody_in_beside_the_one_who_is_left(
    program: str | None, replace: Callable[[Path, str], None], world: World, settings: Path
) -> None:
    first, second = world.wrap("first").started(), world.wrap("second").started()
    waiter = in_line(world, "waiter") if program is None else world.spawn(sys.executable, "-c", program)
    until(lambda: world.records("gate"), "the waiter at the gate")

    replace(settings, "MAX_PARALLEL_BUILDS=1 # from now on\n")
    first.end()
    until(lambda: world.status()["capacity"] == 1 or len(world.records("holding")) == 2, "the waiter's decision")

    assert (len(world.records("holding")), world.waiting()) == (1, 1)
    assert (second.end(), waiter.started().end(), world.settled()) == (0, 0, (1, {}))


@pytest.mark.parametrize("options", [(), ("-n",)])
def test_a_newcomer_goes_by_what_the_file_says_when_its_turn_to_decide_has_come(
    options: tuple[str, ...], world: World, settings: Path
) -> None:
    first = world.wrap("first").started()
    mutex = os.open(world.folder / "mutex", os.O_RDWR)
    assert try_lock(mutex)
    late = world.wrap("late", *options)
    until(lambda: descriptors.open_descriptors(*inode(mutex), late.pid), "the newcomer before the mutex")

    settings.write_text("MAX_PARALLEL_BUILDS=1 # from now on\n")
    os.close(mutex)
    until(lambda: late.process.poll() is not None or world.waiting() or len(world.records("holding")) == 2, "its way")
    decided = (len(world.records("holding")), world.waiting())
    first.end()
    status = late.wait() if options else late.started().end()

    assert (decided, status, world.settled()) == ((1, 0) if options else (1, 1), 75 if options else 0, (1, {}))


def inode(fd: int) -> tuple[int, int]:
    """Return device and inode of an open file."""
    status = os.fstat(fd)
    return status.st_dev, status.st_ino


@pytest.mark.parametrize("text", ["MAX_PARALLEL_BUILDS=", "MAX_PARALLEL_BUILDS='1", "", None])
def test_a_file_that_says_nothing_now_changes_nothing(text: str | None, world: World, settings: Path) -> None:
    first, second = world.wrap("first").started(), world.wrap("second").started()
    waiter = in_line(world, "waiter")

    settings.unlink() if text is None else settings.write_text(text)
    first.end()
    waiter.started()

    del world.env["IPCLOCK_CONFIG"]  # it is half written, which a new command refuses
    assert (world.status()["taken"], waiter.end(), second.end(), world.settled()) == (2, 0, 0, (2, {}))


# Memory


def test_a_build_waits_for_memory_while_another_one_runs_and_says_so(world: World) -> None:
    world.ask("init", "--max-parallel-builds", "2")
    first = world.wrap("first").started()

    waiter = world.wrap("greedy", "--memory", "100T", "-w", "2")

    assert (waiter.wait(), "waiting for memory: " in (told := waiter.errors()), "of 102400.0 GB" in told) == (
        75,
        True,
        True,
    )
    assert (first.end(), world.settled()) == (0, (2, {}))


def test_a_build_that_waits_for_memory_goes_when_nobody_else_runs_with_a_warning(world: World) -> None:
    world.ask("init", "--max-parallel-builds", "2")
    first = world.wrap("first").started()
    waiter = world.wrap("greedy", env={"MIN_FREE_MEMORY": "100T"})
    until(lambda: world.records("gate") == ["2,r1"], "the slot reserved for the one that waits for memory")

    first.end()
    waiter.started()

    assert (waiter.end(), world.settled()) == (0, (2, {}))
    assert "of 102400.0 GB are free; the build starts because no other build is running" in waiter.errors()


def test_a_build_whose_memory_is_there_starts_at_once(world: World) -> None:
    world.ask("init", "--max-parallel-builds", "2")
    first = world.wrap("first", "--memory", "1M").started()

    second = world.run("wrap", "-n", "--memory", "1M", "second", "--", "true")

    assert (second.returncode, first.end(), world.settled()) == (0, 0, (2, {}))


def test_running_builds_are_reckoned_with_what_they_have_still_to_grow(world: World) -> None:
    world.ask("init", "--max-parallel-builds", "2")
    first = world.wrap("first", "--memory", "100T").started()

    refused = world.run("wrap", "-n", "--memory", "1M", "second", "--", "true").returncode

    assert (refused, first.end()) == (75, 0)


# Hints to the build


@pytest.mark.parametrize("makeflags", [None, "-k"])
def test_build_tools_are_told_their_share_of_the_processors_unless_they_were_told(
    makeflags: str | None, world: World
) -> None:
    cores = len(os.sched_getaffinity(0))
    env = {"MAKEFLAGS": makeflags} if makeflags else {}
    build = world.wrap("a", "--export-jobs", "--max-parallel-builds", str(cores), env=env).started()

    told = build.ask("env MAKEFLAGS"), build.ask("env CARGO_BUILD_JOBS"), build.end()

    assert told == (makeflags or "-j1", "1", 0)


def test_the_memory_of_past_builds_of_a_label_is_what_the_next_one_waits_for(world: World, tmp_path: Path) -> None:
    world.env |= {"HISTORY": str(tmp_path / "history.db"), "MEMORY": "auto"}
    world.ask("init", "--max-parallel-builds", "2")
    grow = "x = bytearray(50 << 20); print('ready', 0, flush=True); input()"
    learning = world.popen("wrap", "big", "--", world.python, "-c", grow)
    learning.line()
    learning.tell("")
    learned = learning.wait()

    build = world.popen("wrap", "big", "--", world.python, "-c", grow)
    build.line()
    record = (world.folder / "holding" / "2.1").read_text()
    build.tell("")

    expected = int(record.partition("memory=")[2].partition("\n")[0])
    assert (learned, build.wait(), 50 << 20 < expected < 150 << 20) == (0, 0, True)
