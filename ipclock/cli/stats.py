"""`ipclock stats`: what the builds of the last days amount to."""

from __future__ import annotations

import json
import sys
import time
from typing import TYPE_CHECKING, Any

from ipclock.cli import options, output_file
from ipclock.config import values
from ipclock.config.environment import language
from ipclock.config.settings import checked
from ipclock.console import encodable
from ipclock.display import schema2
from ipclock.display.formatting import columns, cut, iso, size, span
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
SCHEMA = 1
LABEL_WIDTH = 30


def add_arguments(parser: ArgumentParser) -> None:
    """Add the command's options."""
    options.add_since(parser)
    parser.add_argument("--label", metavar="LABEL", help=_("show only builds of this label"))
    form = parser.add_mutually_exclusive_group()
    options.add_json(form)
    form.add_argument("--html", metavar="FILE", help=_("write a page with charts to FILE (- for stdout)"))
    options.add_pool_options(parser)


def run(args: Namespace, settings: Settings) -> int:
    """Print the pool's past in numbers on stdout."""
    if settings.history is None:
        raise UsageError(_("no history is kept (HISTORY=off)"), "ipclock stats")
    now = time.time()
    label = None if args.label is None else checked(values.label, args.label, "--label")
    begin = max(0.0, now - args.since)
    options.require_pool_or_past(settings)
    past = queries.read(settings.history, settings.pool_name, begin, now, label)
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
        for line in text_lines(past, report):
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


def text_lines(past: Past, report: Report) -> list[str]:
    """Return the report as lines for people."""
    since = time.strftime("%Y-%m-%d %H:%M", time.localtime(past.begin))
    if not report.all.builds:
        return [_("no build has ended since {since}").format(since=since)]
    text = _("since {since}: {builds} builds, slots in use {share} of the time")
    lines = [text.format(since=since, builds=report.all.builds, share=_percent(report.in_use or 0))]
    rows = [_heads()] + [_cells(summary) for summary in report.labels]
    if len(report.labels) > 1:
        rows.append(_cells(report.all))
    widths = [max(map(columns, column)) for column in zip(*rows, strict=True)]
    for first, *others in rows:
        padded = [" " * (width - columns(cell)) + cell for width, cell in zip(widths[1:], others, strict=True)]
        lines.append("  ".join([first + " " * (widths[0] - columns(first)), *padded]))
    if report.fits is not None and report.total_memory and report.all.memory:
        text = _("memory fits {builds} concurrent builds: {total} / {each} (9 of 10 builds need less)")
        sizes = {"total": size(report.total_memory), "each": size(report.all.memory.p90)}
        lines.append(text.format(builds=report.fits, **sizes))
    return lines


def _heads() -> list[str]:
    each = ["p50", "p90", "p99"]
    wait, build, memory = _("wait: mean"), _("build: mean"), _("memory: p50")
    return [_("label"), _("builds"), _("failed"), _("timed out"), wait, *each, build, *each, memory, "p90"]


def _cells(summary: Summary) -> list[str]:
    def counted(count: int) -> str:
        return f"{count} ({_percent(count / summary.builds)})" if count else "0"

    def spans(spread: Spread | None) -> list[str]:
        return [span(value) for value in spread] if spread else ["-"] * 4

    return [
        cut(printable(summary.label), LABEL_WIDTH) or _("all"),
        str(summary.builds),
        counted(summary.failed),
        counted(summary.timed_out),
        *spans(summary.waited_s),
        *spans(summary.held_s),
        *([size(summary.memory.p50), size(summary.memory.p90)] if summary.memory else ["-"] * 2),
    ]


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"
