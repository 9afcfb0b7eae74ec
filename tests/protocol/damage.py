"""Bytes of a history changed at random, and all that uses one then: `python -m tests.protocol.damage --seconds 300`.

A round is its seed: it puts strange values into some columns, or changes bytes of the file and of the log beside it, or
cuts them off. What is read after that may be anything that a sound history could hold, or a HistoryFailed; it goes
through all that shows it.
"""

from __future__ import annotations

import json
import math
import os
import random
import shutil
import sqlite3
import tempfile
import time
from argparse import ArgumentParser
from collections import Counter
from contextlib import closing
from pathlib import Path

from prometheus_client.openmetrics.parser import text_string_to_metric_families

from ipclock.cli import plan as plan_command
from ipclock.cli import stats as stats_command
from ipclock.display import build_list, prometheus, schema2
from ipclock.display.html import page, timeline
from ipclock.errors import HistoryFailed
from ipclock.history import queries, replay, simulation, statistics
from ipclock.history.counters import Total
from ipclock.history.finished import Row, expected_many, record
from ipclock.history.queries import Which
from ipclock.history.simulation import Work
from ipclock.pool import snapshot
from tests.helpers.histories import build, keep, storm

POOL = "/oracle-build"
END = 1_790_000_000.0
FILES = ("history.db", "history.db-wal")
COLUMNS = {"finished": Row._fields, "totals": (*Total._fields, "ended", "pool")}
STRANGE = (
    None,
    "",
    "x",
    "5",
    "\x1b[2J",
    "a\nb",
    "\0",
    b"",
    b"\xff\x1b",
    0,
    1,
    -1,
    2**62,
    -(2**63),
    2**63 - 1,
    0.5,
    -1.5,
)
STRANGE += (
    1e10,
    1e12,
    1.7e308,
    -1.7e308,
    math.inf,
    -math.inf,
    1e-320,
    END,
    END - 1,
    "staging",
    "done",
    POOL,
    "x" * 300,
)
EDGES = (0, 1, 0x7F, 0x80, 0xFF)
SLOW_S = 20.0  # two questions of a person who asks for all of it


def whole(folder: Path) -> Path:
    """Make a sound history in the folder, half of it still in the log; return a folder with its files alone."""
    path = folder / "made/history.db"
    keep(str(path), storm(1, 150, END))
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA wal_autocheckpoint = 0")
        connection.execute("SELECT * FROM finished").fetchall()  # or the log would be gone with its last writer
        for number in range(5):
            record(str(path), [build("staging", END - number, 100.0)], 90, apart=False)
        copied = folder / "whole"
        copied.mkdir()
        for name in FILES:
            shutil.copy(path.with_name(name), copied / name)
    return copied


def damage(chance: random.Random, data: bytes) -> bytes:
    """Return the bytes with some of them changed."""
    changed = bytearray(data)
    if chance.random() < 0.1:
        del changed[chance.randrange(len(changed)) :]
    for _ in range(chance.choice((1, 1, 2, 5, 50))):
        if not changed:
            break
        # most of a page is its rows; what steers is in its head
        page = chance.randrange(0, len(changed), 4096)
        place = min(len(changed) - 1, page + chance.choice((chance.randrange(100), chance.randrange(4096))))
        changed[place] = chance.choice((chance.randrange(256), chance.choice(EDGES), changed[place] ^ 1 << place % 8))
    return bytes(changed)


def forge(chance: random.Random, path: str) -> None:
    """Put strange values into some columns of some rows."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        for _ in range(chance.choice((1, 1, 3, 10))):
            table = chance.choice(sorted(COLUMNS))
            column, value = chance.choice(COLUMNS[table]), chance.choice(STRANGE)
            rows = chance.choice(("1", "1", "id % 2", "id % 10 = 3")) if table == "finished" else "1"
            which = f"{chance.choice(COLUMNS[table])} <> ? AND {rows}"
            # what the table itself refuses is no danger
            change = f"UPDATE OR IGNORE {table} SET {column} = ? WHERE {which}"
            connection.execute(change, (value, chance.choice(STRANGE)))


def use(path: str) -> list[str]:
    """Use the history in every way; return what kept us from it."""
    failures = []
    for way in (_report, _list, _plan, _metrics, _wait, _write):
        try:
            way(path)
        except HistoryFailed as error:
            failures.append(error.reason)
    return failures


def _report(path: str) -> None:
    past = queries.read(path, POOL, 0.0, END)
    report = statistics.report(past, 1 << 34)
    "\n".join(stats_command.text_lines(past, report)).encode()
    json.dumps(stats_command.as_json(past, report, POOL), allow_nan=False)
    recent = queries.recent(path, POOL, past.begin, None, page.MOST_ROWS, timeline.grid(past.begin, past.end))
    page.render(page.View(POOL, None, "en"), past, report, recent).encode()


def _list(path: str) -> None:
    rows = list(queries.newest(path, POOL, Which(), None))
    "\n".join(build_list.lines(rows, 80)).encode()
    json.dumps(list(map(schema2.build, rows)), allow_nan=False)


def _plan(path: str) -> None:
    past, arrivals = queries.arrivals(path, POOL, 0.0, END, 1000)
    jobs, pool = replay.jobs_of(arrivals, 1), replay.Pool(3, 1, 1 << 34, holds=True)
    figures = replay.figures(jobs, replay.replay(jobs, pool), pool, past.begin, past.end, None)
    actual = replay.recorded(arrivals, statistics.available(past), past.begin, past.end, None)
    plan = replay.Plan(POOL, None, past.begin, past.end, len(jobs), 2, True, None, actual, {3: figures})
    "\n".join(plan_command.text_lines(plan)).encode()
    json.dumps(schema2.plan(plan), allow_nan=False)


def _metrics(path: str) -> None:
    text = prometheus.text(snapshot.empty(POOL, 2), queries.totals(path, POOL), "openmetrics").decode()
    assert all(letter.isprintable() or letter == "\n" for letter in text)
    list(text_string_to_metric_families(text))


def _wait(path: str) -> None:
    known = expected_many(path, [*queries.known_labels(path), "staging"])
    works = [Work(one.spans) for one in known.values()]
    simulation.wait(works[:2], works[2:], 1, 2)
    assert all(0 <= (one.memory or 0) <= 1 << 60 for one in known.values())


def _write(path: str) -> None:
    record(path, [build("staging", END, 100.0), build("new", END, 100.0)], 90)


def round_of(seed: int, sound: Path, folder: Path) -> list[str]:
    """Play one round; return what kept us from using the history. Raises AssertionError for a fault of ours."""
    chance = random.Random(seed)
    for name in FILES:
        data = (sound / name).read_bytes()
        (folder / name).write_bytes(damage(chance, data) if chance.random() < 0.7 else data)
    for rest in ("history.db-shm", "history.db-journal"):
        (folder / rest).unlink(missing_ok=True)
    if chance.random() < 0.5:
        for name in FILES:
            shutil.copy(sound / name, folder / name)
        forge(chance, str(folder / "history.db"))
    begun = time.monotonic()
    try:
        failures = use(str(folder / "history.db"))
    except Exception as error:
        raise AssertionError(f"seed {seed}") from error
    assert time.monotonic() - begun < SLOW_S, f"seed {seed}: {time.monotonic() - begun:.1f} s"
    return failures


def main() -> None:
    """Play rounds for some time, and tell how often each failure was told."""
    parser = ArgumentParser(prog="python -m tests.protocol.damage", description=__doc__.partition("\n")[0])
    parser.add_argument("--seed", type=int, default=0, help="of the first round")
    parser.add_argument("--seconds", type=float, default=300.0)
    args = parser.parse_args()
    told: Counter[str] = Counter()
    end, seed = time.monotonic() + args.seconds, args.seed
    with tempfile.TemporaryDirectory(dir="/dev/shm" if os.path.isdir("/dev/shm") else None) as name:
        sound = whole(Path(name))
        while time.monotonic() < end:
            try:
                told.update(round_of(seed, sound, Path(name)) or ["nothing"])
            except AssertionError as error:
                told[f"FAULT {error} {error.__cause__!r}"] += 1
            seed += 1
    print(f"{seed - args.seed} rounds")
    for reason, count in told.most_common():
        print(f"{count:8} {reason}")


if __name__ == "__main__":
    main()
