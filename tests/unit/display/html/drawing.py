"""What is drawn, as its elements tell."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

NOON = 1_790_078_400.0  # 2026-09-22, UTC


def of_class(tree: Element, name: str) -> list[Element]:
    """Return the elements of a class, in order."""
    return [element for element in tree.iter() if name in element.get("class", "").split()]


def across(element: Element, *names: str) -> list[float]:
    return [float(element.get(name, "").rstrip("%")) for name in names]


def facts_of(element: Element) -> dict[str, str]:
    """Return what is told while the pointer is over it."""
    return dict(line.split(": ", 1) for line in (element.findtext("title") or "").splitlines())
