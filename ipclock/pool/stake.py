"""What the protocol keeps of one claim between its steps."""

from __future__ import annotations

from ipclock._typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ipclock.linux.semaphore import Semaphore
    from ipclock.pool.record import OwnRecord


class Stake:
    """What a claim has in the pool: its `record`, and its `turn` while it may have to sleep on one.

    `era` is that of the pool when the record was last seen in it. `place` in line is as of `placed_at`, the time of the
    line's last change; `kept_at` (time.monotonic) is when the record and the turn were last looked at.
    """

    def __init__(self) -> None:
        self.record: OwnRecord | None = None
        self.turn: Semaphore | None = None
        self.era = ((0, 0), 0)
        self.place = float("inf")
        self.placed_at = 0
        self.kept_at = 0.0

    def write(self, **fields: object) -> None:
        """Add fields to the record."""
        if self.record:
            self.record.append(**fields)

    def fileno(self) -> int:
        """Return the descriptor whose lock is the beacon. Raises ValueError for a claim that has left."""
        if self.record is None:
            raise ValueError("the slot has been released")
        return self.record.holder_fd
