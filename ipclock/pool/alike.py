"""A waiter that is to run what a newcomer is to run, so that the newcomer can follow it instead of standing in line.

It is known by its open record, wherever that lies by then: what it says, and the beacons on it.
"""

from __future__ import annotations

from ipclock._typing import TYPE_CHECKING
from ipclock.bounded import whole
from ipclock.linux.locks import is_locked
from ipclock.pool import liveness
from ipclock.pool.record import read_record

if TYPE_CHECKING:
    from ipclock.linux.process import Identity
    from ipclock.pool.record import Beacons
    from ipclock.pool.record_name import RecordName

LAST_STATUS = 255


class AlreadyWaits(Exception):
    """A build of the same label, command, directory and user waits: its `entry`, and its record as *fd*."""

    def __init__(self, entry: RecordName, fd: int, beacons: Beacons) -> None:
        super().__init__(entry)
        self.entry = entry
        self._fd = fd
        self._beacons = beacons

    @property
    def client(self) -> Identity | None:
        """The process that waits, and looks after the build then."""
        return liveness.identity(read_record(self._fd), "waiter")

    @property
    def lives(self) -> bool:
        """Whether its client lives, or anything that it has started."""
        return any(is_locked(self._fd, where) for where in (self._beacons.waiter, self._beacons.holder()))

    @property
    def ended(self) -> int | None:
        """The exit status that its client has written down, -n for signal n; None before that."""
        said = read_record(self._fd).fields.get("ended", "")
        number = whole(said.removeprefix("-"), LAST_STATUS)
        return None if number is None else -number if said.startswith("-") else number
