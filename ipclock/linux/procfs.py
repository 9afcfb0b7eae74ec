"""proc(5): whether it is there, what its files say, and where it has a process.

Paths are given whole, so that the files of control groups, which look alike, are read here too. A line ends with a
newline and nothing else: any user may name a process or a mount with a carriage return, or a Unicode line separator.

It shows the PIDs of the namespace for which it was mounted. In another one, without a mount of its own, a PID of ours
is that of another process in it. So each PID goes through `at` on its way there, and through `here` on its way back.
"""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from functools import cache

from ipclock import utf8
from ipclock._typing import TYPE_CHECKING, NamedTuple
from ipclock.errors import NoProcError

if TYPE_CHECKING:
    from collections.abc import Iterator

_PIECE = 1 << 14  # bytes that one call asks for; of many files the kernel gives a page at a time
# what would end a field of mountinfo, as the kernel writes it; the backslash last
_ESCAPES = ((r"\040", " "), (r"\011", "\t"), (r"\012", "\n"), (r"\043", "#"), (r"\134", "\\"))


class Mount(NamedTuple):
    """What is mounted at `path`: the kind of file system, which one (device and directory in it), its options."""

    path: str
    kind: str
    source: tuple[str, str]
    options: frozenset[str]


def require() -> None:
    """Raise NoProcError (69) where it is not mounted."""
    if not os.path.lexists("/proc/self"):
        raise NoProcError("/proc")


def data(path: str, most: int = sys.maxsize) -> bytes:
    """Return what a file says, or its first *most* bytes. Raises OSError."""
    # os.open: a file object asks for the file's state and size first, and this runs several times a second
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    found = bytearray()
    try:
        while piece := os.read(fd, min(_PIECE, most - len(found))):
            found += piece
    finally:
        os.close(fd)
    return bytes(found)


def text(path: str) -> str:
    """Return what a file says as text (`utf8.text`). Raises OSError."""
    return utf8.text(data(path))


def lines(path: str) -> list[str]:
    """Return the lines of a file that say something. Raises OSError."""
    return list(filter(None, text(path).split("\n")))


def fields(path: str) -> dict[str, list[str]]:
    """Return the words of each line of a file like `Key: 12 kB` or `key 12`, by its key. Raises OSError."""
    rows = (line.split() for line in lines(path))
    return {key.rstrip(":"): words for key, *words in filter(None, rows)}


def numbers(path: str) -> dict[str, int]:
    """Return the first number of each line of such a file that has one, by its key. Raises OSError."""
    return {key: int(words[0]) for key, words in fields(path).items() if words and words[0].isdigit()}


def mounts(path: str = "/proc/self/mountinfo") -> Iterator[Mount]:
    """Yield what is mounted (proc_pid_mountinfo(5)), later mounts later. Raises OSError."""
    for line in lines(path):
        before, _, after = line.partition(" - ")
        _, _, device, root, where, *_ = map(_unescaped, before.split(" "))
        kind, _, options = after.split(" ", 2)
        yield Mount(where, kind, (device, root), frozenset(options.split(",")))


def _unescaped(field: str) -> str:
    for code, letter in _ESCAPES:
        field = field.replace(code, letter)
    return field


def pids() -> list[int]:
    """Return the PIDs that it shows, as they are there. Raises OSError."""
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def started_with(variable: str) -> bytes | None:
    """Return a variable's value in the environment that this program was started with, None where it had none.

    Raises OSError.
    """
    found = (entry.partition(b"=") for entry in data("/proc/self/environ").split(b"\0"))
    return next((value for key, _, value in found if key == variable.encode()), None)


@cache
def shows_us() -> bool:
    """Return whether the PIDs in it are those of our PID namespace."""
    try:
        return os.readlink("/proc/self") == str(os.getpid())
    except OSError:
        return True


def at(pid: int | str) -> str:
    """Return the directory of a process; one that is not there for none."""
    return f"/proc/{pid if pid == 'self' else there(int(pid))}"


def there(pid: int) -> int:
    """Return the PID that a process of ours has there, 0 for none."""
    if shows_us():
        return pid
    with suppress(OSError):
        fd = os.pidfd_open(pid)
        try:
            # the process may have ended meanwhile: -1
            return max([0, *map(int, fields(f"/proc/self/fdinfo/{fd}").get("Pid", []))])
        finally:
            os.close(fd)
    return 0


def here(pid: int) -> int:
    """Return our PID of a process that has this one there; 0 if it is in no PID namespace that we see."""
    if shows_us():
        return pid
    with suppress(OSError):
        own, its = (list(map(int, fields(f"/proc/{one}/status").get("NSpid", []))) for one in ("self", pid))
        found = its[len(own) - 1] if 0 < len(own) <= len(its) else 0
        # one of another namespace, as deep as ours, may have there the PID of another process here
        return found if found and there(found) == pid else 0
    return 0
