"""Which process a slot is bound to that `acquire` takes for its caller: one that lives on, and gets the ticket.

That is our parent, but for two kinds which end with us and stand for their own parent: a part of a shell that hands the
ticket on to that shell, as in `$(ipclock acquire a | tail -n1)`, and a program that runs us and nothing else, as
timeout(1), sudo(8) and `sh -c 'ipclock acquire a'` do. What cannot be told errs towards the one that lives longer.
"""

from __future__ import annotations

import os

from ipclock.display.formatting import shown
from ipclock.errors import TicketPassesBy
from ipclock.linux import descriptors, process

SHELLS = {"sh", "ash", "bash", "dash", "fish", "ksh", "mksh", "zsh"}


def of_caller() -> int:
    """Return the PID of the process that is to hold the slot.

    Raises TicketPassesBy (2) where that is a shell with one command line, and the ticket goes past it to its parent.
    """
    pid = os.getppid()
    while (parent := process.parent_of(pid)) and (_runs_us_alone(pid) or _is_part_of(parent, pid)):
        pid = parent
    if parent and _line(process.arguments_of(pid)) is not None and _goes_past(pid, parent, by_parts=False):
        raise TicketPassesBy(pid, shown(pid), parent, shown(parent))
    return pid


def _runs_us_alone(pid: int) -> bool:
    """Return whether a process was started to run our command and no other."""
    arguments = process.arguments_of(pid)
    if (line := _line(arguments)) is not None:
        return _is_one_command(line)
    own = _from_our_name(process.arguments_of(os.getpid()))
    return bool(own) and _from_our_name(arguments[-len(own) :]) == own


def _from_our_name(arguments: list[str]) -> list[str]:
    for place, argument in enumerate(arguments):
        if os.path.basename(argument) == "ipclock":
            return ["ipclock", *arguments[place + 1 :]]
    return []


def _line(arguments: list[str]) -> str | None:
    """Return what a shell was given by `sh -c LINE`, perhaps with more options; None for any other command line."""
    if not arguments or os.path.basename(arguments[0]).lstrip("-") not in SHELLS:
        return None
    given = False
    for argument in arguments[1:]:
        if not argument.startswith(("-", "+")):
            return argument if given else None
        given = given or (argument[0] == "-" and argument[1:2] != "-" and "c" in argument)
    return None


def _is_one_command(line: str) -> bool:
    """Return whether a line of shell has no more than one command, which may be redirected."""
    import shlex  # few are run so

    try:
        words = list(shlex.shlex(line, posix=True, punctuation_chars=True))
    except ValueError:
        return False
    # a line's end parts commands too; `&` may belong to `2>&1`
    return "\n" not in line.strip() and not any(
        word[0] in ";|()`" or "`" in word or word in ("&", "&&") for word in words if word
    )


def _is_part_of(shell: int, pid: int) -> bool:
    """Return whether a process is a part of its parent, the *shell*, and hands the ticket on to it."""
    if not process.is_fork(pid) or not descriptors.writes_to(pid, shell):
        return False
    # who will read a file cannot be known
    return descriptors.prints_to_file(os.getpid()) or _goes_past(pid, shell, by_parts=True)


def _goes_past(pid: int, reader: int, *, by_parts: bool) -> bool:
    """Return whether the ticket goes past the process to the *reader*: at once, or through filters that it has started.

    A part of the process among them reads the ticket for the process itself, but *by_parts*.
    """
    pipe = descriptors.pipe_of(os.getpid())
    filters = [child for child in process.descendants_of(pid) if child != os.getpid()]
    while pipe is not None and not descriptors.reads(pid, pipe):
        if descriptors.reads(reader, pipe):
            return True
        through = next((child for child in filters if descriptors.reads(child, pipe)), None)
        if through is None or (process.is_fork(through) and not by_parts):
            return False
        filters.remove(through)
        pipe = descriptors.pipe_of(through)
    return False
