"""What a waiting build shows: its place, the builds and the reasons that it waits for, an estimate.

Every waiter computes this, so the total cost grows with the queue. Results are kept for a while, and past place 20 only
the place is shown.
"""

from __future__ import annotations

import time

from ipclock._typing import TYPE_CHECKING, NamedTuple
from ipclock.display.estimates import FARTHEST
from ipclock.display.formatting import activity_of, drained, estimate, gigabytes, pid_of, span, state_of
from ipclock.history.simulation import Range
from ipclock.i18n import _
from ipclock.pool.snapshot import Place

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ipclock.display.estimates import Activity, Estimator
    from ipclock.pool.build_watch import PoolWatch
    from ipclock.pool.claim import Claim
    from ipclock.pool.engine import Client
    from ipclock.pool.headroom import Headroom
    from ipclock.pool.snapshot import Holder, Snapshot

FORESEEN_S = 10.0  # how long an estimate is kept, as long as the queue does not move
WATCHED_S = 5.0  # from one look at what the builds use to the next


class WaitView(NamedTuple):
    """What a waiting build shows: the pool, its place, why else it waits, what the builds use, an estimate."""

    pool: Snapshot
    position: int
    reasons: list[str]
    uses: Mapping[int, Activity]
    left: Range | None

    def lines(self, waited: float, limit: float) -> tuple[str, str, str]:
        """Return how long the build has waited and why, the estimate, and the builds that it waits for."""
        seconds = int(waited)
        head = _("⏳ waiting ({waited}/{limit} s, left: {left} s, builds: {held}/{capacity})").format(
            waited=seconds,
            limit=f"{limit:g}",
            left=f"{max(0, limit - seconds):g}",
            held=self.pool.taken,
            capacity=self.pool.capacity,
        )
        why = [_("position {position} in queue").format(position=self.position), *self.reasons]
        if self.pool.drained:
            why.append(drained(self.pool))
        return " · ".join([head, *why]), estimate(self.left), " · ".join(map(self._holder, self.pool.outermost))

    def _holder(self, holder: Holder) -> str:
        uses = activity_of(self.uses.get(holder.ticket))
        facts = [
            f"PID: {pid_of(holder)}",
            *filter(None, [holder.host]),
            span(holder.held_s or 0),
            *state_of(holder),
            *uses,
        ]
        return f"{holder.label} ({', '.join(facts)})"


class WaitStatus:
    """The state of one wait, computed no more often than a reader needs."""

    def __init__(self, pool: Client | PoolWatch, claim: Claim, headroom: Headroom | None, estimator: Estimator) -> None:
        self._pool = pool
        self._claim = claim
        self._headroom = headroom
        self._estimator = estimator
        self._uses: dict[int, Activity] = {}
        self._watched_at = self._foreseen_at = float("-inf")
        self._line: object = None
        self._left: Range | None = None

    def view(self, ticket: int) -> WaitView:
        """Return what there is to tell now, of the pool at one moment."""
        now = self._pool.snapshot(waiters=0, own=ticket)
        moment = time.monotonic()
        if _line(now) != self._line or moment - self._foreseen_at >= FORESEEN_S:
            now = self._pool.snapshot(waiters=FARTHEST, own=ticket)
            self._left = self._estimator.wait(now, ticket)
            self._line, self._foreseen_at = _line(now), moment
        place = now.own or Place(1, "")  # it is just leaving the line
        reasons = _reasons(now, place, self._claim, self._headroom)
        if place.position > FARTHEST:
            return WaitView(now, place.position, reasons, {}, None)
        if moment - self._watched_at >= WATCHED_S:
            self._uses = self._estimator.look(now.holders)
            self._watched_at = moment
        gone = moment - self._foreseen_at
        left = self._left and Range(max(0.0, self._left.low - gone), max(0.0, self._left.high - gone))
        # what else keeps it waiting has no usual length
        return WaitView(now, place.position, reasons, self._uses, None if reasons else left)


def _line(pool: Snapshot) -> object:
    """Return what an estimate depends on besides the time."""
    return pool.own and pool.own.position, pool.capacity, [holder.ticket for holder in pool.holders]


def _reasons(pool: Snapshot, place: Place, claim: Claim, headroom: Headroom | None) -> list[str]:
    """Return what keeps the claim waiting besides the builds that run."""
    found = []
    if place.held_back == "size" and pool.capacity:
        found.append(_("needs {slots} of {capacity} slots").format(slots=claim.entry.units, capacity=pool.capacity))
    if place.held_back == "label":
        found.append(_("another build of this label is running"))
    if headroom and claim.entry.reserved == claim.entry.units:
        if headroom.left < headroom.need:
            text = _("waiting for memory: {left} of {need} GB")
            found.append(text.format(left=gigabytes(headroom.left), need=gigabytes(headroom.need)))
        elif headroom.pressed:
            found.append(_("waiting for memory: the machine is low on memory"))
    if pool.unlisted:
        text = _("slots held by locks without a record here: {units}")
        found.append(text.format(units=pool.unlisted))
    return found
