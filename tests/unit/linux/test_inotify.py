"""Being woken by what happens to files: what is told, to which watch, and that nothing that has happened is lost."""

from __future__ import annotations

import os
import select
from typing import TYPE_CHECKING

import pytest

from ipclock.linux import inotify
from ipclock.linux.inotify import Event, Inotify

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MOVES = inotify.LEFT | inotify.CAME | inotify.DELETED


@pytest.fixture
def watcher() -> Iterator[Inotify]:
    """One that watches nothing yet."""
    made = Inotify()
    yield made
    made.close()


def readable(watcher: Inotify) -> bool:
    return bool(select.select([watcher.fd], [], [], 0)[0])


def test_what_leaves_a_folder_what_comes_and_what_is_deleted_is_told_by_its_name(
    tmp_path: Path, watcher: Inotify
) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    for folder in (here, there):
        folder.mkdir()
    (here / "17").touch()
    watches = [watcher.watch(str(folder), MOVES, directory=True) for folder in (here, there)]
    before = readable(watcher), watcher.events()

    (here / "17").rename(there / "17,u2")
    (there / "17,u2").write_text("changed")
    (there / "17,u2").unlink()

    assert (before, readable(watcher)) == ((False, []), True)
    assert watcher.events() == [
        Event(watches[0], inotify.LEFT, "17"),
        Event(watches[1], inotify.CAME, "17,u2"),
        Event(watches[1], inotify.DELETED, "17,u2"),
    ]
    assert (readable(watcher), watcher.events()) == (False, [])


def test_a_file_tells_of_what_is_written_and_of_its_loss_while_it_is_open(tmp_path: Path, watcher: Inotify) -> None:
    file, other = tmp_path / "file", tmp_path / "other"
    other.touch()
    with file.open("w", buffering=1) as open_file:
        watch = watcher.watch(str(file), inotify.MODIFIED | inotify.ATTRIBUTES)
        found = []
        for happen in (lambda: open_file.write("line\n"), lambda: other.rename(file)):
            happen()
            found.append(watcher.events())

    assert found == [[Event(watch, inotify.MODIFIED, "")], [Event(watch, inotify.ATTRIBUTES, "")]]


def test_as_many_events_as_there_are_are_read_whatever_their_names(tmp_path: Path, watcher: Inotify) -> None:
    names = [f"{number}".ljust(1 + number % 200, "x") for number in range(3000)] + [os.fsdecode(b"\xff")]
    watcher.watch(str(tmp_path), inotify.DELETED, directory=True)
    for name in names:
        (tmp_path / name).touch()
        (tmp_path / name).unlink()

    assert [event.name for event in watcher.events()] == names


@pytest.mark.parametrize(("name", "folder"), [("link", True), ("file", True), ("nothing", False)])
def test_what_cannot_be_watched_is_an_oserror_and_a_link_to_a_folder_is_none(
    name: str, folder: bool, tmp_path: Path, watcher: Inotify
) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to(tmp_path)

    with pytest.raises(OSError, match=r"Not a directory|No such file"):
        watcher.watch(str(tmp_path / name), MOVES, directory=folder)


def test_it_is_not_inherited(watcher: Inotify) -> None:
    assert not os.get_inheritable(watcher.fd)
