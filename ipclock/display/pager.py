"""Long output on a terminal, through the user's pager as git(1) has it; elsewhere straight to stdout.

Guarantees: the lines come as fast as the reader goes on, and no faster; a pager that is left early is the end of them
(BrokenPipeError), and the terminal is the pager's until it ends.
"""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

from ipclock.config.environment import DEFAULT_PAGER, pager, pager_environment, plain_terminal
from ipclock.console import encodable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@contextmanager
def opened(*, wanted: bool = True) -> Iterator[Callable[[str], None]]:
    """Return what writes one line: to a pager if it is *wanted* and stdout is a terminal."""
    command = _command() if wanted else ""
    if not command:
        yield _print
        return
    child = subprocess.Popen(  # noqa: S603 - the user's own words
        ["/bin/sh", "-c", command],
        stdin=subprocess.PIPE,
        env=pager_environment(),
        encoding=sys.stdout.encoding,
        errors="backslashreplace",
    )
    # Ctrl-C is for the pager: without us its terminal would go back to the shell, with the pager still on it
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        # at once: the first screen is there before the rest is read
        yield lambda line: print(encodable(line, sys.stdout), file=child.stdin, flush=True)
    finally:
        child.communicate()
        signal.signal(signal.SIGINT, before)


def _command() -> str:
    if sys.stdout is None or not sys.stdout.isatty() or plain_terminal():
        return ""
    command = pager()
    if command == DEFAULT_PAGER and not shutil.which("less"):
        return ""
    return "" if command == "cat" else command


def _print(line: str) -> None:
    print(encodable(line, sys.stdout) if sys.stdout else line)
