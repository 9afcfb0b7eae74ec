"""A pool of its own for each test; whatever a test leaves behind is ended and removed."""

from __future__ import annotations

import itertools
import os
from typing import TYPE_CHECKING

import pytest

from tests.helpers.world import World, remove_pool

if TYPE_CHECKING:
    from collections.abc import Iterator

_numbers = itertools.count(1)


@pytest.fixture
def pool_name() -> Iterator[str]:
    """A pool's name, without the slash, that no other test uses."""
    name = f"ipclock-test-{os.getpid()}-{next(_numbers)}"
    yield name
    remove_pool(name)


@pytest.fixture
def world(pool_name: str) -> Iterator[World]:
    """A pool and real `ipclock` processes on it."""
    made = World(pool_name)
    yield made
    made.close()
