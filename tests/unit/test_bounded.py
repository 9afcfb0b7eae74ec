"""What a file says is a number within its bounds, or nothing."""

from __future__ import annotations

import pytest

from ipclock.bounded import LAST_MOMENT_S, LAST_WORD, moment, moment_in, whole, whole_in


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("0", 0),
        ("00000000000000000007", 7),
        ("18446744073709551615", LAST_WORD),
        ("18446744073709551616", None),
        ("000000000000000000007", None),
        ("9" * 5000, None),
        ("", None),
        ("-1", None),
        (" 1", None),
        ("1_0", None),
        ("\u0663", None),
        ("\u00b2", None),
    ],
)
def test_a_whole_number_has_twenty_digits_at_most_and_stays_within_its_bound(text: str, found: int | None) -> None:
    assert whole(text, LAST_WORD) == found


def test_a_number_above_its_bound_is_none() -> None:
    assert [whole(text, 1000) for text in ("1000", "1001")] == [1000, None]


def test_a_number_of_more_digits_than_are_asked_for_is_none() -> None:
    assert [whole(text, 1000, 4) for text in ("0007", "00007")] == [7, None]


def test_a_field_says_a_number_as_text_or_as_json_has_it_and_none_where_it_is_not_there() -> None:
    fields = {"a": "12", "b": 12, "c": True, "d": 1.5, "e": None, "f": float("inf")}

    assert [whole_in(fields, key, 100) for key in "abcdefg"] == [12, 12, None, None, None, None, None]
    assert [moment_in(fields, key) for key in "abcdefg"] == [12.0, 12.0, None, 1.5, None, None, None]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("0.5", 0.5),
        ("1795836880.019", 1795836880.019),
        ("10000000000", LAST_MOMENT_S),
        ("10000000000.1", None),
        ("9" * 400, None),
        ("1e5", None),
        ("inf", None),
        ("nan", None),
        ("-1", None),
        ("1.2.3", None),
        (".", None),
        ("", None),
    ],
)
def test_a_moment_is_finite_not_negative_and_not_beyond_all_clocks(text: str, found: float | None) -> None:
    assert moment(text) == found
