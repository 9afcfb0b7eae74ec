"""Whether a terminal is ours to draw on: we are in front, and no other `ipclock` draws there or lets a command write.

Locks on the terminal's device tell these of each other: the first byte is that of the one that draws, one of the others
that of each whose command runs. A terminal that we may not open again is taken for ours alone.
"""

from __future__ import annotations

import os
from contextlib import suppress

from ipclock.linux.locks import ByteRange, is_locked, try_lock, unlock

_DRAWS, _WRITERS = ByteRange(0), ByteRange(1, 0)


class Canvas:
    """The terminal behind descriptor *fd*."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._device: int | None = None
        self._opened = False

    @property
    def drawable(self) -> bool:
        """Whether lines may be rewritten in place now. Until `leave` no other process may."""
        try:
            if os.tcgetpgrp(self._fd) != os.getpgrp():
                return False
        except OSError:  # not our session's, so it has no background for us
            pass
        device = self._open()
        return device is None or (not is_locked(device, _WRITERS) and try_lock(device, _DRAWS))

    def leave(self) -> None:
        """Let others draw."""
        if self._device is not None:
            unlock(self._device)

    def lend(self) -> None:
        """Keep all others from drawing, as long as we live: a command of ours writes on the terminal."""
        if (device := self._open()) is not None:
            unlock(device)
            try_lock(device, ByteRange(1 + os.getpid()))

    def _open(self) -> int | None:
        if not self._opened:
            self._opened = True
            with suppress(OSError):
                flags = os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK | os.O_CLOEXEC
                self._device = os.open(os.ttyname(self._fd), flags)
        return self._device
