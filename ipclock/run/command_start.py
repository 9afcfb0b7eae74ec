"""Finds and starts a command as a shell would: by PATH, scripts without `#!` by sh; and what came at that moment."""

from __future__ import annotations

import errno
import os
import signal
import stat

from ipclock._typing import TYPE_CHECKING
from ipclock.errors import CommandFailed
from ipclock.linux import process

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

PYTHON_IGNORES = {signal.SIGPIPE, signal.SIGXFSZ}


def spawn(
    command: Sequence[str], environment: Mapping[str, str], mask: set[signal.Signals | int], streams: Mapping[int, int]
) -> tuple[int, set[signal.Signals | int]]:
    """Start the command; return its PID, and the signals that came before it was there: it is not to miss them.

    It begins with the signal *mask*; *streams* are descriptors to take the places of its own.
    Raises CommandFailed (126, 127).
    """
    # no number of *streams* is one of its descriptors: ours lie above what is open
    actions = [(os.POSIX_SPAWN_DUP2, fd, number) for number, fd in streams.items()]

    def start(file: str, arguments: list[str]) -> tuple[int, set[signal.Signals | int]]:
        if not file:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
        early = signal.sigpending()
        # a command must die of a closed pipe as it would without us
        pid = os.posix_spawnp(
            file, arguments, environment, file_actions=actions, setsigmask=mask, setsigdef=PYTHON_IGNORES
        )
        return pid, early | _missed(pid, signal.sigpending() - early, mask)

    try:
        return start(command[0], list(command))
    except OSError as error:
        if error.errno != errno.ENOEXEC:
            raise CommandFailed(command[0], error) from None
    # a script without `#!`: run it by sh, as a shell would (POSIX XCU 2.9.1.1)
    try:
        return start("/bin/sh", ["sh", look_up(command[0]), *command[1:]])
    except OSError as error:
        raise CommandFailed(command[0], error) from None


def _missed(pid: int, numbers: set[signal.Signals | int], mask: set[signal.Signals | int]) -> set[signal.Signals | int]:
    """Return which of these signals, of the very moment of the start, came before the command was there.

    Of one that came to it the command has died, or it has it pending. A command that catches it by now, or blocks what
    is not in the *mask* that it began with, has run for longer than the moment before it was there.
    """
    if not numbers:
        return numbers
    caught, blocked, pending = process.signals_of(pid)
    return numbers - caught - pending - (blocked - mask)


def look_up(file: str) -> str:
    """Return the path of the command that execvp(3) would run. It may be gone by then.

    Raises CommandFailed (126, 127) where there is none.
    """
    refused = OSError(errno.ENOENT, os.strerror(errno.ENOENT))
    for path in [file] if "/" in file else [os.path.join(directory, file) for directory in os.get_exec_path() if file]:
        try:
            if not stat.S_ISDIR(os.stat(path).st_mode) and os.access(path, os.X_OK):
                return path
            refused = PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        except OSError as error:  # as execvp(3), which looks on, but remembers what it may not run
            if "/" in file or error.errno == errno.EACCES:
                refused = error
    raise CommandFailed(file, refused)
