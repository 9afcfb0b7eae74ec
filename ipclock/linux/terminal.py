"""Leaving the caller's terminal, for a process that goes on beside it."""

from __future__ import annotations

import os


def leave(out: int | None = None) -> None:
    """Begin a session of our own, with stdin from /dev/null, and *out*, or /dev/null too, as both output streams.

    Ctrl-C and a hangup no longer reach us, and a pipe of the caller's has one end less open.
    """
    os.setsid()
    null = os.open(os.devnull, os.O_RDWR)
    for fd, target in enumerate((null, null if out is None else out, null if out is None else out)):
        os.dup2(target, fd)
    os.close(null)
