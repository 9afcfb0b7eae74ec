"""How waits and builds end: the words of the history, the metrics and the page."""

from __future__ import annotations

from ipclock._typing import NamedTuple
from ipclock.errors import CancelledError, Interrupted, SlotBusy, SlotTimeout, SupersededError


class Outcome(NamedTuple):
    """One way to end. `held`: of a build that had a slot; `failed`: of one that had it to the last, and went wrong."""

    name: str
    held: bool
    failed: bool = False


_TABLE = (
    Outcome("done", held=True),
    Outcome("failed", held=True, failed=True),
    Outcome("signal", held=True, failed=True),
    Outcome("timeout", held=False),
    Outcome("busy", held=False),
    Outcome("interrupted", held=False),
    Outcome("superseded", held=False),
    Outcome("evicted", held=True),
    Outcome("orphaned", held=True),
    Outcome("oom", held=True, failed=True),
    Outcome("cancelled", held=True),  # or while it waited
)
OUTCOMES = tuple(outcome.name for outcome in _TABLE)
HELD = tuple(outcome.name for outcome in _TABLE if outcome.held)
FAILURES = tuple(outcome.name for outcome in _TABLE if outcome.failed)
# how a wait ends without a slot, by the error that ends it
OF_WAITS = {SlotTimeout: "timeout", SlotBusy: "busy", Interrupted: "interrupted", SupersededError: "superseded"}
OF_WAITS[CancelledError] = "cancelled"
