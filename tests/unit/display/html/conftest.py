"""Drawings are in UTC and English."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from ipclock import i18n

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(autouse=True)
def _utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    i18n.use("en")
    monkeypatch.undo()
    time.tzset()
