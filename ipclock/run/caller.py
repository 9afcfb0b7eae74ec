"""The process that a build is for (`wrap --for PID`): the build is not to outlive it."""

from __future__ import annotations

import os
import select

from ipclock.errors import N_, InvalidValueError


class Caller:
    """A process, held by a pidfd: no later one with its PID is taken for it. Raises InvalidValueError (2) for none."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        try:
            self._fd = os.pidfd_open(pid)
        except OSError:
            raise self._gone() from None
        if self.has_ended:  # and was not waited for
            raise self._gone()

    def _gone(self) -> InvalidValueError:
        return InvalidValueError("--for", str(self.pid), N_("the PID of a living process"), usage=True)

    @property
    def has_ended(self) -> bool:
        """Whether it has ended."""
        poll = select.poll()  # select(2) knows no descriptor above 1023
        poll.register(self._fd, select.POLLIN)
        return bool(poll.poll(0))
