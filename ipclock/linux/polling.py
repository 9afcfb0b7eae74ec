"""Waiting for descriptors by poll(2): select(2) knows none above 1023, and a caller may have left us as many."""

from __future__ import annotations

import select

from ipclock._typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


def readable(fds: Iterable[int], seconds: float) -> list[int]:
    """Return those that can be read, or whose other end is gone, as soon as there is one; [] after so many seconds."""
    poll = select.poll()
    for fd in fds:
        poll.register(fd, select.POLLIN)
    return [fd for fd, _event in poll.poll(1000 * max(0.0, seconds))]
