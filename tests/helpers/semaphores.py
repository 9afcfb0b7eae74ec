"""What lies at a semaphore's path: one of ours, or what is none."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from ipclock.errors import IpclockError
from ipclock.linux import semaphore
from tests.helpers.crash_at import in_child

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from ipclock.linux.semaphore import Semaphore

DAMAGE = {
    "empty": "",
    "zeros": "00" * 32,
    "ones": "ff" * 32,
    "text": b"this is no semaphore at all, no!".hex(),
    "short": "01" + "00" * 7 + "80" + "00" * 22,
    "long": "01" + "00" * 7 + "80" + "00" * 24,
    "value over the limit": "ffffffff" + "00" * 4 + "80" + "00" * 23,
    "private futex": "01" + "00" * 31,
    "garbage at the end": "01" + "00" * 7 + "80" + "00" * 22 + "01",
}


def made(name: str) -> Semaphore:
    """Make a semaphore and return it."""
    new = semaphore.create(name, 0o600)
    assert new
    return new


def outcome(function: Callable[[], object]) -> tuple[str, int]:
    """Return (the error's class, its exit status)."""
    try:
        return str(function()), 0
    except IpclockError as error:
        return type(error).__name__, error.status


def plant(path: Path, what: str) -> None:
    """Put something at the semaphore's path that is none."""
    if what == "link":
        in_child(lambda: bool(made(f"/{path.name.removeprefix('sem.')}.real")))
        path.symlink_to(f"{path}.real")
    elif what == "dangling link":
        path.symlink_to(f"{path}.nothing")
    elif what == "fifo":
        os.mkfifo(path)
    elif what == "folder":
        path.mkdir()
    else:
        path.write_bytes(bytes.fromhex(what))
