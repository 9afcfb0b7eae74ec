"""A pool's folder for each test, opened."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.helpers.world import SHM
from tests.unit.pool.stores import opened

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ipclock.pool.records import Store


@pytest.fixture
def store(pool_name: str) -> Iterator[Store]:
    """A new pool's folder, made and opened."""
    with opened(pool_name) as made:
        yield made


@pytest.fixture
def folder(pool_name: str) -> Path:
    """Where the pool's folder lies, or will."""
    return Path(SHM, f"ipclock.{pool_name}")
