"""A pool's folder, opened without trusting what lies at its path.

Knows where things lie in it and who may use it. Guarantees: everything goes through directory descriptors, no link is
followed, nothing is created over an existing name, and a file has its final owner and mode from the moment it exists,
so that a creator may be killed anywhere.
"""

from __future__ import annotations

import errno
import os
import stat
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Self

from ipclock.errors import N_, Foreign, NoPool, NotPermitted, from_os

if TYPE_CHECKING:
    from collections.abc import Iterator

NEW, QUEUED, GATE, HOLDING = STATES = ("new", "queued", "gate", "holding")
NUMBERS = ("mutex", "ticket", "capacity", "epoch")

SAFE_FLAGS = os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK  # a planted FIFO must not hang us
FILE_FLAGS = os.O_RDWR | SAFE_FLAGS
FOLDER_FLAGS = os.O_RDONLY | os.O_DIRECTORY | SAFE_FLAGS


class Folder:
    """An opened pool folder: the descriptors of all that belongs into it. `path` is for messages."""

    def __init__(self, path: str, root: int) -> None:
        self.path = path
        self._root = root
        self._fds: dict[str, int] = {}
        status = os.fstat(root)
        self.identity = (status.st_dev, status.st_ino)
        self._owner = (status.st_uid, status.st_gid)
        self.mode = 0o660 if status.st_mode & stat.S_IWGRP else 0o600

    @classmethod
    def open(cls, lock_dir: str, pool: str, *, create: bool) -> Self:
        """Open the folder of *pool* (named without slash) in *lock_dir*, making whatever lacks if *create*.

        Raises NoPool (69), NotPermitted (77) for a foreign or planted folder, CannotCreate (73).
        """
        path = f"{lock_dir}/ipclock.{pool}"
        try:
            folder = cls(path, _open_root(lock_dir, os.path.basename(path), create))
            try:
                folder._accept()
                folder._fill(create)
            except BaseException:
                folder.close()
                raise
        except FileNotFoundError:
            raise NoPool(path) from None
        except OSError as error:
            raise from_os(error, path) from None
        return folder

    def close(self) -> None:
        """Close every descriptor of the folder."""
        for fd in (*self._fds.values(), self._root):
            os.close(fd)
        self._fds.clear()

    def trusts(self, uid: int) -> bool:
        """Return whether files of *uid* belong in this pool: ours, root's, and the pool owner's."""
        return uid in (0, os.geteuid(), self._owner[0])

    def _accept(self) -> None:
        status = os.fstat(self._root)
        ours = os.geteuid() in (0, status.st_uid) or status.st_uid == 0
        shared = status.st_mode & stat.S_IWGRP and status.st_gid in (os.getegid(), *os.getgroups())
        if status.st_mode & stat.S_IWOTH:
            raise NotPermitted(self.path, N_("everybody may write to it"))
        if not (ours or shared):
            raise Foreign(self.path, status.st_uid)

    @contextmanager
    def creating(self) -> Iterator[None]:
        """Make files with exactly the pool's modes and, being root, as the pool's owner.

        What is made first and given away afterwards would lock the owner out if we were killed in between.
        """
        uid, gid = self._owner
        as_owner = os.geteuid() == 0 and uid != 0
        own_gid = os.getegid()
        umask = os.umask(0o007 if self.mode & stat.S_IWGRP else 0o077)
        try:
            if as_owner:
                os.setegid(gid)
                os.seteuid(uid)
            yield
        finally:
            if as_owner:
                os.seteuid(0)
                os.setegid(own_gid)
            os.umask(umask)

    def _fill(self, create: bool) -> None:
        """Open all that belongs into the folder; make what lacks: a creator may have died half way."""
        for state in STATES:
            if create:
                with self.creating():
                    _make_folder(self._root, state, 0o770)
            self._fds[state] = os.open(state, FOLDER_FLAGS, dir_fd=self._root)
        for number in NUMBERS:
            self._fds[number] = self._open_number(number, create)

    def _open_number(self, name: str, create: bool) -> int:
        while True:
            try:
                fd = os.open(name, FILE_FLAGS, dir_fd=self._root)
                break
            except FileNotFoundError:
                if not create:
                    raise
            # never O_CREAT on an existing name: fs.protected_regular refuses that to root too
            try:
                with self.creating():
                    fd = os.open(name, FILE_FLAGS | os.O_CREAT | os.O_EXCL, self.mode, dir_fd=self._root)
                break
            except FileExistsError:
                continue
        status = os.fstat(fd)
        # a second link would let the pool's owner make root write into a file elsewhere
        if not stat.S_ISREG(status.st_mode) or status.st_nlink > 1:
            os.close(fd)
            raise NotPermitted(f"{self.path}/{name}", N_("not a regular file of its own"))
        return fd

    def vanished(self) -> bool:
        """Return whether the folder, or anything that belongs into it, was removed or replaced under us."""
        try:
            status = os.stat(self.path, follow_symlinks=False)
        except OSError:
            return True
        replaced = (status.st_dev, status.st_ino) != self.identity
        return replaced or any(os.fstat(fd).st_nlink == 0 for fd in self._fds.values())


def _open_root(lock_dir: str, name: str, create: bool) -> int:
    if create:
        _make_lock_dir(lock_dir)
    parent = os.open(lock_dir, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        status = os.fstat(parent)
        if status.st_mode & stat.S_IWOTH and not (status.st_mode & stat.S_ISVTX and status.st_uid == 0):
            raise NotPermitted(lock_dir, N_("world-writable, but not root's with the sticky bit"))
        if create:
            umask = os.umask(0o077)
            try:
                _make_folder(parent, name, 0o700)
            finally:
                os.umask(umask)
        try:
            return os.open(name, FOLDER_FLAGS, dir_fd=parent)
        except OSError as error:
            if error.errno in (errno.ELOOP, errno.ENOTDIR):
                raise NotPermitted(f"{lock_dir}/{name}", N_("not a folder")) from None
            raise
    finally:
        os.close(parent)


def _make_lock_dir(path: str) -> None:
    """Make the folder and its parents, so that everybody may look and only we may write."""
    if os.path.isdir(path):
        return
    _make_lock_dir(os.path.dirname(path))
    umask = os.umask(0o022)
    try:
        os.mkdir(path, 0o755)
    except FileExistsError:
        pass
    finally:
        os.umask(umask)


def _make_folder(parent: int, name: str, mode: int) -> None:
    with suppress(FileExistsError):
        os.mkdir(name, mode, dir_fd=parent)
