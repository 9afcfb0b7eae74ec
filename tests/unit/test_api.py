"""`ipclock.slot` for Python programs: the same pool as the command, and nothing left behind."""

from __future__ import annotations

import ast
import os
import re
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import ipclock
from ipclock import errors
from tests.helpers.world import Build, until

if TYPE_CHECKING:
    from tests.helpers.world import World

HOLD = """
import ipclock, subprocess, sys
with ipclock.slot("library") as slot:
    {body}
"""


def program(world: World, body: str, **env: str) -> Build:
    """Start a program that holds a slot and then runs *body*."""
    pipe = subprocess.PIPE
    code = HOLD.format(body=body)
    command = [sys.executable, "-c", code]
    build = Build(subprocess.Popen(command, env=world.env | env, stdin=pipe, stdout=pipe, stderr=pipe))
    world.builds.append(build)
    return build


@pytest.fixture(autouse=True)
def path(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The history of this process."""
    monkeypatch.setenv("HISTORY", str(tmp_path / "history.db"))
    return tmp_path / "history.db"


def test_all_names_resolve() -> None:
    assert [name for name in ipclock.__all__ if not getattr(ipclock, name)] == []
    with pytest.raises(AttributeError):
        _ = ipclock.nonsense


# failures that the modules below `ipclock.slot` know and it never meets
NOT_FOR_A_PROGRAM = {
    "HistoryFailed": "it is a warning",
    "Interrupted": "its handlers are the program's",
    "LocksLeft": "of `reset`",
    "NoTicket": "of `release` and `reset`",
    "NotYourBuild": "of `cancel`",
    "NotYours": "of `release`",
    "Unprovable": "of `release`",
    "StillRunning": "of `reset --kill`",
    "PoolInUse": "of `init --move`",
}


def raised_below() -> set[str]:
    """Return the names of the failures that are made in the packages that `ipclock.slot` uses."""
    root = Path(errors.__file__).parent
    files = [root / "api.py", root / "errors.py"]
    files += [path for package in ("config", "history", "linux", "pool") for path in (root / package).glob("*.py")]
    nodes = [node for path in files for node in ast.walk(ast.parse(path.read_text()))]
    made = [node.func for node in nodes if isinstance(node, ast.Call)]
    raised = [node.exc for node in nodes if isinstance(node, ast.Raise)]
    kinds = [getattr(errors, node.id, None) for node in made + raised if isinstance(node, ast.Name)]
    return {kind.__name__ for kind in kinds if isinstance(kind, type) and issubclass(kind, ipclock.IpclockError)}


def test_whatever_a_slot_can_raise_is_public_and_its_docstring_names_it() -> None:
    expected = raised_below() - NOT_FOR_A_PROGRAM.keys()
    words = set(re.findall(r"\w+", ipclock.slot.__doc__ or ""))

    assert (expected - set(ipclock.__all__), expected - words, NOT_FOR_A_PROGRAM.keys() & words) == (
        set(),
        set(),
        set(),
    )
    assert expected >= {"SlotTimeout", "TooManySlotsError", "PoolPermissionError", "UnsupportedError"}


def test_older_names_are_the_same_classes() -> None:
    pairs = re.findall(r"(\w+)\s\((\w+)\)", (ipclock.__doc__ or "").partition("Older names")[2])

    same = [getattr(ipclock, old) is getattr(ipclock, new) for old, new in pairs]
    assert (len(pairs), all(same), set(dict(pairs)) <= set(ipclock.__all__)) == (7, True, True)


def test_the_package_loads_nothing_before_it_is_asked() -> None:
    code = "import sys, __future__; before = set(sys.modules); import ipclock; print(sorted(set(sys.modules) - before))"

    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)

    assert done.stdout == "['ipclock']\n"


def test_a_slot_is_held_within_the_block_and_free_after_it(world: World) -> None:
    world.ask("init")
    with ipclock.slot("staging", name=world.name, timeout=5) as slot:
        facts = (slot.name, slot.label, slot.ticket, slot.number, world.value())
        shown = [(row["label"], row["pid"]) for row in world.status()["holders"]]

    assert (facts, shown) == ((world.name, "staging", 1, 1, 0), [("staging", os.getpid())])
    assert world.settled() == (1, {})


def test_an_exception_in_the_block_frees_the_slot_and_a_second_release_does_nothing(world: World) -> None:
    with pytest.raises(KeyError), ipclock.slot("a", name=world.name) as slot:
        raise KeyError
    slot.release()

    with pytest.raises(ValueError, match="released"):
        slot.fileno()
    assert world.settled() == (1, {})


def test_no_slot_in_time_is_an_error_with_data(world: World) -> None:
    with ipclock.slot("holder", name=world.name):
        with pytest.raises(ipclock.SlotTimeout) as timeout:
            ipclock.slot("late", name=world.name, timeout=0.1)
        with pytest.raises(ipclock.SlotBusy) as busy:
            ipclock.slot("late", name=world.name, block=False)

    assert (timeout.value.status, timeout.value.seconds, busy.value.held, busy.value.capacity) == (75, "0.1", 1, 1)
    assert world.settled() == (1, {})


def test_waits_and_holds_are_kept_and_a_history_that_cannot_be_written_is_a_warning(
    world: World, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with suppress(KeyError), ipclock.slot("failed", name=world.name):
        raise KeyError
    with ipclock.slot("done", name=world.name), pytest.raises(ipclock.SlotTimeout):
        ipclock.slot("late", name=world.name, timeout=0.1)
    monkeypatch.setenv("HISTORY", str(path.parent))
    with pytest.warns(UserWarning, match="history"), ipclock.slot("not kept", name=world.name):
        pass

    with closing(sqlite3.connect(path)) as connection:
        kept = connection.execute("SELECT label, outcome, slot FROM finished ORDER BY id").fetchall()
    assert (kept, world.settled()) == (
        [("failed", "failed", 1), ("late", "timeout", None), ("done", "done", 1)],
        (1, {}),
    )


def test_a_program_waits_for_memory_as_a_command_does(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.run("init", "--max-parallel-builds", "2")
    holder = world.wrap("holder").started()
    monkeypatch.setenv("MIN_FREE_MEMORY", "100T")

    with pytest.raises(ipclock.SlotTimeout):
        ipclock.slot("greedy", name=world.name, timeout=0.5)

    assert (holder.end(), world.settled()) == (0, (2, {}))


def test_a_superseded_wait_of_a_program_is_kept(world: World, path: Path) -> None:
    holder = world.wrap("holder").started()
    waiter = program(world, "pass", HISTORY=str(path))
    until(lambda: world.records("gate"), "the program at the gate")
    newer = world.wrap("library", "--supersede")

    status = waiter.wait()

    with closing(sqlite3.connect(path)) as connection:
        kept = connection.execute("SELECT label, outcome FROM finished").fetchall()
    assert (status, kept) == (1, [("library", "superseded")])
    assert (holder.end(), newer.started().end(), world.settled()) == (0, 0, (1, {}))


def test_a_wrong_value_is_an_error_that_says_what_is_expected(world: World) -> None:
    with pytest.raises(ipclock.InvalidValueError, match="whole number"):
        ipclock.slot("a", name=world.name, max_parallel_builds=-1)
    with pytest.raises(ValueError, match="printable"):
        ipclock.slot("a\n", name=world.name)


def test_ctrl_c_while_waiting_leaves_nothing_behind(world: World) -> None:
    holder = world.wrap("holder").started()
    waiter = program(world, "pass")
    until(lambda: world.records("gate"), "the program at the gate")

    waiter.signal(signal.SIGINT)

    assert (waiter.wait(), holder.end(), world.settled()) == (-signal.SIGINT, 0, (1, {}))


def test_the_end_of_a_forked_child_releases_nothing(world: World) -> None:
    world.ask("init")
    with ipclock.slot("parent", name=world.name) as slot:
        child = os.fork()
        if child == 0:
            slot.release()
            os._exit(0)
        os.waitpid(child, 0)
        held = (world.value(), len(world.records("holding")))

    assert (held, world.settled()) == ((0, 1), (1, {}))


@pytest.mark.parametrize("handed_over", [True, False])
def test_a_killed_programs_child_keeps_the_slot_only_if_the_descriptor_was_handed_over(
    world: World, handed_over: bool
) -> None:
    fds = "(slot.fileno(),)" if handed_over else "()"
    body = f'child = subprocess.Popen(["sleep", "1000"], pass_fds={fds}); print(child.pid, flush=True); child.wait()'
    build = program(world, body)
    child = int(build.line())
    world.extra.append(child)

    build.signal(signal.SIGKILL)
    build.wait()
    next_one = world.run("wrap", "-n", "next", "--", "true").returncode

    assert next_one == (75 if handed_over else 0)
