"""`ipclock drain`: let the running builds end and start no other."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

from ipclock import users
from ipclock.cli import options
from ipclock.config import values
from ipclock.config.settings import checked
from ipclock.display.formatting import drained
from ipclock.errors import N_
from ipclock.i18n import _
from ipclock.pool.notes import Drain
from ipclock.pool.wait_context import WaitContext

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

    from ipclock.config.settings import Settings

SUMMARY = N_("stop starting new builds, let running ones finish")
EXAMPLES = (
    "ipclock drain",
    'ipclock drain --for 30m --reason "disk is being replaced"',
)


def add_arguments(parser: ArgumentParser) -> None:
    """Add the command's options."""
    parser.add_argument("--reason", metavar="TEXT", default="", help=_("show TEXT to waiting builds"))
    parser.add_argument("--for", dest="span", metavar="TIME", help=_("resume automatically after TIME, such as 30m"))
    options.add_quiet(parser)
    options.add_pool_options(parser)


def run(args: Namespace, settings: Settings) -> int:
    """Drain the pool; once more replaces reason and end, and says what they were."""
    reason = args.reason and checked(values.line, args.reason, "--reason")
    span = None if args.span is None else checked(values.drain_span, args.span, "--for")
    pool = options.open_pool(settings)
    tell = options.teller(args)
    before = pool.snapshot(waiters=0)
    uid = os.getuid() if users.shows_all() else None  # one of a user namespace is another user's outside
    drain = Drain(reason, uid, None if span is None else time.monotonic() + span)
    pool.drain(drain, WaitContext(options.MUTEX_PATIENCE_S))
    now = pool.snapshot()
    text = _("✓ {drained} ({running} running, {waiting} waiting)")
    tell(text.format(drained=drained(now), running=len(now.outermost), waiting=len(now.waiters)))
    if before.drain:
        tell(_("   before: {drained}").format(drained=drained(before)))
    pool.close()
    return 0
