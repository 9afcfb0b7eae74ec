"""The scenes of the crash tests, and `python -m tests.protocol.crash_sweep`, which plays each at every point.

Each scene is played once to count its points, then once a point, with a pool made anew and a victim that SIGKILLs
itself there. Afterwards the next client gets a slot, the value is N again, and nothing lies about but a draft, which
anybody sweeps away after a minute. The whole sweep takes some minutes; `pytest` plays each scene at some points only.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, NamedTuple

from ipclock.errors import NoTicket, SupersededError
from ipclock.linux import locks
from ipclock.linux.semaphore import path_of
from tests.helpers.crash_at import USER, Client, Crash, child
from tests.helpers.world import World, remove_pool, until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

# A build that runs until its stdin ends; two of them at the same time leave a mark.
BUILD = 'exec 9>>"$0"; flock -n 9 || { echo "$IPCLOCK_LABEL" >>"$1"; exit 99; }; echo ready; cat'


class Aftermath(NamedTuple):
    """What must hold after every crash."""

    next_build: tuple[str, int] = ("ready", 0)
    value: int = 1
    leftovers: tuple[tuple[str, int], ...] = ()
    lit_drafts: int = 0
    overlaps: str = ""


class Scene:
    """A pool, the clients in it, and the file that shows when two builds overlap."""

    def __init__(self, world: World, folder: Path) -> None:
        self.world = world
        self.witness = folder / "witness"
        self.overlap = folder / "overlap"
        for file in (self.witness, self.overlap):
            file.touch()
            file.chmod(0o666)
        self.clients: list[Client] = []
        self.owner = os.geteuid()

    def start(self, *arguments: str, crash: Crash | None = None, uid: int | None = None) -> Client:
        client = Client(*arguments, env=self.world.env, crash=crash, uid=uid)
        self.clients.append(client)
        return client

    def wrap(self, label: str, crash: Crash | None = None, uid: int | None = None, *options: str) -> Client:
        build = ("sh", "-c", BUILD, str(self.witness), str(self.overlap))
        return self.start("wrap", "-w", "20", *options, label, "--", *build, crash=crash, uid=uid)

    def at_gate(self, client: Client) -> Client:
        """Wait until somebody stands at the gate, or the client has died on the way there."""
        until(lambda: self.world.records("gate") or not client.running(), "a waiter at the gate")
        return client

    def from_the_pool_on(self, nth: int) -> Crash:
        return Crash(self.world.folder.name, nth)

    def aftermath(self) -> Aftermath:
        """Let the pool's owner build, and look at what is left."""
        following = self.wrap("next", uid=self.owner)
        built = (following.line(), following.end())
        left = self.world.leftovers()
        drafts = left.pop("new", [])
        return Aftermath(
            built,
            self.world.value() if Path(path_of(self.world.name)).exists() else -1,
            tuple((place, len(names)) for place, names in left.items()),
            sum(map(self._lit, drafts)) + max(0, len(drafts) - 1),
            self.overlap.read_text(),
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
        self.overlap.write_text("")
        remove_pool(self.world.name[1:])


@contextmanager
def scene_in(world: World) -> Iterator[Scene]:
    """An empty scene, whose witness every user may touch."""
    with TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        made = Scene(world, Path(folder))
        try:
            yield made
        finally:
            made.close()


# The scenes: each plays its story with a victim that dies at the nth point, and returns the victim.


def alone(scene: Scene, nth: int) -> Client:
    """Make the pool, build, give the slot back."""
    victim = scene.wrap("victim", scene.from_the_pool_on(nth))
    victim.line()
    victim.finish()
    return victim


def alone_in_a_fair_pool(scene: Scene, nth: int) -> Client:
    """Do the same in a fair pool, whose note counts the admission."""
    assert scene.start("init", "--fair", "user").wait() == 0
    return alone(scene, nth)


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


def making_a_pool_fair(scene: Scene, nth: int) -> Client:
    """Change between whom a pool is fair while others hold and wait."""
    holder = scene.wrap("holder")
    assert holder.line() == "ready"
    waiter = scene.at_gate(scene.wrap("waiter"))
    victim = scene.start("init", "--fair", "session", crash=scene.from_the_pool_on(nth))
    victim.wait()
    assert (holder.end(), waiter.line(), waiter.end()) == (0, "ready", 0)
    return victim


def releasing_to_a_waiter(scene: Scene, nth: int) -> Client:
    """Give the slot back while somebody stands at the gate, who gets it whatever happens."""
    victim = scene.wrap("victim", Crash("os.posix_spawn", nth))
    assert victim.line() == "ready"
    waiter = scene.at_gate(scene.wrap("waiter"))
    victim.finish()
    assert (waiter.line(), waiter.end()) == ("ready", 0)
    return victim


def giving_up(scene: Scene, nth: int) -> Client:
    """Leave the line on a signal, before one's turn has come."""
    holder = scene.wrap("holder")
    assert holder.line() == "ready"
    waiter = scene.at_gate(scene.wrap("waiter"))
    victim = scene.wrap("victim", Crash("os.rename", nth))
    until(lambda: scene.world.turns() or not victim.running(), "the victim in line, or its death")
    if victim.running():
        os.kill(victim.pid, signal.SIGTERM)
    victim.wait()
    assert (holder.end(), waiter.line(), waiter.end()) == (0, "ready", 0)
    return victim


def superseding_a_waiter(scene: Scene, nth: int) -> Client:
    """Take the place of a waiter of the same label; it leaves if it was marked, else it builds in its turn."""
    holder = scene.wrap("holder")
    assert holder.line() == "ready"
    waiter = scene.at_gate(scene.wrap("waiter"))
    older = scene.wrap("app")
    until(scene.world.turns, "the turn of the older one")
    victim = scene.wrap("app", scene.from_the_pool_on(nth), None, "--supersede")
    until(lambda: not older.running() or not victim.running(), "the end of the older one, or the victim's death")
    assert (holder.end(), waiter.line(), waiter.end()) == (0, "ready", 0)
    assert (older.line(), older.end()) in (("ready", 0), ("", SupersededError.status))
    victim.line()
    victim.finish()
    return victim


def inside_of_a_script(scene: Scene, nth: int) -> Client:
    """Build in the slot of this process, which gives it back afterwards, whatever died in it."""
    ticket = scene.start("acquire", "--pid", str(os.getpid()), "outer").line()
    victim = scene.wrap("victim", scene.from_the_pool_on(nth))
    victim.line()
    victim.finish()
    victim.wait()
    assert scene.start("release", ticket).wait() == 0
    return victim


def clearing_away_the_dead(scene: Scene, nth: int) -> Client:
    """Clear away a dead waiter; whoever died doing so, the next one does it."""
    holder = scene.wrap("holder")
    assert holder.line() == "ready"
    waiter = scene.at_gate(scene.wrap("waiter"))
    dead = scene.wrap("dead")
    until(scene.world.turns, "the turn of the dead to be")
    dead.kill()
    victim = scene.start("init", crash=scene.from_the_pool_on(nth))
    victim.wait()
    assert (holder.end(), waiter.line(), waiter.end()) == (0, "ready", 0)
    return victim


def acquiring_for_a_script(scene: Scene, nth: int) -> Client:
    """Take a slot for another process and leave; the slot lasts as long as that process, at most."""
    with child() as script:
        victim = scene.start("acquire", "--pid", str(script), "victim", crash=scene.from_the_pool_on(nth))
        victim.wait()
    return victim


def releasing_for_a_script(scene: Scene, nth: int) -> Client:
    """Give back what was acquired for this process; if that fails it can be done again."""
    acquired = scene.start("acquire", "--pid", str(os.getpid()), "victim")
    ticket = acquired.line()
    victim = scene.start("release", ticket, crash=scene.from_the_pool_on(nth))
    victim.wait()
    assert scene.start("release", ticket).wait() == 0
    return victim


def resetting_a_damaged_record(scene: Scene, nth: int) -> Client:
    """Take away a slot that a damaged record holds; whoever died doing so, the next reset does it."""
    assert scene.start("init").wait() == 0
    (scene.world.folder / "holding" / "1.1").touch()
    waiter = scene.at_gate(scene.wrap("waiter"))
    victim = scene.start("reset", crash=scene.from_the_pool_on(nth))
    victim.wait()
    assert scene.start("reset").wait() == 0
    assert (waiter.line(), waiter.end()) == ("ready", 0)
    return victim


def resetting_a_living_holder(scene: Scene, nth: int) -> Client:
    """Take away the slot of a build that goes on."""
    evicted = scene.start("wrap", "evicted", "--", "sh", "-c", "echo ready; cat")
    assert evicted.line() == "ready"
    waiter = scene.at_gate(scene.wrap("waiter"))
    victim = scene.start("reset", crash=scene.from_the_pool_on(nth))
    victim.wait()
    assert scene.start("reset").wait() == 0
    assert (waiter.line(), evicted.end(), waiter.end()) == ("ready", 0, 0)
    return victim


def root_in_the_pool_of_a_user(scene: Scene, nth: int) -> Client:
    """Build as root in a user's pool, where something is missing; the user goes on whatever happens."""
    scene.owner = USER
    assert scene.start("init", uid=USER).wait() == 0
    (scene.world.folder / "epoch").unlink()
    (scene.world.folder / "gate").rmdir()
    Path(path_of(scene.world.name)).unlink()
    return alone(scene, nth)


def cancelling_a_waiter(scene: Scene, nth: int) -> Client:
    """Cancel a waiter in line; if it was asked to leave it does, else it builds in its turn."""
    holder = scene.wrap("holder")
    assert holder.line() == "ready"
    waiter = scene.at_gate(scene.wrap("waiter"))
    asked = scene.wrap("asked")
    until(scene.world.turns, "the turn of the one that is asked to leave")
    victim = scene.start("cancel", "3", crash=scene.from_the_pool_on(nth))
    until(lambda: not asked.running() or not victim.running(), "the end of the one that is asked, or the victim's")
    victim.wait()
    assert (holder.end(), waiter.line(), waiter.end()) == (0, "ready", 0)
    assert (asked.line(), asked.end()) in (("ready", 0), ("", -signal.SIGTERM))
    return victim


def leaving_when_cancelled(scene: Scene, nth: int) -> Client:
    """Leave the gate on a cancel, before one who goes on whatever happens."""
    holder = scene.wrap("holder")
    assert holder.line() == "ready"
    victim = scene.at_gate(scene.wrap("victim", Crash("os.rename", nth)))
    waiter = scene.wrap("waiter")
    until(lambda: scene.world.waiting() == 1 + victim.running(), "the waiter in line")
    assert scene.start("cancel", "2").wait() in (0, NoTicket.status)
    victim.wait()
    assert (holder.end(), waiter.line(), waiter.end()) == (0, "ready", 0)
    return victim


def ending_a_cancelled_build(scene: Scene, nth: int) -> Client:
    """End one's build on a cancel; whoever dies doing so, the one who cancels it ends it."""
    victim = scene.wrap("victim", Crash("os.posix_spawn", nth))
    assert victim.line() == "ready"
    waiter = scene.at_gate(scene.wrap("waiter"))
    assert scene.start("cancel", "1").wait() in (0, NoTicket.status)
    victim.wait()
    assert (waiter.line(), waiter.end()) == ("ready", 0)
    return victim


def cancelling_an_orphan(scene: Scene, nth: int) -> Client:
    """End a build that no supervisor looks after; whoever dies doing so, the next one does it."""
    orphan = scene.wrap("orphan")
    assert orphan.line() == "ready"
    waiter = scene.at_gate(scene.wrap("waiter"))
    orphan.kill()
    victim = scene.start("cancel", "1", crash=scene.from_the_pool_on(nth))
    victim.wait()
    assert scene.start("cancel", "1").wait() in (0, NoTicket.status)
    assert (waiter.line(), waiter.end()) == ("ready", 0)
    return victim


SCENES = (
    alone,
    alone_in_a_fair_pool,
    behind_a_holder,
    between_a_holder_and_a_waiter,
    making_a_pool_fair,
    releasing_to_a_waiter,
    giving_up,
    superseding_a_waiter,
    inside_of_a_script,
    clearing_away_the_dead,
    acquiring_for_a_script,
    releasing_for_a_script,
    resetting_a_damaged_record,
    resetting_a_living_holder,
    cancelling_a_waiter,
    leaving_when_cancelled,
    ending_a_cancelled_build,
    cancelling_an_orphan,
    root_in_the_pool_of_a_user,
)


class Sweep(NamedTuple):
    """What came of playing a scene: its points, those tried, how many victims died, what was wrong after which."""

    points: int
    tried: int
    crashed: int
    wrong: dict[str, tuple[int, Aftermath]]


def played(scene: Scene, play: Callable[[Scene, int], Client], nth: int) -> tuple[int, list[str], Aftermath]:
    """Play the scene; return the victim's exit status, its points, and what came after."""
    try:
        victim = play(scene, nth)
        return victim.wait(), victim.trace(), scene.aftermath()
    finally:
        scene.close()


def sweep(
    scene: Scene, play: Callable[[Scene, int], Client], chosen: Callable[[list[str]], Sequence[int]] | None = None
) -> Sweep:
    """Play the scene with a crash at each point, or at those *chosen* by the trace of an undisturbed victim."""
    ending, points, aftermath = played(scene, play, 0)
    wrong = {} if aftermath == Aftermath() else {"undisturbed": (ending, aftermath)}
    crashed = 0
    tried = chosen(points) if chosen else range(1, len(points) + 1)
    for nth in tried:
        status, trace, aftermath = played(scene, play, nth)
        crashed += status == -signal.SIGKILL
        # a tick more or less in the first run makes a point more or less
        if status not in (-signal.SIGKILL, ending) or aftermath != Aftermath():
            wrong[f"{nth}: {trace[-1:]}"] = (status, aftermath)
    return Sweep(len(points), len(tried), crashed, wrong)


def main() -> int:
    """Play all scenes at all points, say how it went, and return the exit status."""
    found = []
    for play in SCENES:
        begun = time.monotonic()
        with scene_in(World(f"ipclock-sweep-{os.getpid()}")) as scene:
            result = sweep(scene, play)
        found.append(result)
        seconds = time.monotonic() - begun
        print(f"{play.__name__}: {result.crashed} crashes, {len(result.wrong)} wrong, {seconds:.0f} s")
        for point, facts in result.wrong.items():
            print(f"    {point}: {facts}")
    print(f"{sum(result.crashed for result in found)} crashes, {sum(len(result.wrong) for result in found)} wrong")
    return int(any(result.wrong for result in found))


if __name__ == "__main__":
    sys.exit(main())
