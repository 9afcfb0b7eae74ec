"""A terminal's other screen, as pagers and top(1) use it: taken for a while, and given back however that ends."""

from __future__ import annotations

import os
import signal
import sys
import termios
import tty
from contextlib import contextmanager
from typing import TYPE_CHECKING

from ipclock.errors import Interrupted
from ipclock.linux import polling

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from types import FrameType

ENTER, LEAVE, HOME = "\x1b[?1049h\x1b[?25l", "\x1b[?25h\x1b[?1049l", "\x1b[H"


def write(rows: Sequence[str]) -> None:
    """Show these rows, and nothing else."""
    _put(HOME + "\x1b[K\r\n".join(rows) + "\x1b[K\x1b[J")


def _put(text: str) -> None:
    os.write(sys.stdout.fileno(), text.encode())


@contextmanager
def opened() -> Iterator[Callable[[float], str]]:
    """Take the terminal's other screen for the block, and give all back as it was, however the block ends.

    Yields what waits so many seconds for keys; a change of the window cuts that short.
    """
    keys = sys.stdin.fileno() if sys.stdin is not None and sys.stdin.isatty() else None
    before = termios.tcgetattr(keys) if keys is not None else None
    bell, ringer = os.pipe()
    os.set_blocking(ringer, False)

    def take() -> None:
        if keys is not None:
            tty.setcbreak(keys)
        _put(ENTER)

    def give() -> None:
        _put(LEAVE)
        if keys is not None and before is not None:
            termios.tcsetattr(keys, termios.TCSADRAIN, before)

    def leave(number: int, _frame: FrameType | None) -> None:
        raise Interrupted(number)

    def pause(_number: int, _frame: FrameType | None) -> None:
        give()
        os.kill(os.getpid(), signal.SIGSTOP)
        take()

    def typed(seconds: float) -> str:
        ready = polling.readable([bell] if keys is None else [bell, keys], seconds)
        if bell in ready:
            os.read(bell, 4096)
        return os.read(keys, 100).decode(errors="replace") if keys is not None and keys in ready else ""

    old_bell = signal.set_wakeup_fd(ringer, warn_on_full_buffer=False)
    signal.signal(signal.SIGWINCH, lambda *_: None)
    signal.signal(signal.SIGTSTP, pause)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
        signal.signal(number, leave)
    take()
    try:
        yield typed
    finally:
        give()
        signal.set_wakeup_fd(old_bell)
        os.close(bell)
        os.close(ringer)
