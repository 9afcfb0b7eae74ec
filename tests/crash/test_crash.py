"""SIGKILL and errors at a sample of the system calls of every command; `python -m tests.crash` tries them all."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.crash.sweep import SCENES, Point, faults, in_line, play, problem

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.crash.sweep import Scene
    from tests.helpers.sample import Sample
    from tests.helpers.world import Build

SAMPLE = 4  # points a scene and kind


@pytest.fixture(autouse=True)
def strace() -> None:
    if reason := problem():
        pytest.skip(reason)


@pytest.mark.timeout(180)
@pytest.mark.parametrize("kind", ["killed", "refused"])
@pytest.mark.parametrize("scene", SCENES)
def test_hit_at_any_call_a_command_breaks_no_promise(
    scene: Callable[[Scene], tuple[Build, list[Build]]], kind: str, sample: Sample
) -> None:
    undisturbed, points = play(scene, None)
    chosen = points if kind == "killed" else list(faults(points))

    tried = sample.of(chosen, max(1, len(chosen) // SAMPLE))
    wrong = {str(point): outcome.wrong for point in tried if (outcome := play(scene, point)[0]).wrong}

    assert (undisturbed.wrong, len(tried) >= SAMPLE, wrong) == ([], True, {})


def test_a_turn_that_could_not_be_removed_is_removed_later() -> None:
    outcome, points = play(in_line, Point("unlink", 1, "EIO"))

    assert (outcome.wrong, Point("unlink", 2) in points) == ([], True)
