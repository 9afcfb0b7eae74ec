"""What a person reads on stderr while a build waits and starts.

Makes lines from what is known and writes them: on a terminal up to three that are rewritten in place, elsewhere one at
the start, at each change and at an interval. Guarantees that the terminal is clean when another process writes on it.
"""

from __future__ import annotations

import os
import sys
import time

from ipclock._typing import TYPE_CHECKING
from ipclock.config.environment import colours
from ipclock.console import encodable, write_at_once
from ipclock.i18n import _

if TYPE_CHECKING:
    from ipclock.display.canvas import Canvas
    from ipclock.display.wait_status import WaitView

REWRITE_S = 1.0
REPAINT_S = 5.0  # in between, rows in which only numbers have changed stay as they are: half as many bytes
STUCK_NOTICE_S = 5.0
MAX_LINE = 1000  # letters: within the 4096 bytes that a pipe with room takes without blocking
BAR = 24  # columns
LOWEST = 5  # rows: on a lower terminal one line is enough
RESUMED_S = 3.0  # without a line for so long we were stopped, and the shell has written below ours
_NO_DIGITS = {ord(digit): None for digit in "0123456789"}
YELLOW, RED, DIM = "\x1b[33m", "\x1b[31m", "\x1b[2m"


class WaitingLine:
    """The lines about one build's wait. *quiet* drops them all; *interval* is in seconds, for logs.

    On a *canvas* they are rewritten in place, as long as it is ours; else there is a line at each change.
    """

    def __init__(self, *, quiet: bool, interval: float, canvas: Canvas | None = None) -> None:
        self._quiet = quiet
        self._interval = interval
        self._canvas = canvas
        self._looked_at = self._written_at = float("-inf")
        self._written = ""
        self._rows: list[str] = []  # of ours on the terminal, the cursor in the last one
        self._painted_at = float("-inf")
        self._coloured = colours(canvas is not None)
        self._stuck_said = False

    @property
    def pace(self) -> float:
        """How many seconds a reader may be left without a look at the pool."""
        if self._quiet:
            return float("inf")
        return REWRITE_S if self._canvas else max(REWRITE_S, self._interval)

    def due(self) -> bool:
        """Return whether `waiting` would look at the pool now: once a second is enough for a reader."""
        return not self._quiet and time.monotonic() - self._looked_at >= REWRITE_S

    def waiting(self, view: WaitView, waited: float, limit: float) -> None:
        """Show that the build waits, for which builds, and how long: *waited* of *limit* seconds so far."""
        now = time.monotonic()
        resumed, self._looked_at = now - self._looked_at > RESUMED_S, now
        lines = view.lines(waited, limit)
        if self._canvas:
            drawable = self._canvas.drawable
            if resumed or not drawable:  # another process has written below our lines
                self._rows = []
            if drawable:
                self._rewrite(*lines, left=1 - waited / limit)
                return
        # a change is shown at once, the clock alone only at the interval
        holders = [(holder.ticket, holder.state) for holder in view.pool.holders]
        change = f"{view.position} {holders} {view.pool.capacity} {view.pool.drained} {len(view.reasons)}"
        if change != self._written or (not self._canvas and now - self._written_at >= self._interval):
            write_at_once(" · ".join(filter(None, lines))[:MAX_LINE] + "\n")
            self._written, self._written_at = change, now

    def stuck(self, seconds: float, pid: int) -> None:
        """Show, once, that another process keeps the pool's mutex."""
        if seconds >= STUCK_NOTICE_S and not self._stuck_said and not self._quiet:
            self._stuck_said = True
            self.clear()
            text = _("⏳ the pool is locked by process {pid}, which does not respond")
            write_at_once(text.format(pid=pid or "?") + "\n")

    def details(self, ticket: int, slot: int, waited: float) -> None:
        """Show which slot it is and how long the wait took, in seconds."""
        text = _("ipclock: ticket {ticket}, slot {slot}, waited {seconds} s")
        write_at_once(text.format(ticket=ticket, slot=slot, seconds=f"{waited:.2f}") + "\n")

    def given_up(self, label: str) -> None:
        """Show that the build has left the line."""
        self.clear()
        if not self._quiet and self._looked_at > 0:
            text = _("ipclock: {label} has left the queue").format(label=label)
            write_at_once(text + "\n")

    def acquired(self, label: str, held: int, capacity: int) -> None:
        """Show that the build has its slot and starts."""
        self.clear()
        if not self._quiet:
            write_at_once(_("✓ build slot acquired ({held}/{capacity})").format(held=held, capacity=capacity) + "\n")
            write_at_once(_("✓ starting the build of {label}.").format(label=label) + "\n")

    def clear(self) -> None:
        """Leave the terminal clean, with the cursor where the first line began."""
        if self._rows and self._canvas:
            if self._canvas.drawable:
                write_at_once(self._back() + "\x1b[J")
            self._canvas.leave()
            self._rows = []

    def _back(self) -> str:
        return "\r" + (f"\x1b[{len(self._rows) - 1}A" if len(self._rows) > 1 else "")

    def _rewrite(self, first: str, estimated: str, holders: str, *, left: float) -> None:
        try:
            width, height = os.get_terminal_size(sys.stderr.fileno())
        except (OSError, ValueError):
            width, height = 80, 24
        from ipclock.display.cells import cut  # few have to wait

        filled = round(BAR * (1 - max(0.0, left)))
        bar = "   " + "█" * filled + "░" * (BAR - filled) + "  " + estimated
        rows = [(first, ""), (bar, YELLOW if left > 0.1 else RED)] + [("   " + holders, DIM)] * bool(holders)
        # one column is left free: a full line would wrap, and the way back up would be too short
        room = max(1, (width or 80) - 1)
        lines = [
            f"{colour}{text}\x1b[0m" if colour and self._coloured else text
            for text, colour in ((cut(encodable(text, sys.stderr), room), colour) for text, colour in rows)
        ]
        if 0 < height < LOWEST:
            lines = lines[:1]
        write_at_once(self._back() + self._changes(lines))
        self._rows = lines

    def _changes(self, lines: list[str]) -> str:
        """Return what makes these lines of those that are there, from the beginning of the first one."""
        now = time.monotonic()
        if now - self._painted_at >= REPAINT_S or len(lines) != len(self._rows):
            self._painted_at = now
            return "\x1b[K\n".join(lines) + "\x1b[K\x1b[J"
        first, *others = lines
        changed = [new if _words(new) != _words(old) else "" for new, old in zip(others, self._rows[1:], strict=True)]
        end = "" if changed and changed[-1] else "\x1b[999C"  # where what is typed hides nothing
        return "\n".join([f"{first}\x1b[K", *(row and f"{row}\x1b[K" for row in changed)]) + end


def _words(line: str) -> str:
    return line.translate(_NO_DIGITS)
