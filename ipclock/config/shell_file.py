"""The settings file as the shell file that it is for the deploy scripts: read, never executed."""

from __future__ import annotations

import os
import re
import shlex
import stat
from typing import TYPE_CHECKING

from ipclock.errors import N_, SettingsError, reason_of

if TYPE_CHECKING:
    from collections.abc import Collection

MAX_FILE_BYTES = 65536

# one shell word that means the same to any shell and to shlex: nothing in it is expanded, nothing ends it early
_WORD = r"""(?:[^\s'"\\$`;&|<>()~]|\\[^\n]|'[^']*'|"(?:[^"\\$`]|\\[^$`])*")*"""
_ASSIGNMENT = re.compile(rf"([A-Za-z_][A-Za-z0-9_]*)=({_WORD})(?=\s|$)")
_LINE = re.compile(rf"\s*(?:export\s+)?((?:{_ASSIGNMENT.pattern}\s*)*)(?:(?<!\S)#.*)?")
_NAME = re.compile(r"(?<![A-Za-z0-9_])([A-Za-z_][A-Za-z0-9_]*)=")  # whole: DEPLOY_HISTORY= is none of ours
_FOREIGN = re.compile(r"\s*(?:export\s+)?[A-Za-z_][A-Za-z0-9_]*=")


def assignments(path: str, keys: Collection[str]) -> dict[str, tuple[str, int]]:
    """Read the assignments to our *keys* from a shell settings file: the text and the number of its line by key.

    Nothing is expanded or executed: a value that a shell would expand or end earlier is refused rather than taken
    to the letter. Assignments to other keys may be anything. Raises SettingsError (78) with the line's number.
    """
    found: dict[str, tuple[str, int]] = {}
    for number, text in enumerate(_read_text(path).splitlines(), 1):
        ours = set(keys) & set(_NAME.findall(text))
        if matched := _LINE.fullmatch(text):
            for key, word in _ASSIGNMENT.findall(matched[1]):
                found[key] = "".join(shlex.split(word)), number
        elif ours or not _FOREIGN.match(text):
            raise SettingsError(path, _problem(text), number)
    return {key: value for key, value in found.items() if key in keys}


def _problem(text: str) -> str:
    if "$" in text or "`" in text:
        return N_("a value with $ or ` is not expanded; write it out")
    if text.count("'") % 2 or text.count('"') % 2:
        return N_("a quote is not closed")
    return N_("not an assignment")


def _read_text(path: str) -> str:
    try:
        # O_NONBLOCK: a FIFO at this path must not hang every build
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(fd, "rb") as file:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                raise SettingsError(path, N_("not a regular file"))
            data = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise SettingsError(path, reason_of(error)) from None
    if len(data) > MAX_FILE_BYTES:
        raise SettingsError(path, N_("larger than 64 KiB"))
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise SettingsError(path, N_("not UTF-8 text")) from None
