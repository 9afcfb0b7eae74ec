"""What the commands need of a pool, wherever it is kept: a machine's /dev/shm, or servers that several hosts share.

A command is given what it needs of one, a `Client` or an `Administrator`, and never asks which engine it is. What one
cannot do it refuses by UnsupportedError (69), before a build stands in line for it; nothing is ignored.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from ipclock.linux.process import Identity
    from ipclock.pool.claim import Claim, RemovedHolder
    from ipclock.pool.headroom import Headroom
    from ipclock.pool.notes import Drain
    from ipclock.pool.snapshot import Snapshot
    from ipclock.pool.wait_context import WaitContext


class Engine(Protocol):
    """One named set of slots, as all commands see it. Use it from one thread."""

    @property
    def name(self) -> str:
        """The pool's name, as IPCLOCK_NAME tells it to a build: native."""

    @property
    def where(self) -> str:
        """Where the pool is: what `ipclock init` prints."""

    @property
    def capacity(self) -> int:
        """The number of slots, N."""

    def close(self) -> None:
        """Close what was opened; takes no slot away."""

    def snapshot(self, *, waiters: int | None = None, own: int = 0) -> Snapshot:
        """Return the pool as it stands, with the place of the waiter that has the ticket *own*.

        At most *waiters* of the line are read, from its head on: reading all of it takes its time.
        """

    def holds(self, ticket: int) -> bool:
        """Return whether the ticket has a slot."""

    def around_us(self, besides: Identity | None = None) -> list[int]:
        """Return the tickets of the builds that this process runs inside of, but for those that *besides* holds."""

    def encloses_us(self, ticket: str) -> bool:
        """Return whether this process runs inside the build that holds *ticket*: a proof, not a belief."""

    def kept_by(self, ticket: int) -> list[int]:
        """Return the PIDs of the processes that keep the slot, besides this one and those that it runs in."""

    def ended_with(self, ticket: int) -> int | None:
        """Return the PID of the process whose end was that of the slot, where that can still be told."""

    def take_dead(self) -> list[RemovedHolder]:
        """Return the holders that this client has found dead and cleared away, each of them once."""

    def resize(self, capacity: int, context: WaitContext) -> None:
        """Make *capacity* the pool's, for waiting builds too."""


class Client(Engine, Protocol):
    """What a build asks of a pool, from its arrival to its end."""

    @property
    def heeds_us(self) -> bool:
        """Whether it counts how many slots this client says that the pool is to have."""

    @property
    def keeps_without_us(self) -> bool:
        """Whether a script keeps the slot that `acquire` has taken for it after our process has ended."""

    @property
    def tick_s(self) -> float:
        """How often `watch` is to be called, in seconds."""

    def acquire(self, claim: Claim, context: WaitContext, *, block: bool = True) -> Claim:
        """Wait until the claim holds a slot and return it.

        Raises SlotTimeout or SlotBusy (75) and whatever *context* raises; then nothing is left behind.
        """

    def join(self, claim: Claim, context: WaitContext, ticket: int) -> bool:
        """Let the claim hold its own part of the slot of *ticket*, at once; False if that has been given back.

        On an engine whose nested builds are those around them the claim stays as it is.
        """

    def note(self, claim: Claim, **facts: object) -> None:
        """Add facts to what others can read of the claim. Raises OSError where that fails."""

    def beacon(self, claim: Claim) -> int | None:
        """Return the descriptor that keeps the slot held, for the build to inherit; None where there is none."""

    def watch(self, claim: Claim) -> None:
        """Look after the slot, every `tick_s` seconds; never blocks for long.

        Notices a lost slot: sets `claim.evicted` when a reset took it, and keeps `claim.lease` up to date.
        """

    def release(self, claim: Claim, ended: int | None = None) -> None:
        """Give the slot back, trying again for a while if no server answers. One that was taken away gives nothing.

        *ended* is the exit status of its build, or -n for signal n, for processes that wait for its end.
        """

    def headroom(self, need: int) -> Headroom:
        """Return what tells whether there is memory for a build that needs so many bytes (0: not known)."""


class Administrator(Engine, Protocol):
    """What is done to a pool as a whole, or to another build in it."""

    def drain(self, drain: Drain | None, context: WaitContext) -> None:
        """Admit no build from now on, or (None) go on admitting."""

    def evict(self, context: WaitContext, ticket: int | None = None, *, nested: bool = True) -> list[RemovedHolder]:
        """Take the slots of all holders, or the slot of *ticket*; return the living, whose processes go on.

        Without *nested* the builds that run in that slot beside *ticket* keep it. Raises NoTicket (2).
        """

    def end(self, ticket: int) -> None:
        """End the processes that keep a slot, and all that they have started. Raises StillRunning (77)."""

    def share(self, group: int | None, context: WaitContext) -> None:
        """Let *group* (gid) use the pool too, or only its owner. Raises ForeignPoolError (77)."""

    def allow_priority(self, lowest: int, context: WaitContext) -> None:
        """Let all members of the pool ask for a priority from *lowest* on. Raises ForeignPoolError (77)."""

    def be_fair(self, between: str, context: WaitContext) -> None:
        """Let builds of one priority take turns between users or sessions ("user", "session"), or not ("off").

        Raises ForeignPoolError (77).
        """

    def tidy(self, context: WaitContext) -> None:
        """Make the pool whole, and clear away who died in it."""


class PoolEngine(Client, Administrator, Protocol):
    """A pool for builds and for administrators, as `options.open_pool` returns it."""
