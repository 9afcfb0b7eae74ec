"""Settings: option, else environment, else settings files, else default, as one frozen `Settings`.

The settings files add up, key by key, the nearer one first. They are the shell files of deploy scripts; they are read,
never executed. Guarantees: every value has been checked (`values`).
"""

from __future__ import annotations

import os
import time

from ipclock import utf8
from ipclock._typing import TYPE_CHECKING, NamedTuple
from ipclock.config import values
from ipclock.errors import InvalidValueError, SettingsError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any, TypeVar, overload

    T = TypeVar("T")

DEFAULT_NAME = "/oracle-build"
SETTLED_NS = 100_000_000  # so coarse may a file system's time stamps be
# the nearer one first
DEFAULT_FILES = ("{XDG_CONFIG_HOME}/ipclock/build-config.sh", "/etc/ipclock/build-config.sh")


class Setting(NamedTuple):
    """One setting: the check that makes its value, its default, its option, its key in file and environment."""

    check: Callable[[str], Any]
    default: str | None
    option: str
    key: str = ""


if TYPE_CHECKING:

    @overload
    def setting(check: Callable[[str], T], default: str, option: str = "") -> T: ...
    @overload
    def setting(check: Callable[[str], T], default: None, option: str = "") -> T | None: ...


def setting(check: Callable[[str], Any], default: str | None, option: str = "") -> Any:
    """Declare an attribute of `Settings`: a value that *check* makes of a text, None where there is no *default*."""
    return Setting(check, default, option)


class Settings:
    """The settings of one run. Times are in seconds, memory in bytes; names and paths are native, the rest is text.

    `max_parallel_builds` is None where it is not set: an existing pool then keeps its capacity.
    `fair` is None where it is not set: a pool then keeps what its owner has said.
    `reset_hint` is None where it is not set: what helps depends on the reader.
    `history` is the file of finished builds, None where none is kept. `log_dir` is where the output of builds is kept
    (`wrap --detach`), None for a user without a home.
    `on_wait` and its like are commands for sh(1), None where nothing is to be run.
    `capacity_file` names the settings file that gave the capacity, None where it came from elsewhere. `hook_files` has
    for each hook that a settings file gave, by its key, that file.
    """

    max_parallel_builds = setting(values.capacity, None, "--max-parallel-builds")
    build_timeout = setting(values.seconds, "600", "--wait")
    lock_dir = setting(values.directory, "/dev/shm", "--lock-dir")
    semaphore_name = setting(values.name, DEFAULT_NAME, "--name")
    build_slots = setting(values.slots, "1", "--slots")
    max_per_label = setting(values.slots, None, "--per-label")
    build_priority = setting(values.priority, "0", "--priority")
    priority_min = setting(values.priority, None, "--priority-min")
    fair = setting(values.fair, None, "--fair")
    memory = setting(values.memory_or_auto, None, "--memory")
    min_free_memory = setting(values.memory, None)
    lock_mode = setting(values.mode, None, "--mode")
    lock_group = setting(values.group, None, "--group")
    leftovers = setting(values.leftovers, "release", "--leftovers")
    engine = setting(values.engine, None, "--engine")
    on_lost = setting(values.on_lost, "kill", "--on-lost")
    history = setting(values.history, "auto")
    history_days = setting(values.days, "90")
    log_dir = setting(values.log_dir, "auto")
    log_limit = setting(values.memory, "64M")
    log_days = setting(values.days, "30")
    progress_interval = setting(values.interval, "5")
    on_wait = setting(values.hook, None)
    on_acquire = setting(values.hook, None)
    on_release = setting(values.hook, None)
    on_timeout = setting(values.hook, None)
    status_hint = setting(values.line, "ipclock status")
    reset_hint = setting(values.line, None)
    capacity_file: str | None
    hook_files: Mapping[str, str]

    def __init__(
        self,
        found: Mapping[str, Any],
        capacity_file: str | None = None,
        hook_files: Mapping[str, str] = {},
    ) -> None:
        self.__dict__.update(found, capacity_file=capacity_file, hook_files=hook_files)

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"settings do not change: {name}")

    def replace(self, **changes: object) -> Settings:
        """Return the same settings but for these."""
        made = Settings({})
        made.__dict__.update(self.__dict__, **changes)
        return made

    @property
    def pool_name(self) -> str:
        """The pool's name, as text: the semaphore's, or where several hosts share it the path on the servers."""
        if self.engine is None:
            return utf8.text_of(self.semaphore_name)
        from ipclock.config import engine_url

        return engine_url.path_of(self.engine)

    @property
    def shared_with(self) -> int | None:
        """The group (gid) that may use a pool of ours besides its owner; None: none. LOCK_MODE=0600 excludes all."""
        if self.lock_mode == 0o600:
            return None
        return os.getegid() if self.lock_group is None and self.lock_mode else self.lock_group


SETTINGS = tuple(
    declared._replace(key=name.upper()) for name, declared in vars(Settings).items() if isinstance(declared, Setting)
)


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
        """Return the checked value. Raises InvalidValueError (status 2 for an option, 78 elsewhere)."""
        if self.text is None:
            return None
        return _checked(self.setting.check, self.text, self.where, usage=self.where == self.setting.option)

    def lenient_value(self) -> Any:
        """Return the checked value, the default's where the text cannot be one."""
        try:
            return self.value()
        except InvalidValueError:
            return Source(self.setting, self.setting.default).value()


class Survey(NamedTuple):
    """Where settings were looked for: `places` of settings files, `files` that were read, each key's source.

    The nearest place comes first, one that was `asked_for`. `problems` are why files could not be read or understood;
    such a file counts as one that says nothing.
    """

    places: list[str]
    files: list[str]
    problems: list[SettingsError]
    sources: list[Source]
    asked_for: str | None = None


def survey_settings(options: Mapping[str, str | None] = {}) -> Survey:
    """Find out where each setting stands: in *options* (by key, None = not given), environment, files or default."""
    option = options.get("CONFIG")
    asked_for = os.environ.get("IPCLOCK_CONFIG") or None if option is None else utf8.native(option)
    usual = [path for path in usual_files(_config_home()) if path != asked_for]
    places = usual if asked_for is None else [asked_for, *usual]
    problems: list[SettingsError] = []
    found = read_files([path for path in places if path == asked_for or os.path.lexists(path)], problems)
    sources = [_source(setting, options, found) for setting in SETTINGS]
    return Survey(places, list(found), problems, sources, asked_for)


def read_files(paths: list[str], problems: list[SettingsError]) -> dict[str, dict[str, tuple[str, int]]]:
    """Return by path what settings files assign, text and line by key; why one cannot be read goes to *problems*."""
    found = {}
    for path in paths:
        try:
            found[path] = _assigned(path)
        except SettingsError as error:
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


def load_settings(options: Mapping[str, str | None] = {}, *, lenient: bool = False) -> Settings:
    """Make the settings from *options* (by key, None = not given), environment, files and defaults.

    Raises InvalidValueError (status 2 for an option, 78 elsewhere) and SettingsError (78). If *lenient*, the default
    stands in for what is wrong.
    """
    found = survey_settings(options)
    if found.problems and not lenient:
        raise found.problems[0]
    found_values = {
        source.setting.key.lower(): source.lenient_value() if lenient else source.value() for source in found.sources
    }
    said = [source for source in found.sources if found_values[source.setting.key.lower()] is not None]
    files = {source.setting.key: source.file for source in said if source.file}
    hooks = {source.setting.key for source in found.sources if source.setting.check is values.hook}
    hook_files = {key: path for key, path in files.items() if key in hooks}
    return Settings(found_values, files.get("MAX_PARALLEL_BUILDS"), hook_files)


def read_hooks(path: str) -> dict[str, str | None]:
    """Return the hooks by key, as the settings file at *path* has them now."""
    found = {path: _assigned(path)}
    return {setting.key: source_in(setting, found).value() for setting in SETTINGS if setting.check is values.hook}


def checked(check: Callable[[str], T], text: str, where: str) -> T:
    """Return the value that an argument called *where* means. Raises InvalidValueError (2)."""
    return _checked(check, text, where, usage=True)


def _checked(check: Callable[[str], T], text: str, where: str, *, usage: bool = False) -> T:
    try:
        return check(text)
    except ValueError as error:
        raise InvalidValueError(where, text, str(error), usage=usage) from None


def settings_file(path: str) -> dict[str, str]:
    """Return what a settings file assigns to keys of ours. Raises SettingsError (78) with the line's number."""
    return {key: text for key, (text, _) in _assigned(path).items()}


def _assigned(path: str) -> dict[str, tuple[str, int]]:
    from ipclock.config import shell_file  # few commands have one to read

    return shell_file.assignments(path, {setting.key for setting in SETTINGS})


class CapacityFile:
    """Tells when the settings file that gave the capacity gives another one; without *settings* never."""

    def __init__(self, settings: Settings | None) -> None:
        self._path = settings.capacity_file if settings else None
        self._known = settings.max_parallel_builds if settings else None
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
            given = values.capacity(text) if text else None
        except (SettingsError, ValueError):
            return None
        if given in (None, self._known):
            return None
        self._known = given
        return given
