"""The builds of a pool as a process sees them that is none of its clients, and waits for their ends.

Keeps the record of each build open, so that its client's last word can be read when the record is gone. Sleeps in one
poll(2): on a pidfd of each build's client, or of one of the processes that keep it, and on inotify of the directories
of the pool's states. What neither of them can tell is looked at every BLIND_S seconds, and a pool that was removed
every REMADE_S. Takes and changes nothing.
"""

from __future__ import annotations

import errno
import os
import select
from contextlib import suppress

from ipclock._typing import TYPE_CHECKING
from ipclock.bounded import LAST_PID, moment, whole
from ipclock.errors import NoPoolError, from_os
from ipclock.linux import clocks, inotify, process
from ipclock.linux.locks import is_locked, table
from ipclock.pool import liveness
from ipclock.pool import snapshot as pool_snapshot
from ipclock.pool.directory import GATE, HOLDING, QUEUED, TRIES
from ipclock.pool.record import read_record
from ipclock.pool.record_name import parse
from ipclock.pool.records import Store
from ipclock.utf8 import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from ipclock.config.settings import Settings
    from ipclock.linux.inotify import Inotify
    from ipclock.pool.record import Beacons, Record
    from ipclock.pool.record_name import RecordName
    from ipclock.pool.snapshot import Snapshot

BLIND_S = 5.0
REMADE_S = 1.0  # its clients look as often whether the pool was removed, and make it anew
PLACES = (QUEUED, GATE, HOLDING)
MOVES = inotify.LEFT | inotify.CAME | inotify.DELETED
_MOST_KEEPERS = 8  # that are tried, as long as they end just then
_HIGHEST_STATUS, _HIGHEST_SIGNAL = 255, 64


class Build:
    """A build by its record, which stays open. `ticket` and `entry` are as they were when it was found last."""

    def __init__(self, entry: RecordName, fd: int, beacons: Beacons) -> None:
        self.entry = entry
        self.record = read_record(fd)
        self.pidfd: int | None = None
        self._fds = [fd]  # more than one: the record was written again, or carried over
        self._beacons = beacons

    @property
    def ticket(self) -> int:
        """Its ticket."""
        return self.entry.ticket

    @property
    def label(self) -> str:
        """Its label, as it may be shown."""
        return printable(self.record.fields.get("label", "?"))

    @property
    def uid(self) -> int:
        """Whose it is."""
        return self.record.user

    @property
    def log(self) -> str:
        """The path of its log, "" where it has none (yet)."""
        return self.record.fields.get("log", "")

    @property
    def log_writer(self) -> int | None:
        """The PID of the process that writes its log, None where that means nothing here."""
        client = liveness.identity(self.record, "waiter")
        ours = client is not None and client.namespace == process.namespace()
        return whole(self.record.fields.get("log_writer", ""), LAST_PID) if ours else None

    @property
    def arrived(self) -> float | None:
        """When it came, in seconds of the epoch."""
        return moment(self.record.fields.get("arrived", ""))

    @property
    def is_admitted(self) -> bool:
        """Whether it has got its slot."""
        return "admitted" in self.record.fields

    @property
    def has_command(self) -> bool:
        """Whether it is that of a `wrap` whose command has started: then that has an exit status."""
        return "command_pid" in self.record.fields

    @property
    def timeout_s(self) -> float:
        """How long it is ready to wait."""
        return moment(self.record.fields.get("timeout", "")) or 0.0

    def since(self, event: str) -> float:
        """Return the seconds since it has "arrived" or was "admitted"."""
        begun = moment(self.record.fields.get(f"{event}_mono", ""))
        return 0.0 if begun is None else max(0.0, clocks.monotonic() - begun)

    @property
    def ended(self) -> int | None:
        """What its client has written at its end: an exit status, or -n for signal n."""
        # of the files that were its record the client writes into one
        return next((status for fd in self._fds if (status := _ended(read_record(fd))) is not None), None)

    @property
    def is_listed(self) -> bool:
        """Whether its record lies in a pool's directory."""
        return any(os.fstat(fd).st_nlink for fd in self._fds)

    @property
    def is_lit(self) -> bool:
        """Whether a beacon of it is held."""
        ranges = (self._beacons.waiter, self._beacons.holder())
        if any(is_locked(fd, where) for fd in self._fds for where in ranges):
            return True
        beacon = (self.record.device, self.record.inode)
        return self.record.names_beacon and beacon in table(self._beacons.holder().start)

    @property
    def has_client(self) -> bool:
        """Whether the `ipclock` that waits for it, or supervises it, is surely there."""
        client = liveness.identity(self.record, "waiter")
        return client is not None and process.exists(client) is True

    @property
    def is_bound(self) -> bool:
        """Whether it may live without a beacon: by the process that holds its slot, or its command (INV-3a, INV-3b)."""
        if not self.record.kind:
            return self.entry.slot > 0  # damaged (INV-3d)
        bound = liveness.identity(self.record) if self.record.kind == "pid" else liveness.command(self.record)
        return bound is not None and process.exists(bound) is not False

    def refresh(self) -> None:
        """Read the record again."""
        self.record = read_record(self._fds[-1])

    def is_same(self, record: Record) -> bool:
        """Return whether a record, perhaps another file with another ticket, is that of this build."""
        return all(record.fields.get(key) == self.record.fields.get(key) for key in ("waiter", "arrived_mono"))

    def adopt(self, other: Build) -> None:
        """Take the record of *other*, which is this build too, for its own."""
        self.entry, self.record = other.entry, other.record
        self._fds += other._fds
        other.disarm()

    def arm(self, store: Store) -> None:
        """Let the end of a process that it depends on wake us, if there is one that can be watched."""
        if self.pidfd is not None:
            return
        client = liveness.identity(self.record, "waiter")
        if client and client.namespace == process.namespace() and process.exists(client) is not False:
            self.pidfd = _pidfd(client.pid, lambda: process.exists(client) is not False)
            return

        def keepers() -> list[int]:
            return liveness.keepers(store, self.record, any_owner=True)

        command = liveness.command(self.record)
        # its command first: of the processes of a build it is the one that lasts
        for pid in sorted(keepers(), key=lambda pid: (not command or pid != command.pid, pid))[:_MOST_KEEPERS]:
            if (fd := _pidfd(pid, lambda: pid in keepers())) is not None:  # noqa: B023 - it is asked at once
                self.pidfd = fd
                return

    def disarm(self) -> None:
        """Forget the process that was watched: it has ended, perhaps as one of several."""
        if self.pidfd is not None:
            os.close(self.pidfd)
            self.pidfd = None

    def close(self) -> None:
        """Close what is open."""
        self.disarm()
        for fd in self._fds:
            os.close(fd)


def _ended(record: Record) -> int | None:
    text = record.fields.get("ended", "")
    if text.startswith("-"):
        number = whole(text[1:], _HIGHEST_SIGNAL)
        return -number if number else None
    return whole(text, _HIGHEST_STATUS)


def _pidfd(pid: int, still: Callable[[], bool]) -> int | None:
    """Return a descriptor of a process; None if it is not *still* the one that is meant once that is there."""
    try:
        fd = os.pidfd_open(pid)
    except OSError:
        return None
    if still():
        return fd
    os.close(fd)
    return None


class PoolWatch:
    """A pool of this machine, watched. One that is not there yet has no builds."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._store: Store | None = None
        self._stirred = False  # whether anything has happened that no sleep was woken by
        self.inotify: Inotify | None = None
        with suppress(OSError):  # a user may have few: fs.inotify.max_user_instances
            self.inotify = inotify.Inotify()
        self._renew()

    def _renew(self) -> None:
        """Open the pool, or the one that has come to its place."""
        for _ in range(TRIES):
            if self._store and not self._store.vanished():
                return
            try:
                fresh = Store.open(self._settings.lock_dir, self._settings.semaphore_name[1:], create=False)
            except NoPoolError:
                return
            if self._store:
                self._store.close()
            self._store = fresh
            if self.inotify:
                for state in PLACES:
                    with suppress(OSError):  # removed just now, or max_user_watches
                        self.inotify.watch(f"{fresh.path}/{state}", MOVES, directory=True)

    def _listed(self, wanted: Callable[[RecordName], bool]) -> Iterator[Build]:
        """Yield the builds of a wanted name, each with its record open."""
        if (store := self._store) is None:
            return
        for state in PLACES:
            for entry in filter(wanted, store.entries(state)):
                try:
                    fd = store.open_record(state, entry.file)
                except OSError as error:
                    if error.errno in (errno.ENOENT, errno.ELOOP, errno.ENXIO):  # gone, or no file
                        continue
                    raise from_os(error, store.path) from None
                yield Build(entry, fd, store.beacons)

    def _search(self, wanted: Callable[[RecordName], bool], fits: Callable[[Build], bool]) -> Build | None:
        """Return a build of a wanted name that fits."""
        for _ in range(TRIES):
            self._renew()
            self._events()
            for build in self._listed(wanted):
                if fits(build):
                    return build
                build.close()
            # one that goes from a directory that we have not read yet to one that we have read is seen in neither
            if not any(entry and wanted(entry) for entry in map(parse, self._events())):
                break
        return None

    def _events(self) -> list[str]:
        names = [event.name for event in self.inotify.events()] if self.inotify else []
        self._stirred = self._stirred or bool(names)
        return names

    def find(self, ticket: int) -> Build | None:
        """Return the build that has the ticket, None where no record has it."""
        return self._search(lambda entry: entry.ticket == ticket, lambda build: True)

    def living(self) -> Build | None:
        """Return a build that waits or holds, None where there is none."""
        return self._search(lambda entry: True, lambda build: not self.is_over(build))

    def builds(self) -> list[Build]:
        """Return the builds that have a record."""
        self._renew()
        return list(self._listed(lambda entry: True))

    @property
    def is_idle(self) -> bool:
        """Whether no build holds a slot and none waits."""
        for _ in range(TRIES):
            self._renew()
            self._events()
            now = self.snapshot()
            if not self._events():  # else one may have gone from the line, not read yet, to the holders, read before
                break
        return not (now.holders or now.waiters or now.unlisted)

    def has_drawn(self, ticket: int) -> bool:
        """Return whether the ticket is one of those that this pool has given out."""
        return self._store is not None and 0 < ticket <= max(self._store.tickets())

    def around_us(self) -> list[int]:
        """Return the tickets of the builds that this process runs inside of."""
        return [entry.ticket for entry, _ in pool_snapshot.around_us(self._store)] if self._store else []

    def snapshot(self, *, waiters: int | None = None, own: int = 0) -> Snapshot:
        """Read the pool."""
        if self._store is None:
            return pool_snapshot.empty(self._settings.pool_name, 1)
        return pool_snapshot.take(self._store, self._settings.pool_name, waiters=waiters, own=own)

    def is_over(self, build: Build) -> bool:
        """Return whether the build has left the pool: its slot is free, or its place in line, and it was told all.

        Watches it first: whatever ends it from here on ends the next sleep.
        """
        build.refresh()
        if self._store:
            build.arm(self._store)
            build.refresh()
        if build.is_lit:
            if not build.is_listed:
                self._find_again(build)
            return False
        if build.is_listed:
            # with its client there it is just leaving, and its slot not yet given on
            return not build.has_client and not build.is_bound
        if build.ended is not None:
            return True
        if self._find_again(build):
            return False
        # an ipclock of before `ended` leaves its word to the history, and ends then
        return not (build.has_command and build.has_client)

    def _find_again(self, build: Build) -> bool:
        """Find a build whose record is gone with its directory: its client writes it again. Return whether it has."""
        # of any ticket: another client may have drawn its own from the new directory
        found = self._search(lambda entry: True, lambda other: build.is_same(other.record))
        if found:
            build.adopt(found)
        return found is not None

    def sleep(self, builds: Iterable[Build], seconds: float) -> None:
        """Sleep until there is something to look at, *seconds* at most. It may be for nothing."""
        if self._stirred:  # by what was read while we looked: it may have come after the look at another build
            self._stirred = False
            return
        waiting = select.poll()
        armed = {build.pidfd: build for build in builds}
        if None in armed or not armed or self.inotify is None:
            seconds = min(seconds, BLIND_S)
        if self._store is None or self._store.vanished():
            seconds = min(seconds, REMADE_S)
        for fd in armed:
            if fd is not None:
                waiting.register(fd, select.POLLIN)
        if self.inotify:
            waiting.register(self.inotify.fd, select.POLLIN)
        for fd, _event in waiting.poll(None if seconds == float("inf") else max(0.0, seconds) * 1000):
            if fd in armed:
                armed[fd].disarm()
        if self.inotify:
            self.inotify.events()

    def close(self) -> None:
        """Close what is open."""
        if self.inotify:
            self.inotify.close()
        if self._store:
            self._store.close()
