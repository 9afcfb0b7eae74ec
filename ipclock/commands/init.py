"""`ipclock init`: make the pool, or see that it is whole, and say where it is."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ipclock import commands
from ipclock.errors import N_
from ipclock.patience import Patience

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

    from ipclock.config import Settings

SUMMARY = N_("make the pool and print its folder")


def add_arguments(parser: ArgumentParser) -> None:
    """Add the command's options."""
    commands.add_pool_options(parser)


def run(args: Namespace, settings: Settings) -> int:
    """Make the pool, with the semaphore's value at the free slots, and print its folder on stdout."""
    pool = commands.open_pool(settings)
    pool.tidy(Patience(commands.MUTEX_PATIENCE_S))
    print(pool.store.path)
    pool.close()
    return 0
