"""Leaving the caller's terminal, for a process that goes on beside it."""

from __future__ import annotations

import os


def leave() -> None:
    """Begin a session of our own, in /, with /dev/null for all three streams.

    Ctrl-C and a hangup no longer reach us, no mount is kept busy, and a pipe of the caller's has one end less open.
    """
    os.setsid()
    os.chdir("/")
    null = os.open(os.devnull, os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(null, fd)
    os.close(null)
