"""Rows of a history, and what it tells of them."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING

from ipclock.history.finished import Row, record
from ipclock.history.queries import read

if TYPE_CHECKING:
    from pathlib import Path

    from ipclock.history.statistics import Past

NOW = 1_790_000_000.0
POOL = "/oracle-build"
BUILD = Row(
    label="스테이징 배포",
    uid=1000,
    user="builder",
    ticket=17,
    pool="/oracle-build",
    arrived=NOW - 130,
    waited_s=30.5,
    admitted=NOW - 99.5,
    held_s=99.5,
    ended=NOW,
    outcome="done",
    code=0,
    slots=1,
    capacity=2,
    memory=2_900_000_000,
    cpu_s=180.25,
    slot=2,
)
TIMEOUT = BUILD._replace(admitted=None, held_s=None, outcome="timeout", code=None, memory=None, cpu_s=None, slot=None)


def kept(path: str) -> list[Row]:
    """Return all rows, as another program reads them."""
    with closing(sqlite3.connect(path)) as connection:
        return [Row(*row[1:]) for row in connection.execute("SELECT * FROM finished ORDER BY id")]


def filled(path: str, *rows: Row) -> str:
    for row in rows:
        record(path, [row], 90)
    return path


def build(label: str, ended: float, held_s: float, **more: object) -> Row:
    """Return a good build of one of two slots that ended so many seconds after NOW."""
    fields = {
        "label": label,
        "uid": 0,
        "user": "root",
        "ticket": 1,
        "pool": POOL,
        "arrived": NOW + ended - held_s,
        "waited_s": 0.0,
        "admitted": NOW + ended - held_s,
        "held_s": held_s,
        "ended": NOW + ended,
        "outcome": "done",
        "code": 0,
        "slots": 1,
        "capacity": 2,
    }
    return Row(**(fields | more))  # type: ignore[arg-type]


def timeout(label: str, ended: float, waited_s: float) -> Row:
    waited = build(label, ended, waited_s, waited_s=waited_s, outcome="timeout")
    return waited._replace(admitted=None, held_s=None)


def past_of(path: Path, *rows: Row, begin: float = 0.0, end: float = 1000.0, label: str | None = None) -> Past:
    """Return what a history with these rows tells of that span."""
    for row in rows:
        record(str(path), [row], 90)
    return read(str(path), POOL, NOW + begin, NOW + end, label)
