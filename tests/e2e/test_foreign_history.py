"""A history that others write too: whatever they put there, no command hangs or breaks, and no exit status is lost."""

from __future__ import annotations

import os
import signal
import sqlite3
import time
from contextlib import closing, nullcontext
from typing import TYPE_CHECKING

import pytest

from ipclock.history import finished
from tests.helpers.crash_at import child
from tests.helpers.histories import build, keep
from tests.helpers.world import until

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager
    from pathlib import Path

    from tests.helpers.world import World

READING = ("status", "status --json", "stats", "stats --json", "stats --html -", "metrics", "complete labels")
READING += ("log", "log --json", "plan 2", "plan 2 --json")
PROBLEMS = ("internal error", "Traceback", "NaN", "Infinity", "\x1b")
FINISHED = ("arrived", "waited_s", "admitted", "held_s", "ended", "code", "slots", "capacity", "memory", "cpu_s")
FINISHED += ("slot", "uid", "ticket")
TOTALS = ("wait_to", "hold_to", "builds", "waited_s", "held_s", "since", "ended")
VALUES = {
    "text": "'x'",
    "a blob": "x'ff00'",
    "no end": "9e999",
    "no beginning": "-9e999",
    "a negative span": "-5.5",
    "the greatest integer": "9223372036854775807",
    "the least integer": "-9223372036854775807",
    "a number beyond any clock": "1.7e308",
}


@pytest.fixture
def path(world: World, tmp_path: Path) -> Path:
    """A history in which the world's pool has a past of good builds, some of them alike."""
    path = tmp_path / "history.db"
    world.env["HISTORY"] = str(path)
    world.run("wrap", "-q", "a", "--", "true")
    now = time.time()
    keep(str(path), [build("a", now - 500 - number // 2, 40.0, pool=world.name) for number in range(8)])
    return path


def forge(path: Path, *statements: str) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA ignore_check_constraints = ON")
        for statement in statements:
            connection.execute(statement)


def read(world: World) -> dict[str, object]:
    """Return what each command that reads ends with, and what in its words must not be there."""
    found: dict[str, object] = {}
    for words in READING:
        done = world.ask(*words.split())
        found[words] = done.returncode, [problem for problem in PROBLEMS if problem in done.stdout + done.stderr]
    return found


def served(world: World) -> tuple[int, int, int]:
    """Return what a build ends with that holds the slot, one that waits for it, and one that finds it free."""
    holder = world.wrap("a").started()
    waiter = world.wrap("a", "-w", "60", "--memory", "auto")
    until(lambda: "waiting" in waiter.heard(), "the waiting line")
    held = holder.end(3)
    waited = waiter.started().end(5)
    return held, waited, world.run("wrap", "-q", "a", "--", "sh", "-c", "exit 7").returncode


WELL = dict.fromkeys(READING, (0, []))
REFUSED = WELL | dict.fromkeys(("stats", "stats --json", "stats --html -", "metrics", *READING[-4:]), (73, []))


@pytest.mark.parametrize("value", VALUES)
def test_no_number_that_is_none_reaches_a_reader_or_ends_a_wait(value: str, world: World, path: Path) -> None:
    half = [f"UPDATE finished SET {column} = {VALUES[value]} WHERE id % 2" for column in FINISHED]
    # a key of `totals` must stay one of its own
    each = [f"UPDATE OR IGNORE totals SET {column} = {VALUES[value]}" for column in TOTALS]
    forge(path, *half, *each, f"UPDATE finished SET held_s = {VALUES[value]} WHERE id = 4")

    assert (read(world), served(world)) == (WELL, (3, 5, 7))


@pytest.mark.parametrize("column", FINISHED)
def test_one_column_that_holds_text_takes_no_more_than_its_rows(column: str, world: World, path: Path) -> None:
    forge(path, f"UPDATE finished SET {column} = 'x'")

    assert read(world) == WELL


LABELS = ("x'ff00'", "5", "''", "char(27) || '[2J'", "CAST(x'61ff1b' AS TEXT)", "char(0)")


@pytest.mark.parametrize("label", LABELS)
def test_a_label_that_is_none_reaches_no_terminal(label: str, world: World, path: Path) -> None:
    forge(path, f"UPDATE finished SET label = {label}", f"UPDATE OR IGNORE totals SET label = {label}")

    assert (read(world), served(world)) == (WELL, (3, 5, 7))


def test_a_label_without_measure_is_told_and_not_read(world: World, path: Path) -> None:
    forge(path, "UPDATE finished SET label = hex(zeroblob(400000))", "UPDATE totals SET label = hex(zeroblob(400000))")

    assert (read(world), served(world)) == (REFUSED, (3, 5, 7))


def endless(name: str) -> str:
    """Return a view that never ends, in the shape of the table of builds."""
    columns = ", ".join(f"n AS {column}" for column in ("id", *finished.Row._fields))
    numbers = "WITH RECURSIVE f(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM f)"
    return f"CREATE VIEW {name} AS {numbers} SELECT {columns} FROM f"


TRIGGER = (
    "CREATE TRIGGER more AFTER INSERT ON finished BEGIN DELETE FROM finished WHERE id IN"
    " (WITH RECURSIVE f(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM f) SELECT -n FROM f); END"
)
SCHEMAS = {
    "a view in place of the table": ("DROP TABLE finished", endless("finished")),
    "a view that is named as a pragma": (endless("pragma_user_version"),),
    "a trigger": (TRIGGER,),
    "another column": ("ALTER TABLE finished ADD COLUMN more AS (hex(zeroblob(1000000)))",),
    "no index": ("DROP INDEX by_label",),
    "an index of its own": ("CREATE INDEX mine ON finished (abs(label))",),
    "another table of counters": ("DROP TABLE totals", endless("totals")),
}


@pytest.mark.parametrize("kind", SCHEMAS)
def test_nothing_that_others_have_put_into_the_schema_is_run(kind: str, world: World, path: Path) -> None:
    forge(path, *SCHEMAS[kind])

    done = world.run("wrap", "-q", "a", "--", "sh", "-c", "exit 7")

    told = "not the tables of ipclock" in done.stderr
    assert (done.returncode, done.stderr.count("\n"), told) == (7, 1, True)
    assert (read(world), served(world)) == (REFUSED, (3, 5, 7))


def exclusive(path: Path) -> None:
    """Have the whole database locked, for good."""
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA journal_mode = DELETE")
    connection.execute("BEGIN EXCLUSIVE")
    path.with_name("ready").touch()
    signal.pause()


def stopped(path: Path) -> None:
    """Stop in the middle of a transaction."""
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA journal_mode = DELETE")
    connection.execute("BEGIN EXCLUSIVE")
    path.with_name("ready").touch()
    os.kill(os.getpid(), signal.SIGSTOP)


def truncating(path: Path) -> None:
    """Cut off again and again what all who have the database open have mapped into their memory."""
    connection = sqlite3.connect(path)
    connection.execute("SELECT * FROM finished").fetchall()
    while True:
        for end in ("-shm", "-wal"):
            fd = os.open(f"{path}{end}", os.O_RDWR | os.O_CREAT)
            os.ftruncate(fd, 0)
            os.close(fd)
        path.with_name("ready").touch()


def beside(end: str, make: Callable[[str], object]) -> Callable[[Path], None]:
    def plant(path: Path) -> None:
        for other in ("-wal", "-shm", "-journal"):
            path.with_name(path.name + other).unlink(missing_ok=True)
        make(f"{path}{end}")
        path.with_name("ready").touch()

    return plant


def instead(make: Callable[[Path], object]) -> Callable[[Path], None]:
    def plant(path: Path) -> None:
        whole = path.read_bytes()
        path.unlink()
        make(path) if make.__name__ != "cut" else path.write_bytes(whole[: len(whole) // 2])
        path.with_name("ready").touch()

    return plant


def cut(path: Path) -> None:
    """Leave the first half of it."""


BAD: dict[str, Callable[[Path], None]] = {
    "locked": exclusive,
    "locked by one that is stopped": stopped,
    "its shared memory cut off under its readers": truncating,
    "cut off": instead(cut),
    "a folder": instead(lambda path: path.mkdir()),
    "a pipe": instead(os.mkfifo),
    "a link to what has no end": instead(lambda path: path.symlink_to("/dev/zero")),
    "a log that is a pipe": beside("-wal", os.mkfifo),
    "a log without end": beside("-wal", lambda name: os.symlink("/dev/zero", name)),
    "an index of the log that is a pipe": beside("-shm", os.mkfifo),
    "a journal that is a pipe": beside("-journal", os.mkfifo),
}


@pytest.mark.parametrize("kind", BAD)
def test_nothing_at_the_path_hangs_a_command_or_costs_a_build_its_status(kind: str, world: World, path: Path) -> None:
    plant = BAD[kind]
    stays = plant in (exclusive, stopped, truncating)
    around: AbstractContextManager[object] = child(lambda: plant(path)) if stays else nullcontext(stays or plant(path))
    with around:
        until(path.with_name("ready").exists, "what is planted")

        found, kept = read(world), served(world)

    faults = {words: end for words, end in found.items() if end not in ((0, []), (73, []))}
    assert (faults, found["status"], kept) == ({}, (0, []), (3, 5, 7))
