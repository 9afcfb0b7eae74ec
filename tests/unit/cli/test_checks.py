"""The doctor's checks one by one, where no command is needed to see them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from ipclock.cli import checks
from ipclock.config.settings import load_settings, survey_settings
from ipclock.linux import machine, process
from ipclock.pool.protocol import Claim, Pool
from ipclock.pool.wait_context import WaitContext
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

    last = checks._settled(lambda: next(looks, 0), lambda seen: seen == 0)

    assert (last == 0) is suspicious


def test_a_unit_taken_by_one_who_is_just_being_admitted_is_not_told(world: World) -> None:
    def look() -> list[str]:
        pool = Pool.open(world.name, "/dev/shm")
        claim = Claim("build")
        context = WaitContext(HANG_S)
        pool.arrive(claim, context)
        pool.wait_at_gate(claim, context)
        between = checks.value(pool.store, pool.gate)
        pool.admit(claim, context)
        after = checks.value(pool.store, pool.gate)
        pool.release(claim)
        return [between.level, after.level, after.finding]

    assert in_child(look) == ["ok", "ok", "value 0, 1 of 1 slots held"]


def test_a_dead_holder_whom_the_next_one_clears_away_counts_as_gone(world: World) -> None:
    def look() -> tuple[str, str]:
        pool = Pool.open(world.name, "/dev/shm")
        claim = pool.acquire(Claim("build"), WaitContext(HANG_S))
        record = pool.stake(claim).record
        assert record
        record.unlock()
        found = checks.value(pool.store, pool.gate)
        return found.level, found.finding.partition(":")[0]

    assert in_child(look) == ("warn", "value 0, 0 of 1 slots held")


@pytest.mark.parametrize("umask", [0o000, 0o077])
def test_the_umask_is_shown_and_left_as_it_is(umask: int, world: World) -> None:
    def look() -> tuple[list[str], int]:
        made = checks.examine(load_settings(), survey_settings())
        left = os.umask(0)
        return [row.finding[:4] for row in made if row.name == "umask"], left

    assert in_child(look, umask=umask) == ([f"{umask:04o}"], umask)


def test_no_descriptor_stays_open(world: World) -> None:
    def look() -> tuple[list[str], list[str]]:
        os.environ["SEMAPHORE_NAME"] = world.name
        Pool.open(world.name, "/dev/shm").close()
        checks.examine(load_settings(), survey_settings())  # what is loaded once
        before = os.listdir("/proc/self/fd")
        checks.examine(load_settings(), survey_settings())
        return before, os.listdir("/proc/self/fd")

    before, after = in_child(look)
    assert after == before


def test_the_room_is_bad_only_without_any(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rooms = {
        machine.Room(1 << 20, 64, 4096): "ok",
        machine.Room((1 << 20) - 4096, 64, 4096): "warn",
        machine.Room(4096, 64, 4096): "warn",
        machine.Room(0, 64, 4096): "bad",
        machine.Room(1 << 30, 63, 4096): "warn",
        machine.Room(1 << 30, 1, 4096): "warn",
        machine.Room(1 << 30, 0, 4096): "bad",
    }

    def level(room: machine.Room) -> str:
        monkeypatch.setattr(machine, "room", lambda path: room)
        return checks.room("shm-room", str(tmp_path)).level

    assert {room: level(room) for room in rooms} == rooms


def test_the_versions_are_those_in_use() -> None:
    import posix_ipc
    import psutil

    finding = checks.versions().finding

    assert (f"posix_ipc {posix_ipc.VERSION}" in finding, f"psutil {psutil.__version__}" in finding) == (True, True)


def test_a_missing_psutil_is_bad(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "psutil", None)

    check = checks.versions()

    assert (check.level, bool(check.remedy), process.user_name(0)) == ("bad", True, "root")
