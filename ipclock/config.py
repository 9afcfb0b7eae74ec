"""Settings: option, else environment, else settings files, else default, as one frozen `Settings`.

The only reader of the environment. The settings files add up, key by key, the nearer one first. They are the shell
files of deploy scripts; they are read, never executed. Guarantees: every value has been checked, so that no name or
number can crash glibc or posix_ipc (a NUL or a lone surrogate in a semaphore's name ends the interpreter). A check
takes text and returns names and paths native (`utf8`).
"""

from __future__ import annotations

import math
import os
import time
from contextlib import suppress

from ipclock import procfs, users, utf8
from ipclock.errors import N_, BadConfig, BadValue
from ipclock.values import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any, TypeVar

    T = TypeVar("T")


MAX_CAPACITY = 1000
MAX_LABEL_BYTES = 255
# room for "sem." before it and ".<ticket>" behind it within the 255 bytes of a file name
MAX_NAME_BYTES = 200
DEFAULT_NAME = "/oracle-build"
LEFTOVERS = ("release", "wait", "kill")
ON_LOST = ("kill", "warn")

_DIGITS, _FLOAT = set("0123456789."), set("0123456789.eE+-")
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}

SETTLED_NS = 100_000_000  # so coarse may a file system's time stamps be

_SIZES = ("", "k", "m", "g", "t")

_COERCED = ("C.UTF-8", "C.utf8", "UTF-8")
JOB_VARIABLES = ("CARGO_BUILD_JOBS", "CMAKE_BUILD_PARALLEL_LEVEL")
SYSTEM_HISTORY = "/var/lib/ipclock/history.db"

# the nearer one first
DEFAULT_FILES = ("{XDG_CONFIG_HOME}/ipclock/build-config.sh", "/etc/ipclock/build-config.sh")


def capacity(text: str) -> int:
    """A number of slots, 0 (the pool is drained) to `MAX_CAPACITY`. Raises ValueError with what is expected."""
    return _whole(text, 0, MAX_CAPACITY, N_("a whole number from 0 to 1000"))


def slots(text: str) -> int:
    """How many slots a build takes, or how many builds of a label may run: 1 to `MAX_CAPACITY`."""
    return _whole(text, 1, MAX_CAPACITY, N_("a whole number from 1 to 1000"))


def priority(text: str) -> int:
    """A priority as nice(1) has it, -20 (first) to 19 (last)."""
    return _whole(text, -20, 19, N_("a whole number from -20 (first) to 19 (last)"))


def _whole(text: str, lowest: int, highest: int, expected: str) -> int:
    digits = text.removeprefix("-")
    if not (digits.isascii() and digits.isdigit() and len(digits) <= 4 and lowest <= int(text) <= highest):
        raise ValueError(expected)
    return int(text)


def memory(text: str) -> int:
    """An amount of memory in bytes: `3G`, `512M`, `1.5GiB`, in powers of 1024."""
    bare = text.lower().removesuffix("b").removesuffix("i")
    number, unit = (bare[:-1], bare[-1]) if bare[-1:] in _SIZES[1:] else (bare, "")
    whole, dot, part = number.partition(".")
    if not all(digits.isascii() and digits.isdigit() and len(digits) < 10 for digits in [whole] + [part] * bool(dot)):
        raise ValueError(N_("an amount of memory, as in 3G or 512M"))
    return int(float(number) * 1024 ** _SIZES.index(unit))


def memory_or_auto(text: str) -> int | str:
    """An amount of memory in bytes, or "auto": as much as builds of the label have needed before."""
    return text if text == "auto" else memory(text)


def seconds(text: str) -> float:
    """A span of time in seconds; `30`, `0.5`, `90s`, `10m`, `2h`, `1d` as timeout(1) takes them."""
    number, unit = (text[:-1], text[-1]) if text[-1:] in _UNITS else (text, "s")
    span = math.inf
    # float() takes more: signs, blanks, underscores, "nan", the digits of other scripts
    if number[:1] in _DIGITS and set(number) <= _FLOAT:
        with suppress(ValueError):
            span = float(number) * _UNITS[unit]
    if not math.isfinite(span):
        raise ValueError(N_("seconds, as in 600, 0.5, 90s, 10m or 2h"))
    return span


def interval(text: str) -> float:
    """A span of time above zero."""
    span = seconds(text)
    if span <= 0:
        raise ValueError(N_("seconds above zero"))
    return span


def drain_span(text: str) -> float:
    """How long a drain lasts, in seconds: above zero, and no longer than a clock can tell."""
    span = interval(text)
    if span > 36500 * _UNITS["d"]:
        raise ValueError(N_("at most 36500 days"))
    return span


def _printable(text: str, limit: int) -> bool:
    try:
        return 0 < len(text.encode()) <= limit and text.isprintable()
    except UnicodeEncodeError:
        return False


def name(text: str) -> str:
    """A semaphore's name (sem_overview(7)); the leading slash may be left out. Returns it with the slash, native.

    A name that ends in a dot and digits is refused: that is how the turn semaphores of a pool are named.
    """
    bare = text.removeprefix("/")
    if (
        not _printable(bare, MAX_NAME_BYTES)
        or "/" in bare
        or bare[0] == "."
        or (bare.rpartition(".")[2].isdigit() and "." in bare)
    ):
        raise ValueError(N_("a name like /oracle-build: printable, one slash at most, 200 bytes at most"))
    return utf8.native("/" + bare)


def directory(text: str) -> str:
    """An absolute path of a folder. Returns it native."""
    if not (_printable(text, 4000) and text[0] == "/"):
        raise ValueError(N_("an absolute path"))
    return utf8.native(os.path.normpath(text))


def mode(text: str) -> int:
    """Who may use a pool, as the mode of its files: 0600 the owner alone, 0660 a group too."""
    if text.removeprefix("0") not in ("600", "660"):
        raise ValueError(N_("0600 (the owner alone) or 0660 (the group too)"))
    return int(text, 8)


def group(text: str) -> int:
    """A group by name or number, as chgrp(1) takes it; returns its gid."""
    import grp

    try:
        return grp.getgrnam(utf8.native(text)).gr_gid
    except (KeyError, UnicodeEncodeError):
        if not (text.isascii() and text.isdigit() and len(text) < 10):
            raise ValueError(N_("the name or number of a group")) from None
        return int(text)


def line(text: str) -> str:
    """One line of printable UTF-8 text."""
    if not _printable(text, 1000):
        raise ValueError(N_("one line of printable UTF-8 text"))
    return text


def hook(text: str) -> str | None:
    """A command line for sh(1), or None for `off`, `none` and no text at all."""
    return None if text in ("", "off", "none") else line(text)


def leftovers(text: str) -> str:
    """What becomes of processes that outlive their build: release, wait or kill."""
    if text not in LEFTOVERS:
        raise ValueError(N_("release, wait or kill"))
    return text


def engine(text: str) -> str:
    """Where a pool that several hosts share is kept."""
    from ipclock import address  # few have one

    return address.checked(text)


def on_lost(text: str) -> str:
    """What becomes of a build whose slot nobody can vouch for: kill or warn."""
    if text not in ON_LOST:
        raise ValueError(N_("kill or warn"))
    return text


def history(text: str) -> str | None:
    """A file for finished builds: an absolute path, `auto`, or None for `off`, `none` and no text at all.

    `auto` is one for the whole machine where we may write to it, as root may, else one of the user's own; None for a
    user without a home.
    """
    if text in ("", "off", "none"):
        return None
    if text != "auto":
        return directory(text)
    if (os.geteuid() == 0 and users.shows_all()) or os.access(SYSTEM_HISTORY, os.W_OK):
        return SYSTEM_HISTORY
    home = os.environ.get("XDG_STATE_HOME", "")
    if not home.startswith("/"):  # a relative one is to be ignored (XDG Base Directory Specification)
        home = os.path.expanduser("~/.local/state")
    return f"{home}/ipclock/history.db" if home.startswith("/") else None


def days(text: str) -> int:
    """A number of days from 1 to 36500."""
    if not (text.isascii() and text.isdigit() and len(text) <= 5 and 1 <= int(text) <= 36500):
        raise ValueError(N_("a whole number of days from 1 to 36500"))
    return int(text)


def label(text: str) -> str:
    """A build's label: printable UTF-8 text of at most 255 bytes."""
    if not _printable(text, MAX_LABEL_BYTES) or text.isspace():
        raise ValueError(N_("printable UTF-8 text of at most 255 bytes"))
    return text


class Setting(NamedTuple):
    """One setting: its key in file and environment, the check that makes its value, its default, its option."""

    key: str
    check: Callable[[str], Any]
    default: str | None
    option: str = ""


SETTINGS = (
    Setting("MAX_PARALLEL_BUILDS", capacity, None, "--max-parallel-builds"),
    Setting("BUILD_TIMEOUT", seconds, "600", "--wait"),
    Setting("LOCK_DIR", directory, "/dev/shm", "--lock-dir"),
    Setting("SEMAPHORE_NAME", name, DEFAULT_NAME, "--name"),
    Setting("BUILD_SLOTS", slots, "1", "--slots"),
    Setting("MAX_PER_LABEL", slots, None, "--per-label"),
    Setting("BUILD_PRIORITY", priority, "0", "--priority"),
    Setting("PRIORITY_MIN", priority, None, "--priority-min"),
    Setting("MEMORY", memory_or_auto, None, "--memory"),
    Setting("MIN_FREE_MEMORY", memory, None),
    Setting("LOCK_MODE", mode, None, "--mode"),
    Setting("LOCK_GROUP", group, None, "--group"),
    Setting("LEFTOVERS", leftovers, "release", "--leftovers"),
    Setting("ENGINE", engine, None, "--engine"),
    Setting("ON_LOST", on_lost, "kill", "--on-lost"),
    Setting("HISTORY", history, "auto"),
    Setting("HISTORY_DAYS", days, "90"),
    Setting("PROGRESS_INTERVAL", interval, "5"),
    Setting("ON_WAIT", hook, None),
    Setting("ON_ACQUIRE", hook, None),
    Setting("ON_RELEASE", hook, None),
    Setting("ON_TIMEOUT", hook, None),
    Setting("STATUS_HINT", line, "ipclock status"),
    Setting("RESET_HINT", line, None),
)


class Settings(NamedTuple):
    """The settings of one run. Times are in seconds, memory in bytes; names and paths are native, the rest is text.

    `max_parallel_builds` is None where nobody set it: an existing pool then keeps its capacity.
    `reset_hint` is None where nobody set it: what helps depends on who reads it.
    `history` is the file of finished builds, None where none is kept.
    `on_wait` and its like are commands for sh(1), None where nothing is to be run.
    `capacity_file` names the settings file that gave the capacity, None where it came from elsewhere. `hook_files` has
    for each hook that a settings file gave, by its key, that file.
    """

    max_parallel_builds: int | None
    build_timeout: float
    lock_dir: str
    semaphore_name: str
    build_slots: int
    max_per_label: int | None
    build_priority: int
    priority_min: int | None
    memory: int | str | None
    min_free_memory: int | None
    lock_mode: int | None
    lock_group: int | None
    leftovers: str
    engine: str | None
    on_lost: str
    history: str | None
    history_days: int
    progress_interval: float
    on_wait: str | None
    on_acquire: str | None
    on_release: str | None
    on_timeout: str | None
    status_hint: str
    reset_hint: str | None
    capacity_file: str | None = None
    hook_files: Mapping[str, str] = {}

    @property
    def pool_name(self) -> str:
        """The pool's name, as text: the semaphore's, or where several hosts share it the path on the servers."""
        if self.engine is None:
            return utf8.text_of(self.semaphore_name)
        from ipclock import address

        return address.path_of(self.engine)

    @property
    def shared_with(self) -> int | None:
        """The group (gid) that may use a pool of ours besides its owner; None: nobody. LOCK_MODE=0600 excludes all."""
        if self.lock_mode == 0o600:
            return None
        return os.getegid() if self.lock_group is None and self.lock_mode else self.lock_group


class Source(NamedTuple):
    """A setting's text and where it stands: its option, `$KEY` or `FILE: KEY`; "" for the default.

    `file` names the settings file that gave it, in its `line`; None where it came from elsewhere.
    """

    setting: Setting
    text: str | None
    where: str = ""
    file: str | None = None
    line: int = 0

    def value(self) -> Any:
        """Return the checked value. Raises BadValue (status 2 for an option, 78 elsewhere)."""
        if self.text is None:
            return None
        return _checked(self.setting.check, self.text, self.where, usage=self.where == self.setting.option)

    def lenient_value(self) -> Any:
        """Return the checked value, the default's where the text cannot be one."""
        try:
            return self.value()
        except BadValue:
            return Source(self.setting, self.setting.default).value()


class Survey(NamedTuple):
    """Where settings were looked for: `places` of settings files, `files` that were read, each key's source.

    The nearest place comes first, one that was `asked_for`. `problems` are why files could not be read or understood;
    such a file counts as one that says nothing.
    """

    places: list[str]
    files: list[str]
    problems: list[BadConfig]
    sources: list[Source]
    asked_for: str | None = None


def survey(options: Mapping[str, str | None] = {}) -> Survey:
    """Find out where each setting stands: in *options* (by key, None = not given), environment, files or default."""
    option = options.get("CONFIG")
    asked_for = os.environ.get("IPCLOCK_CONFIG") or None if option is None else utf8.native(option)
    usual = [path for path in usual_files(_config_home()) if path != asked_for]
    places = usual if asked_for is None else [asked_for, *usual]
    problems: list[BadConfig] = []
    found = read_files([path for path in places if path == asked_for or os.path.lexists(path)], problems)
    sources = [_source(setting, options, found) for setting in SETTINGS]
    return Survey(places, list(found), problems, sources, asked_for)


def read_files(paths: list[str], problems: list[BadConfig]) -> dict[str, dict[str, tuple[str, int]]]:
    """Return by path what settings files assign, text and line by key; why one cannot be read goes to *problems*."""
    found = {}
    for path in paths:
        try:
            found[path] = _assigned(path)
        except BadConfig as error:
            problems.append(error)
    return found


def usual_files(config_home: str | None) -> list[str]:
    """Return where the settings files of a user are, the nearer first, and of one without a home."""
    patterns = DEFAULT_FILES if config_home else DEFAULT_FILES[1:]
    return [pattern.format(XDG_CONFIG_HOME=config_home) for pattern in patterns]


def _config_home() -> str:
    return os.environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config")


def _source(
    setting: Setting, options: Mapping[str, str | None], files: Mapping[str, Mapping[str, tuple[str, int]]]
) -> Source:
    key = setting.key
    if (text := options.get(key)) is not None:
        return Source(setting, text, setting.option)
    if data := os.environb.get(key.encode()):
        return Source(setting, utf8.text(data), f"${key}")
    return source_in(setting, files)


def source_in(setting: Setting, files: Mapping[str, Mapping[str, tuple[str, int]]]) -> Source:
    """Return where a setting stands in *files*, each with what it assigns (text and line by key), nearest first."""
    for path, assigned in files.items():
        if setting.key in assigned:
            text, line = assigned[setting.key]
            return Source(setting, text, f"{path}: {setting.key}", path, line)
    return Source(setting, setting.default)


def load(options: Mapping[str, str | None] = {}, *, lenient: bool = False) -> Settings:
    """Make the settings from *options* (by key, None = not given), environment, files and defaults.

    Raises BadValue (status 2 for an option, 78 elsewhere) and BadConfig (78). If *lenient*, the default stands in for
    what is wrong.
    """
    found = survey(options)
    if found.problems and not lenient:
        raise found.problems[0]
    values = {
        source.setting.key.lower(): source.lenient_value() if lenient else source.value() for source in found.sources
    }
    said = [source for source in found.sources if values[source.setting.key.lower()] is not None]
    files = {source.setting.key: source.file for source in said if source.file}
    hooks = {source.setting.key for source in found.sources if source.setting.check is hook}
    return Settings(
        **values,
        capacity_file=files.get("MAX_PARALLEL_BUILDS"),
        hook_files={key: path for key, path in files.items() if key in hooks},
    )


def read_hooks(path: str) -> dict[str, str | None]:
    """Return the hooks by key, as the settings file at *path* has them now."""
    found = {path: _assigned(path)}
    return {setting.key: source_in(setting, found).value() for setting in SETTINGS if setting.check is hook}


def checked(check: Callable[[str], T], text: str, where: str) -> T:
    """Return the value that an argument called *where* means. Raises BadValue (2)."""
    return _checked(check, text, where, usage=True)


def _checked(check: Callable[[str], T], text: str, where: str, *, usage: bool = False) -> T:
    try:
        return check(text)
    except ValueError as error:
        raise BadValue(where, text, str(error), usage=usage) from None


def settings_file(path: str) -> dict[str, str]:
    """Return what a settings file assigns to keys of ours. Raises BadConfig (78) with the line's number."""
    return {key: text for key, (text, _) in _assigned(path).items()}


def _assigned(path: str) -> dict[str, tuple[str, int]]:
    from ipclock import shellfile  # few commands have one to read

    return shellfile.assignments(path, {setting.key for setting in SETTINGS})


class CapacityFile:
    """Tells when the settings file that gave the capacity gives another one; without *settings* never."""

    def __init__(self, settings: Settings | None) -> None:
        self._path = settings and settings.capacity_file
        self._known = settings and settings.max_parallel_builds
        self._seen: tuple[int, int, int] | None = None

    def _stamp(self) -> tuple[int, int, int] | None:
        try:
            status = os.stat(self._path) if self._path else None
        except OSError:
            return None
        # the mtime may be set, and a copy often keeps that of its original
        return (status.st_ino, status.st_ctime_ns, status.st_size) if status else None

    def changed(self) -> int | None:
        """Return the new capacity if the file gives another one than before, else None.

        A file that is gone or cannot be understood changes nothing: an editor may be half way through it.
        """
        if self._path is None or (stamp := self._stamp()) == self._seen:
            return None
        # a later change may have the same time stamp as one of just now, which is read once more
        self._seen = stamp if stamp and abs(time.time_ns() - stamp[1]) > SETTLED_NS else None
        try:
            text = settings_file(self._path).get("MAX_PARALLEL_BUILDS")
            given = capacity(text) if text else None
        except (BadConfig, ValueError):
            return None
        if given in (None, self._known):
            return None
        self._known = given
        return given


def language() -> str:
    """Return the language of messages, "ko" or "en": IPCLOCK_LANG, else the locale (locale(7)'s order)."""
    variables = ("IPCLOCK_LANG", "LC_ALL", "LC_MESSAGES", "LANG")
    chosen = next(filter(None, map(os.environ.get, variables)), "")
    return "ko" if chosen.lower().startswith("ko") else "en"


def plain_terminal() -> bool:
    """Whether the terminal cannot move its cursor (TERM unset or dumb)."""
    return os.environ.get("TERM", "dumb") == "dumb"


def colours() -> bool:
    """Whether a terminal may be written on in colours (https://no-color.org)."""
    return not os.environ.get("NO_COLOR")


def debugging() -> bool:
    """Whether a bug is to show its traceback."""
    return bool(os.environ.get("IPCLOCK_DEBUG"))


def held_slot() -> tuple[str, str] | None:
    """Return (pool name, ticket) that a build around this process left in the environment. Unproven.

    The name is empty where a script exported only the ticket that `ipclock acquire` printed.
    """
    ticket = os.environ.get("IPCLOCK_TICKET")
    return (os.environ.get("IPCLOCK_NAME", ""), ticket) if ticket else None


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
    """Return the user (uid) who has started us as root by sudo(8); None where that is nobody."""
    text = os.environ.get("SUDO_UID", "")
    return int(text) if os.geteuid() == 0 and text.isascii() and text.isdigit() and len(text) < 11 else None


def in_hook() -> bool:
    """Whether this process was started by a hook, whose own builds run no hooks: that would go on for ever."""
    return bool(os.environ.get("IPCLOCK_EVENT"))


def inherited_environment() -> dict[str, str]:
    """Return the environment that this process was started with, as a command gets it that needs no slot of its own.

    In the C locale Python sets LC_CTYPE for itself and for all that it starts (PEP 538); a command is to see its own.
    Without what has no name, which Python passes on to nobody.
    """
    found = {key: text for key, text in os.environ.items() if key}
    if found.get("LC_CTYPE") in _COERCED:
        with suppress(OSError):
            given = procfs.started_with("LC_CTYPE")
            del found["LC_CTYPE"]
            if given is not None:
                found["LC_CTYPE"] = os.fsdecode(given)
    return found
