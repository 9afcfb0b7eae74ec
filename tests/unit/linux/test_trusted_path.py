"""Who decides what lies at a path, by the modes and links on the way to it."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

import pytest

from ipclock.linux.trusted_path import Writers, is_roots, steps, writers
from tests.helpers.crash_at import USER, needs_root

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("mode", "replaced", "made"),
    [
        (0o755, (False, False), (False, False)),
        (0o775, (True, False), (True, False)),
        (0o777, (True, True), (True, True)),
        (0o1777, (False, False), (True, True)),
        (0o1770, (False, False), (True, False)),
        (0o2770, (True, False), (True, False)),
    ],
)
def test_in_a_sticky_directory_others_make_new_names_and_replace_none(
    mode: int, replaced: tuple[bool, bool], made: tuple[bool, bool], tmp_path: Path
) -> None:
    tmp_path.chmod(mode)

    status = tmp_path.stat()

    assert (writers(status), writers(status, new=True)) == (Writers(*replaced), Writers(*made))


def test_a_link_is_its_owners_alone_and_the_sticky_bit_of_a_file_means_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "file").chmod(0o1666)
    (tmp_path / "link").symlink_to("file")

    assert (writers((tmp_path / "link").lstat()), writers((tmp_path / "file").stat())) == (
        Writers(group=False, others=False),
        Writers(group=True, others=True),
    )


def test_the_way_goes_through_each_directory_and_link_to_where_it_ends(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "there/file").touch()
    (tmp_path / "here").symlink_to("there")
    (tmp_path / "there/up").symlink_to("../there/file")

    way = [(step.path.removeprefix(str(tmp_path)), step.link) for step in steps(f"{tmp_path}/here/up")]

    assert way[way.index(("/here", "there")) :] == [
        ("/here", "there"),
        ("/there", None),
        ("/there/up", "../there/file"),
        ("", None),
        ("/there", None),
        ("/there/file", None),
    ]


def test_links_that_go_in_a_circle_end(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")

    with pytest.raises(OSError, match=os.strerror(errno.ELOOP)):
        list(steps(f"{tmp_path}/a"))


def test_a_file_of_a_user_is_not_roots(tmp_path: Path) -> None:
    needs_root(0)
    (tmp_path / "file").touch()
    before = is_roots((tmp_path / "file").stat())
    os.chown(tmp_path / "file", USER, USER)

    assert (before, is_roots((tmp_path / "file").stat())) == (True, False)
