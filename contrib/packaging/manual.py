"""The manual pages, in English and Korean, from the parser, the table of settings and the texts in `man/`.

argparse-manpage writes ipclock(1) as `setup.cfg` says, with the sections of `man/**/ipclock.1.in` in it; `finish` puts
right what it leaves. `write_settings` writes ipclock-build-config(5) from `config.settings.SETTINGS` and what
`man/**/ipclock-build-config.5.in` says of each key.
"""

import re
from argparse import ArgumentParser
from pathlib import Path

from argparse_manpage.compat import get_reproducible_date

from ipclock import __version__, i18n
from ipclock.cli import command_line
from ipclock.cli.parser import commands_of
from ipclock.config.settings import SETTINGS, Setting

FOLDERS = {"en": "man", "ko": "man/ko"}
HEADINGS = {
    "en": {},
    "ko": {
        "NAME": "이름",
        "SYNOPSIS": "개요",
        "DESCRIPTION": "설명",
        "OPTIONS": "옵션",
        "AUTHOR": "저자",
        "usage:": "사용법:",
    },
}
MANUALS = {"en": "User Commands", "ko": "사용자 명령"}
FORMATS = {"en": "File Formats", "ko": "파일 형식"}
NOTES = {"en": ("option", "default"), "ko": ("옵션", "기본값")}


def english() -> ArgumentParser:
    """Return the parser as ipclock(1) shows it."""
    return _parser("en")


def korean() -> ArgumentParser:
    """Return the parser as ipclock(1) shows it to a Korean reader."""
    return _parser("ko")


def _parser(language: str) -> ArgumentParser:
    i18n.use(language)
    try:
        parser = command_line.get_parser()
    finally:
        i18n.use("en")
    # the page has sections of its own for these, and a command's summary above them
    parser.description = parser.epilog = None
    for command in commands_of(parser).values():
        command.description = command.epilog = None
    return parser


def finish(root: Path, language: str) -> None:
    """Make of what argparse-manpage has written a page that `man` and `mandoc` take without complaint."""
    path = root / FOLDERS[language] / "ipclock.1"
    first, *lines = path.read_text().splitlines()
    text = "\n".join(lines).replace(".SH\n", ".SH ").replace("'", "\\(aq")
    for english, translated in HEADINGS[language].items():
        text = re.sub(rf"^(\.SH )?{re.escape(english)}", rf"\g<1>{translated}", text, flags=re.M)
    # the exit statuses are a table; a date with escapes is none
    path.write_text(f"'\\\" t\n{first.replace(chr(92), '')}\n{text}\n")


def sections(path: Path) -> dict[str, str]:
    """Return the texts of a file by the heading in brackets above each."""
    parts = re.split(r"^\[(.+)\]\n", path.read_text(), flags=re.M)
    return dict(zip(parts[1::2], map(str.strip, parts[2::2]), strict=True))


def write_settings(root: Path, language: str) -> None:
    """Write ipclock-build-config(5)."""
    texts = sections(root / FOLDERS[language] / "ipclock-build-config.5.in")
    keys = [setting.key for setting in SETTINGS]
    lines = [
        f'.TH IPCLOCK\\-BUILD\\-CONFIG "5" "{get_reproducible_date()}" "ipclock {__version__}" "{FORMATS[language]}"'
    ]
    for heading, text in texts.items():
        if heading not in keys:
            lines += [f".SH {HEADINGS[language].get(heading.upper(), heading.upper())}", text]
        if heading in ("settings", "설정"):
            lines += [_entry(setting, texts.get(setting.key, ""), language) for setting in SETTINGS]
    (root / FOLDERS[language] / "ipclock-build-config.5").write_text("\n".join(lines) + "\n")


def _entry(setting: Setting, text: str, language: str) -> str:
    values = zip(NOTES[language], (setting.option, setting.default), strict=True)
    notes = [f"{name} \\fB{value}\\fR".replace("-", r"\-") for name, value in values if value]
    shown = f" ({', '.join(notes)})" if notes else ""
    return f".TP\n\\fB{setting.key}\\fR{shown}\n{text}"
