"""Named POSIX semaphores, opened without trusting what lies at their path.

The only importer of posix_ipc. sem_open(3) maps whatever file it finds: one of size 0 ends the process with SIGBUS,
garbage with SIGABRT on the first post, 32 zero bytes swallow every post. So the file is looked at first.
Guarantees: a `Semaphore` was a regular file of a trusted owner in glibc's layout when it was opened.
Does not guarantee that its path still names it: `replaced` asks.
"""

from __future__ import annotations

import errno
import os
import stat
import sys
from contextlib import suppress

import posix_ipc

from ipclock import users
from ipclock._typing import TYPE_CHECKING
from ipclock.errors import (
    N_,
    ForeignLibraryError,
    IpclockError,
    PoolCreateError,
    PoolPermissionError,
    SemaphoreError,
    UnavailableError,
    foreign,
    from_os,
)

if TYPE_CHECKING:
    from collections.abc import Callable

FOLDER = "/dev/shm"
VERSION = str(posix_ipc.VERSION)
SIZE = 32
MOST_UNITS = 10_000  # ten times what a pool can have: to take back more, one by one, lasts for hours
# struct new_sem: a 64-bit word (value, number of waiters), then FUTEX_PRIVATE_FLAG's complement for pshared
SHARED_MARK = (128).to_bytes(4, sys.byteorder)


def path_of(name: str) -> str:
    """Return the path of the file behind the semaphore *name* (sem_overview(7)); the name begins with a slash."""
    return f"{FOLDER}/sem.{name[1:]}"


def c_library() -> str:
    """Return the C library and its version.

    Raises ForeignLibraryError (69) for any but glibc: musl has no such layout.
    """
    with suppress(ValueError, OSError):
        if found := os.confstr("CS_GNU_LIBC_VERSION"):
            return found
    raise ForeignLibraryError


def require_support() -> None:
    """Raise ForeignLibraryError or UnavailableError (69) if there can be no semaphores as we know them here."""
    c_library()
    if not os.path.isdir(FOLDER):
        raise UnavailableError(FOLDER, N_("no such directory"))


class Semaphore:
    """One opened named semaphore. `name` begins with a slash; `identity` is its file's (st_dev, st_ino)."""

    def __init__(self, name: str, semaphore: posix_ipc.Semaphore, identity: tuple[int, int]) -> None:
        self.name = name
        self.identity = identity
        self._semaphore = semaphore
        self._address: int | None = None

    @property
    def value(self) -> int:
        """The number of units that are free now (sem_getvalue(3))."""
        return int(self._semaphore.value) & 0xFFFFFFFF  # from 2^31 on the call's int has a sign

    def post(self) -> None:
        """Give one unit, waking a waiter if there is one (sem_post(3))."""
        sys.audit("ipclock.sem_post", self.name)
        self._semaphore.release()

    def try_wait(self) -> bool:
        """Take one unit if there is one (sem_trywait(3)); return whether it was taken."""
        return self.wait(0)

    def wait(self, seconds: float) -> bool:
        """Take one unit within *seconds*; return whether it was taken.

        False comes early when a signal was handled. Without sem_clockwait a step of the wall clock shortens or
        stretches the wait, so callers wait in chunks and keep their own deadline.
        """
        sys.audit("ipclock.sem_wait", self.name)
        return self._take(0) or (seconds > 0 and self._sleep(seconds))

    def _take(self, seconds: float) -> bool:
        try:
            self._semaphore.acquire(seconds)
        except (posix_ipc.BusyError, posix_ipc.SignalError):
            return False
        return True

    def _sleep(self, seconds: float) -> bool:
        try:
            from ipclock.linux import clockwait
        except ImportError:  # a Python without ctypes
            return self._take(seconds)
        if self._address is None and clockwait.AVAILABLE and not self.replaced():
            self._address = clockwait.open_again(self.name)
        return self._take(seconds) if self._address is None else clockwait.wait(self._address, seconds)

    def replaced(self) -> bool:
        """Return whether the path now names another semaphore, or none: posts there do not reach us."""
        try:
            status = os.lstat(path_of(self.name))
        except OSError:
            return True
        return (status.st_dev, status.st_ino) != self.identity

    def close(self) -> None:
        """Unmap the semaphore (sem_close(3))."""
        if self._address is not None:
            from ipclock.linux import clockwait

            clockwait.close(self._address)
        self._semaphore.close()


def open_existing(name: str, trusted: Callable[[os.stat_result], bool]) -> Semaphore | None:
    """Open the semaphore *name*; None if there is none. *trusted* tells whether a file may belong to the pool.

    Raises PoolPermissionError (77), SemaphoreError (69), UnavailableError (69).
    """
    path = path_of(name)
    for _ in range(10):
        before = _inspect(path, trusted)
        if before is None:
            return None
        try:
            semaphore = posix_ipc.Semaphore(name)
        except posix_ipc.ExistentialError:
            continue
        except posix_ipc.PermissionsError:
            raise foreign(path) from None
        except OSError as error:
            raise _failure(error, path) from None
        opened = Semaphore(name, semaphore, before)
        if not opened.replaced():
            return opened
        semaphore.close()  # unlinked and made anew between the look and the opening
    raise SemaphoreError(path, N_("keeps being replaced"))


def _failure(error: posix_ipc.Error | OSError, path: str) -> IpclockError:
    """Return the failure that an error of posix_ipc means, or of the kernel's."""
    if isinstance(error, OSError):
        # posix_ipc gives no number where the process has too many open files
        return from_os(error if error.errno else OSError(errno.EMFILE, os.strerror(errno.EMFILE)), path)
    return PoolCreateError(path, str(error))


def _inspect(path: str, trusted: Callable[[os.stat_result], bool]) -> tuple[int, int] | None:
    try:
        # O_NONBLOCK: a planted FIFO must not hang us
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        if not os.path.isdir(FOLDER):
            raise UnavailableError(FOLDER, N_("no such directory")) from None
        return None
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENXIO):
            raise SemaphoreError(path, N_("not a regular file")) from None
        if error.errno == errno.ENOTDIR:
            raise UnavailableError(FOLDER, N_("not a directory")) from None
        raise from_os(error, path) from None
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            raise SemaphoreError(path, N_("not a regular file"))
        if not trusted(status):
            raise foreign(path)
        content = os.read(fd, SIZE + 1)
    finally:
        os.close(fd)
    healthy = (
        len(content) == SIZE
        and content[8:12] == SHARED_MARK
        and not any(content[12:])
        and int.from_bytes(content[:8], sys.byteorder) & 0xFFFFFFFF <= MOST_UNITS
    )
    if not healthy:
        raise SemaphoreError(path, N_("wrong size or content"))
    return status.st_dev, status.st_ino


def create(name: str, mode: int, group: int | None = None, giver: int | None = None) -> Semaphore | None:
    """Make the semaphore *name* with value 0, for *group* too if that is given; None if there is one already.

    It appears under its name finished, by one linkat(2) of a file that had no name before: sem_open(3) goes by way of a
    temporary name, which stays for ever if we are killed there. The caller sees to the owner (`Directory.creating`). A
    group that has no gid here is that of the directory *giver*, on the same file system, and comes with its setgid bit.
    Raises PoolCreateError (73), UnavailableError (69), PoolPermissionError (77).
    """
    path = path_of(name)
    sys.audit("ipclock.sem_create", name)
    try:
        directory = os.open(FOLDER, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            within = FOLDER if giver is None else "."
            fd = os.open(within, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600, dir_fd=giver)
        except OSError:
            os.close(directory)
            raise
        try:
            os.write(fd, bytes(8) + SHARED_MARK + bytes(SIZE - 12))
            if group is not None and giver is None:
                os.fchown(fd, -1, group)
            os.fchmod(fd, mode)
            # with a descriptor, since os.link follows the link to our file only in linkat(2), never in link(2)
            os.link(f"/proc/self/fd/{fd}", os.path.basename(path), dst_dir_fd=directory, follow_symlinks=True)
            status = os.fstat(fd)
            semaphore = posix_ipc.Semaphore(name)
        finally:
            os.close(fd)
            os.close(directory)
    except FileExistsError:
        return None
    except posix_ipc.ExistentialError:
        return create(name, mode, group, giver)  # removed in this very moment
    except (posix_ipc.Error, OSError) as error:
        if getattr(error, "errno", None) == errno.EXDEV:
            raise PoolPermissionError(path, N_("the group has no gid in this user namespace")) from None
        if not os.path.isdir(FOLDER):
            raise UnavailableError(FOLDER, N_("no such directory")) from None
        raise _failure(error, path) from None
    made = Semaphore(name, semaphore, (status.st_dev, status.st_ino))
    if made.replaced():
        made.close()
        return create(name, mode, group, giver)
    return made


def give(semaphore: Semaphore, mode: int, group: int | None) -> None:
    """Give the semaphore's file this mode and, unless None, this group, if it is ours to give and has its name still.

    Raises PoolCreateError (73), PoolPermissionError (77).
    """
    path = path_of(semaphore.name)
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            status = os.fstat(fd)
            same = (status.st_dev, status.st_ino) == semaphore.identity and status.st_nlink == 1
            ours = same and users.owns(fd)
            if ours and group not in (None, status.st_gid):
                os.fchown(fd, -1, group or 0)
            if ours and stat.S_IMODE(status.st_mode) != mode:
                os.fchmod(fd, mode)
        finally:
            os.close(fd)
    except OSError as error:
        raise from_os(error, path) from None


def unlink(name: str) -> bool:
    """Remove the name (sem_unlink(3)); return whether it is gone. One that only its owner may remove is left alone."""
    sys.audit("ipclock.sem_unlink", name)
    with suppress(posix_ipc.ExistentialError):
        try:
            posix_ipc.unlink_semaphore(name)
        except (posix_ipc.PermissionsError, OSError):
            return False
    return True
