"""Which points of a sweep a test tries, where all would take minutes."""

from __future__ import annotations

import random
import re
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Sequence

T = TypeVar("T")
CHANGE = re.compile(r"os\.(mkdir|chown|rename|remove|rmdir|symlink|posix_spawn)\b|ipclock\.sem_(create|post|unlink)\b")


class Sample:
    """Points at even distances; where they begin is the seed's choice (pytest-randomly), so that runs differ.

    *whole*: all points instead, as `pytest --every-point` wants it.
    """

    def __init__(self, *, whole: bool) -> None:
        self._whole = whole

    def of_trace(self, trace: Sequence[str], every: int) -> list[int]:
        """Return the points, from 1, of a client with this trace: each right after a change, and some of the others."""
        new = [nth for nth in range(1, len(trace) + 1) if nth == 1 or CHANGE.match(trace[nth - 2])]
        others = [nth for nth in range(1, len(trace) + 1) if nth not in new]
        return sorted([*new, *(self.of(others, every) if others else [])])

    def of(self, points: Sequence[T], every: int) -> Sequence[T]:
        """Return one of *every* so many."""
        return points if self._whole else points[random.randrange(min(every, len(points))) :: every]
