"""What a setting may be: what each check accepts, and what it makes of it."""

from __future__ import annotations

import math
import os
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as some

from ipclock.config import values
from ipclock.config.settings import checked, load_settings
from ipclock.errors import InvalidValueError
from tests.helpers.crash_at import OTHER_USER, USER, in_child, needs_root
from tests.helpers.world import SHM

KOREAN = "스테이징 배포"


# a file that each example writes anew may be shared, and a busy machine is no failure
steady = settings(
    deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=200
)


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
    with pytest.raises(ValueError, match="a name such as"):
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


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("0", "2026-01-11T14:00:00"),
        ("90s", "2026-01-11T13:58:30"),
        ("7d", "2026-01-04T14:00:00"),
        ("1w", "2026-01-04T14:00:00"),
        ("1.5w", "2026-01-01T02:00:00"),
        ("today", "2026-01-11T00:00:00"),
        ("yesterday", "2026-01-10T00:00:00"),
        ("2026-01-02", "2026-01-02T00:00:00"),
        ("2026-01-02T03:04", "2026-01-02T03:04:00"),
        ("2026-01-02 03:04:05", "2026-01-02T03:04:05"),
        ("2026-01-11T14:00+09:00", "2026-01-11T05:00:00"),
        ("1e300", "1970-01-01T00:00:00"),
    ],
)
def test_a_moment_is_a_span_a_day_or_a_time(monkeypatch: pytest.MonkeyPatch, text: str, moment: str) -> None:
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    monkeypatch.setattr(time, "time", datetime(2026, 1, 11, 14, tzinfo=UTC).timestamp)

    found = values.since(text)

    monkeypatch.undo()
    time.tzset()
    assert datetime.fromtimestamp(found, UTC).replace(tzinfo=None).isoformat() == moment


@pytest.mark.parametrize(
    "text",
    [
        "",
        "w",
        "1hw",
        "-1w",
        "soon",
        "tomorrow",
        "2999-01-01",
        "2026-13-01",
        "\ud55c",
        "\udcff",
        "nan",
    ],
)
def test_what_is_no_moment_of_the_past_is_refused_with_the_forms_that_it_may_have(text: str) -> None:
    with pytest.raises(ValueError, match="7d, 1w, yesterday, 2026-01-11 or 2026-01-11T14:00"):
        values.since(text)
