"""Files that commands write for others: whole or not at all, the same way by each command."""

from __future__ import annotations

import os
import stat
import sys
from typing import TYPE_CHECKING

import pytest

from tests.helpers.crash_at import unshared

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.helpers.world import World

WRITERS = pytest.mark.parametrize("writer", [("stats", "--html"), ("metrics", "-o")], ids=["stats", "metrics"])


@pytest.fixture(autouse=True)
def _pool(world: World, tmp_path: Path) -> None:
    world.env["HISTORY"] = str(tmp_path / "history.db")
    world.run("init")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    folder = tmp_path / "out"
    folder.mkdir()
    return folder / "x.prom"


def whole(text: str) -> bool:
    """Return whether it is what one of the commands writes, from its beginning to its end."""
    return text.startswith(("<!DOCTYPE html>", "# HELP ipclock_slots ")) and text.endswith("\n")


@WRITERS
def test_an_old_file_is_replaced_whole_and_its_readers_keep_theirs(
    writer: tuple[str, str], world: World, file: Path
) -> None:
    file.write_text("old" * 1_000_000)

    with file.open() as reader:
        done = world.run(*writer, str(file))
        kept = reader.read()

    assert (done.returncode, done.stdout, done.stderr, kept == "old" * 1_000_000) == (0, "", "", True)
    assert (whole(file.read_text("utf-8")), os.listdir(file.parent)) == (True, [file.name])


@pytest.mark.parametrize(
    ("writer", "mode"),
    [(("stats", "--html"), 0o640), (("metrics", "-o"), 0o644)],  # that of metrics is read by node_exporter
    ids=["stats", "metrics"],
)
def test_a_new_file_has_the_mode_that_its_readers_need(
    writer: tuple[str, str], mode: int, world: World, file: Path
) -> None:
    world.run(*writer, str(file), umask=0o027)

    assert oct(file.stat().st_mode) == oct(stat.S_IFREG | mode)


@WRITERS
def test_a_name_as_long_as_it_may_be_is_written(writer: tuple[str, str], world: World, file: Path) -> None:
    long = file.with_name("x" * 255)

    done = world.run(*writer, str(long))

    assert (done.returncode, whole(long.read_text("utf-8"))) == (0, True)


def _link(file: Path) -> None:
    file.with_name("target").write_text("kept")
    file.symlink_to("target")


def _no_folder(file: Path) -> None:
    file.parent.rmdir()


@WRITERS
@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda file: file.mkdir(), "not a regular file"),
        (lambda file: os.mkfifo(file), "not a regular file"),
        (_link, "not a regular file"),
        (_no_folder, "No such file or directory"),
    ],
    ids=["a folder", "a pipe", "a link", "no folder"],
)
def test_where_no_file_can_be_written_that_is_one_clear_line(
    make: Callable[[Path], None], reason: str, writer: tuple[str, str], world: World, file: Path
) -> None:
    make(file)
    before = sorted((one.name, one.lstat()[:2]) for one in file.parent.glob("*"))

    done = world.run(*writer, str(file))

    assert (done.returncode, done.stdout, done.stderr.splitlines()) == (
        73,
        "",
        [
            f"ipclock: {file}: cannot create or write: {reason}",
            f"   Look at 'df {file.parent}' and 'mount'.",
        ],
    )
    assert sorted((one.name, one.lstat()[:2]) for one in file.parent.glob("*")) == before
    assert make is not _link or file.with_name("target").read_text() == "kept"


@WRITERS
def test_on_a_full_disk_the_old_file_stays_and_nothing_else_does(
    writer: tuple[str, str], world: World, file: Path
) -> None:
    script = f"mount -t tmpfs -o size=4k tmpfs {file.parent}; echo old > {file}"
    look = f'"$@" || echo "status $?"; cd {file.parent}; ls -A; cat {file.name}'

    _status, output = unshared(
        ["-m"], f"{script}\n{look}", *(sys.executable, "-m", "ipclock", *writer, str(file)), env=world.env
    )

    problem = f"ipclock: {file}: cannot create or write: No space left on device"
    assert sorted(output.splitlines()) == sorted(
        [problem, f"   Look at 'df {file.parent}' and 'mount'.", "status 73", file.name, "old"]
    )
