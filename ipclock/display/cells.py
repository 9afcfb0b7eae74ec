"""How wide a text is: in cells of a terminal, of which a Korean letter fills two and a combining one none.

The one place that knows; tests compare it with rich. Cuts and wraps by cells, and breaks no word that fits into a line.
"""

from __future__ import annotations

ZERO = ("Mn", "Me", "Cf")  # categories of Unicode: combining letters, joiners
# vowels and final consonants that the letter before them takes up (Hangul as macOS writes names of files)
JAMO = (range(0x1160, 0x1200), range(0xD7B0, 0xD800))


def columns(text: str) -> int:
    """Return how many cells *text* fills."""
    if text.isascii():
        return len(text)
    import unicodedata

    def width(letter: str) -> int:
        if unicodedata.category(letter) in ZERO or any(ord(letter) in block for block in JAMO):
            return 0
        return 2 if unicodedata.east_asian_width(letter) in "WF" else 1

    return sum(map(width, text))


def cut(text: str, width: int) -> str:
    """Return the head of *text* that fills at most *width* cells."""
    used = 0
    for index, letter in enumerate(text):
        used += columns(letter)
        if used > width:
            return text[:index]
    return text


def shortened(text: str, width: int) -> str:
    """Return *text*, or as much of it as fits into *width* cells with a mark that there is more."""
    return text if columns(text) <= width else cut(text, width - 1).rstrip() + "…" * (width > 0)


def left(text: str, width: int) -> str:
    """Return *text* at the left of *width* cells."""
    return text + " " * (width - columns(text))


def right(text: str, width: int) -> str:
    """Return *text* at the right of *width* cells."""
    return " " * (width - columns(text)) + text


def wrapped(text: str, width: int) -> list[str]:
    """Return the words of *text* in lines of at most *width* cells. A word that is longer has a line of its own."""
    lines: list[str] = []
    for word in text.split():
        if lines and columns(lines[-1]) + 1 + columns(word) <= width:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return lines
