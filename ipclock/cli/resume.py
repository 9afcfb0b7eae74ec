"""`ipclock resume`: start builds again after `drain`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ipclock.cli import options
from ipclock.errors import N_
from ipclock.i18n import _
from ipclock.pool.wait_context import WaitContext

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

    from ipclock.config.settings import Settings

SUMMARY = N_("accept new builds again after drain")
EXAMPLES = (
    "ipclock resume",
    "ipclock resume --name /web",
)


def add_arguments(parser: ArgumentParser) -> None:
    """Add the command's options."""
    options.add_quiet(parser)
    options.add_pool_options(parser)


def run(args: Namespace, settings: Settings) -> int:
    """End the drain. A pool that is not drained stays as it is."""
    pool = options.open_pool(settings)
    tell = options.teller(args)
    drained = pool.snapshot(waiters=0).drain is not None
    pool.drain(None, WaitContext(options.MUTEX_PATIENCE_S))
    if not pool.capacity:
        tell(_("ipclock: warning: no build starts while MAX_PARALLEL_BUILDS is 0"))
    elif drained:
        tell(_("✓ new builds are accepted again."))
    else:
        tell(_("ipclock: the pool was not drained: it accepts builds"))
    pool.close()
    return 0
