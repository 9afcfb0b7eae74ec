"""Texts for people, in English and Korean, through GNU gettext catalogues.

Knows which language is in use in this process. The source texts are English, so English needs no catalogue and
loads none. Does not read the environment: `config.environment` finds the language, `use` takes it.
"""

from __future__ import annotations

import os

from ipclock._typing import TYPE_CHECKING
from ipclock.utf8 import printable

if TYPE_CHECKING:
    from ipclock.errors import IpclockError

LANGUAGES = ("en", "ko")
DOMAIN = "ipclock"

_catalogue = None


def use(language: str) -> None:
    """Show messages in *language*, one of `LANGUAGES`, from here on, in the whole process.

    A missing catalogue (a source tree that was never built) leaves English in use.
    """
    global _catalogue
    _catalogue = None
    if language != "en":
        from gettext import translation

        where = os.path.join(os.path.dirname(__file__), "locale")
        _catalogue = translation(DOMAIN, where, [language], fallback=True)


def _(text: str) -> str:
    """Return *text* in the language in use. The empty string stays empty (gettext would return the header)."""
    return _catalogue.gettext(text) if _catalogue and text else text


def told(error: IpclockError) -> tuple[str, str]:
    """Return what a person reads of a failure, in the language in use: what and where; what to do about it."""
    # a path may be anything, and none is to move the terminal's cursor
    values = {key: printable(_(value)) if isinstance(value, str) else value for key, value in vars(error).items()}
    return _(error.what).format(**values), _(error.remedy).format(**values)


def sentence(error: IpclockError) -> str:
    """Return the same in one line, as a part of a warning."""
    return ". ".join(filter(None, told(error)))
