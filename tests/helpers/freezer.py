"""Processes frozen as a container is (`docker pause`), by cgroups of version 1 or 2: no state tells it for certain."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from tests.helpers.world import until

ROOTS = (Path("/sys/fs/cgroup/freezer"), Path("/sys/fs/cgroup"))


def is_there() -> bool:
    """Return whether we may freeze."""
    return _root() is not None


def _root() -> Path | None:
    return next((root for root in ROOTS if os.access(root / "cgroup.procs", os.W_OK)), None)


class Freezer:
    """One frozen process, in a cgroup of this name."""

    def __init__(self, pid: int, name: str) -> None:
        root = _root()
        assert root
        self._pid, self._root, self._group = pid, root, root / name
        self._group.mkdir()
        try:
            self._put(pid, self._group)
        except ProcessLookupError:
            self._group.rmdir()
            raise
        self._set(frozen=True)

    def thaw(self) -> None:
        """Let it go on."""
        self._set(frozen=False)
        with suppress(ProcessLookupError):
            self._put(self._pid, self._root)
        until(self._is_removed, "the cgroup away")

    def _put(self, pid: int, group: Path) -> None:
        (group / "cgroup.procs").write_text(str(pid))

    def _set(self, *, frozen: bool) -> None:
        old, new = self._group / "freezer.state", self._group / "cgroup.freeze"
        if old.exists():
            old.write_text("FROZEN" if frozen else "THAWED")
            until(lambda: old.read_text().strip() == ("FROZEN" if frozen else "THAWED"), "the freezer")
        else:
            new.write_text("1" if frozen else "0")
            wanted = f"frozen {int(frozen)}"
            until(lambda: wanted in (self._group / "cgroup.events").read_text(), "the freezer")

    def _is_removed(self) -> bool:
        with suppress(OSError):  # what has ended stays in it for a moment
            self._group.rmdir()
        return not self._group.exists()
