"""`ipclock wrap LABEL -- COMMAND`: run a command in a slot."""

from __future__ import annotations

from contextlib import suppress
from functools import partial

from ipclock import acquisition
from ipclock._typing import TYPE_CHECKING
from ipclock.cli import options, waiting
from ipclock.cli.build_run import BuildRun
from ipclock.config import values
from ipclock.config.environment import build_environment, inherited_environment
from ipclock.config.settings import checked
from ipclock.errors import N_, CancelledError, CommandFailed, IpclockError, SlotLost, UnsupportedError
from ipclock.history import recorder
from ipclock.i18n import _
from ipclock.pool.claim import AlreadyWaits
from ipclock.run import command_start, fingerprint, supervisor, usage

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

    from ipclock.config.settings import Settings

CALLER_PACE_S = 1.0  # from one look at whether the caller is still there to the next
SUMMARY = N_("run a command in a build slot")
EXAMPLES = (
    "ipclock wrap staging -- make",
    'ipclock wrap -w 10m "Staging Deployment" -- ./build.sh',
    "ipclock wrap --per-label 1 --supersede staging -- ./deploy.sh",
)
USAGE = "%(prog)s [-w SEC | -n] [OPTION ...] LABEL -- COMMAND [ARG ...]"


def add_arguments(parser: ArgumentParser) -> None:
    """Add the command's options; what follows `--` never comes to the parser."""
    parser.usage = USAGE
    options.add_wait_options(parser)
    options.add_queue_options(parser)
    options.add_on_lost(parser)
    options.add_color(parser)
    options.add_pool_options(parser, create=True)
    parser.add_argument(
        "--detach",
        action="store_true",
        help=_("print the ticket and return; the build keeps running: see 'ipclock logs'"),
    )
    parser.add_argument(
        "--log", action="store_true", help=_("keep the output in a log too, which 'ipclock logs' shows")
    )
    parser.add_argument(
        "--for",
        dest="for_pid",
        metavar="PID",
        type=options.number("--for", options.MAX_ID),
        help=_("leave the line, or end the build, when process PID ends"),
    )
    parser.add_argument(
        "--join",
        action="store_true",
        help=_("follow a build that waits with this label, command and directory, if there is one"),
    )
    parser.add_argument(
        "--leftovers",
        dest="LEFTOVERS",
        metavar="HOW",
        help=_("if processes outlive COMMAND: release the slot, wait for them or kill them (default: release)"),
    )
    parser.add_argument(
        "--export-jobs",
        action="store_true",
        help=_("set the environment so that make, cargo and cmake use this slot's share of the processors"),
    )
    parser.add_argument("label", metavar="LABEL", help=_("label of the build, shown to waiting builds"))


def run(args: Namespace, settings: Settings) -> int:
    """Run the command and return its exit status; die of the signal that ended it."""
    label = checked(values.label, args.label, "LABEL")
    _require_command(args.command_line[0], label, settings)
    signals = supervisor.PendingSignals()
    if settings.engine:
        _refuse_what_servers_lack(args, settings.engine)
    caller = None
    if args.for_pid is not None:
        from ipclock.run.caller import Caller

        caller = Caller(args.for_pid)

    def check() -> None:
        signals.check()
        if caller and caller.has_ended:
            raise CancelledError(label, "", caller.pid)

    detached = relay = None
    if args.detach:
        from ipclock.run.detached import Detached

        detached = Detached(signals, settings)
        if detached.status is not None:
            return detached.status
    elif args.log:
        from ipclock.run.relay import Relay

        relay = Relay(settings)
    hooks = options.hooks_for(settings, verbose=args.verbose)
    pool = options.open_for_build(args, settings)
    claim = acquisition.claim_for(label, settings, supersede=args.supersede)
    claim.caller = detached.caller if detached else None
    if args.join:
        claim.same, claim.joins = fingerprint.of(args.command_line), True
    build = BuildRun(pool, claim, settings, hooks, quiet=args.quiet, caller=caller)
    apart = hooks.sessions if hooks else set()  # of processes that are none of the build's
    execute = partial(
        supervisor.run,
        args.command_line,
        signals=signals,
        leftovers=settings.leftovers,
        apart=apart,
        relay=relay,
        on_leftovers=build.leave_behind,
    )
    # all that can be done before the wait is: the end of another build waits for the start of this one
    inherited = inherited_environment()
    build.nested = waiting.join(pool, claim, args, check)
    if build.nested and not claim.slot:
        return _end_like(execute(inherited))

    def tell_what_it_runs() -> None:
        if not (settings.engine or claim.same):
            with suppress(OSError):  # it is only for those that would join it
                pool.note(claim, same=fingerprint.of(args.command_line))

    kept = detached or relay  # what keeps its output
    on_arrival = partial(kept.arrived, pool, claim, apart) if kept else None
    if build.nested and on_arrival:
        on_arrival()
    if not build.nested:
        canvas = None if detached else waiting.canvas()
        if detached:
            args.quiet, args.verbose = True, False  # its log is the command's
        pace = CALLER_PACE_S if caller else float("inf")
        try:
            waiting.take_slot(
                pool, claim, args, settings, check, hooks, canvas, on_arrival, on_wait=tell_what_it_runs, pace=pace
            )
        except AlreadyWaits as other:
            if detached:
                print(other.ticket)
                return 0
            from ipclock.cli.follow import follow

            return _end_like(follow(claim, other.ticket, args, settings, check, canvas))
        if canvas:
            canvas.lend()
    jobs = max(1, usage.cores() * settings.build_slots // max(1, pool.capacity)) if args.export_jobs else None
    token = claim.lease.token if claim.lease else ""
    try:
        status = execute(
            build_environment(inherited, pool.name, label, claim.ticket, claim.slot, jobs, token),
            keep_open=pool.beacon(claim),
            on_start=build.begin,
            on_tick=build.tick,
            on_reaped=build.used.reaped,
            tick_s=pool.tick_s,
        )
    except BaseException as error:
        build.fail(error)
        raise
    if relay:
        relay.end()
    build.finish(status)
    if relay:  # the next build need not wait for a slow reader
        relay.drain()
    if build.lost:
        raise SlotLost(label)
    return _end_like(status)


def _refuse_what_servers_lack(args: Namespace, engine: str) -> None:
    asked = {"--detach": args.detach, "--log": args.log, "--for": args.for_pid is not None, "--join": args.join}
    for option in (option for option, given in asked.items() if given):
        raise UnsupportedError(engine.partition("?")[0], option)


def _require_command(name: str, label: str, settings: Settings) -> None:
    """Raise CommandFailed (126, 127) now, rather than after a wait of ten minutes, for what is not there."""
    try:
        command_start.look_up(name)
    except CommandFailed as error:
        if settings.history:
            with suppress(IpclockError):  # the pool's, which say nothing of the command
                recorder.never_started(settings, label, options.looker(settings)().capacity, error.status)
        raise


def _end_like(status: int) -> int:
    if status < 0:
        supervisor.die_of(-status)
    return status if status >= 0 else 128 - status
