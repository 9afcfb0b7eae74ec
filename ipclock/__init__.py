"""Build slots for a small shared server: N builds run at once, the others wait their turn.

    with ipclock.slot("staging", timeout=600) as slot:
        build(slot.number)

Everything here is loaded when it is first used, so that the command line starts fast.
"""

from __future__ import annotations

TYPE_CHECKING = False  # as in `values`, without loading anything

if TYPE_CHECKING:
    from typing import Any

    from ipclock.api import Slot, slot
    from ipclock.errors import (
        BadConfig,
        BadValue,
        CannotCreate,
        DamagedSemaphore,
        IpclockError,
        MutexStuck,
        NotPermitted,
        SlotBusy,
        SlotTimeout,
        SlotUnavailable,
        Unavailable,
    )

__version__ = "0.1.0"

__all__ = [
    "BadConfig",
    "BadValue",
    "CannotCreate",
    "DamagedSemaphore",
    "IpclockError",
    "MutexStuck",
    "NotPermitted",
    "Slot",
    "SlotBusy",
    "SlotTimeout",
    "SlotUnavailable",
    "Unavailable",
    "slot",
]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module("ipclock.api" if name in ("Slot", "slot") else "ipclock.errors"), name)
