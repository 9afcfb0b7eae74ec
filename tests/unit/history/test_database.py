"""A history's file: made and shared as it should be, and no file can harm its writer."""

from __future__ import annotations

import os
import signal
import sqlite3
import stat
import subprocess
import sys
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from ipclock.errors import HistoryFailed
from ipclock.history import database, finished
from ipclock.history.finished import Expected, expected, record
from tests.helpers.crash_at import OTHER_USER, USER, become, child, in_child, needs_root, unshared
from tests.helpers.world import HANG_S, SHM, until
from tests.unit.history.rows import BUILD, filled, kept

if TYPE_CHECKING:
    from collections.abc import Callable


ROOT = Path(__file__).parents[3]


RECORD_ONE = "from tests.unit.history.test_database import attempt; import sys; print(attempt(sys.argv[1]))"
RECORD_MANY = """
import sys
from ipclock.history.finished import record
from tests.unit.history.rows import BUILD
path, writer = sys.argv[1:]
sys.stdin.read()  # all begin when the test closes its end: the file is made once, by eight
for number in range(200):
    record(path, [BUILD._replace(uid=int(writer), ticket=number)], 90)
"""


@pytest.fixture
def path(tmp_path: Path) -> str:
    """Where a history may be made."""
    return str(tmp_path / "state/ipclock/history.db")


def attempt(path: str) -> str:
    """Return why a row cannot be kept, "" if it can."""
    try:
        record(path, [BUILD], 90)
    except HistoryFailed as error:
        return error.reason
    return ""


def mode(path: str | Path) -> str:
    return oct(stat.S_IMODE(os.stat(path).st_mode))


@pytest.mark.parametrize("umask", [0o000, 0o777])
def test_a_new_history_is_its_makers_alone_whatever_the_umask(umask: int, path: str) -> None:
    before = os.umask(umask)
    try:
        record(path, [BUILD], 90)
    finally:
        after = os.umask(before)

    assert (mode(path), mode(Path(path).parent), after) == ("0o600", "0o700", umask)


def test_of_eight_who_write_at_once_into_a_new_file_nobody_loses_a_row(pool_name: str) -> None:
    path = str(SHM / f"ipclock.{pool_name}" / "history.db")  # a busy disk may well stall one for a second
    reading, writing = os.pipe()
    command = [sys.executable, "-c", RECORD_MANY, path]  # small ones: each row is written by a fork of its writer
    started = [subprocess.Popen([*command, str(writer)], cwd=ROOT, stdin=reading) for writer in range(8)]
    os.close(reading)
    os.close(writing)
    ended = [process.wait(HANG_S) for process in started]

    assert (ended, sorted((row.uid, row.ticket) for row in kept(path))) == (
        [0] * 8,
        [(writer, number) for writer in range(8) for number in range(200)],
    )


def test_a_path_with_letters_that_mean_something_in_a_uri_is_taken_to_the_letter(tmp_path: Path) -> None:
    path = tmp_path / "a?mode=memory#b%20c 배포" / "history.db"

    filled(str(path), BUILD)

    assert (path.exists(), kept(str(path))) == (True, [BUILD])


# Files that are not as they should be


def foreign(path: Path, *, application: int, version: int) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(
            f"CREATE TABLE finished (id); PRAGMA application_id = {application}; PRAGMA user_version = {version};"
        )


BAD: dict[str, tuple[Callable[[Path], object], str]] = {
    "folder": (lambda path: path.mkdir(), "not a regular file"),
    "fifo": (os.mkfifo, "not a regular file"),
    "link": (lambda path: path.symlink_to("elsewhere.db"), "not a regular file"),
    "link to a history": (lambda path: path.symlink_to(filled(f"{path.parent}/other.db", BUILD)), "not a regular file"),
    "garbage": (lambda path: path.write_bytes(b"garbage " * 1000), "not a history of ipclock"),
    "one byte": (lambda path: path.write_bytes(b"x"), "not a history of ipclock"),
    "another program's": (lambda path: foreign(path, application=0, version=0), "not a history of ipclock"),
    "another program's kind": (lambda path: foreign(path, application=7, version=1), "not a history of ipclock"),
    "newer": (
        lambda path: foreign(path, application=finished.SCHEMA.application, version=2),
        "made by a newer ipclock",
    ),
    "everybody's folder": (lambda path: path.parent.chmod(0o777), "its folder is writable by all users"),
    "everybody's sticky folder": (lambda path: path.parent.chmod(0o1777), "its folder is writable by all users"),
}


@pytest.mark.parametrize("kind", BAD)
def test_what_is_no_history_of_ours_is_named_and_left_as_it_is(kind: str, path: str) -> None:
    plant, reason = BAD[kind]
    file = Path(path)
    file.parent.mkdir(parents=True)
    plant(file)

    def content() -> dict[str, bytes | None]:
        return {str(entry): entry.read_bytes() if entry.is_file() else None for entry in file.parent.iterdir()}

    before = content()
    found = [attempt(path), expected(path, BUILD.label)]

    assert (found, content()) == ([reason, None], before)


ENDLESS = "WITH RECURSIVE f(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM f) SELECT max(n) FROM f"


FOREIGN = {
    "trigger": f"CREATE TRIGGER t AFTER INSERT ON finished BEGIN UPDATE finished SET id = ({ENDLESS}); END",
    "view": f"DROP TABLE finished; CREATE VIEW finished AS {ENDLESS}",
    "view like a pragma": f"CREATE VIEW pragma_user_version AS {ENDLESS}",
    "column": "ALTER TABLE finished ADD COLUMN more",
    "index": "DROP INDEX by_time",
    "statistics": "ANALYZE",
}


@pytest.mark.parametrize("apart", [True, False])
@pytest.mark.parametrize("kind", FOREIGN)
def test_of_a_schema_that_is_not_ours_nothing_is_run(kind: str, apart: bool, path: str) -> None:
    filled(path, BUILD)
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(FOREIGN[kind])

    with pytest.raises(HistoryFailed) as caught:
        record(path, [BUILD], 90, apart=apart)

    assert (caught.value.reason, expected(path, BUILD.label)) == ("its tables are not those of ipclock", None)


def test_a_history_that_knows_no_counters_yet_gets_them(path: str) -> None:
    filled(path, BUILD)
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript("DROP TABLE totals; VACUUM")

    before = expected(path, BUILD.label)
    record(path, [BUILD], 90)

    with closing(sqlite3.connect(path)) as connection:
        counted = connection.execute("SELECT sum(builds) FROM totals").fetchone()
    assert (before, counted, kept(path)) == (Expected((99.5,), 99.5, 2_900_000_000), (1,), [BUILD, BUILD])


@pytest.mark.parametrize("ask", [database.ask, database.answer])
def test_a_question_without_end_is_given_up(ask: Callable[..., object], path: str) -> None:
    filled(path, BUILD)

    with pytest.raises(HistoryFailed) as caught:
        ask(path, finished.SCHEMA, lambda connection: connection.execute(ENDLESS).fetchone(), seconds=0.1)

    assert caught.value.reason == "it takes too long"


@pytest.mark.parametrize("name", ["history.db-wal", "history.db-shm", "history.db-journal"])
def test_a_pipe_beside_it_is_not_opened(name: str, path: str) -> None:
    filled(path, BUILD)
    os.mkfifo(Path(path).with_name(name))

    with pytest.raises(HistoryFailed) as caught:
        record(path, [BUILD], 90, apart=False)

    assert (caught.value.reason, attempt(path)) == ("not a regular file",) * 2


def test_a_damaged_history_is_told(path: str) -> None:
    filled(path, BUILD)
    with open(path, "r+b") as file:
        file.seek(4096)
        file.write(b"\xff" * 4096 * 4)

    assert attempt(path) == "database disk image is malformed"


@pytest.mark.parametrize("journal", ["wal", "delete"])
def test_a_locked_history_is_given_up(journal: str, path: str) -> None:
    filled(path, BUILD)
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute(f"PRAGMA journal_mode = {journal}")

    def lock() -> None:
        connection = sqlite3.connect(path, isolation_level=None)
        connection.execute("BEGIN EXCLUSIVE")
        Path(path).with_name("locked").touch()
        signal.pause()

    with child(lock):
        until(Path(path).with_name("locked").exists, "the lock")
        refused = attempt(path)

    # and once its owner was killed all is well
    assert (refused, attempt(path), kept(path)) == ("database is locked", "", [BUILD, BUILD])


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("mount -t tmpfs -o mode=700,ro tmpfs /mnt", "Read-only file system"),
        (
            "mount -t tmpfs -o mode=700 tmpfs /mnt; {record}; mount -o remount,ro /mnt",
            "unable to open database file",
        ),
        ("mount -t tmpfs -o mode=700,nr_inodes=1 tmpfs /mnt", "No space left on device"),
        ("mount -t tmpfs -o mode=700,size=16k tmpfs /mnt", "disk I/O error"),
        ("mount -t tmpfs -o mode=700,size=52k tmpfs /mnt", "database or disk is full"),
    ],
    ids=["read-only", "now read-only", "no inode left", "full", "nearly full"],
)
def test_a_disk_that_takes_nothing_is_told(script: str, reason: str) -> None:
    record = f"{sys.executable} -c '{RECORD_ONE}' /mnt/history.db"

    _, output = unshared(["-m"], f"cd {ROOT} && {script.format(record=record)} && {record}")

    assert output.splitlines()[-1] == reason


# Several users


@pytest.fixture
def common(pool_name: str) -> str:
    """A path that every user may pass down to; removed with the pool of this name."""
    needs_root(0)
    folder = SHM / f"ipclock.{pool_name}"
    folder.mkdir()
    folder.chmod(0o755)
    return str(folder / "history.db")


def owners(path: str) -> dict[str, int]:
    return {entry.name: entry.stat().st_uid for entry in (Path(path).parent, *Path(path).parent.iterdir())}


def test_root_leaves_a_users_history_usable_by_its_owner(common: str) -> None:
    os.chown(os.path.dirname(common), USER, USER)

    # root first: what it makes must be the user's
    found = [attempt(common), in_child(partial(attempt, common), USER), attempt(common)]
    found.append(in_child(partial(attempt, common), USER))

    assert (found, set(owners(common).values()), len(kept(common)), os.geteuid(), os.getegid()) == (
        [""] * 4,
        {USER},
        4,
        0,
        0,
    )


def test_root_and_the_group_share_one_in_a_folder_of_roots(common: str) -> None:
    folder = os.path.dirname(common)
    os.chown(folder, 0, OTHER_USER)
    os.chmod(folder, 0o2770)
    Path(common).touch()
    os.chown(common, 0, OTHER_USER)
    os.chmod(common, 0o660)
    as_member = partial(in_child, partial(attempt, common), USER, umask=0o077, groups=[OTHER_USER])

    with child(partial(keep_open, common)):  # so that the files beside it stay, as whoever made them made them
        until(Path(common).with_name("open").exists, "a reader")
        found = [attempt(common), as_member(), attempt(common), as_member(), in_child(partial(attempt, common), USER)]

    assert (found, len(kept(common))) == (["", "", "", "", "Permission denied"], 4)


def keep_open(path: str) -> None:
    """Read the history as its group does, and stay."""
    become(USER, [os.stat(path).st_gid])
    connection = sqlite3.connect(path)
    connection.execute("SELECT * FROM sqlite_master").fetchall()
    Path(path).with_name("open").touch()
    signal.pause()


@pytest.mark.parametrize("name", ["history.db", "history.db-wal", "history.db-shm"])
@pytest.mark.parametrize("plant", [os.symlink, os.link])
@pytest.mark.parametrize("folder", ["user's", "group's"])
def test_root_touches_nothing_to_which_a_planted_name_leads(
    folder: str, plant: Callable[[str, str], None], name: str, common: str
) -> None:
    outside = Path(common).parent / "outside"
    outside.mkdir()
    inside = Path(common).parent / "inside"
    inside.mkdir()
    victim = outside / "roots.db"
    filled(str(victim), BUILD) if name == "history.db" else victim.touch(0o600)
    inner = str(inside / "history.db")
    if folder == "user's":
        os.chown(inside, USER, USER)
    else:
        os.chown(inside, 0, USER)
        inside.chmod(0o2770)
    if name != "history.db":
        in_child(partial(attempt, inner), USER)
    before = (victim.read_bytes(), victim.stat().st_uid, mode(victim), sorted(outside.iterdir()))

    plant(str(victim), str(inside / name))
    refused = attempt(inner)

    after = (victim.read_bytes(), victim.stat().st_uid, mode(victim), sorted(outside.iterdir()))
    assert (refused != "", after) == (True, before)
