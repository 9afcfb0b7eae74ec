"""What stands for a command in a directory, so that two builds are known to be the same and the words stay private."""

from __future__ import annotations

import os

from ipclock._typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


def of(command: Sequence[str]) -> str:
    """Return that of a command in our directory; "" where that is gone."""
    import hashlib  # takes as long to load as a build to start: only for waiters

    try:
        words = [os.getcwd(), *command]
    except OSError:
        return ""
    return hashlib.sha256(b"\0".join(map(os.fsencode, words))).hexdigest()[:16]
