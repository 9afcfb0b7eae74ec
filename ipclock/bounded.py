"""Numbers as files say them. Who may write to a pool may write anything there, so each has a bound.

What no client of ours can have written is None: unreadable, never a guess.
"""

from __future__ import annotations

LAST_TICKET = 10**18 - 1
LAST_PID = (1 << 31) - 1  # pid_t
LAST_UID = (1 << 32) - 2  # uid_t; the highest is chown(2)'s "leave it as it is"
LAST_WORD = (1 << 64) - 1  # inodes, devices, start times
LAST_MOMENT_S = 10.0**10


def whole(text: str, most: int) -> int | None:
    """Return the whole number in decimal digits, from 0 to *most*."""
    if len(text) > 20 or not (text.isascii() and text.isdigit()):
        return None
    found = int(text)
    return found if found <= most else None


def moment(text: str) -> float | None:
    """Return a moment or a span in seconds, on whatever clock, from 0 to LAST_MOMENT_S."""
    digits = text.replace(".", "", 1)
    if len(text) > 30 or not (digits.isascii() and digits.isdigit()):
        return None
    found = float(text)
    return found if found <= LAST_MOMENT_S else None
