"""`ipclock init`: make the pool, or see that it is whole, and say where it is."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from ipclock.cli import options
from ipclock.errors import N_
from ipclock.i18n import _
from ipclock.pool import local
from ipclock.pool.wait_context import WaitContext

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

    from ipclock.config.settings import Settings

SUMMARY = N_("create the pool and print its directory")
EXAMPLES = (
    "ipclock init",
    "sudo ipclock init --mode 0660 --group builders --max-parallel-builds 2",
)


def add_arguments(parser: ArgumentParser) -> None:
    """Add the command's options."""
    group = parser.add_argument_group(_("access"))
    group.add_argument(
        "--mode",
        dest="LOCK_MODE",
        metavar="MODE",
        help=_("give access to the owner only (0600) or to a group too (0660)"),
    )
    group.add_argument(
        "--priority-min",
        dest="PRIORITY_MIN",
        metavar="P",
        help=_("set the lowest priority that users other than root may request (default: 0)"),
    )
    group.add_argument(
        "--fair",
        dest="FAIR",
        metavar="BETWEEN",
        help=_("let builds of one priority take turns by user or by session; off: in order of arrival (default: off)"),
    )
    parser.add_argument("--move", action="store_true", help=_("move the directory of an idle pool to --lock-dir"))
    group.add_argument("--group", dest="LOCK_GROUP", metavar="GROUP", help=_("share the pool with this group"))
    options.add_pool_options(parser, create=True)


def run(args: Namespace, settings: Settings) -> int:
    """Make the pool, with the semaphore's value at the free slots, and print its directory on stdout.

    Mode and group are an existing pool's from now on, where they are given.
    """
    if args.move and not settings.engine:
        local.move(settings)
    pool = options.open_for_administrator(settings, ours=True, resize=args.MAX_PARALLEL_BUILDS is not None)
    context = WaitContext(options.MUTEX_PATIENCE_S)
    if settings.lock_mode is not None or settings.lock_group is not None:
        pool.share(settings.shared_with, context)
    if settings.priority_min is not None:
        pool.allow_priority(settings.priority_min, context)
    if settings.fair is not None:
        pool.be_fair(settings.fair, context)
    pool.tidy(context)
    if sys.stdout:
        # its bytes: a script uses the path, and the locale may lack letters of it
        sys.stdout.buffer.write(os.fsencode(pool.where) + b"\n")
    pool.close()
    return 0
