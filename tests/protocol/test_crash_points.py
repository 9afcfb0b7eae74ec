"""SIGKILL at every point where a client asks something of the kernel: nothing lost, nobody too many, whatever died."""

from __future__ import annotations

import re
import signal
from typing import TYPE_CHECKING

import pytest

from tests.helpers.world import until
from tests.protocol.crash_sweep import SCENES, Aftermath, scene_in, sweep

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.helpers.crash_at import Client
    from tests.helpers.sample import Sample
    from tests.helpers.world import World
    from tests.protocol.crash_sweep import Scene


@pytest.fixture
def scene(world: World) -> Iterator[Scene]:
    """An empty scene."""
    with scene_in(world) as made:
        yield made


@pytest.mark.timeout(300)
@pytest.mark.parametrize("play", SCENES)
def test_a_crash_at_any_point_loses_nothing(play: Callable[[Scene, int], Client], scene: Scene, sample: Sample) -> None:
    found = sweep(scene, play, lambda trace: sample.of_trace(trace, 8))

    # the first run may have ticked more often, or looked again at what is ending
    reached = found.crashed > found.tried * 2 // 3 - 5
    assert (found.points > 5, reached, found.wrong) == (True, True, {})
    assert found.crashed > 0


def test_a_killed_supervisor_leaves_the_slot_to_its_build(scene: Scene) -> None:
    victim = scene.wrap("victim")
    assert victim.line() == "ready"
    killed = victim.kill()

    waiter = scene.at_gate(scene.wrap("waiter"))
    kept = (scene.world.records("holding"), scene.world.records("gate"))
    victim.finish()

    assert (killed, kept, waiter.line(), waiter.end(), scene.aftermath()) == (
        -signal.SIGKILL,
        (["1.1"], ["2"]),
        "ready",
        0,
        Aftermath(),
    )


def test_steps_come_in_the_order_that_a_crash_cannot_spoil(scene: Scene) -> None:
    holder = scene.wrap("holder")
    assert holder.line() == "ready"
    first = scene.at_gate(scene.wrap("first", scene.from_the_pool_on(0)))
    second = scene.wrap("second")
    until(scene.world.turns, "the turn of the second")
    ended = [client.end() for client in (holder, first, second)]

    def when(event: str) -> int:
        return next(number for number, line in enumerate(first.trace()) if re.match(event, line))

    name = scene.world.name
    drafted, published = when(rf"open {first.pid}\.\d+ "), when(rf"os.rename {first.pid}\.\d+ 2 ")
    lit = drafted + 1 + next(n for n, line in enumerate(first.trace()[drafted + 1 :]) if line.startswith("fcntl"))
    called, woken = when("os.rename 3 3 "), when(f"ipclock.sem_post {name}.3$")
    # INV-1: a record that is listed is lit; INV-5: who is woken finds its record in gate/
    assert (ended, drafted < lit < published, called < woken) == ([0, 0, 0], True, True)
