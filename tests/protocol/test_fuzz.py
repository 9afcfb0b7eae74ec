"""What another member may have written into a pool, made up by hypothesis: small rounds of `fuzz`, on real files."""

from __future__ import annotations

import json
import os
import random
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, Phase, given
from hypothesis import settings as examples
from hypothesis import strategies as some

from ipclock.cli.status import as_json
from ipclock.config import values
from ipclock.config.settings import SETTINGS, Settings, load_settings
from ipclock.display.estimates import Estimator
from ipclock.errors import IpclockError, SemaphoreError
from ipclock.linux import semaphore
from ipclock.pool import liveness, place, policy, snapshot
from ipclock.pool.directory import GATE, HOLDING, NUMBERS, QUEUED, STATES
from ipclock.pool.notes import Drain, Fairness
from ipclock.pool.protocol import Pool
from ipclock.pool.records import Store
from ipclock.pool.wait_context import WaitContext
from tests.helpers.crash_at import in_child, needs_root
from tests.helpers.world import SHM, remove_pool
from tests.protocol import fuzz

if TYPE_CHECKING:
    from collections.abc import Iterator

# what is found is shown as it came: the files that one example leaves are the next one's too
steady = examples(
    deadline=None,
    derandomize=True,
    database=None,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)
chances = some.integers(0, 2**32).map(random.Random)


@pytest.fixture
def folder(pool_name: str) -> Iterator[Path]:
    """The folder of a new pool. Root alone may remove whatever lies in it."""
    needs_root(0)
    Store.open(str(SHM), pool_name, create=True).close()
    yield SHM / f"ipclock.{pool_name}"
    remove_pool(pool_name)


@pytest.fixture
def victim(tmp_path: Path) -> Iterator[Path]:
    """A file elsewhere, to which links in the pool lead; nobody writes into it."""
    made = tmp_path / "victim"
    made.write_bytes(fuzz.VICTIM)
    yield made
    assert made.read_bytes() == fuzz.VICTIM


def shown(folder: Path) -> str:
    """Return what `status` shows of the pool."""
    store = Store.open(str(SHM), place.name_of(str(folder)), create=False)
    try:
        standing = Estimator(None).on(snapshot.take(store, "/pool"))
        labels = [one.label for one in (*standing.pool.holders, *standing.pool.waiters)]
        assert all(label.isprintable() for label in labels)
        return json.dumps(as_json(standing), allow_nan=False)
    finally:
        store.close()


def mended(folder: Path) -> tuple[list[str], int, int]:
    """Reset the pool; return the records that are left, and the semaphore's value with that of N."""
    pool = Pool.open("/" + place.name_of(str(folder)), str(SHM), 2, repair=True)
    try:
        pool.reset(WaitContext(5.0))
        left = [entry.file for state in STATES[1:] for entry in pool.store.entries(state)]
        return left, pool.gate.value, pool.capacity
    finally:
        pool.close()


@examples(steady, max_examples=200)
@given(chances)
def test_no_text_of_a_record_is_more_than_a_damaged_record(folder: Path, chance: random.Random) -> None:
    names = {HOLDING: "1.1", GATE: "2", QUEUED: "3"}
    for state, name in names.items():
        (folder / state / name).write_bytes(fuzz.record(chance))

    store = Store.open(str(SHM), place.name_of(str(folder)), create=False)
    record = store.read(HOLDING, store.entries(HOLDING)[0])
    verdicts = {liveness.verdict(store, state, store.entries(state)[0]) for state in names}
    store.close()

    assert record is not None
    assert verdicts <= {policy.ALIVE, policy.DEAD, policy.UNKNOWN}
    assert (len(shown(folder)) > 0, mended(folder)) == (True, ([], 2, 2))


@examples(steady, max_examples=200)
@given(chances)
def test_no_name_and_no_kind_of_file_outlives_a_reset(folder: Path, victim: Path, chance: random.Random) -> None:
    for _ in range(5):
        state = chance.choice(STATES[1:])
        path = os.fsencode(folder / state) + b"/" + fuzz.name(chance, state)
        fuzz.plant(chance, path, fuzz.record(chance), victim)

    assert (len(shown(folder)) > 0, mended(folder)) == (True, ([], 2, 2))


@examples(steady, max_examples=60)
@given(chances)
def test_no_number_and_no_note_keeps_a_pool_from_its_next_one(
    folder: Path, victim: Path, chance: random.Random
) -> None:
    for number in NUMBERS:
        (folder / number).write_bytes(fuzz.number(chance))
    for note in ("drained", "resized", "fair"):
        fuzz.plant(chance, os.fsencode(folder / note), fuzz.note(chance), victim)
    store = Store.open(str(SHM), place.name_of(str(folder)), create=False)
    read = (store.capacity or 0, store.epoch, store.lowest_priority, store.draw_ticket())
    store.drain = Drain("night", 0)
    store.resize(2)
    reason, change = store.drain, store.resized
    fair = Fairness("user", (policy.Admission("u0", 1, -5),))
    between, store.fairness = store.fairness and store.fairness.between, fair
    told = store.fairness
    store.drain = store.fairness = None
    again = (store.drained, store.capacity, change and change.capacity)
    store.close()

    assert (between in (None, *values.PARTIES), told) == (True, fair)
    assert (read[0] <= values.MAX_CAPACITY, -20 <= read[2] <= 19, read[3] < 10**18) == (True, True, True)
    assert (reason, again, mended(folder)) == (Drain("night", 0), (False, 2, 2), ([], 2, 2))


@examples(steady, max_examples=60)
@given(chances)
def test_a_semaphore_is_refused_or_works_and_a_reset_mends_it(folder: Path, chance: random.Random) -> None:
    name = "/" + place.name_of(str(folder))
    path = Path(semaphore.path_of(name))
    path.write_bytes(fuzz.semaphore(chance))

    def use() -> bool:
        try:
            opened = semaphore.open_existing(name, lambda status: True)
        except SemaphoreError:
            return True
        assert opened is not None
        before = opened.value
        opened.post()
        taken = [opened.try_wait(), opened.value]
        return (taken, before <= semaphore.MOST_UNITS) == ([True, before], True)

    assert (in_child(use), in_child(lambda: mended(folder))) == (True, ([], 2, 2))


@examples(steady, max_examples=300)
@given(chances)
def test_no_settings_file_is_more_than_a_wrong_setting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chance: random.Random
) -> None:
    for setting in SETTINGS:
        monkeypatch.delenv(setting.key, raising=False)
    file = tmp_path / "build-config.sh"
    monkeypatch.setenv("IPCLOCK_CONFIG", str(file))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "nowhere"))
    file.write_bytes(fuzz.settings(chance))

    try:
        status = 0 if load_settings() else 1
    except IpclockError as error:
        status = error.status

    assert (status in (0, 78), isinstance(load_settings(lenient=True), Settings)) == (True, True)


@pytest.mark.parametrize("seed", range(6))
def test_real_commands_on_a_damaged_pool_end_well_and_a_reset_mends_it(seed: int) -> None:
    needs_root(0)

    assert fuzz.round_of(seed).faults == []
