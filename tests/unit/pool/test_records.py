"""Records on a real file system: drafts, beacons, moves, tickets and notes."""

from __future__ import annotations

import os
import resource
import signal
import socket
import time
from pathlib import Path

import pytest

from ipclock.errors import InvalidValueError
from ipclock.pool.directory import GATE, HOLDING, NEW, QUEUED
from ipclock.pool.notes import Drain
from ipclock.pool.record_name import RecordName
from ipclock.pool.records import Store
from tests.helpers.crash_at import in_child
from tests.unit.pool.stores import opened, record

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
