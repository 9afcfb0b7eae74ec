"""`ipclock version`: the same as `--version`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ipclock import __version__
from ipclock.errors import N_

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

    from ipclock.config.settings import Settings

SUMMARY = N_("show the version")
EXAMPLES = ("ipclock version",)


def add_arguments(parser: ArgumentParser) -> None:
    """Add nothing: the version is one."""


def run(args: Namespace, settings: Settings) -> int:
    """Print the version on stdout."""
    print(f"ipclock {__version__}")
    return 0
