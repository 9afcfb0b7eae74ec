"""What is known of a pool, in words for people: spans, sizes, states, estimates."""

from __future__ import annotations

import time

from ipclock._typing import TYPE_CHECKING
from ipclock.display.cells import cut
from ipclock.errors import N_
from ipclock.history import simulation
from ipclock.i18n import _
from ipclock.linux.process import user_name
from ipclock.linux.process_view import command_of
from ipclock.utf8 import printable

if TYPE_CHECKING:
    from ipclock.display.estimates import Activity
    from ipclock.history.simulation import Range
    from ipclock.pool.snapshot import Holder, Snapshot

COMMAND_WIDTH = 40
OUTCOMES = {
    "done": N_("done"),
    "failed": N_("failed"),
    "signal": N_("killed by a signal"),
    "oom": N_("out of memory"),
    "evicted": N_("slot released by force"),
    "orphaned": N_("orphaned"),
    "timeout": N_("timed out"),
    "busy": N_("no free slot"),
    "interrupted": N_("interrupted"),
    "superseded": N_("superseded"),
    "cancelled": N_("cancelled"),
}


def shown(pid: int) -> str:
    """Return a process by its command line, or the head of it, and its PID."""
    command = cut(printable(command_of(pid)), COMMAND_WIDTH)
    # gone meanwhile, or another user's under hidepid: the PID alone
    return f"{command} (PID: {pid})" if command else f"PID: {pid}"


def span(seconds: float) -> str:
    """Return a length of time in words: "40 s", "12 min", "3 h 5 min"."""
    whole = int(seconds)
    if whole < 60:
        return _("{seconds} s").format(seconds=whole)
    if whole < 3600:
        return _("{minutes} min").format(minutes=whole // 60)
    return _("{hours} h {minutes} min").format(hours=whole // 3600, minutes=whole % 3600 // 60)


def clock(when: float | None) -> str:
    """Return a moment as local date and time, "?" where it is not known."""
    return "?" if when is None else time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(when))


def of_usual(held_s: float, usual_s: float | None) -> list[str]:
    """Return how far along a build is, by what its label usually takes."""
    if not usual_s:
        return []
    percent = f"{min(999.0, 100 * held_s / usual_s):.0f}"
    return [_("{percent} % of the usual {span}").format(percent=percent, span=span(usual_s))]


def pid_of(holder: Holder) -> str:
    """Return the PID to show for a holder: the build's own where it is known."""
    return str(holder.command_pid or holder.pid or "?")


def not_heeded(pool: str, capacity: int, wanted: int, owner: int) -> str:
    """Return why a pool keeps its number of slots, which its *owner* (uid) says, though we want another one."""
    text = _("slots of {pool}: {now}, as set by its owner {owner}, not {wanted}")
    return text.format(pool=pool, now=capacity, owner=user_name(owner), wanted=wanted)


def unlisted(pool: Snapshot) -> str:
    """Return what is known of the builds that only their locks tell of."""
    text = _("slots held by locks without a record here: {units} (PIDs: {pids})")
    return text.format(units=pool.unlisted, pids=", ".join(map(str, pool.unlisted_pids)) or "?")


def outcome(name: str, code: int | None) -> str:
    """Return how a build ended, in words, with its exit status or the number of its signal."""
    word = _(OUTCOMES[name]) if name in OUTCOMES else printable(name)
    return f"{word} ({code})" if code else word


def size(count: float) -> str:
    """Return an amount of memory in words: "2.1 GB", "340 MB"."""
    return f"{count / 2**30:.1f} GB" if count >= 2**30 else f"{count / 2**20:.0f} MB"


def estimate(left: Range | None) -> str:
    """Return how much longer a wait lasts, in words that claim no more than is known; "" where nothing is."""
    if left is None:
        return ""
    how, low, high = simulation.rounded(left)
    ends = {"low": _length(low), "high": _length(high), "middle": _length((low + high) / 2)}
    texts = {
        "soon": _("starting soon"),
        "about": _("starting in about {middle}"),
        "at most": _("starting within {high}"),
        "between": _("starting in {low} to {high}"),
    }
    return texts[how].format(**ends)


def _length(seconds: float) -> str:
    return _("{seconds} s").format(seconds=f"{seconds:.0f}") if seconds < 120 else span(seconds)


def activity_of(activity: Activity | None) -> list[str]:
    """Return what a build uses now, in words."""
    if activity is None:
        return []
    cpu = [] if activity.percent is None else [_("CPU {percent} %").format(percent=f"{activity.percent:.0f}")]
    return [*cpu, size(activity.memory)]


def state_of(holder: Holder) -> list[str]:
    """Return what is unusual about a holder, in a word."""
    words = {
        "stopped": _("stopped"),
        "orphaned": _("orphaned"),
        "unknown": _("not visible from here"),
        "doubtful": _("doubtful"),
    }
    return [words[holder.state]] if holder.state in words else []


def drained(snapshot: Snapshot) -> str:
    """Return on whose word no build is started, why, and until when."""
    if snapshot.drain is None:
        return _("drained: MAX_PARALLEL_BUILDS=0")
    parts = [_("drained")]
    if snapshot.drain.uid is not None:
        parts[0] = _("drained by {user}").format(user=user_name(snapshot.drain.uid))
    if snapshot.drain.until is not None:
        end = time.localtime(time.time() + snapshot.drain.until - time.monotonic())
        today = time.strftime("%Y-%m-%d", end) == time.strftime("%Y-%m-%d")
        parts[0] += _(" until {time}").format(time=time.strftime("%H:%M" if today else "%Y-%m-%d %H:%M", end))
    return ": ".join(parts + [printable(snapshot.drain.reason)] * bool(snapshot.drain.reason))


def resized(snapshot: Snapshot) -> str:
    """Return who has changed N under those who are there, and when; "" if N was not changed."""
    found = snapshot.resized
    since = [holder.since for holder in snapshot.holders] + [waiter.since for waiter in snapshot.waiters]
    if found is None or not any(when and when < found.at for when in since):
        return ""
    text = _("slots: {now} since {time}, set by {user} (before: {before})")
    return text.format(now=found.capacity, time=clock(found.at), user=user_name(found.uid), before=found.before)


def gigabytes(size: int) -> str:
    """Return an amount of memory in GB, without the unit."""
    return f"{max(0, size) / 2**30:.1f}"


def iso(when: float | None) -> str | None:
    """Return a moment as ISO 8601 with the local offset, None for None."""
    from datetime import datetime  # for JSON alone

    return None if when is None else datetime.fromtimestamp(when).astimezone().isoformat(timespec="seconds")
