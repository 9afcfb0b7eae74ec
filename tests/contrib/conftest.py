"""The `ipclock` of this checkout in PATH, as an installed one would be."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.contrib.deploy_sweep import bring_ipclock

if TYPE_CHECKING:
    from pathlib import Path

    from tests.helpers.world import World


@pytest.fixture(autouse=True)
def _ipclock_on_path(world: World, tmp_path: Path) -> None:
    bring_ipclock(world, tmp_path)
