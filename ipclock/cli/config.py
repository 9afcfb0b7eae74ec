"""`ipclock config`: every setting, its value and where that comes from. Whether all is well is for `doctor` to say."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

from ipclock.cli import options
from ipclock.config.settings import survey_settings
from ipclock.console import encodable, say
from ipclock.display.cells import columns, left
from ipclock.errors import N_, InvalidValueError
from ipclock.i18n import _, told
from ipclock.utf8 import printable

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace
    from collections.abc import Iterator

    from ipclock.config.settings import Settings, Source

SUMMARY = N_("show the settings and where each comes from")
EXAMPLES = (
    "ipclock config",
    "ipclock config --name /web --json",
)
VALUE_WIDTH = 30  # a longer value moves its own place only


def add_arguments(parser: ArgumentParser) -> None:
    """Add the command's options."""
    options.add_json(parser)
    options.add_pool_options(parser, create=True)


def run(args: Namespace, settings: Settings) -> int:
    """Print the settings on stdout, as they are, right or wrong; files that cannot be read are told on stderr."""
    survey = survey_settings(args.options)
    for problem in survey.problems:
        say(f"ipclock: {told(problem)[0]}")
    if args.json:
        shown = {"schema": int(args.json), "files": survey.files, "settings": list(map(_plain, survey.sources))}
        print(json.dumps(shown, indent=2))
    else:
        for line in _lines(survey.sources):
            print(encodable(line, sys.stdout) if sys.stdout else line)
    return 0


def _mistake(source: Source) -> InvalidValueError | None:
    try:
        source.value()
    except InvalidValueError as error:
        return error
    return None


def _plain(source: Source) -> dict[str, Any]:
    """Return a setting as plain values; its value is the text that was given, null where it is not set."""
    kinds = {"": "default", source.setting.option or None: "option"}
    return {
        "key": source.setting.key,
        "value": source.text,
        "source": "file" if source.file else kinds.get(source.where, "environment"),
        "file": source.file,
        "line": source.line or None,
        "valid": _mistake(source) is None,
    }


def _place(source: Source) -> str:
    if source.file:
        return f"{source.file}:{source.line}"
    return source.where or _("default")


def _lines(sources: list[Source]) -> Iterator[str]:
    rows = [
        (source, _("not set") if source.text is None else printable(source.text) or "''", printable(_place(source)))
        for source in sources
    ]
    keys = max(columns(source.setting.key) for source in sources)
    texts = min(VALUE_WIDTH, max(columns(text) for _source, text, _at in rows))
    for source, text, place in rows:
        yield f"{left(source.setting.key, keys)}  {left(text, texts)}  {place}"
        if mistake := _mistake(source):
            yield "   " + _("invalid: expected {expected}").format(expected=_(mistake.expected))
