"""A pool that clients of the version before and of this one use at the same time: an upgrade waits for no build."""

from __future__ import annotations

import subprocess
import sys
import tarfile
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.helpers.world import STUB, Build, until

if TYPE_CHECKING:
    from tests.helpers.world import World

BEFORE = "844538c413b8a5ad0b5c89d37dc05bed7d1b6f31"  # the last commit whose package is one flat folder
ROOT = Path(__file__).parents[2]
ORDERS = [("old", "new", "old"), ("new", "old", "new"), ("old", "old", "new")]


@pytest.fixture(scope="module")
def versions(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, str]]:
    """The environment that starts each version, by its name."""
    archive = ["git", "-C", str(ROOT), "archive", BEFORE, "ipclock"]
    done = subprocess.run(archive, capture_output=True, check=False)
    if done.returncode:
        pytest.skip(f"no history to take the version before from: {done.stderr.decode().strip()}")
    folder = tmp_path_factory.mktemp("before")
    with tarfile.open(fileobj=BytesIO(done.stdout)) as files:
        files.extractall(folder, filter="data")
    # not from the directory that the tests run in
    return {name: {"PYTHONPATH": str(at), "PYTHONSAFEPATH": "1"} for name, at in (("old", folder), ("new", ROOT))}


def test_they_are_two_versions(versions: dict[str, dict[str, str]]) -> None:
    look = [sys.executable, "-c", "import ipclock; print(ipclock.__file__)"]

    found = {subprocess.run(look, env=env, capture_output=True, check=True).stdout for env in versions.values()}

    assert len(found) == 2


@pytest.mark.parametrize("order", ORDERS, ids="-".join)
def test_builds_of_both_take_turns_in_order(
    order: tuple[str, ...], world: World, versions: dict[str, dict[str, str]]
) -> None:
    builds: list[Build] = []
    for number, version in enumerate(order):
        builds.append(world.wrap(f"{version} {number}", env=versions[version]))
        until(lambda number=number: len(world.records("holding")) + world.waiting() == number + 1, "it is listed")
    seen = [world.run("status", "--json", env=env).stdout for env in versions.values()]
    labels = [[f'"label": "{version} {number}"' in text for number, version in enumerate(order)] for text in seen]

    one_by_one = []
    for build in builds:
        build.started()
        one_by_one.append((len(world.records("holding")), build.end()))

    assert (labels, one_by_one) == ([[True] * 3] * 2, [(1, 0)] * 3)
    assert world.settled() == (1, {})


def test_in_a_fair_pool_builds_of_both_go_on_and_the_old_ones_keep_their_places(
    world: World, versions: dict[str, dict[str, str]]
) -> None:
    assert world.run("init", "--fair", "session", env=versions["new"]).returncode == 0
    builds: dict[str, Build] = {}
    for number, label in enumerate(("new a1", "old o1", "new a2", "new b1", "old o2", "new a3")):
        version, session = label.split()
        builds[label] = world.wrap(label, env=versions[version] | {"IPCLOCK_SESSION": session[0]})
        until(lambda number=number: len(world.records("holding")) + world.waiting() == number + 1, "it is listed")

    order = []
    while len(order) < len(builds):
        (holder,) = until(lambda: world.status()["holders"], "a build that holds the slot")
        order.append(holder["label"])
        assert builds[order[-1]].started().end() == 0

    # by tickets, but for those of the sessions among themselves
    assert order == ["new a1", "old o1", "new b1", "new a2", "old o2", "new a3"]
    assert world.settled() == (1, {})


@pytest.mark.parametrize("outer", ["old", "new"])
def test_a_build_of_one_inside_of_the_other_shares_its_slot(
    outer: str, world: World, versions: dict[str, dict[str, str]]
) -> None:
    inner = "new" if outer == "old" else "old"
    inside = ["env", *(f"{key}={value}" for key, value in versions[inner].items())]
    inside += [sys.executable, "-m", "ipclock", "wrap", "-q", "-w", "5", "inner", "--", sys.executable, STUB]

    build = world.popen("wrap", "-q", "outer", "--", *inside, env=versions[outer]).started()
    holding = len(world.records("holding"))

    assert (holding, build.end(), world.settled()) == (2, 0, (1, {}))


@pytest.mark.parametrize("killed", ["old", "new"])
def test_a_killed_supervisor_of_one_loses_no_slot_for_the_other(
    killed: str, world: World, versions: dict[str, dict[str, str]]
) -> None:
    other = "new" if killed == "old" else "old"
    orphan = world.wrap("orphan", env=versions[killed]).started()
    orphan.process.kill()
    orphan.process.wait()
    busy = world.run("wrap", "-n", "busy", "--", "true", env=versions[other]).returncode
    waiter = world.wrap("waiter", env=versions[other])
    until(lambda: world.waiting() == 1, "the waiter in line")

    world.kill(orphan.command_pid)

    assert (busy, waiter.started().end(), world.settled()) == (75, 0, (1, {}))


@pytest.mark.parametrize("resets", ["old", "new"])
def test_a_reset_of_one_is_heeded_by_builds_of_the_other(
    resets: str, world: World, versions: dict[str, dict[str, str]]
) -> None:
    other = "new" if resets == "old" else "old"
    evicted = world.wrap("evicted", env=versions[other]).started()

    done = world.run("reset", env=versions[resets])
    after = world.wrap("after", env=versions[resets]).started()

    assert (done.returncode, len(world.records("holding"))) == (0, 1)
    assert (evicted.end(), after.end(), world.settled()) == (0, 0, (1, {}))
