"""The pool for people, on stdout: as lines, as a table on a terminal that `rich` draws, or live like top(1).

The only importer of rich, which need not be there: then a terminal shows the lines too.
"""

from __future__ import annotations

import os
import sys
import time
from typing import TYPE_CHECKING

from ipclock.config.environment import colours, plain_terminal
from ipclock.console import encodable
from ipclock.display import alternate_screen, origins
from ipclock.display.cells import cut
from ipclock.display.formatting import (
    activity_of,
    clock,
    drained,
    estimate,
    of_usual,
    pid_of,
    resized,
    size,
    span,
    state_of,
    unlisted,
)
from ipclock.i18n import _
from ipclock.utf8 import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from rich.console import Console

    from ipclock.display.estimates import Standing
    from ipclock.display.origins import Facts
    from ipclock.pool.snapshot import Holder, Snapshot, Waiter

REDRAW_S = 1.0
BOLD, RED = "\x1b[1m", "\x1b[31m"


def is_terminal() -> bool:
    """Return whether stdout is a terminal that can be drawn on."""
    return sys.stdout is not None and sys.stdout.isatty() and not plain_terminal()


def show(now: Standing) -> None:
    """Print the pool once."""
    rows = is_terminal() and table(now, os.get_terminal_size(sys.stdout.fileno()).columns)
    coloured = colours(is_terminal())
    for row in rows or lines(now, coloured=coloured):
        print(encodable(row, sys.stdout) if sys.stdout else row)


def lines(now: Standing, *, coloured: bool = False) -> list[str]:
    """Return the pool as lines that need no width."""
    return [f"{style}{text}\x1b[0m" if coloured and style else text for text, style in _styled_lines(now)]


def _styled_lines(now: Standing) -> list[tuple[str, str]]:
    pool = now.pool
    found = [(heading, BOLD) for heading in _headings(pool)]
    for holder in pool.holders:
        mark = "  -" if holder in pool.outermost else "    -"
        text = f"{mark} [{clock(holder.since)}] {holder.label} (PID: {pid_of(holder)})"
        found.append((text + _holder_notes(holder, now), "" if holder.state == "running" else RED))
        found += [(f"      {known}", "")] if (known := origins.in_words(holder)) else []
        found += [(f"      {row.pid}  {span(row.age_s)}  {printable(row.command)}", "") for row in holder.processes]
    if pool.waiters:
        found.append((_("⏳ builds waiting: {count}").format(count=len(pool.waiters)), BOLD))
    for waiter in pool.waiters:
        text = f"  {waiter.position}. [{clock(waiter.since)}] {waiter.label} (PID: {waiter.pid or '?'})"
        text += _(" waiting for {span}").format(span=span(waiter.waited_s or 0))
        facts = [text, _ticket(waiter), *_asks(waiter), estimate(now.waits.get(waiter.ticket))]
        found.append((" · ".join(filter(None, facts)), ""))
        found += [(f"      {known}", "")] if (known := origins.in_words(waiter)) else []
    return found


def _ticket(client: Holder | Waiter) -> str:
    return _("ticket {ticket}").format(ticket=client.ticket)


def _headings(pool: Snapshot) -> list[str]:
    counts = {"held": pool.taken, "capacity": pool.capacity}
    head = _("⏳ builds running: {held}/{capacity}") if pool.holders else _("✓ no build is running ({held}/{capacity})")
    found = [head.format(**counts)] + [f"  {drained(pool)}"] * pool.drained
    if pool.resized and (text := resized(pool)):
        found.append(f"  {text}")
    if pool.fair:
        texts = {"user": _("builds take turns by user"), "session": _("builds take turns by session")}
        found.append(f"  {texts[pool.fair]}")
    if pool.unlisted:
        found.append(f"  {unlisted(pool)}")
    return found


def _holder_notes(holder: Holder, now: Standing) -> str:
    notes = {
        "orphaned": _(" orphaned: its ipclock was killed, these processes still run"),
        "unknown": _(" unknown: its process is not visible from here"),
        "stopped": _(" stopped"),
        "doubtful": _(" doubtful: its host does not respond"),
    }
    facts = [_ticket(holder), *_where(holder)]
    facts += of_usual(holder.held_s or 0, now.usual.get(holder.label)) + activity_of(now.uses.get(holder.ticket))
    return "".join([notes.get(holder.state, ""), *(f" · {fact}" for fact in facts)])


def _where(client: Holder | Waiter) -> list[str]:
    """Return the host of one in a pool of several, and the age of its session."""
    if not client.host:
        return []
    return [_("on {host}, session {span}").format(host=client.host, span=span(client.session_s or 0))]


def _asks(waiter: Waiter) -> list[str]:
    parts = _where(waiter)
    parts += [_("{slots} slots").format(slots=waiter.slots)] if waiter.slots > 1 else []
    parts += [_("priority {priority}").format(priority=waiter.priority)] if waiter.priority else []
    if waiter.held_back:
        texts = {"label": _("label limit reached"), "size": _("the pool is too small"), "silent": _("not responding")}
        parts.append(texts[waiter.held_back])
    return parts


def table(now: Standing, width: int) -> list[str]:
    """Return the pool as rows of a terminal so wide, none longer, with colours; nothing where rich is missing."""
    try:
        from rich.console import Console
    except ImportError:
        return []
    # no_color, or rich would ask the environment by itself
    system = {"color_system": "standard", "no_color": False} if colours(True) else {"color_system": None}
    console = Console(width=width, force_terminal=True, highlight=False, **system)
    pool = now.pool
    with console.capture() as captured:
        for heading in _headings(pool):
            console.print(heading, markup=False, style="bold", no_wrap=True, overflow="ellipsis")
        if pool.holders:
            _draw(console, _holder_heads(), [row for holder in pool.holders for row in _holder_rows(holder, now)])
        if pool.waiters:
            _draw(console, _waiter_heads(), [_waiter_row(waiter, now) for waiter in pool.waiters])
    return captured.get().splitlines()


def _draw(console: Console, heads: Sequence[tuple[str, str, int]], rows: Sequence[Sequence[str]]) -> None:
    """Draw a table: of each column its head, how it is aligned, and from which width of the terminal on it is shown.

    A column in which nothing stands is left out.
    """
    from rich.table import Table
    from rich.text import Text

    drawn = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    shown = [
        number
        for number, (_head, _align, width) in enumerate(heads)
        if console.width >= width and any(row[number] for row in rows)
    ]

    def cell(text: str, style: str = "") -> Text:
        # a label in square brackets is no markup, and what has no room is cut, not wrapped
        return Text(text, style=style, no_wrap=True, overflow="ellipsis")

    for number in shown:
        head, align, _width = heads[number]
        # rich narrows the columns that could wrap, the widest first: texts give way, numbers stay whole
        drawn.add_column(cell(head), justify="right" if align == "right" else "left", no_wrap=align == "right")
    for row in rows:
        drawn.add_row(*(cell(row[number], row[-1]) for number in shown))
    console.print(drawn)


def _named(client: Holder | Waiter) -> str:
    return f"{client.label} @ {client.host}" if client.host else client.label


def _holder_heads() -> list[tuple[str, str, int]]:
    return [
        (_("ticket"), "right", 0),
        (_("slot"), "right", 0),
        (_("label"), "left", 0),
        ("PID", "right", 0),
        (_("user"), "left", 90),
        (_("age"), "right", 0),
        (_("of usual"), "right", 70),
        ("CPU", "right", 50),
        (_("memory"), "right", 50),
        *_origin_heads(),
    ]


def _holder_rows(holder: Holder, now: Standing) -> Iterator[list[str]]:
    nested = holder not in now.pool.outermost
    use, usual, held_s = now.uses.get(holder.ticket), now.usual.get(holder.label), holder.held_s or 0
    known = origins.facts(holder)
    yield [
        str(holder.ticket),
        str(holder.slot) if holder.slots == 1 else f"{holder.slot}+{holder.slots - 1}",
        " ".join(["└ " * nested + _named(holder), *_in_brackets(state_of(holder), holder, known)]),
        pid_of(holder),
        holder.user,
        span(held_s),
        f"{min(999.0, 100 * held_s / usual):.0f} % / {span(usual)}" if usual else "-",
        "-" if use is None or use.percent is None else f"{use.percent:.0f} %",
        size(use.memory) if use else "-",
        *_origin(known),
        "" if holder.state == "running" else "red",
    ]
    for row in holder.processes:
        yield ["", "", f"  {printable(row.command)}", str(row.pid), "", span(row.age_s), "", "", "", "", "", "", "dim"]


def _waiter_heads() -> list[tuple[str, str, int]]:
    return [
        (_("ticket"), "right", 0),
        (_("position"), "right", 0),
        (_("waiting"), "left", 0),
        ("PID", "right", 0),
        (_("user"), "left", 90),
        (_("waited"), "right", 0),
        (_("limit"), "right", 70),
        (_("estimate"), "left", 50),
        (_("requests"), "left", 70),
        *_origin_heads(),
    ]


def _origin_heads() -> list[tuple[str, str, int]]:
    return [(_("command"), "left", 110), (_("directory"), "left", 150), (_("caller"), "left", 180)]


def _origin(known: Facts) -> list[str]:
    caller = " ".join(filter(None, [origins.named(known.caller) if known.caller else "", known.terminal]))
    return [known.command, known.directory, caller]


def _in_brackets(words: list[str], client: Holder | Waiter, known: Facts) -> list[str]:
    return [f"({word})" for word in [*words, *origins.marks(client, known)]]


def _waiter_row(waiter: Waiter, now: Standing) -> list[str]:
    known = origins.facts(waiter)
    return [
        str(waiter.ticket),
        str(waiter.position),
        " ".join([_named(waiter), *_in_brackets([], waiter, known)]),
        str(waiter.pid or "?"),
        waiter.user,
        span(waiter.waited_s or 0),
        "-" if waiter.timeout_s is None else span(waiter.timeout_s),
        estimate(now.waits.get(waiter.ticket)) or "-",
        ", ".join(_asks(waiter)),
        *_origin(known),
        "",
    ]


def watch(look: Callable[[], Standing]) -> None:
    """Draw what *look* returns, every second and when the window changes, until q is typed."""
    with alternate_screen.opened() as typed:
        while True:
            width, height = os.get_terminal_size(sys.stdout.fileno())
            now = look()
            rows = table(now, width) or [cut(encodable(line, sys.stdout), width) for line in lines(now)]
            foot = cut(encodable(_("{time} · q: quit").format(time=time.strftime("%H:%M:%S")), sys.stdout), width)
            shown = [*rows[: height - 2], "", foot]
            alternate_screen.write(shown)
            if "q" in typed(REDRAW_S):
                return
