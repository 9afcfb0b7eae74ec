"""A pool that several hosts share, kept by ZooKeeper servers. contrib/engine.md tells why it is as it is.

    /oracle-build                        {"capacity": 2, "drain": null}
    /oracle-build/line/<id>-0000000016   a waiter, by the session of its process: it goes when that does
    /oracle-build/slots/17.1             who holds slot 1 with ticket 17 (the number in line, and one)

The way of kazoo's Semaphore, whose nodes these are but for their names: one stands in line under a number of the
servers', watches the one before, and as the first one watches the slots. Guarantees: a slot is taken by one transaction
that ends the place in line, only by the first in line, and only if the capacity that was counted by still holds, so
there are never more slots taken than there are (INV-2). Does not guarantee that a build that has lost its session has
also stopped: see `Claim.lease`. One file, because the order of the steps is one argument.
"""

from __future__ import annotations

import math
import os
import signal
import time
import uuid
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

from ipclock.config import engine_url
from ipclock.console import say
from ipclock.errors import (
    N_,
    EngineFailed,
    InvalidValueError,
    NoPoolError,
    NoTicket,
    SlotBusy,
    UnsupportedError,
    reason_of,
)
from ipclock.i18n import _
from ipclock.linux import process
from ipclock.pool import policy
from ipclock.pool.claim import Lease, RemovedHolder, stamp
from ipclock.pool.record_name import RecordName
from ipclock.pool.snapshot import Said, empty, text_in
from ipclock.run import supervisor
from ipclock.zookeeper.nodes import Nodes, packed, ticket_of
from ipclock.zookeeper.session import Cut, Session, host_name

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import NoReturn, TypeVar

    from ipclock.config.settings import Settings
    from ipclock.pool.claim import Claim
    from ipclock.pool.headroom import Headroom
    from ipclock.pool.notes import Drain
    from ipclock.pool.snapshot import Snapshot
    from ipclock.pool.wait_context import WaitContext
    from ipclock.zookeeper.session import Beat

    T = TypeVar("T")

CHUNK_S = 0.25  # of sleep, between two looks at signals and the clock
LOOK_S = 60.0  # a waiter looks so often by itself, beside its watches
AGAIN_S = 0.1
GLANCE_S = 0.5  # for what a waiter only shows
LEAVE_S = 3.0  # for an answer to who leaves, or changes the pool
BEATS = 10  # proofs in a session's time
MARGIN = 6  # the last part of a session's time, of so many, in which the session is not relied on any more


class SharedPool:
    """The engine (`engine.Engine`) of pools on ZooKeeper. It serves one claim, and connects when it is first used."""

    keeps_without_us = False
    heeds_us = True

    def __init__(self, settings: Settings, *, make: bool = True) -> None:
        engine = settings.engine or ""
        try:
            self._address = engine_url.parse(engine)
        except OSError as error:
            raise InvalidValueError("ENGINE", str(error.filename), reason_of(error)) from None
        except ValueError as error:
            raise InvalidValueError("ENGINE", engine, str(error)) from None
        if settings.shared_with is not None or settings.lock_mode is not None:
            self._refuse("LOCK_GROUP, LOCK_MODE")
        self.name = self._address.path
        self.where = str(self._address)
        self.capacity = settings.max_parallel_builds or 1  # until we look
        self._wanted = settings.max_parallel_builds
        self._makes = make
        self._opened: Nodes | None = None
        self._me = uuid.uuid4().hex
        self._data: dict[str, Any] = {}
        self._node = ""
        self._session_id = 0  # the one that the lease belongs to
        self._beat: Beat | None = None
        self._proven_at = float("-inf")
        self._seen: Snapshot | None = None

    @property
    def _nodes(self) -> Nodes:
        if self._opened is None:
            session = Session(self._address)
            session.open()
            self._opened = Nodes(session, self.name, self.where)
            if self._makes:
                self._insist(self._make, LEAVE_S)
            elif self._insist(partial(session.exists, self.name), LEAVE_S) is None:
                raise NoPoolError(self.where)
        return self._opened

    @property
    def _session(self) -> Session:
        return self._nodes.session

    def _make(self) -> None:
        """Make what the pool lacks, and take over the capacity that was asked for."""
        session = self._session
        if session.exists(self.name) is None:
            session.make(self.name, packed({"capacity": self.capacity, "drain": None}))
        for part in ("line", "slots"):
            if session.exists(f"{self.name}/{part}") is None:
                session.make(f"{self.name}/{part}")
        self._take_over()

    def _take_over(self) -> None:
        if self._wanted is not None:
            self._change(capacity=self._wanted)
            self._wanted = None  # said once: a later change by another client stands

    def close(self) -> None:
        """End the session, and with it every slot that it holds."""
        if self._opened:
            self._opened.session.close()

    @property
    def tick_s(self) -> float:
        """How often `watch` is to be called."""
        # what a new connection proves is asked for at one tick and read at the next
        return min(1.0, self._session.timeout / MARGIN / 4)

    # A client's own way.

    def acquire(self, claim: Claim, context: WaitContext, *, block: bool = True) -> Claim:
        """Stand in line until the claim holds a slot."""
        self._refuse_what_we_lack(claim)
        claim.times = stamp("arrived")
        self._data = {
            "label": claim.label,
            "process": str(claim.holder or process.identify(os.getpid())),
            "host": host_name(),
            "user": process.user_name(os.getuid()),
            "timeout": context.timeout,
            "arrived": claim.times["arrived"],
        }
        try:
            session = self._session
            due = time.monotonic()
            while not claim.slot:
                if session.wake.is_set() or time.monotonic() >= due:
                    session.wake.clear()
                    session.limit = context.chunk(LEAVE_S)
                    self._wanted = context.capacity(self._wanted)
                    try:
                        due = self._step(claim, block=block)
                    except Cut:
                        due = time.monotonic() + AGAIN_S
                if not claim.slot:
                    session.wake.wait(context.chunk(CHUNK_S))
                    session.limit = context.chunk(GLANCE_S)
                    context.tick(claim.ticket)
        except BaseException:
            self.release(claim)
            raise
        session.limit = LEAVE_S
        return claim

    def _refuse_what_we_lack(self, claim: Claim) -> None:
        asked = {
            "--slots": claim.entry.units != 1,
            "--priority": claim.entry.priority != 0,
            "--per-label": claim.entry.limit != 0,
            "--supersede": claim.supersede,
            "--memory": claim.memory != 0,
            "--fd": claim.holder_fd is not None,
        }
        for option in (option for option, given in asked.items() if given):
            self._refuse(option)

    def _refuse(self, what: str) -> NoReturn:
        raise UnsupportedError("zookeeper", what)

    def _step(self, claim: Claim, *, block: bool) -> float:
        """Do what can be done now to come nearer to a slot. Raises Cut.

        Returns when (time.monotonic) to look again if no watch wakes us before.
        """
        nodes = self._nodes
        # an admission whose answer did not come may have been done
        later = time.monotonic() + LOOK_S
        self._take_over()
        if claim.ticket and self._was_admitted(claim):
            return later
        mine, ahead = self._place()
        if not mine:
            session = nodes.session
            self._data |= {"session": session.since, "session_timeout": session.timeout}
            # an answer that was lost is found by our id: else we would stand there twice
            session.stand(f"{nodes.line}/{self._me}-", packed(self._data))
            mine, ahead = self._place()
            if not mine:
                raise Cut
        claim.entry = RecordName(ticket_of(mine))
        if not block:
            self._refuse_to_wait(len(ahead))
        # only the one before: if all watched all, every end would wake all
        if ahead:
            there = nodes.session.exists(f"{nodes.line}/{ahead[-1]}", watch=True)
            return later if there else time.monotonic()
        return min(later, self._admit(claim, mine))

    def _place(self) -> tuple[str, list[str]]:
        """Return the name of our node in line, and those before it in order; "" where we do not stand there."""
        in_line = self._nodes.in_line()
        own = next((name for name in in_line if name.startswith(self._me)), "")
        return own, in_line[: in_line.index(own)] if own else []

    def _refuse_to_wait(self, ahead: int) -> None:
        pool, taken = self._nodes.pool(), len(self._nodes.slots())
        if taken + ahead >= pool.allowed():
            raise SlotBusy(taken, pool.capacity, ahead)

    def _admit(self, claim: Claim, mine: str) -> float:
        """Take a slot, as the first in line, if one is free; else return when there could be one by time alone."""
        nodes = self._nodes
        # after the look at the line: the one that stood there before has taken its slot as it left, so it is seen here.
        # What we count can only become less meanwhile; the capacity is checked again by its version
        pool = nodes.pool(watch=True)
        taken = nodes.slots(watch=True)
        self.capacity = pool.capacity
        drained = pool.drained()
        if len(taken) >= policy.limit(pool.capacity, drained is not None):
            return drained.until if drained and drained.until else float("inf")
        claim.times |= stamp("admitted")
        self._data["admitted"] = claim.times["admitted"]
        entry = claim.entry._replace(slot=policy.lowest_free_slot([entry.slot for entry in taken]))
        begun = time.monotonic()
        line = f"{nodes.line}/{mine}"
        if nodes.session.turn_into(line, nodes.slot(entry), packed(self._data), (self.name, pool.version)):
            self._take(claim, entry, begun)
        return time.monotonic()

    def _was_admitted(self, claim: Claim) -> bool:
        entry = next((entry for entry in self._nodes.slots() if entry.ticket == claim.ticket), None)
        begun = time.monotonic()
        # a write: only that shows that the session lives
        if entry is None or not self._session.put(self._nodes.slot(entry), packed(self._data), -1):
            return False
        self._take(claim, entry, begun)
        return claim.slot > 0

    def _take(self, claim: Claim, entry: RecordName, begun: float) -> None:
        """Take note of a slot, if it is this session's: that of an earlier one may just be going."""
        session, node = self._session, self._nodes.slot(entry)
        stat = session.exists(node, watch=True)
        if stat is None or stat.owner != session.id:
            return
        self._node, self._session_id = node, stat.owner
        claim.lease = Lease(str(stat.czxid))
        claim.held = len(self._nodes.slots())
        self._vouch(claim.lease, begun)
        claim.entry = entry

    def _vouch(self, lease: Lease, begun: float) -> None:
        """Believe in the session for as long as it lasts from *begun* on, when it was last known to live."""
        self._proven_at = begun
        lease.grace = self._session.timeout / MARGIN
        lease.until = begun + self._session.timeout - lease.grace

    def join(self, claim: Claim, context: WaitContext, ticket: int) -> bool:
        """Return True: a build inside another one needs nothing of its own, and ends with it."""
        return True

    def note(self, claim: Claim, **facts: object) -> None:
        """Write facts into the claim's node."""
        self._data |= facts
        self._prove()

    def beacon(self, claim: Claim) -> int | None:
        """Return None: what keeps the slot is this process's session, which no build can inherit."""
        return None

    def _prove(self) -> None:
        if self._beat is None and self._node:
            self._beat = self._session.beat(self._node, packed(self._data))

    def watch(self, claim: Claim) -> None:
        """Ask for a proof that the session lives, take note of the last one, and of a reset; never waits."""
        session, lease = self._session, claim.lease
        if lease is None or not self._node or claim.evicted:
            return
        there = None
        try:
            there = self._beat.outcome() if self._beat else None
        except Cut:
            self._beat = None
        if there is not None and self._beat:
            begun, self._beat = self._beat.begun, None
            if there and session.id == self._session_id:
                self._vouch(lease, begun)
        silent_s = time.monotonic() - self._proven_at
        lease.doubtful = not session.connected or silent_s > session.timeout / 3
        if session.connected and session.id != self._session_id:
            lease.until = float("-inf")  # the servers have ended the session, and so the slot
        elif there is False:
            # the session lives: a reset has taken the slot away
            claim.evicted, lease.until = True, float("inf")
        elif session.connected and (session.wake.is_set() or silent_s > session.timeout / BEATS):
            session.wake.clear()  # by the watch on our node, perhaps
            self._prove()

    def release(self, claim: Claim, ended: int | None = None) -> None:
        """Take our nodes away and end the session; where no server answers in time they go when it ends by itself."""
        if self._opened is None:
            return
        session = self._opened.session
        session.limit = LEAVE_S
        try:
            claim.evicted = not self._leave() or claim.evicted
            answered = True
        except Cut:
            answered = self._leave_later(claim.label)
        self._node = ""
        session.close(LEAVE_S if answered else 0)

    def _leave(self) -> bool:
        """Take our nodes away; return whether the slot's was there. Raises Cut."""
        there = not self._node or self._session.remove(self._node)
        mine, _ahead = self._place()
        if mine:
            self._session.remove(f"{self._nodes.line}/{mine}")
        return there

    def _leave_later(self, label: str) -> bool:
        """Ask again while a session that had a slot may live, or until a signal; return whether it was answered.

        A node that is gone by now tells of no reset: we may have removed it without an answer.
        """
        until = self._proven_at + self._session.timeout
        if (left := until - time.monotonic()) <= 0:
            return False
        text = _(
            "ipclock: warning: no ZooKeeper server responds; trying for {seconds} s to release the slot of {label}"
            " (Ctrl-C gives up)"
        )
        say(text.format(seconds=math.ceil(left), label=label), at_once=True)
        while (left := until - time.monotonic()) > 0 and not signal.sigpending().intersection(supervisor.ENDING):
            self._session.limit = min(LEAVE_S, left)
            with suppress(Cut):
                self._leave()
                return True
            time.sleep(AGAIN_S)  # no answer came: there is nothing to wait for
        return False

    # What there is to see.

    def snapshot(self, *, waiters: int | None = None, own: int = 0) -> Snapshot:
        """Return the pool as it stands, or where no server answers as we last saw it."""
        nodes = self._nodes
        try:
            self._seen = nodes.snapshot(waiters=waiters, own=own, capacity=self.capacity)
        except Cut:
            if self._seen is None and not self._data:
                raise EngineFailed(self.where, N_("no ZooKeeper server responds")) from None
        return self._seen or empty(self.name, self.capacity)  # a waiter goes on, whatever it could be shown

    def holds(self, ticket: int) -> bool:
        """Return whether the ticket has a slot."""
        return any(entry.ticket == ticket for entry in self._insist(self._nodes.slots, LEAVE_S))

    def around_us(self, besides: process.Identity | None = None) -> list[int]:
        """Return the tickets of the builds that this process runs inside of, by their processes on this host."""
        return self._insist(self._nodes.tickets_around_us, LEAVE_S)

    def encloses_us(self, ticket: str) -> bool:
        """Return whether this process runs inside the build that holds *ticket*."""
        return ticket in map(str, self.around_us())

    def kept_by(self, _ticket: int) -> list[int]:
        """Return none: no process inherits such a slot."""
        return []

    def ended_with(self, _ticket: int) -> int | None:
        """Return nothing: the servers have cleared it away."""
        return None

    # What an administrator does.

    def resize(self, capacity: int, context: WaitContext) -> None:
        """Make *capacity* the pool's; the first in line sees it by its watch. A waiter does so when it can."""
        self._wanted = capacity
        if not self._data:
            self._insist(self._make, context.chunk(LEAVE_S))
        self._session.wake.set()

    def drain(self, drain: Drain | None, context: WaitContext) -> None:
        """Admit no build from now on, or (None) go on admitting."""
        said = None
        if drain:
            until = None if drain.until is None else time.time() + drain.until - time.monotonic()
            said = {"reason": drain.reason, "uid": drain.uid, "until": until}
        self._insist(partial(self._change, drain=said), context.chunk(LEAVE_S))

    def _change(self, **said: Any) -> None:
        while True:
            pool = self._nodes.pool()
            now = {"capacity": pool.capacity, "drain": pool.drain}
            if now | said == now or self._session.put(self.name, packed(now | said), pool.version):
                self.capacity = (now | said)["capacity"]
                return

    def evict(self, context: WaitContext, ticket: int | None = None, *, nested: bool = True) -> list[RemovedHolder]:
        """Remove the nodes of slots. Raises NoTicket (2)."""
        taken = self._insist(self._nodes.slots, context.chunk(LEAVE_S))
        entries = [entry for entry in taken if ticket in (None, entry.ticket)]
        if ticket is not None and not entries:
            raise NoTicket(ticket)
        found = (self._insist(partial(self._evict, entry), LEAVE_S) for entry in entries)
        return [ended for ended in found if ended]

    def _evict(self, entry: RecordName) -> RemovedHolder | None:
        path = self._nodes.slot(entry)
        found = self._nodes.said(path)
        if found is None or not self._session.remove(path):
            return None
        fields, _stat = found
        said = Said.parse(fields)
        shown = f"{said.label} @ {text_in(fields, 'host')}"
        # its own supervisor or keeper tells of it, where it runs
        pid = str(said.command_pid or said.pid or "?")
        return RemovedHolder(entry, said.label, shown, pid, 0, {}, supervised=True)

    def take_dead(self) -> list[RemovedHolder]:
        """Return nothing: it is the servers who clear the dead away."""
        return []

    def end(self, ticket: int) -> None:
        """Raise UnsupportedError (69): the processes may be another host's."""
        self._refuse("reset --kill")

    def share(self, group: int | None, context: WaitContext) -> None:
        """Raise UnsupportedError (69): who may use the pool is said by the password and the servers."""
        self._refuse("LOCK_GROUP, LOCK_MODE")

    def allow_priority(self, lowest: int, context: WaitContext) -> None:
        """Raise UnsupportedError (69)."""
        self._refuse("PRIORITY_MIN")

    def be_fair(self, between: str, context: WaitContext) -> None:
        """Raise UnsupportedError (69), but for what is the case."""
        if between != "off":
            self._refuse("FAIR")

    def tidy(self, context: WaitContext) -> None:
        """Make what the pool lacks."""
        self._insist(self._make, context.chunk(LEAVE_S))

    def headroom(self, need: int) -> Headroom:
        """Raise UnsupportedError (69): the memory of one host says nothing of the others'."""
        self._refuse("MEMORY, MIN_FREE_MEMORY")

    def _insist(self, what: Callable[[], T], seconds: float) -> T:
        """Do it, again where no answer came. Raises EngineFailed (69) when the time is up."""
        deadline = time.monotonic() + seconds
        while True:
            try:
                return what()
            except Cut:
                if time.monotonic() >= deadline:
                    raise EngineFailed(self.where, N_("no ZooKeeper server responds")) from None
            time.sleep(AGAIN_S)  # no answer came: there is nothing to wait for


def looker(settings: Settings) -> Callable[[], Snapshot]:
    """Return what reads the pool that the settings name, time and again. It makes nothing; raises NoPoolError (69)."""
    return SharedPool(settings, make=False).snapshot
