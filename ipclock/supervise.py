"""Runs a command as if ipclock were not there: its terminal, its streams, its signals, its exit status.

Knows nothing of slots. The child stays in our process group, so that what the terminal sends (Ctrl-C, Ctrl-Z)
reaches both once; only what somebody sent to us by kill(2) is forwarded. Not for threads other than the main one.
"""

from __future__ import annotations

import errno
import os
import signal
from typing import TYPE_CHECKING

from ipclock.errors import CommandFailed, Interrupted

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from types import FrameType

FORWARDED = (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)
ENDING = (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM)
TICK_S = 1.0


class Notices:
    """Notes the signals that ask to leave, from its making on, instead of dying of them.

    A handler that raises would lose a unit just taken from a semaphore, and posix_ipc replaces what it raises;
    so `check` raises instead, where it is called. A signal that was ignored on entry (nohup) stays ignored.
    """

    def __init__(self) -> None:
        self._first = 0
        # inherited as ignored, it would make waitpid(2) report no status
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        for number in ENDING:
            if signal.getsignal(number) != signal.SIG_IGN:
                signal.signal(number, self._note)

    def _note(self, number: int, _frame: FrameType | None) -> None:
        self._first = self._first or number

    def check(self) -> None:
        """Raise Interrupted (128+n) if a signal has come."""
        if self._first:
            raise Interrupted(self._first)


def run(
    command: Sequence[str],
    environment: Mapping[str, str],
    notices: Notices,
    *,
    keep_open: int | None = None,
    on_start: Callable[[int], None] = lambda pid: None,
    on_tick: Callable[[], None] = lambda: None,
) -> int:
    """Run *command* to its end and return its exit status, or -n if signal n ended it.

    *keep_open* is a descriptor that the command inherits; *on_start* gets its PID; *on_tick* is called about once a
    second. Leaves FORWARDED and SIGCHLD blocked, so that the caller can tidy up undisturbed.
    Raises CommandFailed (126, 127), and Interrupted if a signal came before the start.
    """
    heeded = {number for number in FORWARDED if signal.getsignal(number) != signal.SIG_IGN} | {signal.SIGCHLD}
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, heeded)
    notices.check()
    if keep_open is not None:
        os.set_inheritable(keep_open, True)
    pid = _spawn(command, environment, mask)
    on_start(pid)
    while True:
        info = signal.sigtimedwait(heeded, TICK_S)
        if info is None:
            on_tick()
        elif info.si_signo != signal.SIGCHLD and info.si_code <= 0:  # SI_USER, SI_QUEUE, SI_TKILL: from a process
            os.kill(pid, info.si_signo)
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)


def _spawn(command: Sequence[str], environment: Mapping[str, str], mask: set[signal.Signals | int]) -> int:
    def spawn(file: str, arguments: list[str]) -> int:
        if not file:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
        return os.posix_spawnp(
            file,
            arguments,
            environment,
            setsigmask=mask,
            # Python ignores these two; a command must die of a closed pipe as it would without us
            setsigdef=[signal.SIGPIPE, signal.SIGXFSZ],
        )

    try:
        return spawn(command[0], list(command))
    except OSError as error:
        if error.errno != errno.ENOEXEC:
            raise CommandFailed(command[0], error) from None
    # a script without `#!`: run it by sh, as a shell would (POSIX XCU 2.9.1.1)
    try:
        return spawn("/bin/sh", ["sh", _found(command[0]), *command[1:]])
    except OSError as error:
        raise CommandFailed(command[0], error) from None


def _found(file: str) -> str:
    if "/" in file:
        return file
    paths = (os.path.join(folder, file) for folder in os.get_exec_path())
    return next((path for path in paths if os.access(path, os.X_OK) and os.path.isfile(path)), file)


def die_of(number: int) -> None:
    """End this process by signal *number*, so that a calling shell sees what ended the command.

    An exit status of 130 would let a loop in the calling script go on after Ctrl-C. Leaves no core file: the
    command may have left its own.
    """
    import resource

    hard = resource.getrlimit(resource.RLIMIT_CORE)[1]
    resource.setrlimit(resource.RLIMIT_CORE, (0, hard))
    if number != signal.SIGKILL:
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {number})
    os.kill(os.getpid(), number)
