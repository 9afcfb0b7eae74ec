"""`ipclock status`: who builds, who waits."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Any

from ipclock import commands, process, progress, snapshot
from ipclock.errors import N_, NoPool
from ipclock.messages import _
from ipclock.progress import pid_of, span
from ipclock.records import Store

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

    from ipclock.config import Settings
    from ipclock.snapshot import Holder, Snapshot, Waiter

SUMMARY = N_("show who builds and who waits")
SCHEMA = 1


def add_arguments(parser: ArgumentParser) -> None:
    """Add the command's options."""
    parser.add_argument("--json", action="store_true", help=_("print JSON"))
    commands.add_pool_options(parser)


def run(args: Namespace, settings: Settings) -> int:
    """Print the pool's state on stdout."""
    try:
        store = Store.open(settings.lock_dir, settings.semaphore_name[1:], create=False)
    except NoPool:
        now = snapshot.empty(settings.semaphore_name, settings.max_parallel_builds or 1)
    else:
        now = snapshot.take(store, settings.semaphore_name)
        store.close()
    if args.json:
        import json

        print(json.dumps(as_json(now), indent=2))
    else:
        for line in text_lines(now):
            print(progress.encodable(line, sys.stdout) if sys.stdout else line)
    return 0


def as_json(now: Snapshot) -> dict[str, Any]:
    """Return the snapshot as plain values; `since` as ISO 8601 with the local offset."""

    def plain(row: Any) -> dict[str, Any]:
        values: dict[str, Any] = row._asdict()
        if values["since"] is not None:
            values["since"] = _iso(values["since"])
        return values

    def plain_holder(holder: Holder) -> dict[str, Any]:
        return {**plain(holder), "processes": [process._asdict() for process in holder.processes]}

    drain = now.drain and {
        "reason": now.drain.reason,
        "user": None if now.drain.uid is None else process.user_name(now.drain.uid),
        "until": None if now.drain.until is None else _iso(time.time() + now.drain.until - time.monotonic()),
    }
    return {
        "schema": SCHEMA,
        **now._asdict(),
        "drain": drain,
        "holders": [plain_holder(holder) for holder in now.holders],
        "waiters": [plain(waiter) for waiter in now.waiters],
    }


def _iso(when: float) -> str:
    from datetime import datetime

    return datetime.fromtimestamp(when).astimezone().isoformat(timespec="seconds")


def text_lines(now: Snapshot) -> list[str]:
    """Return the snapshot as lines for people."""
    counts = {"held": now.taken, "capacity": now.capacity}
    if now.holders:
        lines = [_("⏳ builds running: {held}/{capacity}").format(**counts)]
    else:
        lines = [_("✓ no build is running ({held}/{capacity})").format(**counts)]
    if now.drained:
        lines.append(f"  {progress.drained(now)}")
    lines += [_holder_line(holder) for holder in now.holders]
    for holder in now.holders:
        lines += [f"      {row.pid}  {span(row.age_s)}  {snapshot.printable(row.command)}" for row in holder.processes]
    if now.waiters:
        lines.append(_("⏳ builds waiting: {count}").format(count=len(now.waiters)))
    lines += [
        f"  {waiter.position}. [{_clock(waiter.since)}] {waiter.label} (PID: {waiter.pid or '?'})"
        + _(" waiting for {span}").format(span=span(waiter.waited_s or 0))
        + _asks(waiter)
        for waiter in now.waiters
    ]
    return lines


def _holder_line(holder: Holder) -> str:
    notes = {
        "running": "",
        "stopped": _(" stopped"),
        "orphaned": _(" orphaned: its ipclock was killed, these processes go on"),
        "unknown": _(" unknown: its process cannot be seen from here"),
    }
    return f"  - [{_clock(holder.since)}] {holder.label} (PID: {pid_of(holder)}){notes[holder.state]}"


def _asks(waiter: Waiter) -> str:
    parts = [_("{slots} slots").format(slots=waiter.slots)] if waiter.slots > 1 else []
    parts += [_("priority {priority}").format(priority=waiter.priority)] if waiter.priority else []
    if waiter.held_back:
        parts.append({"label": _("its label runs"), "size": _("the pool is too small")}[waiter.held_back])
    return f" ({', '.join(parts)})" if parts else ""


def _clock(when: float | None) -> str:
    return "?" if when is None else time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(when))
