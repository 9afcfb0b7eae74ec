"""Builds inside builds: they share a slot, at once, and it is taken for as long as one of them lives."""

from __future__ import annotations

import os
import shutil
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import ipclock
from tests.helpers.crash_at import in_child
from tests.helpers.world import until

if TYPE_CHECKING:
    from tests.helpers.world import Build, World

IPCLOCK = f"{sys.executable} -m ipclock"
LIBRARY = Path(__file__).parents[2] / "contrib/oracle/lib/build-lock.sh"
APART = "</dev/null >/dev/null 2>&1 &"


def running(world: World, script: str, *options: str, **more: Any) -> Build:
    """Start a build around a bash script, which ends when it is told anything."""
    return world.popen("wrap", "-q", *options, "outer", "--", "bash", "-c", f"{script}\nread -r _", **more)


def with_inner(world: World, *options: str, command: str = f"setsid {IPCLOCK} wrap -q inner -- sleep 1000") -> Build:
    """Return a build with a nested one in a session of its own."""
    build = running(world, f"{command} {APART}", *options)
    until(lambda: "inner" in holders(world) and holders(world)["inner"]["command_pid"], "the nested build")
    world.extra += [holders(world)["inner"][key] for key in ("command_pid", "pid")]
    return build


def holders(world: World) -> dict[str, dict[str, Any]]:
    return {row["label"]: row for row in world.status()["holders"]} if world.folder.exists() else {}


def busy(world: World, *options: str) -> int:
    return world.run("wrap", "-q", "-n", *options, "other", "--", "true").returncode


def ended(world: World) -> tuple[int, int, dict[str, list[str]]]:
    """Let the nested build end; return what becomes of the next one, and what is left."""
    os.kill(holders(world)["inner"]["command_pid"], signal.SIGKILL)
    until(lambda: holders(world) == {}, "the end of all that lives in the slot")
    status = world.run("wrap", "-q", "-w", "20", "next", "--", "true").returncode
    return status, *world.settled()


# How long the slot is taken


@pytest.mark.parametrize("order", ["it ends", "it is killed", "all but the inner command are killed"])
def test_a_nested_build_that_outlives_the_outer_one_keeps_the_slot(order: str, world: World) -> None:
    build = with_inner(world)
    before = holders(world)

    if order == "it ends":
        build.tell("")
    else:
        build.signal(signal.SIGKILL)
    build.wait()
    if order != "it ends":  # after its supervisor, which would give the slot back
        os.kill(before["outer"]["command_pid"], signal.SIGKILL)
    if order.startswith("all"):
        os.kill(before["inner"]["pid"], signal.SIGKILL)
    # what the inner build has inherited keeps the outer beacon lit
    left = ["inner"] if order == "it ends" else ["outer", "inner"]
    until(lambda: list(holders(world)) == left, "the end of the outer one")
    now = world.status()

    assert (before["inner"]["within"], before["inner"]["slot"]) == (before["outer"]["ticket"], 1)
    assert (now["taken"], now["free"], busy(world), ended(world)) == (1, 0, 75, (0, 1, {}))


@pytest.mark.parametrize("fate", ["stopped", "killed"])
def test_a_nested_build_takes_part_in_a_slot_whose_pool_was_removed(fate: str, world: World) -> None:
    inner = f"{IPCLOCK} wrap -q -w 20 inner -- sh -c 'echo inside; read -r _'"
    build = running(world, f"echo ready; read -r _; {inner}; echo $?")
    assert build.line() == "ready"
    build.signal(signal.SIGSTOP if fate == "stopped" else signal.SIGKILL)  # it cannot write itself again
    shutil.rmtree(world.folder)

    build.tell("")
    inside = build.line()
    names, now = list(holders(world)), busy(world)
    if fate == "stopped":
        build.signal(signal.SIGCONT)
        until(lambda: "outer" in holders(world), "the outer one back")
        names = sorted({holder["slot"] for holder in holders(world).values()})
    build.tell("\n")

    expected = [1] if fate == "stopped" else ["inner"]
    assert (inside, names, now, build.line()) == ("inside", expected, 75, "0")
    until(lambda: busy(world) == 0, "the slot")


def test_a_step_of_a_job_whose_worker_is_killed_keeps_the_slot(world: World) -> None:
    step = f"setsid {IPCLOCK} wrap -q inner -- sleep 1000 {APART} read -r _"
    worker = world.spawn("bash", "-c", f"{IPCLOCK} acquire --pid $$ outer >/dev/null; {step}")
    until(lambda: "inner" in holders(world) and holders(world)["inner"]["command_pid"], "the step")
    world.extra.append(holders(world)["inner"]["command_pid"])

    worker.signal(signal.SIGKILL)
    worker.wait()

    assert (busy(world), list(holders(world)), ended(world)) == (75, ["inner"], (0, 1, {}))


def test_the_outer_one_keeps_the_slot_when_the_nested_one_has_ended(world: World) -> None:
    build = with_inner(world)

    os.kill(holders(world)["inner"]["command_pid"], signal.SIGTERM)
    until(lambda: list(holders(world)) == ["outer"], "the outer one alone")
    now = busy(world)
    build.tell("")

    assert (now, build.wait(), busy(world), world.settled()) == (75, 0, 0, (1, {}))


def test_a_script_that_gives_its_slot_back_leaves_it_to_the_build_that_it_started(world: World) -> None:
    script = f"""
        ipclock() {{ {IPCLOCK} "$@"; }}
        source {LIBRARY}; acquire_lock outer 2>/dev/null
        setsid {IPCLOCK} wrap -q inner -- sleep 1000 {APART}
        echo started; read -r _; release_lock; echo released; read -r _
    """
    build = world.spawn("bash", "-c", script)
    assert build.line() == "started"
    until(lambda: "inner" in holders(world), "the nested build")
    world.extra.append(holders(world)["inner"]["command_pid"])

    assert build.ask("") == "released"
    kept = busy(world)
    build.tell("")

    assert (kept, build.wait(), list(holders(world)), ended(world)) == (75, 0, ["inner"], (0, 1, {}))


def test_a_nested_build_keeps_as_many_slots_as_the_outer_one_takes(world: World) -> None:
    build = with_inner(world, "--max-parallel-builds", "3", "--slots", "2")

    build.tell("")
    build.wait()

    assert ([busy(world, "--slots", wanted) for wanted in ("2", "1")], ended(world)) == ([75, 0], (0, 3, {}))


def test_builds_of_a_nested_ones_label_wait_for_it(world: World) -> None:
    with_inner(world, "--max-parallel-builds", "2")

    command = ("wrap", "-q", "-n", "--per-label", "1")
    found = [world.run(*command, label, "--", "true").returncode for label in ("inner", "another")]

    assert found == [75, 0]


def test_a_build_that_closes_what_it_inherits_counts_though_its_supervisor_is_killed(world: World) -> None:
    # as a program that closes all descriptors beyond 2 at its start
    code = "import os; os.closerange(3, 4096); print('ready', os.getpid(), flush=True); input()"
    build = world.noted(world.popen("wrap", "-q", "closes", "--", sys.executable, "-c", code))

    build.signal(signal.SIGKILL)
    build.wait()
    kept = busy(world), holders(world)["closes"]["state"]
    build.tell("")

    assert kept == (75, "orphaned")
    assert (world.run("wrap", "-q", "-w", "20", "next", "--", "true").returncode, world.settled()) == (0, (1, {}))


# How it is found


def test_a_wrap_without_its_environment_runs_in_the_slot_around_it(world: World) -> None:
    bare = f"env -i PATH=$PATH SEMAPHORE_NAME={world.name} HISTORY=off {IPCLOCK} wrap -n inner -- echo inside"

    result = world.run("wrap", "-q", "outer", "--", "sh", "-c", f"{bare}; exit 3")

    assert (result.returncode, result.stdout, result.stderr) == (3, "inside\n", "")


def test_a_wrap_in_a_shell_that_has_taken_a_slot_runs_in_it_without_a_variable(world: World) -> None:
    script = f"t=$({IPCLOCK} acquire outer); {IPCLOCK} wrap -q -n inner -- echo inside; {IPCLOCK} release $t"

    result = world.spawn("bash", "-c", script)

    assert (result.line(), result.wait(), world.settled()) == ("inside", 0, (1, {}))


def test_a_script_may_hold_two_slots(world: World) -> None:
    script = f"a=$({IPCLOCK} acquire -n a); b=$({IPCLOCK} acquire -n b); {IPCLOCK} status | head -1; echo $a $b"

    result = world.spawn("bash", "-c", script, env={"MAX_PARALLEL_BUILDS": "2"})

    assert (result.line(), result.line(), result.wait()) == ("⏳ builds running: 2/2", "1 2", 0)


def test_a_stale_variable_in_a_daemon_starts_nothing_without_a_slot(world: World) -> None:
    holder = world.wrap("holder").started()
    stale = {"IPCLOCK_NAME": world.name, "IPCLOCK_TICKET": "7", "IPCLOCK_SLOT": "1"}

    result = world.run("wrap", "-n", "late", "--", "true", env=stale)

    assert (result.returncode, "IPCLOCK_TICKET='7'" in result.stderr, holder.end()) == (75, True, 0)


def test_a_program_inside_a_build_takes_part_in_its_slot(world: World) -> None:
    code = "import ipclock, sys\nwith ipclock.slot('inner', block=False) as slot: print(slot.number, slot.ticket)"

    result = world.run("wrap", "-q", "outer", "--", sys.executable, "-c", code)

    assert (result.returncode, result.stdout, world.settled()) == (0, "1 2\n", (1, {}))


def test_slots_that_one_program_takes_are_its_own(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def child() -> list[int]:
        options: dict[str, Any] = {"name": world.name, "max_parallel_builds": 2, "block": False}
        with ipclock.slot("first", **options) as first, ipclock.slot("second", **options) as second:
            return [first.number, second.number]

    assert in_child(child) == [1, 2]


# What commands say of it


def test_status_shows_a_nested_build_below_the_one_around_it(world: World) -> None:
    build = with_inner(world)

    text = world.run("status").stdout.splitlines()
    build.tell("")
    build.wait()
    left = world.run("status").stdout.splitlines()

    builds = [line.split("[")[0] for line in (*text[1:], *left[1:]) if line.lstrip().startswith("- [")]
    assert builds == ["  - ", "    - ", "  - "]


@pytest.mark.parametrize("which", ["outer", "inner", "all"])
def test_a_reset_takes_the_slot_from_all_that_live_in_it(which: str, world: World) -> None:
    build = with_inner(world)
    tickets = {label: str(row["ticket"]) for label, row in holders(world).items()}

    reset = world.run("reset", *([tickets[which]] if which != "all" else []))
    free = busy(world)
    build.tell("")

    assert (reset.returncode, reset.stderr.count("keeps running"), free, build.wait(), holders(world)) == (
        0,
        2,
        0,
        0,
        {},
    )


def test_a_reset_that_kills_ends_all_that_live_in_the_slot(world: World) -> None:
    build = with_inner(world)
    pids = [row["command_pid"] for row in holders(world).values()]

    reset = world.run("reset", "--kill")
    build.wait()

    assert (reset.returncode, [alive(pid) for pid in pids], busy(world), world.settled()) == (
        0,
        [False, False],
        0,
        (1, {}),
    )


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_build_whose_leftovers_are_waited_for_waits_for_a_nested_one_too(world: World) -> None:
    build = with_inner(world, "--leftovers", "wait")
    inner = holders(world)["inner"]["command_pid"]

    build.tell("")
    until(lambda: holders(world)["outer"]["command_pid"] != build.command_pid, "the wait for what is left")
    os.kill(inner, signal.SIGKILL)

    assert (build.wait(), busy(world), world.settled()) == (0, 0, (1, {}))


def test_a_nested_build_whose_pool_was_removed_comes_back_into_its_slot(world: World) -> None:
    build = with_inner(world)
    before = {label: (row["slot"], row["within"]) for label, row in holders(world).items()}

    for path in sorted(world.folder.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    world.folder.rmdir()
    until(lambda: len(holders(world)) == 2, "both again")
    after = {label: (row["slot"], row["within"]) for label, row in holders(world).items()}
    build.tell("")
    build.wait()

    assert (after == before, busy(world), ended(world)[0]) == (True, 75, 0)


def test_no_nested_build_has_a_row_of_its_own_in_the_history(world: World, tmp_path: Path) -> None:
    history = {"HISTORY": str(tmp_path / "history.db")}
    inner = f"{IPCLOCK} wrap -q inner -- true; t=$({IPCLOCK} acquire -q script); {IPCLOCK} release $t"

    world.run("wrap", "-q", "outer", "--", "bash", "-c", inner, env=history)

    told = world.run("stats", env=history).stdout
    assert [label in told for label in ("outer", "inner", "script")] == [True, False, False]
