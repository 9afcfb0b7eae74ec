"""Who decides what lies at a path: the owner of each directory and link on the way to it, and who may write there.

What follows from that is for the caller to say: root runs no hook that others can have written, acts as the owner of a
directory to write a history in it, and makes no pool where others could replace it.
"""

from __future__ import annotations

import errno
import os
import stat

from ipclock import users
from ipclock._typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_LINKS = 40  # as path_resolution(7) has it


class Step(NamedTuple):
    """One directory, link or file on the way to a path; a symbolic `link` has its text."""

    path: str
    status: os.stat_result
    link: str | None


class Writers(NamedTuple):
    """Whether members of its group, and others, can change a file, or replace what lies in a directory."""

    group: bool
    others: bool


def steps(path: str) -> Iterator[Step]:
    """Go the way of the kernel, from / on and link by link. Raises OSError, ELOOP after MAX_LINKS links."""
    at, names, links = "/", os.path.join(os.getcwd(), path).split("/"), 0
    while names:
        name = names.pop(0)
        if name not in ("", "."):
            at = os.path.dirname(at) if name == ".." else os.path.join(at, name)
        status = os.lstat(at)
        link = os.readlink(at) if stat.S_ISLNK(status.st_mode) else None
        yield Step(at, status, link)
        if link is not None:
            links += 1
            if links > MAX_LINKS:
                raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), at)
            at = "/" if link.startswith("/") else os.path.dirname(at)
            names = link.split("/") + names


def is_roots(status: os.stat_result) -> bool:
    """Return whether it is root's: in a user namespace that is a user without a uid, and all users in it have one."""
    return status.st_uid == 0 or users.is_hidden(status.st_uid)


def writers(status: os.stat_result, *, new: bool = False) -> Writers:
    """Return who can write there besides the owner; with *new*, also who can only put new names into a directory.

    In a sticky one no user can rename or remove another user's file (inode(7)). Who may write to a link, its owner
    alone decides.
    """
    mode = status.st_mode
    if stat.S_ISLNK(mode) or (stat.S_ISDIR(mode) and mode & stat.S_ISVTX and not new):
        return Writers(group=False, others=False)
    return Writers(bool(mode & stat.S_IWGRP), bool(mode & stat.S_IWOTH))
