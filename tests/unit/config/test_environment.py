"""What the environment says, and what a build is told in it."""

from __future__ import annotations

import pytest

from ipclock.config.environment import build_environment, held_slot, inherited_environment, language

KOREAN = "스테이징 배포"


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({}, "en"),
        ({"LANG": "ko_KR.UTF-8"}, "ko"),
        ({"LANG": "ko_KR.UTF-8", "LC_ALL": "C"}, "en"),
        ({"LANG": "C", "LC_MESSAGES": "ko_KR"}, "ko"),
        ({"LC_ALL": "ko_KR.EUC-KR", "IPCLOCK_LANG": "en"}, "en"),
        ({"LC_ALL": "de_DE.UTF-8", "IPCLOCK_LANG": "KO"}, "ko"),
        ({"LC_ALL": "en_US.UTF-8", "IPCLOCK_LANG": "ko"}, "ko"),
        ({"LC_ALL": "", "LANG": "ko"}, "ko"),
        ({"IPCLOCK_LANG": "fr"}, "en"),
    ],
)
def test_the_language_follows_the_locale_unless_told_otherwise(
    variables: dict[str, str], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for key, value in variables.items():
        monkeypatch.setenv(key, value)

    assert language() == expected


def test_a_build_is_told_its_slot_and_what_it_had_before(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STATUS_HINT", "kept")
    monkeypatch.setenv("IPCLOCK_TICKET", "1")
    before = inherited_environment()

    made = build_environment(inherited_environment(), "/pool", KOREAN, 17, 2)

    assert (held_slot(), dict(before.items() - made.items()), dict(made.items() - before.items())) == (
        ("", "1"),
        {"IPCLOCK_TICKET": "1"},
        {"IPCLOCK_NAME": "/pool", "IPCLOCK_LABEL": KOREAN, "IPCLOCK_TICKET": "17", "IPCLOCK_SLOT": "2"},
    )
