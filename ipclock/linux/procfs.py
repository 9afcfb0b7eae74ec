"""proc(5): whether it is there, and where it has a process.

It shows the PIDs of the namespace for which it was mounted. In another one, without a mount of its own, a PID of ours
is that of another process in it. So each PID goes through `at` on its way there, and through `here` on its way back.
"""

from __future__ import annotations

import os
from contextlib import suppress
from functools import cache

from ipclock.errors import NoProcError


def require() -> None:
    """Raise NoProcError (69) where it is not mounted."""
    if not os.path.lexists("/proc/self"):
        raise NoProcError("/proc")


def read(path: str, limit: int = 4096) -> str:
    """Return the text of a file. Raises OSError."""
    # os.open: the io module's text layer costs four more system calls, and this runs several times a second
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(fd, limit).decode(errors="replace")
    finally:
        os.close(fd)


def started_with(variable: str) -> bytes | None:
    """Return a variable's value in the environment that this program was started with, None where it had none.

    Raises OSError.
    """
    with open("/proc/self/environ", "rb") as file:
        found = (entry.partition(b"=") for entry in file.read().split(b"\0"))
    return next((value for key, _, value in found if key == variable.encode()), None)


@cache
def shows_us() -> bool:
    """Return whether the PIDs in it are those of our PID namespace."""
    try:
        return os.readlink("/proc/self") == str(os.getpid())
    except OSError:
        return True


def at(pid: int | str) -> str:
    """Return the folder of a process; one that is not there for none."""
    return f"/proc/{pid if pid == 'self' else there(int(pid))}"


def there(pid: int) -> int:
    """Return the PID that a process of ours has there, 0 for none."""
    if shows_us():
        return pid
    with suppress(OSError):
        fd = os.pidfd_open(pid)
        try:
            return max([0, *_numbers(f"/proc/self/fdinfo/{fd}", "Pid:")])
        finally:
            os.close(fd)
    return 0


def here(pid: int) -> int:
    """Return our PID of a process that has this one there; 0 if it is in no PID namespace that we see."""
    if shows_us():
        return pid
    with suppress(OSError):
        own, its = (_numbers(f"/proc/{one}/status", "NSpid:") for one in ("self", pid))
        found = its[len(own) - 1] if 0 < len(own) <= len(its) else 0
        # one of another namespace, as deep as ours, may have there the PID of another process here
        return found if found and there(found) == pid else 0
    return 0


def _numbers(path: str, key: str) -> list[int]:
    rows = (row.split() for row in read(path).splitlines())
    return [int(number) for row in rows if row[:1] == [key] for number in row[1:]]
