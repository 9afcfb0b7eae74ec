"""The Korean catalogue: complete, consistent with the code, and in use where the locale says so."""

from __future__ import annotations

import re
import string
from pathlib import Path

import pytest
from babel.messages.extract import extract_from_dir
from babel.messages.pofile import read_po

from ipclock import i18n
from ipclock.config.environment import language

PACKAGE = Path(i18n.__file__).parent
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


def test_every_translation_has_the_placeholders_of_its_original() -> None:
    differ = [text for text, korean in _catalogue().items() if _placeholders(text) != _placeholders(korean)]

    assert differ == []


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({}, "en"),
        ({"LANG": "ko_KR.UTF-8"}, "ko"),
        ({"LANG": "en_US.UTF-8", "LC_MESSAGES": "ko_KR.UTF-8"}, "ko"),
        ({"LC_ALL": "C.UTF-8", "LANG": "ko_KR.UTF-8"}, "en"),
        ({"IPCLOCK_LANG": "ko", "LC_ALL": "en_US.UTF-8"}, "ko"),
        ({"IPCLOCK_LANG": "en", "LANG": "ko_KR.UTF-8"}, "en"),
        ({"IPCLOCK_LANG": "fr"}, "en"),
    ],
)
def test_the_language_is_that_of_the_locale_unless_we_are_told(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], expected: str
) -> None:
    for name in ("IPCLOCK_LANG", "LC_ALL", "LC_MESSAGES", "LANG"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)

    assert language() == expected


def test_a_message_without_a_translation_stays_english() -> None:
    i18n.use("ko")
    try:
        assert (i18n._("not a message"), i18n._("")) == ("not a message", "")
    finally:
        i18n.use("en")
