"""`ipclock wrap LABEL -- COMMAND`: run a command in a slot."""

from __future__ import annotations

import os
from contextlib import suppress
from functools import partial

from ipclock._typing import TYPE_CHECKING
from ipclock.cli import acquiring, options
from ipclock.config import values
from ipclock.config.environment import build_environment, inherited_environment
from ipclock.config.settings import checked
from ipclock.console import say
from ipclock.errors import N_, CommandFailed, IpclockError, SlotLost
from ipclock.history import finished, recorder
from ipclock.i18n import _, told
from ipclock.linux import process
from ipclock.run import supervisor, usage
from ipclock.utf8 import printable
from ipclock.zookeeper.lease_guard import LeaseGuard

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace
    from collections.abc import Callable

    from ipclock.config.settings import Settings
    from ipclock.pool.claim import Claim
    from ipclock.pool.engine import Engine
    from ipclock.run.hooks import Hooks

SUMMARY = N_("run a command in a build slot")
USAGE = "%(prog)s [-w SEC | -n] [-E CODE] [-q | -v] [OPTION ...] LABEL -- COMMAND [ARG ...]"
LEFT_BEHIND = {
    "wait": N_("⏳ waiting for what the command has left running (PID: {pids})"),
    "kill": N_("ipclock: ending what the command has left running (PID: {pids})"),
    "stay": N_("ipclock: warning: could not end what the command has left running (PID: {pids})"),
}


def add_arguments(parser: ArgumentParser) -> None:
    """Add the command's options; what follows `--` never comes to the parser."""
    parser.usage = USAGE
    options.add_wait_options(parser)
    options.add_queue_options(parser)
    options.add_on_lost(parser)
    options.add_pool_options(parser, create=True)
    parser.add_argument(
        "--leftovers",
        dest="LEFTOVERS",
        metavar="HOW",
        help=_("processes that outlive COMMAND: release the slot all the same (release), wait for them, or kill them"),
    )
    parser.add_argument(
        "--export-jobs",
        action="store_true",
        help=_("tell make, cargo and cmake in the environment to use this slot's share of the processors"),
    )
    parser.add_argument("label", metavar="LABEL", help=_("what is built; shown to those who wait"))


def run(args: Namespace, settings: Settings) -> int:
    """Run the command and return its exit status; die of the signal that ended it."""
    label = checked(values.label, args.label, "LABEL")
    _require_command(args.command_line[0], label, settings)
    signals = supervisor.PendingSignals()
    hooks = options.hooks_for(settings, verbose=args.verbose)
    pool = options.open_for_build(args, settings)
    claim = acquiring.claim_for(label, settings, supersede=args.supersede)
    watchdog = None
    if not pool.keeps_without_us and settings.on_lost == "kill":
        from ipclock.zookeeper.watchdog import Watchdog

        watchdog = Watchdog()

    def note(pid: int) -> None:
        with suppress(OSError):  # it is only for those who look: the build has started
            pool.note(claim, pid)

    def note_leftovers(fate: str, pids: list[int]) -> None:
        note(pids[0])
        if not args.quiet:
            say(_(LEFT_BEHIND[fate]).format(pids=", ".join(map(str, pids))), at_once=True)

    execute = partial(
        supervisor.run,
        args.command_line,
        signals=signals,
        leftovers=settings.leftovers,
        apart=hooks.sessions if hooks else (),
        on_leftovers=note_leftovers,
    )
    # all that can be done before the wait is: the end of another build waits for the start of this one
    inherited = inherited_environment()
    nested = acquiring.join(pool, claim, args, signals.check)
    if nested and not claim.slot:
        return _end(execute(inherited))
    used = usage.UsageMeter()
    if nested:
        hooks = None  # they and the history tell of the build around it
    else:
        canvas = acquiring.canvas()
        acquiring.take_slot(pool, claim, args, settings, signals.check, hooks, canvas)
        if canvas:
            canvas.lend()
    jobs = max(1, usage.cores() * settings.build_slots // max(1, pool.capacity)) if args.export_jobs else None
    guard = LeaseGuard(pool, claim, settings, lambda: process.descendants_of(os.getpid()), watchdog)

    bear = _Bearing()

    def on_start(pid: int) -> None:
        for begin in (used.begin, guard.begin, note):
            bear(begin, pid)

    def on_tick() -> None:
        bear(guard.tick)
        with suppress(OSError):  # it is only for the history
            used.tick()
            if settings.history and not nested:
                finished.prepare()

    try:
        status = execute(
            build_environment(inherited, pool.name, label, claim.ticket, claim.slot, jobs, claim.token),
            keep_open=pool.beacon(claim),
            on_start=on_start,
            on_tick=on_tick,
            on_reaped=used.reaped,
            tick_s=pool.tick_s,
        )
    except BaseException as error:
        if not used.pid:
            pool.release(claim)
            if hooks:
                outcome = recorder.ENDINGS.get(type(error), "failed")
                hooks.tell_of("release", claim, outcome, getattr(error, "status", None))
            if isinstance(error, CommandFailed) and not nested:
                recorder.never_started(settings, label, pool.capacity, error.status, claim.times)
        # else the build goes on: it has the beacon, and counts until it ends
        raise
    bear(guard.end, status)
    bear(_close_books, pool, claim, settings, used, guard, status, hooks, nested)
    if guard.lost:
        raise SlotLost(label)
    return _end(status)


def _close_books(
    pool: Engine,
    claim: Claim,
    settings: Settings,
    used: usage.UsageMeter,
    guard: LeaseGuard,
    status: int,
    hooks: Hooks | None,
    nested: bool,
) -> None:
    """Give the slot back, and keep and tell what became of the build."""
    starved = used.ran_out_of_memory(status)
    beside = _beside(pool, claim) if starved else []
    claim.evicted = claim.evicted or guard.lost
    pool.release(claim)
    if starved:
        _blame_memory(used.pid, beside)
    outcome = recorder.outcome_of(claim, status, starved=starved)
    if not nested:
        recorder.build_ended(pool, claim, settings, outcome, abs(status), memory=used.memory(), cpu_s=used.cpu_s())
    if hooks:
        hooks.tell_of("release", claim, outcome, abs(status))


class _Bearing:
    """Does things beside a build that has started: what fails is said, once, and never ends us before the build."""

    def __init__(self) -> None:
        self._said: set[str] = set()

    def __call__(self, deed: Callable[..., object], *arguments: object) -> None:
        try:
            deed(*arguments)
        except Exception as error:
            problem = ". ".join(told(error)) if isinstance(error, IpclockError) else str(error)
            if problem not in self._said:
                self._said.add(problem)
                say(_("ipclock: warning: {problem}").format(problem=printable(problem)), at_once=True)


def _require_command(name: str, label: str, settings: Settings) -> None:
    """Raise CommandFailed (126, 127) now, rather than after a wait of ten minutes, for what is not there."""
    try:
        supervisor.look_up(name)
    except CommandFailed as error:
        if settings.history:
            with suppress(IpclockError):  # the pool's, which say nothing of the command
                recorder.never_started(settings, label, options.looker(settings)().capacity, error.status)
        raise


def _beside(pool: Engine, claim: Claim) -> list[str]:
    return [holder.label for holder in pool.snapshot(waiters=False).holders if holder.ticket != claim.ticket]


def _blame_memory(pid: int, beside: list[str]) -> None:
    text = _("ipclock: the kernel ended the build (PID: {pid}) because memory ran out.").format(pid=pid)
    if beside:
        text += " " + _("Beside it ran: {labels}").format(labels=", ".join(beside))
    say(text, at_once=True)


def _end(status: int) -> int:
    if status < 0:
        supervisor.die_of(-status)
    return status if status >= 0 else 128 - status
