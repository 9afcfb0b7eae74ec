"""The command line: options to settings, a command's run, and an error to its text and exit status.

Loads the one command that is asked for: with all of them `wrap --help` takes 38 ms of CPU time, not 30.
"""

from __future__ import annotations

import errno
import io
import os
import sys
from contextlib import suppress
from importlib import import_module

from ipclock import __version__, i18n, utf8
from ipclock._typing import TYPE_CHECKING
from ipclock.cli.fast_parser import Reader
from ipclock.config.environment import debugging, language, use_colours
from ipclock.config.settings import load_settings
from ipclock.console import say
from ipclock.errors import (
    N_,
    CancelledError,
    FewDescriptorsError,
    Interrupted,
    IpclockError,
    PoolCreateError,
    SlotBusy,
    SlotTimeout,
    SlotUnavailable,
    SupersededError,
    UsageError,
    from_os,
    reason_of,
)
from ipclock.i18n import _
from ipclock.linux import process, procfs

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace
    from collections.abc import Sequence
    from types import ModuleType

    from ipclock.config.settings import Settings

NO_COMMAND = N_("missing command: ipclock wrap LABEL -- COMMAND")
COMMANDS = (
    "wrap",
    "acquire",
    "release",
    "status",
    "logs",
    "wait",
    "log",
    "stats",
    "plan",
    "metrics",
    "drain",
    "resume",
    "cancel",
    "reset",
    "init",
    "config",
    "doctor",
    "help",
    "version",
)
LENIENT = ("config", "doctor", "help", "version")  # a wrong setting does not keep them from their work
WITHOUT_PROC = (*LENIENT, "log", "stats", "complete")
EXAMPLES = ("ipclock wrap staging -- make", "ipclock status", "sudo ipclock reset")
UNLISTED = ("complete",)  # for the shells' completions alone


def _module(command: str) -> ModuleType:
    return import_module(f"ipclock.cli.{command}")


def get_parser(only: str | None = None) -> ArgumentParser:
    """Return the parser of all commands; with *only* that one command's, whose start then pays for no other."""
    from ipclock.cli.parser import Parser

    parser = Parser(
        prog="ipclock",
        description=_("Run at most N builds at once on this machine; the others wait in a queue."),
        epilog=_("See 'ipclock COMMAND --help' for the options of a command.") + "\n\n" + _shown_examples(EXAMPLES),
    )
    parser.add_argument(
        "-V",
        "--version",
        action="version",
        version=f"ipclock {__version__}",
        help=_("show program's version number and exit"),  # argparse translates it from Python 3.12 on
    )
    commands = parser.add_subparsers(
        title=_("commands"), dest="command", metavar="COMMAND", required=True, prog="ipclock"
    )
    for name in [only] if only else COMMANDS:
        module = _module(name)
        summary = _(module.SUMMARY)
        epilog = _shown_examples(module.EXAMPLES)
        module.add_arguments(commands.add_parser(name, help=summary, description=summary, epilog=epilog))
    return parser


def _shown_examples(examples: Sequence[str]) -> str:
    return "\n  ".join([_("examples:"), *examples])


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line *argv* (default: the process's) and return the exit status."""
    arguments = list(_own_words() if argv is None else argv)
    i18n.use(language())
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # as stderr is: a Korean text must not end an ASCII pipe
    settings = None
    quiet, conflict_status = False, None
    try:
        try:
            args = _parse(arguments)
        except SystemExit:  # --help, --version
            _flush()
            raise
        quiet, conflict_status = getattr(args, "quiet", False), getattr(args, "conflict_status", None)
        use_colours(getattr(args, "color", None))
        args.options = {key.upper(): value for key, value in vars(args).items() if isinstance(value, str)}
        settings = load_settings(args.options, lenient=args.command in LENIENT)
        if args.command not in WITHOUT_PROC:
            procfs.require()
        status: int = _module(args.command).run(args, settings)
        _flush()
        return status
    except Interrupted as error:
        from ipclock.run.supervisor import die_of

        if isinstance(error, CancelledError):
            say(error_text(error, settings))
        die_of(error.signum)
        return error.status
    except IpclockError as error:
        # that there was no slot is no failure: the status says it, as for flock -n
        mute = quiet and isinstance(error, SlotTimeout | SlotBusy | SupersededError)
        status = error.status if mute else _fail(error, settings)
        return status if conflict_status is None or not isinstance(error, SlotUnavailable) else conflict_status
    except OSError as error:  # of stdout: the rooms below turn theirs into failures of ours
        if error.errno == errno.EMFILE:
            return _fail(from_os(error, str(error.filename)), settings)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # or the interpreter would try again at its end
        if isinstance(error, BrokenPipeError):
            return 0  # its reader has left (`ipclock status | head -1`): there is nothing to say
        failure = PoolCreateError(error.filename if isinstance(error.filename, str) else "stdout", reason_of(error))
        return _fail(failure, settings)
    except Exception as error:  # a bug: still one line, unless IPCLOCK_DEBUG asks for the traceback
        if debugging():
            raise
        say(
            _("ipclock: internal error: {error} (please report it; IPCLOCK_DEBUG=1 shows where)").format(
                error=repr(error)
            )
        )
        return IpclockError.status


def _fail(error: IpclockError, settings: Settings | None) -> int:
    """Tell of a failure that ends the process, and return its status."""
    if isinstance(error, FewDescriptorsError):
        os.closerange(3, os.sysconf("SC_OPEN_MAX"))  # what tells of it has to be loaded
    say(error_text(error, settings))
    return error.status


def _own_words() -> list[str]:
    """Return the words of our command line, native.

    Those in sys.argv were decoded by the C library. Python's own codec cannot encode all of them again, as in EUC-KR,
    and then no command could be started with them.
    """
    words = sys.argv[1:]
    if not utf8.ALIKE and words:
        with suppress(OSError):
            words = list(map(os.fsdecode, process.own_command_line()[-len(words) :]))
    return words


def _flush() -> None:
    if sys.stdout is not None:
        sys.stdout.flush()


def _parse(arguments: list[str]) -> Namespace:
    # the command to wrap is what follows the first `--`, to the letter: argparse never sees it
    end = arguments.index("--") if "--" in arguments else len(arguments)
    ours = list(map(utf8.text_of, arguments[:end]))
    args = _read_usual(ours) or _parse_all([*ours, *arguments[end:]], end)
    args.command_line = arguments[end + 1 :]
    if args.command == "wrap" and not args.command_line:
        from ipclock.cli import mistakes

        raise mistakes.no_command(args.label)
    if args.command_line and args.command != "wrap":
        raise UsageError(_("unrecognized arguments: {arguments}").format(arguments=" ".join(arguments[end:])))
    return args


def _read_usual(words: list[str]) -> Namespace | None:
    if not words or words[0] not in COMMANDS:
        return None
    reader = Reader()
    _module(words[0]).add_arguments(reader)
    args = reader.read(words[1:])
    if args:
        args.command = words[0]
    return args  # type: ignore[return-value]  # it has what a Namespace has


def _parse_all(arguments: list[str], end: int) -> Namespace:
    from ipclock.cli import mistakes
    from ipclock.cli.parser import commands_of

    words = mistakes.command_first(arguments[:end] if arguments else ["--help"])
    named = words[0] if words and not words[0].startswith("-") else None
    if named not in (None, *COMMANDS, *UNLISTED):
        raise mistakes.command(str(named))
    parser = get_parser(named)
    try:
        args, unknown = parser.parse_known_args(words)
    except UsageError as error:
        raise mistakes.incomplete(error, str(named), arguments[end + 1 :]) from None
    if unknown and named == "wrap" and end == len(arguments) and not unknown[0].startswith("-"):
        raise mistakes.no_command(args.label, unknown)
    if unknown:
        raise mistakes.unrecognized(unknown, args.command, commands_of(parser)[args.command]._option_string_actions)
    return args


def error_text(error: IpclockError, settings: Settings | None) -> str:
    """Return what a person reads of a failure: what and where, then what to do about it, in the language in use."""
    from ipclock.cli import advice  # few runs fail

    what, remedy = advice.for_caller(error, settings)
    if isinstance(error, SlotUnavailable) and settings:
        lines = [f"❌ {what}"]
        if isinstance(error, SlotTimeout):
            lines.append(_("   current builds: {hint}").format(hint=settings.status_hint))
            lines.append(_("   force unlock: {hint}").format(hint=advice.reset_hint(settings)))
    else:
        lines = [f"ipclock: {what}"]
    if remedy:
        lines.append("   " + remedy)
    return "\n".join(lines)
