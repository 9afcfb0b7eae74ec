"""The machine: what is mounted where, kernel settings, and what logind does at a logout.

Changes nothing, and leaves nothing behind. None stands for what cannot be
told from here.
"""

from __future__ import annotations

import errno
import math
import os
import pwd
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

from ipclock import users
from ipclock.bounded import LAST_UID, whole
from ipclock.linux import procfs

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ipclock.linux.procfs import Mount

LOGIN_DEFS = "/etc/login.defs"
# the order of logind.conf(5): of two files with one name the earlier directory's counts
LOGIND_FOLDERS = ("/etc/systemd", "/run/systemd", "/usr/local/lib/systemd", "/usr/lib/systemd")
MAX_BYTES = 1 << 20  # of a configuration file


class Room(NamedTuple):
    """What is left on a file system, in bytes and files (math.inf: no limit), and the bytes of a block."""

    bytes: float
    files: float
    block: int


def mount_of(path: str, pid: int | str = "self") -> Mount | None:
    """Return what *path* lies on in the view of process *pid* (proc_pid_mountinfo(5)); no link in it is resolved."""
    found = None
    with suppress(OSError):
        for mount in procfs.mounts(f"/proc/{pid}/mountinfo"):
            within = path == mount.path or path.startswith(mount.path.rstrip("/") + "/")
            # of two at one place the later one covers the earlier
            if within and (found is None or len(mount.path) >= len(found.path)):
                found = mount
    return found


def is_shared_with_init(path: str) -> bool | None:
    """Return whether the first process of this PID namespace sees the same file system at *path*."""
    ours, theirs = mount_of(path), mount_of(path, 1)
    return None if ours is None or theirs is None else ours.source == theirs.source


def hides_processes() -> bool:
    """Return whether other users' processes are hidden from us: hidepid of proc(5), unless we are of its gid."""
    mounted = mount_of("/proc")
    options = dict(option.partition("=")[::2] for option in (mounted.options if mounted else ()))
    root = os.geteuid() == 0 and users.shows_all()
    spared = root or options.get("gid", "") in map(str, (os.getegid(), *os.getgroups()))
    return options.get("hidepid", "off") not in ("off", "0") and not spared


def sysctl(name: str) -> int | None:
    """Return a kernel setting that is a number, as in "fs.protected_regular"."""
    with suppress(OSError, ValueError):
        return int(procfs.text("/proc/sys/" + name.replace(".", "/")))
    return None


def room(path: str) -> Room:
    """Return what is left for us on the file system of *path*. Raises OSError."""
    found = os.statvfs(path)
    return Room(
        found.f_bavail * found.f_frsize if found.f_blocks else math.inf,
        found.f_favail if found.f_files else math.inf,
        found.f_frsize,
    )


def try_writing(path: str) -> None:
    """Make a file without a name in the directory, fill one block of it, and let it go. Raises OSError."""
    try:
        # O_TMPFILE of open(2): gone with its descriptor, even if we are killed here
        fd = os.open(path, os.O_TMPFILE | os.O_WRONLY | os.O_CLOEXEC, 0o600)
    except OSError as error:
        # few file systems cannot do it: a file with a name would stay if we were killed
        if error.errno not in (errno.EOPNOTSUPP, errno.EISDIR) or not os.access(path, os.W_OK | os.X_OK):
            raise
        return
    try:
        os.write(fd, bytes(os.fstatvfs(fd).f_frsize))
    finally:
        os.close(fd)


def removes_ipc_of(uid: int) -> bool:
    """Return whether logind deletes what the user has in /dev/shm once the last session ends.

    RemoveIPC= of logind.conf(5), which spares root, system users and those who linger.
    """
    if not os.path.isdir("/run/systemd/system"):  # sd_booted(3)
        return False
    return uid > _last_system_uid() and not _lingers(uid) and _remove_ipc()


def _configuration(path: str) -> list[str]:
    """Return the lines of a configuration file. Raises OSError."""
    # O_NONBLOCK: a FIFO at this path must not hang us
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(fd, "rb") as file:
        return file.read(MAX_BYTES).decode(errors="replace").splitlines()


def _lingers(uid: int) -> bool:
    try:
        return os.path.exists(f"/var/lib/systemd/linger/{pwd.getpwuid(uid).pw_name}")
    except KeyError:
        return False


def _last_system_uid() -> int:
    with suppress(OSError):
        for words in map(str.split, _configuration(LOGIN_DEFS)):
            if words[:1] == ["SYS_UID_MAX"] and (found := whole("".join(words[1:2]), LAST_UID)) is not None:
                return found
    return 999


def _remove_ipc() -> bool:
    answer = True
    for path in _logind_files():
        section = ""
        with suppress(OSError):
            for line in map(str.strip, _configuration(path)):
                key, equals, value = (part.strip() for part in line.partition("="))
                if line.startswith("["):
                    section = line
                elif section == "[Login]" and key == "RemoveIPC" and equals:
                    yes = value.lower() in ("1", "yes", "y", "true", "t", "on")
                    no = value.lower() in ("0", "no", "n", "false", "f", "off")
                    answer = yes if yes or no else answer
    return answer


def _logind_files() -> Iterator[str]:
    """Yield the files in the order in which they are read, the last word counts."""
    main = (f"{directory}/logind.conf" for directory in LOGIND_FOLDERS)
    yield from [path for path in main if os.path.lexists(path)][:1]
    found: dict[str, str] = {}
    for directory in LOGIND_FOLDERS:
        with suppress(OSError):
            for name in os.listdir(f"{directory}/logind.conf.d"):
                if name.endswith(".conf"):
                    found.setdefault(name, f"{directory}/logind.conf.d/{name}")
    yield from [found[name] for name in sorted(found)]
