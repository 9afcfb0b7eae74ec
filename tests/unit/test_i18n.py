"""The Korean catalogue: complete and consistent with the code."""

from __future__ import annotations

import re
import string
from pathlib import Path

import pytest
from babel.messages.extract import extract_from_dir
from babel.messages.pofile import read_po

from ipclock import i18n

PACKAGE = Path(i18n.__file__).parent
ROOT = PACKAGE.parent
ENGLISH = (*(ROOT / "man").glob("*.in"), ROOT / "README.md")
KOREAN = (*(ROOT / "man/ko").glob("*.in"), ROOT / "README.ko.md", *(ROOT / "contrib").rglob("*.ko.md"))
# placeholders, a line that was asked for to the letter, and a key of JSON
EXCEPTIONS = re.compile(r"{.*?}|모든 락이 해제되었습니다|^\.BR folder", re.MULTILINE)
KEYWORDS = {"_": None, "N_": None}
PERCENT = re.compile(r"%(?:\(\w+\))?[rs]")  # argparse's


def _catalogue() -> dict[str, str]:
    with (PACKAGE / "locale/ko/LC_MESSAGES/ipclock.po").open("rb") as file:
        return {str(message.id): str(message.string) for message in read_po(file) if message.id and not message.fuzzy}


def _in_code() -> set[str]:
    found = extract_from_dir(PACKAGE, [("**.py", "python")], {}, keywords=KEYWORDS)
    return {str(message) for _, _, message, _, _ in found}


def _placeholders(text: str) -> list[str]:
    return sorted([*PERCENT.findall(text), *(name for _, name, _, _ in string.Formatter().parse(text) if name)])


def test_every_message_has_its_korean_and_no_translation_is_left_over() -> None:
    catalogue, code = _catalogue(), _in_code()

    untranslated = sorted(text for text in code if not catalogue.get(text))

    assert (untranslated, sorted(set(catalogue) - code)) == ([], [])


def _words() -> list[str]:
    """Return the words that the table in CONTRIBUTING.md refuses."""
    section = (ROOT / "CONTRIBUTING.md").read_text().partition("\n## Words\n")[2].partition("\n## ")[0]
    rows = [line.strip("| ").split(" | ") for line in section.splitlines() if line.startswith("| ")][1:]
    return [word for row in rows for word in row[-1].split(", ")]


def test_no_text_has_a_word_that_the_table_of_words_refuses() -> None:
    texts = {str(page.relative_to(ROOT)): page.read_text() for page in (*ENGLISH, *KOREAN)}
    texts |= {text: f"{text}\n{korean}" for text, korean in _catalogue().items()}
    words = _words()

    refused = [
        (word, where)
        for where, text in ((where, EXCEPTIONS.sub("", text)) for where, text in texts.items())
        for word in words
        if re.search(rf"(?<!\w){re.escape(word)}" + r"\b" * word.isascii(), text, re.IGNORECASE)
    ]

    assert (len(words) > 50, refused) == (True, [])


def test_every_translation_has_the_placeholders_of_its_original() -> None:
    differ = [text for text, korean in _catalogue().items() if _placeholders(text) != _placeholders(korean)]

    assert differ == []


@pytest.mark.parametrize("language", [*i18n.LANGUAGES, "tlh"])
def test_a_text_without_a_translation_is_shown_as_it_is(language: str) -> None:
    i18n.use(language)
    try:
        # gettext returns its header for no text
        assert (i18n._("no such text in any catalogue"), i18n._("")) == ("no such text in any catalogue", "")
    finally:
        i18n.use("en")


def test_an_unknown_language_is_english() -> None:
    i18n.use("ko")
    i18n.use("tlh")

    assert i18n._("internal error") == "internal error"
