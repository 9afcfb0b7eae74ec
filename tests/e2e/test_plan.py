"""`plan`: what other numbers of slots would have done, in words and as JSON, and when it says nothing."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING

import pytest

from ipclock.display.cells import columns
from tests.helpers.histories import build, keep, wait

if TYPE_CHECKING:
    from pathlib import Path

    from tests.helpers.world import World

HOUR = 3600.0
MINUTE = 60.0


@pytest.fixture
def past(world: World, tmp_path: Path) -> Path:
    """Give the world's pool of one slot 20 pairs of builds, a pair an hour, of ten minutes each; the second waits."""
    path = tmp_path / "history.db"
    world.env["HISTORY"] = str(path)
    world.ask("init", "--max-parallel-builds", "1")
    now = time.time()
    rows = []
    for number in range(20):
        came = now - (21 - number) * HOUR
        rows.append(build("web", came, 10 * MINUTE, pool=world.name, capacity=1))
        rows.append(build("배포", came + 10 * MINUTE, 10 * MINUTE, waited_s=9 * MINUTE, pool=world.name, capacity=1))
    keep(str(path), rows)
    return path


def test_the_table_has_what_happened_a_replay_of_it_and_what_was_asked_for(world: World, past: Path) -> None:
    done = world.run("plan", "2")

    first, *table = done.stdout.splitlines()[:5]
    assert (done.returncode, done.stderr, first.partition(": ")[2]) == (0, "", "40 builds, slots today: 1")
    # 400 minutes of 21 hours
    assert [" ".join(line.split()) for line in table] == [
        "slots wait: mean p90 longest in use gave up memory short",
        "as recorded 4 min 9 min 9 min 32 % 0 -",
        "1 (today) 4 min 9 min 9 min 32 % 0 0",
        "2 0 s 0 s 0 s 16 % 0 0",
    ]
    assert "error of the replay with 1 slots: mean +0 s, p90 +0 s" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "means"),
    [
        ((), {1: 270.0, 2: 0.0}),
        (("3", "2"), {1: 270.0, 2: 0.0, 3: 0.0}),
        (("1",), {1: 270.0}),
        (("2", "--label", "배포"), {1: 540.0, 2: 0.0}),
    ],
)
def test_json_has_a_plan_for_each_number_of_slots_and_for_todays(
    arguments: tuple[str, ...], means: dict[int, float], world: World, past: Path
) -> None:
    found = json.loads(world.run("plan", *arguments, "--json").stdout)

    plans = {plan["slots"]: plan["waited_seconds"]["mean"] for plan in found["plans"]}
    assert (found["schema"], found["slots"], plans) == (2, 1, pytest.approx(means, abs=0.01))
    assert found["actual"]["waited_seconds"]["mean"] == pytest.approx(means[1], abs=0.01)


@pytest.mark.parametrize("arguments", [("--since", "9h"), ("--label", "never built")], ids=str)
def test_of_too_few_builds_there_are_no_figures(arguments: tuple[str, ...], world: World, past: Path) -> None:
    text, found = world.run("plan", "2", *arguments), world.run("plan", "2", *arguments, "--json")

    told = json.loads(found.stdout)
    assert (text.returncode, text.stdout[:22], len(text.stdout.splitlines())) == (0, "too few builds since 2", 1)
    assert (told["actual"], told["plans"], told["builds"] < 20) == (None, [], True)


def test_it_says_what_it_cannot_know(world: World, past: Path) -> None:
    now = time.time()
    late = [wait("web", now - 2 * HOUR, 5, pool=world.name, capacity=1)]
    keep(str(past), [*late, build("big", now - HOUR, 60, slots=2, capacity=2, pool=world.name)])

    notes = world.run("plan", "2").stdout.splitlines()[5:]

    assert notes[1:] == [
        "the number of slots changed within this time",
        "builds that gave up: 1; if admitted, they take the median time of their label",
        "builds that need more than 1 slots, left out: 1",
        "build times as recorded: more builds at once may make each slower",
        "not recorded: time limits, priorities, drains, label limits of single builds",
    ]


def test_the_settings_say_how_many_of_a_label_run_at_once(world: World, past: Path) -> None:
    world.env["MAX_PER_LABEL"] = "1"
    now = time.time()
    keep(str(past), [build("web", now - HOUR + at, 60, pool=world.name, capacity=1) for at in (0, 1)])

    found = json.loads(world.run("plan", "2", "--label", "web", "--json").stdout)

    assert found["plans"][1]["waited_seconds"]["longest"] == pytest.approx(59, abs=0.01)


@pytest.mark.parametrize("language", ["en", "ko"])
def test_the_table_fits_into_80_columns_and_stands_below_its_heads(language: str, world: World, past: Path) -> None:
    table = world.run("plan", "2", env={"IPCLOCK_LANG": language}).stdout.splitlines()

    assert (max(map(columns, table)) <= 80, len(set(map(columns, table[1:5])))) == (True, 1)


@pytest.mark.parametrize("number", ["0", "x", "1001", "1.5"])
def test_a_number_that_no_pool_has_is_refused(number: str, world: World, past: Path) -> None:
    done = world.run("plan", number)

    assert (done.returncode, f"N: invalid value '{number}'" in done.stderr) == (2, True)
