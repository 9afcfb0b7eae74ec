"""A function in a process of its own: what it uses may hang or crash it, and leaves the caller alone.

Guarantees: after so many seconds it is over, in whatever it hangs, and a signal that asks us to leave ends it sooner;
its crash is an error here; and it keeps no descriptor of ours but the one for its answer, so no beacon stays lit and
no pipe open for it. Not inside of other programs: fork(2) copies locks that other threads have.
"""

from __future__ import annotations

import errno
import os
import signal
import time
from contextlib import suppress

from ipclock._typing import TYPE_CHECKING
from ipclock.errors import N_
from ipclock.linux import polling

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any, NoReturn, TypeVar

    T = TypeVar("T")

POLL_S = 0.05
GONE_S = 0.2  # how long what was killed is waited for: in an uninterruptible sleep it stays
GRACE_S = 1.0
DESCRIPTORS = 4096  # ours are far below
LEAVING = {signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM}
TOO_SLOW = N_("takes too long")
INTERRUPTED = N_("interrupted by a signal")
CRASHED = N_("crashes the process that uses it")
_NOTHING, _VALUE, _FAILURE = b"n", b"v", b"f"


def run(function: Callable[[], T], seconds: float) -> T:
    """Return what *function* returns in a process of its own, or raise what it raises there.

    Raises TimeoutError after so many seconds, InterruptedError if a blocked signal of LEAVING is pending meanwhile,
    and ChildProcessError if the process dies.
    """
    reading, writing = os.pipe()
    # Ctrl-C right after the fork would let the child go on in our place
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, LEAVING)
    pid = 0
    try:
        pid = os.fork() or _work(function, writing, seconds)
        os.close(writing)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        answer = _answer(reading, seconds)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        os.close(reading)
        if pid:
            end(pid)
    found: T = _outcome(answer)
    return found


def _work(function: Callable[[], object], writing: int, seconds: float) -> NoReturn:
    """Be the child: write the answer, and end."""
    try:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGALRM})
        signal.setitimer(signal.ITIMER_REAL, seconds + GRACE_S)  # if our parent is killed nothing else ends us
        close_all_but([writing])
        answer = _answer_of(function)
        while answer:
            answer = answer[os.write(writing, answer) :]
    finally:
        os._exit(0)  # nothing of our parent's is written or released by us


def _answer_of(function: Callable[[], object]) -> bytes:
    try:
        value: object = function()
        kind = _VALUE
    except Exception as error:
        value, kind = error, _FAILURE
    if value is None:
        return _NOTHING
    import pickle  # not needed to write

    return kind + pickle.dumps(value)


def _answer(reading: int, seconds: float) -> bytes:
    end = time.monotonic() + seconds
    parts = []
    while (left := end - time.monotonic()) > 0:
        if polling.readable([reading], min(left, POLL_S)):
            parts.append(os.read(reading, 1 << 16))
            if not parts[-1]:
                return b"".join(parts)
        elif signal.sigpending() & LEAVING:
            raise InterruptedError(errno.EINTR, INTERRUPTED)
    raise TimeoutError(errno.ETIMEDOUT, TOO_SLOW)


def close_all_but(kept: Iterable[int]) -> None:
    """Close our descriptors but the *kept* ones: no beacon stays lit, and no pipe open, for a process that we fork."""
    first = 0
    for fd in sorted(kept):
        os.closerange(first, fd)
        first = fd + 1
    os.closerange(first, DESCRIPTORS)


def end(pid: int) -> None:
    """Kill and reap a child, but do not wait for what cannot be killed."""
    pause = 0.0005
    with suppress(ChildProcessError):  # reaped already, as where SIGCHLD is ignored: the number is anybody's
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        os.kill(pid, signal.SIGKILL)
        while not os.waitpid(pid, os.WNOHANG)[0] and pause < GONE_S:
            polling.readable([], pause)
            pause *= 2


def _outcome(answer: bytes) -> Any:
    kind, data = answer[:1], answer[1:]
    if kind == _NOTHING:
        return None
    if not kind:
        raise ChildProcessError(errno.ECHILD, CRASHED)
    import pickle

    value = pickle.loads(data)  # noqa: S301 - our own child has made it
    if kind == _FAILURE:
        raise value
    return value
