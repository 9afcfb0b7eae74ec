"""What processes have open, and whose locks and pipes these are: by /proc/PID/fd, as far as it may be read."""

from __future__ import annotations

import os
import stat
import time
from contextlib import suppress

from ipclock._typing import TYPE_CHECKING
from ipclock.linux.process import stat_of
from ipclock.linux.procfs import at, here, lines, pids

if TYPE_CHECKING:
    from collections.abc import Container, Iterator

SETTLE_S = 0.5  # how long a shell may take to hand on the ends of its pipes
_DELETED = " (deleted)"


def open_files() -> list[tuple[int, str]]:
    """Return our descriptors, each with the path of its file; that of a removed one is what it was."""
    found = []
    for fd in own_descriptors():
        with suppress(OSError):  # that of the listing itself is closed by now
            found.append((fd, os.readlink(f"/proc/self/fd/{fd}").removesuffix(_DELETED)))
    return found


def open_descriptors(device: int, inode: int, pid: int | str = "self") -> list[int]:
    """Return the descriptors of a process that are open on the file; none where we may not look."""
    found = []
    try:
        for name in os.listdir(f"{at(pid)}/fd"):
            try:
                status = os.stat(f"{at(pid)}/fd/{name}")
            except OSError:
                continue
            if (status.st_dev, status.st_ino) == (device, inode):
                found.append(int(name))
    except OSError:
        pass
    return found


def reads_keys(device: int, inode: int, pid: int) -> bool:
    """Return whether a process has that terminal as its stdin, or open for reading alone, as who takes keys from it."""
    with suppress(OSError):  # gone meanwhile
        found = open_descriptors(device, inode, pid)
        return any(fd == 0 or not os.lstat(f"{at(pid)}/fd/{fd}").st_mode & stat.S_IWUSR for fd in found)
    return False


def own_descriptors() -> list[int]:
    """Return the descriptors that this process has open, and the one by which they were listed."""
    return [int(name) for name in os.listdir("/proc/self/fd")]


def locked_files(directory: str) -> set[str]:
    """Return what some process has open and locked in a directory of this name, wherever it lies: paths from there on.

    Removed files too. As far as we may look. Slow: walks all of /proc.
    """
    found = set()
    for link in _descriptors():
        with suppress(OSError):  # gone meanwhile
            _, inside, path = os.readlink(link).removesuffix(_DELETED).partition(f"/{directory}/")
            # a daemon that a build left behind has the file open too, but its lock was undone
            if inside and _locks(link.replace("/fd/", "/fdinfo/")):
                found.add(path)
    return found


def _descriptors() -> Iterator[str]:
    for pid in pids():
        with suppress(OSError):  # gone meanwhile, or not ours to see
            yield from [f"/proc/{pid}/fd/{fd}" for fd in os.listdir(f"/proc/{pid}/fd")]


def lockers(start: int, listed: Container[tuple[int, int]]) -> list[int]:
    """Return the PIDs of the processes that have a file locked from *start* on, but for the *listed* (st_dev, st_ino).

    As far as we may look. Slow: walks all of /proc.
    """
    found = set()
    for link in _descriptors():
        with suppress(OSError):  # gone meanwhile
            if _is_locked_from(start, link.replace("/fd/", "/fdinfo/")):
                status = os.stat(link)
                if (status.st_dev, status.st_ino) not in listed:
                    found.add(here(int(link.split("/")[2])))
    return sorted(found - {0})


def _is_locked_from(start: int, path: str) -> bool:
    return any(row[2] == "OFDLCK" and row[-2] == str(start) for row in _locks(path))


def _locks(path: str) -> list[list[str]]:
    """Return the locks that a file of proc_pid_fdinfo(5) tells of."""
    return [line.split() for line in lines(path) if line.startswith("lock:")]


def keepers_of(device: int, inode: int, start: int) -> list[int]:
    """Return the PIDs of the processes that share the open file by which the file is locked from *start* on.

    As far as we may look. One who merely reads the file has another open file, without the lock. Slow: walks all of
    /proc.
    """
    found = set()
    for pid in filter(None, map(here, pids())):
        for fd in open_descriptors(device, inode, pid):
            with suppress(OSError):  # gone meanwhile
                if _is_locked_from(start, f"{at(pid)}/fdinfo/{fd}"):
                    found.add(pid)
    return sorted(found)


def hides_descriptors(pid: int) -> bool:
    """Return whether the process lives and we may not look at what it has open: another user's, by setuid say."""
    try:
        return stat_of(pid).state not in "ZX" and not os.access(f"{at(pid)}/fd", os.R_OK | os.X_OK)
    except OSError:
        return False


def pipe_of(pid: int, fd: int = 1) -> int | None:
    """Return the inode of the pipe that a process has open as descriptor *fd*; None for no pipe, or none to be seen."""
    try:
        status = os.stat(f"{at(pid)}/fd/{fd}")
    except OSError:
        return None
    return status.st_ino if stat.S_ISFIFO(status.st_mode) else None


def prints_to_file(pid: int) -> bool:
    """Return whether the standard output of a process is surely a regular file."""
    try:
        return stat.S_ISREG(os.stat(f"{at(pid)}/fd/1").st_mode)
    except OSError:
        return False


def reads(pid: int, pipe: int) -> bool:
    """Return whether the process has the reading end of a pipe, to read from it itself.

    A shell that makes a pipeline has both ends of its pipes for a moment, and is busy then: it is looked at again, as
    long as it may take on a machine under load.
    """
    deadline = time.monotonic() + SETTLE_S
    while found := pipe in _pipe_ends(pid, stat.S_IRUSR):
        try:
            busy = stat_of(pid).state != "S"
        except OSError:
            return False
        if not busy or time.monotonic() > deadline:
            break
        time.sleep(0.001)  # nothing tells when a shell closes the end that it does not need
    return found


def writes_to(pid: int, reader: int) -> bool:
    """Return whether a process has the writing end of a pipe that the *reader* reads.

    Its standard output need not be that pipe: dash redirects itself before it starts a command that is redirected.
    """
    return any(reads(reader, pipe) for pipe in _pipe_ends(pid, stat.S_IWUSR))


def _pipe_ends(pid: int, bit: int) -> set[int]:
    found = set()
    with suppress(OSError):
        for name in os.listdir(f"{at(pid)}/fd"):
            with suppress(OSError):  # closed meanwhile
                # the mode of the link is that of the descriptor
                if os.lstat(f"{at(pid)}/fd/{name}").st_mode & bit and (pipe := pipe_of(pid, int(name))):
                    found.add(pipe)
    return found
