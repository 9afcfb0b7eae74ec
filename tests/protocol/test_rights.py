"""Who may do what in a pool of whom: each cell of the tables in SECURITY.md, tried."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import posix_ipc
import pytest

from ipclock.linux import process
from tests.helpers.crash_at import Client, in_child, needs_root
from tests.helpers.world import until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.helpers.world import World

GROUP, OTHER_GROUP = 54400, 54401
UIDS = {"stranger": 54321, "another user": 54321, "member": 54322, "owner": 54323, "root": 0}
VICTIM = 54324
OUTSIDERS = ("stranger", "another user")
BUILD = ("sh", "-c", "echo ready; cat")
TABLES = (Path(__file__).parents[2] / ".github" / "SECURITY.md").read_text().partition("## Who may")[2].split("\n\n| |")


class Scene:
    """A pool with one slot, taken by a build of *victim* (uid), and the actor, who is not that one."""

    def __init__(self, world: World, actor: str, victim: int) -> None:
        self.world = world
        self.env = world.env | {"HOME": "/nonexistent"}
        self.clients: list[Client] = []
        self.uid = UIDS[actor]
        self.groups = [] if actor in OUTSIDERS else [GROUP, OTHER_GROUP]
        self.victim = victim

    def begin(self, *share: str) -> None:
        """Make the pool, its owner's, and let the victim build in it."""
        assert self.client(UIDS["owner"], "init", *share).end() == 0
        self.build = self.client(self.victim, "wrap", "victim", "--", *BUILD)
        assert self.build.line() == "ready"
        self.holder = until(lambda: next((row for row in world_holders(self.world) if row["command_pid"]), None), "it")

    def client(self, uid: int, *arguments: str, groups: list[int] | None = None, **env: str) -> Client:
        groups = [GROUP, OTHER_GROUP] if groups is None else groups
        self.clients.append(Client(*arguments, env=self.env | env, uid=uid, groups=groups))
        return self.clients[-1]

    def run(self, *arguments: str, **env: str) -> bool:
        """Let the actor run a command, and return whether it was allowed to; refused is 77, or 2 for a bad --pid."""
        client = self.client(self.uid, *arguments, groups=self.groups, **env)
        status = client.end()
        assert status in (0, 2, 75, 77), client.errors()
        return status in (0, 75)

    def touches(self, function: Callable[[], object]) -> bool:
        """Return whether the kernel lets the actor do something."""

        def allowed() -> bool:
            try:
                function()
            except (OSError, posix_ipc.Error):
                return False
            return True

        return in_child(allowed, self.uid, groups=self.groups)

    def end(self) -> None:
        for client in self.clients:
            client.close()


def world_holders(world: World) -> list[dict[str, int]]:
    found: list[dict[str, int]] = world.status()["holders"]
    return found


def sees(scene: Scene) -> bool:
    return scene.run("status")


def builds(scene: Scene) -> bool:
    waiter = scene.client(scene.uid, "wrap", "-w", "20", "a", "--", "true", groups=scene.groups)
    until(lambda: scene.world.records("gate") or not waiter.running(), "the waiter at the gate")
    scene.build.end()
    return waiter.end() == 0


def builds_first(scene: Scene) -> bool:
    return scene.run("wrap", "-n", "--priority", "-5", "a", "--", "true")


def supersedes(scene: Scene) -> bool:
    waiter = scene.client(scene.victim, "wrap", "-w", "20", "next", "--", "true")
    until(lambda: scene.world.records("gate"), "the waiter at the gate")
    scene.run("wrap", "-w", "0.1", "--supersede", "next", "--", "true")
    scene.build.end()
    return waiter.end() == 76


def binds(scene: Scene) -> bool:
    scene.world.ask("init", "--max-parallel-builds", "2")
    return scene.run("acquire", "-n", "--pid", str(scene.holder["command_pid"]), "a")


def loses_its_slot(scene: Scene, *command: str) -> bool:
    scene.run(*command, str(scene.holder["ticket"]))
    return not world_holders(scene.world)


def gives_back(scene: Scene) -> bool:
    return loses_its_slot(scene, "release")


def takes_away(scene: Scene) -> bool:
    return loses_its_slot(scene, "reset")


def ends(scene: Scene) -> bool:
    command = process.identify(scene.holder["command_pid"])
    loses_its_slot(scene, "reset", "--kill")
    return not process.exists(command)


def drains(scene: Scene) -> bool:
    return scene.run("drain") and scene.run("resume")


def sets_capacity(scene: Scene) -> bool:
    scene.run("init", "--max-parallel-builds", "3")
    return bool(scene.world.status()["capacity"] == 3)


def brings_capacity(scene: Scene) -> bool:
    scene.run("wrap", "-n", "a", "--", "true", MAX_PARALLEL_BUILDS="3")
    return bool(scene.world.status()["capacity"] == 3)


def allows_priorities(scene: Scene) -> bool:
    return scene.run("init", "--priority-min", "-5")


def makes_fair(scene: Scene) -> bool:
    return scene.run("init", "--fair", "user")


def lets_in(scene: Scene) -> bool:
    scene.run("init", "--mode", "0660", "--group", str(OTHER_GROUP))
    return scene.world.folder.stat().st_gid == OTHER_GROUP


def owns(scene: Scene) -> bool:
    scene.run("init")
    return scene.world.folder.stat().st_uid == scene.uid


def writes(scene: Scene) -> bool:
    holding = scene.world.folder / "holding"

    def post() -> None:
        posix_ipc.Semaphore(scene.world.name).release()

    deeds = [(holding / "77.1").touch, (holding / f"{scene.holder['ticket']}.1").unlink, post]
    done = {scene.touches(deed) for deed in deeds}
    assert len(done) == 1
    return done.pop()


DEEDS: dict[str, Callable[[Scene], bool]] = {
    "status": sees,
    "wrap": builds,
    "wrap --priority -5": builds_first,
    "wrap --supersede": supersedes,
    "acquire --pid": binds,
    "release": gives_back,
    "reset": takes_away,
    "reset --kill": ends,
    "drain": drains,
    "init --max-parallel-builds": sets_capacity,
    "MAX_PARALLEL_BUILDS": brings_capacity,
    "init --priority-min": allows_priorities,
    "init --fair": makes_fair,
    "init --group": lets_in,
    "init": owns,
    "": writes,
}


class Cell(NamedTuple):
    """Whether *actor* may do a deed in a pool that is shared or private."""

    deed: str
    actor: str
    shared: bool
    allowed: str


def cells() -> Iterator[Cell]:
    for number, table in enumerate(TABLES[1:3]):
        head, _, *rows = table.partition("\n\n")[0].splitlines()
        actors = [cell.strip() for cell in head.strip("|").split("|")]
        for row in rows:
            text, *answers = (cell.strip() for cell in row.strip("|").split("|"))
            deed = re.search("`(.*?)`", text)
            for actor, answer in zip(actors, answers, strict=True):
                yield Cell(deed[1] if deed else "", actor, number == 0, answer)


CELLS = list(cells())


def test_the_tables_name_each_deed_that_is_tried() -> None:
    assert ({cell.deed for cell in CELLS}, {cell.allowed for cell in CELLS}) == (DEEDS.keys(), {"yes", "no"})


@pytest.mark.parametrize(
    "cell", CELLS, ids=lambda cell: f"{'shared' if cell.shared else 'private'}-{cell.actor}-{cell.deed or 'files'}"
)
def test_each_may_do_what_the_tables_say_and_no_more(cell: Cell, world: World) -> None:
    needs_root(0)
    scene = Scene(world, cell.actor, VICTIM if cell.shared else UIDS["owner"])
    try:
        scene.begin(*(["--mode", "0660", "--group", str(GROUP)] if cell.shared else []))
        allowed = DEEDS[cell.deed](scene)
    finally:
        scene.end()

    assert ("yes" if allowed else "no") == cell.allowed
