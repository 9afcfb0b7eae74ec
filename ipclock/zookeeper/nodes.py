"""What the nodes of a pool on ZooKeeper say of it, read and understood: its capacity, its line, its slots.

Changes nothing. What others have written is told as it is, with "?" for what cannot be understood. Every call asks the
servers, and raises Cut where none answers. Times are by the clocks of the hosts, so they are for people only.
"""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any, NamedTuple

from ipclock.bounded import LAST_TICKET, moment_in, whole
from ipclock.errors import N_, EngineFailed
from ipclock.linux import clocks, process
from ipclock.pool import policy
from ipclock.pool.notes import Drain
from ipclock.pool.record_name import RecordName, parse
from ipclock.pool.snapshot import Holder, Origin, Place, Said, Snapshot, Waiter, empty, text_in

if TYPE_CHECKING:
    from ipclock.zookeeper.session import NodeStat, Session


class PoolNode(NamedTuple):
    """What the pool's node says, and its version. A drain ends by the wall clock: hosts share no other one."""

    capacity: int
    drain: dict[str, Any] | None
    version: int

    def drained(self) -> Drain | None:
        """Return the drain in force now."""
        if self.drain is None:
            return None
        left = None if self.drain["until"] is None else self.drain["until"] - time.time()
        if left is not None and left <= 0:
            return None
        return Drain(self.drain["reason"], self.drain["uid"], None if left is None else time.monotonic() + left)

    def allowed(self) -> int:
        """Return how many may hold slots now."""
        return policy.limit(self.capacity, self.drained() is not None)


class Nodes:
    """The nodes under the path *name*."""

    def __init__(self, session: Session, name: str, where: str) -> None:
        self.session = session
        self.name = name
        self.line = f"{name}/line"
        self._where = where

    def slot(self, entry: RecordName) -> str:
        """Return the path of the node of a slot."""
        return f"{self.name}/slots/{entry.file if entry.ticket else entry.rest}"

    def pool(self, *, watch: bool = False) -> PoolNode:
        """Return what the pool's node says. Raises EngineFailed (69) where it is none of ours."""
        found = self.session.get(self.name, watch=watch)
        try:
            if found is None:
                raise ValueError
            said = json.loads(found[0])
            return PoolNode(int(said["capacity"]), said["drain"], found[1].version)
        except (ValueError, KeyError, TypeError):
            raise EngineFailed(self._where, N_("not an ipclock pool")) from None

    def slots(self, *, watch: bool = False) -> list[RecordName]:
        """Return the slots taken. A name that is none of ours takes one too: what is not known is not free."""
        found = self.session.children(f"{self.name}/slots", watch=watch)
        return sorted((parse(name) or RecordName(0, rest=name) for name in found), key=lambda entry: entry.slot)

    def in_line(self) -> list[str]:
        """Return the names of the waiters, the first one first."""
        return sorted(self.session.children(self.line), key=ticket_of)

    def said(self, path: str) -> tuple[dict[str, Any], NodeStat] | None:
        """Return what a client has written of itself; None where it is gone."""
        found = self.session.get(path)
        if found is None:
            return None
        try:
            said = json.loads(found[0])
        except ValueError:
            said = None
        return said if isinstance(said, dict) else {}, found[1]

    def snapshot(self, *, waiters: int | None, own: int, capacity: int) -> Snapshot:
        """Return the pool as `engine.Engine` has it; one that is not made yet is empty, with *capacity* slots."""
        if self.session.exists(self.name) is None:
            return empty(self.name, capacity)
        pool = self.pool()
        taken = self.slots()
        holders = [holder for entry in taken if (holder := self._holder(entry))]
        free = max(0, pool.allowed() - len(taken))
        line = self.in_line() if own or waiters != 0 else []
        drain = pool.drained()
        return Snapshot(
            name=self.name,
            capacity=pool.capacity,
            taken=len(taken),
            free=free,
            drained=drain is not None or pool.capacity == 0,
            drain=drain,
            holders=holders,
            waiters=self._waiters(line, waiters),
            own=next((Place(place, "") for place, name in enumerate(line, 1) if ticket_of(name) == own), None),
        )

    def tickets_around_us(self) -> list[int]:
        """Return the tickets of the builds that this process runs inside of, by their processes on this host."""
        found = ((entry.ticket, self.said(self.slot(entry))) for entry in self.slots())
        ancestors = process.ancestors()
        bounds = [(ticket, process.Identity.of(said[0])) for ticket, said in found if said]
        return [ticket for ticket, bound in bounds if bound and any(map(bound.names, ancestors))]

    def _holder(self, entry: RecordName) -> Holder | None:
        found = self.said(self.slot(entry))
        if found is None:
            return None
        fields, stat = found
        said, now = Said.parse(fields), time.time()
        who, command = said.who, said.command_pid
        here = _is_here(who)
        # it writes its node ten times in a session
        silent_s = now - stat.modified
        state = "doubtful" if silent_s > (moment_in(fields, "session_timeout") or 0) / 2 else "running"
        if here and who and (process.is_stopped(who) or (command and process.stopped(command))):
            state = "stopped"
        return Holder(
            ticket=entry.ticket,
            slot=entry.slot,
            slots=1,
            label=said.label,
            pid=said.pid,
            command_pid=command,
            user=text_in(fields, "user"),
            since=said.admitted,
            held_s=clocks.elapsed(said.admitted, now),
            state=state,
            here=here,
            processes=[],
            host=text_in(fields, "host"),
            session_s=clocks.elapsed(moment_in(fields, "session"), now),
            token=str(stat.czxid),
            origin=Origin(here),
        )

    def _waiters(self, line: list[str], most: int | None) -> list[Waiter]:
        found: list[Waiter] = []
        for name in line:
            if len(found) == most:
                break
            told = self.said(f"{self.line}/{name}")
            if told is None:
                continue
            fields = told[0]
            said, now = Said.parse(fields), time.time()
            found.append(
                Waiter(
                    ticket=ticket_of(name),
                    position=len(found) + 1,
                    slots=1,
                    priority=0,
                    held_back="",
                    label=said.label,
                    pid=said.pid,
                    user=text_in(fields, "user"),
                    since=said.arrived,
                    waited_s=clocks.elapsed(said.arrived, now),
                    timeout_s=said.timeout,
                    at_gate=not found,
                    host=text_in(fields, "host"),
                    session_s=clocks.elapsed(moment_in(fields, "session"), now),
                    origin=Origin(_is_here(said.who)),
                )
            )
        return found


def _is_here(who: process.Identity | None) -> bool:
    """Return whether it is a process of this host, and of our PID namespace."""
    return who is not None and (who.boot, who.namespace) == (clocks.boot_id(), process.namespace())


def ticket_of(name: str) -> int:
    """Return the ticket of one in line: the servers' number and one, since 0 is no ticket."""
    found = whole(name.rpartition("-")[2], LAST_TICKET)
    return 0 if found is None else found + 1


def packed(said: dict[str, Any]) -> bytes:
    """Return what a node is to say."""
    return json.dumps(said, ensure_ascii=False).encode()
