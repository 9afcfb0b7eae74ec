"""Our environment: what it says to us, and what a build and a hook get of it."""

from __future__ import annotations

import os
from contextlib import suppress

from ipclock import utf8
from ipclock._typing import TYPE_CHECKING
from ipclock.bounded import LAST_UID, whole_in
from ipclock.linux import procfs

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

_COERCED = ("C.UTF-8", "C.utf8", "UTF-8")
DEFAULT_PAGER = "less -FRX"
JOB_VARIABLES = ("CARGO_BUILD_JOBS", "CMAKE_BUILD_PARALLEL_LEVEL")


def language() -> str:
    """Return the language of messages, "ko" or "en": IPCLOCK_LANG, else the locale (locale(7)'s order)."""
    variables = ("IPCLOCK_LANG", "LC_ALL", "LC_MESSAGES", "LANG")
    chosen = next(filter(None, map(os.environ.get, variables)), "")
    return "ko" if chosen.lower().startswith("ko") else "en"


def plain_terminal() -> bool:
    """Whether the terminal cannot move its cursor (TERM unset or dumb)."""
    return os.environ.get("TERM", "dumb") == "dumb"


_colours: str | None = None


def use_colours(when: str | None) -> None:
    """Have colours "always" or "never" in this process from here on; as the environment says for "auto" and None."""
    global _colours
    _colours = when


def colours(is_terminal: bool) -> bool:
    """Whether to write in colours (https://no-color.org, https://force-color.org)."""
    if _colours in ("always", "never"):
        return _colours == "always"
    if os.environ.get("NO_COLOR"):
        return False
    return is_terminal or bool(os.environ.get("FORCE_COLOR"))


def pager() -> str:
    """Return the command line, for sh(1), of the program that shows long output: as git has it; "" for none."""
    return next(
        (text for key in ("IPCLOCK_PAGER", "PAGER") if (text := os.environ.get(key)) is not None), DEFAULT_PAGER
    )


def pager_environment() -> dict[str, str]:
    """Return the environment of a pager: ours, and how less(1) and lv(1) are to behave, unless that is set."""
    return {"LESS": "FRX", "LV": "-c", **inherited_environment()}


def debugging() -> bool:
    """Whether a bug is to show its traceback."""
    return bool(os.environ.get("IPCLOCK_DEBUG"))


def held_slot() -> tuple[str, str] | None:
    """Return (pool name, ticket) that a build around this process left in the environment. Unproven.

    The name is empty where a script exported only the ticket that `ipclock acquire` printed.
    """
    ticket = os.environ.get("IPCLOCK_TICKET")
    return (os.environ.get("IPCLOCK_NAME", ""), ticket) if ticket else None


def session() -> str | None:
    """Return the name that IPCLOCK_SESSION gives the session of this process; None where it gives none."""
    return os.environ.get("IPCLOCK_SESSION") or None


def build_environment(
    ours: Mapping[str, str], name: str, label: str, ticket: int, slot: int, jobs: int | None = None, token: str = ""
) -> dict[str, str]:
    """Return the environment of a build: *ours* (`inherited_environment`), and what tells it which slot it holds.

    *token* is its fencing token where the engine has one. With *jobs*, also how many processes the usual build tools
    are to start at once, unless that is set already.
    """
    hints = {} if jobs is None else {"MAKEFLAGS": f"-j{jobs}"} | dict.fromkeys(JOB_VARIABLES, str(jobs))
    return {
        **hints,
        **ours,
        **({"IPCLOCK_TOKEN": token} if token else {}),
        "IPCLOCK_NAME": name,
        "IPCLOCK_LABEL": utf8.native(label),
        "IPCLOCK_TICKET": str(ticket),
        "IPCLOCK_SLOT": str(slot),
    }


def hook_environment(facts: Mapping[str, Any]) -> dict[str, str]:
    """Return the environment of a hook: ours, and *facts*, each in a variable; without it where the fact is None."""
    ours = {f"IPCLOCK_{key.upper()}": value for key, value in facts.items()}
    told = {key: utf8.native(str(value)) for key, value in ours.items() if value is not None}
    return {key: text for key, text in inherited_environment().items() if key not in ours} | told


def sudo_user() -> int | None:
    """Return the user (uid) who has started us as root by sudo(8); None where there is none."""
    return whole_in(os.environ, "SUDO_UID", LAST_UID) if os.geteuid() == 0 else None


def in_hook() -> bool:
    """Whether this process was started by a hook, whose own builds run no hooks: that would go on for ever."""
    return bool(os.environ.get("IPCLOCK_EVENT"))


def inherited_environment() -> dict[str, str]:
    """Return the environment that this process was started with, as a command gets it that needs no slot of its own.

    In the C locale Python sets LC_CTYPE for itself and for all that it starts (PEP 538); a command is to see its own.
    Without what has no name, which Python passes on to no child.
    """
    found = {key: text for key, text in os.environ.items() if key}
    if found.get("LC_CTYPE") in _COERCED:
        with suppress(OSError):
            given = procfs.started_with("LC_CTYPE")
            del found["LC_CTYPE"]
            if given is not None:
                found["LC_CTYPE"] = os.fsdecode(given)
    return found
