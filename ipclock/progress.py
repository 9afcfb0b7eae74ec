"""What a person reads on stderr while a build waits and starts.

Makes lines from snapshots and writes them: on a terminal one line that is rewritten, elsewhere a line at the start,
at each change and at an interval. Guarantees that the terminal's line is clean when somebody else writes on it.
"""

from __future__ import annotations

import os
import select
import sys
import time
from contextlib import suppress
from typing import TYPE_CHECKING, TextIO

from ipclock.messages import _
from ipclock.process import user_name
from ipclock.snapshot import printable

if TYPE_CHECKING:
    from ipclock.snapshot import Holder, Snapshot

REWRITE_S = 1.0
STUCK_NOTICE_S = 5.0
MAX_LINE = 1000  # letters: within the 4096 bytes that a pipe with room takes without blocking
# for an encoding that lacks them (EUC-KR has none of the three)
PLAIN = {"✓": "[ok]", "⏳": "[..]", "❌": "[!!]"}


def encodable(text: str, stream: TextIO) -> str:
    """Return *text* with the symbols that the stream's encoding lacks spelled out."""
    encoding = stream.encoding or "ascii"
    for symbol, plain in PLAIN.items():
        try:
            symbol.encode(encoding)
        except UnicodeEncodeError:
            text = text.replace(symbol, plain)
    return text.encode(encoding, "backslashreplace").decode(encoding)


def say(text: str, *, at_once: bool = False) -> None:
    """Write one line for a person to stderr. If that is closed or full, nobody is told; *at_once*: nor if it blocks."""
    (_write_at_once if at_once else _write)(text + "\n")


def _write(text: str) -> None:
    if sys.stderr is not None:
        with suppress(OSError, ValueError):
            # past the stream's buffer: what stays in there fails again at the interpreter's end, which then exits 120
            os.write(sys.stderr.fileno(), encodable(text, sys.stderr).encode(sys.stderr.encoding))


def _write_at_once(text: str) -> None:
    """Write to stderr, or not at all where that would block: Ctrl-S, a pipe that nobody reads.

    Whoever blocks here stands in line, or at the gate, or holds a slot, and everybody would wait for him (INV-7).
    """
    if sys.stderr is not None:
        with suppress(OSError, ValueError):
            if select.select([], [sys.stderr], [], 0)[1]:
                _write(text)


def cut(text: str, width: int) -> str:
    """Return the head of *text* that fills at most *width* columns of a terminal; a Korean letter takes two."""
    used = 0
    for index, letter in enumerate(text):
        used += columns(letter)
        if used > width:
            return text[:index]
    return text


def columns(text: str) -> int:
    """Return how many columns of a terminal *text* fills."""
    import unicodedata

    return sum(
        0 if unicodedata.combining(letter) else 2 if unicodedata.east_asian_width(letter) in "WF" else 1
        for letter in text
    )


def span(seconds: float) -> str:
    """Return a length of time in words: "40 s", "12 min", "3 h 5 min"."""
    whole = int(seconds)
    if whole < 60:
        return _("{seconds} s").format(seconds=whole)
    if whole < 3600:
        return _("{minutes} min").format(minutes=whole // 60)
    return _("{hours} h {minutes} min").format(hours=whole // 3600, minutes=whole % 3600 // 60)


def pid_of(holder: Holder) -> str:
    """Return the PID to show for a holder: the build's own where it is known."""
    return str(holder.command_pid or holder.pid or "?")


def waiting_line(snapshot: Snapshot, waited: float, limit: float, position: int, reasons: list[str]) -> str:
    """Return the line that says for how long a build has waited, how long it still will, for whom, and why else."""
    seconds = int(waited)
    text = _("⏳ waiting ({waited}/{limit} s, left: {left} s, builds: {held}/{capacity})").format(
        waited=seconds,
        limit=f"{limit:g}",
        left=f"{max(0, limit - seconds):g}",
        held=snapshot.taken,
        capacity=snapshot.capacity,
    )
    return text + " · " + standing(snapshot, position, reasons)


def standing(snapshot: Snapshot, position: int, reasons: list[str]) -> str:
    """Return the place in line, why else it waits, and who holds the slots, since when."""
    parts = [_("place {position} in line").format(position=position), *reasons]
    if snapshot.drained:
        parts.append(drained(snapshot))
    parts += [f"{holder.label} (PID: {pid_of(holder)}, {span(holder.held_s or 0)})" for holder in snapshot.holders]
    return " · ".join(parts)


def drained(snapshot: Snapshot) -> str:
    """Return on whose word no build is started, why, and until when."""
    if snapshot.drain is None:
        return _("drained: MAX_PARALLEL_BUILDS=0")
    parts = [_("drained")]
    if snapshot.drain.uid is not None:
        parts[0] = _("drained by {user}").format(user=user_name(snapshot.drain.uid))
    if snapshot.drain.until is not None:
        end = time.localtime(time.time() + snapshot.drain.until - time.monotonic())
        parts[0] += _(" until {time}").format(time=time.strftime("%H:%M", end))
    return ": ".join(parts + [printable(snapshot.drain.reason)] * bool(snapshot.drain.reason))


class Progress:
    """The lines about one build's wait. *quiet* drops them all; *interval* is in seconds, for logs."""

    def __init__(self, limit: float, *, quiet: bool, interval: float, terminal: bool) -> None:
        self._limit = limit
        self._quiet = quiet
        self._interval = interval
        self._terminal = terminal
        self._begun = time.monotonic()
        self._looked_at = self._written_at = float("-inf")
        self._written = ""
        self._open_line = False
        self._stuck_said = False

    def due(self) -> bool:
        """Return whether `waiting` would look at the pool now: once a second is enough for a reader."""
        return not self._quiet and time.monotonic() - self._looked_at >= REWRITE_S

    def waiting(self, snapshot: Snapshot, position: int, reasons: list[str]) -> None:
        """Show that the build waits, and the *reasons* besides those who hold the slots."""
        now = self._looked_at = time.monotonic()
        text = waiting_line(snapshot, now - self._begun, self._limit, position, reasons)
        if self._terminal:
            self._rewrite(text)
            return
        # what changed is told at once, the clock alone only at the interval
        holders = [(holder.ticket, holder.state) for holder in snapshot.holders]
        change = f"{position} {holders} {snapshot.capacity} {snapshot.drained} {len(reasons)}"
        if change != self._written or now - self._written_at >= self._interval:
            _write_at_once(text[:MAX_LINE] + "\n")
            self._written, self._written_at = change, now

    def stuck(self, seconds: float, pid: int) -> None:
        """Show, once, that another process keeps the pool's mutex."""
        if seconds >= STUCK_NOTICE_S and not self._stuck_said and not self._quiet:
            self._stuck_said = True
            self.clear()
            text = _("⏳ the pool is locked by process {pid}, which does not go on")
            _write_at_once(text.format(pid=pid or "?") + "\n")

    def details(self, ticket: int, slot: int) -> None:
        """Show which slot it is and how long the wait took."""
        text = _("ipclock: ticket {ticket}, slot {slot}, waited {seconds} s")
        _write_at_once(text.format(ticket=ticket, slot=slot, seconds=f"{time.monotonic() - self._begun:.2f}") + "\n")

    def acquired(self, label: str, held: int, capacity: int) -> None:
        """Show that the build has its slot and starts."""
        self.clear()
        if not self._quiet:
            _write_at_once(_("✓ build slot acquired ({held}/{capacity})").format(held=held, capacity=capacity) + "\n")
            _write_at_once(_("✓ starting the build of {label}.").format(label=label) + "\n")

    def clear(self) -> None:
        """Leave the terminal's line clean, with the cursor at its start."""
        if self._open_line:
            _write_at_once("\r\x1b[K")
            self._open_line = False

    def _rewrite(self, text: str) -> None:
        try:
            width = os.get_terminal_size(sys.stderr.fileno()).columns
        except (OSError, ValueError):
            width = 80
        # one column is left free: a full line would wrap, and \r would then leave its first half behind
        _write_at_once("\r" + cut(encodable(text, sys.stderr), max(1, (width or 80) - 1)) + "\x1b[K")
        self._open_line = True
