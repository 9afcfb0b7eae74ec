"""Turns, the waiters' own semaphores: each wakes its waiter, and none is taken from a stranger."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import TYPE_CHECKING

import posix_ipc
import pytest

from ipclock.errors import PoolCreateError
from ipclock.linux import semaphore
from ipclock.pool import semaphores
from ipclock.pool.directory import Directory
from tests.helpers.crash_at import OTHER_USER, USER, in_child
from tests.helpers.semaphores import DAMAGE, made, outcome, plant

if TYPE_CHECKING:
    from ipclock.pool.semaphores import Turns


@pytest.fixture
def name(pool_name: str) -> str:
    """A semaphore's name that no other test uses; removed after the test."""
    return "/" + pool_name


@pytest.fixture
def path(name: str) -> Path:
    """Where the semaphore's file lies, or will."""
    return Path(semaphore.path_of(name))


def turns_of(name: str) -> Turns:
    return semaphores.Turns(name, Directory.open("/dev/shm", name[1:], create=True))


def test_a_turn_wakes_its_waiter_and_no_other(name: str) -> None:
    def child() -> list[object]:
        turns = turns_of(name)
        mine, other = turns.create(17), turns.create(1)
        turns.post(17)
        seen: list[object] = [other.try_wait(), mine.try_wait(), mine.name]
        turns.remove(17)
        turns.remove(17)
        return [*seen, mine.replaced(), other.replaced()]

    assert in_child(child) == [False, True, f"{name}.17", True, False]


def test_a_post_to_a_turn_that_is_not_there_makes_none(name: str) -> None:
    def child() -> bool:
        turns_of(name).post(17)
        return Path(semaphore.path_of(f"{name}.17")).exists()

    assert in_child(child) is False


def test_a_stale_turn_is_replaced_by_an_empty_one(name: str) -> None:
    def child() -> tuple[bool, int]:
        stale = made(f"{name}.17")
        stale.post()
        return stale.replaced(), turns_of(name).create(17).value

    assert in_child(child) == (False, 0)


@pytest.mark.parametrize("what", [*DAMAGE, "dangling link", "fifo"])
def test_what_lies_in_the_place_of_a_turn_is_replaced_where_that_is_allowed(what: str, name: str) -> None:
    plant(Path(semaphore.path_of(f"{name}.17")), DAMAGE.get(what, what))

    def child() -> tuple[int, bool]:
        turns = turns_of(name)
        turns.post(17)
        turn = turns.create(17)
        turns.post(17)
        return turn.value, turn.replaced()

    assert in_child(child) == (1, False)


@pytest.mark.parametrize("what", ["semaphore", "link", "empty"])
def test_a_turn_that_a_stranger_planted_is_refused_by_name(what: str, name: str) -> None:
    place = Path(semaphore.path_of(f"{name}.17"))

    def stranger() -> None:
        if what == "semaphore":
            posix_ipc.Semaphore(f"{name}.17", posix_ipc.O_CREX, 0o666, 0)
        elif what == "link":
            place.symlink_to(f"{place}.nothing")
        else:
            place.touch()

    in_child(stranger, OTHER_USER)

    def child() -> tuple[str, int, int]:
        turns = turns_of(name)
        turns.post(17)
        refused = outcome(lambda: turns.create(17))
        return *refused, place.lstat().st_size

    before = place.lstat().st_size
    assert in_child(child, USER) == ("ForeignPoolError", 77, before)


def test_a_turn_that_was_made_but_cannot_be_opened_is_not_left_behind(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_descriptor_left(_name: str) -> None:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr(posix_ipc, "Semaphore", no_descriptor_left)
    with pytest.raises(PoolCreateError):
        turns_of(name).create(17)

    assert os.path.lexists(semaphore.path_of(f"{name}.17")) is False
