"""Ends processes with all that they have started: asks by SIGTERM, and insists by SIGKILL."""

from __future__ import annotations

import signal
import time
from contextlib import suppress

from ipclock._typing import TYPE_CHECKING
from ipclock.linux import process

if TYPE_CHECKING:
    from collections.abc import Callable

GRACE_S = 5.0  # from SIGTERM to SIGKILL, and from there until a process counts as one that cannot be ended
POLL_S = 0.05


def end(find: Callable[[], list[int]], supervisor: int | None = None, *, grace_s: float = GRACE_S) -> list[int]:
    """End the processes that *find* returns, with all their descendants, and whatever it returns then.

    They are asked by SIGTERM, at first the *supervisor* alone where there is one, who passes it on; those who are
    still there *grace_s* seconds later get SIGKILL. Returns the PIDs of those that could not be ended: not permitted,
    or in an uninterruptible sleep.
    """
    # in order, parents first: a shell whose child ends before it is asked goes on to its next command
    known: dict[process.Identity, None] = {}
    asked: set[process.Identity] = set()
    refused: set[process.Identity] = set()
    begun = time.monotonic()
    while True:
        for pid in find():
            for member in (pid, *process.descendants_of(pid)):
                with suppress(OSError):  # gone meanwhile
                    known.setdefault(process.identify(member))
        alive = [identity for identity in known if identity not in refused and process.exists(identity)]
        passed = time.monotonic() - begun
        if not alive or passed > grace_s + GRACE_S:
            return sorted(identity.pid for identity in {*alive, *refused})
        passes_on = supervisor if supervisor in {identity.pid for identity in alive} else None
        for identity in alive:
            try:
                if passed > grace_s:
                    process.send(identity, signal.SIGKILL)
                elif identity not in asked and passes_on in (None, identity.pid):
                    asked.add(identity)
                    process.send(identity, signal.SIGTERM)
                    process.send(identity, signal.SIGCONT)  # a stopped one would not heed it
            except PermissionError:
                refused.add(identity)
        time.sleep(POLL_S)  # not pidfds: what a process of these starts meanwhile is to be found too
