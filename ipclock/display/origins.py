"""Where a build comes from: its command line, its directory, who has asked for it, on which terminal.

Read from the processes at a look, and kept nowhere: a command line may hold a password. What may not be seen
is not known: another user's directory, and all of a process in another PID namespace.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from ipclock.display.cells import cut
from ipclock.i18n import _
from ipclock.linux import process, process_view
from ipclock.utf8 import printable

if TYPE_CHECKING:
    from ipclock.pool.snapshot import Holder, Waiter

COMMAND_WIDTH, CALLER_WIDTH = 80, 40


class Facts(NamedTuple):
    """What is known of a client: texts as they may be shown, "" where nothing is.

    `caller` is the PID of the process that has started it, None once that has ended; `caller_gone` says so, None where
    that cannot be told.
    """

    command: str
    directory: str
    terminal: str
    caller: int | None
    caller_gone: bool | None


def facts(client: Holder | Waiter) -> Facts:
    """Return what can be seen now of a holder or a waiter."""
    origin = client.origin
    lives = process.exists(origin.caller) if origin.caller else None
    caller = origin.caller.pid if origin.caller and lives else None
    gone = None if lives is None else not lives
    command = getattr(client, "command_pid", None)
    pid = (command or client.pid) if origin.here else None
    if pid is None:
        return Facts("", "", "", caller, gone)
    words = process.arguments_of(pid)
    if command is None and "wrap" in words and "--" in words:  # what a build is to be, once it has its slot
        words = words[words.index("--") + 1 :]
    directory, terminal = process_view.directory_of(pid), process_view.terminal_of(pid)
    return Facts(printable(" ".join(words)), printable(directory), terminal, caller, gone)


def marks(client: Holder | Waiter, known: Facts) -> list[str]:
    """Return what is remarkable of where a client comes from, in words."""
    found = [_("detached")] * client.origin.detached
    # who detaches a build means it to go on alone
    return found + [_("caller gone")] * (known.caller_gone is True and not client.origin.detached)


def named(pid: int) -> str:
    """Return a process by the head of its command line, and its PID, in other words than those of the build's line."""
    return " ".join(filter(None, [cut(printable(process_view.command_of(pid)), CALLER_WIDTH), f"[{pid}]"]))


def in_words(client: Holder | Waiter) -> str:
    """Return all that is known, as one line for people; "" where nothing is."""
    known = facts(client)
    found = [cut(known.command, COMMAND_WIDTH)]
    if known.directory:
        found.append(_("in {directory}").format(directory=known.directory))
    if known.caller:
        found.append(_("for {process}").format(process=named(known.caller)))
    if known.terminal:
        found.append(_("on {terminal}").format(terminal=known.terminal))
    found += marks(client, known)
    if client.origin.log:
        found.append(_("log: {path}").format(path=client.origin.log))
    return " · ".join(filter(None, found))
