"""The pool's folder on a real file system: what is made, what is trusted, and what a record can be."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import socket
import stat
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from ipclock.errors import ForeignPoolError, InvalidValueError, IpclockError, NoPoolError
from ipclock.pool.directory import GATE, HOLDING, NEW, NUMBERS, QUEUED, SETTLED_S, STATES
from ipclock.pool.notes import Drain
from ipclock.pool.record import OwnRecord
from ipclock.pool.record_name import RecordName
from ipclock.pool.records import Store
from tests.helpers.crash_at import OTHER_USER, USER, in_child, needs_root, sysctl
from tests.helpers.world import until

if TYPE_CHECKING:
    from collections.abc import Iterator

SHM = "/dev/shm"


@contextmanager
def opened(name: str, lock_dir: str = SHM, *, create: bool = True) -> Iterator[Store]:
    """An opened store."""
    store = Store.open(lock_dir, name, create=create)
    try:
        yield store
    finally:
        store.close()


@pytest.fixture
def store(pool_name: str) -> Iterator[Store]:
    """A new pool's folder, made and opened."""
    with opened(pool_name) as made:
        yield made


@pytest.fixture
def folder(pool_name: str) -> Path:
    """Where the pool's folder lies, or will."""
    return Path(SHM, f"ipclock.{pool_name}")


def refusal(name: str, lock_dir: str = SHM) -> tuple[str, int]:
    """Open the pool and return (the error's class, its exit status)."""
    try:
        Store.open(lock_dir, name, create=True).close()
    except IpclockError as error:
        return type(error).__name__, error.status
    return "opened", 0


def record(store: Store, ticket: int, state: str = QUEUED, slot: int = 0, **fields: str) -> OwnRecord:
    """Publish a record and return it."""
    own = store.draft({"kind": "fd", "label": "staging", **fields})
    store.publish(own, state, RecordName(ticket, slot))
    return own


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


# Tickets and numbers


@pytest.mark.parametrize("content", [None, b"", b"garbage", b"\0" * 21, b"-3\n", "²\n".encode(), b" \n"])
def test_without_a_counter_tickets_go_on_behind_those_in_use(
    content: bytes | None, store: Store, folder: Path, pool_name: str
) -> None:
    owns = [record(store, 7), record(store, 12, GATE), record(store, 9, HOLDING, 1)]
    (folder / "ticket").unlink() if content is None else (folder / "ticket").write_bytes(content)

    with opened(pool_name) as other:
        drawn = [other.draw_ticket(), other.draw_ticket()]

    assert (drawn, len(owns)) == ([13, 14], 3)


def test_skipped_tickets_are_not_drawn(store: Store) -> None:
    store.skip_tickets(41)
    store.skip_tickets(3)

    assert store.draw_ticket() == 42


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


@pytest.mark.parametrize("content", ["empty", "full"])
def test_a_folder_in_the_place_of_a_drain_is_one_and_may_be_ended(content: str, store: Store, folder: Path) -> None:
    seen = []
    for _ in range(2):
        (folder / "drained").mkdir()
        if content == "full":
            (folder / "drained" / "dear").touch()
        seen.append(store.drained)
        store.drain = Drain("night", 0) if len(seen) == 1 else None
        seen.append(store.drain)
        store.drain = None

    kept = len(list(folder.glob("*/dear")))
    assert (seen, kept, os.listdir(folder / NEW)) == (
        [True, Drain("night", 0), True, None],
        2 * (content == "full"),
        [],
    )


def test_a_drain_is_swept_away_once_its_time_is_over(store: Store, folder: Path) -> None:
    left = []
    for until_then in (None, time.monotonic() + 3600, time.monotonic() - 1):
        store.drain = Drain("night", 0, until_then)
        store.sweep()
        left.append((folder / "drained").exists())

    assert left == [True, True, False]


def test_a_pool_is_drained_while_the_file_is_there(store: Store, folder: Path) -> None:
    seen = [store.drained]
    (folder / "drained").symlink_to("nowhere")
    seen.append(store.drained)
    (folder / "drained").unlink()

    assert [*seen, store.drained] == [False, True, False]


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


# Records


def test_a_record_is_invisible_until_it_is_finished_and_lit(store: Store, pool_name: str) -> None:
    own = store.draft({"kind": "fd", "label": "a=b 배포"})
    with opened(pool_name) as other:
        before = other.entries(QUEUED)
        store.publish(own, QUEUED, RecordName(1))
        read = other.read(QUEUED, RecordName(1))

        assert (before, other.entries(QUEUED), read and read.fields, other.beacon(QUEUED, RecordName(1))) == (
            [],
            [RecordName(1)],
            {"kind": "fd", "label": "a=b 배포"},
            True,
        )


def test_what_is_added_goes_before_what_was_there(store: Store) -> None:
    own = record(store, 1)

    own.append(label="second", command_pid=7)

    read = store.read(QUEUED, RecordName(1))
    assert (read and read.fields, own.fields) == (
        {"kind": "fd", "label": "second", "command_pid": "7"},
        {"kind": "fd", "label": "second", "command_pid": "7"},
    )


def test_an_addition_is_seen_whole_or_not_at_all(store: Store, folder: Path) -> None:
    whole = b"kind=fd\nlabel=staging\nadmitted=12.345\n"
    seen = []

    for length in range(len(whole) + 1):
        (folder / QUEUED / "1").write_bytes(whole[:length])
        read = store.read(QUEUED, RecordName(1))
        seen.append(read and read.fields)

    fields = {"kind": "fd", "label": "staging", "admitted": "12.345"}
    expected = [dict(list(fields.items())[: whole[:length].count(b"\n")]) for length in range(len(whole) + 1)]
    assert seen == expected


@pytest.mark.parametrize(
    ("content", "fields", "kind"),
    [
        (b"", {}, ""),
        (b"kind=fd\nfuture=1\n", {"kind": "fd", "future": "1"}, "fd"),
        (b"kind=moon\n", {"kind": "moon"}, ""),
        (b"kind=fd", {}, ""),
        (b"kind=pid\nprocess=1:2", {"kind": "pid"}, "pid"),
        (b"no equals\n=x\nkind=fd\n", {"": "x", "kind": "fd"}, "fd"),
        (b"\xff\xfe=\x00\n", {"\ufffd\ufffd": "\0"}, ""),
        (b"\n\n\n", {}, ""),
    ],
)
def test_damage_costs_no_more_than_the_damaged_fields(
    content: bytes, fields: dict[str, str], kind: str, store: Store, folder: Path
) -> None:
    (folder / HOLDING / "1.1").write_bytes(content)

    read = store.read(HOLDING, RecordName(1, 1))

    assert (read and read.fields, read and read.kind) == (fields, kind)


def test_a_huge_record_is_not_read_to_its_end(store: Store, folder: Path) -> None:
    (folder / QUEUED / "1").write_bytes(b"kind=fd\n" + b"x=" + b"y" * (1 << 20) + b"\n")

    read = store.read(QUEUED, RecordName(1))

    assert read is not None
    assert read.fields == {"kind": "fd"}


@pytest.mark.parametrize("plant", ["link", "fifo", "folder"])
def test_a_record_that_is_no_file_says_nothing_and_hangs_nobody(
    plant: str, store: Store, folder: Path, tmp_path: Path
) -> None:
    place = folder / HOLDING / "1.1"
    (tmp_path / "victim").write_text("kind=fd\n")
    if plant == "link":
        place.symlink_to(tmp_path / "victim")
    elif plant == "fifo":
        os.mkfifo(place)
    else:
        place.mkdir()

    read = store.read(HOLDING, RecordName(1, 1))

    assert read is not None
    assert (read.fields, read.kind) == ({}, "")


@pytest.mark.parametrize("plant", ["link", "loop", "socket", "folder", "full folder"])
def test_what_is_no_file_has_no_beacon_and_can_be_removed(plant: str, store: Store, folder: Path) -> None:
    place = folder / QUEUED / "1"
    if "folder" in plant:
        place.mkdir()
        if plant == "full folder":
            (place / "dear").touch()
    elif plant == "socket":
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(str(place))
    else:
        place.symlink_to(place if plant == "loop" else folder / "mutex")

    before = store.beacon(QUEUED, RecordName(1)), store.entries(QUEUED)
    removed = store.remove(QUEUED, RecordName(1)), store.entries(QUEUED)

    assert (before, removed, (folder / "mutex").exists()) == ((False, [RecordName(1)]), (True, []), True)


def test_a_record_that_is_gone_is_none_and_dark(store: Store) -> None:
    assert (
        store.read(QUEUED, RecordName(5)),
        store.beacon(QUEUED, RecordName(5)),
        store.has(QUEUED, RecordName(5)),
    ) == (
        None,
        False,
        False,
    )


def test_names_that_are_no_records_are_nobodys(store: Store, folder: Path) -> None:
    strange = ["", "x", "-1", "1.", ".1", "1.x", "1.2.3", " 1", "1~", "٣", "²", "9" * 40, ".nfs0001"]
    for name in strange[1:]:
        (folder / QUEUED / name).touch()
        (folder / HOLDING / name).touch()
    for name in ("10", "9"):
        (folder / QUEUED / name).touch()
        (folder / HOLDING / f"{name}.1").touch()
        (folder / QUEUED / f"{name}.1").touch()
        (folder / HOLDING / name).touch()

    assert (store.entries(QUEUED), store.entries(HOLDING)) == (
        [RecordName(9), RecordName(10)],
        [RecordName(9, 1), RecordName(10, 1)],
    )


def test_a_record_moves_by_one_rename_and_gets_its_slot(store: Store) -> None:
    own = record(store, 3)

    at_gate = store.move(RecordName(3), QUEUED, GATE)
    own.hold(1)
    held = store.move(at_gate, GATE, HOLDING, slot=2)

    assert (held, [store.entries(state) for state in (QUEUED, GATE, HOLDING)], store.beacon(HOLDING, held)) == (
        RecordName(3, 2),
        [[], [], [RecordName(3, 2)]],
        True,
    )


def test_the_own_record_is_removed_but_no_other_of_that_name(store: Store) -> None:
    mine = record(store, 1)
    store.remove(QUEUED, RecordName(1))
    others = record(store, 1)

    removed = [store.remove(QUEUED, RecordName(1), mine)]
    kept = store.has(QUEUED, RecordName(1))
    removed += [store.remove(QUEUED, RecordName(1), others), store.remove(QUEUED, RecordName(1), others)]

    assert (removed, kept, store.has(QUEUED, RecordName(1))) == ([False, True, False], True, False)


def test_in_the_queue_the_waiter_counts_and_with_a_slot_the_holder(store: Store, folder: Path) -> None:
    script = os.open(folder / NEW / "script", os.O_RDWR | os.O_CREAT)
    own = store.draft({"kind": "fd"}, script)
    store.publish(own, QUEUED, RecordName(1))
    lit = [store.beacon(QUEUED, RecordName(1))]
    own.hold(1)

    own.close()  # the waiter ends; the script has its file open still
    lit.append(store.beacon(QUEUED, RecordName(1)))
    store.move(RecordName(1), QUEUED, HOLDING, slot=1)
    lit.append(store.beacon(HOLDING, RecordName(1, 1)))
    os.close(script)

    assert [*lit, store.beacon(HOLDING, RecordName(1, 1))] == [True, False, True, False]


@pytest.mark.parametrize("plant", ["elsewhere", "not empty", "second link", "read only", "closed", "queued"])
def test_a_script_may_hand_in_only_a_new_file_of_its_own(
    plant: str, store: Store, folder: Path, tmp_path: Path
) -> None:
    place = {"elsewhere": tmp_path, "queued": folder / QUEUED}.get(plant, folder / NEW) / "1"
    fd = os.open(place, os.O_RDWR | os.O_CREAT)
    if plant == "not empty":
        place.write_text("x")
    elif plant == "second link":
        (folder / "link").hardlink_to(place)
    elif plant == "read only":
        os.close(fd)
        fd = os.open(place, os.O_RDONLY)
    elif plant == "closed":
        os.close(fd)

    with pytest.raises(InvalidValueError) as caught:
        store.draft({"kind": "fd"}, fd)

    if plant != "closed":
        os.close(fd)
    assert (caught.value.status, place.read_text()) == (2, "x" if plant == "not empty" else "")


def test_an_unlit_draft_is_swept_after_a_minute_and_a_lit_one_never(store: Store, folder: Path) -> None:
    lit = store.draft({})
    for name in ("old", "young"):
        (folder / NEW / name).touch()
    (folder / NEW / "link").symlink_to(folder / "mutex")
    (folder / NEW / "folder").mkdir()
    past = time.time() - 61
    for name in ("old", lit.draft, "link", "folder"):
        os.utime(folder / NEW / name, (past, past), follow_symlinks=False)

    store.sweep()

    assert sorted(os.listdir(folder / NEW)) == sorted(["young", lit.draft, "folder"])


def test_a_draft_that_cannot_be_written_leaves_nothing(store: Store, folder: Path) -> None:
    def full() -> str:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
        try:
            store.draft({"label": "staging"})
        except OSError as error:
            return error.strerror or ""
        return "written"

    assert (in_child(full), os.listdir(folder / NEW)) == ("File too large", [])


@pytest.mark.parametrize(("left_s", "drained"), [(3600, True), (-1, False)])
def test_a_drain_of_an_earlier_boot_ends_by_the_wall_clock(
    left_s: float, drained: bool, store: Store, folder: Path
) -> None:
    note = f"reason=move\nuid=0\nuntil=99999999\nboot={'0' * 36}\nends={time.time() + left_s}\n"
    (folder / "drained").write_text(note)

    found = store.drain

    left = ((found and found.until) or 0) - time.monotonic()
    assert (found is not None, abs(left - left_s) < 60) == (drained, drained)


def test_a_drain_of_an_earlier_boot_without_an_end_goes_on(store: Store, folder: Path) -> None:
    (folder / "drained").write_text("reason=move\nuid=0\n")

    assert store.drain == Drain("move", 0)


def test_a_change_of_the_capacity_is_noted_and_a_note_of_another_one_counts_for_nothing(store: Store) -> None:
    store.capacity = 1
    before = store.resized
    store.resize(3)
    noted = store.resized
    store.capacity = 2

    assert (before, noted and noted[:3], store.resized) == (None, (1, 3, os.getuid()), None)
