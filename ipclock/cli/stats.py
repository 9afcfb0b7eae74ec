"""`ipclock stats`: what the builds of the last days amount to."""

from __future__ import annotations

import json
import os
import sys
import time
from typing import TYPE_CHECKING, Any

from ipclock.cli import options, output_file
from ipclock.config import values
from ipclock.config.environment import language
from ipclock.config.settings import checked
from ipclock.console import encodable
from ipclock.display import cells, schema2, status_table
from ipclock.display.formatting import iso, size, span
from ipclock.errors import N_, UsageError
from ipclock.history import queries, statistics
from ipclock.i18n import _
from ipclock.linux import memory
from ipclock.utf8 import printable

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

    from ipclock.config.settings import Settings
    from ipclock.history.statistics import Past, Report, Spread, Summary

SUMMARY = N_("show slot utilization, wait times and build times")
EXAMPLES = (
    "ipclock stats",
    "ipclock stats --since 30d --label staging",
    "ipclock stats --html builds.html",
)
SCHEMA = 1
LABEL_WIDTH = 30
NARROW_LABEL = 20  # so much of a label stays before columns are left out
# what a narrow terminal leaves out, the first first, by group and name
LEFT_OUT = (
    *(("wait", "p99"), ("build", "p99"), ("wait", "p50"), ("build", "p50"), ("memory", "p50")),
    *(("build", "p90"), ("wait", "p90"), ("memory", "p90"), ("", "failed")),
)


def add_arguments(parser: ArgumentParser) -> None:
    """Add the command's options."""
    options.add_since(parser)
    parser.add_argument("--label", metavar="LABEL", help=_("show only builds of this label"))
    form = parser.add_mutually_exclusive_group()
    options.add_json(form)
    form.add_argument("--html", metavar="FILE", help=_("write a page with charts to FILE (- for stdout)"))
    parser.add_argument("--wide", action="store_true", help=_("print all columns, however narrow the terminal"))
    options.add_pool_options(parser)


def run(args: Namespace, settings: Settings) -> int:
    """Print the pool's past in numbers on stdout."""
    if settings.history is None:
        raise UsageError(_("no history is kept (HISTORY=off)"), "ipclock stats")
    now = time.time()
    label = None if args.label is None else checked(values.label, args.label, "--label")
    options.require_pool_or_past(settings)
    past = queries.read(settings.history, settings.pool_name, args.since, now, label)
    report = statistics.report(past, _total_memory())
    if args.html is not None:
        page = _page(settings.history, settings.pool_name, label, past, report).encode()
        if args.html != "-":
            output_file.write(args.html, page)
        elif sys.stdout:
            sys.stdout.buffer.write(page)
    elif args.json:
        render = schema2.past if args.json == "2" else as_json
        print(json.dumps(render(past, report, settings.pool_name), indent=2))
    else:
        narrow = status_table.is_terminal() and not args.wide
        room = os.get_terminal_size(sys.stdout.fileno()).columns if narrow else 0
        for line in text_lines(past, report, room):
            print(encodable(line, sys.stdout) if sys.stdout else line)
    return 0


def _page(path: str, pool: str, label: str | None, past: Past, report: Report) -> str:
    from ipclock.display.html import page, timeline

    recent = queries.recent(path, pool, past.begin, label, page.MOST_ROWS, timeline.grid(past.begin, past.end))
    return page.render(page.View(pool, label, language()), past, report, recent)


def _total_memory() -> int | None:
    try:
        return memory.total()
    except OSError:  # no /proc
        return None


def as_json(past: Past, report: Report, pool: str) -> dict[str, Any]:
    """Return the report as plain values; times as ISO 8601 with the local offset, spans in seconds, memory in bytes."""

    def plain(summary: Summary) -> dict[str, Any]:
        fields = summary._asdict() | {"failed": summary.failed, "timed_out": summary.timed_out}
        return {
            key: value._asdict() if isinstance(value, statistics.Spread) else value for key, value in fields.items()
        }

    return {
        "schema": SCHEMA,
        "name": pool,
        "since": iso(past.begin),
        "until": iso(past.end),
        **report._asdict(),
        "in_use": report.in_use,
        "all": plain(report.all),
        "labels": [plain(summary) for summary in report.labels],
    }


def text_lines(past: Past, report: Report, room: int = 0) -> list[str]:
    """Return the report as lines for people, of at most *room* cells; 0: as wide as they are."""
    since = time.strftime("%Y-%m-%d %H:%M", time.localtime(past.begin))
    if not report.all.builds:
        return _folded([_("no build has ended since {since}").format(since=since)], room)
    text = _("since {since}: {builds} builds, slots in use {share} of the time")
    first = text.format(since=since, builds=report.all.builds, share=_percent(report.in_use or 0))
    rows = [_cells(summary) for summary in report.labels]
    if len(report.labels) > 1:
        rows.append(_cells(report.all))
    last = []
    if report.fits is not None and report.total_memory and report.all.memory:
        text = _("memory fits {builds} concurrent builds: {total} / {each} (9 of 10 builds need less)")
        sizes = {"total": size(report.total_memory), "each": size(report.all.memory.p90)}
        last.append(text.format(builds=report.fits, **sizes))
    return [*_folded([first], room), *_table(rows, room), *_folded(last, room)]


def _folded(lines: list[str], room: int) -> list[str]:
    return [part for line in lines for part in cells.wrapped(line, room)] if room else lines


def _table(rows: list[list[str]], room: int) -> list[str]:
    """Return the rows below their heads, without the columns that have no room."""
    shown = list(range(len(_columns())))
    out = [_columns().index(column) for column in LEFT_OUT]
    while True:
        heads = _heads(shown)
        table = [heads, *([row[number] for number in shown] for row in rows)]
        widths = [max(map(cells.columns, column)) for column in zip(*table, strict=True)]
        others = sum(widths[1:]) + 2 * len(widths[1:])
        if not room or not out or others + min(widths[0], NARROW_LABEL) <= room:
            break
        shown.remove(out.pop(0))
    if room:
        widths[0] = max(1, min(widths[0], room - others))
    lines = [
        "  ".join([cells.left(cells.shortened(label, widths[0]), widths[0]), *map(cells.right, figures, widths[1:])])
        for label, *figures in table
    ]
    if room and (left_out := len(_columns()) - len(shown)):
        lines += _folded([_("columns left out: {count}; --wide shows all").format(count=left_out)], room)
    return lines


def _columns() -> list[tuple[str, str]]:
    """Return the columns, each with the group that it belongs to, by the names that LEFT_OUT has for them."""
    spread = ("mean", "p50", "p90", "p99")
    groups = [("wait", spread), ("build", spread), ("memory", ("p50", "p90"))]
    alone = [("", name) for name in ("label", "builds", "failed", "timed out")]
    return alone + [(group, name) for group, names in groups for name in names]


def _heads(shown: list[int]) -> list[str]:
    """Return the heads of these columns: the first of a group names it."""
    groups = {"wait": _("wait: {what}"), "build": _("build: {what}"), "memory": _("memory: {what}")}
    names = {
        "label": _("label"),
        "builds": _("builds"),
        "failed": _("failed"),
        "timed out": _("timed out"),
        "mean": _("mean"),
    }
    heads = []
    for number in shown:
        group, name = _columns()[number]
        heads.append(groups.pop(group, "{what}").format(what=names.get(name, name)))
    return heads


def _cells(summary: Summary) -> list[str]:
    def counted(count: int) -> str:
        return f"{count} ({_percent(count / summary.builds)})" if count else "0"

    def spans(spread: Spread | None) -> list[str]:
        return [span(value) for value in spread] if spread else ["-"] * 4

    return [
        cells.shortened(printable(summary.label), LABEL_WIDTH) or _("all"),
        str(summary.builds),
        counted(summary.failed),
        counted(summary.timed_out),
        *spans(summary.waited_s),
        *spans(summary.held_s),
        *([size(summary.memory.p50), size(summary.memory.p90)] if summary.memory else ["-"] * 2),
    ]


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"
