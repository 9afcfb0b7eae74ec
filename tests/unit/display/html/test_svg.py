"""The drawing of a strip of builds: bars, lines, lanes, labels and what the pointer tells."""

from __future__ import annotations

from typing import TYPE_CHECKING
from xml.etree import ElementTree

from ipclock.display import formatting
from ipclock.display.html import svg, timeline
from ipclock.history import outcomes
from tests.helpers.histories import build, wait
from tests.unit.display.html.drawing import NOON, across, facts_of, of_class

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

    from ipclock.history.finished import Row


def strip_of(*rows: Row) -> Element:
    """Return the drawing of builds that fit in one strip."""
    (strip,) = timeline.strips(rows)
    tree = ElementTree.Element("div")
    svg.strip(tree, strip, timeline.before(rows))
    return tree


def test_a_bar_is_as_long_as_its_hold_and_a_line_ends_where_its_hold_begins() -> None:
    # a strip of five minutes: 1 % is 3 seconds
    tree = strip_of(build("a", NOON, 150), build("b", NOON + 150, 60, waited_s=120, outcome="failed"))

    bars = [(*across(group.find("rect"), "x", "width"),) for group in of_class(tree, "hold")]  # type: ignore[arg-type]
    (wait,) = of_class(tree, "wait")
    line, up = wait.findall("line")
    assert bars == [(0, 50), (50, 20)]
    assert (across(line, "x1", "x2"), across(up, "x1", "x2")) == ([10, 50], [50, 50])


def test_each_lane_has_its_name_and_its_bars_beside_it() -> None:
    tree = strip_of(build("a", NOON, 60, slot=1), build("b", NOON, 60, slot=2), wait("c", NOON, 60))

    gutter, plot = tree.findall(".//svg[@aria-hidden]") + tree.findall(".//svg[@role='img']")
    bands = [(float(band.get("y", "")), float(band.get("height", ""))) for band in of_class(plot, "band")]

    def lanes(element: str, key: str, where: Element) -> list[int]:
        heights = [float(one.get(key, "")) for one in where.iter(element) if one.get("class") not in ("band", "mark")]
        return [at for y in heights for at, (top, height) in enumerate(bands) if top <= y < top + height]

    names = [text.text for text in gutter.iter("text")]
    assert (names, lanes("text", "y", gutter), lanes("rect", "y", plot), lanes("circle", "cy", plot)) == (
        ["slot 1", "slot 2", "no slot"],
        [0, 1, 2],
        [0, 1],
        [2],
    )


def test_an_outcome_is_told_by_a_shape_too() -> None:
    rows = [build(outcome, NOON + 10 * at, 10, outcome=outcome) for at, outcome in enumerate(outcomes.HELD)]
    without = [outcome for outcome in outcomes.OUTCOMES if outcome not in outcomes.HELD]
    rows += [wait(outcome, NOON, 9, outcome) for outcome in (*without, "cancelled")]

    tree = strip_of(*rows)

    holds = {facts_of(group)["label"]: group for group in of_class(tree, "hold")}
    heights = {label: float(group.find("rect").get("height", "")) for label, group in holds.items()}  # type: ignore[union-attr]
    kinds = {facts_of(group)["label"]: group.get("class", "").split()[1] for group in of_class(tree, "wait")}
    tall, usual = svg.BAR + svg.ABOVE, svg.BAR
    low = dict.fromkeys(("done", "evicted", "orphaned", "cancelled"), usual)
    assert heights == low | dict.fromkeys(("failed", "signal", "oom"), tall)
    lost = {label for label, group in holds.items() if "lost" in group.get("class", "")}
    assert lost == {"evicted", "orphaned", "cancelled"}
    assert kinds == {"timeout": "late"} | dict.fromkeys(("busy", "interrupted", "superseded", "cancelled"), "left")


def test_every_outcome_of_the_history_has_its_shape_and_its_word() -> None:
    shapes = {*svg.SHAPES, "cancelled"}  # that one may have had a slot or not, which its row says
    assert set(formatting.OUTCOMES) == shapes == set(outcomes.OUTCOMES)


def test_the_pointer_finds_all_of_a_row() -> None:
    first = build("first", NOON, 60)
    row = build("web", NOON + 60, 125, waited_s=45, user="mira", ticket=7, outcome="signal", code=15, slots=2)

    tree = strip_of(first, row)

    bar, line = of_class(tree, "hold")[1], of_class(tree, "wait")[0]
    expected = {
        "label": "web",
        "user": "mira",
        "ticket": "7",
        "arrived": "2026-09-22 12:00:15 +0000",
        "waited": "45 s",
        "waited for": "first (ticket 1)",
        "held": "2 min",
        "slots": "2",
        "outcome": "killed by a signal (15)",
        "memory": "2.0 GB",
    }
    assert (facts_of(bar), facts_of(line)) == (expected, expected)


def test_a_hold_too_short_to_see_is_drawn_all_the_same() -> None:
    tree = strip_of(build("a", NOON, 0.0), build("b", NOON + 250, 1))

    assert [across(group.find("rect"), "width")[0] > 0.1 for group in of_class(tree, "hold")] == [True, True]  # type: ignore[arg-type]


def test_a_label_is_written_where_it_fits_and_cut_where_its_head_does() -> None:
    label = "스테이징 배포"  # 13 columns
    tree = strip_of(*[build(label, NOON + at, held_s) for at, held_s in ((0, 150), (150, 20), (170, 9))])

    assert [text.text for text in of_class(tree, "name")] == [label, "스테이…"]
