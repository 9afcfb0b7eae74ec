"""What people see of processes: command lines, directories, terminals, and what they use."""

from __future__ import annotations

import os
import time
from contextlib import suppress

from ipclock import utf8
from ipclock._typing import NamedTuple
from ipclock.linux import procfs
from ipclock.linux.process import descendants_of, stat_fields
from ipclock.linux.procfs import at

_COMMAND_BYTES = 4096  # of a command line that is shown
_TTY, _SERIAL, _FIRST_PTY = 4, 64, 136  # major 4, its minors from 64 on, and major 136: admin-guide/devices.rst


class Use(NamedTuple):
    """What a build uses: CPU time so far, of what has ended too, in seconds; memory of its own now, in bytes."""

    cpu_s: float
    memory: int


class Usage(NamedTuple):
    """A process as shown to people: PID, command line, age in seconds."""

    pid: int
    command: str
    age_s: float


def use_of(pids: list[int]) -> Use | None:
    """Return what the processes and all their descendants use; None where nothing is left of them.

    Memory is what statm calls resident, without what is shared: cheap, and told of other users' processes too.
    """
    ticks = pages = 0
    found = False
    for pid in {*pids, *(child for root in pids for child in descendants_of(root))}:
        with suppress(OSError):  # gone meanwhile
            fields = stat_fields(pid)
            resident, shared = procfs.text(f"{at(pid)}/statm").split()[1:3]
            ticks += sum(map(int, fields[11:15]))  # those of its ended children too
            pages += int(resident) - int(shared)
            found = True
    return Use(ticks / os.sysconf("SC_CLK_TCK"), pages * os.sysconf("SC_PAGE_SIZE")) if found else None


def command_of(pid: int) -> str:
    """Return the command line of process *pid*, as it shows it now; "" where there is none to see."""
    try:
        shown = procfs.data(f"{at(pid)}/cmdline", _COMMAND_BYTES).decode(errors="replace")
        return shown.rstrip("\0").replace("\0", " ")
    except OSError:
        return ""


def directory_of(pid: int) -> str:
    """Return the working directory of a process; "" where it may not be seen."""
    try:
        return os.readlink(f"{at(pid)}/cwd")
    except OSError:
        return ""


def terminal_of(pid: int) -> str:
    """Return the controlling terminal of a process, "pts/3" or "tty1"; "" where it has none, or no usual one."""
    try:
        device = int(stat_fields(pid)[4])
    except OSError:
        return ""
    major, minor = os.major(device), os.minor(device)
    if _FIRST_PTY <= major < _FIRST_PTY + 8:
        return f"pts/{minor + 256 * (major - _FIRST_PTY)}"
    if major == _TTY:
        return f"tty{minor}" if minor < _SERIAL else f"ttyS{minor - _SERIAL}"
    return ""


def usage(pids: list[int]) -> list[Usage]:
    """Return what people want to know of those of the processes that are still there."""
    import psutil

    found = []
    for pid in pids:
        with suppress(psutil.Error):
            process = psutil.Process(procfs.there(pid))
            command = utf8.text_of(" ".join(process.cmdline()) or process.name())
            found.append(Usage(pid, command, max(0.0, time.time() - process.create_time())))
    return found
