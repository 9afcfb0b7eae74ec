"""The numbers of a pool and its mutex: what a file may hold, and who is inside."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ipclock.errors import IpclockError
from ipclock.pool.directory import NUMBERS
from ipclock.pool.records import Store
from tests.unit.pool.stores import opened


def test_numbers_are_seen_by_all_at_once(store: Store, pool_name: str) -> None:
    with opened(pool_name) as other:
        before = (other.capacity, other.epoch)
        store.capacity, store.epoch = 1000, 1
        store.capacity = 2

        assert (before, other.capacity, other.epoch) == ((None, 0), 2, 1)


@pytest.mark.parametrize("digits", ["1001", "9" * 18, "9" * 31])
def test_a_capacity_that_cannot_be_is_none(digits: str, store: Store, folder: Path) -> None:
    (folder / "capacity").write_text(f"{digits}\n")

    assert store.capacity is None


@pytest.mark.parametrize("content", [b"7" * 80, b"\0" * 80, b"x\n" * 40, b"9" * 31 + b"\n"])
def test_a_number_that_is_written_counts_whatever_the_file_held(content: bytes, store: Store, folder: Path) -> None:
    for name in NUMBERS:
        (folder / name).write_bytes(content)

    store.capacity, store.epoch, store.lowest_priority, store.settled = 2, 5, -3, True
    drawn = [store.draw_ticket(), store.draw_ticket()]

    found = (store.capacity, store.epoch, store.lowest_priority, store.settled, drawn[1] - drawn[0])
    assert found == (2, 5, -3, True, 1)


# The mutex


def test_the_mutex_lets_one_in_and_names_it(store: Store, pool_name: str) -> None:
    class Enough(Exception):
        pass

    def busy(seconds: float, pid: int) -> None:
        told.append((seconds >= 0, pid))
        raise Enough

    told: list[tuple[bool, int]] = []
    with opened(pool_name) as other:
        with store.mutex(busy), pytest.raises(Enough), other.mutex(busy):
            pass
        with other.mutex(busy):
            entered_after = True

    assert (told, entered_after) == ([(True, os.getpid())], True)


def test_the_mutex_is_free_again_after_an_error_inside(store: Store, pool_name: str) -> None:
    def busy(seconds: float, pid: int) -> None:
        raise AssertionError("still held")

    with pytest.raises(IpclockError, match="No space") as caught, store.mutex(busy):
        raise OSError(28, "No space left on device")

    with opened(pool_name) as other, other.mutex(busy):
        assert caught.value.status == 73
