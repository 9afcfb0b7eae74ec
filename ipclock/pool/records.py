"""What lies in a pool's directory: records in state directories, their beacons, and what lies beside them.

Guarantees: a record's state is the directory that it lies in, and changes by one rename(2); a record is visible in
`queued/` only when it is finished and its beacon is held (INV-1). Does not guarantee any order of steps: that is
`protocol`'s. A `Store` must not be shared between threads, nor used after a fork: a second taker of its mutex would get
it.
"""

from __future__ import annotations

import errno
import os
import stat
import time
from bisect import insort
from contextlib import suppress

from ipclock import users
from ipclock._typing import TYPE_CHECKING
from ipclock.bounded import LAST_TICKET
from ipclock.errors import InvalidValueError, from_os
from ipclock.linux.locks import WHOLE, ByteRange, holds, is_locked, is_writable, out_of_the_way, table, try_lock
from ipclock.pool.directory import HOLDING, NEW, RECORD_FLAGS, SAFE_FLAGS, STATES, unlink
from ipclock.pool.note_files import NoteFiles
from ipclock.pool.record import Beacons, OthersRecord, OwnRecord, Record, beacon_of, read_record
from ipclock.pool.record_name import parse

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from ipclock.pool.record_name import RecordName

DRAFT_GRACE_S = 60.0
LAST_DRAWN = LAST_TICKET // 2


class Store(NoteFiles):
    """The records of an opened pool directory, beside its numbers and notes."""

    @property
    def beacons(self) -> Beacons:
        """The ranges that this pool's clients lock."""
        return Beacons.of(self.pool, self.place.status.st_dev)

    def draw_ticket(self) -> int:
        """Return the next ticket. Without a readable counter it goes on behind every ticket in use.

        A counter near the last possible ticket is damage: the next ticket could not be one any more.
        """
        last = self._number("ticket", LAST_DRAWN)
        if last is None:
            last = max(ticket for ticket in self.tickets() if ticket <= LAST_DRAWN)
        self._write_number("ticket", last + 1)  # before its use: killed in between leaves a gap, never a ticket twice
        return last + 1

    def tickets(self) -> set[int]:
        """Return the tickets in use, and the last one that was drawn."""
        listed = {entry.ticket for state in STATES[1:] for entry in self.entries(state)}
        return listed | {self._number("ticket", LAST_DRAWN) or 0}

    def skip_tickets(self, ticket: int) -> None:
        """Make sure that no ticket up to *ticket* is drawn any more."""
        if (self._number("ticket", LAST_DRAWN) or 0) < ticket <= LAST_DRAWN:
            self._write_number("ticket", ticket)

    def entries(self, state: str) -> list[RecordName]:
        """Return the records in a state directory in order of their tickets; other names there are ignored."""
        if self._seen is not None and state in self._seen:  # still true: records are renamed in sections only
            return list(self._seen[state])
        try:
            names = os.listdir(self._fds[state])
        except FileNotFoundError:
            names = []  # the directory was removed, which tmpfs does not tell
        except OSError as error:
            raise from_os(error, self.path) from None
        found = sorted(entry for entry in map(parse, names) if entry and bool(entry.slot) == (state == HOLDING))
        if self._seen is not None:
            self._seen[state] = list(found)
        return found

    def _came(self, state: str, entry: RecordName) -> None:
        if self._seen and state in self._seen:  # else the section would level by a listing from before it (INV-4)
            insort(self._seen[state], entry)

    def _left(self, state: str, entry: RecordName) -> None:
        if self._seen and entry in self._seen.get(state, ()):
            self._seen[state].remove(entry)

    def has(self, state: str, entry: RecordName, own: OwnRecord | None = None) -> bool:
        """Return whether the record lies in the directory. With *own*, only if it is that client's.

        After a removal of the pool another client's may have the same name.
        """
        try:
            identity = self._identity(state, entry)
        except OSError:
            return False
        return own is None or identity == own.identity or self._names(state, entry, own)

    def _names(self, state: str, entry: RecordName, own: OwnRecord) -> bool:
        """Return whether the record names the file that has the beacon of *own*: root has carried it over."""
        record = self.read(state, entry)
        return record is not None and record.names_beacon and own.is_beacon(record.device, record.inode)

    def draft(self, fields: dict[str, str], holder_fd: int | None = None) -> OwnRecord:
        """Write a record in `new/` and light the waiter's beacon. `publish` makes it a record of the pool.

        With *holder_fd* the record is written into the file in `new/` that a script has opened under this
        descriptor: the holder's beacon will be lit on the script's open file, the waiter's on ours.
        Raises InvalidValueError (2) for a descriptor that is no such file.
        """
        if holder_fd is None:
            fd, name = self._new_file()
        else:
            name = self._name_of_draft(holder_fd)
            fd = self._open_draft(name, holder_fd)
        try:
            # the beacon first: an unlocked file in new/ is anybody's to clear away
            try_lock(fd, self.beacons.waiter)
            fd = out_of_the_way(fd)
            record = OwnRecord(fd, name, self.beacons, None if holder_fd is None else os.dup(holder_fd))
            record.append(**fields)
        except BaseException:
            os.unlink(name, dir_fd=self._fds[NEW])
            os.close(fd)
            raise
        return record

    def redraft(self, fields: dict[str, str], holder_fd: int) -> OwnRecord:
        """Write a record anew whose client has lost the directory that it lay in; the holder's beacon stays.

        It is that of *holder_fd*, on an open file of that directory, which the build may have inherited. The record
        names the file.
        """
        status = os.fstat(holder_fd)
        record = self.draft(fields | beacon_of(status.st_dev, status.st_ino))
        record.holder_fd = os.dup(holder_fd)
        return record

    def _open_draft(self, name: str, holder_fd: int) -> int:
        """Open the file that a script of ours has made once more; give it the pool's owner and mode."""
        fd = os.open(name, RECORD_FLAGS, dir_fd=self._fds[NEW])
        status = os.fstat(fd)
        try:
            # another one may have come to its name since: root would give that away
            if not (_is_same(status, os.fstat(holder_fd)) and status.st_uid in (os.geteuid(), self.owner)):
                raise self._no_draft(holder_fd)
            if users.rules(self.owner):
                os.fchown(fd, *self._owner)
            os.fchmod(fd, self.mode)
        except BaseException:
            os.close(fd)
            raise
        return fd

    def _no_draft(self, fd: int) -> InvalidValueError:
        wanted = f"an empty file in {self.path}/{NEW} that is open for writing"
        return InvalidValueError("--fd", str(fd), wanted, usage=True)

    def _name_of_draft(self, fd: int) -> str:
        with suppress(OSError):
            wanted = os.fstat(fd)
            writable = is_writable(fd)
            for name in os.listdir(self._fds[NEW]) if writable and wanted.st_size == 0 else []:
                if _is_same(os.stat(name, dir_fd=self._fds[NEW], follow_symlinks=False), wanted):
                    return name
        raise self._no_draft(fd)

    def publish(self, record: OwnRecord, state: str, entry: RecordName) -> None:
        """Rename a draft into a state directory: finished and lit, or a recover clears it (INV-1)."""
        self._rename(record.draft, NEW, entry.file, state)
        self._came(state, entry)

    def move(
        self,
        entry: RecordName,
        state: str,
        to: str,
        *,
        slot: int = 0,
        reserved: int = 0,
        by: int = 0,
        silent: int = 0,
        party: str | None = None,
    ) -> RecordName:
        """Rename a record, into another state directory or for what its name says; return its entry there."""
        party = entry.party if party is None else party
        moved = entry._replace(slot=slot, reserved=reserved, by=by, silent=silent, party=party)
        self._rename(entry.file, state, moved.file, to)
        self._left(state, entry)
        self._came(to, moved)
        return moved

    def _rename(self, name: str, state: str, new_name: str, to: str) -> None:
        os.rename(name, new_name, src_dir_fd=self._fds[state], dst_dir_fd=self._fds[to])

    def remove(self, state: str, entry: RecordName, own: OwnRecord | None = None) -> bool:
        """Unlink a record; return whether it was there. With *own*, only if it is that client's."""
        try:
            if own and not self.has(state, entry, own):  # after a removal another client's may have this name
                return False
            unlink(entry.file, self._fds[state])
        except FileNotFoundError:
            self._left(state, entry)
            return False
        self._left(state, entry)
        return True

    def quiet_s(self, state: str, entry: RecordName) -> float:
        """Return the seconds since a waiter last acted, or since its record came to lie where it does. In the mutex.

        A step of the wall clock makes it wrong until the next deed.
        """
        try:
            status = os.stat(entry.file, dir_fd=self._fds[state], follow_symlinks=False)
        except OSError:
            return 0.0
        # both stamps are the kernel's: the mutex was just taken, and a rename sets st_ctime too (inode(7))
        return abs(os.fstat(self._fds["mutex"]).st_mtime - status.st_ctime)

    def _identity(self, state: str, entry: RecordName) -> tuple[int, int]:
        status = os.stat(entry.file, dir_fd=self._fds[state], follow_symlinks=False)
        return status.st_dev, status.st_ino

    def opened(self, state: str, entry: RecordName) -> AbstractContextManager[OthersRecord]:
        """Open a record to add a line that its client is to read. In the mutex: it stays where it is listed.

        Raises PoolPermissionError (77), and NoTicket (2) for what is no file.
        """
        return OthersRecord.opened(entry, self._fds[state], f"{self.path}/{state}")

    def open_record(self, state: str, name: str) -> int:
        """Open a record for reading, which goes on when it is gone. Raises OSError."""
        return os.open(name, os.O_RDONLY | SAFE_FLAGS, dir_fd=self._fds[state])

    def beacon(self, state: str, entry: RecordName) -> bool | None:
        """Return whether the record's beacon is held; None where we may not ask. A record that is gone: False.

        In `holding/` the holder's beacon counts, elsewhere the waiter's. The holder's may lie on a file that the record
        names: that of a directory of the pool which is gone.
        """
        if state != HOLDING:
            return self._beacon(state, entry.file, self.beacons.waiter)
        own = self._beacon(state, entry.file, self.beacons.holder())
        return own if own is not False else self._is_lit_elsewhere(entry)

    def _is_lit_elsewhere(self, entry: RecordName) -> bool:
        record = self.read(HOLDING, entry)
        if record is None or not record.names_beacon:
            return False
        return (record.device, record.inode) in table(self.beacons.holder().start)

    def _beacon(self, state: str, name: str, where: ByteRange = WHOLE) -> bool | None:
        try:
            fd = self.open_record(state, name)
        except FileNotFoundError:
            return False
        except OSError as error:
            # a link, or a socket, is no record (INV-3e); what else cannot be opened may be a living client's (INV-3c)
            return False if error.errno in (errno.ELOOP, errno.ENXIO) else None
        try:
            return is_locked(fd, where)
        except OSError:
            return None
        finally:
            os.close(fd)

    def read(self, state: str, entry: RecordName) -> Record | None:
        """Return what the record says; None if it is gone. What cannot be read or understood has no fields."""
        try:
            fd = self.open_record(state, entry.file)
        except FileNotFoundError:
            return None
        except OSError:
            return Record({}, -1, 0, 0)  # not None: a holder that cannot be read may live (INV-3d)
        try:
            return read_record(fd)
        finally:
            os.close(fd)

    def shares_beacon(self, descriptors: list[int]) -> bool:
        """Return whether one of our *descriptors* of a record whose beacon is held is what holds it.

        A process that merely opened the file sees the lock; through the open file that has it, it looks free.
        """
        return any(not is_locked(fd, self.beacons.holder()) for fd in descriptors)

    def unlisted(self) -> int:
        """Return how many units are held under the pool's name by builds whose record does not lie here.

        Those of a directory of the pool that was removed or replaced under them, or that cannot be seen from here.
        """
        # the table, then the records: a beacon that goes out in between counts too much, until the next section asks.
        # The other way round it would stand for a build that is not listed, and one more would be admitted (INV-8a)
        held = sum(table(self.beacons.holder().start).values())
        listed = [entry for entry in self.entries(HOLDING) if held and self.beacon(HOLDING, entry)]
        return max(0, held - sum(entry.units for entry in listed))

    def kept_unlisted(self, files: list[tuple[int, str]]) -> list[tuple[RecordName, Record]]:
        """Return the holders whose beacon is kept lit by one of our open *files*, of a pool's directory that is gone.

        *files* are descriptors with the paths that they were opened by. A file's name still says what its holder holds.
        """
        found = []
        for fd, path in files:
            directory, name = os.path.split(path)
            entry = parse(name)
            if entry and entry.slot and os.path.basename(directory) == HOLDING and holds(fd, self.beacons.holder()):
                found.append((entry, read_record(fd)))
        return found

    def remove_strays(self) -> None:
        """Remove what lies among the records and cannot be one."""
        for state in STATES[1:]:
            for name in os.listdir(self._fds[state]):
                if parse(name) is None:
                    with suppress(OSError):  # a directory, or gone meanwhile
                        os.unlink(name, dir_fd=self._fds[state])

    def sweep(self) -> None:
        """Clear away a drain whose time is over, and files in `new/` that have had no lock for a minute.

        The writers of those died. In the mutex.
        """
        if self.drain is None:
            with suppress(OSError):
                self.drain = None
        for name in os.listdir(self._fds[NEW]):
            try:
                status = os.stat(name, dir_fd=self._fds[NEW], follow_symlinks=False)
                old = abs(time.time() - status.st_mtime) > DRAFT_GRACE_S  # abs: the clock may have been set back
                if old and (self._beacon(NEW, name) is False or not stat.S_ISREG(status.st_mode)):
                    os.unlink(name, dir_fd=self._fds[NEW])
            except OSError:
                continue  # gone meanwhile, or a planted directory


def _is_same(found: os.stat_result, wanted: os.stat_result) -> bool:
    """Return whether both are of one file, which has no second link."""
    return (found.st_dev, found.st_ino) == (wanted.st_dev, wanted.st_ino) and found.st_nlink == 1
