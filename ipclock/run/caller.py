"""The process that a build is for (`wrap --for PID`): the build is not to outlive it."""

from __future__ import annotations

import os

from ipclock.errors import N_, CancelledError, InvalidValueError
from ipclock.linux import polling


class Caller:
    """The process that the build *label* is for, held by a pidfd: no later one with its PID is taken for it.

    Raises InvalidValueError (2) for none.
    """

    def __init__(self, pid: int, label: str) -> None:
        self.pid = pid
        self._label = label
        try:
            self._fd = os.pidfd_open(pid)
        except OSError:
            raise self._gone() from None
        if self.has_ended:  # and was not waited for
            raise self._gone()

    def _gone(self) -> InvalidValueError:
        return InvalidValueError("--for", str(self.pid), N_("the PID of a living process"), usage=True)

    def check(self) -> None:
        """Raise CancelledError once it has ended."""
        if self.has_ended:
            raise CancelledError(self._label, "", self.pid)

    @property
    def has_ended(self) -> bool:
        """Whether it has ended."""
        return bool(polling.readable([self._fd], 0))
