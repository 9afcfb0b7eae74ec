"""argparse as we use it."""

from __future__ import annotations

import argparse
from typing import Any, NoReturn

from ipclock.errors import UsageError


class Parser(argparse.ArgumentParser):
    """argparse, with errors as ours: one line, exit status 2. Options are never abbreviated: scripts outlive them."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options, allow_abbrev=False)

    def error(self, message: str) -> NoReturn:
        """Raise UsageError (2)."""
        raise UsageError(message, self.prog)
