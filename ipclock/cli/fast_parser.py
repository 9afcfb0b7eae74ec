"""Reads the usual command lines from the same declarations as argparse.

With argparse a short build takes 45 ms of CPU time, not 40 (Python 3.11).
A command declares its options on a `Reader` as it would on an ArgumentParser. What the reader does not know, from
abbreviations to errors, it leaves to argparse: `read` returns None. Whatever it returns, argparse would have returned.
"""

from __future__ import annotations

from types import SimpleNamespace

from ipclock._typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

FLAG = "store_true"


class Option:
    """A declared option or argument: where its value goes, and what makes one of its text."""

    def __init__(self, group: object, names: Sequence[str], **declared: Any) -> None:
        long = next((name for name in names if name.startswith("--")), names[0])
        self.group = group
        self.flag = declared.get("action") == FLAG
        self.dest: str = declared.get("dest") or long.lstrip("-").replace("-", "_")
        self.default = declared.get("default", False if self.flag else None)
        self.type = declared.get("type", str)
        self.const: str = declared.get("const", "")
        self.choices: Sequence[str] = declared.get("choices", ())
        # a value that may be left out, and is one of some: `--json`, `--json=2`
        self.optional = bool(self.const) and declared.get("nargs") == "?" and "type" not in declared
        # a default that is text would go through its type
        self.known = declared.get("action") in (None, FLAG) and not isinstance(self.default, str)
        self.known = self.known and (self.optional or not ({"nargs", "choices", "const"} & declared.keys()))


class Reader:
    """The declarations of one command: of ArgumentParser what they use. Options of a *group* exclude each other."""

    def __init__(self, parent: Reader | None = None, *, group: object = None) -> None:
        self.usage = ""
        self._group = group
        self._options: dict[str, Option] = parent._options if parent else {}
        self._arguments: list[Option] = parent._arguments if parent else []

    def add_argument(self, *names: str, **declared: Any) -> None:
        """Declare an option, or an argument by a name without dashes."""
        option = Option(self._group, names, **declared)
        if names[0].startswith("-"):
            self._options |= dict.fromkeys(names, option)
        else:
            self._arguments.append(option)

    def add_argument_group(self, _title: str) -> Reader:
        """Return what declares the options of a group that only the help shows."""
        return Reader(self)

    def add_mutually_exclusive_group(self) -> Reader:
        """Return what declares options of which one at most may be given."""
        return Reader(self, group=object())

    def read(self, words: Sequence[str]) -> SimpleNamespace | None:
        """Return what the words say, as argparse would; None where that is for argparse to tell."""
        declared = [*self._options.values(), *self._arguments]
        if not all(option.known for option in declared):
            return None
        values = {option.dest: option.default for option in declared}
        arguments = iter(self._arguments)
        given: dict[object, Option] = {}
        rest = list(reversed(words))
        while rest:
            word = rest.pop()
            name, equals, said = word.partition("=")
            if not word.startswith("-"):
                option, text = next(arguments, None), word
            elif (option := self._options.get(name)) and option.optional:
                # without "=" the next word would be its value, unless that is an option
                text = said if equals else option.const if not rest or rest[-1].startswith("-") else ""
                option = option if text in option.choices else None
            else:
                option = self._options.get(word)
                text = "" if option is None or option.flag else rest.pop() if rest else "-"
            # a value that begins with a dash may be a number, an option or a mistake
            if option is None or text.startswith("-") or not word:
                return None
            if option.group is not None and given.setdefault(option.group, option) is not option:
                return None
            try:
                values[option.dest] = True if option.flag else option.type(text)
            except Exception:  # argparse says what is wrong with it
                return None
        return None if next(arguments, None) else SimpleNamespace(**values)
