"""A pool's folder, opened without trusting what lies at its path.

Knows where things lie in it and who may use it. Guarantees: everything goes through directory descriptors, no link is
followed, nothing is created over an existing name, and a file has its final owner and mode from the moment it exists,
so that a creator may be killed anywhere.
"""

from __future__ import annotations

import errno
import os
import stat
import time
from contextlib import contextmanager, suppress

from ipclock.errors import N_, Foreign, NoPool, NotPermitted, from_os
from ipclock.values import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Self

NEW, QUEUED, GATE, HOLDING = STATES = ("new", "queued", "gate", "holding")
NUMBERS = ("mutex", "ticket", "capacity", "epoch", "priority")

# of files; of the folders beside them, whose setgid bit gives new files the pool's group
PRIVATE, SHARED = 0o600, 0o660
_FOLDER_MODES = {PRIVATE: 0o700, SHARED: 0o2770}

SAFE_FLAGS = os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK  # a planted FIFO must not hang us
FILE_FLAGS = os.O_RDWR | SAFE_FLAGS
FOLDER_FLAGS = os.O_RDONLY | os.O_DIRECTORY | SAFE_FLAGS

TRIES = 10
SETTLED_S = 0.1  # a time stamp of a file system may be so coarse that a later change has the same one


class Folder:
    """An opened pool folder: the descriptors of all that belongs into it. `path` is for messages.

    `group` is the gid that its owner shares it with, None where it is the owner's alone.
    """

    def __init__(self, path: str, root: int) -> None:
        self.path = path
        self._root = root
        self._fds: dict[str, int] = {}
        status = os.fstat(root)
        self.identity = (status.st_dev, status.st_ino)
        self._complete_at = 0
        self._owner = (status.st_uid, status.st_gid)
        # without setgid the files in it would get the groups of whoever makes them
        self.group = status.st_gid if status.st_mode & stat.S_IWGRP and status.st_mode & stat.S_ISGID else None

    @property
    def mode(self) -> int:
        """The mode of the pool's files."""
        return PRIVATE if self.group is None else SHARED

    @classmethod
    def open(cls, lock_dir: str, pool: str, *, create: bool, group: int | None = None) -> Self:
        """Open the folder of *pool* (named without slash) in *lock_dir*, making whatever lacks if *create*.

        One that is made is shared with *group*, if that is given.

        Raises NoPool (69), NotPermitted (77) for a foreign or planted folder, CannotCreate (73).
        """
        path = f"{lock_dir}/ipclock.{pool}"
        for _ in range(TRIES if create else 1):
            try:
                folder = cls(path, _open_root(lock_dir, os.path.basename(path), create, group))
                try:
                    folder._accept()
                    folder._fill(create)
                except BaseException:
                    folder.close()
                    raise
            except FileNotFoundError:
                continue  # there is none, or somebody removes what we have just made
            except OSError as error:
                raise from_os(error, path) from None
            return folder
        raise NoPool(path)

    def close(self) -> None:
        """Close every descriptor of the folder."""
        for fd in (*self._fds.values(), self._root):
            os.close(fd)
        self._fds.clear()

    def trusts(self, status: os.stat_result) -> bool:
        """Return whether a file may belong to this pool: ours, root's, the owner's, or one of the pool's group.

        Only a member can give a file to a group (chown(2)).
        """
        return status.st_uid in (0, os.geteuid(), self._owner[0]) or status.st_gid == self.group

    def _accept(self) -> None:
        status = os.fstat(self._root)
        ours = os.geteuid() in (0, status.st_uid) or status.st_uid == 0
        shared = self.group is not None and _is_ours(self.group)
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
        umask = os.umask(0o777 & ~_FOLDER_MODES[self.mode])
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
                    _make_folder(self._root, state, 0o777)  # setgid comes with the folder that it is made in
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

    def require_owner(self) -> None:
        """Raise Foreign (77) unless we are root or the folder's owner."""
        if os.geteuid() not in (0, self._owner[0]):
            raise Foreign(self.path, self._owner[0])

    def share(self, group: int | None) -> None:
        """Share the folder and all that is in it with *group*, or with nobody. Only its owner and root may.

        In the mutex: a record that is made meanwhile may stay as it was. Raises Foreign (77).
        """
        if group == self.group:
            return
        self.require_owner()
        self.group = group
        self._owner = (self._owner[0], self._owner[1] if group is None else group)
        if group is None:  # shut the door first, open it last
            _give(self._root, self.mode, group)
        for folder in (self._root, *(self._fds[state] for state in STATES)):
            for name in os.listdir(folder):
                try:
                    fd = os.open(name, os.O_RDONLY | SAFE_FLAGS, dir_fd=folder)
                except OSError:
                    continue  # gone meanwhile, or a link that is no part of the pool
                try:
                    _give(fd, self.mode, group)
                finally:
                    os.close(fd)
        if group is not None:
            _give(self._root, self.mode, group)

    @property
    def folder_mode(self) -> int:
        """The mode of the pool's folders."""
        return _FOLDER_MODES[self.mode]

    def misfits(self) -> list[str]:
        """Return what lies in the folder without the pool's mode or group, or with an owner whom it does not trust.

        Drafts are left out: scripts make them, with modes of their own.
        """
        parts = {".": self._root, **self._fds}
        wrong = [name for name, fd in parts.items() if not self._fits(os.fstat(fd))]
        for state in STATES[1:]:
            for name in sorted(os.listdir(self._fds[state])):
                with suppress(FileNotFoundError):
                    if not self._fits(os.stat(name, dir_fd=self._fds[state], follow_symlinks=False)):
                        wrong.append(f"{state}/{name}")
        return wrong

    def _fits(self, status: os.stat_result) -> bool:
        mode = self.folder_mode if stat.S_ISDIR(status.st_mode) else self.mode
        shared = self.group in (None, status.st_gid)
        return stat.S_IMODE(status.st_mode) == mode and shared and self.trusts(status)

    def vanished(self) -> bool:
        """Return whether the folder, or anything that belongs into it, was removed or replaced under us.

        Nothing came or went while its st_ctime stands (inode(7)), so mostly one look is enough.
        """
        try:
            status = os.stat(self.path, follow_symlinks=False)
        except OSError:
            return True
        if (status.st_dev, status.st_ino) != self.identity:
            return True
        if status.st_ctime_ns == self._complete_at:
            return False
        if any(os.fstat(fd).st_nlink == 0 for fd in self._fds.values()):
            return True
        if abs(time.time() - status.st_ctime) > SETTLED_S:
            self._complete_at = status.st_ctime_ns
        return False

    def changed_at(self, state: str) -> int:
        """Return the moment of the last change of what lies in a state folder; any change makes it another one."""
        return os.fstat(self._fds[state]).st_ctime_ns


def _is_ours(group: int) -> bool:
    return group in (os.getegid(), *os.getgroups())


def _give(fd: int, mode: int, group: int | None) -> None:
    """Give what belongs to a pool the pool's mode and group; leave alone what is not ours to give."""
    status = os.fstat(fd)
    folder = stat.S_ISDIR(status.st_mode)
    ours = os.geteuid() in (0, status.st_uid)
    # a second link would let the pool's owner make root give away a file elsewhere
    if ours and (folder or (stat.S_ISREG(status.st_mode) and status.st_nlink == 1)):
        if group is not None and status.st_gid != group:
            os.fchown(fd, -1, group)
        os.fchmod(fd, _FOLDER_MODES[mode] if folder else mode)


def _open_root(lock_dir: str, name: str, create: bool, group: int | None) -> int:
    if create:
        _make_lock_dir(lock_dir)
    parent = os.open(lock_dir, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        status = os.fstat(parent)
        if status.st_mode & stat.S_IWOTH and not (status.st_mode & stat.S_ISVTX and status.st_uid == 0):
            raise NotPermitted(lock_dir, N_("world-writable, but not root's with the sticky bit"))
        if create:
            if group is not None and os.geteuid() != 0 and not _is_ours(group) and not _exists(parent, name):
                raise NotPermitted(f"{lock_dir}/{name}", N_("you are no member of the group to share it with"))
            umask = os.umask(0o077)
            try:
                _make_folder(parent, name, 0o700)
            finally:
                os.umask(umask)
        try:
            root = os.open(name, FOLDER_FLAGS, dir_fd=parent)
        except OSError as error:
            if error.errno in (errno.ELOOP, errno.ENOTDIR):
                raise NotPermitted(f"{lock_dir}/{name}", N_("not a folder")) from None
            raise
        # a bare one is of our making just now, or of a maker who died there
        if create and group is not None and os.fstat(root).st_uid == os.geteuid() and not os.listdir(root):
            _give(root, SHARED, group)
        return root
    finally:
        os.close(parent)


def _exists(parent: int, name: str) -> bool:
    return os.access(name, os.F_OK, dir_fd=parent, follow_symlinks=False)


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
