"""Named semaphores on the real /dev/shm: what works, and what lies at their paths that must not be touched.

What glibc makes of a damaged file ends the interpreter, so everything here runs in forked children.
"""

from __future__ import annotations

import os
import signal
import stat
from pathlib import Path
from typing import TYPE_CHECKING

import posix_ipc
import pytest

from ipclock.errors import PoolPermissionError, SemaphoreError
from ipclock.linux import semaphore
from ipclock.pool.directory import Directory
from tests.helpers.crash_at import OTHER_USER, USER, in_child, needs_root
from tests.helpers.semaphores import DAMAGE, made, outcome, plant

if TYPE_CHECKING:
    from ipclock.linux.semaphore import Semaphore


@pytest.fixture
def name(pool_name: str) -> str:
    """A semaphore's name that no other test uses; removed after the test."""
    return "/" + pool_name


@pytest.fixture
def path(name: str) -> Path:
    """Where the semaphore's file lies, or will."""
    return Path(semaphore.path_of(name))


def trusted(status: os.stat_result) -> bool:
    return status.st_uid in (0, os.geteuid())


def opened(name: str) -> Semaphore:
    """Open a semaphore that is there and return it."""
    found = semaphore.open_existing(name, trusted)
    assert found
    return found


# What works


def test_units_are_given_and_taken(name: str) -> None:
    def child() -> list[object]:
        one, other = made(name), opened(name)
        seen: list[object] = [one.value, one.try_wait(), other.identity == one.identity]
        other.post()
        other.post()
        return [*seen, one.value, one.try_wait(), one.wait(10), one.try_wait(), other.value]

    assert in_child(child) == [0, False, True, 2, True, True, False, 0]


def test_a_wait_ends_with_the_time_or_with_a_signal(name: str) -> None:
    def child() -> tuple[bool, bool, bool]:
        came: list[int] = []
        signal.signal(signal.SIGALRM, lambda number, frame: came.append(number))
        own = made(name)
        by_time = own.wait(0.001)
        # again and again: one that comes right before the sleep does not end it
        signal.setitimer(signal.ITIMER_REAL, 0.05, 0.05)
        by_signal = own.wait(1000)
        return by_time, by_signal, bool(came)

    assert in_child(child) == (False, False, True)


def test_sleepers_by_both_clocks_share_the_units(name: str) -> None:
    def child() -> list[object]:
        own, other = made(name), opened(name)
        slept = own.wait(0.001)
        other.post()
        other.post()
        taken = [own.wait(10), other.wait(10), own.wait(0.001)]
        own.close()
        other.post()
        return [slept, *taken, other.wait(10), other.value]

    assert in_child(child) == [False, True, True, False, True, 0]


def test_there_is_none_until_it_is_made_and_it_is_made_once(name: str) -> None:
    def child() -> list[object]:
        before = semaphore.open_existing(name, trusted)
        first = made(name)
        return [before, semaphore.create(name, 0o600), opened(name).identity == first.identity]

    assert in_child(child) == [None, None, True]


def create_in(name: str) -> None:
    """Make the semaphore as a pool makes its own."""
    folder = Directory.open("/dev/shm", name[1:], create=True)
    with folder.creating():
        semaphore.create(name, folder.mode, folder.group)
    folder.close()


@pytest.mark.parametrize("uid", [0, USER])
@pytest.mark.parametrize("umask", [0o000, 0o022, 0o777])
@pytest.mark.parametrize(("folder_mode", "mode"), [(0o700, 0o600), (0o2770, 0o660)])
def test_the_mode_is_that_of_the_pool_whatever_the_umask(
    folder_mode: int, mode: int, umask: int, uid: int, name: str, path: Path
) -> None:
    needs_root(uid)
    folder = Path(f"/dev/shm/ipclock.{name[1:]}")
    folder.mkdir()
    os.chown(folder, uid, uid)
    folder.chmod(folder_mode)

    in_child(lambda: create_in(name), uid, umask)

    assert (oct(stat.S_IMODE(path.stat().st_mode)), path.stat().st_uid) == (oct(mode), uid)


def test_what_root_makes_in_the_pool_of_a_user_is_the_users(name: str, path: Path) -> None:
    needs_root(0)
    in_child(lambda: Directory.open("/dev/shm", name[1:], create=True).close(), USER)

    in_child(lambda: create_in(name), 0)

    assert (path.stat().st_uid, in_child(lambda: opened(name).value, USER)) == (USER, 0)


def test_a_replaced_semaphore_is_noticed(name: str, path: Path) -> None:
    def child() -> list[bool]:
        own = made(name)
        seen = [own.replaced()]
        semaphore.unlink(name)
        seen.append(own.replaced())
        made(name)
        return [*seen, own.replaced(), opened(name).replaced()]

    assert in_child(child) == [False, True, True, False]


def test_unlinking_what_is_gone_is_no_error(name: str, path: Path) -> None:
    in_child(lambda: semaphore.unlink(name))

    assert not path.exists()


# What lies at the path


@pytest.mark.parametrize("what", [*DAMAGE, "link", "dangling link", "fifo", "folder"])
def test_what_is_no_semaphore_is_refused_without_a_crash(what: str, name: str, path: Path) -> None:
    plant(path, DAMAGE.get(what, what))

    assert in_child(lambda: outcome(lambda: semaphore.open_existing(name, trusted))) == ("SemaphoreError", 69)


def test_the_semaphore_that_the_damages_are_made_from_is_a_good_one(name: str, path: Path) -> None:
    plant(path, "02" + "00" * 7 + "80" + "00" * 23)

    def child() -> tuple[int, bool, int]:
        own = opened(name)
        own.post()
        return own.value, own.try_wait(), own.value

    assert in_child(child) == (3, True, 2)


@pytest.mark.parametrize("mode", [0o600, 0o666])
def test_a_strangers_semaphore_is_refused_by_name(mode: int, name: str) -> None:
    in_child(lambda: bool(semaphore.create(name, mode)), OTHER_USER, umask=0)

    def child() -> tuple[str, int, str]:
        try:
            semaphore.open_existing(name, trusted)
        except PoolPermissionError as error:
            return type(error).__name__, error.status, str(error)
        return "opened", 0, ""

    expected = ("ForeignPoolError", 77, f"{semaphore.path_of(name)}: belongs to another user (uid {OTHER_USER})")
    assert in_child(child, USER) == expected


def test_a_private_semaphore_of_root_is_refused_by_name(name: str) -> None:
    in_child(lambda: bool(made(name)), 0)

    assert in_child(lambda: outcome(lambda: semaphore.open_existing(name, trusted)), USER) == ("ForeignPoolError", 77)


def test_making_one_where_something_lies_makes_none(name: str, path: Path, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    path.symlink_to(victim)

    assert (in_child(lambda: semaphore.create(name, 0o600)), victim.exists()) == (None, False)


# The machine


@pytest.mark.parametrize(("value", "healthy"), [(10_000, True), (10_001, False), (2**31 - 1, False)])
def test_a_value_that_can_be_taken_back_is_readable_and_a_higher_one_damaged(
    value: int, healthy: bool, name: str, path: Path
) -> None:
    plant(path, value.to_bytes(4, "little").hex() + "00" * 4 + "80" + "00" * 23)

    def look() -> int:
        try:
            return opened(name).value
        except SemaphoreError:
            return -1

    assert in_child(look) == (value if healthy else -1)


def test_what_glibc_makes_is_what_is_expected_of_a_semaphore(name: str, path: Path) -> None:
    in_child(lambda: bool(posix_ipc.Semaphore(name, posix_ipc.O_CREX, 0o600, 5)))

    assert (len(path.read_bytes()), path.read_bytes()[8:12]) == (semaphore.SIZE, semaphore.SHARED_MARK)
