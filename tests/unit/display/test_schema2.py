"""What programs read: schema 1 byte for byte as it always was, schema 2 by its rules, both as the manual says."""

from __future__ import annotations

import ast
import json
import re
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from ipclock import errors, i18n
from ipclock.cli import checks, doctor, stats, status
from ipclock.cli.checks import Check
from ipclock.display import schema2
from ipclock.history import statistics
from ipclock.history.replay import Figures, Plan
from tests.helpers import histories, known_pool

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ipclock.history.finished import Row

ROOT = Path(__file__).parents[3]
GOLDEN = ROOT / "tests/golden"
MANUALS = ("man/ipclock.1.in", "man/ko/ipclock.1.in")
NOTHING = type(None)
MOMENT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[+-]\d\d:\d\d")
CHECKS = [
    Check("umask", "umask", "ok", "0022: any will do"),
    Check("mutex", "mutex-stopped", "bad", "held by process 17, which is stopped", "Continue it."),
    Check("BUILD_TIMEOUT", "setting", "ok", "600 (default)"),
]


@pytest.fixture(autouse=True)
def utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The local time of the goldens."""
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def first() -> dict[str, Any]:
    """Return what each command shows in schema 1, by the name of its golden."""
    idle = statistics.report(known_pool.nothing(), None)
    return {
        "status-1": status.as_json(known_pool.standing()) | {"made": True},
        "status-1-idle": status.as_json(known_pool.idle()) | {"made": False},
        "stats-1": stats.as_json(known_pool.past(), known_pool.report(), "/known"),
        "stats-1-nothing": stats.as_json(known_pool.nothing(), idle, "/known"),
        "doctor-1": doctor.as_json(CHECKS, "/known", "1"),
    }


def builds() -> list[Row]:
    """Return a build of which all is known, one ended by a signal, one that got no slot and one that never started."""
    whole = histories.build("web", 1767225600.0, 61.5, waited_s=3.0, cpu_s=80.25)
    killed = whole._replace(outcome="signal", code=15, memory=None, cpu_s=None)
    return [whole, killed, histories.wait("web", 1767225600.0, 600.0), whole._replace(ticket=0, user="")]


def plan() -> Plan:
    """Return a plan of one label for two numbers of slots."""
    some = Figures(60.5, 120.0, 600.0, 0.5, 1, 2, 0)
    bare = some._replace(in_use=None, short=None)
    return Plan("/known", "web", 1767225600.0, 1767232800.0, 40, 2, False, 1 << 34, some, {2: some, 3: bare})


def second() -> dict[str, Any]:
    """Return the same in schema 2."""
    idle = statistics.report(known_pool.nothing(), None)
    return {
        "status-2": schema2.pool(known_pool.standing(), made=True),
        "status-2-idle": schema2.pool(known_pool.idle(), made=False),
        "stats-2": schema2.past(known_pool.past(), known_pool.report(), "/known"),
        "stats-2-nothing": schema2.past(known_pool.nothing(), idle, "/known"),
        "log-2": {"schema": schema2.SCHEMA, "builds": list(map(schema2.build, builds()))},
        "plan-2": schema2.plan(plan()),
        "doctor-2": doctor.as_json(CHECKS, "/known", "2"),
    }


@pytest.mark.parametrize("name", sorted(path.stem for path in GOLDEN.glob("*.json")))
def test_schema_1_is_byte_for_byte_what_it_was(name: str) -> None:
    assert json.dumps(first()[name], indent=2) + "\n" == (GOLDEN / f"{name}.json").read_text()


def values(found: object, key: str = "") -> Iterator[tuple[str, object]]:
    """Yield each plain value with the key that it stands under, those of a spread under the spread's."""
    if isinstance(found, dict):
        for name, value in found.items():
            yield from values(value, key if key.endswith(("_seconds", "_bytes")) or key == "outcomes" else name)
    elif isinstance(found, list):
        for value in found:
            yield from values(value, key)
    else:
        yield key, found


@pytest.mark.parametrize("name", second())
def test_in_schema_2_a_key_tells_the_kind_of_its_value_and_the_unknown_is_null(name: str) -> None:
    wrong = [
        (key, value)
        for key, value in values(second()[name])
        if value == ""
        or (key.endswith("_seconds") and not isinstance(value, float | NOTHING))
        or (key.endswith("_bytes") and type(value) not in (int, NOTHING))
        or (
            key in ("since", "until", "at", "arrived", "admitted", "ended")
            and not (value is None or MOMENT.fullmatch(str(value)))
        )
        or (key.endswith("_s") or key in ("drained", "memory", "left_s"))
    ]

    assert (wrong, second()[name]["schema"]) == ([], 2)


ORIGIN = {
    "directory": {NOTHING},
    "terminal": {NOTHING},
    "caller_pid": {NOTHING},
    "caller_gone": {NOTHING},
    "detached": {bool},
    "log": {str, NOTHING},
}
HOLDER = {
    "ticket": {int},
    "within_ticket": {int, NOTHING},
    "label": {str, NOTHING},
    "user": {str},
    "state": {str},
    "slot": {int},
    "slots": {int},
    "pid": {int, NOTHING},
    "command_pid": {int, NOTHING},
    "command": {NOTHING},
    "pids_are_ours": {bool},
    "processes": {list},
    "since": {str, NOTHING},
    "held_seconds": {float, NOTHING},
    "usual_seconds": {float, NOTHING},
    "cpu_seconds": {float, NOTHING},
    "memory_bytes": {int, NOTHING},
    "host": {str, NOTHING},
    "session_seconds": {float, NOTHING},
    "token": {str, NOTHING},
    **ORIGIN,
}
WAITER = {
    "ticket": {int},
    "position": {int},
    "label": {str},
    "user": {str},
    "slots": {int},
    "priority": {int},
    "held_back": {str, NOTHING},
    "at_gate": {bool},
    "pid": {int},
    "since": {str},
    "waited_seconds": {float},
    "timeout_seconds": {float, NOTHING},
    "left_min_seconds": {float, NOTHING},
    "left_max_seconds": {float, NOTHING},
    "host": {str, NOTHING},
    "session_seconds": {float, NOTHING},
    "command": {NOTHING},
    "pids_are_ours": {bool},
    **ORIGIN,
}
SUMMARY = {
    "label": {str, NOTHING},
    "builds": {int},
    "failed": {int},
    "timed_out": {int},
    "outcomes": {dict},
    "waited_seconds": {dict},
    "held_seconds": {dict, NOTHING},
    "memory_bytes": {dict, NOTHING},
}

BUILD = {
    "ticket": {int, NOTHING},
    "label": {str},
    "user": {str, NOTHING},
    "outcome": {str},
    "exit_status": {int, NOTHING},
    "signal": {int, NOTHING},
    "slot": {int, NOTHING},
    "slots": {int},
    "arrived": {str},
    "admitted": {str, NOTHING},
    "ended": {str},
    "waited_seconds": {float},
    "held_seconds": {float, NOTHING},
    "cpu_seconds": {float, NOTHING},
    "memory_bytes": {int, NOTHING},
}


def kinds(rows: list[dict[str, Any]]) -> dict[str, set[type]]:
    """Return the types of each key over all rows, each of which has all the keys, in one order."""
    assert len({tuple(row) for row in rows}) == 1
    return {key: {type(row[key]) for row in rows} for key in rows[0]}


def test_the_rows_of_schema_2_have_all_of_their_keys_and_each_its_types() -> None:
    pool, past = second()["status-2"], second()["stats-2"]

    found = [kinds(pool["holders"]), kinds(pool["waiters"]), kinds([past["all"], *past["labels"]])]

    assert found == [HOLDER, WAITER, SUMMARY]
    assert kinds(second()["log-2"]["builds"]) == BUILD
    assert (pool["drain"], pool["resize"]["slots_before"]) == ({"reason": None, "user": "root", "until": None}, 2)
    assert [(row["left_min_seconds"], row["left_max_seconds"]) for row in pool["waiters"]] == [
        (30.0, 58.5),
        (None, None),
    ]


def test_schema_2_tells_what_schema_1_tells() -> None:
    old, new = first(), second()

    pool = [new["status-2"][key] for key in ("slots", "slots_in_use", "slots_free", "slots_unlisted")]
    past = [new["stats-2"][key] for key in ("slot_seconds_used", "slot_seconds_available", "utilization")]
    assert pool == [old["status-1"][key] for key in ("capacity", "taken", "free", "unlisted")]
    assert past == [old["stats-1"][key] for key in ("held_slot_s", "slot_s", "in_use")]
    assert [row["code"] for row in new["doctor-2"]["checks"]] == ["umask", "mutex-stopped", "setting"]
    assert new["stats-2-nothing"]["slot_seconds_available"] is None


def codes() -> set[str]:
    """Return the codes that stand in the checks."""
    nodes = ast.walk(ast.parse(Path(checks.__file__).read_text()))
    made = [node.args[1] for node in nodes if isinstance(node, ast.Call) and ast.unparse(node.func) == "Check"]
    texts = [part for code in made for part in ast.walk(code) if isinstance(part, ast.Constant)]
    return {text.value for text in texts if isinstance(text.value, str) and len(text.value) > 1}


@pytest.mark.parametrize("manual", MANUALS)
def test_the_manual_has_every_key_and_every_code_of_schema_2(manual: str) -> None:
    text = (ROOT / manual).read_text().replace(r"\-", "-")
    section = re.split(r"^\[.+\]\n", re.split(r"^\[json\]\n", text, flags=re.M | re.I)[1], flags=re.M)[0]
    words = set(re.findall(r"[a-z0-9_-]+", section))

    def keys(found: object) -> set[str]:
        if isinstance(found, list):
            return set().union(*map(keys, found))
        return set(found).union(*map(keys, found.values())) if isinstance(found, dict) else set()

    known = set().union(*map(keys, second().values())) - {"done", "timeout"}  # outcomes
    assert (len(codes()) > 40, known - words, codes() - words) == (True, set(), set())


@pytest.mark.parametrize("language", i18n.LANGUAGES)
@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.NoProcError("/proc"), "no-proc"),
        (errors.ForeignPoolError("/dev/shm/x", 1000), "foreign-pool"),
        (errors.InvalidValueError("--name", "x", "a name"), "invalid-value"),
        (OSError(28, "No space left"), "pool-create"),
    ],
)
def test_a_failure_has_its_kind_for_its_code_in_every_language(error: Any, code: str, language: str) -> None:
    i18n.use(language)
    try:
        found = checks.failed("pool", error, "/dev/shm/x")
    finally:
        i18n.use("en")

    assert found.code == code
