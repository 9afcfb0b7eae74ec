"""An environment that says nothing, for each test of the settings."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from ipclock.config.settings import SETTINGS

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(autouse=True)
def bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An environment that says nothing, and no settings file."""
    for key in (*(setting.key for setting in SETTINGS), "HOME", "IPCLOCK_LANG", "LC_ALL", "LC_MESSAGES", "LANG"):
        monkeypatch.delenv(key, raising=False)
    empty = tmp_path / "empty.sh"
    empty.touch()
    monkeypatch.setenv("IPCLOCK_CONFIG", str(empty))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "nowhere"))


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The settings file in force."""
    path = tmp_path / "build-config.sh"
    path.touch()
    monkeypatch.setenv("IPCLOCK_CONFIG", str(path))
    return path
