"""The page of `stats --html` in a real browser: nothing sticks out, overlaps or is loaded, on a screen and on paper."""

from __future__ import annotations

import re
import subprocess
import time
from typing import TYPE_CHECKING, Any

import pytest

from tests.helpers import histories
from tests.helpers.browser import CHROMIUM, Browser, size_and_lines
from tests.helpers.world import World

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium here")

LONG = "a-label-without-any-place-to-break-" * 7
# all texts that are seen and come into each other's way; what is cut off by its own bar cannot
OVERLAPS = """
(() => {
  const seen = [...document.querySelectorAll("text, h1, h2, h3, p, dt, dd, th, td, li, .name, .span, footer")]
    .filter(one => !one.closest(".hold") && one.checkVisibility() && one.textContent.trim())
    .filter(one => !one.querySelector("p, dt, dd, td, li"));
  const boxes = seen.map(one => { const range = document.createRange(); range.selectNodeContents(one);
    return [one, range.getBoundingClientRect()]; });
  const found = [];
  boxes.forEach(([one, a], index) => boxes.slice(index + 1).forEach(([other, b]) => {
    const wide = Math.min(a.right, b.right) - Math.max(a.left, b.left);
    const high = Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top);
    if (wide > 1 && high > 3 && !one.contains(other)) found.push(one.textContent + " | " + other.textContent);
  }));
  return found;
})()
"""
# how many whole pixels the widest thing that is seen reaches beyond the window
STICKS_OUT = """
(() => {
  const ends = [...document.body.querySelectorAll("*")].filter(one => !one.closest(".hold svg, title"))
    .map(one => one.getBoundingClientRect().right);
  return [document.documentElement.scrollWidth - innerWidth, Math.max(0, Math.floor(Math.max(...ends) - innerWidth))];
})()
"""


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """One for all tests: it takes seconds to start."""
    started = Browser(tmp_path_factory.mktemp("profile"))
    yield started
    started.close()


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The page of a stormy week in each language, as the command writes it."""
    folder = tmp_path_factory.mktemp("pages")
    world = World("ipclock-test-page")  # a name; `stats` makes no pool
    rows = histories.storm(1, 300, time.time(), pool=world.name)
    rows[-1] = rows[-1]._replace(label=LONG, user="<b>&amp;")
    histories.keep(str(folder / "history.db"), rows)
    world.env["HISTORY"] = str(folder / "history.db")
    for language in ("en", "ko"):
        done = world.run("stats", "--html", str(folder / f"{language}.html"), env={"IPCLOCK_LANG": language})
        assert (done.returncode, done.stderr) == (0, "")
    return {language: folder / f"{language}.html" for language in ("en", "ko")}


def told(browser: Browser, *methods: str) -> list[Any]:
    """Return what the browser told of by itself."""
    return [event["params"] for event in browser.events if event.get("method") in methods]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [320, 390, 768, 1280])
@pytest.mark.parametrize("language", ["en", "ko"])
def test_nothing_sticks_out_or_overlaps_whatever_the_window(
    browser: Browser, pages: dict[str, Path], language: str, width: int, scheme: str
) -> None:
    browser.open(pages[language], width=width, scheme=scheme)
    browser.value("document.querySelector('details').open = true")

    assert (browser.value(STICKS_OUT), browser.value(OVERLAPS)) == ([0, 0], [])


def test_nothing_is_loaded_and_nothing_is_wrong(browser: Browser, pages: dict[str, Path]) -> None:
    browser.open(pages["en"], width=1280)
    browser.screenshot()

    asked = [one["request"]["url"] for one in told(browser, "Network.requestWillBeSent")]
    problems = told(browser, "Log.entryAdded", "Runtime.consoleAPICalled", "Runtime.exceptionThrown")
    assert (asked, problems) == ([pages["en"].as_uri()], [])


def test_the_policy_forbids_what_a_page_might_be_made_to_load(browser: Browser, pages: dict[str, Path]) -> None:
    browser.open(pages["en"], width=1280)

    browser.value("""
        new Promise(done => {
            const image = new Image();
            image.onerror = image.onload = done;
            image.src = "data:image/gif;base64,R0lGODlhAQABAAAAACw=";
        })
    """)

    refused = [one["entry"]["text"] for one in told(browser, "Log.entryAdded")]
    assert (len(refused), "Content Security Policy" in "".join(refused)) == (1, True)


@pytest.mark.parametrize("language", ["en", "ko"])
@pytest.mark.parametrize("width", [390, 1280])
def test_the_page_is_really_drawn(browser: Browser, pages: dict[str, Path], width: int, language: str) -> None:
    browser.open(pages[language], width=width)
    height = browser.value("document.documentElement.scrollHeight")

    found_width, found_height, lines = size_and_lines(browser.screenshot())

    assert (found_width, found_height, lines > 300) == (width, height, True)


def test_a_dark_room_gets_a_dark_page(browser: Browser, pages: dict[str, Path]) -> None:
    colours = {}
    for scheme in ("light", "dark"):
        browser.open(pages["en"], width=1280, scheme=scheme)
        colour = browser.value("getComputedStyle(document.body).backgroundColor")
        colours[scheme] = sum(int(part) for part in re.findall(r"\d+", colour)) / 3

    assert (colours["light"] > 240, colours["dark"] < 40) == (True, True)


def test_hangul_is_written_in_a_font_that_has_it(browser: Browser, pages: dict[str, Path]) -> None:
    listed = subprocess.run(["fc-list", ":lang=ko", "family"], capture_output=True, text=True, check=True).stdout
    korean = {name for line in listed.splitlines() for name in line.split(",")}
    if not korean:
        pytest.skip("there is no Korean font here")

    browser.open(pages["ko"], width=1280)

    assert [browser.fonts(tag) & korean != set() for tag in ("h1", "h2", "summary")] == [True] * 3


def test_on_paper_it_is_light_and_whole(browser: Browser, pages: dict[str, Path]) -> None:
    # as wide as A4 between the margins
    browser.open(pages["ko"], width=688, scheme="dark", media="print")
    background = browser.value("getComputedStyle(document.body).backgroundColor")
    found = browser.value(STICKS_OUT), browser.value(OVERLAPS)

    printed = browser.printed()

    assert (background, found, printed[:5], 1 <= len(re.findall(rb"/Type\s*/Page\b", printed)) <= 6) == (
        "rgb(255, 255, 255)",
        ([0, 0], []),
        b"%PDF-",
        True,
    )


def test_the_pointer_shows_a_build_and_a_label_stays_text(browser: Browser, pages: dict[str, Path]) -> None:
    browser.open(pages["en"], width=1280)

    title = browser.value("[...document.querySelectorAll('.hold title, .wait title')].pop().textContent")
    users = browser.value(
        "[...document.querySelectorAll('title')].filter(one => one.textContent.includes('<b>&amp;')).length"
    )

    assert (
        title.splitlines()[0].split(": ")[0],
        users > 0,
        browser.value("document.querySelectorAll('b').length"),
    ) == (
        "label",
        True,
        0,
    )
