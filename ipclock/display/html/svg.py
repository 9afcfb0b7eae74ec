"""The drawings of a pool's past as SVG: who ran when and who waited, how long builds waited, how long they take.

Pure. Makes elements, not text, so that a label stays text whatever is in it. Places across are in percent and heights
in pixels: letters keep their size on a phone. An outcome has a shape as well as a colour.
"""

from __future__ import annotations

import time
from itertools import pairwise
from typing import TYPE_CHECKING
from xml.etree.ElementTree import Element, SubElement

from ipclock.display.cells import columns, shortened
from ipclock.display.formatting import outcome, size, span
from ipclock.display.html import timeline
from ipclock.i18n import _
from ipclock.utf8 import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from ipclock.display.html.timeline import Lane, Piece, Strip
    from ipclock.history.finished import Row
    from ipclock.history.queries import Recent
    from ipclock.history.statistics import Box

# the shape of a build's end
SHAPES = dict.fromkeys(("failed", "signal", "oom"), "bad") | dict.fromkeys(("evicted", "orphaned"), "lost")
SHAPES |= {"done": "good", "timeout": "late"} | dict.fromkeys(("busy", "interrupted", "superseded"), "left")
# in pixels
BAR = 20
ABOVE = 6  # what the bar of a failed build sticks out
WAIT = 5  # from one line of a wait to the next
APART = 10  # the same where they end in a dot
GUTTER = 48
AXIS = 18
WAITS = 110
LETTER = 7.2  # about, of a column
SHORTEST = 6  # columns of a label that is cut
WIDE, NARROW = 9.8, 2.9  # of a hundredth of a drawing, on a wide page and on a phone
LEAST = 0.12  # percent: a width of 0 is not drawn, its outline neither


def add(parent: Element, tag: str, text: str = "", /, **attributes: str | float) -> Element:
    """Add an element. In the attributes' names `_` stands for `-`; one at the end is dropped (class_)."""
    names = {name.rstrip("_").replace("_", "-"): f"{value}" for name, value in attributes.items()}
    made = SubElement(parent, tag, names)
    made.text = text or None
    return made


def facts(row: Row, before: Mapping[Row, Row]) -> list[tuple[str, str]]:
    """Return what is known of a build, in words; *before* says whose slot it got."""
    found = [
        (_("label"), printable(row.label)),
        (_("user"), printable(row.user)),
        (_("ticket"), str(row.ticket)),
        (_("arrived"), moment(row.arrived)),
        (_("waited"), span(row.waited_s)),
    ]
    if row in before:
        found.append((_("waited for"), f"{printable(before[row].label)} ({_('ticket')} {before[row].ticket})"))
    if row.held_s is not None:
        found.append((_("held"), span(row.held_s)))
    if row.slots > 1:
        found.append((_("slots"), str(row.slots)))
    found.append((_("outcome"), outcome(row.outcome, row.code)))
    if row.memory is not None:
        found.append((_("memory"), size(row.memory)))
    return found


def moment(when: float) -> str:
    """Return a moment as local date and time with the offset."""
    return time.strftime("%Y-%m-%d %H:%M:%S %z", time.localtime(when))


def brief(seconds: float) -> str:
    """Return a round span, as an axis has it."""
    return _("{hours} h").format(hours=f"{seconds / 3600:g}") if seconds >= 3600 else span(seconds)


def legend(parent: Element, rows: Sequence[Row]) -> None:
    """Draw what the shapes mean, those that occur."""
    names = {
        "good": _("done"),
        "bad": _("failed, killed by a signal or out of memory (taller bar)"),
        "lost": _("slot released by force, cancelled or orphaned (dashed)"),
        "wait": _("waited"),
        "late": _("timed out (dot)"),
        "left": _("left the queue without a slot (ring)"),
    }
    kinds = {_kind(row) for row in rows} | {"wait" for row in rows if row.waited_s >= timeline.SAME_S}
    listed = add(parent, "ul", class_="legend")
    for kind in filter(kinds.__contains__, names):
        item = add(listed, "li")
        svg = add(item, "svg", width=24, height=14, aria_hidden="true")
        if kind in ("good", "bad", "lost"):
            top = 0 if kind == "bad" else 3
            add(add(svg, "g", class_=f"hold {kind}"), "rect", x=1, y=top, width=22, height=13 - top)
        else:
            line = add(svg, "g", class_=f"wait {kind}")
            add(line, "line", x1=0, x2=20, y1=7, y2=7)
            if kind != "wait":
                add(line, "circle", cx=20, cy=7, r=3.5)
        add(item, "span", names[kind])


def _kind(row: Row) -> str:
    return SHAPES.get(row.outcome, "left" if row.held_s is None else "lost")


def strip(parent: Element, stretch: Strip, before: Mapping[Row, Row]) -> None:
    """Draw a stretch of the timeline: a lane for each slot, bars for holds, lines for waits down to their hold."""
    div = add(parent, "div", class_="strip")
    heading = time.strftime("%Y-%m-%d", time.localtime(stretch.begin))
    if stretch.end - stretch.begin <= timeline.DAY / 2:
        heading += f" {_hour(stretch.begin)} – {_hour(stretch.end)}"
    add(div, "h3", heading)
    tops = [0]
    for lane in stretch.lanes:
        tops.append(tops[-1] + _height(lane))
    gutter, plot = _plot(div, tops[-1] + AXIS, heading)
    across = _scale(stretch.begin, stretch.end)
    for top, bottom in pairwise(tops):
        add(plot, "rect", class_="band", x=0, y=top, width="100%", height=bottom - top - 4)
    for number, (when, text) in enumerate(timeline.marks(stretch)):
        add(plot, "line", class_="grid", x1=across(when), x2=across(when), y1=0, y2=tops[-1] - 4)
        _mark(plot, across(when), tops[-1] + 12, text, number)
    for top, lane in zip(tops, stretch.lanes, strict=False):
        name = _("slot {number}").format(number=lane.slot) if lane.slot else _("no slot")
        add(gutter, "text", name, x=0, y=top + 14 + (ABOVE if lane.slot else 0))
        for piece in lane.waits:
            _wait(plot, lane, piece, top + _held(lane), across, before)
        for piece in lane.holds:
            _hold(plot, piece, top + piece.level * (ABOVE + BAR), across, before)


def _plot(parent: Element, height: float, name: str) -> tuple[Element, Element]:
    """Return the two parts of a drawing: the gutter with the names of what is beside them, and the plot."""
    drawn = add(parent, "div", class_="drawn")
    gutter = add(drawn, "svg", width=GUTTER, height=height, aria_hidden="true")
    return gutter, add(drawn, "svg", width="100%", height=height, role="img", aria_label=name)


def _held(lane: Lane) -> int:
    return (1 + max((piece.level for piece in lane.holds), default=-1)) * (ABOVE + BAR)


def _height(lane: Lane) -> int:
    levels = 1 + max((piece.level for piece in lane.waits), default=-1)
    return _held(lane) + (10 + levels * WAIT if lane.slot else 12 + levels * APART)


def _wait(
    plot: Element, lane: Lane, piece: Piece, top: int, across: Callable[[float], str], before: Mapping[Row, Row]
) -> None:
    line = add(plot, "g", class_="wait" if lane.slot else f"wait {_kind(piece.row)}")
    _title(line, facts(piece.row, before))
    y = top + (6 + piece.level * WAIT if lane.slot else 9 + piece.level * APART)
    end = across(piece.end)
    add(line, "line", x1=across(piece.begin), x2=end, y1=y, y2=y)
    if piece.ends and lane.slot:  # up to the bar that it becomes
        add(line, "line", class_="to", x1=end, x2=end, y1=top, y2=y)
    elif piece.ends:
        add(line, "circle", cx=end, cy=y, r=3.5)


def _hold(plot: Element, piece: Piece, top: int, across: Callable[[float], str], before: Mapping[Row, Row]) -> None:
    kind = _kind(piece.row)
    bar = add(plot, "g", class_=f"hold {kind}")
    _title(bar, facts(piece.row, before))
    x, share, rise = across(piece.begin), _share(across, piece.begin, piece.end), 0 if kind == "bad" else ABOVE
    add(bar, "rect", x=x, y=top + rise, width=_percent(share), height=BAR + ABOVE - rise)
    label = printable(piece.row.label) + (f" ×{piece.row.slots}" if piece.row.slots > 1 else "")
    room = int((share * WIDE - 12) / LETTER)
    if room >= SHORTEST:
        label = shortened(label, room)
    if columns(label) <= room:
        fits = columns(label) * LETTER + 12 <= share * NARROW
        # an svg of its own cuts off what is longer than the bar after all
        inner = add(bar, "svg", x=x, y=top + ABOVE, width=_percent(share), height=BAR)
        add(inner, "text", label, x=6, y=14, class_="name" if fits else "name roomy")


def waits(parent: Element, recent: Recent) -> None:
    """Draw the mean and the longest wait of each span of the grid."""
    grid = recent.grid
    top = timeline.rounded(max(one.longest_s for one in recent.bins))
    gutter, plot = _plot(parent, WAITS + 6 + AXIS, _("How long builds waited"))
    for share in (0, 0.5, 1):
        y = 6 + WAITS * (1 - share)
        add(gutter, "text", brief(top * share), x=GUTTER, y=y + 4, text_anchor="end")
        add(plot, "line", class_="grid", x1=0, x2="100%", y1=y, y2=y)
    end = grid.begin + grid.step_s * grid.spans
    across = _scale(grid.begin, end)
    for number, (when, text) in enumerate(timeline.ticks(grid.begin, end)):
        _mark(plot, across(when), WAITS + 21, text, number)
    for number, one in enumerate(recent.bins):
        if not one.builds:
            continue
        begin, mean = grid.begin + number * grid.step_s, one.waited_s / one.builds
        column = add(plot, "g", class_="bin")
        times = (_("from"), moment(begin)), (_("to"), moment(begin + grid.step_s))
        spans = (_("mean"), span(mean)), (_("longest"), span(one.longest_s))
        _title(column, [*times, (_("builds"), f"{one.builds:,}"), *spans])
        x, width = across(begin + 0.1 * grid.step_s), _percent(80 / grid.spans)
        for name, value in (("touch", top), ("longest", one.longest_s), ("mean", mean)):
            height = WAITS * value / top
            add(column, "rect", class_=name, x=x, y=f"{6 + WAITS - height:.1f}", width=width, height=f"{height:.1f}")


def spreads(parent: Element, boxes: Sequence[tuple[str, Box]]) -> None:
    """Draw for each label how the time that its builds took is spread, on one axis."""
    grid = add(parent, "div", class_="boxes")
    top = timeline.rounded(max(box.p95 for _label, box in boxes))
    across = _scale(0, top)
    for label, box in boxes:
        add(add(grid, "div", class_="name"), "bdi", printable(label))
        add(grid, "div", span(box.p50), class_="span")
        words = [(name, span(value)) for name, value in box._asdict().items()]
        cell = add(grid, "div", class_="plot")
        svg = add(cell, "svg", width="100%", height=20, role="img", aria_label=" · ".join(map(" ".join, words)))
        for x in ("0%", "50%", "100%"):
            add(svg, "line", class_="grid", x1=x, x2=x, y1=-6, y2=26)
        drawn = add(svg, "g", class_="box")
        _title(drawn, [(_("label"), printable(label)), *words])
        add(drawn, "line", x1=across(box.p5), x2=across(box.p95), y1=10, y2=10)
        add(drawn, "rect", x=across(box.p25), y=4, width=_percent(_share(across, box.p25, box.p75)), height=12)
        add(drawn, "line", class_="median", x1=across(box.p50), x2=across(box.p50), y1=2, y2=18)
    cell = add(grid, "div", class_="plot axis")
    svg = add(cell, "svg", width="100%", height=AXIS, aria_hidden="true")
    for share, anchor in ((0, "start"), (50, "middle"), (100, "end")):
        add(svg, "text", brief(top * share / 100), x=f"{share}%", y=13, text_anchor=anchor)


def _title(element: Element, words: Sequence[tuple[str, str]]) -> None:
    """Give an element what a browser shows while the pointer is over it."""
    add(element, "title", "\n".join(f"{name}: {value}" for name, value in words))


def _mark(plot: Element, x: str, y: float, text: str, number: int) -> None:
    """Write a mark of an axis; on a phone every second one is left out."""
    share = float(x[:-1])
    anchor = "start" if share < 3 else "end" if share > 94 else "middle"
    add(plot, "text", text, x=x, y=y, text_anchor=anchor, class_="spare" if number % 2 else "mark")


def _scale(begin: float, end: float) -> Callable[[float], str]:
    return lambda value: _percent(100 * (value - begin) / (end - begin))


def _share(across: Callable[[float], str], begin: float, end: float) -> float:
    return max(LEAST, float(across(end)[:-1]) - float(across(begin)[:-1]))


def _percent(share: float) -> str:
    return f"{share:.3f}%"


def _hour(when: float) -> str:
    return time.strftime("%H:%M", time.localtime(when))
