"""Whatever happens to many clients at once, N is never exceeded and every slot comes back; the observer can fail."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

from tests.helpers.crash_at import OTHER_USER, USER
from tests.helpers.world import until
from tests.storm.plan import Job, plan
from tests.storm.storm import Storm
from tests.storm.strangers import NAMESPACES, missing, users_ways

if TYPE_CHECKING:
    from pathlib import Path

    from tests.helpers.world import World

BROKEN = (
    "import sys; from ipclock.cli.command_line import main; from ipclock.pool import policy;"
    "policy.may_admit = lambda *_: True; sys.exit(main())"
)


@pytest.mark.timeout(120)
def test_a_short_storm_exceeds_nothing_and_leaves_nothing(world: World, tmp_path: Path) -> None:
    report = Storm(world, tmp_path, 7, 3).run(plan(7, 80))

    assert (report.violations, report.odd, report.inversions, report.left_over) == ([], [], 0, (3, {}))
    assert (sum(report.ended.values()), report.builds > 30, report.worst[0] > 1) == (80, True, True)


@pytest.mark.timeout(120)
@pytest.mark.parametrize("strangers", [{"namespaces": True}, {"users": True}], ids=["namespaces", "users"])
def test_a_short_storm_of_strangers_exceeds_nothing_and_leaves_nothing(
    strangers: dict[str, bool], world: World, tmp_path: Path
) -> None:
    if reason := missing(**strangers):
        pytest.skip(reason)
    users = users_ways() if "users" in strangers else ()
    jobs = plan(5, 50, namespaces="namespaces" in strangers, users=users)

    # a frozen one takes seconds
    report = Storm(world, tmp_path, 5, 2).run([job for job in jobs if job.fate != "freeze"])

    came = sum(count for what, count in report.happened.items() if what.startswith(("own ", "of user ")))
    assert (report.violations, report.odd, report.inversions, report.left_over) == ([], [], 0, (2, {}))
    assert (came > 10, report.builds > 20, report.worst[0] > 1) == (True, True, True)


@pytest.mark.parametrize("namespace", [name for name, space in NAMESPACES.items() if space.pids])
def test_a_build_of_another_pid_namespace_is_the_one_that_is_killed(
    namespace: str, world: World, tmp_path: Path
) -> None:
    if reason := missing(namespaces=True):
        pytest.skip(reason)
    job = Job("job-0", (), 1, "wrap", 1000.0, "kill build", 0.0, namespace)
    storm = Storm(world, tmp_path, 1, 1)
    storm._start(job)
    client = storm.clients[job.label]
    until(lambda: storm.observer.look(), "the build")

    storm._befall(job)

    until(lambda: client.poll() is not None, "its end")
    assert (client.poll(), storm.observer.living(), world.settled()) == (-9, [], (1, {}))


def test_strangers_change_nothing_else_of_what_a_seed_has_in_store() -> None:
    jobs, strange = plan(3, 200), plan(3, 200, namespaces=True, users={"wrap"})

    assert [job._replace(namespace="", uid=None) for job in strange] == jobs
    assert ({job.namespace for job in strange}, {job.uid for job in strange}) == (
        {"", *NAMESPACES},
        {None, USER, OTHER_USER},
    )


def test_what_was_killed_while_it_arrived_is_left_to_the_pool_to_clear_away(world: World, tmp_path: Path) -> None:
    world.ask("init")
    (world.folder / "new" / "2.22538083968243").touch()

    assert Storm(world, tmp_path, 1, 2).run([]).left_over == (2, {})


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
