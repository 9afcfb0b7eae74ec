"""`stats`: what people and scripts read of the builds of the last days."""

from __future__ import annotations

import json
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from ipclock.display.cells import columns
from ipclock.history.finished import Row, record
from tests.helpers.terminal import on_terminal

if TYPE_CHECKING:
    from tests.helpers.world import World

HOUR = 3600.0
GB = 2**30
SPREAD = {"mean": float, "p50": float, "p90": float, "p99": float}
SUMMARY = {
    "label": str,
    "builds": int,
    "outcomes": dict,
    "waited_s": dict,
    "held_s": dict,
    "memory": dict,
    "failed": int,
    "timed_out": int,
}
REPORT = {
    "schema": int,
    "name": str,
    "since": str,
    "until": str,
    "held_slot_s": float,
    "slot_s": float,
    "all": dict,
    "labels": list,
    "total_memory": int,
    "fits": int,
    "in_use": float,
}


@pytest.fixture
def path(world: World, tmp_path: Path) -> Path:
    """A history in which the world's pool has a past: four builds, a time limit, a build of eight days ago."""
    path = tmp_path / "history.db"
    world.env["HISTORY"] = str(path)
    now = time.time()

    def build(label: str, ago: float, held_s: float | None, outcome: str = "done", **more: Any) -> None:
        fields = {"uid": 0, "user": "root", "ticket": 1, "pool": world.name, "code": 0, "slots": 1, "capacity": 2}
        begun = now - ago - (held_s or 0)
        times = {"arrived": begun - 30, "waited_s": 30.0, "admitted": begun, "ended": now - ago}
        row = {"label": label, "held_s": held_s, "outcome": outcome, "memory": 3 * GB} | fields | times | more
        record(str(path), [Row(**row)], 90)

    build("web", 8 * 24 * HOUR, 60)
    build("web", 20 * HOUR, 4 * HOUR)
    build("web", 15 * HOUR, 2 * HOUR)
    build("스테이징 배포", 10 * HOUR, HOUR, slots=2, memory=None)
    build("web", 5 * HOUR, HOUR, "failed")
    build("web", HOUR, None, "timeout", waited_s=600.0, admitted=None, memory=None)
    return path


def types(row: dict[str, Any]) -> dict[str, type]:
    return {key: type(value) for key, value in row.items()}


def stats(world: World, *arguments: str) -> dict[str, Any]:
    """Return `ipclock stats --json`."""
    done = world.run("stats", "--json", *arguments)
    assert (done.returncode, done.stderr) == (0, "")
    parsed: dict[str, Any] = json.loads(done.stdout)
    return parsed


def test_the_text_has_a_line_for_each_label_and_one_for_all(world: World, path: Path) -> None:
    done = world.run("stats")

    first, heads, *table, memory = done.stdout.splitlines()
    # 7 days of 2 slots; in use: 4 h + 2 h + 2 * 1 h + 1 h
    assert (done.returncode, done.stderr, first.partition(": ")[2]) == (0, "", "5 builds, slots in use 3 % of the time")
    assert [" ".join(line.split()) for line in (heads, *table)] == [
        "label builds failed timed out wait: mean p50 p90 p99 build: mean p50 p90 p99 memory: p50 p90",
        "web 4 1 (25 %) 1 (25 %) 2 min 30 s 7 min 9 min 3 h 0 min 3 h 0 min 3 h 48 min 3 h 58 min 3.0 GB 3.0 GB",
        "스테이징 배포 1 0 0 30 s 30 s 30 s 30 s 1 h 0 min 1 h 0 min 1 h 0 min 1 h 0 min - -",
        "all 5 1 (20 %) 1 (20 %) 2 min 30 s 6 min 9 min 2 h 20 min 2 h 0 min 3 h 36 min 3 h 57 min 3.0 GB 3.0 GB",
    ]
    assert len({columns(line) for line in (heads, *table)}) == 1
    assert (memory.startswith("memory fits "), "/ 3.0 GB (9 of 10 builds need less)" in memory) == (
        True,
        True,
    )


@pytest.mark.parametrize("language", ["en", "ko"])
def test_a_single_label_has_no_line_for_all_and_the_columns_stand_below_each_other(
    language: str, world: World, path: Path
) -> None:
    lines = world.run("stats", "--label", "스테이징 배포", env={"IPCLOCK_LANG": language}).stdout.splitlines()

    assert (len(lines), lines[2].split()[:2], columns(lines[1])) == (3, ["스테이징", "배포"], columns(lines[2]))


@pytest.mark.parametrize("language", ["en", "ko"])
@pytest.mark.parametrize(("width", "is_whole"), [(60, False), (80, False), (110, False), (160, True)])
def test_a_terminal_gets_as_many_columns_as_it_has_room_for(
    width: int, is_whole: bool, language: str, world: World, path: Path
) -> None:
    lines = on_terminal(world, "stats", language=language, width=width)

    wide = on_terminal(world, "stats", "--wide", language=language, width=width)
    piped = world.run("stats", env={"IPCLOCK_LANG": language}).stdout.splitlines()
    told = any("--wide" in line for line in lines)
    assert ([line for line in lines if columns(line) > width], told) == ([], not is_whole)
    assert (wide[1:], wide[1:] == lines[1:], max(map(columns, wide)) > 130) == (piped[1:], is_whole, True)
    web = next(line for line in lines if line.startswith("web")).split()
    # builds, failed, in time, the mean wait: what was asked for stays
    assert web[1:3] == ["4", "1"] if width > 60 else web[1] == "4"


def test_json_has_the_documented_keys_and_types(world: World, path: Path) -> None:
    found = stats(world)

    summaries = [found["all"], found["labels"][0]]
    assert (types(found), [types(row) for row in summaries], types(summaries[0]["held_s"])) == (
        REPORT,
        [SUMMARY] * 2,
        SPREAD,
    )
    # a label whose memory nobody knows
    assert (found["schema"], found["name"], found["labels"][1]["memory"]) == (1, world.name, None)
    since, until = (datetime.fromisoformat(found[key]) for key in ("since", "until"))
    assert ((until - since).total_seconds(), since.utcoffset() is not None) == (
        pytest.approx(7 * 24 * HOUR, abs=1),
        True,
    )


def test_schema_2_names_what_it_counts(world: World, path: Path) -> None:
    found = json.loads(world.run("stats", "--json=2").stdout)

    web, other = found["labels"]
    assert (found["schema"], found["slot_seconds_used"], web["memory_bytes"]["p90"], other["memory_bytes"]) == (
        2,
        9 * HOUR,
        3 * GB,
        None,
    )
    assert found["utilization"] == found["slot_seconds_used"] / found["slot_seconds_available"]


@pytest.mark.parametrize(
    ("arguments", "counts"),
    [
        (("--since", "12h"), {"web": 2, "스테이징 배포": 1}),
        (("--since", "9d"), {"web": 5, "스테이징 배포": 1}),
        (("--since", "1e300"), {"web": 5, "스테이징 배포": 1}),
        (("--since", "0"), {}),
        (("--label", "스테이징 배포"), {"스테이징 배포": 1}),
        (("--label", "never built"), {}),
    ],
)
def test_a_span_a_label_or_a_pool_can_be_asked_for(
    arguments: tuple[str, ...], counts: dict[str, int], world: World, path: Path
) -> None:
    found = stats(world, *arguments)

    assert {row["label"]: row["builds"] for row in found["labels"]} == counts


@pytest.mark.parametrize("since", ["2w", "yesterday", "date", "time", "offset"])
def test_a_span_may_begin_on_a_day_or_at_a_time(world: World, path: Path, since: str) -> None:
    begin = datetime.now().astimezone() - timedelta(days=9)
    words = {
        "date": f"{begin:%Y-%m-%d}",
        "time": f"{begin:%Y-%m-%dT%H:%M}",
        "offset": begin.astimezone(UTC).isoformat(timespec="seconds"),
    }

    builds = stats(world, "--since", words.get(since, since))["all"]["builds"]

    # one of eight days ago; of the last two days all others
    assert builds == (5 if since == "yesterday" else 6)


@pytest.mark.parametrize(
    ("arguments", "where"), [(("--since", "soon"), "1w, yesterday, 2026-01-11"), (("--label", "a\nb"), "--label")]
)
def test_what_cannot_be_asked_for_is_a_usage_error(
    arguments: tuple[str, ...], where: str, world: World, path: Path
) -> None:
    done = world.run("stats", *arguments)

    assert (done.returncode, done.stdout, where in done.stderr.splitlines()[0]) == (2, "", True)


def test_before_any_build_has_ended_there_is_nothing_to_tell_and_nothing_is_made(world: World, tmp_path: Path) -> None:
    world.ask("init")
    world.env["HISTORY"] = str(tmp_path / "ipclock/history.db")

    text, found = world.run("stats"), stats(world, "--since", "1e300")

    assert (text.returncode, text.stdout[:27], list(tmp_path.iterdir())) == (0, "no build has ended since 20", [])
    assert (found["in_use"], found["fits"], found["all"]["held_s"], found["labels"]) == (None, None, None, [])


def test_without_a_history_that_is_said(world: World) -> None:
    done = world.run("stats")

    assert (done.returncode, done.stderr.splitlines()[0]) == (2, "ipclock: no history is kept (HISTORY=off)")


def test_a_file_that_is_no_history_is_named_with_its_remedy(world: World, tmp_path: Path) -> None:
    file = tmp_path / "history.db"
    file.write_text("garbage\n" * 1000)
    world.env["HISTORY"] = str(file)

    done = world.run("stats")

    assert (done.returncode, done.stderr.splitlines()) == (
        73,
        [
            f"ipclock: {file}: cannot use the history: not an ipclock history",
            "   Move the file away or set another one (HISTORY=/path); HISTORY=off keeps no history.",
        ],
    )


def test_a_build_of_today_is_in_it(world: World, tmp_path: Path) -> None:
    world.env["HISTORY"] = str(tmp_path / "history.db")
    world.run("wrap", "good", "--", "true")
    world.run("wrap", "good", "--", "false")

    found = stats(world)["labels"]

    assert [(row["label"], row["outcomes"]) for row in found] == [("good", {"done": 1, "failed": 1})]


def page(world: World, file: Path, *arguments: str, **more: Any) -> tuple[int, str, str]:
    """Write `ipclock stats --html` and return its exit status and streams."""
    done = world.run("stats", "--html", str(file), *arguments, **more)
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize(("language", "words"), [("en", "Builds by slot"), ("ko", "슬롯별 실행 기록")])
def test_a_page_is_written_in_the_readers_language(
    language: str, words: str, world: World, path: Path, tmp_path: Path
) -> None:
    file = tmp_path / "page.html"

    done = page(world, file, env={"IPCLOCK_LANG": language})

    text = file.read_text("utf-8")
    assert (done, f'<html lang="{language}">' in text, words in text, world.name in text) == ((0, "", ""), *[True] * 3)


def test_a_page_is_of_the_span_and_the_label_asked_for(world: World, path: Path, tmp_path: Path) -> None:
    file = tmp_path / "page.html"

    done = page(world, file, "--since", "12h", "--label", "web")

    text = file.read_text("utf-8")
    assert (done, "The last 2 of 2." in text, "스테이징" in text) == ((0, "", ""), True, False)


def test_a_dash_is_stdout_whatever_its_encoding(world: World, path: Path, tmp_path: Path) -> None:
    ascii_only = {"LC_ALL": "C", "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    with (tmp_path / "out").open("wb") as out:
        world.spawn(sys.executable, "-m", "ipclock", "stats", "--html", "-", env=ascii_only, stdout=out).wait()

    text = (tmp_path / "out").read_text("utf-8")
    assert (text[:15], text[-8:], "스테이징 배포" in text) == ("<!DOCTYPE html>", "</html>\n", True)


def test_before_any_build_has_ended_the_page_says_so(world: World, tmp_path: Path) -> None:
    world.ask("init")
    world.env["HISTORY"] = str(tmp_path / "none/history.db")

    done = page(world, tmp_path / "page.html")

    assert (done, "no build has ended since" in (tmp_path / "page.html").read_text()) == ((0, "", ""), True)


def test_a_page_and_json_exclude_each_other(world: World, path: Path) -> None:
    done = world.run("stats", "--json", "--html", "-")

    assert (done.returncode, done.stdout, "--html" in done.stderr.splitlines()[0]) == (2, "", True)
