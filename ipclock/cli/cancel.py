"""`ipclock cancel TICKET...`: let builds end before their time, whether they wait or run."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

from ipclock.cli import options
from ipclock.cli.waiting import MutexWait
from ipclock.config import values
from ipclock.config.settings import checked
from ipclock.errors import N_, NoTicket, StillRunning, UnsupportedError, UsageError
from ipclock.history import recorder
from ipclock.i18n import _
from ipclock.linux import process
from ipclock.pool import local
from ipclock.pool.cancellation import GRACE_S, Cancellation

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

    from ipclock.config.settings import Settings
    from ipclock.pool.claim import RemovedHolder
    from ipclock.pool.local import LocalPool

SUMMARY = N_("end builds, whether they wait or run")
EXAMPLES = (
    "ipclock cancel 17",
    "ipclock cancel --grace 60 17 18",
)
HEED_S = 3.0  # a client that has not heeded it by then is stopped, dead, or of a version that does not know how
MORE_S = 10.0  # beyond the grace, until a client that does what it can has not done it
LOOK_S = 0.05


def add_arguments(parser: ArgumentParser) -> None:
    """Add the command's options."""
    help_text = _("of a build that waits or runs, as 'ipclock status' lists it")
    parser.add_argument("ticket", metavar="TICKET", nargs="+", type=options.number("TICKET", 10**19), help=help_text)
    parser.add_argument(
        "--grace",
        metavar="SEC",
        help=_("how long a build has from SIGTERM to SIGKILL (default: 10)"),
    )
    options.add_quiet(parser)
    options.add_pool_options(parser)


def run(args: Namespace, settings: Settings) -> int:
    """Ask the clients to end their builds; end those whose client does not, and wait until all are gone."""
    grace = GRACE_S if args.grace is None else checked(values.grace, args.grace, "--grace")
    if settings.engine:
        raise UnsupportedError(settings.engine.partition("?")[0], "cancel")
    pool = local.open_pool(settings, create=False)
    if set(args.ticket) & set(pool.around_us()):
        raise UsageError(_("this command runs inside the build that it would end"), "ipclock cancel")
    by = f"{process.user_name(os.getuid())}({os.getuid()})"
    asked = pool.call_off(dict.fromkeys(args.ticket), Cancellation(by, grace), MutexWait(options.MUTEX_PATIENCE_S))
    begun = time.monotonic()
    failure: StillRunning | None = None
    for one in asked:
        try:
            _see_off(pool, settings, one, begun, grace)
        except StillRunning as error:
            failure = error
            continue
        text = _("✓ {label} (ticket {ticket}) was cancelled.")
        options.teller(args)(text.format(label=one.shown, ticket=one.entry.ticket))
    pool.close()
    if failure:
        raise failure
    return 0


def _see_off(pool: LocalPool, settings: Settings, one: RemovedHolder, begun: float, grace: float) -> None:
    """Wait until a build that was cancelled is gone; end it where its client does not. Raises StillRunning (77)."""
    ticket = one.entry.ticket
    patience = {"asked": HEED_S, "ends": grace + MORE_S, "alone": 0.0}
    while (answer := pool.answer(ticket)) in patience:
        passed = time.monotonic() - begun
        if passed >= patience[answer]:
            pool.end(ticket, grace_s=max(0.0, grace - passed))
            break
        time.sleep(LOOK_S)  # its client may be of another PID namespace, so there is nothing to sleep on
    if answer == "gone":
        return
    context = MutexWait(options.MUTEX_PATIENCE_S)
    dropped = pool.clear(ticket, context)
    if not dropped and pool.answer(ticket) != "gone":
        try:  # damaged: nothing tells that it is dead, and nothing keeps it
            dropped = pool.evict(context, ticket, nested=False)
        except NoTicket:  # cleared away by another client just now
            return
    recorder.holds_ended(pool, settings, dropped, "cancelled")
