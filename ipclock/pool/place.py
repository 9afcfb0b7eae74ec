"""Where the directory of a pool lies. One name has one such place on a machine, whatever LOCK_DIR says (INV-8).

`/dev/shm/ipclock.NAME` is the directory itself or, where it lies elsewhere, a symlink that tells its path and its
identity: `/run/ipclock/ipclock.NAME@27:1042`. It is a symlink because symlink(2) makes it whole, and only where nothing
is yet; it is read by readlink(2) and never followed. Another directory at the same path, put there later or seen there
in another mount namespace, has another identity.
"""

from __future__ import annotations

import os
import stat
from contextlib import suppress

from ipclock import users
from ipclock._typing import TYPE_CHECKING, NamedTuple
from ipclock.bounded import LAST_WORD, whole
from ipclock.errors import N_, PoolPermissionError
from ipclock.linux import trusted_path

if TYPE_CHECKING:
    from collections.abc import Iterator

SHM = "/dev/shm"
PATH_FLAGS = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
_PREFIX = "ipclock."


class Place(NamedTuple):
    """What lies at the place of a pool: the `status` of the entry itself, and the `path` of the directory.

    `inside` is the identity (st_dev, st_ino) of the directory that a symlink tells; None where the entry is the
    directory.
    """

    status: os.stat_result
    path: str
    inside: tuple[int, int] | None = None

    @property
    def identity(self) -> tuple[int, int]:
        """The identity (st_dev, st_ino) of the entry."""
        return self.status.st_dev, self.status.st_ino


def path_of(pool: str) -> str:
    """Return the place of *pool* (named without slash)."""
    return f"{SHM}/{_PREFIX}{pool}"


def name_of(path: str) -> str:
    """Return the pool, without slash, whose directory has this path."""
    return os.path.basename(path).removeprefix(_PREFIX)


def pools() -> Iterator[str]:
    """Yield the names, without slash, of what looks like pools; none where the directory may not be listed."""
    with suppress(OSError):
        yield from (name.removeprefix(_PREFIX) for name in os.listdir(SHM) if name.startswith(_PREFIX))


def look_up(pool: str) -> Place | None:
    """Return what lies at the place of *pool*; None where nothing does.

    Raises PoolPermissionError (77) for what is neither a directory nor a symlink of ours, OSError.
    """
    path = path_of(pool)
    try:
        fd = os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        # all by one descriptor: by the path, another entry could come between the look and the reading
        status = os.fstat(fd)
        if stat.S_ISDIR(status.st_mode):
            return Place(status, path)
        text = os.readlink("", dir_fd=fd) if stat.S_ISLNK(status.st_mode) else ""
    finally:
        os.close(fd)
    directory, _, identity = text.rpartition("@")
    numbers = identity.split(":")
    ours = os.path.isabs(directory) and os.path.normpath(directory) == directory and name_of(directory) == pool
    device, inode = (whole(number, LAST_WORD) for number in (numbers if len(numbers) == 2 else ("", "")))
    if not ours or device is None or inode is None:
        raise PoolPermissionError(path, N_("not a directory"))
    return Place(status, directory, (device, inode))


def owner_of(pool: str) -> int | None:
    """Return the uid of the owner of what lies at the place of *pool*, or of the directory of which it tells.

    None where nothing lies there.
    """
    with suppress(PoolPermissionError, OSError):
        if found := look_up(pool):
            with suppress(OSError):
                return os.lstat(found.path).st_uid
            return found.status.st_uid
    with suppress(OSError):
        return os.lstat(path_of(pool)).st_uid
    return None


def link_text(path: str, identity: tuple[int, int]) -> str:
    """Return what a symlink says of the directory at *path* with this identity."""
    return f"{path}@{identity[0]}:{identity[1]}"


def point(pool: str, path: str, identity: tuple[int, int]) -> None:
    """Say at the place of *pool* that its directory is the one at *path*. Raises FileExistsError, OSError."""
    # fails where something is: of two makers one makes the pool (test_place.py::test_two_makers_at_once_make_one_pool)
    os.symlink(link_text(path, identity), path_of(pool))


def clear(pool: str, place: Place) -> None:
    """Remove the symlink at the place of *pool*, if it is still that very one. Raises OSError."""
    path = path_of(pool)
    with suppress(FileNotFoundError):
        status = os.lstat(path)
        # else another maker has put a place there since: its pool would lose its name
        if (status.st_dev, status.st_ino) == place.identity:
            os.unlink(path)


def open_parent(path: str) -> int:
    """Return a descriptor of the directory in which *path* lies, reached without following a link. Raises OSError."""
    fd = os.open("/", PATH_FLAGS)
    for part in os.path.dirname(path).split("/")[1:]:
        if part:
            try:
                inner = os.open(part, PATH_FLAGS | os.O_NOFOLLOW, dir_fd=fd)
            finally:
                os.close(fd)
            fd = inner
    return fd


def is_safe(path: str, status: os.stat_result) -> bool:
    """Return whether only root can replace what others have in the directory: if all may write, it is sticky."""
    if not trusted_path.writers(status, new=True).others:
        return True
    sticky = not trusted_path.writers(status).others
    return sticky and (status.st_uid == 0 or _is_systems(path, status))


def _is_systems(path: str, status: os.stat_result) -> bool:
    """Return whether the directory is root's or ours, in a user namespace in which root has no uid.

    Root's shows as anybody's there. But only root, or who has mounted what we see, can have made a directory beneath
    directories to which not all may write.
    """
    if users.shows_all():
        return False
    parents = [os.path.dirname(path := os.path.realpath(path))]
    while parents[-1] != "/":
        parents.append(os.path.dirname(parents[-1]))
    above = [os.stat(parent) for parent in parents]
    known = all(trusted_path.is_roots(one) or one.st_uid == os.geteuid() for one in (status, *above))
    return known and not any(trusted_path.writers(one, new=True).others for one in above)
