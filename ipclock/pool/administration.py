"""What is done to a pool as a whole, or to another client in it: its size, its drain, its rights; resets and cancels.

Each is one section, and works in place: waiters sleep on through it. What only the owner may do raises ForeignPoolError
(77) for others.
"""

from __future__ import annotations

from contextlib import ExitStack

from ipclock._typing import TYPE_CHECKING
from ipclock.errors import (
    NoTicket,
    NotYourBuild,
)
from ipclock.linux.semaphore import give
from ipclock.pool.cancellation import Cancellation
from ipclock.pool.directory import HOLDING, QUEUED, STATES
from ipclock.pool.notes import Fairness
from ipclock.pool.sections import Sections
from ipclock.pool.wait_context import WaitContext
from ipclock.utf8 import printable

if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import TypeVar

    from ipclock.pool.notes import Drain
    from ipclock.pool.record import Record
    from ipclock.pool.record_name import RecordName

    T = TypeVar("T")


class Administration(Sections):
    """A pool as its administrators use it."""

    def resize(self, capacity: int, context: WaitContext) -> None:
        """Make *capacity* the pool's, for waiting builds too. Running builds are never stopped for it."""
        self._wanted = capacity
        self.tidy(context)

    def drain(self, drain: Drain | None, context: WaitContext) -> None:
        """Admit no build from now on, or (None) go on admitting. Running builds are never stopped for it."""
        with self._mutex(context):
            self.store.drain = drain
            self.recover(self.store.entries(QUEUED))

    def be_fair(self, between: str, context: WaitContext) -> None:
        """Let builds of one priority take turns between users or sessions ("user", "session"), or not ("off").

        Those that wait follow at their ticks. Raises ForeignPoolError (77): the pool's owner says that.
        """
        with self._mutex(context):
            if between != self._fair_between():
                self.store.require_owner()
                self.store.fairness = None if between == "off" else Fairness(between)

    def allow_priority(self, lowest: int, context: WaitContext) -> None:
        """Let all members of the pool ask for a priority from *lowest* on.

        Raises ForeignPoolError (77): its owner says that.
        """
        with self._mutex(context):
            if lowest != self.store.lowest_priority:
                self.store.require_owner()
                self.store.lowest_priority = lowest

    def share(self, group: int | None, context: WaitContext) -> None:
        """Let *group* (gid) use the pool too, or only its owner.

        Raises ForeignPoolError (77) for others than owner and root.
        """
        with self._mutex(context):
            self.store.share(group)
            give(self.gate, self.store.mode, group)

    def reset(
        self, context: WaitContext, ticket: int | None = None, *, nested: bool = True
    ) -> list[tuple[RecordName, Record]]:
        """Take all holders, or those in the slot of *ticket*, off the records; return those of the living.

        A reset of all also forgets the builds of an earlier directory, which only their locks tell of. Without *nested*
        only the one with *ticket* goes; the slot stays taken while others live in it. Their processes go on. Works in
        place: waiters sleep on the semaphore that is there, so it is never replaced.
        Raises NoTicket (2).
        """
        with self._mutex(context):
            holders = self.store.entries(HOLDING)
            outer = {entry.outer for entry in holders if ticket in (None, entry.ticket)}
            if ticket is not None and not outer:
                raise NoTicket(ticket)
            entries = [entry for entry in holders if entry.outer in outer and (nested or entry.ticket == ticket)]
            # epoch first: a holder that misses its record under the old epoch would write it again
            self.store.epoch += 1
            if ticket is None:  # one slot given back says nothing of the builds of an earlier directory
                self.store.settled = True
                self.store.remove_strays()
            living = [entry for entry in entries if not self._is_dead(HOLDING, entry)]
            evicted = [(entry, record) for entry in living if (record := self.store.read(HOLDING, entry))]
            for entry in entries:
                self._clear(HOLDING, entry)
            self.recover(self.store.entries(QUEUED))
        return evicted

    def cancel(
        self, tickets: Iterable[int], cancellation: Cancellation, context: WaitContext
    ) -> list[tuple[RecordName, Record]]:
        """Ask the clients that have these tickets to end, by a line in their records; return what they were asked in.

        All of them, or none. A client heeds it at its next tick; a waiter in line is woken for it.
        Raises NoTicket (2), NotYourBuild and PoolPermissionError (77).
        """
        with self._mutex(context), ExitStack() as closing:
            found = []
            for ticket in tickets:
                places = self._places(ticket)
                if not places:
                    raise NoTicket(ticket)
                found += [(place, closing.enter_context(self.store.opened(*place))) for place in places]
            for (_state, entry), file in found:
                if not (file.is_ours or self.store.is_ours()):
                    label = printable(file.record.fields.get("label", "?"))
                    raise NotYourBuild(entry.ticket, label, file.record.user)
            for (state, entry), file in found:
                # append, then post: a waiter that wakes first must find the line, or it sleeps on
                file.tell(cancellation.fields())
                if state == QUEUED:
                    self.turns.post(entry.ticket)
        return [(entry, file.record) for (_state, entry), file in found]

    def drop(self, ticket: int, context: WaitContext) -> list[tuple[RecordName, Record]]:
        """Clear away what the dead have left that had this ticket, as a sweep would in time; return what it was."""
        dropped = []
        with self._mutex(context):
            for state in STATES[1:]:
                for entry in self.store.entries(state):
                    if entry.ticket == ticket and self._is_dead(state, entry):
                        if record := self.store.read(state, entry):
                            dropped.append((entry, record))
                        self._clear(state, entry)
            self.recover()
        return dropped

    def heed_fairness(self, between: str) -> None:
        """Do the same in the next section, for the pool's owner or root."""
        self._between = between
