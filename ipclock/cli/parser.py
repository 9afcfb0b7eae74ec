"""argparse as we use it."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING, Any, NoReturn

from ipclock.display.cells import columns, wrapped
from ipclock.errors import N_, IpclockError, UsageError
from ipclock.i18n import _

if TYPE_CHECKING:
    from collections.abc import Iterable

# what argparse says to a user by itself, in Python 3.11 to 3.14
N_("usage: ")
N_("positional arguments")
N_("options")
N_("show this help message and exit")
N_("show program's version number and exit")
N_("argument %(argument_name)s: %(message)s")
N_("expected one argument")
N_("ignored explicit argument %r")
N_("invalid choice: %(value)r (choose from %(choices)s)")
N_("not allowed with argument %s")
N_("the following arguments are required: %s")
N_("unrecognized arguments: %s")

# its own _ is gettext's, which knows neither our catalogue nor IPCLOCK_LANG
argparse._ = _  # type: ignore[attr-defined]  # typeshed does not list it


class Formatter(argparse.HelpFormatter):
    """Help in lines that fit the terminal, counted in cells; argparse counts letters, and a Korean one fills two.

    A line of a text that begins with a space stays as it is.
    """

    def _split_lines(self, text: str, width: int) -> list[str]:
        return wrapped(text, width)

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        lines = [
            line
            for given in text.splitlines()
            for line in ([given] if given[:1] in ("", " ") else wrapped(given, width - len(indent)))
        ]
        return "\n".join((indent + line).rstrip() for line in lines)

    def _format_usage(
        self,
        usage: str | None,
        actions: Iterable[argparse.Action],
        groups: Iterable[argparse._MutuallyExclusiveGroup],
        prefix: str | None,
    ) -> str:
        prefix = _("usage: ") if prefix is None else prefix
        filler = "x" * columns(prefix)  # argparse indents by its letters what follows
        text = super()._format_usage(usage, actions, groups, filler)
        if usage:  # which may have lines of its own
            text = text.rstrip("\n").replace("\n", "\n" + " " * len(filler)) + "\n\n"
        return text.replace(filler, prefix, 1)


class Parser(argparse.ArgumentParser):
    """argparse, in our languages, with errors as ours: one line, exit status 2.

    Options are never abbreviated: scripts outlive them.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**options, allow_abbrev=False, formatter_class=Formatter)

    def error(self, message: str) -> NoReturn:
        """Raise UsageError (2), or the failure of ours that argparse has taken for a ValueError without words."""
        said = sys.exc_info()[1]
        if said and isinstance(said.__context__, IpclockError):
            raise said.__context__ from None
        raise UsageError(message, self.prog)


def commands_of(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    """Return the parsers of the commands by their names."""
    return next(action.choices for action in parser._actions if isinstance(action, argparse._SubParsersAction))
