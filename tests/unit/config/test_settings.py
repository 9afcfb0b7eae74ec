"""Settings: where each comes from, and when a change of its file is told."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from ipclock.config import values
from ipclock.config.settings import DEFAULT_FILES, SETTINGS, CapacityFile, load_settings, survey_settings
from ipclock.errors import InvalidValueError, SettingsError

if TYPE_CHECKING:
    from collections.abc import Callable


KEYS = [setting.key for setting in SETTINGS]


# for each key: the texts that stand in option, environment and file, with the values that they mean; the default
SOURCES: dict[str, tuple[tuple[str, Any], tuple[str, Any], tuple[str, Any], Any]] = {
    "MAX_PARALLEL_BUILDS": (("2", 2), ("3", 3), ("4", 4), None),
    "BUILD_TIMEOUT": (("1m", 60.0), ("2", 2.0), ("3.5", 3.5), 600.0),
    "LOCK_DIR": (("/o", "/o"), ("/e", "/e"), ("/f", "/f"), "/dev/shm"),
    "SEMAPHORE_NAME": (("/o", "/o"), ("e", "/e"), ("/f", "/f"), "/oracle-build"),
    "BUILD_SLOTS": (("2", 2), ("3", 3), ("4", 4), 1),
    "MAX_PER_LABEL": (("2", 2), ("3", 3), ("4", 4), None),
    "BUILD_PRIORITY": (("-20", -20), ("19", 19), ("-1", -1), 0),
    "PRIORITY_MIN": (("-20", -20), ("19", 19), ("-1", -1), None),
    "FAIR": (("user", "user"), ("session", "session"), ("off", "off"), None),
    "MEMORY": (("3G", 3 << 30), ("auto", "auto"), ("1.5M", 3 << 19), None),
    "MIN_FREE_MEMORY": (("3g", 3 << 30), ("1KiB", 1024), ("7", 7), None),
    "LOCK_MODE": (("0660", 0o660), ("600", 0o600), ("660", 0o660), None),
    "LOCK_GROUP": (("0", 0), ("root", 0), ("2000200000", 2000200000), None),
    "LEFTOVERS": (("kill", "kill"), ("wait", "wait"), ("release", "release"), "release"),
    "ENGINE": (
        ("zookeeper://o/p", "zookeeper://o/p"),
        ("zookeeper://a:1,b:2/p/q?session=9", "zookeeper://a:1,b:2/p/q?session=9"),
        ("zookeeper://[::1]:2181/p", "zookeeper://[::1]:2181/p"),
        None,
    ),
    "ON_LOST": (("warn", "warn"), ("kill", "kill"), ("warn", "warn"), "kill"),
    "HISTORY": (("/o", "/o"), ("off", None), ("none", None), values.history("auto")),
    "HISTORY_DAYS": (("1", 1), ("36500", 36500), ("007", 7), 90),
    "LOG_DIR": (("/o", "/o"), ("/e", "/e"), ("/f", "/f"), values.log_dir("auto")),
    "LOG_LIMIT": (("1M", 1 << 20), ("2k", 2 << 10), ("7", 7), 64 << 20),
    "LOG_DAYS": (("1", 1), ("36500", 36500), ("007", 7), 30),
    "PROGRESS_INTERVAL": (("1", 1.0), ("2", 2.0), ("0.5", 0.5), 5.0),
    "ON_WAIT": (("o 'o'", "o 'o'"), ("e", "e"), ("off", None), None),
    "ON_ACQUIRE": (("o", "o"), ("none", None), ("f", "f"), None),
    "ON_RELEASE": (("", None), ("e", "e"), ("f", "f"), None),
    "ON_TIMEOUT": (("o", "o"), ("e", "e"), ("''", None), None),
    "STATUS_HINT": (("o", "o"), ("e", "e"), ("f", "f"), "ipclock status"),
    "RESET_HINT": (("o", "o"), ("e", "e"), ("f", "f"), None),
}


def outcome(function: Callable[[], object]) -> object:
    """Return the result, or the kind of error and its exit status."""
    try:
        return function()
    except (InvalidValueError, SettingsError) as error:
        return type(error).__name__, error.status


# Where a setting comes from


def test_each_source_is_told(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file.write_text("STATUS_HINT=f\nRESET_HINT=f\nBUILD_TIMEOUT=7\n")
    monkeypatch.setenv("RESET_HINT", "e")
    monkeypatch.setenv("BUILD_TIMEOUT", "8")

    found = survey_settings({"BUILD_TIMEOUT": "9"})

    told = {source.setting.key: (source.text, source.where, source.file, source.line) for source in found.sources}
    assert (found.places[0], found.files, found.problems, list(told)) == (str(file), [str(file)], [], KEYS)
    assert [told[key] for key in ("BUILD_TIMEOUT", "RESET_HINT", "STATUS_HINT", "LEFTOVERS")] == [
        ("9", "--wait", None, 0),
        ("e", "$RESET_HINT", None, 0),
        ("f", f"{file}: STATUS_HINT", str(file), 1),
        ("release", "", None, 0),
    ]


@pytest.mark.parametrize("content", ["no assignment", "BUILD_TIMEOUT=soon"])
def test_leniently_the_default_stands_in_for_what_is_wrong(file: Path, content: str) -> None:
    file.write_text(f"{content}\n")

    strict = outcome(load_settings)

    assert (strict[1] if isinstance(strict, tuple) else 0, load_settings(lenient=True).build_timeout) == (78, 600)


def test_every_setting_is_covered_here() -> None:
    assert list(SOURCES) == KEYS


def test_settings_do_not_change() -> None:
    settings = load_settings()

    with pytest.raises(AttributeError, match="build_slots"):
        settings.build_slots = 2

    other = settings.replace(build_slots=2)
    assert (settings.build_slots, other.build_slots, other.history) == (1, 2, settings.history)


@pytest.mark.parametrize("key", KEYS)
def test_option_goes_before_environment_before_file_before_default(
    key: str, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    option, environment, in_file, default = SOURCES[key]
    seen = [getattr(load_settings({key: None}), key.lower())]

    file.write_text(f"{key}={in_file[0]}\n")
    seen.append(getattr(load_settings({key: None}), key.lower()))
    monkeypatch.setenv(key, environment[0])
    seen.append(getattr(load_settings({key: None}), key.lower()))
    seen.append(getattr(load_settings({key: option[0]}), key.lower()))

    assert seen == [default, in_file[1], environment[1], option[1]]


@pytest.mark.parametrize("key", KEYS)
def test_an_empty_variable_is_as_good_as_none(key: str, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(key, "")
    file.write_text(f"{key}={SOURCES[key][2][0]}\n")

    assert getattr(load_settings(), key.lower()) == SOURCES[key][2][1]


@pytest.mark.parametrize("key", KEYS)
def test_a_bad_value_is_blamed_on_the_place_where_it_stood(
    key: str, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = []
    file.write_text(f"{key}='\t'\n")
    for environment, option in (("", None), ("\t", None), ("\t", "\t")):
        monkeypatch.setenv(key, environment)
        with pytest.raises(InvalidValueError) as caught:
            load_settings({key: option})
        found.append((caught.value.where, caught.value.status))

    setting = SETTINGS[KEYS.index(key)]
    assert found == [(f"{file}: {key}", 78), (f"${key}", 78), (setting.option, 2)]


def test_a_bad_value_that_is_overruled_does_no_harm(file: Path) -> None:
    file.write_text("MAX_PARALLEL_BUILDS=lots\n")

    assert load_settings({"MAX_PARALLEL_BUILDS": "2"}).max_parallel_builds == 2


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Path]:
    """The places of settings files, the farthest first, each with a folder and no file."""
    found = {}
    for name, folder in {"system": "etc", "user": "xdg/ipclock", "variable": "v", "option": "o"}.items():
        found[name] = tmp_path / folder / "build-config.sh"
        found[name].parent.mkdir(parents=True)
    monkeypatch.setattr("ipclock.config.settings.DEFAULT_FILES", (DEFAULT_FILES[0], str(found["system"])))
    monkeypatch.delenv("IPCLOCK_CONFIG")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "xdg"))
    return found


def test_files_add_up_and_the_nearer_one_wins_for_each_key(
    places: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = [load_settings().max_parallel_builds]

    for number, (name, path) in enumerate(places.items(), 1):
        keys = ("MAX_PARALLEL_BUILDS", "BUILD_SLOTS", "BUILD_TIMEOUT", "PROGRESS_INTERVAL")[: 5 - number]
        path.write_text("".join(f"{key}={number}\n" for key in keys))
        if name == "variable":
            monkeypatch.setenv("IPCLOCK_CONFIG", str(path))
        found = load_settings({"CONFIG": str(path) if name == "option" else None})
        seen.append(found.max_parallel_builds)

    # --config stands in for the variable
    assert (seen, found.build_slots, found.build_timeout, found.progress_interval) == ([None, 1, 2, 3, 4], 2, 2, 1)
    assert found.capacity_file == str(places["option"])


def test_a_key_of_a_farther_file_is_told_with_that_file_and_its_line(places: dict[str, Path]) -> None:
    places["system"].write_text("# all\n\nLOCK_DIR=/run/ipclock\nMAX_PARALLEL_BUILDS=2\n")
    places["user"].write_text("BUILD_TIMEOUT=7\n")

    found = {source.setting.key: source for source in survey_settings().sources}

    assert [(found[key].file, found[key].line) for key in ("LOCK_DIR", "BUILD_TIMEOUT")] == [
        (str(places["system"]), 3),
        (str(places["user"]), 1),
    ]
    assert load_settings().capacity_file == str(places["system"])


@pytest.mark.parametrize("broken", ["system", "user"])
def test_a_broken_file_is_refused_although_a_nearer_one_is_in_order(broken: str, places: dict[str, Path]) -> None:
    places["option"].write_text("BUILD_TIMEOUT=7\n")
    places[broken].write_text("no assignment\n")

    with pytest.raises(SettingsError) as caught:
        load_settings({"CONFIG": str(places["option"])})

    lenient = load_settings({"CONFIG": str(places["option"])}, lenient=True)
    assert (caught.value.path, lenient.build_timeout) == (f"{places[broken]}:1", 7)


def test_without_xdg_config_home_the_file_lies_in_the_home_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / ".config" / "ipclock" / "build-config.sh"
    path.parent.mkdir(parents=True)
    path.write_text("MAX_PARALLEL_BUILDS=7\n")
    monkeypatch.delenv("IPCLOCK_CONFIG")
    monkeypatch.delenv("XDG_CONFIG_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))

    assert load_settings().max_parallel_builds == 7


def test_only_a_capacity_that_the_file_gave_is_watched(file: Path) -> None:
    file.write_text("MAX_PARALLEL_BUILDS=2\n")

    given_by_file, given_by_option = load_settings(), load_settings({"MAX_PARALLEL_BUILDS": "3"})

    assert (given_by_file.capacity_file, given_by_option.capacity_file) == (str(file), None)


def test_a_drained_pool_is_watched_for_the_file_that_drained_it(file: Path) -> None:
    file.write_text("MAX_PARALLEL_BUILDS=0\n")

    assert load_settings().capacity_file == str(file)


def test_the_file_that_gave_a_hook_is_told_unless_the_environment_goes_before_it(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file.write_text("ON_WAIT='notify --to \"the team\"'\nON_RELEASE=off\n")

    by_file = load_settings()
    monkeypatch.setenv("ON_WAIT", "notify")

    assert (by_file.on_wait, by_file.on_release) == ('notify --to "the team"', None)
    assert (load_settings().on_wait, by_file.hook_files, load_settings().hook_files) == (
        "notify",
        {"ON_WAIT": str(file)},
        {},
    )


# A change of the file while somebody waits


def replaced_in_place(path: Path, text: str) -> None:
    path.write_text(text)


def replaced_by_rename(path: Path, text: str) -> None:
    draft = path.with_suffix(".new")
    draft.write_text(text)
    draft.rename(path)


@pytest.mark.parametrize("replace", [replaced_in_place, replaced_by_rename])
def test_a_change_of_the_capacity_is_told_once(replace: Callable[[Path, str], None], file: Path) -> None:
    file.write_text("MAX_PARALLEL_BUILDS=1\n")
    watched = CapacityFile(load_settings())
    seen = [watched.changed()]

    replace(file, "MAX_PARALLEL_BUILDS=2 # from now on\n")
    seen += [watched.changed(), watched.changed()]

    assert seen == [None, 2, None]


def test_a_change_is_told_that_leaves_the_file_as_long_and_as_old_as_it_was(file: Path) -> None:
    file.write_text("MAX_PARALLEL_BUILDS=1\n")
    watched = CapacityFile(load_settings())
    seen = [watched.changed()]
    written_at = file.stat().st_mtime_ns

    for number in (2, 3):
        file.write_text(f"MAX_PARALLEL_BUILDS={number}\n")
        os.utime(file, ns=(written_at, written_at))
        seen.append(watched.changed())

    assert seen == [None, 2, 3]


@pytest.mark.parametrize(
    "content",
    ["", "MAX_PARALLEL_BUILDS=", "MAX_PARALLEL_BUILDS='2", "MAX_PARALLEL_BUILDS=-1", "MAX", "BUILD_TIMEOUT=5"],
)
def test_a_half_written_file_changes_nothing_until_it_is_whole(content: str, file: Path) -> None:
    file.write_text("MAX_PARALLEL_BUILDS=1\n")
    watched = CapacityFile(load_settings())

    file.write_text(content)
    seen = [watched.changed()]
    file.write_text("MAX_PARALLEL_BUILDS=2 # whole\n")
    seen.append(watched.changed())

    assert seen == [None, 2]


def test_a_file_that_vanishes_changes_nothing_until_it_is_back(file: Path) -> None:
    file.write_text("MAX_PARALLEL_BUILDS=1\n")
    watched = CapacityFile(load_settings())

    file.unlink()
    seen = [watched.changed(), watched.changed()]
    file.write_text("MAX_PARALLEL_BUILDS=2\n")
    seen.append(watched.changed())

    assert seen == [None, None, 2]


def test_a_change_between_the_reading_and_the_watching_is_told(file: Path) -> None:
    file.write_text("MAX_PARALLEL_BUILDS=1\n")
    read = load_settings()

    file.write_text("MAX_PARALLEL_BUILDS=2 # just now\n")

    assert CapacityFile(read).changed() == 2


def test_a_capacity_from_elsewhere_is_not_watched(file: Path) -> None:
    watched = CapacityFile(load_settings({"MAX_PARALLEL_BUILDS": "3"}))

    file.write_text("MAX_PARALLEL_BUILDS=2\n")

    assert watched.changed() is None
