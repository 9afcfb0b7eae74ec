"""SIGKILL at every point where a client asks something of the kernel: nothing lost, nobody too many, whatever died.

Each sweep first counts the points of an undisturbed run, then repeats the scene once a point, with a pool made anew.
Afterwards the next client gets a slot, the value is N again, and nothing lies about but a draft, which anybody sweeps
away after a minute.
"""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING, NamedTuple

import pytest

from ipclock import locks
from tests.helpers.crash_at import USER, Client, Crash
from tests.helpers.world import remove_pool, until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.helpers.world import World

# A build that runs until its stdin ends; two of them at the same time leave a mark.
BUILD = 'exec 9>>"$0"; flock -n 9 || { echo >>"$0.overlap"; exit 99; }; echo ready; cat'


class Aftermath(NamedTuple):
    """What must hold after every crash."""

    next_build: tuple[str, int] = ("ready", 0)
    value: int = 1
    leftovers: tuple[tuple[str, int], ...] = ()
    lit_drafts: int = 0
    overlaps: bool = False


class Scene:
    """A pool, the clients in it, and the file that shows when two builds overlap."""

    def __init__(self, world: World, folder: Path) -> None:
        self.world = world
        self.witness = folder / "witness"
        self.overlap = folder / "witness.overlap"
        self.clients: list[Client] = []
        self.owner = 0

    def start(self, *arguments: str, crash: Crash | None = None, uid: int | None = None) -> Client:
        client = Client(*arguments, env=self.world.env, crash=crash, uid=uid)
        self.clients.append(client)
        return client

    def wrap(self, label: str, crash: Crash | None = None, uid: int | None = None) -> Client:
        build = ("sh", "-c", BUILD, str(self.witness))
        return self.start("wrap", "-w", "20", label, "--", *build, crash=crash, uid=uid)

    def at_gate(self, client: Client) -> Client:
        """Wait until somebody stands at the gate, or the client has died on the way there."""
        until(lambda: self.world.records("gate") or not client.running(), "a waiter at the gate")
        return client

    def from_the_pool_on(self, nth: int) -> Crash:
        return Crash(self.world.folder.name, nth)

    def aftermath(self, uid: int | None = None) -> Aftermath:
        """Let the next client build, and look at what is left."""
        following = self.wrap("next", uid=uid)
        built = (following.line(), following.end())
        left = self.world.leftovers()
        drafts = left.pop("new", [])
        return Aftermath(
            built,
            self.world.value(),
            tuple((place, len(names)) for place, names in left.items()),
            sum(map(self._lit, drafts)) + max(0, len(drafts) - 1),
            self.overlap.exists(),
        )

    def _lit(self, draft: str) -> bool:
        fd = os.open(self.world.folder / "new" / draft, os.O_RDONLY)
        try:
            return locks.is_locked(fd)
        finally:
            os.close(fd)

    def close(self) -> None:
        """End all clients and forget the pool."""
        for client in self.clients:
            client.close()
        self.clients.clear()
        self.overlap.unlink(missing_ok=True)
        remove_pool(self.world.name[1:])


@pytest.fixture
def scene(world: World, tmp_path: Path) -> Iterator[Scene]:
    """An empty scene."""
    # other users' builds write their marks here too
    for folder in (tmp_path, tmp_path.parent, tmp_path.parent.parent):
        folder.chmod(0o755)
    tmp_path.chmod(0o777)
    made = Scene(world, tmp_path)
    yield made
    made.close()


# The scenes: each plays its story with a victim that dies at the nth point, and returns the victim.


def alone(scene: Scene, nth: int) -> Client:
    """Make the pool, build, give the slot back."""
    victim = scene.wrap("victim", scene.from_the_pool_on(nth))
    victim.line()
    victim.finish()
    return victim


def behind_a_holder(scene: Scene, nth: int) -> Client:
    """Wait behind a holder, go to the gate, be admitted, build, give the slot back."""
    holder = scene.wrap("holder")
    assert holder.line() == "ready"
    victim = scene.at_gate(scene.wrap("victim", scene.from_the_pool_on(nth)))
    assert holder.end() == 0
    victim.line()
    victim.finish()
    return victim


def between_a_holder_and_a_waiter(scene: Scene, nth: int) -> Client:
    """Wait behind a holder with somebody behind oneself, who goes on whatever happens."""
    holder = scene.wrap("holder")
    assert holder.line() == "ready"
    victim = scene.at_gate(scene.wrap("victim", scene.from_the_pool_on(nth)))
    waiter = scene.at_gate(scene.wrap("waiter"))
    until(lambda: scene.world.waiting() == 1 + victim.running(), "the waiter in line")
    assert holder.end() == 0
    victim.line()
    victim.finish()
    assert (waiter.line(), waiter.end()) == ("ready", 0)
    return victim


def releasing_to_a_waiter(scene: Scene, nth: int) -> Client:
    """Give the slot back while somebody stands at the gate, who gets it whatever happens."""
    victim = scene.wrap("victim", Crash("os.posix_spawn", nth))
    assert victim.line() == "ready"
    waiter = scene.at_gate(scene.wrap("waiter"))
    victim.finish()
    assert (waiter.line(), waiter.end()) == ("ready", 0)
    return victim


def resetting(scene: Scene, nth: int) -> Client:
    """Take away a slot that a damaged record holds; whoever died doing so, the next reset does it."""
    scene.start("init").wait()
    (scene.world.folder / "holding" / "1.1").touch()
    waiter = scene.at_gate(scene.wrap("waiter"))
    victim = scene.start("reset", crash=scene.from_the_pool_on(nth))
    victim.wait()
    assert scene.start("reset").wait() == 0
    assert (waiter.line(), waiter.end()) == ("ready", 0)
    return victim


def giving_up(scene: Scene, nth: int) -> Client:
    """Leave the line before one's turn has come, on a signal."""
    holder = scene.wrap("holder")
    assert holder.line() == "ready"
    scene.at_gate(scene.wrap("waiter"))
    victim = scene.wrap("victim", Crash("sem_wait", 0) if nth == 0 else Crash("ipclock.sem_wait", nth))
    until(lambda: scene.world.waiting() == 2 or not victim.running(), "the victim in line")
    if victim.running():
        os.kill(victim.pid, signal.SIGTERM)
    victim.wait()
    for client in scene.clients[:2]:
        client.finish()
    assert [client.wait() for client in scene.clients[:2]] == [0, 0]
    return victim


def root_in_the_pool_of_a_user(scene: Scene, nth: int) -> Client:
    """Build as root in a user's pool, whose semaphore is missing; the user goes on whatever happens."""
    scene.owner = USER
    assert scene.start("init", uid=USER).wait() == 0
    (scene.world.folder.parent / f"sem.{scene.world.name[1:]}").unlink()
    return alone(scene, nth)


def sweep(scene: Scene, play: Callable[[Scene, int], Client]) -> tuple[int, dict[str, Aftermath]]:
    """Play the scene once a point; return (how many points there are, what was wrong after which)."""
    scene_owner = None

    def crash_at(nth: int) -> tuple[int, list[str], Aftermath]:
        try:
            victim = play(scene, nth)
            code, trace = victim.wait(), victim.trace()
            return code, trace, scene.aftermath(scene.owner or scene_owner)
        finally:
            scene.close()

    _, undisturbed, aftermath = crash_at(0)
    wrong = {} if aftermath == Aftermath() else {"undisturbed": aftermath}
    for nth in range(1, len(undisturbed) + 1):
        code, trace, aftermath = crash_at(nth)
        if code != -signal.SIGKILL or aftermath != Aftermath():
            wrong[f"{nth} of {len(undisturbed)} ({code}): {trace[-1] if trace else ''}"] = aftermath
    return len(undisturbed), wrong


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    "play",
    [
        alone,
        behind_a_holder,
        between_a_holder_and_a_waiter,
        releasing_to_a_waiter,
        resetting,
        root_in_the_pool_of_a_user,
    ],
)
def test_a_crash_at_any_point_loses_nothing(play: Callable[[Scene, int], Client], scene: Scene) -> None:
    import time

    begun = time.time()
    points, wrong = sweep(scene, play)
    print(play.__name__, points, time.time() - begun)

    assert (points > 10, wrong) == (True, {})
