"""The shells' completions: commands and options from the parser, by shtab, and `contrib/completions/words.*`.

What an argument takes is told by the name that its help gives it.
"""

from argparse import ArgumentParser
from pathlib import Path

import shtab

from ipclock.cli import command_line
from ipclock.cli.parser import commands_of
from ipclock.config import values

FOLDER = Path("contrib/completions")
FILES = {"bash": "ipclock", "zsh": "_ipclock", "fish": "ipclock.fish"}


def _words(kind: str) -> dict[str, str]:
    return {"bash": f"_ipclock_{kind}", "zsh": f"_ipclock_{kind}", "fish": f"(__ipclock_{kind})"}


KINDS = {
    "LABEL": _words("labels"),
    "TICKET": _words("tickets"),
    "TICKET|LABEL": _words("builds"),
    "FILE": shtab.FILE,
    "DIR": shtab.DIRECTORY,
    "GROUP": {"bash": "_ipclock_groups", "zsh": "_groups", "fish": "(__fish_complete_groups)"},
}
CHOICES = {
    "HOW": values.LEFTOVERS,
    "MODE": ("0600", "0660"),
    "BETWEEN": (*values.PARTIES, "off"),
    "COMMAND": command_line.COMMANDS,
    "WHEN": values.COLOURS,
}


def write(root: Path) -> None:
    """Write the completions of all shells."""
    for shell, name in FILES.items():
        text = (root / FOLDER / f"words.{shell}").read_text()
        # zsh runs the end of the file at each completion, so ours comes before it
        own = shtab.complete(parser(), shell, preamble=text if shell == "zsh" else "")
        own = own.replace('"(*)::', '"*:')  # by shtab's words zsh offers only the first of several arguments
        (root / FOLDER / name).write_text(f"{own}\n" if shell == "zsh" else f"{own}\n\n{text}")


def parser() -> ArgumentParser:
    """Return the parser with what completes each argument, as shtab wants it."""
    made = command_line.get_parser()
    for command in commands_of(made).values():
        for action in command._actions:
            if action.metavar in KINDS:
                action.complete = KINDS[action.metavar]
            elif action.metavar in CHOICES:
                action.choices = CHOICES[action.metavar]
    return made
