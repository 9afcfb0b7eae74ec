"""Whatever happens to many clients at once, N is never exceeded and every slot comes back; the observer can fail."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

from tests.storm.plan import plan
from tests.storm.storm import Storm

if TYPE_CHECKING:
    from pathlib import Path

    from tests.helpers.world import World

BROKEN = "import sys; from ipclock import cli, policy; policy.may_admit = lambda *_: True; sys.exit(cli.main())"


@pytest.mark.timeout(120)
def test_a_short_storm_exceeds_nothing_and_leaves_nothing(world: World, tmp_path: Path) -> None:
    report = Storm(world, tmp_path, 7, 3).run(plan(7, 80))

    odd = [status for status in report.ended if "!" in status]
    assert (report.violations, odd, report.inversions, report.left_over) == ([], [], 0, (3, {}))
    assert (sum(report.ended.values()), report.builds > 30, report.worst[0] > 1) == (80, True, True)


@pytest.mark.timeout(120)
def test_the_observer_sees_a_pool_that_admits_too_many(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = [job._replace(fate="", options=(), slots=1, way="wrap", seconds=0.3) for job in plan(1, 12)]

    storm = Storm(world, tmp_path, 1, 1, [sys.executable, "-c", BROKEN])
    monkeypatch.setattr(storm, "_weather", lambda: None)
    look = storm._look

    def look_and_post() -> None:
        look()
        if world.records("holding") and world.records("gate"):
            world.post()

    monkeypatch.setattr(storm, "_look", look_and_post)
    assert storm.run(jobs).violations != []
