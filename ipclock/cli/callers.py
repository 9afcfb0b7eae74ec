"""How other usual callers come by their settings: root, cron and scripts have other environments and homes.

Reads files, and changes nothing. A file that may not be read counts as one that says nothing.
"""

from __future__ import annotations

import os
import pwd
from typing import TYPE_CHECKING, NamedTuple

from ipclock.config.environment import sudo_user
from ipclock.config.settings import read_files, source_in, usual_files
from ipclock.errors import InvalidValueError
from ipclock.i18n import _

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from ipclock.config.settings import Source, Survey

POOL = ("ENGINE", "SEMAPHORE_NAME")
CAPACITY = "MAX_PARALLEL_BUILDS"


class Difference(NamedTuple):
    """What a setting is `here`, and what it is for some `callers`."""

    here: Source
    there: Source
    callers: list[str]


def differences(survey: Survey) -> list[Difference]:
    """Return where others come to another pool, or to another number of slots, each difference once."""
    here = {source.setting.key: source for source in survey.sources}
    found: dict[tuple[str, str], Difference] = {}
    for caller, paths in _usual(survey):
        files = read_files(paths, [])
        for there in _differing(here, {key: source_in(source.setting, files) for key, source in here.items()}):
            key = there.setting.key
            found.setdefault((key, place_of(there)), Difference(here[key], there, [])).callers.append(caller)
    return list(found.values())


def place_of(source: Source) -> str:
    """Return what makes a setting what it is: FILE:LINE, the variable, the option, or that nothing does."""
    return f"{source.file}:{source.line}" if source.file else source.where or _("default")


def _usual(survey: Survey) -> Iterator[tuple[str, list[str]]]:
    """Yield the callers, each with the settings files that it reads, the nearest first."""
    everybodys = usual_files(None)
    own = _files_of(os.getuid()) or everybodys
    if os.getuid() != 0:
        yield _("root (sudo)"), _files_of(0) or everybodys
    yield _("users without a settings file"), everybodys
    yield _("this user (cron)"), own
    if (user := sudo_user()) is not None and (files := _files_of(user)):
        yield pwd.getpwuid(user).pw_name, files
    if survey.asked_for:
        yield _("scripts using {path}").format(path=survey.asked_for), [survey.asked_for, *own]


def _files_of(uid: int) -> list[str] | None:
    try:
        return usual_files(f"{pwd.getpwuid(uid).pw_dir}/.config")
    except KeyError:
        return None


def _differing(here: dict[str, Source], there: dict[str, Source]) -> Iterator[Source]:
    for key in POOL:
        # a user who types the name types it there too
        if here[key].where != here[key].setting.option and _meant(here[key]) != _meant(there[key]):
            yield there[key]
            return  # by the engine, whatever the name; and in another pool, how many slots there are is no matter
        if key == "ENGINE" and _meant(here[key]):
            break
    if None not in (ours := _meant(here[CAPACITY]), theirs := _meant(there[CAPACITY])) and ours != theirs:
        yield there[CAPACITY]


def _meant(source: Source) -> Any:
    try:
        value = source.value()
    except InvalidValueError:
        return None
    # how one shows who one is, behind the question mark, makes no other pool
    return value.partition("?")[0] if source.setting.key == "ENGINE" and value else value
