"""A plot in SVG: rows of dots over a logarithmic scale, with a line from each to a second value."""

from __future__ import annotations

import math
from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

LEFT, WIDTH, ROW, TOP, LINE = 190, 560, 26, 34, 16
COLOURS = ("#1b6ca8", "#d1495b", "#3a7d44", "#8f5db7", "#c98a1b", "#555555", "#00a6a6", "#b5446e")


class Plot:
    """A picture with a row each name and, in each row, a colour each case.

    What is 0 or less stands at the left edge; an open dot at the right edge is infinite.
    """

    def __init__(self, title: str, rows: Sequence[str], cases: Sequence[str]) -> None:
        self.title, self.rows, self.cases = title, rows, cases
        self.dots: list[tuple[str, str, float, float]] = []

    def add(self, row: str, case: str, value: float, to: float) -> None:
        """Add a dot and a line from there to another value."""
        self.dots.append((row, case, value, to))

    def svg(self) -> str:
        """Return the picture."""
        height = self._bottom() + LINE * (len(self.cases) + 2)
        size = f"width='{LEFT + WIDTH + 40}' height='{height}' font-family='sans-serif' font-size='12'"
        lines = [
            f"<svg xmlns='http://www.w3.org/2000/svg' {size}>",
            "<rect width='100%' height='100%' fill='white'/>",
            _text(8, 18, self.title, "font-weight='bold'"),
            *self._axis(),
            *(_text(LEFT - 10, self._y(row) + 17, row, "text-anchor='end'") for row in self.rows),
            *(line for dot in self.dots for line in self._dot(*dot)),
            *(self._legend(case) for case in self.cases if len(self.cases) > 1),
            "</svg>",
        ]
        return "\n".join(lines) + "\n"

    def _bottom(self) -> int:
        return TOP + ROW * len(self.rows)

    def _y(self, row: str) -> float:
        return TOP + ROW * self.rows.index(row)

    def _colour(self, case: str) -> str:
        return COLOURS[self.cases.index(case) % len(COLOURS)]

    def _decades(self) -> tuple[int, int]:
        """Return the exponents of 10 between which all lies that is finite."""
        finite = [value for dot in self.dots for value in dot[2:] if 0 < value < math.inf]
        low = math.floor(math.log10(min(finite, default=1)))
        return low, max(math.ceil(math.log10(max(finite, default=10))), low + 1)

    def _x(self, value: float) -> float:
        low, high = self._decades()
        exponent = math.log10(value) if value > 0 else low
        return LEFT + WIDTH * (min(max(exponent, low), high) - low) / (high - low)

    def _axis(self) -> list[str]:
        low, high = self._decades()
        lines = []
        for value in (10.0**exponent for exponent in range(low, high + 1)):
            at = f"{self._x(value):.1f}"
            lines.append(f"<line x1='{at}' y1='{TOP}' x2='{at}' y2='{self._bottom()}' stroke='#ccc'/>")
            lines.append(_text(self._x(value), self._bottom() + LINE, f"{value:g}", "text-anchor='middle'"))
        return lines

    def _dot(self, row: str, case: str, value: float, to: float) -> list[str]:
        y = self._y(row) + ROW * (self.cases.index(case) + 1) / (len(self.cases) + 1)
        colour = self._colour(case)
        inside = "none" if value == math.inf else colour
        return [
            f"<line x1='{self._x(value):.1f}' y1='{y:.1f}' x2='{self._x(to):.1f}' y2='{y:.1f}' stroke='{colour}'/>",
            f"<circle cx='{self._x(value):.1f}' cy='{y:.1f}' r='3' stroke='{colour}' fill='{inside}'/>",
        ]

    def _legend(self, case: str) -> str:
        y = self._bottom() + LINE * (self.cases.index(case) + 2) + 4
        return _text(LEFT, y, f"● {case}", f"fill='{self._colour(case)}'")


def _text(x: float, y: float, text: str, more: str = "") -> str:
    return f"<text x='{x:.1f}' y='{y:.1f}' {more}>{escape(text)}</text>"
