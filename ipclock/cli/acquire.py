"""`ipclock acquire LABEL`: take a slot for the calling script, which holds it after this process has ended."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from ipclock import acquisition, users
from ipclock.cli import options, waiting
from ipclock.config import values
from ipclock.config.settings import checked
from ipclock.errors import N_, InvalidValueError
from ipclock.history import recorder
from ipclock.i18n import _
from ipclock.linux import process
from ipclock.run import supervisor

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

    from ipclock.config.settings import Settings

SUMMARY = N_("acquire a slot for the calling script and print its ticket")
EXAMPLES = (
    "ticket=$(ipclock acquire staging)",
    "ipclock acquire -n --slots 2 staging",
)


def add_arguments(parser: ArgumentParser) -> None:
    """Add the command's options."""
    options.add_wait_options(parser)
    options.add_queue_options(parser)
    parser.add_argument(
        "--fd",
        metavar="N",
        type=options.number("--fd", options.MAX_ID),
        help=_("hold the slot while descriptor N is open: a new file in the pool's directory new/"),
    )
    parser.add_argument(
        "--pid",
        metavar="PID",
        type=options.number("--pid", options.MAX_ID),
        help=_("hold the slot while process PID is alive (default: the caller)"),
    )
    options.add_on_lost(parser)
    options.add_color(parser)
    options.add_pool_options(parser, create=True)
    parser.add_argument("label", metavar="LABEL", help=_("label of the build, shown to waiting builds"))


def run(args: Namespace, settings: Settings) -> int:
    """Wait for the slot, bind it to the script and print the ticket on stdout."""
    label = checked(values.label, args.label, "LABEL")
    pid = _holder(args)
    try:
        holder = process.identify(pid)
    except OSError:
        raise _gone(pid) from None
    if not (os.getuid() == 0 and users.shows_all()) and process.real_uid(pid) not in (None, os.getuid()):
        raise InvalidValueError("--pid", str(pid), N_("the PID of one of your own processes"), usage=True)
    signals = supervisor.PendingSignals()

    def check() -> None:
        signals.check()
        if process.exists(holder) is False:
            raise _gone(pid)

    hooks = options.hooks_for(settings, verbose=args.verbose)
    pool = options.open_for_build(args, settings)
    keeper = None
    if not pool.keeps_without_us:
        from ipclock.zookeeper.holder_process import HolderProcess

        keeper = HolderProcess(signals)
        if keeper.status is not None:
            return keeper.status
    claim = acquisition.claim_for(label, settings, holder, args.fd, supersede=args.supersede)
    nested = waiting.join(pool, claim, args, check, holder)
    if nested and not claim.slot:
        from ipclock.pool.snapshot import NESTED

        print(NESTED)
        return 0
    if nested:
        hooks = None
    else:
        waiting.ShownWait(pool, claim, args, settings, check, hooks, waiting.canvas()).take_slot()
    try:
        check()
        print(claim.ticket, flush=True)
    except BaseException:
        # the ticket was not read, so the slot would not be given back before the script ends
        pool.release(claim)
        if hooks:
            hooks.tell_of("release", claim)
        raise
    if keeper:
        return keeper.keep(pool, claim, settings, holder)
    recorder.holds_ended(pool, settings)
    return 0


def _holder(args: Namespace) -> int:
    if args.pid is not None:
        pid: int = args.pid
        return pid
    if args.fd is not None:
        return os.getppid()  # the descriptor is what holds the slot
    from ipclock.cli import holder

    return holder.of_caller()


def _gone(pid: int) -> InvalidValueError:
    return InvalidValueError("--pid", str(pid), N_("the PID of a running process"), usage=True)
