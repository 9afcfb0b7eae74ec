"""Settings: where each comes from, what each accepts, how the shell file is read, and when its change is told."""

from __future__ import annotations

import math
import os
import shlex
import subprocess
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as some

from ipclock.config import values
from ipclock.config.environment import build_environment, held_slot, inherited_environment, language
from ipclock.config.settings import (
    DEFAULT_FILES,
    SETTINGS,
    CapacityFile,
    Settings,
    checked,
    load_settings,
    settings_file,
    survey_settings,
)
from ipclock.errors import InvalidValueError, SettingsError
from tests.helpers.crash_at import OTHER_USER, USER, in_child, needs_root
from tests.helpers.world import SHM

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
    "PROGRESS_INTERVAL": (("1", 1.0), ("2", 2.0), ("0.5", 0.5), 5.0),
    "ON_WAIT": (("o 'o'", "o 'o'"), ("e", "e"), ("off", None), None),
    "ON_ACQUIRE": (("o", "o"), ("none", None), ("f", "f"), None),
    "ON_RELEASE": (("", None), ("e", "e"), ("f", "f"), None),
    "ON_TIMEOUT": (("o", "o"), ("e", "e"), ("''", None), None),
    "STATUS_HINT": (("o", "o"), ("e", "e"), ("f", "f"), "ipclock status"),
    "RESET_HINT": (("o", "o"), ("e", "e"), ("f", "f"), None),
}
KOREAN = "스테이징 배포"
# a file that each example writes anew may be shared, and a busy machine is no failure
steady = settings(
    deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=200
)


@pytest.fixture(autouse=True)
def bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An environment that says nothing, and no settings file."""
    for key in (*KEYS, "HOME", "IPCLOCK_LANG", "LC_ALL", "LC_MESSAGES", "LANG"):
        monkeypatch.delenv(key, raising=False)
    empty = tmp_path / "empty.sh"
    empty.touch()
    monkeypatch.setenv("IPCLOCK_CONFIG", str(empty))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "nowhere"))


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The settings file in force."""
    path = tmp_path / "build-config.sh"
    path.touch()
    monkeypatch.setenv("IPCLOCK_CONFIG", str(path))
    return path


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


# What a value may be


@pytest.mark.parametrize(("text", "value"), [("0", 0), ("1", 1), ("2", 2), ("1000", 1000), ("07", 7)])
def test_a_capacity_is_a_whole_number_up_to_1000(text: str, value: int) -> None:
    assert values.capacity(text) == value


@pytest.mark.parametrize(
    "text",
    ["", "00000", "-1", "+1", "1001", "1000000000000", "x", "1.0", "1e2", " 1", "1 ", "1_0", "٣", "²", "0x1"],
)
def test_any_other_capacity_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="whole number"):
        values.capacity(text)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0", 0.0),
        ("600", 600.0),
        ("0.5", 0.5),
        (".5", 0.5),
        ("5.", 5.0),
        ("90s", 90.0),
        ("10m", 600.0),
        ("2h", 7200.0),
        ("1d", 86400.0),
        ("1.5h", 5400.0),
        ("1e3", 1000.0),
    ],
)
def test_a_span_of_time_is_seconds_or_has_a_unit(text: str, value: float) -> None:
    assert values.seconds(text) == value


@pytest.mark.parametrize(
    "text",
    [
        *("", "s", ".", "-1", "-0.1", "+1", "nan", "inf", "-inf", "infinity", "1e400", "1e308d", "1_0", "0x10"),
        *("5x", "5ms", "1m30s", " 5", "5 ", "5 m", "5\n", "٣", "1٣", "5,0", "ten", "\ud800", "\0"),
    ],
)
def test_any_other_span_of_time_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="seconds"):
        values.seconds(text)


def test_an_interval_is_above_zero() -> None:
    with pytest.raises(ValueError, match="above zero"):
        values.interval("0")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("/oracle-build", "/oracle-build"),
        ("oracle-build", "/oracle-build"),
        ("a.b", "/a.b"),
        ("v1.2-rc", "/v1.2-rc"),
        ("17", "/17"),
        ("배포", "/배포"),
        ("two words", "/two words"),
        ("x" * 200, "/" + "x" * 200),
    ],
)
def test_a_name_is_returned_with_its_slash(text: str, value: str) -> None:
    assert values.name(text) == value


@pytest.mark.parametrize(
    "text",
    [
        *("", "/", "//a", "/a/b", "a/", ".", "..", "/.hidden", "a\0b", "a\nb", "a\x1bb", "\ud800", "\udc80"),
        *("x" * 201, "배" * 67, "a.17", "/a.b.3", "a.٣"),
    ],
)
def test_any_other_name_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="a name like"):
        values.name(text)


@pytest.mark.parametrize(
    ("text", "value"), [("/", "/"), ("/run/ipclock", "/run/ipclock"), ("/a/../b/", "/b"), ("/빌드", "/빌드")]
)
def test_a_folder_is_an_absolute_path(text: str, value: str) -> None:
    assert values.directory(text) == value


@pytest.mark.parametrize("text", ["", "run", "./run", "~/run", "/a\0b", "/a\nb", "/\ud800", "/" + "x" * 4000])
def test_any_other_folder_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="absolute path"):
        values.directory(text)


@pytest.mark.parametrize("text", ["staging", "Staging Deployment", KOREAN, "🚀 app", "a=b", "-", "x" * 255, "배" * 85])
def test_a_label_is_printable_text(text: str) -> None:
    assert checked(values.label, text, "LABEL") == text


@pytest.mark.parametrize(
    "text", ["", " ", "   ", "x" * 256, "배" * 86, "a\nb", "a\tb", "\x1b[2J", "a\0", "\ud800", "\u2028", "\x7f"]
)
def test_any_other_label_is_a_usage_error(text: str) -> None:
    with pytest.raises(InvalidValueError) as caught:
        checked(values.label, text, "LABEL")

    # the message itself must be fit to be shown
    assert (caught.value.status, str(caught.value).isprintable()) == (2, True)


@steady
@given(some.text())
def test_what_a_check_accepts_is_safe_to_use(text: str) -> None:
    accepted: list[object] = []
    for check in (values.capacity, values.seconds, values.interval, values.name, values.directory, values.line):
        try:
            accepted.append(check(text))
        except ValueError:
            continue

    for value in accepted:
        if isinstance(value, str):
            assert (value.isprintable(), value.encode().decode()) == (True, value)
        elif isinstance(value, float):
            assert (math.isfinite(value), value >= 0) == (True, True)
        else:
            assert value in range(1, 1001)


@pytest.mark.parametrize(("text", "value"), [("", None), ("off", None), ("none", None), ("/a/../b.db", "/b.db")])
def test_a_history_is_a_path_or_off(text: str, value: str | None, file: Path) -> None:
    file.write_text(f"HISTORY={text}\n")

    assert load_settings().history == value


@pytest.mark.parametrize("text", ["on", "b.db", "./b.db", "~/b.db", "OFF", "/a\0b"])
def test_any_other_history_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="absolute path"):
        values.history(text)


def test_root_keeps_the_history_of_the_machine() -> None:
    needs_root(0)

    assert load_settings().history == "/var/lib/ipclock/history.db"


@pytest.mark.parametrize(
    ("variables", "value"),
    [
        ({"HOME": "/home/a"}, "/home/a/.local/state/ipclock/history.db"),
        ({"HOME": "/home/a", "XDG_STATE_HOME": "/state"}, "/state/ipclock/history.db"),
        ({"HOME": "/home/a", "XDG_STATE_HOME": "state"}, "/home/a/.local/state/ipclock/history.db"),
        ({}, None),  # nobody's number, so there is no home in the list of users either
    ],
)
def test_a_user_keeps_a_history_of_their_own(
    variables: dict[str, str], value: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for key, text in variables.items():
        monkeypatch.setenv(key, text)
    monkeypatch.delenv("IPCLOCK_CONFIG")
    monkeypatch.setattr("ipclock.config.settings.DEFAULT_FILES", ())

    assert in_child(lambda: load_settings().history, USER) == value


def test_a_user_who_may_write_to_the_history_of_the_machine_keeps_that(
    pool_name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    needs_root(0)
    shared = SHM / f"ipclock.{pool_name}"
    shared.touch()
    os.chown(shared, 0, OTHER_USER)
    shared.chmod(0o660)
    monkeypatch.setattr("ipclock.config.values.SYSTEM_HISTORY", str(shared))
    monkeypatch.setenv("XDG_STATE_HOME", "/state")

    found = [in_child(lambda: values.history("auto"), USER, groups=groups) for groups in ([OTHER_USER], [])]

    assert found == [str(shared), "/state/ipclock/history.db"]


@pytest.mark.parametrize("text", ["", "0", "-1", "36501", "1.5", "90d", "x", "٣", "1" * 9])
def test_days_are_a_whole_number(text: str) -> None:
    with pytest.raises(ValueError, match="whole number of days"):
        values.days(text)


# The shell file


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("STATUS_HINT=x", "x"),
        ("STATUS_HINT='a b'", "a b"),
        ('STATUS_HINT="a b"', "a b"),
        ("STATUS_HINT=a\\ b", "a b"),
        ("STATUS_HINT='a '\"b\"c", "a bc"),
        ("export STATUS_HINT=x", "x"),
        ("  export   STATUS_HINT=x  ", "x"),
        ("export BUILD_TIMEOUT=5 STATUS_HINT=x", "x"),
        ("STATUS_HINT=x # from now on", "x"),
        ("STATUS_HINT='x # y'", "x # y"),
        ('STATUS_HINT="x # y" # z', "x # y"),
        ("STATUS_HINT=x#y", "x#y"),
        ("STATUS_HINT=a=b", "a=b"),
        ("# STATUS_HINT=y\n\nSTATUS_HINT=x\n#\n", "x"),
        ("STATUS_HINT=x\nSTATUS_HINT=y", "y"),
        ("STATUS_HINT=x\r\n", "x"),
        ("UNKNOWN=$HOME\nPATHS=`ls`\nSTATUS_HINT=x", "x"),
        ("DEPLOY_HISTORY=$HOME/log\nMY_LOCK_DIR=`pwd`\nSTATUS_HINT=x", "x"),
        (f"STATUS_HINT='{KOREAN}' # {KOREAN}", KOREAN),
        (f"STATUS_HINT={KOREAN.split()[0]}", KOREAN.split()[0]),
    ],
)
def test_the_file_is_read_as_a_shell_would(text: str, value: str, file: Path) -> None:
    file.write_text(text)

    assert outcome(lambda: load_settings().status_hint) == value


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("STATUS_HINT", 1),
        ("\nstatus --json", 2),
        ("STATUS_HINT = x", 1),
        ("=x", 1),
        ("A-B=x", 1),
        ("1A=x", 1),
        ("빌드=x", 1),
        ("STATUS_HINT='x", 1),
        ('A=1\nSTATUS_HINT="x\ny"', 2),
        ("STATUS_HINT=x\\", 1),
        ("if true; then", 1),
        ("STATUS_HINT=$HOME/x", 1),
        ('STATUS_HINT="${X:-y}"', 1),
        ("STATUS_HINT=`x`", 1),
        ("STATUS_HINT=x y", 1),
        # a shell would end the assignment there, so a longer value would be a misreading
        ("STATUS_HINT=x;y=1", 1),
        ("STATUS_HINT=x&", 1),
        ("STATUS_HINT=x|cat", 1),
        ("STATUS_HINT=x>y", 1),
        ("STATUS_HINT=(x)", 1),
        ("STATUS_HINT=~/x", 1),
    ],
)
def test_what_is_no_plain_assignment_is_refused_with_its_line(text: str, line: int, file: Path) -> None:
    file.write_text(text)

    with pytest.raises(SettingsError) as caught:
        load_settings()

    assert (caught.value.status, caught.value.path) == (78, f"{file}:{line}")


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"A=\xff\n", "not UTF-8 text"),
        (b"\xef\xbb\xbfA=1\n", "not an assignment"),
        (b"#" * 65537, "larger than 64 KiB"),
    ],
)
def test_a_file_that_is_no_text_is_refused(content: bytes, problem: str, file: Path) -> None:
    file.write_bytes(content)

    with pytest.raises(SettingsError) as caught:
        load_settings()

    assert (caught.value.status, caught.value.problem) == (78, problem)


def test_a_file_that_cannot_be_read_is_refused_and_hangs_nobody(tmp_path: Path) -> None:
    fifo, loop, nothing, folder = (tmp_path / name for name in ("fifo", "loop", "nothing", "folder"))
    os.mkfifo(fifo)
    loop.symlink_to(loop)
    folder.mkdir()

    found = [outcome(partial(load_settings, {"CONFIG": str(path)})) for path in (fifo, loop, nothing, folder)]

    assert found == [("SettingsError", 78)] * 4


PRINTABLE = some.text(min_size=1, max_size=60).filter(lambda text: text.isprintable() and not set(text) & set("$`"))


@steady
@given(PRINTABLE)
def test_what_shlex_quote_writes_is_read_back(file: Path, text: str) -> None:
    file.write_text(f"export STATUS_HINT={shlex.quote(text)} # a note\n")

    assert load_settings().status_hint == text


@settings(steady, max_examples=80)
@example("a#b")
@example("'a'#b")
@given(some.text(alphabet="ab \"'\\#=/.-;&~배", max_size=12))
def test_whatever_is_accepted_the_shell_understands_in_the_same_way(file: Path, text: str) -> None:
    file.write_text(f"STATUS_HINT={text}\n")
    read = outcome(lambda: settings_file(str(file)).get("STATUS_HINT"))
    shell = subprocess.run(
        ["/bin/sh", "-c", '. "$1"; printf %s "$STATUS_HINT"', "sh", file],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={"PATH": "/nowhere", "HOME": "/home", "LC_ALL": "C.UTF-8"},
        check=False,
    )

    assert read in (("SettingsError", 78), shell.stdout.decode())


@steady
@given(some.binary(max_size=200) | some.builds(lambda text: b"LOCK_DIR=" + text, some.binary(max_size=50)))
def test_no_content_of_the_file_is_more_than_a_bad_file(file: Path, content: bytes) -> None:
    file.write_bytes(content)

    found = outcome(load_settings)

    assert found in (("SettingsError", 78), ("InvalidValueError", 78)) or isinstance(found, Settings)


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


# What else the environment says


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({}, "en"),
        ({"LANG": "ko_KR.UTF-8"}, "ko"),
        ({"LANG": "ko_KR.UTF-8", "LC_ALL": "C"}, "en"),
        ({"LANG": "C", "LC_MESSAGES": "ko_KR"}, "ko"),
        ({"LC_ALL": "ko_KR.EUC-KR", "IPCLOCK_LANG": "en"}, "en"),
        ({"LC_ALL": "de_DE.UTF-8", "IPCLOCK_LANG": "KO"}, "ko"),
        ({"LC_ALL": "", "LANG": "ko"}, "ko"),
    ],
)
def test_the_language_follows_the_locale_unless_told_otherwise(
    variables: dict[str, str], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for key, value in variables.items():
        monkeypatch.setenv(key, value)

    assert language() == expected


def test_a_build_is_told_its_slot_and_what_it_had_before(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STATUS_HINT", "kept")
    monkeypatch.setenv("IPCLOCK_TICKET", "1")
    before = inherited_environment()

    made = build_environment(inherited_environment(), "/pool", KOREAN, 17, 2)

    assert (held_slot(), dict(before.items() - made.items()), dict(made.items() - before.items())) == (
        ("", "1"),
        {"IPCLOCK_TICKET": "1"},
        {"IPCLOCK_NAME": "/pool", "IPCLOCK_LABEL": KOREAN, "IPCLOCK_TICKET": "17", "IPCLOCK_SLOT": "2"},
    )
