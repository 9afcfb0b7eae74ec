"""Widths in cells: as rich counts them, and never half a letter or half a word."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import pytest
from babel.messages.pofile import read_po
from hypothesis import given
from hypothesis import strategies as some

from ipclock import i18n
from ipclock.display import cells

CATALOGUE = Path(i18n.__file__).parent / "locale/ko/LC_MESSAGES/ipclock.po"
TEXTS = some.text(some.sampled_from("a 가나다-한글✓⏳░é"), max_size=40)


def test_our_own_messages_are_as_wide_as_rich_says() -> None:
    rich = pytest.importorskip("rich.cells")
    with CATALOGUE.open("rb") as file:
        texts = [str(text) for message in read_po(file) if message.id for text in (message.id, message.string)]

    assert (len(texts) > 500, [text for text in texts if cells.columns(text) != rich.cell_len(text)]) == (True, [])


@pytest.mark.parametrize(
    ("text", "width"),
    [
        ("staging", 7),
        ("스테이징", 8),
        (unicodedata.normalize("NFD", "한글"), 4),  # as macOS writes it
        (unicodedata.normalize("NFD", "é"), 1),
        ("a\u200db", 2),
        ("⏳✓", 3),
    ],
)
def test_a_korean_letter_fills_two_cells_and_what_joins_another_none(text: str, width: int) -> None:
    assert cells.columns(text) == width


@given(TEXTS, some.integers(1, 20))
def test_a_wrapped_text_keeps_its_words_whole(text: str, width: int) -> None:
    lines = cells.wrapped(text, width)

    too_long = [line for line in lines if cells.columns(line) > width and " " in line]
    assert (" ".join(lines).split(), too_long) == (text.split(), [])


@given(TEXTS, some.integers(0, 20))
def test_what_is_cut_fits_and_is_no_shorter_than_it_must_be(text: str, width: int) -> None:
    head = cells.cut(text, width)

    assert text.startswith(head)
    assert head == text or width - 1 <= cells.columns(head) <= width


@given(TEXTS, some.integers(1, 20))
def test_what_is_shortened_fits_and_says_so(text: str, width: int) -> None:
    short = cells.shortened(text, width)

    assert (cells.columns(short) <= width, short == text or short.endswith("…")) == (True, True)
    assert (short == text) == (cells.columns(text) <= width)


@given(TEXTS)
def test_columns_stand_below_each_other(text: str) -> None:
    assert cells.columns(cells.left(text, 90)) == cells.columns(cells.right(text, 90)) == 90
