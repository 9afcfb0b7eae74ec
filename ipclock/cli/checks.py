"""Whether a pool, and the machine under it, are in order: one small check each, for `ipclock doctor`.

Reads without the mutex, follows no link in a pool, and changes nothing in it. A check that cannot tell says so rather
than guess. What a section under way may have changed half is looked at twice.
One file, because it is one list of small checks.
"""

from __future__ import annotations

import math
import os
import re
import stat
import sys
import time
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from ipclock import __version__, users, utf8
from ipclock.cli import advice, callers
from ipclock.config.settings import usual_files
from ipclock.errors import (
    N_,
    ForeignLibraryError,
    InvalidValueError,
    IpclockError,
    NoPoolError,
    NoProcError,
    UnavailableError,
    foreign,
    from_os,
)
from ipclock.i18n import _
from ipclock.linux import machine, process, procfs, semaphore
from ipclock.pool import liveness, policy, semaphores, snapshot
from ipclock.pool.directory import GATE, HOLDING, NEW, QUEUED
from ipclock.pool.place import is_safe, path_of
from ipclock.pool.records import Store

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ipclock.config.settings import Settings, Source, Survey
    from ipclock.linux.semaphore import Semaphore

T = TypeVar("T")
OK, WARN, BAD = "ok", "warn", "bad"
LOW_BYTES, LOW_FILES = 1 << 20, 64
SECTION_S = 0.2  # a section lasts well under a millisecond
STUCK_S = 5.0
MOST_SHOWN = 5


class Check(NamedTuple):
    """What was looked at, how it is (OK, WARN, BAD), what was found, and what to do about it (perhaps "").

    `code` says for a program what was found, in any language and whatever the numbers: man/ipclock.1.in lists them.
    """

    name: str
    code: str
    level: str
    finding: str
    remedy: str = ""


def failed(name: str, error: IpclockError | OSError, path: str = "") -> Check:
    """Return the bad check that a failure makes, of the kernel's at *path*. Its kind is the code: "pool-permission"."""
    failure = error if isinstance(error, IpclockError) else from_os(error, path)
    words = re.findall("[A-Z][a-z]*", type(failure).__name__.removesuffix("Error"))
    return Check(name, "-".join(words).lower(), BAD, *advice.for_caller(failure))


def examine(settings: Settings, survey: Survey) -> list[Check]:
    """Make all the checks of the machine, of the pool that the settings name, and of the settings."""
    path = f"{settings.lock_dir}/ipclock.{settings.semaphore_name[1:]}"
    store = gate = None
    try:
        store = Store.open(settings.lock_dir, settings.semaphore_name[1:], create=False)
        directory, path = parts(store), store.path
    except NoPoolError:
        at = path_of(settings.semaphore_name[1:])
        directory = no_pool(at if os.path.lexists(at) else path)
    except (IpclockError, OSError) as error:
        directory = failed("pool", error, path)
    try:
        gate = semaphore.open_existing(settings.semaphore_name, store.trusts if store else lambda _: True)
        units = semaphore_file(settings.semaphore_name, store)
    except IpclockError as error:
        units = failed("semaphore", error)
    try:
        return [
            *of_machine(settings, store, path),
            directory,
            units,
            *(inside(store, gate, settings.semaphore_name) if store else []),
            *of_settings(survey),
        ]
    finally:
        if gate:
            gate.close()
        if store:
            store.close()


# The machine


def of_machine(settings: Settings, store: Store | None, path: str) -> Iterator[Check]:
    """Make the checks of what is under the pool whose directory is *path*."""
    yield versions()
    yield from place("shm", semaphore.FOLDER)
    lock_dir = os.path.dirname(store.path) if store else settings.lock_dir
    if lock_dir != semaphore.FOLDER:
        yield from place("lock-dir", lock_dir, f"{store.path}/{NEW}" if store else None)
    yield remove_ipc(path, settings.semaphore_name)
    yield proc()
    yield pid_namespace()
    yield user_namespace()
    yield hidepid()
    value = machine.sysctl("fs.protected_regular")
    text = _("fs.protected_regular is {value}: ok, works with any value")
    yield Check("protected-regular", "protected-regular", OK, text.format(value="?" if value is None else value))
    mask = os.umask(0o077)
    os.umask(mask)
    yield Check(
        "umask",
        "umask",
        OK,
        _("{umask}: ok, has no effect on the modes of the pool's files").format(umask=f"{mask:04o}"),
    )


def versions() -> Check:
    """Which versions are in use."""
    found = [f"ipclock {__version__}", f"Python {sys.version.split()[0]}", f"Linux {os.uname().release}"]
    found.append(f"posix_ipc {semaphore.VERSION}")
    try:
        found.append(semaphore.c_library())
        return Check("versions", "versions", OK, ", ".join([*found, f"psutil {process.psutil_version()}"]))
    except ForeignLibraryError as error:
        return failed("versions", error)
    except ImportError as error:
        remedy = _("Install psutil for this Python: orphans cannot be shown or killed without it.")
        return Check("versions", "psutil-missing", BAD, ", ".join([*found, str(error)]), remedy)


def place(name: str, path: str, inner: str | None = None) -> Iterator[Check]:
    """Whether files can be made there (of a pool that is there: in its directory *inner*), and whose it is."""
    where = path
    while name == "lock-dir" and not os.path.lexists(where):  # it is made, with its parents, when it is needed
        where = os.path.dirname(where)
    where = os.path.realpath(where)
    if not os.path.isdir(where):
        yield failed(name, UnavailableError(path, N_("no such directory")))
        return
    try:
        yield writable(name, where, inner or where)
        yield room(f"{name}-room", where)
    except OSError as error:
        yield failed(name, error, f"{inner or where}/")
    yield shared(f"{name}-shared", where)


def writable(name: str, path: str, inner: str) -> Check:
    """Whether the directory takes files, other users cannot remove them, and it is a tmpfs."""
    status = os.stat(path)
    if not is_safe(path, status):
        text = _("{path}: all users may remove each other's files")
        return Check(
            name,
            "removable-by-others",
            BAD,
            text.format(path=path),
            f"sudo chown root {path} && sudo chmod 1777 {path}",
        )
    machine.try_writing(inner)
    kind = mount.kind if (mount := machine.mount_of(path)) else "?"
    if kind not in ("tmpfs", "ramfs"):
        text = _("{path}: on {kind}: may be slow, and files survive a reboot")
        remedy = _("Use a directory on a tmpfs, such as LOCK_DIR=/run/ipclock.")
        return Check(name, "not-on-tmpfs", WARN, text.format(path=path, kind=kind), remedy)
    return Check(name, "writable", OK, _("{path}: on {kind}, writable").format(path=path, kind=kind))


def room(name: str, path: str) -> Check:
    """Whether there is room for records and semaphores."""
    left = machine.room(path)
    text = _("{path}: {kib} KiB and {files} files left")
    finding = text.format(path=path, kib=_amount(left.bytes // 1024), files=_amount(left.files))
    if left.bytes >= LOW_BYTES and left.files >= LOW_FILES:
        return Check(name, "room", OK, finding)
    remedy = _("Remove unneeded files, or enlarge it: mount -o remount,size=SIZE,nr_inodes=COUNT")
    return Check(name, "room-low", BAD if left.bytes < left.block or left.files < 1 else WARN, finding, remedy)


def _amount(number: float) -> str:
    return _("unlimited") if number == math.inf else f"{number:.0f}"


def shared(name: str, path: str) -> Check:
    """Whether other builds on the machine see the same directory: builds that do not have slots of their own."""
    remedy = _(
        "Let builds use the directory of the machine: no private one in the systemd unit, and 'docker run --ipc=host'."
    )
    if process.is_contained():
        text = _("{path}: in a container; cannot tell whether it is shared with the whole machine")
        return Check(name, "shared-unknown-container", WARN, text.format(path=path), remedy)
    same = machine.is_shared_with_init(path)
    if same is None:
        return Check(
            name,
            "shared-unknown",
            OK,
            _("{path}: cannot tell whether it is shared with the whole machine").format(path=path),
        )
    if same:
        return Check(name, "shared", OK, _("{path}: shared with the whole machine").format(path=path))
    return Check(
        name,
        "private",
        WARN,
        _("{path}: private: builds elsewhere on this machine are not counted").format(path=path),
        remedy,
    )


def remove_ipc(path: str, name: str) -> Check:
    """Whether a logout deletes the pool's files: RemoveIPC= of logind.conf(5)."""
    if not users.shows_all():
        text = _("in a user namespace: cannot tell whether logind deletes the pool at a logout")
        return Check("remove-ipc", "logout-unknown", OK, text)
    uid = os.geteuid() or _link_owner(path) or 0  # what root makes in a user's pool is that user's
    user = process.user_name(uid)
    if not machine.removes_ipc_of(uid):
        return Check(
            "remove-ipc", "logout-safe", OK, _("logind deletes no files of {user} at a logout").format(user=user)
        )
    in_shm = path.startswith(semaphore.FOLDER + "/")
    if not in_shm and _link_owner(semaphore.path_of(name)) == 0:
        return Check("remove-ipc", "logout-safe", OK, _("logind deletes no files of this pool at a logout"))
    text = _("logind deletes the files of {user} in {directory} at the last logout (RemoveIPC=yes)")
    remedy = _("Run 'loginctl enable-linger {user}', or set LOCK_DIR=/run/ipclock and run '{sudo} init' first.")
    return Check(
        "remove-ipc",
        "logout-deletes",
        WARN,
        text.format(user=user, directory=semaphore.FOLDER),
        remedy.format(user=user, sudo=advice.as_root()),
    )


def _link_owner(path: str) -> int | None:
    try:
        return os.lstat(path).st_uid
    except OSError:
        return None


def proc() -> Check:
    """Whether processes can be seen by their PIDs."""
    try:
        procfs.require()
    except NoProcError as error:
        return failed("proc", error)
    if procfs.shows_us():
        return Check("proc", "proc-ours", OK, _("shows this PID namespace"))
    text = _("shows another PID namespace, with other PIDs: looking up processes takes longer")
    return Check(
        "proc",
        "proc-of-another-namespace",
        WARN,
        text,
        _("Mount the proc of this PID namespace, as 'unshare --mount-proc' does."),
    )


def pid_namespace() -> Check:
    """Whether PIDs mean the same to all who share the pool."""
    if not process.is_contained():
        return Check("pid-namespace", "pids-of-machine", OK, _("PIDs are those of the whole machine"))
    text = _("PIDs are those of a container: only its lock shows that a process outside is alive")
    return Check(
        "pid-namespace",
        "pids-of-container",
        WARN,
        text,
        _("For 'acquire --pid' across containers, use 'docker run --pid=host'."),
    )


def user_namespace() -> Check:
    """Whether uids mean the same to all who share the pool."""
    if users.shows_all():
        return Check("user-namespace", "users-of-machine", OK, _("users are those of the whole machine"))
    text = _("user namespace: files of other users are used only through membership in their group")
    return Check("user-namespace", "users-of-namespace", OK, text)


def hidepid() -> Check:
    """Whether other users' processes can be seen."""
    if not machine.hides_processes():
        return Check("hidepid", "processes-visible", OK, _("all processes are visible"))
    text = _("processes of other users are hidden (hidepid): their builds show as unknown")
    return Check(
        "hidepid", "processes-hidden", WARN, text, _("'{sudo} status' shows them.").format(sudo=advice.as_root())
    )


# The pool


def no_pool(path: str) -> Check:
    """How it is about a pool that cannot be opened because something of it is missing."""
    if not os.path.lexists(path):
        return Check("pool", "pool-not-made", OK, _("{path}: not created yet").format(path=path))
    return Check(
        "pool",
        "pool-incomplete",
        WARN,
        _("{path}: incomplete").format(path=path),
        _("'ipclock init' creates them."),
    )


def parts(store: Store) -> Check:
    """Whether all that belongs into the pool's directory has the pool's owners and modes."""
    owner, mode = process.user_name(_link_owner(store.path) or 0), f"{store.mode:04o}"
    if store.group is not None:
        owner += f":{store.group}"  # as chown(1) takes it
    if not (wrong := store.misfits()):
        text = _("{path}: owner {user}, mode {mode}")
        return Check("pool", "pool-sound", OK, text.format(path=store.path, user=owner, mode=mode))
    text = _("{path}: owner or mode differs from the pool's: {names}")
    remedy = _("Set the mode of files to {mode}, that of directories to {folder_mode}, and the owner to {user}.")
    values = {"user": owner, "mode": mode, "folder_mode": f"{store.folder_mode:04o}"}
    finding = text.format(path=store.path, names=", ".join(map(utf8.printable, wrong)))
    return Check("pool", "pool-misfits", WARN, finding, remedy.format(**values))


def semaphore_file(name: str, store: Store | None) -> Check:
    """Whether the semaphore, which could be opened or is not there, has the pool's mode and owner."""
    path = semaphore.path_of(name)
    try:
        status = os.lstat(path)
    except FileNotFoundError:
        if store is None:
            return Check("semaphore", "semaphore-not-made", OK, _("{path}: not created yet").format(path=path))
        return Check(
            "semaphore",
            "semaphore-missing",
            WARN,
            _("{path}: missing").format(path=path),
            _("'ipclock init' creates it."),
        )
    if store is None and status.st_uid not in (0, os.geteuid()):
        return failed("semaphore", foreign(path))
    mode = stat.S_IMODE(status.st_mode)
    text = _("{path}: owner {user}, mode {mode}")
    finding = text.format(path=path, user=process.user_name(status.st_uid), mode=f"{mode:04o}")
    if store and (mode != store.mode or store.group not in (None, status.st_gid)):
        group = "" if store.group is None else f"chgrp {store.group} {path} && "
        return Check("semaphore", "semaphore-misfit", WARN, finding, f"{group}chmod {store.mode:04o} {path}")
    return Check("semaphore", "semaphore-sound", OK, finding)


def inside(store: Store, gate: Semaphore | None, name: str) -> Iterator[Check]:
    """Make the checks of what the pool's records say."""
    try:
        yield mutex(store)
        if gate:
            yield value(store, gate)
        yield turns(store, name)
        yield locks(store)
        yield records(store)
        yield orphans(store)
    except (IpclockError, OSError) as error:
        yield failed("records", error, store.path)
    except ImportError:
        return  # no psutil: `versions` tells


def _settled(look: Callable[[], T], suspicious: Callable[[T], bool]) -> T:
    """Return what *look* finds; of something suspicious only what it finds again after a while."""
    found = look()
    deadline = time.monotonic() + SECTION_S
    while suspicious(found) and time.monotonic() < deadline:
        time.sleep(SECTION_S / 10)  # a section ends without a sign to a reader
        found = look()
    return found


def mutex(store: Store) -> Check:
    """Whether a process keeps the mutex and does not go on."""

    def look() -> tuple[int | None, bool, bool]:
        pid = store.mutex_owner()
        return pid, pid is not None and process.stopped(pid), pid is not None and store.idle_s() > STUCK_S

    pid, stopped, stuck = _settled(look, lambda found: found[1] or found[2])
    if pid is None:
        return Check("mutex", "mutex-free", OK, _("not locked"))
    if not (stopped or stuck):
        return Check("mutex", "mutex-held", OK, _("locked by process {pid}").format(pid=pid))
    text = (
        _("locked by process {pid}, which is stopped")
        if stopped
        else _("locked by process {pid}, which does not respond")
    )
    remedy = _("Continue the process (kill -CONT {pid}) or kill it (kill -KILL {pid}).")
    return Check(
        "mutex", "mutex-stopped" if stopped else "mutex-stuck", BAD, text.format(pid=pid), remedy.format(pid=pid)
    )


def value(store: Store, gate: Semaphore) -> Check:
    """Whether the semaphore's value is what the records say, or a waiter is there that will level it."""

    def look() -> tuple[int, int, int, int, bool]:
        entries = store.entries(HOLDING)
        held = sum(liveness.verdict(store, HOLDING, entry) != policy.DEAD for entry in entries)
        unlisted = 0 if store.settled else store.unlisted()
        allowed = max(0, policy.limit(store.capacity or 1, store.drained) - unlisted)
        waiting = bool(store.entries(GATE) or store.entries(QUEUED))
        return held, allowed, gate.value, policy.units_to_post(held, allowed, gate.value), waiting

    held, allowed, units, lacking, waiting = _settled(look, lambda found: found[3] != 0 and not found[4])
    text = _("value {units}, {held} of {allowed} slots held")
    finding = text.format(units=units, held=held, allowed=allowed)
    if not lacking or waiting:
        return Check("value", "value-sound", OK, finding)
    text = _("{finding}: should be {due}; no build has to wait because of it")
    remedy = _("The next build or 'ipclock init' corrects it.")
    return Check("value", "value-off", WARN, text.format(finding=finding, due=units + lacking), remedy)


def turns(store: Store, name: str) -> Check:
    """Whether turns are left to which no record leads: those of another user, which we may not remove."""

    def look() -> set[int]:
        found = semaphores.Turns(name, store).tickets()
        return found - {entry.ticket for state in (QUEUED, GATE) for entry in store.entries(state)}

    left = []
    for ticket in sorted(_settled(look, bool)):
        path = semaphore.path_of(f"{name}.{ticket}")
        with suppress(OSError):  # gone meanwhile
            left.append(f"{path} ({process.user_name(os.lstat(path).st_uid)})")
    if not left:
        return Check("turns", "turns-sound", OK, _("no leftover wake-up semaphores"))
    shown = ", ".join(left[:MOST_SHOWN] + ["..."] * (len(left) > MOST_SHOWN))
    remedy = _("They do not block any build. '{sudo} reset' removes them.")
    return Check(
        "turns",
        "turns-left",
        WARN,
        _("leftover wake-up semaphores: {paths}").format(paths=shown),
        remedy.format(sudo=advice.as_root()),
    )


def locks(store: Store) -> Check:
    """Whether slots are held that no record lists: by builds of an earlier directory, or by a pretender."""
    units = 0 if store.settled else store.unlisted()
    if not units:
        return Check("locks", "locks-listed", OK, _("all held slots have a record"))
    text = _("slots held by locks without a record here: {units} (PIDs: {pids})")
    pids = ", ".join(map(str, liveness.lockers(store))) or "?"
    remedy = _("They stay in use until these processes end, or until '{sudo} reset' ignores them.")
    finding = text.format(units=units, pids=pids)
    return Check("locks", "locks-unlisted", WARN, finding, remedy.format(sudo=advice.as_root()))


def records(store: Store) -> Check:
    """Whether all holders' records can be understood."""
    found = [(entry, store.read(HOLDING, entry)) for entry in store.entries(HOLDING)]
    damaged = [str(entry.ticket) for entry, record in found if record and not record.kind]
    if not damaged:
        return Check("records", "records-sound", OK, _("no damaged records"))
    text = _("damaged records, counted as builds: ticket {tickets}").format(tickets=", ".join(damaged))
    return Check("records", "records-damaged", WARN, text, _("'ipclock reset TICKET' releases such a slot by force."))


def orphans(store: Store) -> Check:
    """Whether there are builds that go on although their ipclock was killed."""
    found = [holder for holder in snapshot.holders(store) if holder.state == "orphaned"]
    if not found:
        return Check("orphans", "orphans-none", OK, _("no orphaned builds"))
    one = _("{label} (ticket {ticket}, PIDs {pids})")
    lines = []
    for holder in found:
        pids = " ".join(str(row.pid) for row in holder.processes) or "?"
        lines.append(one.format(label=holder.label, ticket=holder.ticket, pids=pids))
    tickets = " | ".join(str(holder.ticket) for holder in found)
    remedy = _("To kill one: ipclock reset {tickets} --kill").format(tickets=tickets)
    return Check("orphans", "orphans", WARN, _("still running without their ipclock: ") + ", ".join(lines), remedy)


# The settings


def settings_files(survey: Survey) -> Iterator[Check]:
    """Where settings files were looked for, and which ones were read."""
    if survey.files:
        yield Check("settings-file", "settings-file-read", OK, _("{path}: read").format(path=", ".join(survey.files)))
    elif not survey.problems:
        yield Check(
            "settings-file", "settings-file-none", OK, _("none found: {paths}").format(paths=", ".join(survey.places))
        )
    for problem in survey.problems:
        yield failed("settings-file", problem)


def of_settings(survey: Survey) -> list[Check]:
    """Make the checks of the settings alone."""
    return [*settings_files(survey), *map(setting, survey.sources), *others(survey)]


def others(survey: Survey) -> Iterator[Check]:
    """Whether other usual callers come to the same pool, and to the same number of slots."""
    found = callers.differences(survey)
    if not found:
        yield Check("callers", "callers-agree", OK, _("other callers use the same pool"))
    for here, there, who in found:
        names = {"key": here.setting.key, "here": _shown(here), "there": _shown(there), "callers": ", ".join(who)}
        places = {"at": callers.place_of(here), "where": callers.place_of(there)}
        text = _("{key}: {here} here ({at}), {there} ({where}) for {callers}")
        common = usual_files(None)[0]
        maker = there if here.file == common or not here.where else here
        remedy = _("Move {place} to {file}, which all of them read.")
        finding = text.format(**names, **places)
        yield Check(
            "callers", "callers-differ", WARN, finding, remedy.format(place=callers.place_of(maker), file=common)
        )


def _shown(source: Source) -> str:
    return _("not set") if source.text is None else source.text.partition("?")[0]


def setting(source: Source) -> Check:
    """What a setting is, and where that stands."""
    key = source.setting.key
    try:
        source.value()
    except InvalidValueError as error:
        return failed(key, error)
    text = _("not set") if source.text is None else source.text
    where = source.where or _("default")
    return Check(key, "setting", OK, f"{text} ({where})")
