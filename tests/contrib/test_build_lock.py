"""`lib/build-lock.sh` in a real bash: what it holds, when it lets go, and whose traps run."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.helpers.world import Build, until

if TYPE_CHECKING:
    from tests.helpers.world import World

LIBRARY = Path(__file__).parents[2] / "contrib/oracle/lib/build-lock.sh"
HEAD = f"set -euo pipefail\nsource {LIBRARY}\n"


def start(world: World, body: str) -> Build:
    """Start a script that sources the library; it talks to the test by its stdin and stdout."""
    pipe = subprocess.PIPE
    process = subprocess.Popen(
        ["bash", "-c", HEAD + body], env=world.env, stdin=pipe, stdout=pipe, stderr=pipe, start_new_session=True
    )
    build = Build(process)
    world.builds.append(build)
    return build


def run(world: World, body: str) -> tuple[int, list[str], list[str]]:
    """Run a script to its end; return its status and the lines of both streams."""
    build = start(world, body)
    out, err = build.process.communicate(timeout=30)
    return build.process.returncode, out.decode().splitlines(), err.decode().splitlines()


def test_a_slot_is_held_between_acquire_and_release(world: World) -> None:
    script = start(world, 'acquire_lock "Staging Deployment"; echo held; read -r _; release_lock; echo free; read -r _')
    assert script.line() == "held"
    holder = world.status()["holders"][0]

    script.tell("")
    assert script.line() == "free"

    assert (holder["label"], holder["pid"], holder["state"]) == ("Staging Deployment", script.pid, "running")
    assert world.settled() == (1, {})


def test_a_script_that_fails_under_errexit_gives_its_slot_back_and_keeps_its_status(world: World) -> None:
    status, out, _ = run(world, "acquire_lock a; echo held; (exit 7); echo not reached")

    assert (status, out, world.settled()) == (7, ["held"], (1, {}))


def test_a_pool_that_is_removed_before_its_file_is_opened_is_made_again(world: World) -> None:
    removing = f"""
        ipclock() {{
            command ipclock "$@" || return
            if [ "$1" = init ] && mkdir {world.folder.parent}/{world.folder.name}.once 2>/dev/null; then
                rm -r {world.folder}
            fi
        }}
    """
    try:
        status, out, _ = run(world, removing + 'acquire_lock a; echo "held $IPCLOCK_TICKET"; release_lock')
    finally:
        Path(f"{world.folder}.once").rmdir()

    assert (status, out, world.settled()) == (0, ["held 1"], (1, {}))


def test_a_timeout_leaves_the_script_with_75(world: World) -> None:
    holder = world.wrap("holder").started()

    status, out, err = run(world, "export BUILD_TIMEOUT=0.2\nacquire_lock late; echo not reached")

    assert (status, out, err[-3]) == (75, [], "❌ timed out: no build slot within 0.2 s.")
    assert (holder.end(), world.settled()) == (0, (1, {}))


def test_a_killed_script_keeps_its_slot_until_its_child_ends(world: World) -> None:
    script = start(world, 'acquire_lock a; sleep 1000 & echo "$!"; read -r _')
    child = int(script.line())
    world.extra.append(child)
    waiter = world.wrap("next")
    until(lambda: world.records("gate"), "the next build at the gate")

    script.signal(signal.SIGKILL)
    script.wait()
    orphan = world.status()["holders"][0]
    os.kill(child, signal.SIGKILL)
    waiter.started()

    assert (orphan["state"], [process["pid"] for process in orphan["processes"]]) == ("orphaned", [child])
    assert (waiter.end(), world.settled()) == (0, (1, {}))


@pytest.mark.parametrize("fate", ["released", "killed", "removed again"])
def test_a_script_that_waited_through_a_removal_holds_its_slot_like_any_other(fate: str, world: World) -> None:
    holder = world.wrap("holder").started()
    script = start(world, 'acquire_lock a; sleep 1000 <&- >&- 2>&- & echo "$!"; read -r _; release_lock; read -r _')
    until(world.waiting, "the script in line")
    shutil.rmtree(world.folder)
    until(lambda: world.folder.exists() and world.waiting() and world.records("holding"), "both back")
    holder.end()
    child = int(script.line())
    world.extra.append(child)

    if fate == "removed again":
        shutil.rmtree(world.folder)
    if fate != "released":
        script.signal(signal.SIGKILL)
        script.wait()
    beside = world.run("wrap", "-n", "next", "--", "true").returncode
    if fate == "released":
        script.tell("")
    else:
        os.kill(child, signal.SIGKILL)

    assert (beside, world.run("wrap", "-w", "20", "next", "--", "true").returncode, world.settled()) == (75, 0, (1, {}))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_that_ends_the_script_and_its_build_frees_the_slot(world: World, number: signal.Signals) -> None:
    # in the foreground: in the background SIGINT would be ignored
    script = start(world, "acquire_lock a; sh -c 'echo held; exec sleep 1000'; echo not reached")
    assert script.line() == "held"

    os.killpg(script.pid, number)

    assert (script.wait(), world.run("wrap", "-w", "20", "next", "--", "true").returncode) == (-number, 0)
    assert world.settled() == (1, {})


FOREGROUND = "sh -c 'echo $$; exec sleep 1000'; :"
BACKGROUND = "sh -c 'echo $$; exec sleep 1000' & wait"
SIGNALLED = [
    *((build, trap) for build in (FOREGROUND, BACKGROUND) for trap in ("", "trap release_lock EXIT")),
    (BACKGROUND, "clean_up() { if true; then release_lock; fi; }; trap clean_up EXIT"),
    (BACKGROUND, "trap '(release_lock)' EXIT"),
    # in the foreground the build would have ended: bash waits for it before it heeds a signal that is trapped
    (BACKGROUND, "trap 'release_lock; exit 9' TERM HUP INT"),
]


@pytest.mark.parametrize(("build", "trap"), SIGNALLED)
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_the_build_of_a_signalled_script_counts_until_it_ends(
    world: World, build: str, trap: str, number: signal.Signals
) -> None:
    script = start(world, f"acquire_lock a\n{trap}\n{build}")
    child = int(script.line())
    world.extra.append(child)

    script.signal_at_rest(number)
    script.wait()
    holder = world.status()["holders"][0]
    beside = world.run("wrap", "-n", "next", "--", "true").returncode
    os.kill(child, signal.SIGKILL)

    assert (holder["state"], [process["pid"] for process in holder["processes"]], beside) == ("orphaned", [child], 75)
    assert (world.run("wrap", "-w", "20", "next", "--", "true").returncode, world.settled()) == (0, (1, {}))


def test_a_script_that_ends_without_a_release_leaves_the_slot_to_what_still_runs(world: World) -> None:
    script = start(world, 'acquire_lock a; sleep 1000 <&- >&- 2>&- & echo "$!"')
    child = int(script.line())
    world.extra.append(child)
    script.wait()
    beside = world.run("wrap", "-n", "next", "--", "true").returncode

    os.kill(child, signal.SIGKILL)

    assert (beside, world.run("wrap", "-w", "20", "next", "--", "true").returncode, world.settled()) == (75, 0, (1, {}))


def test_the_slot_of_a_script_that_traps_a_signal_and_goes_on_is_free_once_its_build_has_ended(world: World) -> None:
    body = """
        trap 'release_lock' TERM
        acquire_lock a
        sh -c 'echo $$; exec sleep 1000' & wait || true
        echo on; read -r _
    """
    script = start(world, body)
    child = int(script.line())
    world.extra.append(child)
    script.signal_at_rest(signal.SIGTERM)
    assert script.line() == "on"
    beside = world.run("wrap", "-n", "next", "--", "true").returncode

    os.kill(child, signal.SIGKILL)

    assert (beside, world.run("wrap", "-w", "20", "next", "--", "true").returncode) == (75, 0)


def test_the_callers_exit_trap_runs_after_ours_with_the_scripts_status(world: World) -> None:
    body = """
        trap 'echo "mine: $? ticket: ${IPCLOCK_TICKET-none}"' EXIT
        acquire_lock a
        exit 3
    """

    assert run(world, body)[:2] == (3, ["mine: 3 ticket: none"])


def test_the_callers_traps_are_as_before_once_the_slot_is_given_back(world: World) -> None:
    body = """
        trap "echo 'it''s mine'" EXIT
        trap 'echo int' INT
        before=$(trap)
        acquire_lock a
        release_lock
        [ "$before" = "$(trap)" ] && echo same
    """

    assert run(world, body)[:2] == (0, ["same", "its mine"])


def test_an_int_trap_of_the_caller_still_runs(world: World) -> None:
    script = start(world, "trap 'echo int; exit 9' INT; acquire_lock a; sh -c 'echo held; exec sleep 1000'")
    assert script.line() == "held"

    os.killpg(script.pid, signal.SIGINT)

    assert (script.line(), script.wait(), world.run("wrap", "-n", "next", "--", "true").returncode) == ("int", 9, 0)


def test_releasing_twice_and_releasing_nothing_is_harmless(world: World) -> None:
    assert run(world, "release_lock; acquire_lock a; release_lock; release_lock; echo done")[:2] == (0, ["done"])
    assert world.settled() == (1, {})


def test_acquiring_twice_takes_one_slot_until_the_last_release(world: World) -> None:
    body = """
        deploy() { acquire_lock inner; echo inner; release_lock; }
        acquire_lock outer
        deploy
        ipclock status --json | grep -c '"ticket"'
        release_lock
        ipclock status --json | grep -c '"ticket"' || true
    """

    assert run(world, body)[:2] == (0, ["inner", "1", "0"])


def test_a_script_inside_a_wrapped_build_takes_no_second_slot(world: World) -> None:
    script = f"{HEAD}acquire_lock inner 2>/dev/null; ipclock status; release_lock"

    result = world.run("wrap", "-q", "outer", "--", "bash", "-c", script)

    assert (result.returncode, result.stdout.splitlines()[0], "outer" in result.stdout, result.stderr) == (
        0,
        "⏳ builds running: 1/1",
        True,
        "",
    )


def test_a_wrap_inside_a_script_that_holds_a_slot_runs_at_once(world: World) -> None:
    assert run(world, "acquire_lock outer; ipclock wrap -q -w 5 inner -- echo inside; release_lock")[:2] == (
        0,
        ["inside"],
    )


def test_a_slot_taken_in_a_subshell_ends_with_it_and_leaves_the_parents_trap_alone(world: World) -> None:
    body = """
        trap 'echo parent' EXIT
        ( acquire_lock sub; trap -p EXIT | grep -c parent || true )
        ipclock wrap -q -n next -- echo free
    """

    assert run(world, body)[:2] == (0, ["0", "free", "parent"])


def test_command_substitution_and_pipelines_do_not_keep_the_slot(world: World) -> None:
    body = """
        acquire_lock a
        x=$(echo out | tr a-z A-Z)
        echo "$x" | cat
        release_lock
        ipclock wrap -q -n next -- echo free
    """

    assert run(world, body)[:2] == (0, ["OUT", "free"])


def test_a_daemon_that_inherits_the_descriptor_keeps_nothing_after_a_release(world: World) -> None:
    script = start(world, 'acquire_lock a; setsid sleep 1000 <&- >&- 2>&- & echo "$!"; release_lock; echo free')
    # the order of the two lines is the script's
    world.extra.append(int(script.line()))
    assert script.line() == "free"

    assert (script.wait(), world.run("wrap", "-n", "next", "--", "true").returncode, world.settled()) == (0, 0, (1, {}))


def test_a_script_with_traps_of_its_own_gives_its_slot_back_at_once_outside_of_them(world: World) -> None:
    body = "trap : EXIT; trap : TERM; acquire_lock a; sleep 1000 <&- >&- 2>&- & echo $!; release_lock; echo free"
    script = start(world, body)
    world.extra.append(int(script.line()))
    assert script.line() == "free"

    assert (script.wait(), world.run("wrap", "-n", "next", "--", "true").returncode) == (0, 0)


def test_two_scripts_at_once_run_one_after_the_other_and_with_two_slots_three_run_two_at_a_time(world: World) -> None:
    world.ask("init", "--max-parallel-builds", "2")
    body = "acquire_lock a; echo held; read -r _; release_lock"
    scripts = [start(world, body) for _ in range(2)]
    lines = [script.line() for script in scripts]
    third = start(world, body)
    until(lambda: world.records("gate"), "the third script at the gate")
    held = len(world.records("holding"))

    scripts[0].tell("")

    assert (lines, held, third.line(), len(world.records("holding"))) == (["held", "held"], 2, "held", 2)


def test_a_reset_in_the_middle_lets_the_next_one_in_and_the_evicted_script_ends_well(world: World) -> None:
    script = start(world, "acquire_lock a; echo held; read -r _; release_lock; echo end")
    assert script.line() == "held"
    waiter = world.wrap("next")
    until(lambda: world.records("gate"), "the next build at the gate")

    world.run("reset")
    waiter.started()
    script.tell("")

    assert (script.line(), script.wait(), waiter.end(), world.settled()) == ("end", 0, 0, (1, {}))


def test_init_semaphore_makes_the_pool_with_its_capacity(world: World) -> None:
    assert run(world, "export MAX_PARALLEL_BUILDS=3; init_semaphore")[0] == 0
    assert (world.value(), world.status()["capacity"]) == (3, 3)
