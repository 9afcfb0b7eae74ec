"""`ipclock plan N`: what another number of slots would have done with the builds of the last days."""

from __future__ import annotations

import gc
import json
import sys
import time
from typing import TYPE_CHECKING

from ipclock.cli import options
from ipclock.config import values
from ipclock.config.settings import checked
from ipclock.console import encodable
from ipclock.display import schema2
from ipclock.display.cells import columns
from ipclock.display.formatting import clock, span
from ipclock.errors import N_, UsageError
from ipclock.history import queries, replay, statistics
from ipclock.history.replay import Plan
from ipclock.i18n import _
from ipclock.linux import memory

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

    from ipclock.config.settings import Settings
    from ipclock.history.replay import Arrival, Figures
    from ipclock.history.statistics import Past

SUMMARY = N_("estimate waits and slot utilization for other numbers of slots")
EXAMPLES = (
    "ipclock plan",
    "ipclock plan 2 3 4 --since 30d",
)
MOST = 100_000  # builds, the last ones: so that an answer takes no longer however long the past


def add_arguments(parser: ArgumentParser) -> None:
    """Add the command's options."""
    parser.add_argument("slots", metavar="N", nargs="*", type=_slots, help=_("numbers of slots (default: one more)"))
    options.add_since(parser)
    parser.add_argument("--label", metavar="LABEL", help=_("show only the waits of this label"))
    parser.add_argument("--json", action="store_true", help=_("print JSON of schema 2"))
    options.add_pool_options(parser)


def _slots(text: str) -> int:
    return checked(values.slots, text, "N")


def run(args: Namespace, settings: Settings) -> int:
    """Print the plan on stdout."""
    if settings.history is None:
        raise UsageError(_("no history is kept (HISTORY=off)"), "ipclock plan")
    gc.disable()  # none of the objects of 100,000 builds refers to itself: looking for such takes a third of the time
    now = time.time()
    label = None if args.label is None else checked(values.label, args.label, "--label")
    options.require_pool_or_past(settings)
    past, arrivals = queries.arrivals(settings.history, settings.pool_name, args.since, now, MOST)
    plan = _plan(past, arrivals, label, args.slots, settings)
    if args.json:
        print(json.dumps(schema2.plan(plan), indent=2))
    else:
        for line in text_lines(plan):
            print(encodable(line, sys.stdout) if sys.stdout else line)
    return 0


def _plan(past: Past, arrivals: list[Arrival], label: str | None, asked: list[int], settings: Settings) -> Plan:
    slots = _slots_today(past, settings)
    builds = sum(label in (None, build.label) for build in arrivals)
    ram = _total_memory() if any(build.memory for build in arrivals) else None
    plan = Plan(
        settings.pool_name,
        label,
        past.begin,
        past.end,
        builds,
        slots,
        changed=any(number != slots for _when, number in past.capacities),
        memory=ram,
        actual=None,
        replays={},
    )
    if builds < replay.FEWEST:
        return plan
    per_label = settings.max_per_label or 0
    holds = settings.memory is not None or settings.min_free_memory is not None
    jobs = replay.jobs_of(arrivals, per_label)
    figures = {}
    for number in sorted({slots, *(asked or [slots + 1])} - {0}):
        pool = replay.Pool(number, per_label, ram, holds)
        figures[number] = replay.figures(jobs, replay.replay(jobs, pool), pool, past.begin, past.end, label)
    actual = replay.recorded(arrivals, statistics.available(past), past.begin, past.end, label)
    return plan._replace(actual=actual, replays=figures)


def _slots_today(past: Past, settings: Settings) -> int:
    now = options.looker(settings)()
    # a pool that went with a boot had as many as its last build saw
    return now.capacity if now.folder or settings.engine or not past.capacities else past.capacities[-1][1]


def _total_memory() -> int | None:
    try:
        return memory.total()
    except OSError:  # no /proc
        return None


def text_lines(plan: Plan) -> list[str]:
    """Return the plan as lines for people."""
    since = clock(plan.begin)[:-3]
    if plan.actual is None:
        text = _("too few builds since {since}: {builds}, at least {fewest} are needed")
        return [text.format(since=since, builds=plan.builds, fewest=replay.FEWEST)]
    text = _("since {since}: {builds} builds, slots today: {slots}")
    lines = [text.format(since=since, builds=plan.builds, slots=plan.slots)]
    rows = [[_("slots"), _("wait: mean"), "p90", _("longest"), _("in use"), _("gave up"), _("memory short")]]
    rows.append([_("as recorded"), *_cells(plan.actual)])
    for number, figures in plan.replays.items():
        name = _("{slots} (today)") if number == plan.slots else "{slots}"
        rows.append([name.format(slots=number), *_cells(figures)])
    widths = [max(map(columns, column)) for column in zip(*rows, strict=True)]
    for first, *others in rows:
        padded = [" " * (width - columns(cell)) + cell for width, cell in zip(widths[1:], others, strict=True)]
        lines.append("  ".join([first + " " * (widths[0] - columns(first)), *padded]))
    return lines + _notes(plan, plan.actual)


def _cells(figures: Figures) -> list[str]:
    return [
        *(span(value) for value in (figures.mean_s, figures.p90_s, figures.longest_s)),
        "-" if figures.in_use is None else f"{100 * figures.in_use:.0f} %",
        str(figures.gave_up),
        "-" if figures.short is None else str(figures.short),
    ]


def _notes(plan: Plan, actual: Figures) -> list[str]:
    """Return what is to be known about the figures, a line each."""
    notes = []
    if today := plan.replays.get(plan.slots):
        text = _("error of the replay with {slots} slots: mean {mean}, p90 {p90}")
        apart = {"mean": today.mean_s - actual.mean_s, "p90": today.p90_s - actual.p90_s}
        signed = {key: ("-" if value < 0 else "+") + span(abs(value)) for key, value in apart.items()}
        notes.append(text.format(slots=plan.slots, **signed))
    if plan.changed:
        notes.append(_("the number of slots changed within this time"))
    if actual.gave_up:
        text = _("builds that gave up: {count}; if admitted, they take the median time of their label")
        notes.append(text.format(count=actual.gave_up))
    notes += [
        _("builds that need more than {slots} slots, left out: {count}").format(slots=number, count=one.too_large)
        for number, one in plan.replays.items()
        if one.too_large
    ]
    notes.append(_("build times as recorded: more builds at once may make each slower"))
    notes.append(_("not recorded: time limits, priorities, drains, label limits of single builds"))
    return notes
