"""The eight acceptance tests of the product's requirements, by number, on real processes, with either engine."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

import pytest

from tests.helpers.world import World, until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(params=["shm", "zookeeper"])
def world(request: pytest.FixtureRequest, pool_name: str) -> Iterator[World]:
    """A pool of this machine, and one on a server."""
    if request.param == "zookeeper":
        yield request.getfixturevalue("shared")
    else:
        made = World(pool_name)
        yield made
        made.close()


def test_1_two_at_once_run_one_after_the_other(world: World) -> None:
    first = world.wrap("first").started()
    second = world.wrap("second")
    until(lambda: world.records("gate"), "the second build at the gate")

    holders_before = [holder["label"] for holder in world.status()["holders"]]
    first.end()
    second.started()
    holders_after = [holder["label"] for holder in world.status()["holders"]]
    second.end()

    assert (holders_before, holders_after, world.settled()) == (["first"], ["second"], (1, {}))


def test_2_two_slots_run_two_builds(world: World) -> None:
    first = world.wrap("first", "--max-parallel-builds", "2").started()
    second = world.wrap("second").started()

    slots = [(holder["label"], holder["slot"]) for holder in world.status()["holders"]]

    assert (slots, first.end(), second.end(), world.settled()) == ([("first", 1), ("second", 2)], 0, 0, (2, {}))


def test_3_an_interrupted_build_gives_its_slot_back(world: World) -> None:
    build = world.wrap().started()
    waiter = world.wrap()
    until(lambda: world.records("gate"), "the waiter at the gate")

    build.signal(signal.SIGINT)

    assert (build.wait(), waiter.started().end(), world.settled()) == (-signal.SIGINT, 0, (1, {}))


def test_4_a_wait_ends_by_itself(world: World) -> None:
    build = world.wrap().started()

    waiter = world.run("wrap", "-w", "0.3", "late", "--", "true")

    assert (waiter.returncode, waiter.stderr.splitlines()[-3:]) == (
        75,
        [
            "❌ timed out: no build slot within 0.3 s.",
            "   current builds: ipclock status",
            "   force unlock: sudo ipclock reset",
        ],
    )
    assert (build.end(), world.settled()) == (0, (1, {}))


def test_5_a_reset_solves_a_deadlock(world: World) -> None:
    stuck = world.noted(world.wrap("stuck"))
    waiter = world.wrap("next")
    until(lambda: world.records("gate"), "the waiter at the gate")

    reset = world.run("reset")
    waiter.started()

    assert reset.returncode == 0
    assert reset.stderr.splitlines() == [
        f"ipclock: {world.shown('stuck')} (PID: {stuck.command_pid}) lost its slot; the build keeps running",
        "✓ all locks have been released.",
    ]
    assert (waiter.end(), stuck.end(), world.settled()) == (0, 0, (1, {}))


def test_6_status_shows_the_present_state(world: World) -> None:
    world.ask("init")
    before = world.status()
    build = world.wrap("Staging Deployment").started()
    waiter = world.wrap("next")
    until(lambda: world.records("gate"), "the waiter at the gate")
    during = world.status()
    build.end()
    waiter.started().end()

    assert (before["free"], before["holders"], before["waiters"]) == (1, [], [])
    assert (during["free"], during["holders"][0]["label"], during["holders"][0]["state"]) == (
        0,
        "Staging Deployment",
        "running",
    )
    assert [(row["label"], row["position"], row["at_gate"]) for row in during["waiters"]] == [("next", 1, True)]


def test_7_the_pids_shown_are_the_real_ones(world: World) -> None:
    build = world.noted(world.wrap())

    holder = world.status()["holders"][0]
    text = world.run("status").stdout

    assert (holder["pid"], holder["command_pid"]) == (build.pid, build.command_pid)
    assert f"(PID: {build.command_pid})" in text
    assert os.path.exists(f"/proc/{build.command_pid}")
    build.end()


def test_8_a_changed_capacity_applies_at_once_to_those_who_wait(world: World, tmp_path: Path) -> None:
    settings = tmp_path / "build-config.sh"
    settings.write_text("MAX_PARALLEL_BUILDS=1\n")
    first = world.wrap("first", "--config", str(settings)).started()
    second = world.wrap("second", "--config", str(settings))
    until(lambda: world.records("gate"), "the second build at the gate")

    settings.write_text("MAX_PARALLEL_BUILDS=2 # from now on\n")
    second.started()

    assert ([holder["slot"] for holder in world.status()["holders"]], first.end(), second.end()) == ([1, 2], 0, 0)
    assert world.settled() == (2, {})
