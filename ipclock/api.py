"""The library's way to a slot: `with ipclock.slot("staging") as slot:`. Same protocol, same pools as the command."""

from __future__ import annotations

import os
import warnings
from typing import TYPE_CHECKING

from ipclock import acquisition, utf8
from ipclock.acquisition import BuildWait
from ipclock.config import values
from ipclock.config.settings import checked, load_settings
from ipclock.errors import UnsupportedError
from ipclock.history import recorder
from ipclock.linux import process
from ipclock.pool import local

if TYPE_CHECKING:
    from types import TracebackType

    from ipclock.config.settings import Settings
    from ipclock.pool.claim import Claim
    from ipclock.pool.local import LocalPool


class Slot:
    """A held slot: `name` of the pool, `label`, `ticket`, and `number` (1..N, unique among the holders).

    It counts as held while this process lives, and any process that inherited `fileno()`. Belongs to the thread that
    took it. Leaving the `with` block, or `release`, gives it back. Unlike `ipclock wrap` it does not write its record
    again if the pool's files are removed meanwhile.
    """

    def __init__(self, pool: LocalPool, label: str, claim: Claim, settings: Settings) -> None:
        self.name = utf8.text_of(pool.name)
        self.label = label
        self.ticket = claim.ticket
        self.number = claim.slot
        self._pool = pool
        self._claim = claim
        self._settings = settings
        self._process = os.getpid()
        self._held = True

    def fileno(self) -> int:
        """Return the descriptor that keeps the slot held.

        Hand it to children by `subprocess.Popen(pass_fds=...)`: then their build counts even if this process is
        killed. Raises ValueError once the slot is given back.
        """
        return self._pool.beacon(self._claim)

    def release(self) -> None:
        """Give the slot back; once more, or in a forked child, does nothing."""
        self._release("done")

    def _release(self, outcome: str) -> None:
        if self._process == os.getpid() and self._held:
            self._held = False
            self._pool.release(self._claim)
            outcome = "evicted" if self._claim.evicted else outcome
            if not self._claim.entry.within:
                recorder.slot_ended(self._pool, self._claim, self._settings, outcome, warnings.warn)
            self._pool.close()

    def __enter__(self) -> Slot:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._release("done" if kind is None else "failed")


def slot(
    label: str,
    *,
    timeout: float | None = None,
    block: bool = True,
    slots: int | None = None,
    priority: int | None = None,
    per_label: int | None = None,
    name: str | None = None,
    lock_dir: str | None = None,
    max_parallel_builds: int | None = None,
) -> Slot:
    """Wait for a slot and return it, to be used in a `with` statement.

    *timeout* is in seconds. The build takes so many *slots*, stands in line by *priority* (nice(1)), and runs beside
    fewer than *per_label* others of its label. What is not given comes from environment, settings file and defaults,
    as for the command line. Without *block*, or with a timeout of 0, only a slot that is free now is taken.
    *max_parallel_builds* becomes the pool's; in one that a group shares only if its owner or root says it, else there
    is a warning.

    Raises, all of them subclasses of IpclockError:
    SlotTimeout, SlotBusy and MutexStuckError (no slot in time: SlotUnavailable), SupersededError (a newer build of the
    label came), CancelledError (`ipclock cancel` took it out of the line), TooManySlotsError and
    PriorityNotAllowedError (the pool never gives that);
    InvalidValueError and SettingsError (a setting, or the file of them, is wrong), UnsupportedError (with ENGINE);
    PoolPermissionError (the pool is another user's: ForeignPoolError; shared with a group that we are no member of:
    NoMemberError), PoolElsewhereError (it lies in another directory than LOCK_DIR, which cannot be used);
    PoolCreateError (nothing can be written there; FewDescriptorsError: no file can be opened any more), NoPoolError (it
    is removed again and again), SemaphoreError (what lies there is none);
    UnavailableError (no usable /dev/shm; NoProcError: no proc(5)), ForeignLibraryError (the C library is not glibc).

    KeyboardInterrupt ends the wait; what other signal handlers raise meanwhile is dropped by posix_ipc, so such a
    handler sets a flag or calls `os._exit`. Inside a build of another process that holds a slot of the same pool it
    takes part in that slot, at once, and keeps it for as long as it lives.
    """
    options = {
        "BUILD_SLOTS": None if slots is None else str(slots),
        "BUILD_PRIORITY": None if priority is None else str(priority),
        "MAX_PER_LABEL": None if per_label is None else str(per_label),
        "BUILD_TIMEOUT": None if timeout is None else repr(timeout),
        "SEMAPHORE_NAME": name,
        "LOCK_DIR": lock_dir,
        "MAX_PARALLEL_BUILDS": None if max_parallel_builds is None else str(max_parallel_builds),
    }
    checked(values.label, label, "LABEL")
    settings = load_settings(options)
    if settings.engine:
        raise UnsupportedError(settings.engine.partition("?")[0], "ipclock.slot")
    pool = local.open_pool(settings)
    claim = acquisition.claim_for(label, settings)
    try:
        wanted = settings.max_parallel_builds
        if wanted is not None and wanted != pool.capacity and not pool.heeds_us:
            from ipclock.display.formatting import not_heeded  # few meet an owner who says another number

            warnings.warn(not_heeded(settings.pool_name, pool.capacity, wanted, pool.store.owner), stacklevel=2)
        wait = BuildWait(pool, claim, settings, block=block)
        # not in a slot that this very process has taken: its threads and loops hold slots of their own
        around = pool.around_us(process.identify(os.getpid()))
        if not (around and pool.join(claim, wait, max(around))):
            acquisition.acquire(pool, claim, settings, wait, warn=warnings.warn)
        return Slot(pool, label, claim, settings)
    except BaseException:
        pool.close()
        raise
