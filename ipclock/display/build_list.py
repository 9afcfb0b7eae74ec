"""Finished builds as rows for people, one line each, that fit into the width of a terminal."""

from __future__ import annotations

import signal
from itertools import chain, islice
from typing import TYPE_CHECKING, NamedTuple

from ipclock.display.cells import columns, cut
from ipclock.display.formatting import clock, outcome, size, span
from ipclock.i18n import _
from ipclock.utf8 import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from ipclock.history.finished import Row

MEASURED = 200  # rows, by which the columns get their widths
LEAST_LABEL, MOST_OUTCOME = 12, 18  # columns, where the terminal has not enough
GAP = "  "
_SIGNALS = {one.value for one in signal.Signals}


class Column(NamedTuple):
    """A column: its head, a row's cell, whether it stands at the right; of those that `go` the highest goes first."""

    head: str
    cell: Callable[[Row], str]
    right: bool = False
    goes: int = 0


def _columns() -> list[Column]:
    return [
        Column(_("ended"), lambda row: clock(row.ended)),
        Column(_("label"), lambda row: printable(row.label)),
        Column(_("user"), lambda row: printable(row.user), goes=2),
        Column(_("outcome"), _outcome),
        Column(_("waited"), lambda row: span(row.waited_s), right=True, goes=1),
        Column(_("took"), lambda row: "-" if row.held_s is None else span(row.held_s), right=True),
        Column(_("memory"), lambda row: "-" if row.memory is None else size(row.memory), right=True, goes=3),
    ]


def lines(rows: Iterable[Row], width: int | None) -> Iterator[str]:
    """Yield a line of heads and one for each row, none wider than *width*; None: of any width, and nothing is cut."""
    rest = iter(rows)
    first = list(islice(rest, MEASURED))
    shown = _columns()
    widths = {column: max(columns(text) for text in _cells(column, first)) for column in shown}
    if width is not None:
        label, ending = shown[1], shown[3]
        wanted = widths[label]
        widths[label] = min(wanted, LEAST_LABEL)
        if _total(shown, widths) > width:
            widths[ending] = min(widths[ending], MOST_OUTCOME)
        while _total(shown, widths) > width and any(column.goes for column in shown):
            shown.remove(max(shown, key=lambda column: column.goes))
        widths[label] = max(1, min(wanted, width - _total(shown, widths) + widths[label]))
    yield _line([column.head for column in shown], shown, widths, width)
    for row in chain(first, rest):
        yield _line([column.cell(row) for column in shown], shown, widths, width)


def _outcome(row: Row) -> str:
    known = row.outcome == "signal" and row.code in _SIGNALS
    return signal.Signals(row.code).name if known and row.code else outcome(row.outcome, row.code)


def _cells(column: Column, rows: Iterable[Row]) -> Iterator[str]:
    return chain([column.head], map(column.cell, rows))


def _total(shown: list[Column], widths: dict[Column, int]) -> int:
    return sum(widths[column] for column in shown) + len(GAP) * (len(shown) - 1)


def _line(cells: list[str], shown: list[Column], widths: dict[Column, int], width: int | None) -> str:
    padded = [
        _fitted(text, widths[column], right=column.right, whole=width is None)
        for text, column in zip(cells, shown, strict=True)
    ]
    line = GAP.join(padded).rstrip()
    return line if width is None or columns(line) <= width else cut(line, width)


def _fitted(text: str, width: int, *, right: bool, whole: bool) -> str:
    blank = width - columns(text)
    if blank < 0 and not whole:
        text = cut(text, width)
        blank = width - columns(text)
    return " " * blank + text if right else text + " " * blank
