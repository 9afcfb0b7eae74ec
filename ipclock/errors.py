"""The kinds of failure: each one's data, its exit status and its wording.

Guarantees: every failure that a caller can meet is a subclass of `IpclockError`, with the data as attributes.
Does not print, and does not translate: `what` and `remedy` are templates over the attributes, looked up in the
catalogue by the caller that shows them. The exit statuses are those of sysexits(3), and of env(1) for 126 and 127.
One file, because it is one table.
"""

from __future__ import annotations

import errno
import os
import pwd

from ipclock import users
from ipclock._typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


def N_(text: str) -> str:  # noqa: N802 - gettext's customary name
    """Mark *text* for the message catalogue and return it unchanged."""
    return text


class IpclockError(Exception):
    """A failure with a documented exit status.

    `status` is what the command line exits with; `what` says what failed and where, `remedy` (perhaps empty)
    what to do about it. Both are `str.format` templates over the instance's attributes.
    """

    status = 70
    what = N_("internal error")
    remedy = ""

    def __str__(self) -> str:
        return self.what.format(**vars(self))

    def __reduce__(self) -> tuple[object, ...]:
        # made anew by its data: what our constructors take is not what they keep
        return _restored, (type(self), super().__reduce__()[1]), vars(self)


def _restored(kind: type[IpclockError], arguments: Sequence[object]) -> IpclockError:
    """Return a failure of this *kind* as pickle and copy make it, without its constructor."""
    error = kind.__new__(kind)
    super(IpclockError, error).__init__(*arguments)
    return error


class UsageError(IpclockError):
    """The command line cannot be understood."""

    status = 2
    what = "{message}"
    remedy = N_("Try '{command} --help'.")

    def __init__(self, message: str, command: str = "ipclock") -> None:
        super().__init__(message)
        self.message = message
        self.command = command


class MistypedError(UsageError):
    """The same, of a command line that resembles another one, which was probably `meant`."""

    remedy = N_("Did you mean '{meant}'?")

    def __init__(self, message: str, meant: str) -> None:
        super().__init__(message)
        self.meant = meant


class IncompleteError(UsageError):
    """The same, of a command line that lacks a word; `example` is a whole one."""

    remedy = N_("For example: {example}")

    def __init__(self, message: str, example: str) -> None:
        super().__init__(message)
        self.example = example


class InvalidValueError(IpclockError, ValueError):
    """A value that a setting cannot take: where it stood, the `value` as written, what is expected instead."""

    status = 78
    what = N_("{where}: invalid value {value}: expected {expected}")

    def __init__(self, where: str, value: str, expected: str, *, usage: bool = False) -> None:
        super().__init__(where, value)
        self.value = ascii(value) if len(value) < 80 else ascii(value[:77]) + "..."
        self.expected = expected
        self.where = where
        if usage:
            self.status = UsageError.status


class SettingsError(IpclockError):
    """A settings file that cannot be read or understood; `line` counts from 1, 0 is the file as a whole."""

    status = 78
    what = N_("{path}: {problem}")
    remedy = N_("A settings file holds lines of the form KEY=VALUE and comments.")

    def __init__(self, path: str, problem: str, line: int = 0) -> None:
        super().__init__(path, problem, line)
        self.path = f"{path}:{line}" if line else path
        self.problem = problem


class UnsafeHook(IpclockError):
    """A hook that root does not run: others may write to `at`, which decides what the settings file `path` says."""

    status = 78
    what = N_("{path}: refusing to run a hook as root: {at}: {reason}")
    remedy = N_("Let root own the settings file and its directories, and no other user write to them.")

    def __init__(self, path: str, at: str, reason: str = N_("writable by other users")) -> None:
        super().__init__(path, at, reason)
        self.path = path
        self.at = at
        self.reason = reason


class SlotUnavailable(IpclockError):
    """No slot was to be had in the time allowed."""

    status = 75


class SlotTimeout(SlotUnavailable, TimeoutError):
    """The wait for a slot lasted `seconds` and ended without one."""

    what = N_("timed out: no build slot within {seconds} s.")

    def __init__(self, seconds: float) -> None:
        super().__init__(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT))
        self.seconds = f"{seconds:g}"


class SlotBusy(SlotUnavailable, BlockingIOError):
    """All slots are taken or promised, and the caller would not wait: as flock(2) says it, EWOULDBLOCK."""

    what = N_("no free build slot: {held} of {capacity} in use, {waiting} waiting")

    def __init__(self, held: int, capacity: int, waiting: int) -> None:
        super().__init__(errno.EWOULDBLOCK, os.strerror(errno.EWOULDBLOCK))
        self.held = held
        self.capacity = capacity
        self.waiting = waiting


class TooManySlotsError(IpclockError):
    """A build asks for more slots than its pool has, so it could never start."""

    status = 78
    what = N_("{slots} slots requested, but the pool has {capacity}")
    remedy = N_("Request fewer slots (--slots), or raise MAX_PARALLEL_BUILDS.")

    def __init__(self, slots: int, capacity: int) -> None:
        super().__init__(slots, capacity)
        self.slots = slots
        self.capacity = capacity


class PoolInUse(IpclockError):
    """A pool was to be moved while builds run or wait in it."""

    status = 75
    what = N_("{directory}: cannot be moved while builds run or wait in this pool")
    remedy = N_("Drain the pool ('ipclock drain') and try again after the last build has ended.")

    def __init__(self, directory: str) -> None:
        super().__init__(directory)
        self.directory = directory


class PriorityNotAllowedError(IpclockError):
    """A user other than root asks for a priority below the lowest that the pool allows."""

    status = 77
    what = N_("priority {priority} is not allowed: the lowest in this pool is {lowest}")
    remedy = N_("The owner or root can allow it: 'ipclock init --priority-min {priority}'.")

    def __init__(self, priority: int, lowest: int) -> None:
        super().__init__(priority, lowest)
        self.priority = priority
        self.lowest = lowest


class SupersededError(IpclockError):
    """A waiter made way for a newer build of its label, with `ticket`; its PID, 0 where that is not known."""

    status = 76
    what = N_("{label}: superseded by a newer build of the same label (ticket {ticket}, PID: {pid})")

    def __init__(self, label: str, ticket: int, pid: int) -> None:
        super().__init__(label, ticket, pid)
        self.label = label
        self.ticket = ticket
        self.pid = pid


class MutexStuckError(SlotUnavailable):
    """The pool's mutex was not given up in time; `pid` wrote itself into it, 0 where that is not known."""

    what = N_("{path}: the pool is locked by process {pid}, which does not respond")
    remedy = N_("Continue the process (kill -CONT {pid}) or kill it (kill -KILL {pid}).")

    def __init__(self, path: str, pid: int) -> None:
        super().__init__(path, pid)
        self.path = path
        self.pid = pid


class UnavailableError(IpclockError):
    """The machine offers no place for a pool: /dev/shm is missing or is no directory."""

    status = 69
    what = N_("{path}: not available: {reason}")
    remedy = N_("POSIX semaphores need a tmpfs there: mount -t tmpfs tmpfs {path}")

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(path, reason)
        self.path = path
        self.reason = reason


class NoProcError(UnavailableError):
    """There is no proc(5), without which nothing is known of a process."""

    remedy = N_("ipclock identifies processes by it: mount -t proc proc {path}")

    def __init__(self, path: str) -> None:
        super().__init__(path, N_("not mounted"))


class ForeignLibraryError(IpclockError):
    """The C library is not glibc: another one keeps a semaphore in another file, and in another layout."""

    status = 69
    what = N_("the C library of this Python is not glibc; its semaphores are not supported")
    remedy = N_("Use a Python built for glibc, such as Debian's; Alpine's is built for musl.")


class PoolCreateError(IpclockError):
    """A file, directory or semaphore of the pool cannot be made or written (full, read-only, out of inodes)."""

    status = 73
    what = N_("{path}: cannot create or write: {reason}")
    remedy = N_("Check 'df {directory}' and 'mount'.")

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(path, reason)
        self.path = path
        self.directory = os.path.dirname(path) or path
        self.reason = reason


class FewDescriptorsError(PoolCreateError):
    """We may not open as many files as we need."""

    what = N_("{path}: cannot open: {reason}")
    remedy = N_("Raise the limit of open files ('ulimit -n', now {limit}).")

    def __init__(self, path: str, reason: str = os.strerror(errno.EMFILE)) -> None:
        super().__init__(path, reason)
        self.limit = str(os.sysconf("SC_OPEN_MAX"))


class PoolPermissionError(IpclockError, PermissionError):
    """The pool, or what lies at its path, belongs to another user."""

    status = 77
    what = N_("{path}: not permitted: {reason}")
    remedy = N_("Use a pool of your own (--name), or ask the owner or root for access.")

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(errno.EACCES, os.strerror(errno.EACCES), path)
        self.path = path
        self.reason = reason


class NoMemberError(PoolPermissionError):
    """The pool that was to be made at `path` would be shared with a group (gid) that we are no member of."""

    def __init__(self, path: str, group: int) -> None:
        super().__init__(path, N_("you are not a member of the group to share it with"))
        self.group = group


class ForeignPoolError(PoolPermissionError):
    """What lies at the path belongs to the user `uid`, whose pool we may not use or who may not be in ours."""

    what = N_("{path}: belongs to another user ({owner})")
    remedy = N_(
        "Use a pool of your own (--name), or ask the owner to share it: 'ipclock init --mode 0660 --group GROUP'."
    )

    def __init__(self, path: str, uid: int) -> None:
        self.owner = _name_and_uid(uid)
        super().__init__(path, self.owner)
        self.uid = uid
        if users.is_hidden(uid):
            self.owner = N_("a user without a uid in this user namespace")
            self.remedy = N_("Run ipclock outside of the user namespace, or use a pool of your own (--name).")


class PoolElsewhereError(IpclockError):
    """The pool of this name lies in `directory`, which we may not use, and not where LOCK_DIR says: at `wanted`.

    A second directory would be a second pool under one semaphore, and let twice as many builds run.
    """

    status = 78
    what = N_("{wanted}: the pool of this name is in {directory}, which cannot be used: {reason}")
    remedy = N_("Use another name (--name), or ask the owner or root for access.")

    def __init__(self, wanted: str, directory: str, reason: str) -> None:
        super().__init__(wanted, directory, reason)
        self.wanted = wanted
        self.directory = directory
        self.reason = reason


class SemaphoreError(IpclockError):
    """What lies at the semaphore's path is no working semaphore."""

    status = 69
    what = N_("{path}: not a usable semaphore: {reason}")
    remedy = N_("'ipclock reset' replaces it.")

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(path, reason)
        self.path = path
        self.reason = reason


class NoPoolError(IpclockError):
    """The pool does not exist (yet); the `names` of some that resemble it, perhaps "", are those of pools that do."""

    status = 69
    what = N_("{path}: no such pool")
    remedy = N_("'ipclock init' or the first build creates it.")

    def __init__(self, path: str, resembling: str = "") -> None:
        super().__init__(path)
        self.path = path
        self.names = resembling
        if resembling:
            self.remedy = N_("Did you mean {names}? 'ipclock init' or the first build creates a new one.")


class EngineFailed(IpclockError):
    """The servers that keep the pool cannot be used: none answers, or what they have is no pool."""

    status = 69
    what = N_("{engine}: not available: {reason}")
    remedy = N_("Check that the ZooKeeper servers are up and reachable from this host.")

    def __init__(self, engine: str, reason: str) -> None:
        super().__init__(engine, reason)
        self.engine = engine
        self.reason = reason


class UnsupportedError(IpclockError):
    """The engine of the pool cannot do what was asked of it.

    Not a usage error: the same words are right for another engine, and may stand in a file that serves several.
    """

    status = 69
    what = N_("{engine}: not supported: {asked}")
    remedy = N_("Omit it, or use a pool of this machine (without ENGINE).")

    def __init__(self, engine: str, asked: str) -> None:
        super().__init__(engine, asked)
        self.engine = engine
        self.asked = asked


class LogFailed(IpclockError):
    """The output of a build cannot be kept."""

    status = 73
    what = N_("{path}: the log cannot be written: {reason}")
    remedy = N_("Name another directory: LOG_DIR=/path.")

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(path, reason)
        self.path = path
        self.reason = reason


class SlotLost(IpclockError):
    """The slot of a running build could not be vouched for any more, so the build was ended."""

    status = 79
    what = N_("{label}: lost its slot: no ZooKeeper server responded in time; the build was killed")
    remedy = N_("With '--on-lost warn' builds keep running; their target should then reject an old IPCLOCK_TOKEN.")

    def __init__(self, label: str) -> None:
        super().__init__(label)
        self.label = label


class NoTicket(IpclockError):
    """No record has the ticket."""

    status = 2
    what = N_("no such ticket: {ticket}")
    remedy = N_("'ipclock status' lists the tickets.")

    def __init__(self, ticket: int) -> None:
        super().__init__(ticket)
        self.ticket = ticket


class StatusUnknown(IpclockError):
    """A build that was waited for has ended without an exit status of its own, or with an unknown one."""

    status = 80
    what = N_("ticket {ticket} has ended without an exit status: {reason}")

    def __init__(self, ticket: int, reason: str) -> None:
        super().__init__(ticket, reason)
        self.ticket = ticket
        self.reason = reason


class NoLog(IpclockError):
    """No log is there of what was `asked` for: a ticket, a label or a pool."""

    status = 2
    what = N_("{asked}: there is no log of it")
    remedy = N_("'ipclock wrap --detach' keeps one, in {directory}.")

    def __init__(self, asked: str, directory: str) -> None:
        super().__init__(asked, directory)
        self.asked = asked
        self.directory = directory


class LogUnreadable(IpclockError):
    """A log that we may not read, or that is none; the user `uid` has written it, None where that is not known."""

    status = 77
    what = N_("{path}: the log of {owner} cannot be read: {reason}")

    def __init__(self, path: str, uid: int | None, reason: str) -> None:
        super().__init__(path, uid, reason)
        self.path = path
        self.owner = "?" if uid is None else _name_and_uid(uid)
        self.reason = reason


class TicketWaits(NoTicket):
    """A slot was to be taken away from a ticket that still waits for one."""

    what = N_("ticket {ticket} has no slot yet: it is waiting")
    remedy = N_("'ipclock cancel {ticket}' removes it from the queue.")


class NotYourBuild(IpclockError):
    """The build `label` with `ticket` is that of another user (uid): `owner` in words."""

    status = 77
    what = N_("ticket {ticket} is a build of another user: {label} ({owner})")
    remedy = N_("That user, the owner of the pool or root can cancel it.")

    def __init__(self, ticket: int, label: str, uid: int) -> None:
        super().__init__(ticket, label, uid)
        self.ticket = ticket
        self.label = label
        self.uid = uid
        self.owner = _name_and_uid(uid)


class NotYours(IpclockError):
    """The slot of `ticket` is held by the build `label`, which this process is no part of; its PID, "?" for none."""

    status = 77
    what = N_("the slot of ticket {ticket} belongs to another build: {label} (PID: {pid})")
    remedy = N_("The build releases its slot by itself, at the latest when it ends.")

    def __init__(self, ticket: int, label: str, pid: str) -> None:
        super().__init__(ticket, label, pid)
        self.ticket = ticket
        self.label = label
        self.pid = pid


class Unprovable(NotYours):
    """The same, and whether that build still lives cannot be known here."""

    remedy = N_("If the build has ended for sure, 'ipclock reset {ticket}' releases its slot by force.")


class TicketPassesBy(IpclockError):
    """The process that would hold the slot, `shown`, ends before its parent, which is the one that gets the ticket."""

    status = 2
    what = N_("the slot would be released at the end of {shown}, but the ticket goes to {reader_shown}")
    remedy = N_(
        "Specify the process that is to hold it: --pid {reader} or --pid {pid}; in a shell, --pid $PPID or --pid $$."
    )

    def __init__(self, pid: int, shown: str, reader: int, reader_shown: str) -> None:
        super().__init__(pid, shown, reader, reader_shown)
        self.pid = pid
        self.shown = shown
        self.reader = reader
        self.reader_shown = reader_shown


class StillRunning(IpclockError):
    """Processes of the build that holds `ticket` could not be ended; the slot is still theirs."""

    status = 77
    what = N_("ticket {ticket}: cannot kill process {pids}")
    remedy = N_("'sudo ipclock reset {ticket} --kill' can also kill processes of other users.")

    def __init__(self, ticket: int, pids: list[int]) -> None:
        super().__init__(ticket, pids)
        self.ticket = ticket
        self.pids = ", ".join(map(str, pids))


class LocksLeft(IpclockError):
    """Builds of a removed directory of the pool, which only their locks tell of, still count: `units` of slots."""

    status = 77
    what = N_("slots held by locks without a record here: {units} (PIDs: {pids}): not killed")
    remedy = N_("Kill these processes, or ignore them from now on with 'ipclock reset'.")

    def __init__(self, units: int, pids: Sequence[int]) -> None:
        super().__init__(units, pids)
        self.units = units
        self.pids = ", ".join(map(str, pids)) or "?"


class HistoryFailed(IpclockError):
    """The file of finished builds cannot be used. A build never ends for it: its `ipclock` warns and goes on."""

    status = 73
    what = N_("{path}: cannot use the history: {reason}")
    remedy = N_("Move the file away or set another one (HISTORY=/path); HISTORY=off keeps no history.")

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(path, reason)
        self.path = path
        self.reason = reason


class NoLibrary(IpclockError):
    """A Python package that this alone needs is not installed; `extra` of ours brings it."""

    status = 69
    what = N_("the Python package {library} is not installed")
    remedy = N_("Install it: pip install 'ipclock[{extra}]'")

    def __init__(self, library: str, extra: str) -> None:
        super().__init__(library, extra)
        self.library = library
        self.extra = extra


class CommandFailed(IpclockError):
    """The command could not be started: 127 not found, 126 found but not executable; as in POSIX `env`."""

    what = N_("{command}: {reason}")

    def __init__(self, command: str, error: OSError) -> None:
        super().__init__(command, error)
        self.command = command
        self.reason = reason_of(error)
        self.status = 127 if isinstance(error, FileNotFoundError) else 126
        if self.status == 127 and "/" not in command:
            self.reason = N_("command not found")
            if " " in command.strip():
                import shlex  # few mistype it so

                self.quoted = shlex.quote(command)
                self.remedy = N_("Separate its words: -- {command}   or use a shell: -- sh -c {quoted}")
        if error.errno == errno.EAGAIN:
            self.remedy = N_("The limit of processes is reached: raise that of 'ulimit -u' or of the cgroup.")


class Interrupted(IpclockError):
    """A signal asked the waiting client to leave; `signum` is its number."""

    what = N_("interrupted by signal {signum}")

    def __init__(self, signum: int) -> None:
        super().__init__(signum)
        self.signum = signum
        self.status = 128 + signum


class CancelledError(Interrupted):
    """A build was cancelled by the user `by`, or because the process `pid` has ended, to which it was bound.

    Its wait ends as if by SIGTERM.
    """

    what = N_("{label}: cancelled by {by}")

    def __init__(self, label: str, by: str, pid: int = 0) -> None:
        import signal  # few are cancelled

        super().__init__(signal.SIGTERM)
        self.label = label
        self.by = by
        self.pid = pid
        if pid:
            self.what = N_("{label}: cancelled: process {pid} has ended")


# the names that the code uses, and that programs know from before they ended as is the custom
BadValue = InvalidValueError
BadConfig = SettingsError
MutexStuck = MutexStuckError
Unavailable = UnavailableError
CannotCreate = PoolCreateError
NotPermitted = PoolPermissionError
DamagedSemaphore = SemaphoreError


def _name_and_uid(uid: int) -> str:
    try:
        return f"{pwd.getpwuid(uid).pw_name}, uid {uid}"
    except KeyError:
        return f"uid {uid}"


def reason_of(error: Exception) -> str:
    """Return what the kernel says of a call that failed, or else what Python does."""
    return getattr(error, "strerror", None) or str(error)


def foreign(path: str, reason: str = "") -> PoolPermissionError:
    """Return the failure that we may not use what lies at *path*: by its owner's name if that is another user."""
    try:
        owner = os.lstat(path).st_uid
    except OSError as error:
        return PoolPermissionError(path, reason or reason_of(error))
    others = owner != os.geteuid() or users.is_hidden(owner)
    return ForeignPoolError(path, owner) if others or not reason else PoolPermissionError(path, reason)


def from_os(error: OSError, path: str) -> IpclockError:
    """Return the failure that *error* means for a user of the pool at *path*."""
    reason = reason_of(error)
    if error.errno in (errno.EACCES, errno.EPERM):
        return foreign(path, reason)
    return FewDescriptorsError(path, reason) if error.errno == errno.EMFILE else PoolCreateError(path, reason)
