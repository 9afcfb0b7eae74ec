"""A real pseudo-terminal with a program on it, read in the background."""

from __future__ import annotations

import fcntl
import os
import re
import signal
import struct
import sys
import termios
import threading
from pathlib import Path
from typing import TYPE_CHECKING

from tests.helpers.world import HANG_S, until

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tests.helpers.world import World

LOCALES = {"en": "C.UTF-8", "ko": "ko_KR.UTF-8"}


class Terminal:
    """A program that leads a session of its own on a pseudo-terminal of so many columns.

    `before`: the terminal's modes before the program could change them.
    """

    def __init__(self, command: Sequence[str], env: Mapping[str, str], columns: int = 80, rows: int = 24) -> None:
        self.master, slave = os.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        self.before = termios.tcgetattr(slave)
        self.pid = os.fork()
        if self.pid == 0:
            os.login_tty(slave)
            # a test runner may ignore it; a shell in a terminal starts with the default
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            os.execvpe(command[0], list(command), dict(env))
        os.close(slave)
        self._seen = b""
        self._status: int | None = None
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        while True:
            try:
                chunk = os.read(self.master, 65536)
            except OSError:  # EIO: nobody has the terminal any more
                return
            if not chunk:
                return
            self._seen += chunk

    @property
    def text(self) -> str:
        """All that was written on the terminal so far."""
        return self._seen.decode(errors="replace")

    def wait_for(self, text: str) -> str:
        """Wait until *text* was written, and return all that was."""
        try:
            until(lambda: text in self.text, f"{text!r} on the terminal")
        except AssertionError as error:
            raise AssertionError(f"{error}; so far {self.text!r}; {self._state()}") from None
        return self.text

    def _state(self) -> str:
        proc = Path(f"/proc/{self.pid}")
        state = (proc / "stat").read_text().rpartition(")")[2].split()[0]
        return f"the program is in state {state} in {(proc / 'wchan').read_text()}, read: {self._reader.is_alive()}"

    def type(self, keys: str) -> None:
        """Type on the terminal's keyboard: "\\x03" is Ctrl-C, "\\x1a" is Ctrl-Z."""
        os.write(self.master, keys.encode())

    def wait(self) -> int:
        """Return how the program ended: its status, or -n for signal n."""
        if self._status is None:
            try:
                until(lambda: os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT), "the program's end")
            except AssertionError as error:
                raise AssertionError(f"{error}; so far {self.text!r}; {self._state()}") from None
            self._status = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
            self._reader.join(HANG_S)
        return self._status

    def close(self) -> None:
        """End the program and everything on the terminal."""
        if self._status is None:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
            self._status = -signal.SIGKILL
        self._reader.join(HANG_S)  # else it would go on reading what gets this descriptor's number next
        os.close(self.master)


def on_terminal(
    world: World, *arguments: str, language: str = "en", width: int = 80, status: int = 0, **more: str
) -> list[str]:
    """Return the lines that an `ipclock` writes on a terminal of its own, without colours; it ends with *status*."""
    env = world.env | {"TERM": "xterm", "LANG": LOCALES[language]} | more
    terminal = Terminal([sys.executable, "-m", "ipclock", *arguments], env, columns=width)
    try:
        assert terminal.wait() == status, terminal.text
        return re.sub(r"\x1b\[[0-9;]*m", "", terminal.text).replace("\r", "").splitlines()
    finally:
        terminal.close()
