"""`ipclock release [TICKET]`: give back a slot that `acquire` has taken."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from ipclock.bounded import LAST_WORD, whole
from ipclock.cli import options
from ipclock.config.environment import held_slot
from ipclock.console import say
from ipclock.display.formatting import pid_of, shown
from ipclock.errors import N_, NoPoolError, NoTicket, NotYours, Unprovable, UsageError
from ipclock.history import recorder
from ipclock.i18n import _
from ipclock.pool import snapshot
from ipclock.pool.wait_context import WaitContext
from ipclock.utf8 import printable

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

    from ipclock.config.settings import Settings
    from ipclock.pool.engine import Engine
    from ipclock.pool.record_name import RecordName

SUMMARY = N_("release a slot acquired with acquire")
EXAMPLES = (
    'ipclock release "$ticket"',
    "ipclock release --now 17",
)


def add_arguments(parser: ArgumentParser) -> None:
    """Add the command's options."""
    help_text = _("release the slot of this ticket (default: $IPCLOCK_TICKET, else the caller's only slot)")
    options.add_ticket(parser, help_text)
    parser.add_argument(
        "--now", action="store_true", help=_("release the slot even if processes of the build still run")
    )
    options.add_quiet(parser)
    options.add_pool_options(parser)


def run(args: Namespace, settings: Settings) -> int:
    """Give the slot back. One that is gone already, with its pool perhaps, is a warning: a trap may run twice.

    A trap may run under a build, too: what has inherited the slot keeps it, unless `--now` says otherwise.
    """
    try:
        return _give_back(args, settings)
    except NoPoolError:
        held = held_slot()
        return _warn(args, args.ticket if args.ticket is not None or held is None else held[1])


def _give_back(args: Namespace, settings: Settings) -> int:
    hooks = options.hooks_for(settings)
    pool = options.open_pool(settings)
    ticket = _ticket(pool) if args.ticket is None else args.ticket
    if str(ticket) == snapshot.NESTED:
        return 0  # the slot is that of a build around the script, which gives it back itself
    if ticket is not None and pool.holds(ticket):
        if not pool.encloses_us(str(ticket)):
            raise _refusal(pool, ticket)
        if not args.now and (kept := pool.kept_by(ticket)):
            if not args.quiet:
                text = _("ipclock: the slot of ticket {ticket} stays held until these processes end: {processes}")
                say(text.format(ticket=ticket, processes=", ".join(map(shown, kept))))
            return 0
        with suppress(NoTicket):  # given back by another process just now
            given_back = pool.evict(WaitContext(options.MUTEX_PATIENCE_S), ticket, nested=False)
            if hooks:
                for one in given_back:
                    hooks.tell("release", one.shown, one.entry, one.times, int(one.pid) if one.pid.isdigit() else None)
            recorder.holds_ended(pool, settings, given_back)
            if given_back and not args.quiet:
                _tell_of_nested(pool, given_back[0].entry)
        return 0
    return _warn(args, ticket, None if ticket is None else pool.ended_with(ticket))


def _warn(args: Namespace, ticket: int | str | None, pid: int | None = None) -> int:
    if not args.quiet:
        if ticket is None:
            text = _("ipclock: warning: no slot to release: pass TICKET or set IPCLOCK_TICKET")
        elif pid is None:
            text = _("ipclock: warning: no slot to release (ticket {ticket})")
        else:
            text = _("ipclock: warning: no slot to release (ticket {ticket}): it ended with process {pid}")
        say(text.format(ticket=printable(str(ticket)), pid=pid))
    return 0


def _tell_of_nested(pool: Engine, given_back: RecordName) -> None:
    inside = [one for one in pool.snapshot(waiters=0).holders if (one.within or one.ticket) == given_back.outer]
    if inside:
        text = _("ipclock: the slot of ticket {ticket} stays held until these processes end: {processes}")
        named = ", ".join(f"{one.label} (PID: {pid_of(one)})" for one in inside)
        say(text.format(ticket=given_back.ticket, processes=named))


def _refusal(pool: Engine, ticket: int) -> NotYours:
    holder = next((one for one in pool.snapshot(waiters=0).holders if one.ticket == ticket), None)
    if holder is None:  # gone meanwhile
        return NotYours(ticket, "?", "?")
    kind = Unprovable if holder.state == "unknown" else NotYours
    return kind(ticket, holder.label, pid_of(holder))


def _ticket(pool: Engine) -> int | None:
    held = held_slot()
    if held and held[0] in ("", pool.name) and (named := whole(held[1], LAST_WORD)) is not None:
        return named
    around = pool.around_us()
    if len(around) > 1:
        text = _("several slots are held; pass one of these tickets: {tickets}")
        raise UsageError(text.format(tickets=" ".join(map(str, around))), "ipclock release")
    return around[0] if around else None
