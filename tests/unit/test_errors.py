"""Every kind of failure as a person and a script meet it: its lines, in each language, and its exit status."""

from __future__ import annotations

import copy
import errno
import os
import pickle
import shutil
import string
from typing import TYPE_CHECKING

import pytest

import ipclock
from ipclock import errors, i18n
from ipclock.cli import checks, command_line
from ipclock.config.settings import SETTINGS as KNOWN
from ipclock.config.settings import Settings
from ipclock.errors import IpclockError
from ipclock.pool.records import Store

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


NOTHING = Settings({setting.key.lower(): None for setting in KNOWN})


SETTINGS = NOTHING.replace(
    lock_dir="/nowhere", semaphore_name="/x", status_hint="see who builds", reset_hint="ask the admin"
)


NOT_THERE = FileNotFoundError(errno.ENOENT, "No such file or directory")


NOT_RUNNABLE = PermissionError(errno.EACCES, "Permission denied")


# one row a kind of failure: an instance, its exit status, what its lines must tell
FAILURES = [
    (IpclockError(), 70, ["internal error"]),
    (errors.UsageError("no command", "ipclock wrap"), 2, ["no command", "'ipclock wrap --help'"]),
    (errors.MistypedError("no such command: top", "ipclock status"), 2, ["no such command: top", "'ipclock status'"]),
    (errors.IncompleteError("missing label", "ipclock wrap a -- b"), 2, ["missing label", ": ipclock wrap a -- b"]),
    (errors.InvalidValueError("--wait", "x", "seconds", usage=True), 2, ["--wait", "'x'", "seconds"]),
    (errors.InvalidValueError("$BUILD_TIMEOUT", "\x1b", "seconds"), 78, ["$BUILD_TIMEOUT", "\\x1b", "seconds"]),
    (
        errors.SettingsError("/etc/x.sh", "not a KEY=VALUE line", 3),
        78,
        ["/etc/x.sh:3", "not a KEY=VALUE line", "KEY=VALUE"],
    ),
    (errors.SettingsError("/etc/x.sh", "not UTF-8 text"), 78, ["/etc/x.sh:", "not UTF-8 text"]),
    (errors.UnsafeHook("/etc/x.sh", "/etc/link"), 78, ["/etc/x.sh", "/etc/link", "root"]),
    (errors.SlotUnavailable(), 75, []),
    (errors.SlotTimeout(0.5), 75, ["within 0.5 s", "see who builds", "ask the admin"]),
    (errors.SlotBusy(1, 2, 3), 75, ["1 of 2", "3 waiting"]),
    (errors.TooManySlotsError(3, 2), 78, ["3 slots", "pool has 2", "--slots"]),
    (errors.PriorityNotAllowedError(-5, 0), 77, ["-5", "lowest in this pool is 0", "ipclock init --priority-min -5'"]),
    (errors.SupersededError("staging", 17, 41), 76, ["staging", "ticket 17", "PID: 41"]),
    (errors.MutexStuckError("/dev/shm/ipclock.x", 41), 75, ["/dev/shm/ipclock.x", "process 41", "kill -CONT 41"]),
    (errors.UnavailableError("/dev/shm", "no such directory"), 69, ["/dev/shm", "no such directory", "mount -t tmpfs"]),
    (errors.ForeignLibraryError(), 69, ["C library", "not glibc", "Debian", "musl"]),
    (errors.NoProcError("/proc"), 69, ["/proc", "not mounted", "mount -t proc"]),
    (errors.FewDescriptorsError("/dev/shm/x"), 73, ["/dev/shm/x", "Too many open files", "ulimit -n"]),
    (errors.PoolCreateError("/dev/shm/x", "No space left"), 73, ["/dev/shm/x", "No space left", "'df /dev/shm'"]),
    (errors.PoolPermissionError("/dev/shm/x", "not a directory"), 77, ["/dev/shm/x", "not a directory"]),
    (errors.NoMemberError("/dev/shm/x", 54400), 77, ["/dev/shm/x", "not a member of the group"]),
    (errors.ForeignPoolError("/dev/shm/x", 1000), 77, ["/dev/shm/x", "uid 1000"]),
    (errors.PoolElsewhereError("/tmp/a", "/run/b", "is hers"), 78, ["/tmp/a", "/run/b", "is hers"]),
    (errors.PoolInUse("/run/b"), 75, ["/run/b", "'ipclock drain'"]),
    (errors.SemaphoreError("/dev/shm/sem.x", "wrong size"), 69, ["/dev/shm/sem.x", "wrong size", "'ipclock reset'"]),
    (errors.NoProcError("/proc"), 69, ["/proc", "mount -t proc proc /proc"]),
    (errors.NoPoolError("/dev/shm/ipclock.x"), 69, ["/dev/shm/ipclock.x", "'ipclock init'"]),
    (errors.NoTicket(17), 2, ["17", "'ipclock status'"]),
    (errors.StatusUnknown(17, "its status was not kept"), 80, ["ticket 17", "its status was not kept"]),
    (errors.NoLog("staging", "/var/log/x"), 2, ["staging", "/var/log/x", "'ipclock wrap --detach'"]),
    (errors.LogUnreadable("/x.log", 1000, "Permission denied"), 77, ["/x.log", "uid 1000", "Permission denied"]),
    (errors.TicketWaits(17), 2, ["ticket 17", "waiting", "'ipclock cancel 17'"]),
    (errors.NotYourBuild(17, "staging", 1000), 77, ["ticket 17", "staging", "uid 1000", "root"]),
    (errors.NotYours(17, "staging", "41"), 77, ["ticket 17", "staging (PID: 41)", "by itself"]),
    (errors.Unprovable(17, "staging", "?"), 77, ["ticket 17", "staging (PID: ?)", "'ipclock reset 17'"]),
    (
        errors.TicketPassesBy(41, "sh -c x (PID: 41)", 40, "make (PID: 40)"),
        2,
        ["sh -c x (PID: 41)", "make (PID: 40)", "--pid 40 or --pid 41", "--pid $PPID"],
    ),
    (errors.StillRunning(17, [40, 41]), 77, ["17", "40, 41", "ipclock reset 17"]),
    (errors.LocksLeft(2, [40, 41]), 77, ["2", "40, 41", "not killed", "ipclock reset"]),
    (errors.HistoryFailed("/var/h.db", "is locked"), 73, ["/var/h.db", "is locked", "HISTORY=off"]),
    (errors.EngineFailed("zookeeper://a:2181/b", "no answer"), 69, ["zookeeper://a:2181/b", "no answer", "reachable"]),
    (
        errors.UnsupportedError("zookeeper://a:2181/b", "--slots"),
        69,
        ["zookeeper://a:2181/b", "--slots", "without ENGINE"],
    ),
    (errors.LogFailed("/var/log/ipclock", "File exists"), 73, ["/var/log/ipclock", "File exists", "LOG_DIR"]),
    (errors.SlotLost("staging"), 79, ["staging", "--on-lost warn", "IPCLOCK_TOKEN"]),
    (errors.NoLibrary("prometheus_client", "metrics"), 69, ["prometheus_client", "pip install 'ipclock[metrics]'"]),
    (errors.CommandFailed("mkae", NOT_THERE), 127, ["mkae", "command not found"]),
    (errors.CommandFailed("./x", NOT_RUNNABLE), 126, ["./x", "Permission denied"]),
    (errors.Interrupted(15), 143, ["15"]),
    (errors.CancelledError("staging", "mira"), 143, ["staging", "cancelled by mira"]),
    (errors.CancelledError("staging", "", 41), 143, ["staging", "process 41 has ended"]),
]


ids = [f"{type(error).__name__}-{status}" for error, status, _ in FAILURES]


@pytest.fixture(params=i18n.LANGUAGES, autouse=True)
def language(request: pytest.FixtureRequest) -> Iterator[str]:
    """Each language in turn."""
    chosen: str = request.param
    i18n.use(chosen)
    yield chosen
    i18n.use("en")


def kinds(base: type[IpclockError]) -> set[type[IpclockError]]:
    return {base}.union(*map(kinds, base.__subclasses__()))


def test_every_kind_of_failure_is_covered_here() -> None:
    ours = {kind for kind in kinds(IpclockError) if kind.__module__.startswith("ipclock.")}

    assert {type(error) for error, _, _ in FAILURES} == ours


@pytest.mark.parametrize(("error", "status", "told"), FAILURES, ids=ids)
@pytest.mark.parametrize("settings", [SETTINGS, None], ids=["settings", "no settings"])
def test_a_failure_is_told_in_whole_lines_and_has_its_status(
    error: IpclockError, status: int, told: list[str], settings: Settings | None, language: str
) -> None:
    first, *others = lines = command_line.error_text(error, settings).split("\n")

    untold = [piece for piece in told if not any(piece in line for line in lines)]
    assert (error.status, untold if settings and language == "en" else []) == (status, [])
    assert (first.startswith(("ipclock: ", "❌ ")), all(line.startswith("   ") for line in others)) == (True, True)
    assert [line for line in lines if not line.isprintable() or not line.strip() or "{" in line] == []


@pytest.mark.parametrize(("error", "status", "told"), FAILURES, ids=ids)
def test_a_program_reads_what_a_person_reads_in_english(error: IpclockError, status: int, told: list[str]) -> None:
    i18n.use("en")

    assert str(error) in command_line.error_text(error, None)


@pytest.mark.parametrize("again", [lambda error: pickle.loads(pickle.dumps(error)), copy.copy, copy.deepcopy])
@pytest.mark.parametrize("error", [error for error, _, _ in FAILURES], ids=ids)
def test_a_failure_is_the_same_after_pickle_and_copy(
    error: IpclockError, again: Callable[[IpclockError], IpclockError]
) -> None:
    def facts(one: IpclockError) -> list[object]:
        system = [getattr(one, name, None) for name in ("errno", "strerror", "filename")]
        return [type(one), str(one), command_line.error_text(one, None), one.status, {**vars(one)}, *system]

    # of its arguments: an OSError inside equals no other one
    assert (facts(again(error)), repr(again(error).args)) == (facts(error), repr(error.args))


@pytest.mark.parametrize(
    ("error", "kind", "number"),
    [
        (errors.SlotTimeout(0.5), TimeoutError, errno.ETIMEDOUT),
        (errors.SlotBusy(1, 2, 3), BlockingIOError, errno.EWOULDBLOCK),
        (errors.PoolPermissionError("/dev/shm/x", "not a directory"), PermissionError, errno.EACCES),
        (errors.ForeignPoolError("/dev/shm/x", 1000), PermissionError, errno.EACCES),
        (errors.InvalidValueError("--wait", "x", "seconds"), ValueError, None),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_python_has_a_kind_for_is_of_that_kind_too(
    error: IpclockError, kind: type[Exception], number: int | None
) -> None:
    with pytest.raises(kind) as caught:
        raise error

    assert (getattr(caught.value, "errno", None), getattr(caught.value, "filename", None)) == (
        number,
        getattr(error, "path", None),
    )


@pytest.mark.parametrize("error", [error for error, _, _ in FAILURES if isinstance(error, OSError)], ids=repr)
def test_a_failure_of_ours_that_is_an_oserror_is_not_taken_for_the_kernels(error: IpclockError) -> None:
    name = f"ipclock-test-{os.getpid()}"
    store = Store.open("/dev/shm", name, create=True)
    try:
        with pytest.raises(type(error)) as caught, store.mutex(lambda seconds, pid: None):
            raise error
    finally:
        store.close()
        shutil.rmtree(f"/dev/shm/ipclock.{name}")

    assert (caught.value, checks.failed("x", error).finding) == (error, i18n.told(error)[0])


@pytest.mark.parametrize("kind", sorted(kinds(IpclockError), key=repr))
def test_texts_name_only_attributes(kind: type[IpclockError]) -> None:
    known = set().union(*(vars(error) for error, _, _ in FAILURES if type(error) is kind))

    named = {name for text in (kind.what, kind.remedy) for _, name, _, _ in string.Formatter().parse(text) if name}

    assert named <= known


def test_a_waiter_that_leaves_is_told_how_to_look_and_how_to_unlock(language: str) -> None:
    lines = command_line.error_text(errors.SlotTimeout(600), SETTINGS).splitlines()

    assert (len(lines), lines[0][0], "see who builds" in lines[1], "ask the admin" in lines[2]) == (3, "❌", True, True)


@pytest.mark.parametrize(
    ("number", "kind", "status"),
    [
        (errno.EACCES, errors.PoolPermissionError, 77),
        (errno.EPERM, errors.PoolPermissionError, 77),
        (errno.ENOSPC, errors.PoolCreateError, 73),
        (errno.EROFS, errors.PoolCreateError, 73),
        (errno.EMFILE, errors.FewDescriptorsError, 73),
    ],
)
def test_what_the_kernel_refuses_becomes_a_failure_of_ours(number: int, kind: type[IpclockError], status: int) -> None:
    found = errors.from_os(OSError(number, "the reason"), "/dev/shm/x")

    assert (type(found), found.status, "the reason" in str(found)) == (kind, status, True)


def test_a_long_value_is_cut_in_the_message() -> None:
    error = errors.InvalidValueError("--name", "x" * 10000, "a name")

    assert (len(error.value) < 100, error.value.endswith("...")) == (True, True)


def test_all_failures_are_caught_by_one_class_and_handed_out_by_the_package() -> None:
    handed = [getattr(ipclock, name) for name in ipclock.__all__ if name not in ("Slot", "slot")]

    assert [kind for kind in handed if not issubclass(kind, IpclockError)] == []
