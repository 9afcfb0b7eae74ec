"""A pool's directory, opened without trusting what lies at its path.

Knows where things lie in it and who may use it. Guarantees: everything goes through directory descriptors, no link is
followed, nothing is created over an existing name, and a file has its final owner and mode from the moment it exists,
so that a creator may be killed anywhere. Of two makers at once one makes the pool and the other one uses it, whatever
LOCK_DIR each of them has (`place`, INV-8).
One file, because making and opening it are the two sides of one race.
"""

from __future__ import annotations

import errno
import os
import stat
import time
from contextlib import contextmanager, suppress

from ipclock import users
from ipclock._typing import TYPE_CHECKING
from ipclock.errors import (
    N_,
    ForeignPoolError,
    IpclockError,
    NoMemberError,
    NoPoolError,
    PoolElsewhereError,
    PoolPermissionError,
    from_os,
)
from ipclock.pool import place
from ipclock.pool.access import (
    FOLDER_MODES,
    PRIVATE,
    SHARED,
    accept,
    as_user,
    give,
    group_of,
    is_ours,
    make_lock_dir,
    require_group,
    require_safe,
)
from ipclock.pool.place import Place

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Self

NEW, QUEUED, GATE, HOLDING = STATES = ("new", "queued", "gate", "holding")
NUMBERS = ("mutex", "ticket", "capacity", "epoch", "priority", "settled")

SAFE_FLAGS = os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK  # a planted FIFO must not hang us
FILE_FLAGS = os.O_RDWR | SAFE_FLAGS
# to append by: another client may add a line too (`OthersRecord`), and neither may write over the other's
RECORD_FLAGS = FILE_FLAGS | os.O_APPEND
FOLDER_FLAGS = os.O_RDONLY | os.O_DIRECTORY | SAFE_FLAGS

TRIES = 10
MAKING_S = 0.5  # a maker shares its directory within a moment, or was killed or stopped
SETTLED_S = 0.1  # a time stamp of a file system may be so coarse that a later change has the same one


class Directory:
    """An opened pool directory: the descriptors of all that belongs into it. `path` is for messages.

    `group` is the gid that its owner shares it with, None where it is the owner's alone.
    """

    def __init__(self, pool: str, found: Place, root: int) -> None:
        self.path = found.path
        self.pool = pool
        self.place = found
        self._root = root
        self._fds: dict[str, int] = {}
        status = os.fstat(root)
        self.identity = (status.st_dev, status.st_ino)
        self._complete_at = 0
        self._owner = (status.st_uid, status.st_gid)
        self.group = group_of(status)

    @property
    def owner(self) -> int:
        """The uid of the pool's owner."""
        return self._owner[0]

    @property
    def mode(self) -> int:
        """The mode of the pool's files."""
        return PRIVATE if self.group is None else SHARED

    @classmethod
    def open(cls, lock_dir: str, pool: str, *, create: bool, group: int | None = None) -> Self:
        """Open the directory of *pool* (named without slash), making whatever lacks if *create*.

        A new one is made in *lock_dir*, shared with *group* if that is given; one that is there is used where it lies.

        Raises NoPoolError (69), PoolPermissionError (77) for a foreign or planted directory, PoolElsewhereError (78)
        for one that lies elsewhere than in a *lock_dir* that was asked for and may not be used, PoolCreateError (73).
        """
        path = place.path_of(pool)
        for left in reversed(range(TRIES if create else 1)):
            found = None
            try:
                if found := place.look_up(pool):
                    path = found.path
                    return cls._found(pool, found, create=create, group=group)
                if not create:
                    break
                path = f"{lock_dir}/{os.path.basename(path)}"
                _make(lock_dir, pool, group)  # whatever lies there then is the pool, if another maker was first
            except FileNotFoundError:
                continue  # removed just now, or to be made again
            except (OSError, PoolPermissionError) as error:
                if left and found and _is_in_the_making(pool, found):
                    continue  # a maker has not shared its directory yet; refused now, a member's first build would fail
                failure = error if isinstance(error, PoolPermissionError) else from_os(error, path)
                raise _explained(failure, lock_dir, found) if found else failure from None
        raise NoPoolError(path)

    @classmethod
    def _found(cls, pool: str, found: Place, *, create: bool, group: int | None) -> Self:
        try:
            root = _open_root(found)
            if create:
                _share_bare(root, group)
            return cls._filled(pool, found, root, create=create)
        except FileNotFoundError:
            if create and found.inside:  # a place that tells of a directory which is gone
                _make_again(pool, found, group)
            raise

    @classmethod
    def _filled(cls, pool: str, found: Place, root: int, *, create: bool) -> Self:
        directory = cls(pool, found, root)
        try:
            directory._accept()
            directory._fill(create)
        except BaseException:
            directory.close()
            raise
        return directory

    @classmethod
    def stage(cls, pool: str, path: str) -> Self:
        """Make a whole directory at *path*, which is to be the pool's. Raises OSError."""
        umask = os.umask(0o077)
        try:
            os.mkdir(path, 0o700)
        finally:
            os.umask(umask)
        return cls._filled(pool, Place(os.lstat(path), path), os.open(path, FOLDER_FLAGS), create=True)

    def close(self) -> None:
        """Close every descriptor of the directory."""
        for fd in (*self._fds.values(), self._root):
            os.close(fd)
        self._fds.clear()

    def trusts(self, status: os.stat_result) -> bool:
        """Return whether a file may belong to this pool: ours, root's, the owner's, or one of the pool's group.

        Only a member can give a file to a group (chown(2)).
        """
        return status.st_uid in (0, os.geteuid(), self._owner[0]) or status.st_gid == self.group

    def _accept(self) -> None:
        accept(self.path, self._root)
        if self.place.inside is None:
            return
        if not self.trusts(self.place.status):
            raise ForeignPoolError(place.path_of(self.pool), self.place.status.st_uid)
        if self.place.inside != self.identity:
            raise PoolPermissionError(
                self.path, N_("not the pool's directory, which was removed or is not visible from here")
            )
        self._share_place()

    def _share_place(self) -> None:
        """Give the symlink to the group too: one that a member has made would be a stranger's to the others."""
        path = place.path_of(self.pool)
        ours = self.place.status.st_uid == os.geteuid()
        if self.group is None or self.group == self.place.status.st_gid or users.is_hidden_group(self.group):
            return
        if self.place.inside and ours:
            os.chown(path, -1, self.group, follow_symlinks=False)

    @contextmanager
    def creating(self) -> Iterator[None]:
        """Make files with exactly the pool's modes and, being root, as the pool's owner.

        What is made first and given away afterwards would lock the owner out if we were killed in between.
        """
        umask = os.umask(0o777 & ~FOLDER_MODES[self.mode])
        try:
            with as_user(*self._owner):
                yield
        finally:
            os.umask(umask)

    def _fill(self, create: bool) -> None:
        """Open all that belongs into the directory; make what lacks: a creator may have died half way."""
        for state in STATES:
            if create:
                with self.creating():
                    _make_directory(self._root, state, 0o777)  # setgid comes with the directory that it is made in
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
            raise PoolPermissionError(f"{self.path}/{name}", N_("not a regular file with a single link"))
        if not self._is_part(status):
            os.close(fd)
            raise PoolPermissionError(f"{self.path}/{name}", N_("not part of the pool"))
        return fd

    @property
    def group_giver(self) -> int | None:
        """The directory, where files must be made in it to get the pool's group, which has no gid here; else None."""
        return None if self.group is None or not users.is_hidden_group(self.group) else self._root

    def is_ours(self) -> bool:
        """Return whether we are root or the directory's owner."""
        return users.owns(self._root)

    def require_owner(self) -> None:
        """Raise ForeignPoolError (77) unless we are root or the directory's owner."""
        if not self.is_ours():
            raise ForeignPoolError(self.path, self._owner[0])

    def share(self, group: int | None) -> None:
        """Share the directory and all that is in it with *group*, or make it private. Only its owner and root may.

        In the mutex: a record that is made meanwhile may stay as it was. Raises ForeignPoolError (77).
        """
        if group == self.group:
            return
        self.require_owner()
        require_group(self.path, group)
        mode = PRIVATE if group is None else SHARED
        give(self._root, PRIVATE, None)  # shut the door first, open it last
        for fd in self._fds.values():
            give(fd, mode, group)
        for directory in (self._root, *(self._fds[state] for state in STATES)):
            for name in set(os.listdir(directory)).difference(self._fds):
                try:
                    fd = os.open(name, os.O_RDONLY | SAFE_FLAGS, dir_fd=directory)
                except OSError:
                    continue  # gone meanwhile, or a link that is no part of the pool
                try:
                    if self._is_part(os.fstat(fd)):
                        give(fd, mode, group)
                finally:
                    os.close(fd)
        self.group = group
        self._owner = (self._owner[0], self._owner[1] if group is None else group)
        if group is not None:
            give(self._root, mode, group)
            self._share_place()

    def refit(self) -> None:
        """Give the parts the pool's modes again.

        Raises PoolPermissionError (77) for one that was not made for this pool.
        """
        for name, fd in self._fds.items():
            if not self._is_part(os.fstat(fd)):
                raise PoolPermissionError(f"{self.path}/{name}", N_("not part of the pool"))
            give(fd, self.mode, self.group)

    def _is_part(self, status: os.stat_result) -> bool:
        """Return whether a file or directory was made for this pool, and not moved into it.

        A user who may write to the pool may move a file of root's there, from a directory of its own.
        """
        return status.st_uid == self.owner if self.group is None else status.st_gid == self.group

    @property
    def folder_mode(self) -> int:
        """The mode of the pool's directories."""
        return FOLDER_MODES[self.mode]

    def misfits(self) -> list[str]:
        """Return what lies in the directory without the pool's mode or group, or with an owner that it does not trust.

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
        """Return whether the directory, or anything that belongs into it, was removed or replaced under us.

        Nothing comes or goes while its st_ctime stands (inode(7)), so mostly one look is enough.
        """
        try:
            status = os.lstat(place.path_of(self.pool))
            if (status.st_dev, status.st_ino) != self.place.identity:
                return True
            if self.place.inside:
                status = os.lstat(self.path)
        except OSError:
            return True
        if (status.st_dev, status.st_ino) != self.identity:
            return True
        if status.st_ctime_ns == self._complete_at:
            return False
        if any(os.fstat(fd).st_nlink == 0 for fd in self._fds.values()):
            return True
        # the stamp from before that look: what goes during it leaves another one, and is found by the next look
        if abs(time.time() - status.st_ctime) > SETTLED_S:
            self._complete_at = status.st_ctime_ns
        return False

    def stands(self) -> bool:
        """Return whether the place of the pool still says that this directory is its."""
        # asked once the holder's beacon is lit: another directory that comes later finds that (INV-8)
        try:
            status = os.lstat(place.path_of(self.pool))
        except OSError:
            return False
        return (status.st_dev, status.st_ino) == self.place.identity

    def changed_at(self, state: str) -> int:
        """Return the moment of the last change of what lies in a state directory; any change makes it another one."""
        return os.fstat(self._fds[state]).st_ctime_ns


def _explained(error: IpclockError, lock_dir: str, found: Place) -> IpclockError:
    """Return the failure to use the pool that was found: with a LOCK_DIR that asks for another directory, name both."""
    lock_dir = os.path.realpath(lock_dir)
    wanted = f"{lock_dir}/{os.path.basename(found.path)}"
    default = lock_dir == os.path.realpath(place.SHM)
    if default or wanted == found.path or not isinstance(error, PoolPermissionError):
        return error
    reason = N_("belongs to another user") if isinstance(error, ForeignPoolError) else error.reason
    return PoolElsewhereError(wanted, found.path, reason)


def _open_root(found: Place) -> int:
    """Open the directory that a place tells of. Raises PoolPermissionError (77), OSError."""
    directory = os.path.dirname(found.path)
    parent = place.open_parent(found.path) if found.inside else os.open(directory, place.PATH_FLAGS)
    try:
        require_safe(directory, parent)
        return _open_directory(parent, found.path)
    finally:
        os.close(parent)


def _open_directory(parent: int, path: str) -> int:
    try:
        return os.open(os.path.basename(path), FOLDER_FLAGS, dir_fd=parent)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENOTDIR):
            raise PoolPermissionError(path, N_("not a directory")) from None
        raise


def _is_in_the_making(pool: str, found: Place) -> bool:
    """Return whether what was refused is another one by now, or so new that its maker may be about to share it."""
    with suppress(PoolPermissionError, OSError):
        now = place.look_up(pool)
        if now is None or now.identity != found.identity:
            return True
        if abs(time.time() - os.lstat(found.path).st_ctime) < MAKING_S:
            time.sleep(MAKING_S / TRIES)  # nothing announces the moment in which a directory is shared
            return True
    return False


def _make(lock_dir: str, pool: str, group: int | None) -> None:
    """Make an empty directory for the pool, and its place. Does nothing where another maker is first."""
    name = os.path.basename(place.path_of(pool))
    lock_dir = make_lock_dir(lock_dir)
    parent = place.open_parent(f"{lock_dir}/{name}")
    try:
        require_group(f"{lock_dir}/{name}", group)
        if group is not None and os.geteuid() != 0 and not is_ours(group) and not _exists(parent, name):
            raise NoMemberError(f"{lock_dir}/{name}", group)
        umask = os.umask(0o077)
        try:
            made = _make_directory(parent, name, 0o700)
        finally:
            os.umask(umask)
        if not made and lock_dir == os.path.realpath(place.SHM):
            return  # what lies there is the place, perhaps a symlink that was put there just now
        root = _open_directory(parent, f"{lock_dir}/{name}")
        try:
            accept(f"{lock_dir}/{name}", root)
            _share_bare(root, group)
            # directory, then place: killed in between leaves an empty directory that the next maker uses; the other way
            # round a name without a directory, which only its owner may make
            # (test_place.py::test_a_maker_killed_anywhere_...)
            if lock_dir != os.path.realpath(place.SHM):
                status = os.fstat(root)
                place.point(pool, f"{lock_dir}/{name}", (status.st_dev, status.st_ino))
        except FileExistsError:
            if made:
                with suppress(OSError):  # already filled by one that found it, or gone
                    os.rmdir(name, dir_fd=parent)
        finally:
            os.close(root)
    finally:
        os.close(parent)


def _share_bare(root: int, group: int | None) -> None:
    """Share a bare directory of ours with the group: one of our making just now, or of a maker that died there."""
    ours = os.fstat(root).st_uid == os.geteuid()
    if group is not None and ours and users.has_group(group) and not os.listdir(root):
        give(root, SHARED, group)


def _make_again(pool: str, found: Place, group: int | None) -> None:
    """Make the directory anew that a place tells of.

    Raises ForeignPoolError (77): that is its owner's, or root's for it.
    """
    uid = found.status.st_uid
    if os.geteuid() not in (0, uid):
        raise ForeignPoolError(place.path_of(pool), uid)
    group = group if os.geteuid() == uid else None
    with suppress(FileNotFoundError), as_user(uid, found.status.st_gid):
        place.clear(pool, found)
        _make(os.path.dirname(found.path), pool, group)


def _exists(parent: int, name: str) -> bool:
    return os.access(name, os.F_OK, dir_fd=parent, follow_symlinks=False)


def _make_directory(parent: int, name: str, mode: int) -> bool:
    try:
        os.mkdir(name, mode, dir_fd=parent)
    except FileExistsError:
        return False
    return True


def unlink(name: str, directory: int) -> None:
    """Unlink what lies there; a directory is no part of a pool, and one whose content is not ours gets another name."""
    try:
        os.unlink(name, dir_fd=directory)
    except IsADirectoryError:
        try:
            os.rmdir(name, dir_fd=directory)
        except OSError:
            os.rename(name, f".{time.monotonic_ns()}", src_dir_fd=directory, dst_dir_fd=directory)
