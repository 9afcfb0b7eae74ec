"""What was probably meant by a command line that cannot be understood. Few need it, so it is loaded for these alone."""

from __future__ import annotations

import os
import shlex
from difflib import get_close_matches
from typing import TYPE_CHECKING

from ipclock.cli.command_line import COMMANDS, NO_COMMAND
from ipclock.errors import N_, IncompleteError, MistypedError, UsageError
from ipclock.i18n import _

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

NO_LABEL = N_("missing label: ipclock {command} LABEL{rest}")
OF_POOL = ("--config", "--name", "--engine")  # of every command, so they may stand before it
OF_ALL = ("-h", "--help", "-V", "--version")
# what other programs call it; the first one that is there. Only pointed to: an alias would be a second name for good.
POINTERS = {
    **dict.fromkeys(("run", "exec", "start", "submit"), ("wrap LABEL -- COMMAND",)),
    **dict.fromkeys(("ps", "list", "ls", "show", "queue"), ("status",)),
    **dict.fromkeys(("top", "watch", "monitor"), ("status --watch",)),
    **dict.fromkeys(("unlock", "force-unlock", "clear"), ("reset",)),
    **dict.fromkeys(("kill", "stop", "abort", "rm"), ("cancel TICKET",)),
    **dict.fromkeys(("tail", "output"), ("logs",)),
    **dict.fromkeys(("settings", "set", "get"), ("config",)),
    "lock": ("acquire LABEL",),
    "free": ("release",),
    "pause": ("drain",),
    "continue": ("resume",),
    "history": ("log",),
    "check": ("doctor",),
    "man": ("help",),
}


def command(word: str) -> UsageError:
    """Return the failure that there is no such command, with the one that was probably meant."""
    text = _("no such command: {word}").format(word=word)
    near = get_close_matches(word.lower(), [*COMMANDS, *POINTERS], n=1)
    meant = [line for name in near for line in POINTERS.get(name, (name,)) if line.split()[0] in COMMANDS]
    return MistypedError(text, f"ipclock {meant[0]}") if meant else UsageError(text)


def unrecognized(words: Sequence[str], command: str, known: Iterable[str]) -> UsageError:
    """Return the failure that *words* say nothing to a command, with one of the *known* options that one resembles."""
    text = _("unrecognized arguments: {arguments}").format(arguments=" ".join(words))
    mistyped = next((word for word in words if word.startswith("-")), "")
    meant = get_close_matches(mistyped.partition("=")[0], list(known), n=1)
    return MistypedError(text, meant[0]) if meant else UsageError(text, f"ipclock {command}")


def incomplete(error: UsageError, command: str, command_line: Sequence[str]) -> UsageError:
    """Return what is wrong, by argparse's *error*, with the words of *command* and the command line behind them."""
    if error.message != _("the following arguments are required: %s") % "LABEL":
        return error
    rest = " -- COMMAND" if command == "wrap" else ""
    label, words = "staging", command_line or ["make"]
    if command_line:
        label = os.path.basename(command_line[0]) or label
    example = ["ipclock", command, label] + ["--", *words] * bool(rest)
    return IncompleteError(_(NO_LABEL).format(command=command, rest=rest), shlex.join(example))


def no_command(label: str, words: Sequence[str] = ()) -> UsageError:
    """Return the failure that nothing is to be run, for want of `--` perhaps before *words*."""
    return IncompleteError(_(NO_COMMAND), shlex.join(["ipclock", "wrap", label, "--", *(words or ["make"])]))


def command_first(words: list[str]) -> list[str]:
    """Return the words with the command before the options of a pool, which may stand before it."""
    before: list[str] = []
    rest = list(words)
    while rest and rest[0].startswith("-") and rest[0] not in OF_ALL:
        name, equals, _value = rest[0].partition("=")
        if name not in OF_POOL:
            raise _misplaced(name, rest)
        count = 1 if equals else 2
        before, rest = before + rest[:count], rest[count:]
    if before and not rest:
        raise UsageError(_("missing command"))
    return [*rest[:1], *before, *rest[1:]]


def _misplaced(option: str, words: Sequence[str]) -> UsageError:
    command = next((word for word in words if word in COMMANDS), None)
    if command is None:
        return unrecognized([option], "", OF_ALL)
    text = _("{option}: the options of a command belong after it")
    return MistypedError(text.format(option=option), f"ipclock {command} {option}")
