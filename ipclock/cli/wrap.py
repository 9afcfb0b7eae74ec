"""`ipclock wrap LABEL -- COMMAND`: run a command in a slot."""

from __future__ import annotations

from contextlib import suppress

from ipclock import acquisition
from ipclock._typing import TYPE_CHECKING
from ipclock.cli import options, waiting
from ipclock.cli.build_run import BuildRun
from ipclock.config import values
from ipclock.config.environment import build_environment, inherited_environment
from ipclock.config.settings import checked
from ipclock.errors import N_, CommandFailed, IpclockError, SlotLost, UnsupportedError
from ipclock.history import recorder
from ipclock.i18n import _
from ipclock.pool.claim import AlreadyWaits
from ipclock.run import command_start, fingerprint, supervisor, usage

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace
    from collections.abc import Mapping
    from typing import Any

    from ipclock.config.settings import Settings
    from ipclock.run.caller import Caller
    from ipclock.run.detached import Detached
    from ipclock.run.relay import Relay

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

        caller = Caller(args.for_pid, label)
    detached = None
    if args.detach:
        from ipclock.run.detached import Detached

        detached = Detached(signals, settings)
        if detached.status is not None:
            return detached.status
    status = _Wrap(args, settings, label, signals, caller, detached).run()
    if status < 0:
        supervisor.die_of(-status)
    return status if status >= 0 else 128 - status


class _Wrap:
    """One build: its way into a slot, and its command in there. Statuses are exit statuses, or -n for signal n."""

    def __init__(
        self,
        args: Namespace,
        settings: Settings,
        label: str,
        signals: supervisor.PendingSignals,
        caller: Caller | None,
        detached: Detached | None,
    ) -> None:
        self._args = args
        self._settings = settings
        self._signals = signals
        self._caller = caller
        self._detached = detached
        self._relay: Relay | None = None
        if args.log and not detached:
            from ipclock.run.relay import Relay

            self._relay = Relay(settings)
        self._hooks = options.hooks_for(settings, verbose=args.verbose)
        self._apart = self._hooks.sessions if self._hooks else set()  # of processes that are none of the build's
        self._pool = options.open_for_build(args, settings)
        self._claim = acquisition.claim_for(label, settings, supersede=args.supersede)
        self._claim.caller = detached.caller if detached else None
        if args.join:
            self._claim.same, self._claim.joins = fingerprint.of(args.command_line), True
        self._build = BuildRun(self._pool, self._claim, settings, self._hooks, quiet=args.quiet, caller=caller)
        # all that can be done before the wait is: the end of another build waits for the start of this one
        self._inherited = inherited_environment()

    def run(self) -> int:
        """Take the slot, run the command in it, give the slot back; return the status."""
        pool, claim, build = self._pool, self._claim, self._build
        build.nested = waiting.join(pool, claim, self._args, self.check)
        if build.nested and not claim.slot:
            return self._execute(self._inherited)
        if build.nested:
            self.arrived()
        else:
            try:
                self._take_slot()
            except AlreadyWaits as other:
                return self._follow(other.ticket)
        try:
            status = self._execute(
                self._environment(),
                keep_open=pool.beacon(claim),
                on_start=build.begin,
                on_tick=build.tick,
                on_reaped=build.used.reaped,
                tick_s=pool.tick_s,
            )
        except BaseException as error:
            build.fail(error)
            raise
        if self._relay:
            self._relay.end()
        build.finish(status)
        if self._relay:  # the next build need not wait for a slow reader
            self._relay.drain()
        if build.lost:
            raise SlotLost(claim.label)
        return status

    def check(self) -> None:
        """Raise Interrupted or CancelledError where the wait is to end."""
        self._signals.check()
        if self._caller:
            self._caller.check()

    def arrived(self) -> None:
        """The claim stands in line: from now on its output is kept, and a detached build goes on alone."""
        if kept := self._detached or self._relay:
            kept.arrived(self._pool, self._claim, self._apart)

    def _take_slot(self) -> None:
        if self._detached:
            self._args.quiet, self._args.verbose = True, False  # its log is the command's
        canvas = None if self._detached else waiting.canvas()
        wait = _WrapWait(self._pool, self._claim, self._args, self._settings, self.check, self._hooks, canvas)
        wait.build = self
        if self._caller:
            wait.pace = min(wait.pace, CALLER_PACE_S)
        wait.take_slot()
        if canvas:
            canvas.lend()

    def note_command(self) -> None:
        """Note what is to run, for those that would join it."""
        if not (self._settings.engine or self._claim.same):
            with suppress(OSError):
                self._pool.note(self._claim, same=fingerprint.of(self._args.command_line))

    def _follow(self, ticket: int) -> int:
        """Do as the build with this ticket does, which waits already."""
        if self._detached:
            print(ticket)
            return 0
        from ipclock.cli.follow import follow

        return follow(self._claim, ticket, self._args, self._settings, self.check, waiting.canvas())

    def _environment(self) -> dict[str, str]:
        args, settings, pool, claim = self._args, self._settings, self._pool, self._claim
        jobs = max(1, usage.cores() * settings.build_slots // max(1, pool.capacity)) if args.export_jobs else None
        token = claim.lease.token if claim.lease else ""
        return build_environment(self._inherited, pool.name, claim.label, claim.ticket, claim.slot, jobs, token)

    def _execute(self, environment: Mapping[str, str], **options: Any) -> int:
        return supervisor.run(
            self._args.command_line,
            environment,
            self._signals,
            leftovers=self._settings.leftovers,
            apart=self._apart,
            relay=self._relay,
            on_leftovers=self._build.leave_behind,
            **options,
        )


class _WrapWait(waiting.ShownWait):
    build: _Wrap
    _noted = False

    def arrived(self, ticket: int) -> None:
        """Let a detached build go on alone."""
        self.build.arrived()

    def waiting(self, ticket: int) -> None:
        """Note the command at the first tick: a build that need not wait is spared it."""
        if not self._noted:
            self._noted = True
            self.build.note_command()
        super().waiting(ticket)


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
