"""The `ipclock` of this checkout in PATH, as an installed one would be."""

from __future__ import annotations

import os
import stat
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.helpers.world import World


@pytest.fixture(autouse=True)
def _ipclock_on_path(world: World, tmp_path: Path) -> None:
    """Put the `ipclock` of this checkout first in PATH, as an installed one would be."""
    command = tmp_path / "bin/ipclock"
    command.parent.mkdir()
    command.write_text(f'#!/bin/sh\nexec {sys.executable} -m ipclock "$@"\n')
    command.chmod(command.stat().st_mode | stat.S_IXUSR)
    world.env["PATH"] = f"{command.parent}:{os.environ['PATH']}"
    world.env["PYTHONPATH"] = str(Path(__file__).parents[2])
