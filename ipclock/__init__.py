"""Build slots for a small shared server: N builds run at once, the others wait their turn.

    with ipclock.slot("staging", timeout=600) as slot:
        build(slot.number)

What it raises is an IpclockError, and besides of the kind that Python has for it: SlotTimeout is a TimeoutError,
SlotBusy a BlockingIOError, InvalidValueError a ValueError, PoolPermissionError a PermissionError. Each can be pickled.

Older names of the same classes stay: BadConfig (SettingsError), BadValue (InvalidValueError), CannotCreate
(PoolCreateError), DamagedSemaphore (SemaphoreError), MutexStuck (MutexStuckError), NotPermitted (PoolPermissionError)
and Unavailable (UnavailableError).

Everything here is loaded when it is first used, so that the command line starts fast.
"""

from __future__ import annotations

TYPE_CHECKING = False  # as in `_typing`, without loading anything

if TYPE_CHECKING:
    from typing import Any

    from ipclock.api import Slot, slot
    from ipclock.errors import (
        BadConfig,
        BadValue,
        CancelledError,
        CannotCreate,
        DamagedSemaphore,
        FewDescriptorsError,
        ForeignLibraryError,
        ForeignPoolError,
        InvalidValueError,
        IpclockError,
        MutexStuck,
        MutexStuckError,
        NoMemberError,
        NoPoolError,
        NoProcError,
        NotPermitted,
        PoolCreateError,
        PoolElsewhereError,
        PoolPermissionError,
        PriorityNotAllowedError,
        SemaphoreError,
        SettingsError,
        SlotBusy,
        SlotTimeout,
        SlotUnavailable,
        SupersededError,
        TooManySlotsError,
        Unavailable,
        UnavailableError,
        UnsupportedError,
    )

__version__ = "0.1.0"

__all__ = [
    "BadConfig",
    "BadValue",
    "CancelledError",
    "CannotCreate",
    "DamagedSemaphore",
    "FewDescriptorsError",
    "ForeignLibraryError",
    "ForeignPoolError",
    "InvalidValueError",
    "IpclockError",
    "MutexStuck",
    "MutexStuckError",
    "NoMemberError",
    "NoPoolError",
    "NoProcError",
    "NotPermitted",
    "PoolCreateError",
    "PoolElsewhereError",
    "PoolPermissionError",
    "PriorityNotAllowedError",
    "SemaphoreError",
    "SettingsError",
    "Slot",
    "SlotBusy",
    "SlotTimeout",
    "SlotUnavailable",
    "SupersededError",
    "TooManySlotsError",
    "Unavailable",
    "UnavailableError",
    "UnsupportedError",
    "slot",
]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module("ipclock.api" if name in ("Slot", "slot") else "ipclock.errors"), name)
