"""What the name of a record says, there and back, and what it may not say."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from ipclock.pool.record_name import RecordName, key_of, parse

numbers = some.integers(0, 10**9)
entries = some.builds(
    RecordName,
    ticket=numbers,
    slot=some.integers(0, 1000),
    units=some.integers(1, 1000),
    priority=some.integers(-20, 19),
    limit=some.integers(0, 1000),
    reserved=some.integers(0, 1000),
    by=numbers,
    key=some.sampled_from(["", "0badcafe"]),
    party=some.sampled_from(["", "u1000", "s0badcafe"]),
    rest=some.sampled_from(["", ",z9", ",zx,u7"]),
)


@settings(deadline=None, derandomize=True)
@given(entries)
def test_an_entry_survives_its_name(entry: RecordName) -> None:
    assert (parse(entry.file), len(entry.file) < 255, "/" in entry.file) == (entry, True, False)


@pytest.mark.parametrize(
    ("entry", "name"),
    [
        (RecordName(17), "17"),
        (RecordName(17, slot=2), "17.2"),
        (RecordName(17, slot=2, units=3, limit=1, key="0badcafe"), "17.2,u3,l1,k0badcafe"),
        (RecordName(17, priority=-5, by=18), "17,p-5,b18"),
        (RecordName(17, units=2, limit=1, key="0badcafe", party="u1000"), "17,u2,l1,k0badcafe,fu1000"),
    ],
)
def test_only_what_is_unusual_is_written(entry: RecordName, name: str) -> None:
    assert entry.file == name


@pytest.mark.parametrize(
    "name", ["", "x", ".17", "17.", "17.0", "017", "-1", "17,", "17,u", "17,u1", "17,p0", "٣", "17,,u2", "9" * 40]
)
def test_a_name_that_is_not_written_so_is_no_records(name: str) -> None:
    found = parse(name)

    assert found is None or found.rest != ""


@pytest.mark.parametrize("letter", ["x", "배", "\udcff"])
def test_a_name_without_room_for_what_is_added_to_it_is_no_records(letter: str) -> None:
    name = "17,z" + letter * 197
    longest = name[: 4 + 196 // len(letter.encode(errors="surrogateescape"))]

    assert (parse(name), parse(longest)) == (None, RecordName(17, rest=longest[2:]))


@pytest.mark.parametrize("piece", ["u0", "u-5", "u999x", "r-1", "l-1", "z", "p5x", "p--5", "f", "fu1=2", "fé"])
def test_what_cannot_be_understood_makes_nobody_lighter(piece: str) -> None:
    found = parse(f"17.1,{piece}")

    assert found == RecordName(17, slot=1, rest=f",{piece}")


def test_what_a_later_version_adds_is_kept() -> None:
    assert parse("17.2,u3,q7,u9") == RecordName(17, slot=2, units=3, rest=",q7,u9")


def test_a_label_has_one_short_key() -> None:
    assert (key_of("배포"), key_of("a") == key_of("b"), len(key_of("a" * 255))) == (key_of("배포"), False, 8)
