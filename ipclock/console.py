"""Lines for a person on stderr, whatever its encoding, and wherever it leads."""

from __future__ import annotations

import os
import select
import sys
from contextlib import suppress

from ipclock._typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import TextIO

# for an encoding that lacks them (EUC-KR has none of the three)
PLAIN = {"✓": "[ok]", "⏳": "[..]", "❌": "[!!]", "█": "#", "░": "-", "…": "~"}


def encodable(text: str, stream: TextIO) -> str:
    """Return *text* with the symbols that the stream's encoding lacks spelled out."""
    if text.isascii():
        return text
    encoding = stream.encoding or "ascii"
    for symbol, plain in PLAIN.items():
        try:
            symbol.encode(encoding)
        except UnicodeEncodeError:
            text = text.replace(symbol, plain)
    return text.encode(encoding, "backslashreplace").decode(encoding)


def say(text: str, *, at_once: bool = False) -> None:
    """Write one line to stderr. It is dropped where that is closed or full; with *at_once* also where it blocks."""
    (write_at_once if at_once else _write)(text + "\n")


def _write(text: str) -> None:
    if sys.stderr is not None:
        with suppress(OSError, ValueError):
            # past the stream's buffer: what stays in there fails again at the interpreter's end, which then exits 120
            os.write(sys.stderr.fileno(), encodable(text, sys.stderr).encode(sys.stderr.encoding))


def write_at_once(text: str) -> None:
    """Write to stderr, or not at all where that would block: Ctrl-S, a pipe without a reader.

    A process that blocks here stands in the queue, or at the gate, or holds a slot, and all others would wait (INV-7b).
    """
    if sys.stderr is not None:
        with suppress(OSError, ValueError):
            if select.select([], [sys.stderr], [], 0)[1]:
                _write(text)
