"""The settings file: what a shell would make of it, or nothing."""

from __future__ import annotations

import os
import shlex
import subprocess
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as some

from ipclock.config.settings import Settings, load_settings, settings_file
from ipclock.errors import InvalidValueError, SettingsError

if TYPE_CHECKING:
    from collections.abc import Callable


KOREAN = "스테이징 배포"


# a file that each example writes anew may be shared, and a busy machine is no failure
steady = settings(
    deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=200
)


def outcome(function: Callable[[], object]) -> object:
    """Return the result, or the kind of error and its exit status."""
    try:
        return function()
    except (InvalidValueError, SettingsError) as error:
        return type(error).__name__, error.status


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
        (b"\xef\xbb\xbfA=1\n", "not a KEY=VALUE line"),
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
