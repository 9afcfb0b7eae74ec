"""Ends a build before its lease is over, when another one can get the slot; or only warns (`--on-lost warn`)."""

from __future__ import annotations

import time

from ipclock._typing import TYPE_CHECKING
from ipclock.console import say
from ipclock.i18n import _
from ipclock.linux import terminate

if TYPE_CHECKING:
    from collections.abc import Callable

    from ipclock.config.settings import Settings
    from ipclock.pool.claim import Claim, Lease
    from ipclock.pool.engine import Client
    from ipclock.zookeeper.watchdog import Watchdog


class LeaseGuard:
    """Watches over the slot of one build. *find* returns the PIDs of its processes. `lost` once it was ended.

    A *watchdog* ends the build if we are not there to do it.
    """

    def __init__(
        self,
        pool: Client,
        claim: Claim,
        settings: Settings,
        find: Callable[[], list[int]],
        watchdog: Watchdog | None = None,
    ) -> None:
        self.lost = False
        self._watchdog = watchdog
        self._pid = 0
        self._pool = pool
        self._claim = claim
        self._kills = settings.on_lost == "kill"
        self._find = find
        self._doubted = self._warned = False

    @property
    def _lease(self) -> Lease:
        if self._claim.lease is None:
            raise ValueError("the claim has no slot yet")
        return self._claim.lease

    def begin(self, pid: int) -> None:
        """The build has started."""
        self._pid = pid
        self._renew()

    def end(self, status: int) -> None:
        """The build has ended, with this status or by a signal (-n): the watchdog's, if its time was over."""
        if self._watchdog:
            self._watchdog.renew(0, 0, 0)
        lease = self._lease
        late = time.monotonic() >= lease.until - lease.grace and not self._claim.evicted
        self.lost = self.lost or (self._kills and status < 0 and late)

    def _renew(self) -> None:
        if self._watchdog and self._pid:
            self._watchdog.renew(self._pid, self._lease.until, self._lease.grace)

    def tick(self) -> None:
        """Look after the slot; end the build if it is time."""
        claim, lease = self._claim, self._lease
        self._pool.watch(claim)
        self._renew()
        left = lease.until - time.monotonic()
        if lease.doubtful != self._doubted and not claim.evicted:
            self._doubted = lease.doubtful
            doubt = _("ipclock: warning: no ZooKeeper server responds; the slot of {label} may be lost")
            text = doubt if lease.doubtful else _("ipclock: a ZooKeeper server responds again")
            say(text.format(label=claim.label), at_once=True)
        if claim.evicted and not self._warned:
            self._warned = True
            text = _("ipclock: warning: a reset released the slot of {label}; the build keeps running")
            say(text.format(label=claim.label), at_once=True)
        if left > lease.grace or claim.evicted:
            return
        if not self._kills and not self._warned:
            self._warned = True
            text = _("ipclock: warning: {label} has lost its slot; the build keeps running (--on-lost warn)")
            say(text.format(label=claim.label), at_once=True)
        if self._kills and not self.lost:
            self.lost = True
            # gone by `until`: from there on the servers may give the slot to another build
            terminate.end(self._find, grace_s=max(0.0, left))
