"""`metrics`: what Prometheus is told of a pool, and that what lies in contrib/prometheus fits to it."""

from __future__ import annotations

import json
import re
import shutil
import signal
import sqlite3
import subprocess
import time
from contextlib import closing
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families
from prometheus_client.parser import text_string_to_metric_families as text_format

from ipclock.history.counters import BOUNDS, MAX_LABELS
from ipclock.history.finished import Row, record
from ipclock.history.outcomes import OUTCOMES
from tests.helpers.machine import ROOT
from tests.helpers.world import HANG_S, until

if TYPE_CHECKING:
    from tests.helpers.world import World

HERE = ROOT / "contrib/prometheus"
DAY = 86400.0
Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


@pytest.fixture
def path(world: World, tmp_path: Path) -> Path:
    """The world's history."""
    path = tmp_path / "history.db"
    world.env["HISTORY"] = str(path)
    return path


def samples(text: str, parse: Any = text_string_to_metric_families) -> Samples:
    """Return the samples of a text that is sound, without the pool's label."""
    return {
        (sample.name, frozenset((key, value) for key, value in sample.labels.items() if key != "pool")): sample.value
        for family in parse(text)
        for sample in family.samples
    }


def metrics(world: World, *arguments: str) -> Samples:
    """Return what `ipclock metrics` prints."""
    done = world.run("metrics", *arguments)
    assert (done.returncode, done.stderr) == (0, "")
    return samples(done.stdout)


def value(found: Samples, name: str, **labels: str) -> float:
    return found[f"ipclock_{name}", frozenset(labels.items())]


def tool(*command: str, text: str = "", folder: Path = HERE) -> tuple[int, str]:
    """Run a program over what lies in contrib/prometheus; return (exit status, what it says)."""
    if shutil.which(command[0]) is None:
        pytest.skip(f"{command[0]} is not installed")
    done = subprocess.run(
        command, input=text, cwd=folder, stdout=-1, stderr=subprocess.STDOUT, text=True, timeout=HANG_S, check=False
    )
    return done.returncode, done.stdout


def ended(path: Path, pool: str, label: str = "web", days_ago: float = 0, keep_days: int = 90, **more: Any) -> None:
    """Record the end of a build."""
    end = time.time() - days_ago * DAY
    fields = {"label": label, "uid": 0, "user": "root", "ticket": 1, "pool": pool, "code": 0, "slots": 1, "capacity": 1}
    spans = {"waited_s": 2.0, "held_s": 20.0, "outcome": "done"}
    times = {"arrived": end - 22, "admitted": end - 20, "ended": end}
    record(str(path), [Row(**(fields | spans | times | more))], keep_days)


# The pool as it stands


def test_an_idle_pool_has_its_slots_free(world: World) -> None:
    world.run("init", "--max-parallel-builds", "3")

    found = metrics(world)

    assert {name: number for (name, _), number in found.items()} == {
        "ipclock_slots": 3,
        "ipclock_slots_in_use": 0,
        "ipclock_builds_waiting": 0,
        "ipclock_oldest_wait_seconds": 0,
        "ipclock_drained": 0,
        "ipclock_orphans": 0,
    }


def test_builds_that_run_and_wait_are_told(world: World) -> None:
    first = world.wrap("a", "--slots", "2", "--max-parallel-builds", "3").started()
    second = world.wrap("b").started()
    waiters = [world.wrap(label) for label in "cd"]
    until(lambda: world.waiting() == 2, "both waiters in line")

    found = metrics(world)

    names = ("slots", "slots_in_use", "builds_waiting", "orphans")
    assert ([value(found, name) for name in names], value(found, "oldest_wait_seconds") > 0) == ([3, 3, 2, 0], True)
    for build in (first, second, *waiters):
        build.started().end() if build in waiters else build.end()


def test_an_orphan_and_a_drain_are_told(world: World) -> None:
    build = world.wrap("a").started()
    build.signal(signal.SIGKILL)
    build.wait()
    world.run("drain")

    found = metrics(world)

    assert [value(found, name) for name in ("orphans", "slots_in_use", "drained")] == [1, 1, 1]


# The past


def test_builds_that_end_are_counted_by_label_and_outcome(world: World, path: Path) -> None:
    world.run("wrap", "web", "--", "true")
    world.run("wrap", "web", "--", "false")
    holder = world.wrap("api").started()
    world.run("wrap", "-w", "0.2", "web", "--", "true")
    world.run("wrap", "-n", "web", "--", "true")
    holder.end()

    found = metrics(world)

    def counted(label: str) -> dict[str, float]:
        outcomes = {
            outcome: value(found, "finished_builds_total", label=label, outcome=outcome) for outcome in OUTCOMES
        }
        return {outcome: number for outcome, number in outcomes.items() if number}

    assert (counted("web"), counted("api")) == ({"done": 1, "failed": 1, "timeout": 1, "busy": 1}, {"done": 1})
    names = ("waits_total", "timeouts_total", "wait_seconds_count", "hold_seconds_count")
    assert [[value(found, name, label=label) for name in names] for label in ("web", "api")] == [
        [4, 1, 4, 2],
        [1, 0, 1, 1],
    ]


def test_the_histograms_count_each_build_in_its_bucket(world: World, path: Path) -> None:
    for waited_s, held_s in ((0.0, 1.0), (1.5, 5.0), (1e6, 60.5)):
        ended(path, world.name, waited_s=waited_s, held_s=held_s)
    ended(path, world.name, waited_s=600.0, held_s=None, admitted=None, outcome="timeout")

    found = metrics(world)

    def buckets(name: str) -> list[float]:
        bounds = [*map(str, BOUNDS[:-1]), "+Inf"]
        return [value(found, f"{name}_bucket", label="web", le=bound) for bound in bounds]

    assert (buckets("wait_seconds"), value(found, "wait_seconds_sum", label="web")) == (
        [1, 2, 2, 2, 2, 2, 2, 3, 3, 3, 3, 3, 4],
        1_000_601.5,
    )
    assert (buckets("hold_seconds"), value(found, "hold_seconds_sum", label="web")) == (
        [1, 2, 2, 2, 2, 3, 3, 3, 3, 3, 3, 3, 3],
        66.5,
    )


def test_counters_do_not_fall_when_old_rows_go(world: World, path: Path) -> None:
    ended(path, world.name, days_ago=5)
    ended(path, world.name, keep_days=1)

    with closing(sqlite3.connect(path)) as connection:
        rows = connection.execute("SELECT count(*) FROM finished").fetchone()[0]
    assert (rows, value(metrics(world), "waits_total", label="web")) == (1, 2)


def test_a_history_from_before_there_were_counters_is_counted_from_now_on(world: World, path: Path) -> None:
    ended(path, world.name)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("DROP TABLE totals")
    before = metrics(world)

    ended(path, world.name)

    after = metrics(world)
    assert (any("waits" in name for name, _ in before), value(after, "waits_total", label="web")) == (False, 1)


def test_another_pool_in_the_same_history_is_none_of_ours(world: World, path: Path) -> None:
    world.run("init")
    ended(path, "/another")

    assert [name for name, labels in metrics(world) if labels] == []


def test_a_counter_tells_since_when_it_has_counted(world: World, path: Path) -> None:
    ended(path, world.name, days_ago=3)
    ended(path, world.name, outcome="failed")

    found = metrics(world)

    names = ("waits_created", "wait_seconds_created")
    assert [round((time.time() - value(found, name, label="web")) / DAY) for name in names] == [3, 3]


def test_labels_beyond_the_first_ones_are_one(world: World, path: Path) -> None:
    for number in range(MAX_LABELS + 2):
        ended(path, world.name, label=f"commit {number}")
    ended(path, world.name, label="commit 7")

    found = metrics(world)

    labels = {dict(labels)["label"] for name, labels in found if name == "ipclock_waits_total"}
    assert (len(labels), "commit 99" in labels, "commit 100" in labels) == (MAX_LABELS + 1, True, False)
    assert [value(found, "waits_total", label=label) for label in ("other", "commit 7", "commit 8")] == [2, 2, 1]


def test_a_label_that_nobody_builds_any_more_makes_room(world: World, path: Path) -> None:
    for number in range(MAX_LABELS):
        ended(path, world.name, label=f"commit {number}", days_ago=8 if number == 7 else 1)

    ended(path, world.name, label="web", keep_days=7)

    found = metrics(world)
    labels = {dict(labels)["label"] for name, labels in found if name == "ipclock_waits_total"}
    assert ("web" in labels, "other" in labels, "commit 7" in labels, "commit 8" in labels) == (
        True,
        False,
        False,
        True,
    )


@pytest.mark.parametrize("label", ['a "b"', "a\\", "a\\n", '스테이징 배포 🚀"} 1', "other", "{", "=,", "#"])
def test_any_label_comes_back_as_it_was(label: str, world: World, path: Path, tmp_path: Path) -> None:
    ended(path, world.name, label=label)
    file = tmp_path / "ipclock.prom"

    world.run("metrics", "-o", str(file))

    both = (metrics(world), samples(file.read_text(), text_format))
    assert [value(found, "waits_total", label=label) for found in both] == [1, 1]


@pytest.mark.parametrize("form", ["openmetrics", "prometheus"])
def test_a_label_moves_no_cursor_and_one_that_looks_like_it_is_the_same_series(
    form: str, world: World, path: Path
) -> None:
    ended(path, world.name, label="\x1b[2J\n\x9b\u202e")
    ended(path, world.name, label=r"\x1b[2J\n\x9b\u202e")
    parse = text_string_to_metric_families if form == "openmetrics" else text_format

    text = world.run("metrics", "--format", form).stdout

    strange = {letter for letter in text if not letter.isprintable()}
    found = value(samples(text, parse), "waits_total", label=r"\x1b[2J\n\x9b\u202e")
    assert (strange, found) == ({"\n"}, 2)


def test_without_a_history_there_are_no_counters(world: World, path: Path) -> None:
    world.run("init")
    ended(path, world.name)
    world.env["HISTORY"] = "off"

    assert {name for name, labels in metrics(world) if labels} == set()


def test_a_history_that_cannot_be_read_is_told(world: World, path: Path) -> None:
    path.write_text("no database, but long enough to be looked at")

    done = world.run("metrics")

    assert (done.returncode, done.stdout, f"{path}: the history cannot be used" in done.stderr) == (73, "", True)


# The two formats, and the file


@pytest.mark.parametrize(
    ("arguments", "openmetrics"),
    [
        (("-o", "x.prom"), False),
        (("--output", "x.txt"), True),
        (("-o", "x.prom", "--format", "openmetrics"), True),
        (("-o", "x.txt", "--format", "prometheus"), False),
    ],
)
def test_a_file_of_the_textfile_collector_gets_the_format_that_it_reads(
    arguments: tuple[str, ...], openmetrics: bool, world: World, path: Path, tmp_path: Path
) -> None:
    ended(path, world.name)

    done = world.run("metrics", *arguments, cwd=tmp_path, env={"PYTHONPATH": str(ROOT)})

    text = (tmp_path / arguments[1]).read_text()
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert (text.endswith("# EOF\n"), "_created" in text, "# TYPE ipclock_waits_total counter" in text) == (
        openmetrics,
        openmetrics,
        not openmetrics,
    )


def test_promtool_finds_nothing_amiss(world: World, path: Path) -> None:
    for outcome in OUTCOMES:
        ended(path, world.name, outcome=outcome)
    text = world.run("metrics", "--format", "prometheus").stdout

    assert tool("promtool", "check", "metrics", text=text) == (0, "")


def test_without_the_library_it_says_what_to_install(world: World, tmp_path: Path) -> None:
    world.run("init")
    (tmp_path / "prometheus_client.py").write_text("raise ImportError\n")

    done = world.run("metrics", env={"PYTHONPATH": str(tmp_path)})

    assert (done.returncode, done.stdout, done.stderr.splitlines()) == (
        69,
        "",
        [
            "ipclock: the Python package prometheus_client is not installed",
            "   Install it: pip install 'ipclock[metrics]'",
        ],
    )


# What lies in contrib/prometheus


def names_in(text: str) -> set[str]:
    return set(re.findall(r"\bipclock_\w+", text))


def panels() -> list[dict[str, Any]]:
    dashboard = json.loads((HERE / "dashboard.json").read_text())
    found: list[dict[str, Any]] = dashboard["panels"]
    return found


def expressions() -> list[str]:
    """Return the expressions of the dashboard, its variables filled in."""
    texts = [target["expr"] for panel in panels() for target in panel["targets"]]
    return [text.replace("$__rate_interval", "5m").replace("$instance", "a").replace("$pool", "/p") for text in texts]


def test_alerts_and_dashboard_use_metrics_that_there_are(world: World, path: Path) -> None:
    ended(path, world.name)
    printed = {name for name, _ in metrics(world)}

    alerts = names_in(re.sub("#.*", "", (HERE / "ipclock.rules.yml").read_text()))
    shown = names_in((HERE / "dashboard.json").read_text())

    assert (alerts - printed, shown - printed, len(alerts) > 5, len(shown) > 10) == (set(), set(), True, True)


def test_the_readme_names_every_metric(world: World, path: Path) -> None:
    ended(path, world.name)
    printed = {re.sub("_(bucket|sum|count)$", "", name) for name, _ in metrics(world) if not name.endswith("_created")}

    assert names_in((HERE / "README.md").read_text()) == printed


def test_the_alerts_do_what_their_tests_say() -> None:
    checked = tool("promtool", "check", "rules", "ipclock.rules.yml")
    tested = tool("promtool", "test", "rules", "ipclock.rules.test.yml")

    assert (checked[0], tested[0]) == (0, 0), (checked[1], tested[1])


def test_every_alert_has_a_test() -> None:
    named = [
        re.findall(r"(?:alert|alertname): (\w+)", (HERE / f"ipclock.rules{end}").read_text())
        for end in (".yml", ".test.yml")
    ]

    assert set(named[0]) == set(named[1])


def test_the_dashboard_asks_what_prometheus_understands(tmp_path: Path) -> None:
    rules = [{"record": f"panel:{number}", "expr": text} for number, text in enumerate(expressions())]
    (tmp_path / "rules.yml").write_text(json.dumps({"groups": [{"name": "dashboard", "rules": rules}]}))

    status, said = tool("promtool", "check", "rules", "rules.yml", folder=tmp_path)

    assert (status, f"{len(rules)} rules found" in said) == (0, True), said


def test_the_panels_of_the_dashboard_stand_beside_each_other() -> None:
    def apart(one: dict[str, int], other: dict[str, int]) -> bool:
        return any(
            a[at] + a[size] <= b[at] for a, b in ((one, other), (other, one)) for at, size in (("x", "w"), ("y", "h"))
        )

    places = [panel["gridPos"] for panel in panels()]

    assert [pair for pair in combinations(places, 2) if not apart(*pair)] == []
    assert (len({panel["id"] for panel in panels()}), max(place["x"] + place["w"] for place in places)) == (
        len(places),
        24,
    )


def test_the_units_are_as_systemd_wants_them() -> None:
    assert tool("systemd-analyze", "verify", "./ipclock-metrics.service", "./ipclock-metrics.timer") == (0, "")
