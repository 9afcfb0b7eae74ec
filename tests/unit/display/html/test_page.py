"""The page of a pool's past: what is drawn of known builds, what it is made of, and that labels stay text."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from typing import TYPE_CHECKING
from xml.etree import ElementTree

import pytest

from ipclock import i18n
from ipclock.display.html import page, svg, timeline
from ipclock.history import queries, statistics
from tests.helpers import histories
from tests.helpers.histories import GB, build, wait
from tests.unit.display.html.drawing import NOON, across, facts_of, of_class

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path
    from xml.etree.ElementTree import Element

    from ipclock.history.finished import Row


HOUR = 3600.0


POOL = "/oracle-build"


HOSTILE = """<script>alert(1)</script>"'&amp;<b> ]]> <!-- $body"""


VOID = {"meta", "br", "link", "img", "input", "hr", "base"}


class Outline(HTMLParser):
    """What an HTML parser makes of a page: each element's tag and attributes, all text, and whether it is balanced."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.astray: list[str] = []
        self._open: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if not self._open or self._open.pop() != tag:
            self.astray.append(tag)

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def page_of(path: Path, *rows: Row, label: str | None = None, language: str = "en", until: float = HOUR) -> str:
    """Return the page of a history with these rows."""
    i18n.use(language)
    if rows:
        histories.keep(str(path / "history.db"), rows)
    past = queries.read(str(path / "history.db"), POOL, NOON - 24 * HOUR, NOON + until, label)
    grid = timeline.grid(past.begin, past.end)
    recent = queries.recent(str(path / "history.db"), POOL, past.begin, label, page.MOST_ROWS, grid)
    return page.render(page.View(POOL, label, language), past, statistics.report(past, 16 * GB), recent)


def body_of(text: str) -> Element:
    """Return the page's body as a tree: what we write is XML too."""
    return ElementTree.fromstring(re.search(r"<body>.*</body>", text, re.DOTALL)[0])  # type: ignore[index]


def test_a_span_of_waits_has_its_mean_and_its_longest_as_high_as_they_are(tmp_path: Path) -> None:
    rows = [build("a", NOON + 5, 1, waited_s=waited_s) for waited_s in (10, 20, 60)]

    tree = body_of(page_of(tmp_path, *rows, until=60))

    (column,) = of_class(tree, "bin")
    heights = {rect.get("class"): float(rect.get("height", "")) for rect in column.findall("rect")}
    assert heights == {"touch": svg.WAITS, "longest": svg.WAITS, "mean": svg.WAITS / 2}
    told = facts_of(column)
    assert (told["builds"], told["mean"], told["longest"]) == ("3", "30 s", "1 min")


def test_a_box_spans_the_middle_half_of_the_good_builds(tmp_path: Path) -> None:
    rows = [build("a", NOON - 100 * at, float(at)) for at in range(101)]
    rows.append(build("a", NOON, 3000, outcome="failed"))

    (box,) = of_class(body_of(page_of(tmp_path, *rows)), "box")

    whisker, median = box.findall("line")
    # the axis ends at 120 s
    found = [*across(whisker, "x1", "x2"), *across(median, "x1"), *across(box.find("rect"), "x", "width")]  # type: ignore[arg-type]
    assert found == pytest.approx([5 / 1.2, 95 / 1.2, 50 / 1.2, 25 / 1.2, 50 / 1.2], abs=0.01)


def test_the_figures_are_those_that_stats_prints(tmp_path: Path) -> None:
    rows = [build("web", NOON + 100 * at, 60, waited_s=30, ticket=at) for at in range(1, 4)]
    rows += [wait("web", NOON, 600), build("app", NOON + 900, 120, outcome="failed", memory=4 * GB, ticket=9)]

    tree = body_of(page_of(tmp_path, *rows))

    cells = [["".join(cell.itertext()) for cell in row] for row in tree.findall(".//tbody/tr")]
    assert cells == [
        ["web", "4", "0", "1 (25 %)", "2 min", "30 s", "7 min", "9 min", *["1 min"] * 4, "2.0 GB", "2.0 GB"],
        ["app", "1", "1 (100 %)", "0", *["0 s"] * 4, *["–"] * 4, "4.0 GB", "4.0 GB"],
        ["all", "5", "1 (20 %)", "1 (20 %)", "2 min", "30 s", "6 min", "9 min", *["1 min"] * 4, "2.0 GB", "3.4 GB"],
    ]


@pytest.mark.parametrize("language", i18n.LANGUAGES)
@pytest.mark.parametrize("count", [0, 1, 30])
def test_a_page_is_well_formed_and_says_its_language(tmp_path: Path, count: int, language: str) -> None:
    rows = histories.storm(1, count, NOON) if count else []

    found = Outline(page_of(tmp_path, *rows, language=language))

    attributes = [dict(attrs) for tag, attrs in found.elements if tag == "html"]
    tags = [tag for tag, _attributes in found.elements]
    assert (found.astray, attributes, tags.count("h1"), tags.count("title") >= 1) == ([], [{"lang": language}], 1, True)


def test_a_page_loads_nothing_runs_nothing_and_may_not(tmp_path: Path) -> None:
    text = page_of(tmp_path, *histories.storm(1, 50, NOON))

    found = Outline(text)

    tags = {tag for tag, _attributes in found.elements}
    names = {name for _tag, attributes in found.elements for name in attributes}
    policy = next(attrs["content"] for _tag, attrs in found.elements if "http-equiv" in attrs)
    assert tags & {"script", "link", "img", "iframe", "object", "embed", "base", "a", "image", "use", "form"} == set()
    assert {name for name in names if name in ("src", "href", "style") or name.startswith("on")} == set()
    assert (policy, re.findall(r"url\(|@import|https?:", text)) == (
        "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'",
        [],
    )


def test_whatever_a_label_or_a_user_is_called_stays_text(tmp_path: Path) -> None:
    rows = [
        build(HOSTILE, NOON, 240, user=HOSTILE, waited_s=60),
        wait(HOSTILE, NOON, 60, user=HOSTILE),
        build("a\x1b[31m\u202e\n", NOON, 240, slot=2, user="\x1b\u202e"),
    ]
    harmless = [row._replace(label="a" * 48, user="b") for row in rows]

    found = Outline(page_of(tmp_path, *rows))
    (tmp_path / "other").mkdir()
    same = Outline(page_of(tmp_path / "other", *harmless))

    def tags(outline: Outline) -> list[str]:
        return sorted({tag for tag, _attributes in outline.elements})

    assert (tags(found), found.astray) == (tags(same), [])
    # as a bar's name, in each hover, as a name of a box, in the figures and in words
    whole = "".join(found.texts)
    assert (whole.count(f"label: {HOSTILE}"), whole.count(HOSTILE) >= 9, "\x1b" in whole, "\u202e" in whole) == (
        4,
        True,
        False,
        False,
    )


def test_the_pools_name_and_the_label_asked_for_stay_text(tmp_path: Path) -> None:
    past = statistics.Past(NOON, NOON + 1, [], [])
    recent = queries.Recent([], timeline.grid(NOON, NOON + 1), [])

    found = Outline(page.render(page.View(f"/{HOSTILE}", HOSTILE, "en"), past, statistics.report(past, None), recent))

    assert [text for text in found.texts if HOSTILE in text] == [f"Build slots /{HOSTILE}", f"/{HOSTILE}", HOSTILE]


@pytest.mark.parametrize(
    ("language", "text"),
    [("en", "no build has ended since 2026-09-21 12:00"), ("ko", "2026-09-21 12:00 이후로 끝난 빌드가 없습니다")],
)
def test_where_nothing_ended_that_is_all_it_says(tmp_path: Path, language: str, text: str) -> None:
    found = Outline(page_of(tmp_path, language=language))

    assert (text in found.texts, [tag for tag, _attributes in found.elements if tag in ("svg", "section")]) == (
        True,
        [],
    )


def test_one_build_that_nobody_waited_for_makes_a_whole_page(tmp_path: Path) -> None:
    tree = body_of(page_of(tmp_path, build("web", NOON, 60)))

    counts = [len(of_class(tree, name)) for name in ("strip", "hold", "wait", "bin", "box")]
    assert (counts, "No build waited" in "".join(tree.itertext())) == ([1, 2, 0, 0, 1], True)  # one in the legend


def test_a_page_is_bounded_and_says_what_it_leaves_out(tmp_path: Path) -> None:
    rows = [build(f"label {at % 100:03}", NOON - 60 * at, 50, ticket=at) for at in range(1400)]

    text = page_of(tmp_path, *rows)

    tree = body_of(text)
    words = "".join(tree.itertext())
    tickets = {int(facts_of(group)["ticket"]) for group in of_class(tree, "hold") if group.find("title") is not None}
    assert (tickets, len(of_class(tree, "box")), len(tree.findall(".//tbody/tr"))) == (
        set(range(page.MOST_ROWS)),
        page.MOST_LABELS,
        page.MOST_LABELS + 1,
    )
    assert ("The last 400 of 1,400." in words, words.count("40 of 100 labels"), len(text) < 500_000) == (True, 2, True)


def luminance(colour: str) -> float:
    """Return the relative luminance as WCAG 2 has it."""
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def contrast(one: str, other: str) -> float:
    bright, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (bright + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("mode", [0, 1], ids=["light", "dark"])
def test_colours_have_the_contrast_that_reading_needs(tmp_path: Path, mode: int) -> None:
    # https://www.w3.org/TR/WCAG22: 4.5 for text, 3 for what a drawing is understood by
    blocks = re.findall(r":root \{([^}]*--good[^}]*)\}", page_of(tmp_path))
    colours = dict(re.findall(r"--([a-z-]+): (#[0-9a-f]{6})", blocks[mode]))

    def low(pairs: Sequence[tuple[str, str]], least: float) -> list[tuple[str, str]]:
        return [pair for pair in pairs if contrast(colours[pair[0]], colours[pair[1]]) < least]

    texts = [(ink, ground) for ink in ("ink", "quiet") for ground in ("ground", "band")]
    texts += [("on-good", "good"), ("on-bad", "bad")]
    shapes = [(shape, ground) for shape in ("good", "bad", "lost", "wait") for ground in ("ground", "band")]
    assert (len(blocks), low(texts, 4.5), low(shapes, 3)) == (2, [], [])
