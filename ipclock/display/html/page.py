"""A pool's past as one HTML page that stands alone: no script, no other file, nothing that is loaded from elsewhere.

Pure. Bounded: at most MOST_ROWS builds are drawn and MOST_LABELS labels told, and the page says of how many.
Measured: 14 KB with one build, 340 KB with MOST_ROWS, be it of a million. The drawings are made by hand, because a
plotting library that inlines itself makes a page of more than 3 MB.
"""

from __future__ import annotations

import time
from html import escape
from importlib.resources import files
from string import Template
from typing import TYPE_CHECKING, NamedTuple
from xml.etree.ElementTree import Element, tostring

from ipclock import __version__
from ipclock.display.formatting import size, span
from ipclock.display.html import svg, timeline
from ipclock.display.html.svg import add, brief, facts, moment
from ipclock.history import statistics
from ipclock.i18n import _
from ipclock.utf8 import printable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ipclock.history.finished import Row
    from ipclock.history.queries import Recent
    from ipclock.history.statistics import Past, Report, Spread, Summary

MOST_ROWS = 400
MOST_LABELS = 40


class View(NamedTuple):
    """What the page is about, and in which language: the pool, and one label or None for all."""

    pool: str
    label: str | None
    language: str


def render(view: View, past: Past, report: Report, recent: Recent) -> str:
    """Return the page."""
    body = Element("body")
    _header(body, view, past)
    if report.all.builds:
        _key_figures(body, report)
        _timeline(body, report, recent.rows)
        _waits(body, recent)
        _spreads(body, past, report)
        _figures(body, report)
        _in_words(body, recent.rows)
    else:
        add(body, "p", _("no build has ended since {since}").format(since=_minute(past.begin)), class_="empty")
    add(body, "footer", _("written by ipclock {version}, {when}").format(version=__version__, when=moment(past.end)))
    template = Template(files("ipclock.display.html").joinpath("page.html").read_text("utf-8"))
    title = f"{_('Build slots')} {printable(view.pool)}"
    return template.substitute(lang=view.language, title=escape(title), body=tostring(body, "unicode", "html"))


def _header(body: Element, view: View, past: Past) -> None:
    header = add(body, "header")
    add(add(header, "h1", _("Build slots") + " "), "bdi", printable(view.pool))
    until = time.strftime("%Y-%m-%d %H:%M %z", time.localtime(past.end))
    add(header, "p", f"{_minute(past.begin)} – {until}")
    if view.label is not None:
        add(add(header, "p", _("only builds of this label") + ": "), "bdi", printable(view.label))


def _section(body: Element, heading: str, note: str) -> Element:
    section = add(body, "section")
    add(section, "h2", heading)
    add(section, "p", note, class_="note")
    return section


def _key_figures(body: Element, report: Report) -> None:
    key = add(body, "dl", class_="key")

    def figure(name: str, value: str, more: str) -> None:
        row = add(key, "div")
        add(row, "dt", name)
        add(row, "dd", value)
        add(row, "dd", more)

    whole = report.all
    figure(_("builds"), f"{whole.builds:,}", _("labels: {count}").format(count=f"{len(report.labels):,}"))
    figure(_("slots in use"), _percent(report.in_use or 0), _("of the time"))
    figure(_("failed"), f"{whole.failed:,}", _percent(whole.failed / whole.builds))
    figure(_("timed out"), f"{whole.timed_out:,}", _percent(whole.timed_out / whole.builds))
    for name, spread in ((_("wait, median"), whole.waited_s), (_("build, median"), whole.held_s)):
        if spread:
            figure(name, span(spread.p50), _("p90: {span}").format(span=span(spread.p90)))
    if report.fits is not None and report.total_memory and whole.memory:
        sizes = f"{size(report.total_memory)} / {size(whole.memory.p90)}"
        figure(_("fit in memory"), f"{report.fits:,}", sizes)


def _timeline(body: Element, report: Report, rows: Sequence[Row]) -> None:
    strips = timeline.strips(rows)
    shown = sum(row.ended >= strips[0].begin for row in rows) if strips else 0
    drawn = _("The last {shown} of {builds}.").format(shown=f"{shown:,}", builds=f"{report.all.builds:,}")
    how = _(
        "Each lane is a slot, each bar a build that held it. A line below is a wait; it ends at the bar of its build."
    )
    section = _section(body, _("Builds by slot"), f"{drawn} {how}")
    svg.legend(section, rows)
    before = timeline.before(rows)
    for strip in strips:
        svg.strip(section, strip, before)


def _waits(body: Element, recent: Recent) -> None:
    note = _("Each bar covers {span}: the mean (strong) and the longest (faint) of the waits that ended in it.")
    section = _section(body, _("How long builds waited"), note.format(span=brief(recent.grid.step_s)))
    if max(one.longest_s for one in recent.bins) < 1:
        add(section, "p", _("No build waited for a second or longer."))
    else:
        svg.waits(section, recent)


def _spreads(body: Element, past: Past, report: Report) -> None:
    boxes = statistics.boxes(past)
    shown = [(summary.label, boxes[summary.label]) for summary in report.labels[:MOST_LABELS] if summary.label in boxes]
    if shown:
        note = _("Successful builds only. The mark is the median, the box the middle 50 %, the line 90 %.")
        section = _section(body, _("How long builds take"), note)
        svg.spreads(section, shown)
        _more_labels(section, report)


def _figures(body: Element, report: Report) -> None:
    note = _("p90: 90 % of the values are lower. Build times are those of successful builds.")
    section = _section(body, _("In numbers"), note)
    plain = [_("label"), _("builds"), _("failed"), _("timed out")]
    each = [_("mean"), "p50", "p90", "p99"]
    groups = [(_("wait"), each), (_("build"), each), (_("memory"), each[1:3])]
    table = add(section, "table")
    head = add(table, "thead")
    upper, lower = add(head, "tr"), add(head, "tr")
    for name in plain:
        add(upper, "th", name, rowspan=2, scope="col")
    for name, parts in groups:
        add(upper, "th", name, colspan=len(parts), scope="colgroup")
        for part in parts:
            add(lower, "th", part, scope="col")
    heads = plain[1:] + [f"{name} {part}" for name, parts in groups for part in parts]
    rows = add(table, "tbody")
    for summary in report.labels[:MOST_LABELS]:
        _figures_row(add(rows, "tr"), printable(summary.label), summary, heads)
    if len(report.labels) > 1:
        _figures_row(add(rows, "tr", class_="all"), _("all"), report.all, heads)
    _more_labels(section, report)


def _figures_row(row: Element, name: str, summary: Summary, heads: Sequence[str]) -> None:
    def counted(count: int) -> str:
        return f"{count:,} ({_percent(count / summary.builds)})" if count else "0"

    def spans(spread: Spread | None) -> list[str]:
        return [span(value) for value in spread] if spread else ["–"] * 4

    memories = [size(summary.memory.p50), size(summary.memory.p90)] if summary.memory else ["–"] * 2
    counts = [f"{summary.builds:,}", counted(summary.failed), counted(summary.timed_out)]
    add(add(row, "th", scope="row"), "bdi", name)
    cells = [*counts, *spans(summary.waited_s), *spans(summary.held_s), *memories]
    places = ["first", "", "", *["first", "", "", ""] * 2, "first half", "half"]  # four in a line on a phone
    for head, cell, place in zip(heads, cells, places, strict=True):
        add(row, "td", cell, data_head=head, class_=place)


def _more_labels(section: Element, report: Report) -> None:
    if len(report.labels) > MOST_LABELS:
        text = _("{shown} of {count} labels, those with the most builds")
        add(section, "p", text.format(shown=MOST_LABELS, count=f"{len(report.labels):,}"), class_="note")


def _in_words(body: Element, rows: Sequence[Row]) -> None:
    details = add(body, "details")
    add(details, "summary", _("The charts as text"))
    listed = add(details, "ol")
    before = timeline.before(rows)
    for row in reversed(rows):
        (_name, label), *others = facts(row, before)
        name = add(add(listed, "li"), "bdi", label)
        name.tail = "".join(f" · {name} {value}" for name, value in others)


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"


def _minute(when: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(when))
