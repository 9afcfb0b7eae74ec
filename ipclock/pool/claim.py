"""What a client asks of a pool, and what it has got."""

from __future__ import annotations

import os
import time
from binascii import crc32

from ipclock import users
from ipclock._typing import TYPE_CHECKING, NamedTuple
from ipclock.config import environment
from ipclock.linux import clocks, process
from ipclock.pool.record_name import RecordName, key_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from ipclock.pool.cancellation import Cancellation


class Lease:
    """How long a slot is held for certain: until `until` (time.monotonic); `grace` s before, its build is to be ended.

    `token` is the fencing token of the admission. `doubtful`: no server has confirmed the slot for a while.
    """

    def __init__(self, token: str) -> None:
        self.token = token
        self.until = float("inf")
        self.grace = 0.0
        self.doubtful = False


class Claim:
    """What one client asks of a pool and has got: first a ticket, as a waiter, then a slot, as a holder.

    This process holds it, unless *holder* names another one, which it only waits for. That one is proven alive by
    *holder_fd*, a descriptor of ours on a file in `new/` that it has open, or else by its identity.
    It takes *units* of the slots, and stands in line by *priority* (nice(1): lower first). At most *limit* builds of
    its label run at once (0: any number). With *supersede* it takes the place of those of its label that wait.
    *memory* is how many bytes it is expected to need, 0 unknown. It waits until `ready` too, at the gate.
    `same` stands for what is to be run; if it `joins`, it does not stand in line behind a waiter of that kind.
    `caller` is the process that has asked for it, our parent if nothing else is said.
    `entry` is the name of its record. `held` is how many slots were taken when it was admitted, its own included.
    `times` are the stamps of its arrival and admission.
    `evicted` turns true when a reset took the slot away; the build itself goes on. `cancelled`, once known, says that
    the build is to end. `lease` says how long the slot is held for certain, None on an engine whose slots cannot be
    lost to time.
    """

    def __init__(
        self,
        label: str,
        holder: process.Identity | None = None,
        holder_fd: int | None = None,
        *,
        units: int = 1,
        priority: int = 0,
        limit: int = 0,
        supersede: bool = False,
        memory: int = 0,
    ) -> None:
        self.label = label
        self.memory = memory
        # whether anything but a free slot is lacking; asked at the gate, outside of any section
        self.ready: Callable[[], bool] = lambda: True
        self.times: dict[str, str] = {}
        self._sid = os.getsid(0)  # a supervisor of its own leaves the session in which its build was asked for
        self.holder = holder
        self.caller: process.Identity | None = None
        self.holder_fd = holder_fd
        self.supersede = supersede
        self.same = ""
        self.joins = False
        self.entry = RecordName(0, units=units, priority=priority, limit=limit, key=key_of(label) if limit else "")
        self.held = 0
        self.evicted = False
        self.cancelled: Cancellation | None = None
        self.lease: Lease | None = None

    @property
    def ticket(self) -> int:
        """The number drawn on arrival; 0 before that."""
        return self.entry.ticket

    @property
    def slot(self) -> int:
        """The number of the slot, from 1; 0 while it has none."""
        return self.entry.slot

    def party(self, between: str) -> str:
        """Return what stands for the user or session of the client in the name of its record; "" where neither counts.

        Two sessions that share it by chance take one turn, no more.
        """
        if between == "user":
            return f"u{users.key()}"
        if between == "session":
            named = environment.session()
            session = process.login_session(self._sid) if named is None else f"{users.key()} {named}"
            return f"s{crc32(session.encode(errors='surrogateescape')):08x}"
        return ""


class AlreadyWaits(Exception):
    """A build of the same label, command, directory and user waits already, with this `ticket`."""

    def __init__(self, ticket: int) -> None:
        super().__init__(ticket)
        self.ticket = ticket


class RemovedHolder(NamedTuple):
    """A holder that has lost its slot, by death or by a reset: what the history and the messages say of it.

    `shown` is its label as it may be printed, `pid` that of the build where it is known, "?" where none is. `times` has
    the stamps of its record. Whose `supervised` build goes on tells of it at its end.
    """

    entry: RecordName
    label: str
    shown: str
    pid: str
    uid: int
    times: Mapping[str, str]
    supervised: bool


def stamp(event: str) -> dict[str, str]:
    """Return the time of *event* on the wall clock, for people, and on the monotonic one, for spans."""
    return {event: f"{time.time():.3f}", f"{event}_mono": f"{clocks.monotonic():.3f}"}
