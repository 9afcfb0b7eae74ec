"""The locks that beacons and mutex are made of: whose they are, how long they last, who sees them."""

from __future__ import annotations

import os
import resource
import signal
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from ipclock.linux import locks
from ipclock.linux.locks import ByteRange
from tests.helpers.crash_at import in_child
from tests.helpers.world import until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """An empty file."""
    file = tmp_path / "file"
    file.touch()
    return file


@contextmanager
def opened(path: Path, flags: int = os.O_RDWR) -> Iterator[int]:
    """An open file of its own: a description that shares no lock with any other."""
    fd = os.open(path, flags | os.O_CLOEXEC)
    try:
        yield fd
    finally:
        os.close(fd)


def test_one_open_file_at_a_time_has_the_lock(path: Path) -> None:
    with opened(path) as first, opened(path) as second:
        taken = [locks.try_lock(first), locks.try_lock(second)]
        locks.unlock(first)

        assert (taken, locks.try_lock(second)) == ([True, False], True)


def test_asking_takes_nothing_and_does_not_collide(path: Path) -> None:
    with opened(path) as owner, opened(path) as asker, opened(path, os.O_RDONLY) as reader:
        free = [locks.is_locked(asker), locks.is_locked(reader)]
        taken = locks.try_lock(owner)
        held = [locks.is_locked(asker), locks.is_locked(reader)]
        locks.unlock(owner)

        assert (free, taken, held, locks.is_locked(asker)) == ([False, False], True, [True, True], False)


def test_through_the_open_file_that_has_it_the_lock_looks_free(path: Path) -> None:
    with opened(path) as owner, opened(path) as other:
        locks.try_lock(owner)
        twin = os.dup(owner)

        assert (locks.is_locked(owner), locks.is_locked(twin), locks.is_locked(other)) == (False, False, True)
        os.close(twin)


def test_closing_another_open_file_of_the_same_process_keeps_the_lock(path: Path) -> None:
    with opened(path) as owner, opened(path) as asker:
        locks.try_lock(owner)
        with opened(path):
            pass  # a POSIX lock would go with this close

        assert locks.is_locked(asker)


def test_an_inherited_lock_outlives_its_killed_taker(path: Path) -> None:
    gone_reading, gone_writing = os.pipe()
    told_reading, told_writing = os.pipe()
    taker = os.fork()
    if taker == 0:
        os.close(gone_writing)
        locks.try_lock(os.open(path, os.O_RDWR))
        os.fork()
        os.write(told_writing, b"+")
        os.read(gone_reading, 1)  # until the test closes its end
        os._exit(0)
    os.close(gone_reading)
    both = os.read(told_reading, 1) + os.read(told_reading, 1)

    with opened(path) as asker:
        os.kill(taker, signal.SIGKILL)
        os.waitpid(taker, 0)
        kept = locks.is_locked(asker)
        os.close(gone_writing)
        until(lambda: not locks.is_locked(asker), "the end of the lock with the last process that has it")

    os.close(told_reading)
    os.close(told_writing)
    assert (both, kept) == (b"++", True)


def test_an_unlock_frees_although_a_child_has_the_descriptor(path: Path) -> None:
    with opened(path) as owner, opened(path) as asker:
        locks.try_lock(owner)
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(writing)
            os.read(reading, 1)
            os._exit(0)
        os.close(reading)
        before = locks.is_locked(asker)

        locks.unlock(owner)
        after = locks.is_locked(asker)

        os.close(writing)
        os.waitpid(child, 0)
        assert (before, after) == (True, False)


def test_a_child_can_neither_take_nor_lose_the_lock_of_its_parent_by_ending(path: Path) -> None:
    with opened(path) as owner, opened(path) as asker:
        locks.try_lock(owner)

        def child() -> bool:
            with opened(path) as own:
                return locks.try_lock(own)

        assert (in_child(child), locks.is_locked(asker)) == (False, True)


def test_the_bytes_of_a_file_are_locked_one_by_one(path: Path) -> None:
    with opened(path) as first, opened(path) as second, opened(path) as asker:
        taken = [
            locks.try_lock(first, ByteRange(0)),
            locks.try_lock(second, ByteRange(0)),
            locks.try_lock(second, ByteRange(1)),
        ]
        seen = [*(locks.is_locked(asker, ByteRange(byte)) for byte in (0, 1, 2)), locks.is_locked(asker)]
        locks.unlock(second)

        assert (taken, seen, locks.is_locked(asker, ByteRange(0)), locks.is_locked(asker, ByteRange(1))) == (
            [True, False, True],
            [True, True, False, True],
            True,
            False,
        )


def test_only_a_descriptor_that_can_write_is_called_writable(path: Path) -> None:
    with opened(path) as both, opened(path, os.O_WRONLY) as writer, opened(path, os.O_RDONLY) as reader:
        assert [locks.is_writable(fd) for fd in (both, writer, reader)] == [True, True, False]


def test_a_descriptor_moves_out_of_the_way_with_its_lock(path: Path) -> None:
    with opened(path) as asker:
        low = os.open(path, os.O_RDWR)
        locks.try_lock(low)

        high = locks.out_of_the_way(low)

        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(low)
        assert (high >= 100, os.get_inheritable(high), locks.is_locked(asker)) == (True, False, True)
        os.close(high)


def test_a_descriptor_stays_where_the_limit_leaves_no_high_number(path: Path) -> None:
    def child() -> bool:
        fd = os.open(path, os.O_RDWR)
        resource.setrlimit(resource.RLIMIT_NOFILE, (locks.HIGH_DESCRIPTOR, locks.HIGH_DESCRIPTOR))
        return locks.out_of_the_way(fd) == fd

    assert in_child(child)
