"""Processes: who they are for certain, whether they still exist, what they hold open.

A PID alone names no process: it is used again, and means another process in another
PID namespace. An `Identity` adds the start time in clock ticks (field 22 of proc_pid_stat(5), as the first time
namespace has it; unlike psutil's create_time it does not move with the wall clock), the boot and the namespace. Errs
towards "unknown", never towards "gone".
"""

from __future__ import annotations

import os
import pwd
import signal
from contextlib import suppress
from functools import cache

from ipclock import users, utf8
from ipclock._typing import TYPE_CHECKING, NamedTuple
from ipclock.bounded import LAST_PID, LAST_UID, LAST_WORD, whole
from ipclock.linux import clocks, procfs
from ipclock.linux.procfs import at, here

if TYPE_CHECKING:
    from collections.abc import Mapping

UNKNOWN_START = (1 << 64) - 1  # where a time namespace keeps it from being compared
_FIRST_NAMESPACE = 0xEFFFFFFC  # PROC_PID_INIT_INO of include/linux/proc_ns.h: the same on every boot
_TICK_NS = 10**9 // os.sysconf("SC_CLK_TCK")
_LAST_TICK = (1 << 63) // _TICK_NS


class Identity(NamedTuple):
    """One process for certain: PID, start in clock ticks since boot, boot id, inode of the PID namespace.

    What one process has read is equal or not; what may have been written in another time namespace, `names` compares.
    """

    pid: int
    start: int
    boot: str
    namespace: int

    def __str__(self) -> str:
        return ":".join(map(str, self))

    @classmethod
    def parse(cls, text: str) -> Identity:
        """Make an identity from its text. Raises ValueError, also for numbers that none can have: C calls get them."""
        left, begun, boot, right = text.split(":")
        pid, start, namespace = whole(left, LAST_PID), whole(begun, LAST_WORD), whole(right, LAST_WORD)
        if not pid or start is None or namespace is None:
            raise ValueError(text)
        return cls(pid, start, boot, namespace)

    @classmethod
    def of(cls, fields: Mapping[str, object], key: str = "process") -> Identity | None:
        """Return the identity that a field of a record says, None for none."""
        try:
            return cls.parse(str(fields.get(key, "")))
        except ValueError:
            return None

    def names(self, other: Identity) -> bool:
        """Return whether both are surely the same process.

        Their starts may be a tick apart: if time namespaces differ by a part of a tick, a tick of one lies in two of
        the other. No PID is given to another process so soon.
        """
        known = UNKNOWN_START not in (self.start, other.start) and abs(self.start - other.start) <= 1
        return known and self._replace(start=other.start) == other


class Stat(NamedTuple):
    """What proc_pid_stat(5) says of a process: one-letter state, parent's PID, start in clock ticks."""

    state: str
    parent: int
    start: int


def stat_of(pid: int | str) -> Stat:
    """Return what /proc says of a process. Raises OSError."""
    fields = stat_fields(pid)
    return Stat(fields[0], here(int(fields[1])), _start(int(fields[19])))


def stat_fields(pid: int | str) -> list[str]:
    """Return the fields of proc_pid_stat(5) from the third on, the state. Raises OSError."""
    # the command's name may hold blanks and brackets: fields are counted from the last bracket
    return procfs.text(f"{at(pid)}/stat").rpartition(")")[2].split()


def _start(ticks: int) -> int:
    ahead = clocks.starts_ahead()
    if ahead is None:
        return UNKNOWN_START
    # what started before the zero of a namespace has nanoseconds without their sign
    since = ticks * _TICK_NS - ((1 << 64) if ticks > _LAST_TICK else 0)
    return max(0, (since - ahead) // _TICK_NS)


@cache
def namespace() -> int:
    """Return the inode of our PID namespace (pid_namespaces(7)); a process never changes its own."""
    return os.stat("/proc/self/ns/pid").st_ino


def is_contained() -> bool:
    """Return whether our PIDs are those of a container, not of the machine."""
    try:
        return namespace() != _FIRST_NAMESPACE
    except OSError:  # a kernel without namespaces
        return False


def start_of(pid: int) -> int:
    """Return when process *pid* started, in clock ticks since boot. Raises OSError."""
    return stat_of(pid).start


def identify(pid: int) -> Identity:
    """Return the identity of process *pid*. Raises OSError if there is none or it may not be seen."""
    return Identity(pid, stat_of(pid).start, clocks.boot_id(), namespace())


def _same(identity: Identity) -> Stat | bool | None:
    """Return the state of the process, False if it is surely gone, None if that cannot be told."""
    if identity.boot != clocks.boot_id():
        return False
    if identity.namespace != namespace():
        return None
    try:
        found = stat_of(identity.pid)
    except FileNotFoundError:
        # under hidepid another user's process has no entry; signal 0 still tells it from none
        try:
            os.kill(identity.pid, 0)
        except ProcessLookupError:
            return False
        except OSError:
            pass
        return None
    except OSError:
        return None
    if found.state in "ZX":
        return False
    if UNKNOWN_START in (found.start, identity.start):
        return None
    return found if identity.names(identity._replace(start=found.start)) else False


def exists(identity: Identity) -> bool | None:
    """Return whether the process still exists (a zombie does not); None if that cannot be told."""
    found = _same(identity)
    return None if found is None else found is not False


def signals_of(pid: int) -> tuple[set[int], set[int], set[int]]:
    """Return the signals that a process catches, those that it blocks, and those that are pending for it."""
    masks = {"SigCgt": 0, "SigBlk": 0, "ShdPnd": 0}  # proc_pid_status(5)
    with suppress(OSError):
        fields = procfs.fields(f"{at(pid)}/status")
        masks |= {key: int(words[0], 16) for key, words in fields.items() if key in masks}
    caught, blocked, pending = ({bit + 1 for bit in range(64) if mask >> bit & 1} for mask in masks.values())
    return caught, blocked, pending


def is_stopped(identity: Identity) -> bool:
    """Return whether the process is surely there and stopped (SIGSTOP, or a tracer)."""
    found = _same(identity)
    return isinstance(found, Stat) and found.state in "Tt"


def stopped(pid: int) -> bool:
    """Return whether some process *pid* is stopped now; for display, since a PID proves nothing."""
    try:
        return stat_of(pid).state in "Tt"
    except OSError:
        return False


def ancestors() -> list[Identity]:
    """Return this process, its parent, and so on, as far as they can be seen.

    Itself too: a shell lets the last command of `sh -c` take its place, and then we are the script. Not the machine's
    init: all processes run inside of that.
    """
    found = []
    pid = os.getpid()
    while pid > (0 if is_contained() else 1):
        try:
            stat = stat_of(pid)
        except OSError:
            break
        found.append(Identity(pid, stat.start, clocks.boot_id(), namespace()))
        pid = stat.parent
    return found


def login_session(sid: int) -> str:
    """Return what names our login session: the kernel's audit session, else the session *sid* (getsid(2))."""
    with suppress(OSError):
        number = whole(procfs.text("/proc/self/sessionid"), LAST_UID)  # the highest one: none was set
        if number is not None:
            return f"audit {number}"
    return f"{namespace()} {sid}"


def own_command_line() -> list[bytes]:
    """Return the words of our command line, the interpreter's own first. Raises OSError."""
    return procfs.data("/proc/self/cmdline").split(b"\0")[:-1]


def real_uid(pid: int) -> int | None:
    """Return the real uid of process *pid* (proc_pid_status(5)), which a set-uid program leaves; None if it is gone."""
    with suppress(OSError, KeyError):
        return int(procfs.fields(f"{at(pid)}/status")["Uid"][0])
    return None


def descendants_of(pid: int) -> list[int]:
    """Return the PIDs of the children of a process, their children, and so on.

    Costs a few system calls for each of them, not for each process of the machine (`children` of proc_pid_task(5),
    which may miss one while its siblings are ending).
    """
    if not _lists_children():
        return _descendants_by_psutil(pid)
    found: list[int] = []
    left = [pid]
    while left:
        parent = left.pop()
        with suppress(OSError):  # gone meanwhile
            for task in os.listdir(f"{at(parent)}/task"):
                children = map(int, procfs.text(f"{at(parent)}/task/{task}/children").split())
                left += filter(None, map(here, children))
        found.append(parent)
    return found[1:]


@cache
def _lists_children() -> bool:
    # a kernel without CONFIG_PROC_CHILDREN
    return os.path.exists("/proc/thread-self/children")


def _descendants_by_psutil(pid: int) -> list[int]:
    import psutil

    try:
        return [child.pid for child in psutil.Process(pid).children(recursive=True)]
    except psutil.Error:
        return []


def parent_of(pid: int) -> int:
    """Return the PID of the parent; 0 where there is none, or none to be seen."""
    try:
        return stat_of(pid).parent
    except OSError:
        return 0


def foreground_of(pid: int) -> int:
    """Return the process group in front on the terminal of a process, below 1 for none. Raises OSError."""
    return here(int(stat_fields(pid)[5]))


def arguments_of(pid: int) -> list[str]:
    """Return the words of a command line; none where they cannot be seen."""
    try:
        return procfs.text(f"{at(pid)}/cmdline").split("\0")[:-1]
    except OSError:
        return []


def is_fork(pid: int) -> bool:
    """Return whether the process surely still runs its parent's program, as a subshell does: fork(2) without execve(2).

    Its stack and arguments then lie at the same addresses, which execve(2) chooses at random.
    """

    def layout(pid: int) -> list[str]:
        fields = stat_fields(pid)
        return [os.readlink(f"{at(pid)}/exe"), *fields[23:26], *fields[45:49]]

    try:
        return layout(pid) == layout(stat_of(pid).parent)
    except OSError:
        return False


def send(identity: Identity, number: int) -> None:
    """Send a signal to that very process, never to a later one with its PID. Raises PermissionError."""
    try:
        fd = os.pidfd_open(identity.pid)
    except ProcessLookupError:
        return
    try:
        # the descriptor was there first: if the process is still the same now, it is the one that we have
        if exists(identity):
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(fd, number)
    finally:
        os.close(fd)


def adopt_orphans() -> None:
    """Become the parent of those descendants whose own parent ends: PR_SET_CHILD_SUBREAPER of prctl(2)."""
    import ctypes

    if ctypes.CDLL(None, use_errno=True).prctl(36, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def psutil_version() -> str:
    """Return the version of psutil. Raises ImportError."""
    import psutil

    return str(psutil.__version__)


def user_name(uid: int) -> str:
    """Return the login name of *uid*, or the number where it has none; "?" for one that any user may have here."""
    if users.is_hidden(uid):
        return "?"
    try:
        return utf8.text_of(pwd.getpwuid(uid).pw_name)
    except KeyError:
        return str(uid)
