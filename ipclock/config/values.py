"""What the text of each setting may be, and what it means.

Guarantees that no name or number can crash glibc or posix_ipc: a NUL or a lone surrogate in a semaphore's name ends the
interpreter. A function takes text, returns names and paths native (`utf8`), and raises ValueError with what it wants.
"""

from __future__ import annotations

import math
import os
import time
from contextlib import suppress

from ipclock import users, utf8
from ipclock.bounded import LAST_UID, whole
from ipclock.errors import N_

MAX_CAPACITY = 1000
MAX_LABEL_BYTES = 255
# room for "sem." before it and ".<ticket>" behind it within the 255 bytes of a file name
MAX_NAME_BYTES = 200
LEFTOVERS = ("release", "wait", "kill")
ON_LOST = ("kill", "warn")
COLOURS = ("auto", "always", "never")
PARTIES = ("user", "session")  # between whom a pool can be fair
_DIGITS, _FLOAT = set("0123456789."), set("0123456789.eE+-")
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_MOST_DIGITS = 10**9 - 1  # on each side of the dot of an amount of memory
_SIZES = ("", "k", "m", "g", "t")
SYSTEM_HISTORY = "/var/lib/ipclock/history.db"
SYSTEM_LOGS = "/var/log/ipclock"


def capacity(text: str) -> int:
    """A number of slots, 0 (the pool is drained) to `MAX_CAPACITY`. Raises ValueError with what is expected."""
    return _within(text, 0, MAX_CAPACITY, N_("a whole number from 0 to 1000"))


def slots(text: str) -> int:
    """How many slots a build takes, or how many builds of a label may run: 1 to `MAX_CAPACITY`."""
    return _within(text, 1, MAX_CAPACITY, N_("a whole number from 1 to 1000"))


def priority(text: str) -> int:
    """A priority as nice(1) has it, -20 (first) to 19 (last)."""
    return _within(text, -20, 19, N_("a whole number from -20 (first) to 19 (last)"))


def _within(text: str, lowest: int, highest: int, expected: str) -> int:
    most = max(highest, -lowest)
    found = whole(text.removeprefix("-"), most, len(str(most)))
    if found is None or not lowest <= (found := -found if text[0] == "-" else found) <= highest:
        raise ValueError(expected)
    return found


def memory(text: str) -> int:
    """An amount of memory in bytes: `3G`, `512M`, `1.5GiB`, in powers of 1024."""
    bare = text.lower().removesuffix("b").removesuffix("i")
    number, unit = (bare[:-1], bare[-1]) if bare[-1:] in _SIZES[1:] else (bare, "")
    left, dot, right = number.partition(".")
    if None in (whole(left, _MOST_DIGITS), whole(right, _MOST_DIGITS) if dot else 0):
        raise ValueError(N_("an amount of memory, such as 3G or 512M"))
    return int(float(number) * 1024 ** _SIZES.index(unit))


def memory_or_auto(text: str) -> int | str:
    """An amount of memory in bytes, or "auto": as much as builds of the label have needed before."""
    return text if text == "auto" else memory(text)


def seconds(text: str) -> float:
    """A span of time in seconds; `30`, `0.5`, `90s`, `10m`, `2h`, `1d` as timeout(1) takes them."""
    number, unit = (text[:-1], text[-1]) if text[-1:] in _UNITS else (text, "s")
    span = math.inf
    # float() takes more: signs, blanks, underscores, "nan", the digits of other scripts
    if number[:1] in _DIGITS and set(number) <= _FLOAT:
        with suppress(ValueError):
            span = float(number) * _UNITS[unit]
    if not math.isfinite(span):
        raise ValueError(N_("seconds, such as 600, 0.5, 90s, 10m or 2h"))
    return span


def since(text: str) -> float:
    """A moment in the past, in seconds of time.time(): how long ago, in weeks (`1w`) too, a day or an ISO 8601 time.

    `today` and `yesterday` begin at midnight; a time without an offset is local.
    """
    now = time.time()
    try:
        weeks = text[-1:] == "w"
        return max(0.0, now - (7 * seconds(text[:-1] + "d") if weeks else seconds(text)))
    except ValueError:
        from datetime import datetime, timedelta  # few say a day

    days = {"today": 0, "yesterday": 1}
    with suppress(ValueError, OverflowError, OSError):
        if text in days:
            midnight = datetime.fromtimestamp(now).replace(hour=0, minute=0, second=0, microsecond=0)
            return (midnight - timedelta(days[text])).timestamp()
        if (when := datetime.fromisoformat(text).timestamp()) <= now:
            return max(0.0, when)
    raise ValueError(N_("a time in the past, such as 90s, 2h, 7d, 1w, yesterday, 2026-01-11 or 2026-01-11T14:00"))


def colour(text: str) -> str:
    """When to write in colours: auto, always or never."""
    if text not in COLOURS:
        raise ValueError(N_("auto, always or never"))
    return text


def grace(text: str) -> float:
    """How long processes have until they are killed, in seconds, and no longer than a record tells."""
    span = seconds(text)
    if span > _UNITS["d"]:
        raise ValueError(N_("at most 1 day"))
    return span


def interval(text: str) -> float:
    """A span of time above zero."""
    span = seconds(text)
    if span <= 0:
        raise ValueError(N_("seconds above zero"))
    return span


def drain_span(text: str) -> float:
    """How long a drain lasts, in seconds: above zero, and no longer than a clock can tell."""
    span = interval(text)
    if span > 36500 * _UNITS["d"]:
        raise ValueError(N_("at most 36500 days"))
    return span


def _printable(text: str, limit: int) -> bool:
    try:
        return 0 < len(text.encode()) <= limit and text.isprintable()
    except UnicodeEncodeError:
        return False


def name(text: str) -> str:
    """A semaphore's name (sem_overview(7)); the leading slash may be left out. Returns it with the slash, native.

    A name that ends in a dot and digits is refused: that is how the turn semaphores of a pool are named.
    """
    bare = text.removeprefix("/")
    if (
        not _printable(bare, MAX_NAME_BYTES)
        or "/" in bare
        or bare[0] == "."
        or (bare.rpartition(".")[2].isdigit() and "." in bare)
    ):
        raise ValueError(N_("a name such as /oracle-build: printable, at most one slash and 200 bytes"))
    return utf8.native("/" + bare)


def directory(text: str) -> str:
    """An absolute path of a directory. Returns it native."""
    if not (_printable(text, 4000) and text[0] == "/"):
        raise ValueError(N_("an absolute path"))
    return utf8.native(os.path.normpath(text))


def mode(text: str) -> int:
    """Who may use a pool, as the mode of its files: 0600 the owner alone, 0660 a group too."""
    if text.removeprefix("0") not in ("600", "660"):
        raise ValueError(N_("0600 (owner only) or 0660 (owner and group)"))
    return int(text, 8)


def group(text: str) -> int:
    """A group by name or number, as chgrp(1) takes it; returns its gid."""
    import grp

    try:
        return grp.getgrnam(utf8.native(text)).gr_gid
    except (KeyError, UnicodeEncodeError):
        if (gid := whole(text, LAST_UID)) is None:
            raise ValueError(N_("the name or number of a group")) from None
        return gid


def line(text: str) -> str:
    """One line of printable UTF-8 text."""
    if not _printable(text, 1000):
        raise ValueError(N_("one line of printable UTF-8 text"))
    return text


def hook(text: str) -> str | None:
    """A command line for sh(1), or None for `off`, `none` and no text at all."""
    return None if text in ("", "off", "none") else line(text)


def leftovers(text: str) -> str:
    """What becomes of processes that outlive their build: release, wait or kill."""
    if text not in LEFTOVERS:
        raise ValueError(N_("release, wait or kill"))
    return text


def fair(text: str) -> str:
    """Between whom a pool is fair: user, session or off."""
    if text not in (*PARTIES, "off"):
        raise ValueError(N_("user, session or off"))
    return text


def engine(text: str) -> str:
    """Where a pool that several hosts share is kept."""
    from ipclock.config import engine_url  # few have one

    return engine_url.checked(text)


def on_lost(text: str) -> str:
    """What becomes of a build whose lease is over: kill or warn."""
    if text not in ON_LOST:
        raise ValueError(N_("kill or warn"))
    return text


def history(text: str) -> str | None:
    """A file for finished builds: an absolute path, `auto`, or None for `off`, `none` and no text at all.

    `auto` is one for the whole machine where we may write to it, as root may, else one of the user's own; None for a
    user without a home.
    """
    if text in ("", "off", "none"):
        return None
    if text != "auto":
        return directory(text)
    if (os.geteuid() == 0 and users.shows_all()) or os.access(SYSTEM_HISTORY, os.W_OK):
        return SYSTEM_HISTORY
    state = _state_home()
    return state and f"{state}/ipclock/history.db"


def log_dir(text: str) -> str | None:
    """Where the output of builds is kept: an absolute path, or `auto`.

    `auto` is the machine's for root, else one of the user's own; None for a user without a home.
    """
    if text != "auto":
        return directory(text)
    if os.geteuid() == 0 and users.shows_all():
        return SYSTEM_LOGS
    state = _state_home()
    return state and f"{state}/ipclock/logs"


def _state_home() -> str | None:
    home = os.environ.get("XDG_STATE_HOME", "")
    if not home.startswith("/"):  # a relative one is to be ignored (XDG Base Directory Specification)
        home = os.path.expanduser("~/.local/state")
    return home if home.startswith("/") else None


def days(text: str) -> int:
    """A number of days from 1 to 36500."""
    return _within(text, 1, 36500, N_("a whole number of days from 1 to 36500"))


def label(text: str) -> str:
    """A build's label: printable UTF-8 text of at most 255 bytes."""
    if not _printable(text, MAX_LABEL_BYTES) or text.isspace():
        raise ValueError(N_("printable UTF-8 text of at most 255 bytes"))
    return text
