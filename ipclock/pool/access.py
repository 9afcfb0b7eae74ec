"""Who may use the directory of a pool, and how what belongs to it gets its owner, its group and its modes.

The directory is its owner's alone, or shared with one group: then it is group-writable with setgid, and what is made in
it is the group's. Nothing is given away that may not be the pool's.
"""

from __future__ import annotations

import os
import stat
from contextlib import nullcontext

from ipclock import users
from ipclock._typing import TYPE_CHECKING
from ipclock.errors import N_, ForeignPoolError, PoolPermissionError
from ipclock.pool import place

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

# of files; of the directories beside them, whose setgid bit gives new files the pool's group
PRIVATE, SHARED = 0o600, 0o660
FOLDER_MODES = {PRIVATE: 0o700, SHARED: 0o2770}


def is_ours(group: int) -> bool:
    """Return whether we are a member of the group."""
    return group in (os.getegid(), *os.getgroups())


def _lets_us_in(directory: int, group: int) -> bool:
    """Return whether we are a member of the group, to which alone the directory is open."""
    if users.is_hidden_group(group):
        return os.access(".", os.W_OK, dir_fd=directory, effective_ids=True)
    return is_ours(group)


def require_group(path: str, group: int | None) -> None:
    """Raise PoolPermissionError (77) for a group that nothing can be given to from here."""
    if group is not None and not users.has_group(group):
        raise PoolPermissionError(path, N_("the group has no gid in this user namespace"))


def give(fd: int, mode: int, group: int | None) -> None:
    """Give what belongs to a pool the pool's mode and group; leave alone what is not ours to give."""
    status = os.fstat(fd)
    directory = stat.S_ISDIR(status.st_mode)
    # a second link would let the pool's owner make root give away a file elsewhere
    if users.owns(fd) and (directory or (stat.S_ISREG(status.st_mode) and status.st_nlink == 1)):
        if group is not None and status.st_gid != group:
            os.fchown(fd, -1, group)
        wanted = FOLDER_MODES[mode] if directory else mode
        if stat.S_IMODE(os.fstat(fd).st_mode) != wanted:  # chown(2) takes setgid away; a needless change wakes lookers
            os.fchmod(fd, wanted)


def group_of(status: os.stat_result) -> int | None:
    """Return the group that a directory is shared with; None where it is its owner's alone."""
    # without setgid the files in it would get the groups of their makers
    return status.st_gid if status.st_mode & stat.S_IWGRP and status.st_mode & stat.S_ISGID else None


def accept(path: str, directory: int) -> None:
    """Raise PoolPermissionError (77) for a directory that is not ours, nor root's, nor of a group of ours."""
    status = os.fstat(directory)
    group = group_of(status)
    if status.st_mode & stat.S_IWOTH:
        raise PoolPermissionError(path, N_("writable by all users"))
    if not (users.owns(directory) or status.st_uid == 0 or (group is not None and _lets_us_in(directory, group))):
        raise ForeignPoolError(path, status.st_uid)


def require_safe(lock_dir: str, fd: int) -> None:
    """Raise PoolPermissionError (77) for a directory in which users other than root can replace each other's files."""
    if not place.is_safe(lock_dir, os.fstat(fd)):
        raise PoolPermissionError(lock_dir, N_("writable by all users, but not owned by root with the sticky bit"))


def as_user(uid: int, gid: int) -> AbstractContextManager[None]:
    """Make files as this user, if we are root and it is not: given away later, they would lock it out until then."""
    return users.acting_as(uid, gid) if uid != 0 and users.rules(uid) else nullcontext()


def make_lock_dir(path: str) -> str:
    """Make a directory for pools and its parents, if need be; return its path without links.

    All users may look into what is made, and only we may write. Raises PoolPermissionError (77), OSError.
    """
    _make_parents(path)
    path = os.path.realpath(path)
    parent = os.open(path, place.PATH_FLAGS)
    try:
        require_safe(path, parent)
    finally:
        os.close(parent)
    return path


def _make_parents(path: str) -> None:
    if os.path.isdir(path):
        return
    _make_parents(os.path.dirname(path))
    umask = os.umask(0o022)
    try:
        os.mkdir(path, 0o755)
    except FileExistsError:
        pass
    finally:
        os.umask(umask)
