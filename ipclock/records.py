"""The pool's folder: records in state folders, their beacons, the numbers beside them, and the mutex.

Guarantees: a record's state is the folder that it lies in, and changes by one rename(2);
a record is visible in `queued/` only when it is finished and its beacon is held (INV-1); no link is followed, and
nothing is created over an existing name. Does not guarantee any order of steps: that is `pool`'s.
A `Store` must not be shared between threads, nor used after a fork: a second taker of its mutex would get it.
"""

from __future__ import annotations

import errno
import os
import stat
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

from ipclock.errors import N_, BadValue, Foreign, NoPool, NotPermitted, from_os
from ipclock.locks import is_locked, is_writable, out_of_the_way, try_lock, unlock

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

NEW, QUEUED, GATE, HOLDING = STATES = ("new", "queued", "gate", "holding")
NUMBERS = ("mutex", "ticket", "capacity", "epoch")

MAX_RECORD_BYTES = 4096  # one page: a finished record can be appended to even when the file system is full
DRAFT_GRACE_S = 60.0
# the two beacons of a record, a byte each: who waits and who holds need not be the same process (`acquire --fd`), and
# the rename into holding/ is what makes the other one count
WAITER_BYTE, HOLDER_BYTE = 0, 1


class Entry(NamedTuple):
    """A record by its name: the ticket, and the slot while it lies in `holding/` (else 0)."""

    ticket: int
    slot: int = 0

    @property
    def file(self) -> str:
        """The record's file name: `17`, or `17.2` for ticket 17 in slot 2."""
        return f"{self.ticket}.{self.slot}" if self.slot else str(self.ticket)


class Record(NamedTuple):
    """What a record says, as text by key, and whose file it is. `kind` is "" where the content is damaged."""

    fields: dict[str, str]
    uid: int
    device: int
    inode: int

    @property
    def kind(self) -> str:
        """What proves that the holder lives: "fd" (the beacon), "pid" (a process), "" unknown."""
        kind = self.fields.get("kind", "")
        return kind if kind in ("fd", "pid") else ""


def _entry(name: str) -> Entry | None:
    ticket, dot, slot = name.partition(".")
    if not (name.isascii() and ticket.isdigit() and len(name) < 40 and (slot.isdigit() if dot else not slot)):
        return None
    return Entry(int(ticket), int(slot or 0))


class OwnRecord:
    """The record of this process: its open file, whose locks are the beacons, and all that was written into it."""

    def __init__(self, fd: int, draft: str) -> None:
        self.fd = fd
        self.draft = draft
        self.fields: dict[str, str] = {}
        status = os.fstat(fd)
        self.identity = (status.st_dev, status.st_ino)

    def append(self, **fields: object) -> None:
        """Add fields, later ones win. One write: a reader sees a whole line or, until its newline, none."""
        self.fields.update({key: str(value) for key, value in fields.items()})
        os.write(self.fd, _lines(fields))

    def unlock(self) -> None:
        """Put the beacon out, in every process that inherited it."""
        unlock(self.fd)

    def close(self) -> None:
        """Close the descriptor; without `unlock` the beacon stays lit while a child has it."""
        os.close(self.fd)


def _lines(fields: dict[str, object]) -> bytes:
    return "".join(f"{key}={value}\n" for key, value in fields.items()).encode()


class Store:
    """An opened pool folder. `path` is for messages; everything goes through directory descriptors."""

    def __init__(self, path: str, root: int) -> None:
        self.path = path
        self._root = root
        self._fds: dict[str, int] = {}
        status = os.fstat(root)
        self.identity = (status.st_dev, status.st_ino)
        self._owner = (status.st_uid, status.st_gid)
        self.mode = 0o600 | (0o060 if status.st_mode & stat.S_IWGRP else 0)

    @classmethod
    def open(cls, lock_dir: str, pool: str, *, create: bool) -> Store:
        """Open the folder of *pool* (named without slash) in *lock_dir*, making both if *create*.

        Raises NoPool (69), NotPermitted (77) for a foreign or planted folder, CannotCreate (73).
        """
        path = f"{lock_dir}/ipclock.{pool}"
        try:
            store = cls(path, _open_folder(lock_dir, os.path.basename(path), create))
            try:
                store._accept()
                store._fill(create)
            except BaseException:
                store.close()
                raise
        except FileNotFoundError:
            raise NoPool(path) from None
        except OSError as error:
            raise from_os(error, path) from None
        return store

    def close(self) -> None:
        """Close every descriptor of the folder."""
        for fd in (*self._fds.values(), self._root):
            os.close(fd)
        self._fds.clear()

    def trusts(self, uid: int) -> bool:
        """Return whether files of *uid* belong in this pool: ours, root's, and the pool owner's."""
        return uid in (0, os.geteuid(), self._owner[0])

    def _accept(self) -> None:
        status = os.fstat(self._root)
        ours = os.geteuid() in (0, status.st_uid) or status.st_uid == 0
        shared = status.st_mode & stat.S_IWGRP and status.st_gid in (os.getegid(), *os.getgroups())
        if status.st_mode & stat.S_IWOTH:
            raise NotPermitted(self.path, N_("everybody may write to it"))
        if not (ours or shared):
            raise Foreign(self.path, status.st_uid)

    def _fill(self, create: bool) -> None:
        """Open all that belongs into the folder; make what lacks, so that a creator may die half way."""
        for state in STATES:
            if create:
                _make_folder(self._root, state, self.adopt, stat.S_IMODE(os.fstat(self._root).st_mode))
            self._fds[state] = os.open(state, _FOLDER_FLAGS, dir_fd=self._root)
        for number in NUMBERS:
            self._fds[number] = self._open_number(number, create)

    def _open_number(self, name: str, create: bool) -> int:
        while True:
            try:
                fd = os.open(name, _FILE_FLAGS, dir_fd=self._root)
                break
            except FileNotFoundError:
                if not create:
                    raise
            # never O_CREAT on an existing name: fs.protected_regular refuses that to root too
            try:
                fd = os.open(name, _FILE_FLAGS | os.O_CREAT | os.O_EXCL, 0o600, dir_fd=self._root)
            except FileExistsError:
                continue
            self.adopt(fd)
            os.fchmod(fd, self.mode)
            break
        status = os.fstat(fd)
        # a second link would let the pool's owner make root write into a file elsewhere
        if not stat.S_ISREG(status.st_mode) or status.st_nlink > 1:
            os.close(fd)
            raise NotPermitted(f"{self.path}/{name}", N_("not a regular file of its own"))
        return fd

    def adopt(self, fd: int) -> None:
        """Give a file that root made to the pool's owner and group, who must be able to open it."""
        if os.geteuid() == 0 and self._owner != (0, 0):
            os.fchown(fd, *self._owner)

    def vanished(self) -> bool:
        """Return whether the pool's path names another folder now, or none."""
        try:
            status = os.stat(self.path, follow_symlinks=False)
        except OSError:
            return True
        return (status.st_dev, status.st_ino) != self.identity

    @contextmanager
    def mutex(self, busy: Callable[[float, int], None]) -> Iterator[None]:
        """Hold the pool's mutex. While somebody else has it, `busy(seconds so far, their PID)` is called often.

        It may raise to stop waiting. The kernel frees the mutex of a dead owner; a stopped one keeps it.
        An OSError inside leaves as NotPermitted (77) or CannotCreate (73).
        """
        fd = self._fds["mutex"]
        self._lock_mutex(fd, busy)
        try:
            os.pwrite(fd, b"%-20d\n" % os.getpid(), 0)
            yield
        except OSError as error:
            raise from_os(error, self.path) from None
        finally:
            unlock(fd)

    def _lock_mutex(self, fd: int, busy: Callable[[float, int], None]) -> None:
        begun = time.monotonic()
        pause = 0.00005
        while True:
            if try_lock(fd):
                return
            # F_OFD_SETLKW knows no deadline and would sit out a stopped owner for ever
            busy(time.monotonic() - begun, self._number("mutex") or 0)
            time.sleep(pause)
            pause = min(pause * 2, 0.005 if time.monotonic() - begun < 1 else 0.05)

    def idle_s(self) -> float:
        """Return the seconds since somebody last took the mutex.

        A step of the wall clock makes it wrong until the next taking.
        """
        return abs(time.time() - os.fstat(self._fds["mutex"]).st_mtime)

    def _number(self, name: str) -> int | None:
        text = os.pread(self._fds[name], 32, 0).strip()
        return int(text) if text.isdigit() else None

    def _write_number(self, name: str, value: int) -> None:
        # one pwrite of fixed width: a reader, or the next one after a SIGKILL, sees the old or the new number
        os.pwrite(self._fds[name], b"%020d\n" % value, 0)

    @property
    def capacity(self) -> int | None:
        """The pool's capacity; None in a pool that has none yet."""
        return self._number("capacity")

    @capacity.setter
    def capacity(self, value: int) -> None:
        self._write_number("capacity", value)

    @property
    def epoch(self) -> int:
        """How many resets the pool has seen."""
        return self._number("epoch") or 0

    @epoch.setter
    def epoch(self, value: int) -> None:
        self._write_number("epoch", value)

    @property
    def drained(self) -> bool:
        """Whether nobody is to be admitted: the file `drained` exists."""
        return os.access("drained", os.F_OK, dir_fd=self._root, follow_symlinks=False)

    def draw_ticket(self) -> int:
        """Return the next ticket. Without a readable counter it goes on behind every ticket in use."""
        last = self._number("ticket")
        if last is None:
            last = max((entry.ticket for state in STATES[1:] for entry in self.entries(state)), default=0)
        self._write_number("ticket", last + 1)
        return last + 1

    def skip_tickets(self, ticket: int) -> None:
        """Make sure that no ticket up to *ticket* is drawn any more."""
        if (self._number("ticket") or 0) < ticket:
            self._write_number("ticket", ticket)

    def entries(self, state: str) -> list[Entry]:
        """Return the records in a state folder in order of their tickets; other names there are nobody's."""
        found = map(_entry, os.listdir(self._fds[state]))
        return sorted(entry for entry in found if entry and bool(entry.slot) == (state == HOLDING))

    def has(self, state: str, entry: Entry) -> bool:
        """Return whether the record lies in the folder."""
        return os.access(entry.file, os.F_OK, dir_fd=self._fds[state], follow_symlinks=False)

    def draft(self, fields: dict[str, str], holder_fd: int | None = None) -> OwnRecord:
        """Write a record in `new/` and light its beacons. `publish` makes it a record of the pool.

        With *holder_fd* the record is written into the file in `new/` that a script has opened under this
        descriptor: the holder's beacon is then lit on the script's open file, the waiter's on ours.
        Raises BadValue (2) for a descriptor that is no such file.
        """
        if holder_fd is None:
            name = f"{os.getpid()}.{time.monotonic_ns()}"
            fd = os.open(name, _FILE_FLAGS | os.O_CREAT | os.O_EXCL, 0o600, dir_fd=self._fds[NEW])
        else:
            name = self._name_of_draft(holder_fd)
            fd = os.open(name, _FILE_FLAGS, dir_fd=self._fds[NEW])
        try:
            # the beacons first: an unlocked file in new/ is anybody's to clear away
            try_lock(fd, WAITER_BYTE)
            try_lock(fd if holder_fd is None else holder_fd, HOLDER_BYTE)
            self.adopt(fd)
            os.fchmod(fd, self.mode)
            fd = out_of_the_way(fd)
            record = OwnRecord(fd, name)
            record.append(**fields)
        except BaseException:
            os.unlink(name, dir_fd=self._fds[NEW])
            os.close(fd)
            raise
        return record

    def _name_of_draft(self, fd: int) -> str:
        try:
            wanted = os.fstat(fd)
            writable = is_writable(fd)
            for name in os.listdir(self._fds[NEW]) if writable and wanted.st_size == 0 else []:
                status = os.stat(name, dir_fd=self._fds[NEW], follow_symlinks=False)
                if (status.st_dev, status.st_ino) == (wanted.st_dev, wanted.st_ino) and status.st_nlink == 1:
                    return name
        except OSError:
            pass
        raise BadValue("--fd", str(fd), f"an empty file in {self.path}/{NEW} that is open for writing", usage=True)

    def publish(self, record: OwnRecord, state: str, entry: Entry) -> None:
        """Rename a draft into a state folder."""
        self._rename(record.draft, NEW, entry.file, state)

    def move(self, entry: Entry, state: str, to: str, slot: int = 0) -> Entry:
        """Rename a record into another state folder, with its slot if that is `holding/`; return its entry there."""
        moved = Entry(entry.ticket, slot)
        self._rename(entry.file, state, moved.file, to)
        return moved

    def _rename(self, name: str, state: str, new_name: str, to: str) -> None:
        os.rename(name, new_name, src_dir_fd=self._fds[state], dst_dir_fd=self._fds[to])

    def remove(self, state: str, entry: Entry, own: OwnRecord | None = None) -> bool:
        """Unlink a record; return whether it was there. With *own*, only if it is that very file."""
        try:
            if own and self._identity(state, entry) != own.identity:
                return False
            os.unlink(entry.file, dir_fd=self._fds[state])
        except FileNotFoundError:
            return False
        return True

    def _identity(self, state: str, entry: Entry) -> tuple[int, int]:
        status = os.stat(entry.file, dir_fd=self._fds[state], follow_symlinks=False)
        return status.st_dev, status.st_ino

    def _open_record(self, state: str, name: str) -> int:
        return os.open(name, os.O_RDONLY | _SAFE_FLAGS, dir_fd=self._fds[state])

    def beacon(self, state: str, entry: Entry) -> bool | None:
        """Return whether the record's beacon is held; None where we may not ask. A record that is gone: False.

        In `holding/` the holder's beacon counts, elsewhere the waiter's.
        """
        return self._beacon(state, entry.file, HOLDER_BYTE if state == HOLDING else WAITER_BYTE)

    def _beacon(self, state: str, name: str, byte: int | None = None) -> bool | None:
        try:
            fd = self._open_record(state, name)
        except FileNotFoundError:
            return False
        except OSError:
            return None
        try:
            return is_locked(fd, byte)
        except OSError:
            return None
        finally:
            os.close(fd)

    def read(self, state: str, entry: Entry) -> Record | None:
        """Return what the record says; None if it is gone. What cannot be read or understood has no fields."""
        try:
            fd = self._open_record(state, entry.file)
        except FileNotFoundError:
            return None
        except OSError:
            return Record({}, -1, 0, 0)
        try:
            status = os.fstat(fd)
            data = os.read(fd, MAX_RECORD_BYTES) if stat.S_ISREG(status.st_mode) else b""
        finally:
            os.close(fd)
        return Record(_parse(data), status.st_uid, status.st_dev, status.st_ino)

    def shares_beacon(self, descriptors: list[int]) -> bool:
        """Return whether one of our *descriptors* of a record whose beacon is held is what holds it.

        Somebody who merely opened the file sees the lock; through its own open file it looks free.
        """
        return any(not is_locked(fd, HOLDER_BYTE) for fd in descriptors)

    def sweep_drafts(self) -> None:
        """Clear away files in `new/` that nobody has locked for a minute: their writers died."""
        for name in os.listdir(self._fds[NEW]):
            try:
                status = os.stat(name, dir_fd=self._fds[NEW], follow_symlinks=False)
                old = abs(time.time() - status.st_mtime) > DRAFT_GRACE_S
                if old and (self._beacon(NEW, name) is False or not stat.S_ISREG(status.st_mode)):
                    os.unlink(name, dir_fd=self._fds[NEW])
            except OSError:
                continue  # gone meanwhile, or a folder that somebody planted


_SAFE_FLAGS = os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
_FILE_FLAGS = os.O_RDWR | _SAFE_FLAGS
_FOLDER_FLAGS = os.O_RDONLY | os.O_DIRECTORY | _SAFE_FLAGS


def _parse(data: bytes) -> dict[str, str]:
    fields = {}
    for text in data.decode(errors="replace").split("\n")[:-1]:  # what follows the last newline is unfinished
        key, equals, value = text.partition("=")
        if equals:
            fields[key] = value
    return fields


def _open_folder(lock_dir: str, name: str, create: bool) -> int:
    if create and not os.path.isdir(lock_dir):
        os.makedirs(lock_dir, 0o755, exist_ok=True)
    parent = os.open(lock_dir, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        status = os.fstat(parent)
        if status.st_mode & stat.S_IWOTH and not (status.st_mode & stat.S_ISVTX and status.st_uid == 0):
            raise NotPermitted(lock_dir, N_("world-writable, but not root's with the sticky bit"))
        if create:
            _make_folder(parent, name, None, 0o700)
        try:
            return os.open(name, _FOLDER_FLAGS, dir_fd=parent)
        except OSError as error:
            if error.errno in (errno.ELOOP, errno.ENOTDIR):
                raise NotPermitted(f"{lock_dir}/{name}", N_("not a folder")) from None
            raise
    finally:
        os.close(parent)


def _make_folder(parent: int, name: str, adopt: Callable[[int], None] | None, mode: int) -> None:
    try:
        os.mkdir(name, 0o700, dir_fd=parent)
    except FileExistsError:
        return
    fd = os.open(name, _FOLDER_FLAGS, dir_fd=parent)
    try:
        if adopt:
            adopt(fd)
        os.fchmod(fd, mode)  # mkdir masks the mode by the umask and ignores setgid
    finally:
        os.close(fd)
