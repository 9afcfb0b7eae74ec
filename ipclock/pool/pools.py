"""Which pools there are on this machine, for the commands that make none.

Looks at names and at who may use what has them; opens nothing. Another may make or remove a pool right after.
"""

from __future__ import annotations

import os
from contextlib import suppress

from ipclock.config import values
from ipclock.errors import IpclockError, NoPoolError
from ipclock.linux.semaphore import require_support
from ipclock.pool import place

MOST = 3  # names that are offered for one that was mistyped


def require(name: str) -> None:
    """Raise NoPoolError (69), with the names that resemble it, unless something lies at the place of the pool *name*.

    Where there can be none, raises ForeignLibraryError or UnavailableError (69).
    """
    if not is_made(name):
        require_support()
        raise NoPoolError(place.path_of(name[1:]), ", ".join(resembling(name)))


def is_made(name: str) -> bool:
    """Return whether something lies there: the pool, or what only a look into it tells from one."""
    return os.path.lexists(place.path_of(name[1:]))


def resembling(name: str) -> list[str]:
    """Return the names of pools that we may use and that *name* may have meant, the likeliest first."""
    from difflib import get_close_matches  # few mistype a name

    found = get_close_matches(name[1:], filter(_is_usable, place.pools()), MOST)
    return [f"/{known}" for known in found]


def _is_usable(pool: str) -> bool:
    with suppress(ValueError, IpclockError, OSError):
        values.name(pool)  # one that no pool can have may move a terminal's cursor
        found = place.look_up(pool)
        return found is not None and os.access(found.path, os.R_OK | os.X_OK)
    return False
