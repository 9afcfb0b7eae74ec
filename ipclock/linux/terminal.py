"""Leaving the caller's terminal, for a process that goes on beside it; and a second one for what a command writes."""

from __future__ import annotations

import fcntl
import os
import termios
from contextlib import suppress

from ipclock._typing import TYPE_CHECKING
from ipclock.linux import descriptors

if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

IFLAG, OFLAG, LFLAG, CC = 0, 1, 3, 6  # of what tcgetattr returns
EXTPROC = 0o200000  # asm-generic/termbits.h
TIOCPKT_IOCTL = 64  # asm-generic/ioctls.h
KEYS = 256  # at a time: no more than a terminal's buffer has room for


def leave(out: int | None = None) -> None:
    """Begin a session of our own, with stdin from /dev/null, and *out*, or /dev/null too, as both output streams.

    Ctrl-C and a hangup no longer reach us, and a pipe of the caller's has one end less open.
    """
    os.setsid()
    null = os.open(os.devnull, os.O_RDWR)
    for fd, target in enumerate((null, null if out is None else out, null if out is None else out)):
        os.dup2(target, fd)
    os.close(null)


class Twin:
    """A pseudo-terminal whose `slave` a command writes on in place of the terminal *shown*, like it in size and modes.

    A change of size goes over to the twin, one of modes to the terminal. Of the modes OPOST is left out: what is
    written is processed once, where it is shown. Input, job control and the signals of keys are the terminal's own: a
    twin controls no session, and has for input what `type` hands on. Raises OSError and termios.error.
    """

    def __init__(self, shown: int) -> None:
        self._shown = shown
        self.master, self.slave = os.openpty()
        self._end = self.master
        status = os.fstat(self.slave)
        self._identity = status.st_dev, status.st_ino
        termios.tcsetattr(self.slave, termios.TCSANOW, _unprocessed(termios.tcgetattr(shown)))
        self._modes = termios.tcgetattr(self.slave)
        fcntl.ioctl(self.master, termios.TIOCPKT, b"\1\0\0\0")
        self.resize()

    def leave_master(self) -> None:
        """Leave that end to another process."""
        os.close(self.master)
        self._end = self.slave

    def resize(self) -> bool:
        """Take over the size of the terminal; return whether that was another one."""
        with suppress(termios.error):  # it has hung up
            size = termios.tcgetwinsize(self._shown)
            if size != termios.tcgetwinsize(self._end):
                termios.tcsetwinsize(self._end, size)
                return True
        return False

    def read(self, size: int) -> tuple[bytes, bool]:
        """Return what was written, and whether the modes were changed. Raises OSError once no process has it open."""
        packet = os.read(self.master, size)
        return (b"", bool(packet[0] & TIOCPKT_IOCTL)) if packet[:1] != b"\0" else (packet[1:], False)

    def show_modes(self) -> None:
        """Make on the terminal the changes of modes that were made on the twin. Raises termios.error."""
        new, shown = termios.tcgetattr(self.master), termios.tcgetattr(self._shown)
        before, self._modes = self._modes, _unprocessed(new)
        if self._modes != before:
            for index in (IFLAG, OFLAG, LFLAG):
                changed = before[index] ^ self._modes[index]
                shown[index] = shown[index] & ~changed | self._modes[index] & changed
            pairs = zip(before[CC], new[CC], shown[CC], strict=True)
            shown[CC] = [now if was != now else as_shown for was, now, as_shown in pairs]
            termios.tcsetattr(self._shown, termios.TCSANOW, shown)
        if self._modes != new:
            termios.tcsetattr(self.master, termios.TCSANOW, self._modes)

    def takes_keys(self, pids: Iterable[int]) -> bool:
        """Return whether one of the processes reads single keys from the twin, as less(1) does, which opens it anew."""
        try:
            one_by_one = not termios.tcgetattr(self.master)[LFLAG] & termios.ICANON
        except termios.error:
            return False
        return one_by_one and any(descriptors.reads_keys(*self._identity, pid) for pid in pids)

    def type(self) -> None:
        """Hand on to the twin what was typed on the terminal, if it still is there. Raises OSError."""
        typed = os.open(os.ttyname(self._shown), os.O_RDONLY | os.O_NOCTTY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            with suppress(BlockingIOError):
                os.write(self.master, os.read(typed, KEYS))
        finally:
            os.close(typed)


def _unprocessed(modes: list[Any]) -> list[Any]:
    """Return the modes of a twin: EXTPROC has us told of each change, and what is typed is processed once too."""
    iflag, oflag, cflag, lflag, *rest = modes
    return [iflag, oflag & ~termios.OPOST, cflag, lflag | EXTPROC, *rest]
