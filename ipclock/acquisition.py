"""The way to a slot that `wrap`, `acquire` and `ipclock.slot` share: the claim, the wait, what came of it.

Guarantees that a wait which ends without a slot leaves nothing behind in the pool and stands in the history.
"""

from __future__ import annotations

from ipclock._typing import TYPE_CHECKING
from ipclock.config.settings import CapacityFile
from ipclock.errors import Interrupted, SlotUnavailable, SupersededError
from ipclock.history import finished, recorder
from ipclock.pool.claim import Claim
from ipclock.pool.wait_context import DUE_S, WaitContext

if TYPE_CHECKING:
    from collections.abc import Callable

    from ipclock.config.settings import Settings
    from ipclock.errors import IpclockError
    from ipclock.linux.process import Identity
    from ipclock.pool.engine import Client
    from ipclock.pool.headroom import Headroom
    from ipclock.run.hooks import Hooks


def claim_for(
    label: str,
    settings: Settings,
    holder: Identity | None = None,
    holder_fd: int | None = None,
    *,
    supersede: bool = False,
) -> Claim:
    """Return the claim that the settings ask for."""
    return Claim(
        label,
        holder,
        holder_fd,
        units=settings.build_slots,
        priority=settings.build_priority,
        limit=settings.max_per_label or 0,
        supersede=supersede,
        memory=_memory_for(label, settings),
    )


def _memory_for(label: str, settings: Settings) -> int:
    """Return how many bytes a build of this label is expected to need, 0 where that is not known."""
    if isinstance(settings.memory, int):
        return settings.memory
    known = None
    if settings.memory == "auto" and settings.history:
        known = finished.expected(settings.history, label)
    return (known and known.memory) or settings.min_free_memory or 0


class BuildWait(WaitContext):
    """The wait of one claim as the settings have it: as long as they say, until there is memory too.

    A change of the capacity in the settings file is taken over meanwhile: in each section, so that no build is admitted
    by an older one, and at each tick. Without `block` only a slot that is due at once is taken.
    """

    def __init__(
        self,
        pool: Client,
        claim: Claim,
        settings: Settings,
        check: Callable[[], None] | None = None,
        *,
        block: bool,
    ) -> None:
        self.block = block and settings.build_timeout > 0
        super().__init__(settings.build_timeout if self.block else DUE_S, check)
        self.headroom: Headroom | None = None
        if settings.memory is not None or settings.min_free_memory is not None:
            self.headroom = pool.headroom(claim.memory)
            claim.ready = self.headroom.ready
        self._pool = pool
        self._capacity_file = CapacityFile(settings if pool.heeds_us else None)

    def resized(self) -> int | None:
        """Return what the settings file gives as the capacity, if that has changed."""
        return self._capacity_file.changed()

    def waiting(self, ticket: int) -> None:
        """Take over a changed capacity: it wakes no waiter by itself."""
        if (capacity := self.resized()) is not None:
            self._pool.resize(capacity, self)

    def refused(self, error: IpclockError) -> None:
        """The wait has ended without a slot; hooks and history do not know yet."""

    def admitted(self) -> None:
        """The claim holds a slot; hooks and history do not know yet."""


def acquire(
    pool: Client,
    claim: Claim,
    settings: Settings,
    wait: BuildWait,
    hooks: Hooks | None = None,
    warn: Callable[[str], None] | None = None,
) -> None:
    """Wait until the claim holds a slot. Raises SlotTimeout or SlotBusy (75) and whatever *wait* raises.

    A program with its own way to *warn* gets there what keeps a wait out of the history.
    """
    try:
        pool.acquire(claim, wait, block=wait.block)
    except (SlotUnavailable, Interrupted, SupersededError) as error:
        wait.refused(error)
        outcome = recorder.wait_ended(pool, claim, settings, error, warn)
        if hooks and isinstance(error, SlotUnavailable):
            hooks.tell_of("timeout", claim, outcome)
        raise
    wait.admitted()
    if hooks:
        hooks.tell_of("acquire", claim)
