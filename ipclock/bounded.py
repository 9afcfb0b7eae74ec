"""Numbers as files say them. Who may write to a pool may write anything there, so each has a bound.

What no client of ours can have written is None: unreadable, never a guess.
"""

from __future__ import annotations

from ipclock._typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

LAST_TICKET = 10**18 - 1
LAST_PID = (1 << 31) - 1  # pid_t
LAST_UID = (1 << 32) - 2  # uid_t, and gid_t; the highest is chown(2)'s "leave it as it is"
LAST_WORD = (1 << 64) - 1  # inodes, devices, start times
LAST_MOMENT_S = 10.0**10


def whole(text: str, most: int, digits: int = 20) -> int | None:
    """Return the whole number in so many decimal *digits* at most, from 0 to *most*."""
    if len(text) > digits or not (text.isascii() and text.isdigit()):
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


def whole_in(fields: Mapping[str, object], key: str, most: int) -> int | None:
    """Return the whole number that a field of a record or a note says."""
    return whole(str(fields.get(key, "")), most)


def moment_in(fields: Mapping[str, object], key: str) -> float | None:
    """Return the moment or span in seconds that such a field says."""
    return moment(str(fields.get(key, "")))
