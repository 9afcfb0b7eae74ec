"""The way of a command to its slot: what was asked for becomes a claim, and a person sees why it waits."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from ipclock import config, line, snapshot
from ipclock.claim import Claim
from ipclock.folder import GATE, HOLDING, QUEUED
from ipclock.messages import _
from ipclock.patience import Patience
from ipclock.progress import Progress, say

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Callable

    from ipclock.config import Settings
    from ipclock.pool import Pool
    from ipclock.process import Identity

DUE_PATIENCE_S = 10.0  # how long -n goes through the gate for a slot that is due to it


def is_nested(pool: Pool) -> bool:
    """Return whether a build around us holds a slot of this pool: waiting for another could wait for ever."""
    held = config.held_slot()
    if held is None:
        return False
    if held[0] not in ("", pool.name):
        # the innermost build is of another pool, but one around that may be of ours
        return snapshot.encloses_us(pool.store, snapshot.NESTED)
    if snapshot.encloses_us(pool.store, held[1]):
        return True
    text = _("ipclock: warning: IPCLOCK_TICKET={ticket} holds no slot around this process; ignored")
    say(text.format(ticket=ascii(held[1])))
    return False


def claim_for(
    label: str, settings: Settings, holder: Identity | None = None, holder_fd: int | None = None, *, supersede: bool
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
    )


def take_slot(pool: Pool, claim: Claim, args: Namespace, settings: Settings, check: Callable[[], None]) -> None:
    """Wait for a slot on behalf of a person, with the waiting line, until the claim holds one.

    *check* raises to stop waiting. A change of the capacity in the settings file is taken over meanwhile.
    """
    limit = settings.build_timeout
    block = not args.nonblock and limit > 0
    progress = Progress(
        limit,
        quiet=args.quiet,
        interval=settings.progress_interval,
        terminal=sys.stderr is not None and sys.stderr.isatty() and not config.plain_terminal(),
    )
    file = config.CapacityFile(settings)

    def on_wait(ticket: int) -> None:
        if (capacity := file.changed()) is not None:
            pool.resize(capacity, patience)
        if block and progress.due():
            now = snapshot.take(pool.store, pool.name, waiters=False)
            progress.waiting(now, snapshot.place(pool.store, ticket), _reasons(pool, claim))

    patience = Patience(limit if block else DUE_PATIENCE_S, check, on_wait, progress.stuck)
    try:
        pool.acquire(claim, patience, block=block)
    finally:
        progress.clear()
    if args.verbose:
        progress.details(claim.ticket, claim.slot)
    progress.acquired(claim.label, claim.held, pool.capacity)


def _reasons(pool: Pool, claim: Claim) -> list[str]:
    """Return what keeps the claim waiting besides the builds that run."""
    found = []
    state = GATE if pool.store.has(GATE, claim.entry) else QUEUED
    held_back = line.held_back(pool.store, state, claim.entry, pool.store.entries(HOLDING), pool.capacity)
    if held_back == "size" and pool.capacity:
        found.append(_("wants {slots} slots of {capacity}").format(slots=claim.entry.units, capacity=pool.capacity))
    if held_back == "label":
        found.append(_("another build of this label runs"))
    return found
