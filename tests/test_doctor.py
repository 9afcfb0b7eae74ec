"""The doctor's checks one by one, where no command is needed to see them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from ipclock import config, doctor, host, process
from ipclock.patience import Patience
from ipclock.pool import Claim, Pool
from tests.helpers.crash_at import in_child
from tests.helpers.world import HANG_S

if TYPE_CHECKING:
    from tests.helpers.world import World


@pytest.mark.parametrize(
    ("found", "suspicious"),
    [([1], False), ([0, 1], False), ([0, 0, 0, 1], False), ([0, 0, 0, 0, 0], True)],
)
def test_what_is_suspicious_only_for_a_moment_is_not_told(found: list[int], suspicious: bool) -> None:
    looks = iter(found)

    last = doctor._settled(lambda: next(looks, 0), lambda seen: seen == 0)

    assert (last == 0) is suspicious


def test_a_unit_taken_by_one_who_is_just_being_admitted_is_not_told(world: World) -> None:
    def look() -> list[str]:
        pool = Pool.open(world.name, "/dev/shm")
        claim = Claim("build")
        patience = Patience(HANG_S)
        pool.arrive(claim, patience)
        pool.wait_at_gate(claim, patience)
        between = doctor.value(pool.store, pool.gate)
        pool.admit(claim, patience)
        after = doctor.value(pool.store, pool.gate)
        pool.release(claim)
        return [between.level, after.level, after.finding]

    assert in_child(look) == ["ok", "ok", "value 0, 1 of 1 slots held"]


def test_a_dead_holder_whom_the_next_one_clears_away_counts_as_gone(world: World) -> None:
    def look() -> tuple[str, str]:
        pool = Pool.open(world.name, "/dev/shm")
        claim = pool.acquire(Claim("build"), Patience(HANG_S))
        assert claim.record
        claim.record.unlock()
        found = doctor.value(pool.store, pool.gate)
        return found.level, found.finding.partition(":")[0]

    assert in_child(look) == ("warn", "value 0, 0 of 1 slots held")


@pytest.mark.parametrize("umask", [0o000, 0o077])
def test_the_umask_is_shown_and_left_as_it_is(umask: int, world: World) -> None:
    def look() -> tuple[list[str], int]:
        made = doctor.examine(config.load(), config.survey())
        left = os.umask(0)
        return [row.finding[:4] for row in made if row.name == "umask"], left

    assert in_child(look, umask=umask) == ([f"{umask:04o}"], umask)


def test_no_descriptor_stays_open(world: World) -> None:
    def look() -> tuple[list[str], list[str]]:
        os.environ["SEMAPHORE_NAME"] = world.name
        Pool.open(world.name, "/dev/shm").close()
        doctor.examine(config.load(), config.survey())  # what is loaded once
        before = os.listdir("/proc/self/fd")
        doctor.examine(config.load(), config.survey())
        return before, os.listdir("/proc/self/fd")

    before, after = in_child(look)
    assert after == before


def test_the_room_is_bad_only_without_any(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rooms = {
        host.Room(1 << 20, 64, 4096): "ok",
        host.Room((1 << 20) - 4096, 64, 4096): "warn",
        host.Room(4096, 64, 4096): "warn",
        host.Room(0, 64, 4096): "bad",
        host.Room(1 << 30, 63, 4096): "warn",
        host.Room(1 << 30, 1, 4096): "warn",
        host.Room(1 << 30, 0, 4096): "bad",
    }

    def level(room: host.Room) -> str:
        monkeypatch.setattr(host, "room", lambda path: room)
        return doctor.room("shm-room", str(tmp_path)).level

    assert {room: level(room) for room in rooms} == rooms


def test_the_versions_are_those_in_use() -> None:
    import posix_ipc
    import psutil

    finding = doctor.versions().finding

    assert (f"posix_ipc {posix_ipc.VERSION}" in finding, f"psutil {psutil.__version__}" in finding) == (True, True)


def test_a_missing_psutil_is_bad(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "psutil", None)

    check = doctor.versions()

    assert (check.level, bool(check.remedy), process.user_name(0)) == ("bad", True, "root")
