"""The pool's folder on a real file system: what is made, and what is not trusted."""

from __future__ import annotations

import os
import shutil
import stat
import time
from pathlib import Path

import pytest

from ipclock.errors import ForeignPoolError, IpclockError, NoPoolError
from ipclock.pool.directory import GATE, NUMBERS, QUEUED, SETTLED_S, STATES
from ipclock.pool.records import Store
from tests.helpers.crash_at import OTHER_USER, USER, in_child, needs_root, sysctl
from tests.helpers.world import until
from tests.unit.pool.stores import opened, record

SHM = "/dev/shm"


def refusal(name: str, lock_dir: str = SHM) -> tuple[str, int]:
    """Open the pool and return (the error's class, its exit status)."""
    try:
        Store.open(lock_dir, name, create=True).close()
    except IpclockError as error:
        return type(error).__name__, error.status
    return "opened", 0


def modes(folder: Path) -> dict[str, str]:
    """Return the mode of the folder ("") and of all that lies in it."""
    paths = {"": folder} | {path.name: path for path in folder.iterdir()}
    return {name: oct(stat.S_IMODE(path.lstat().st_mode)) for name, path in paths.items()}


# The folder: made whole, whoever makes it


def test_a_new_pool_has_all_its_folders_and_numbers(store: Store, folder: Path) -> None:
    found = {path.name: path.is_dir() for path in folder.iterdir()}

    assert found == dict.fromkeys(STATES, True) | dict.fromkeys(NUMBERS, False)


@pytest.mark.parametrize("part", STATES)
def test_what_is_removed_while_it_is_made_is_made_again(
    part: str, pool_name: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make, removed = os.mkdir, []

    def make_and_remove(name: str, mode: int, *, dir_fd: int) -> None:
        make(name, mode, dir_fd=dir_fd)
        if name == part and not removed:
            removed.append(name)
            shutil.rmtree(folder)

    monkeypatch.setattr(os, "mkdir", make_and_remove)
    with opened(pool_name) as store:
        assert (removed, store.vanished()) == ([part], False)


def test_looking_makes_nothing(pool_name: str, folder: Path) -> None:
    with pytest.raises(NoPoolError):
        Store.open(SHM, pool_name, create=False)

    assert not folder.exists()


@pytest.mark.parametrize("uid", [0, USER])
@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077, 0o777])
def test_the_umask_changes_no_mode(umask: int, uid: int, pool_name: str, folder: Path) -> None:
    def make() -> None:
        with opened(pool_name) as store:
            record(store, 1)

    in_child(make, uid, umask)

    inside = oct(stat.S_IMODE((folder / QUEUED / "1").stat().st_mode))
    folders, files = dict.fromkeys(("", *STATES), oct(0o700)), dict.fromkeys(NUMBERS, oct(0o600))
    assert (modes(folder), inside) == (folders | files, oct(0o600))


@pytest.mark.parametrize("umask", [0o000, 0o777])
def test_a_missing_lock_folder_is_made_with_its_parents(umask: int, pool_name: str, tmp_path: Path) -> None:
    path = tmp_path / "run" / "ipclock"

    def make() -> None:
        with opened(pool_name, str(path)):
            pass

    in_child(make, umask=umask)

    assert [oct(stat.S_IMODE(made.stat().st_mode) & 0o022) for made in (path, path.parent)] == [oct(0)] * 2
    assert (path / f"ipclock.{pool_name}" / "mutex").exists()


@pytest.mark.parametrize("missing", [*STATES, *NUMBERS])
def test_what_a_creator_that_died_left_out_is_made(missing: str, pool_name: str, folder: Path) -> None:
    with opened(pool_name):
        pass
    (folder / missing).rmdir() if missing in STATES else (folder / missing).unlink()

    with opened(pool_name) as store:
        record(store, store.draw_ticket())

    assert (sorted(path.name for path in folder.iterdir()), os.listdir(folder / QUEUED)) == (
        sorted((*STATES, *NUMBERS)),
        ["1"],
    )


def test_an_empty_folder_is_completed(pool_name: str, folder: Path) -> None:
    folder.mkdir(0o700)

    assert (refusal(pool_name), len(list(folder.iterdir()))) == (("opened", 0), len(STATES + NUMBERS))


@pytest.mark.parametrize("level", [0, 1, 2])
def test_root_opens_the_pool_of_a_user_whatever_is_protected(level: int, pool_name: str, folder: Path) -> None:
    def make() -> int:
        with opened(pool_name) as store:
            return store.draw_ticket()

    with sysctl("fs/protected_regular", level):
        tickets = [in_child(make, USER), in_child(make, 0), in_child(make, USER)]

    owners = {path.lstat().st_uid for path in (folder, *folder.rglob("*"))}
    assert (tickets, owners) == ([1, 2, 3], {USER})


def test_what_root_adds_to_the_pool_of_a_user_belongs_to_the_user(pool_name: str, folder: Path) -> None:
    def make() -> None:
        with opened(pool_name) as store:
            record(store, store.draw_ticket())

    in_child(make, USER)
    for path in (folder / QUEUED / "1", folder / "epoch"):
        path.unlink()
    (folder / GATE).rmdir()

    in_child(make, 0)

    assert {path.name: path.lstat().st_uid for path in (folder / QUEUED / "2", folder / GATE, folder / "epoch")} == {
        "2": USER,
        GATE: USER,
        "epoch": USER,
    }


# The folder: what is not trusted


def test_the_folder_of_another_user_is_refused_by_name(pool_name: str, folder: Path) -> None:
    needs_root(0)
    folder.mkdir(0o755)
    os.chown(folder, OTHER_USER, OTHER_USER)

    def look() -> tuple[str, int, int]:
        try:
            Store.open(SHM, pool_name, create=True)
        except ForeignPoolError as error:
            return type(error).__name__, error.status, error.uid
        return "opened", 0, 0

    assert (in_child(look, USER), os.listdir(folder)) == (("ForeignPoolError", 77, OTHER_USER), [])


@pytest.mark.parametrize("owner", [0, OTHER_USER])
def test_a_private_folder_of_somebody_else_is_refused_by_name(owner: int, pool_name: str, folder: Path) -> None:
    needs_root(0)
    folder.mkdir(0o700)
    os.chown(folder, owner, owner)

    def look() -> str:
        try:
            Store.open(SHM, pool_name, create=True)
        except IpclockError as error:
            return f"{error.status} {error}"
        return "opened"

    name = "root, uid 0" if owner == 0 else f"uid {owner}"
    assert in_child(look, USER) == f"77 {folder}: belongs to another user ({name})"


@pytest.mark.parametrize("mode", [0o777, 0o1777, 0o702])
def test_a_folder_that_everybody_may_write_to_is_refused(mode: int, pool_name: str, folder: Path) -> None:
    folder.mkdir()
    folder.chmod(mode)

    assert (refusal(pool_name), os.listdir(folder)) == (("PoolPermissionError", 77), [])


@pytest.mark.parametrize("plant", ["link to a folder", "dangling link", "fifo", "file"])
def test_what_is_no_folder_is_refused(plant: str, pool_name: str, folder: Path, tmp_path: Path) -> None:
    target = tmp_path / "target"
    if plant == "link to a folder":
        target.mkdir()
    if "link" in plant:
        folder.symlink_to(target)
    elif plant == "fifo":
        os.mkfifo(folder)
    else:
        folder.write_text("mine")

    found = refusal(pool_name)

    assert (found, [path.name for path in tmp_path.rglob("*") if path != target]) == (("PoolPermissionError", 77), [])


@pytest.mark.parametrize(("mode", "owner"), [(0o777, 0), (0o777, USER), (0o1777, USER), (0o772, USER)])
def test_a_lock_folder_where_anybody_may_swap_ours_is_refused(
    mode: int, owner: int, pool_name: str, tmp_path: Path
) -> None:
    needs_root(0)
    lock_dir = tmp_path / "locks"
    lock_dir.mkdir()
    os.chown(lock_dir, owner, owner)
    lock_dir.chmod(mode)

    assert (refusal(pool_name, str(lock_dir)), list(lock_dir.iterdir())) == (("PoolPermissionError", 77), [])


@pytest.mark.parametrize("mode", [0o755, 0o1777])
def test_a_lock_folder_of_root_is_trusted(mode: int, pool_name: str, tmp_path: Path) -> None:
    needs_root(0)
    tmp_path.chmod(mode)

    assert refusal(pool_name, str(tmp_path)) == ("opened", 0)


@pytest.mark.parametrize("number", NUMBERS)
@pytest.mark.parametrize("plant", ["second link", "link", "fifo", "folder"])
def test_a_number_that_would_write_elsewhere_is_refused(plant: str, number: str, pool_name: str, folder: Path) -> None:
    with opened(pool_name):
        pass
    place, victim = folder / number, folder / "victim"
    place.unlink()
    victim.write_text("dear")
    if plant == "second link":
        place.hardlink_to(victim)
    elif plant == "link":
        place.symlink_to(victim)
    elif plant == "fifo":
        os.mkfifo(place)
    else:
        place.mkdir()

    _, status = refusal(pool_name)

    assert (status in (73, 77), victim.read_text()) == (True, "dear")


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("plant", ["file", "link"])
def test_what_lies_in_place_of_a_state_folder_is_refused(
    plant: str, state: str, pool_name: str, folder: Path, tmp_path: Path
) -> None:
    with opened(pool_name):
        pass
    (folder / state).rmdir()
    (folder / state).symlink_to(tmp_path) if plant == "link" else (folder / state).touch()

    _, status = refusal(pool_name)

    assert (status in (73, 77), list(tmp_path.iterdir())) == (True, [])


OWNERS = (0, USER, OTHER_USER)


def test_trusted_are_we_root_and_the_owner_of_the_pool(pool_name: str, folder: Path) -> None:
    def trusted() -> list[bool]:
        with opened(pool_name) as store:
            return [store.trusts(os.stat_result((0o100600, 1, 1, 1, uid, 0, 32, 0, 0, 0))) for uid in OWNERS]

    assert (in_child(trusted, USER), in_child(trusted, 0)) == ([True, True, False], [True, True, False])


def test_a_folder_that_was_replaced_has_vanished(store: Store, folder: Path, pool_name: str) -> None:
    seen = [store.vanished()]
    away = folder.with_name(folder.name + ".away")
    folder.rename(away)
    seen.append(store.vanished())
    with opened(pool_name):
        seen.append(store.vanished())
        for path in sorted(folder.rglob("*"), reverse=True):
            path.rmdir() if path.is_dir() else path.unlink()
        folder.rmdir()
    away.rename(folder)

    assert [*seen, store.vanished()] == [False, True, True, False]


@pytest.mark.parametrize("known", [False, True])
@pytest.mark.parametrize("file", ["mutex", "epoch", "gate"])
def test_a_part_that_was_removed_is_noticed(file: str, known: bool, store: Store, folder: Path) -> None:
    if known:  # for long enough that one look at the folder tells that nothing has changed
        until(lambda: time.time() - folder.stat().st_ctime > 2 * SETTLED_S, "the folder to be of some age")
    before = store.vanished()

    (folder / file).rmdir() if file in STATES else (folder / file).unlink()

    assert (before, store.vanished()) == (False, True)


def test_whether_a_folder_is_whole_is_told_by_one_look_once_it_is_of_some_age(
    store: Store, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = []
    monkeypatch.setattr(os, "fstat", lambda fd, look=os.fstat: looks.append(fd) or look(fd))
    young = (store.vanished(), len(looks))
    until(lambda: time.time() - folder.stat().st_ctime > 2 * SETTLED_S, "the folder to be of some age")
    store.vanished()
    looks.clear()

    assert (young[0], young[1] > 0, store.vanished(), looks) == (False, True, False, [])
