"""The record of one build: what it says, its file, and the beacons, locks on that which prove that its client lives."""

from __future__ import annotations

import os
import stat
from binascii import crc32
from contextlib import contextmanager, suppress

from ipclock import users
from ipclock._typing import TYPE_CHECKING, NamedTuple
from ipclock.bounded import LAST_UID, LAST_WORD, whole, whole_in
from ipclock.errors import NoTicket, from_os
from ipclock.linux.locks import ByteRange, try_lock, unlock
from ipclock.pool.directory import RECORD_FLAGS
from ipclock.pool.notes import lines, parse_fields

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from ipclock.pool.record_name import RecordName

MAX_RECORD_BYTES = 4096  # one page: a finished record can be appended to even when the file system is full
MAX_TOLD_BYTES = 512  # of the line that another client adds
_BEACON = "beacon"  # the key of the file that has the holder's beacon, where it is not the record's own


class Record(NamedTuple):
    """What a record says, as text by key, and whose file it is. `kind` is "" where the content is damaged.

    `device` and `inode` are of the file that has the holder's beacon: the record's own, or the one that it names.
    """

    fields: dict[str, str]
    uid: int
    device: int
    inode: int

    @property
    def kind(self) -> str:
        """What proves that the holder lives: "fd" (the beacon), "pid" (a process), "" unknown."""
        kind = self.fields.get("kind", "")
        return kind if kind in ("fd", "pid") else ""

    @property
    def user(self) -> int:
        """Whose build it is (uid): root's records in a user's pool are files of that user, so a record says it too."""
        said = whole_in(self.fields, "uid", LAST_UID)
        return self.uid if said is None else said

    @property
    def names_beacon(self) -> bool:
        """Whether the holder's beacon is that of another file, which the record names."""
        return _BEACON in self.fields


class Beacons(NamedTuple):
    """The ranges of a record's file whose locks prove that its client lives, as a waiter and as a holder.

    They begin where no other pool of the machine has its own, and the holder's is as long as it has units: so the
    kernel's table of all locks tells how many units are held under a pool's name, wherever their records lie.
    """

    start: int

    @classmethod
    def of(cls, pool: str, device: int) -> Beacons:
        """Return those of the *pool* whose place lies on this device: a container may have a /dev/shm of its own."""
        return cls(crc32(f"{device}:{pool}".encode(errors="surrogateescape")) << 20)

    @property
    def waiter(self) -> ByteRange:
        """What a waiter locks."""
        return ByteRange(self.start)

    def holder(self, units: int = 1) -> ByteRange:
        """What a holder of so many units locks."""
        return ByteRange(self.start + 2, units)  # next to the waiter's the kernel would make one range of both


class OwnRecord:
    """The record of this process: its open file, and all that was written into it.

    *beacons* are the ranges that it locks. The holder's beacon is that of *holder_fd*, where there is one: a descriptor
    for the open file of a script, since who waits and who holds need not be the same process (`acquire --fd`), or for
    that of the client's former record. It is closed with the record.
    """

    def __init__(self, fd: int, draft: str, beacons: Beacons, holder_fd: int | None = None) -> None:
        self.fd = fd
        self.draft = draft
        self.fields: dict[str, str] = {}
        self._beacons = beacons
        self._size = 0  # up to where we know what it says
        self.holder_fd = fd if holder_fd is None else holder_fd
        status = os.fstat(fd)
        self.identity = (status.st_dev, status.st_ino)

    def append(self, **fields: object) -> None:
        """Add fields, later ones win. One write: a reader sees a whole line or, until its newline, none."""
        self.fields.update({key: str(value) for key, value in fields.items()})
        self._size += append(self.fd, fields)

    def news(self) -> dict[str, str]:
        """Return what the record says by now if another client has added to it since the last look, else nothing."""
        size = os.fstat(self.fd).st_size  # one system call: each waiter asks at each tick
        if size == self._size:
            return {}
        self._size = size
        return read_record(self.fd).fields

    def hold(self, units: int) -> None:
        """Light the holder's beacon, for so many units."""
        try_lock(self.holder_fd, self._beacons.holder(units))

    def is_beacon(self, device: int, inode: int) -> bool:
        """Return whether the holder's beacon is on this file."""
        status = os.fstat(self.holder_fd)
        return (status.st_dev, status.st_ino) == (device, inode)

    def touch(self) -> None:
        """Show that this process acts: `Store.quiet_s` counts from now."""
        with suppress(OSError):
            os.utime(self.fd)

    def let_go(self, units: int) -> None:
        """Put the holder's beacon out again."""
        unlock(self.holder_fd, self._beacons.holder(units))

    def unlock(self) -> None:
        """Put the beacons out, in every process that inherited them."""
        for fd in {self.fd, self.holder_fd}:
            unlock(fd)

    def close(self) -> None:
        """Close the descriptors; without `unlock` the beacon stays lit while a child has it."""
        for fd in {self.fd, self.holder_fd}:
            os.close(fd)


class OthersRecord:
    """The record of another client, open to add a line to it."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self.record = read_record(fd)

    @classmethod
    @contextmanager
    def opened(cls, entry: RecordName, directory: int, path: str) -> Iterator[OthersRecord]:
        """Open that of *entry* in a state directory. Raises PoolPermissionError (77), and NoTicket (2) for no file."""
        try:
            fd = os.open(entry.file, RECORD_FLAGS, dir_fd=directory)
        except PermissionError as error:
            raise from_os(error, f"{path}/{entry.file}") from None
        except OSError:
            raise NoTicket(entry.ticket) from None
        try:
            status = os.fstat(fd)
            # a second link would let the pool's owner make root write into a file elsewhere
            if not stat.S_ISREG(status.st_mode) or status.st_nlink > 1:
                raise NoTicket(entry.ticket)
            yield cls(fd)
        finally:
            os.close(fd)

    @property
    def is_ours(self) -> bool:
        """Whether it is of a build of this user, or of one that we are root over."""
        said = not users.is_hidden(os.getuid()) and self.record.user == os.getuid()
        return said or users.owns(self._fd)

    def tell(self, fields: Mapping[str, str]) -> None:
        """Add fields for the client to read, unless they stand there, or it would be too long to be read."""
        said = fields.items() <= self.record.fields.items()
        if self.record.fields and not said and os.fstat(self._fd).st_size <= MAX_RECORD_BYTES - MAX_TOLD_BYTES:
            append(self._fd, fields)


def append(fd: int, fields: Mapping[str, object]) -> int:
    """Add fields to an open record, in one write at its end; return how many bytes that took."""
    return os.write(fd, lines(fields))


def beacon_of(device: int, inode: int) -> dict[str, str]:
    """Return the field by which a record names the file that has the holder's beacon."""
    return {_BEACON: f"{device}:{inode}"}


def read_record(fd: int) -> Record:
    """Return what an open record says."""
    status = os.fstat(fd)
    fields = parse_fields(os.pread(fd, MAX_RECORD_BYTES, 0)) if stat.S_ISREG(status.st_mode) else {}
    left, _, right = fields.get(_BEACON, "").partition(":")
    device, inode = whole(left, LAST_WORD), whole(right, LAST_WORD)
    if device is None or inode is None:
        return Record(fields, status.st_uid, status.st_dev, status.st_ino)
    return Record(fields, status.st_uid, device, inode)
