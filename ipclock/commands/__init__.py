"""The commands, one file each, and what several of them share: their common options and the way to a slot."""

from __future__ import annotations

import sys
from argparse import ArgumentTypeError
from typing import TYPE_CHECKING

from ipclock import config
from ipclock.messages import _
from ipclock.patience import Patience
from ipclock.pool import Pool
from ipclock.progress import Progress, say
from ipclock.snapshot import NESTED, encloses_us, place, take

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace
    from collections.abc import Callable

    from ipclock.config import Settings
    from ipclock.pool import Claim

MUTEX_PATIENCE_S = 10.0  # how long a command that does not wait for a slot waits for the pool's mutex
DUE_PATIENCE_S = 10.0  # how long -n goes through the gate for a slot that is due to it


def add_pool_options(parser: ArgumentParser) -> None:
    """Add the options that say which pool is meant; each is also a key of environment and settings file."""
    group = parser.add_argument_group(_("pool"))
    group.add_argument("--config", metavar="FILE", help=_("settings file to read"))
    group.add_argument("--name", dest="SEMAPHORE_NAME", metavar="NAME", help=_("the semaphore's name (/oracle-build)"))
    group.add_argument("--lock-dir", dest="LOCK_DIR", metavar="DIR", help=_("folder of the records (/dev/shm)"))
    group.add_argument(
        "--max-parallel-builds",
        dest="MAX_PARALLEL_BUILDS",
        metavar="N",
        help=_("number of slots; becomes the pool's, for those who wait already too"),
    )


def add_wait_options(parser: ArgumentParser) -> None:
    """Add the options about the wait for a slot, as flock(1) has them."""
    how_long = parser.add_mutually_exclusive_group()
    how_long.add_argument(
        "-w",
        "--wait",
        "--timeout",
        dest="BUILD_TIMEOUT",
        metavar="SEC",
        help=_("wait so long at most, then exit 75 (600)"),
    )
    how_long.add_argument(
        "-n", "--nb", "--nonblock", dest="nonblock", action="store_true", help=_("do not wait: exit 75 at once")
    )
    parser.add_argument(
        "-E",
        "--conflict-exit-code",
        dest="conflict_status",
        metavar="CODE",
        type=_exit_status,
        help=_("exit with CODE instead of 75"),
    )
    how_much = parser.add_mutually_exclusive_group()
    how_much.add_argument("-q", "--quiet", action="store_true", help=_("no lines of our own but errors"))
    how_much.add_argument("-v", "--verbose", action="store_true", help=_("tell ticket, slot and length of the wait"))


def ticket(text: str) -> int:
    """Return the ticket that an argument says."""
    if not (text.isascii() and text.isdigit() and len(text) < 20):
        raise ArgumentTypeError(_("a ticket is a number"))
    return int(text)


def _exit_status(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 3 and int(text) <= 255):
        raise ArgumentTypeError(_("expected a number from 0 to 255"))
    return int(text)


def open_pool(settings: Settings, *, repair: bool = False) -> Pool:
    """Open the pool that the settings name, making it if it is not there."""
    return Pool.open(
        settings.semaphore_name,
        settings.lock_dir,
        settings.max_parallel_builds,
        group=settings.shared_with,
        repair=repair,
    )


def is_nested(pool: Pool) -> bool:
    """Return whether a build around us holds a slot of this pool: waiting for another could wait for ever."""
    held = config.held_slot()
    if held is None:
        return False
    if held[0] not in ("", pool.name):
        # the innermost build is of another pool, but one around that may be of ours
        return encloses_us(pool.store, NESTED)
    if encloses_us(pool.store, held[1]):
        return True
    text = _("ipclock: warning: IPCLOCK_TICKET={ticket} holds no slot around this process; ignored")
    say(text.format(ticket=ascii(held[1])))
    return False


def take_slot(pool: Pool, claim: Claim, args: Namespace, settings: Settings, check: Callable[[], None]) -> None:
    """Wait for a slot on behalf of a person, with the waiting line, until the claim holds one.

    *check* raises to stop waiting. A change of the capacity in the settings file is taken over meanwhile.
    """
    limit = settings.build_timeout
    block = not args.nonblock and limit > 0
    progress = Progress(
        limit,
        quiet=args.quiet,
        interval=settings.progress_interval,
        terminal=sys.stderr is not None and sys.stderr.isatty() and not config.plain_terminal(),
    )
    file = config.CapacityFile(settings)

    def on_wait(ticket: int) -> None:
        if (capacity := file.changed()) is not None:
            pool.resize(capacity, patience)
        if block and progress.due():
            progress.waiting(take(pool.store, pool.name, waiters=False), place(pool.store, ticket))

    patience = Patience(limit if block else DUE_PATIENCE_S, check, on_wait, progress.stuck)
    try:
        pool.acquire(claim, patience, block=block)
    finally:
        progress.clear()
    if args.verbose:
        progress.details(claim.ticket, claim.slot)
    progress.acquired(claim.label, claim.held, pool.capacity)
