"""Whether a signal came to our process group, or to us alone: a process in the group that gets what the group gets.

A receiver learns which process has sent a signal, not whether the group has got it too. The sentinel does nothing but
keep all signals blocked and say, when asked, which ones have come since. In a group the kernel serves the youngest
member first, so what we have got of the group's the sentinel has got already. It keeps none of our descriptors open,
and ends with us.
"""

from __future__ import annotations

import os
import select
import signal
import time
from contextlib import suppress

from ipclock._typing import TYPE_CHECKING
from ipclock.linux import isolated

if TYPE_CHECKING:
    from typing import NoReturn

ANSWER_S = 1.0  # it may be stopped, or frozen
TWINS_S = 0.003  # timeout(1) sends to its command first and then to its group: one signal, for what follows so fast
_BYTES = 8  # a bit for each signal up to 64


class Sentinel:
    """A sentinel of our process group, from its making until `close`. Where a limit leaves none, it can tell nothing.

    Call from the main thread, with the signals that are asked for blocked.
    """

    def __init__(self) -> None:
        self.pid = 0
        self._seen = 0  # bit n - 1: signal n has come, and was not asked for yet
        try:
            asking, self._asking = os.pipe()
        except OSError:
            return
        try:
            self._answers, answering = os.pipe()
        except OSError:
            os.close(asking)
            os.close(self._asking)
            return
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        try:
            self.pid = os.fork() or _serve(asking, answering)
        except OSError:
            self._close()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
            os.close(asking)
            os.close(answering)

    def sent(self, info: signal.struct_siginfo) -> bool:
        """Return whether a signal is the one by which it has us continued."""
        # what comes from outside our PID namespace has the PID 0, which is the sentinel's where there is none
        return info.si_signo == signal.SIGCONT and info.si_code <= 0 and 0 != self.pid == info.si_pid

    def begin(self, pid: int) -> None:
        """Have us continued, should we be stopped, at the end of process *pid*, a child of ours."""
        self._look(pid)

    def has_seen(self, number: int, *, twins: bool = False) -> bool | None:
        """Return whether the signal, of which we got one, came to the group; each time is told once.

        None where that cannot be told. With *twins*: or comes to it within a moment.
        """
        bit = 1 << number - 1
        if not self._look():
            return None
        if twins and not self._seen & bit:
            time.sleep(TWINS_S)  # nothing tells that no second signal comes
            self._look()
        found = bool(self._seen & bit)
        self._seen &= ~bit
        return found

    def close(self) -> None:
        """End it."""
        if self.pid:
            self._close()
            isolated.end(self.pid)  # a stopped one does not see that its pipe was closed
            self.pid = 0

    def _close(self) -> None:
        os.close(self._asking)
        os.close(self._answers)

    def _look(self, pid: int = 0) -> bool:
        answer = self._ask(pid) if self.pid else b""
        self._seen |= int.from_bytes(answer, "little")
        return bool(answer)

    def _ask(self, pid: int) -> bytes:
        poll = select.poll()
        poll.register(self._answers, select.POLLIN)
        # it was killed, which has closed the pipe
        with suppress(BrokenPipeError):
            os.write(self._asking, pid.to_bytes(_BYTES, "little"))
            if poll.poll(1000 * ANSWER_S) and (answer := os.read(self._answers, _BYTES)):
                return answer
        self.close()  # a late answer would be taken for the next one's
        return b""


def _serve(asking: int, answering: int) -> NoReturn:
    """Be the sentinel."""
    try:
        us = os.getppid()
        isolated.close_all_but([asking, answering])
        poll = select.poll()
        poll.register(asking, select.POLLIN)
        while True:
            for fd, _ in poll.poll():
                if fd != asking:
                    poll.unregister(fd)
                    os.kill(us, signal.SIGCONT)
                    continue
                asked = os.read(asking, _BYTES)
                if not asked:
                    os._exit(0)
                if pid := int.from_bytes(asked, "little"):
                    with suppress(OSError):  # gone already, or a kernel without pidfds
                        poll.register(os.pidfd_open(pid), select.POLLIN)
                seen = 0
                while info := signal.sigtimedwait(signal.valid_signals(), 0):
                    seen |= 1 << info.si_signo - 1
                os.write(answering, seen.to_bytes(_BYTES, "little"))
    finally:
        os._exit(0)
