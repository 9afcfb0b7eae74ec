"""What a user hands in is UTF-8 text here, in every locale, so that two locales mean the same by the same bytes.

Python reads arguments, variables and paths by the locale (os.fsdecode), and writes them so for the kernel. A string of
that kind is *native* here; what is stored, compared and shown is text. Bytes that are no UTF-8 stand in a text as
lone surrogates (PEP 383), which no check of a setting accepts; as a path they come back to the kernel as they were.
"""

from __future__ import annotations

import os
import sys

ALIKE = sys.getfilesystemencoding() == "utf-8"  # then native strings are texts already


def text(data: bytes) -> str:
    """Return the text that these bytes are."""
    return data.decode(errors="surrogateescape")


def text_of(native: str) -> str:
    """Return the text that a native string stands for."""
    return native if ALIKE else text(os.fsencode(native))


def native(text: str) -> str:
    """Return the native string by which the kernel gets the bytes of a text."""
    return text if ALIKE else os.fsdecode(text.encode(errors="surrogateescape"))


def printable(text: str) -> str:
    """Return *text* with whatever could move a terminal's cursor or change its colours written out."""
    if text.isprintable():
        return text
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in text)
