"""`ipclock status`: the builds that run, and those that wait."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Any

from ipclock.cli import options
from ipclock.console import encodable
from ipclock.display import status_table
from ipclock.display.estimates import Estimator
from ipclock.display.formatting import iso
from ipclock.errors import N_, UsageError
from ipclock.i18n import _
from ipclock.linux import process, process_view

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

    from ipclock.config.settings import Settings
    from ipclock.display.estimates import Standing
    from ipclock.pool.snapshot import Holder, Waiter

SUMMARY = N_("show running and waiting builds")
EXAMPLES = (
    "ipclock status",
    "ipclock status --watch",
    "ipclock status --json=2",
)
SCHEMA = 1
LOOK_S = 0.25  # between two looks at what a build uses


def add_arguments(parser: ArgumentParser) -> None:
    """Add the command's options."""
    options.add_json(parser)
    parser.add_argument("--watch", action="store_true", help=_("refresh every second until q is typed"))
    options.add_color(parser)
    options.add_pool_options(parser)


def run(args: Namespace, settings: Settings) -> int:
    """Print the pool's state on stdout."""
    if args.watch and (args.json or not status_table.is_terminal()):
        raise UsageError(_("--watch needs a terminal"), "ipclock status")
    options.require_pool(settings)
    outlook = Estimator(settings.history)
    look = options.looker(settings)
    if args.watch:
        status_table.watch(lambda: outlook.on(look()))
        return 0
    now = outlook.on(look())
    # of an engine's the look has raised it already
    made = bool(settings.engine) or now.pool.folder is not None
    if args.json:
        import json

        from ipclock.display import schema2

        shown = schema2.pool(now, made=made) if args.json == "2" else as_json(now) | {"made": made}
        print(json.dumps(shown, indent=2))
        return 0
    if status_table.is_terminal() and now.uses:
        time.sleep(LOOK_S)  # a share of a processor is the difference of two looks
        now = outlook.on(look())
    status_table.show(now)
    if not made:
        text = _("  no pool yet: 'ipclock init' or the first build creates it")
        print(encodable(text, sys.stdout) if sys.stdout else text)
    return 0


def as_json(now: Standing) -> dict[str, Any]:
    """Return the pool as plain values; `since` as ISO 8601 with the local offset, memory in bytes."""
    pool = now.pool

    def plain(client: Holder | Waiter) -> dict[str, Any]:
        found = client._asdict()
        del found["origin"]  # schema 2 has it
        return found

    def plain_holder(holder: Holder) -> dict[str, Any]:
        use = now.uses.get(holder.ticket)
        pid = holder.here and (holder.command_pid or holder.pid)
        return {
            **plain(holder),
            "since": iso(holder.since),
            "processes": [process._asdict() for process in holder.processes],
            "command": process_view.command_of(pid)
            if holder.here and (pid := holder.command_pid or holder.pid)
            else "",
            "cpu_s": use and use.cpu_s,
            "memory": use and use.memory,
            "usual_s": now.usual.get(holder.label),
        }

    def plain_waiter(waiter: Waiter) -> dict[str, Any]:
        left = now.waits.get(waiter.ticket)
        return {**plain(waiter), "since": iso(waiter.since), "left_s": left and list(left)}

    drain = pool.drain and {
        "reason": pool.drain.reason,
        "user": None if pool.drain.uid is None else process.user_name(pool.drain.uid),
        "until": pool.drain.until and iso(time.time() + pool.drain.until - time.monotonic()),
    }
    resized = pool.resized and {
        "before": pool.resized.before,
        "user": process.user_name(pool.resized.uid),
        "at": iso(pool.resized.at),
    }
    facts = pool._asdict()
    del facts["own"], facts["fair"]  # a waiter's own business; no key of schema 1
    return {
        "schema": SCHEMA,
        **facts,
        "drain": drain,
        "resized": resized,
        "holders": [plain_holder(holder) for holder in pool.holders],
        "waiters": [plain_waiter(waiter) for waiter in pool.waiters],
    }
