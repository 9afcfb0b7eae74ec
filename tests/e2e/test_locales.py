"""What a user hands in is the same text in every locale; only showing it depends on the locale."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.helpers.world import HANG_S, remove_pool, until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.helpers.world import World

CAFE, KOREAN = "café", "스테이징 배포"
MADE = {"en_US.ISO-8859-1": ("en_US", "ISO-8859-1"), "ko_KR.EUC-KR": ("ko_KR", "EUC-KR")}
LOCALES = {
    **{name: {"LC_ALL": name} for name in MADE},
    "C": {"LC_ALL": "C"},
    # what Python makes of C and POSIX unless it is forbidden to
    "ASCII": {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
}


@pytest.fixture(scope="session")
def locpath(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A folder with locales of the tests' own, since hardly a machine has any but UTF-8."""
    folder = tmp_path_factory.mktemp("locales")
    if shutil.which("localedef") is None or not Path("/usr/share/i18n/locales/ko_KR").exists():
        pytest.skip("no localedef, or no package locales, to make a locale that is not UTF-8")
    for name, (territory, charset) in MADE.items():
        subprocess.run(["localedef", "-i", territory, "-f", charset, str(folder / name)], check=True)
    return str(folder)


@pytest.fixture(params=LOCALES)
def locale(request: pytest.FixtureRequest, locpath: str) -> dict[str, str]:
    """The variables of a locale."""
    return LOCALES[request.param] | {"LOCPATH": locpath}


def run(
    world: World, locale: dict[str, str], *arguments: str | bytes, **more: str
) -> subprocess.CompletedProcess[bytes]:
    """Run `ipclock` to its end in a locale."""
    return subprocess.run(
        [sys.executable, "-m", "ipclock", *arguments],
        env=world.env | locale | more,
        capture_output=True,
        timeout=HANG_S,
        check=False,
    )


# Labels


def test_two_builds_of_a_label_run_one_after_the_other_whatever_their_locales(
    world: World, locale: dict[str, str]
) -> None:
    world.ask("init", "--max-parallel-builds", "2")
    first = world.wrap(CAFE, "--per-label", "1").started()

    same = run(world, locale, "wrap", "-n", "--per-label", "1", CAFE, "--", "true")
    other = run(world, locale, "wrap", "-n", "--per-label", "1", KOREAN, "--", "true")
    program = f"import ipclock; ipclock.slot({CAFE!a}, per_label=1, block=False)"
    library = subprocess.run([sys.executable, "-c", program], env=world.env | locale, capture_output=True, check=False)

    assert (same.returncode, other.returncode, first.end()) == (75, 0, 0)
    assert b"SlotBusy" in library.stderr


def test_a_newer_build_takes_the_place_of_one_of_its_label_from_another_locale(
    world: World, locale: dict[str, str]
) -> None:
    first = world.wrap("first").started()
    old = world.wrap(CAFE)
    until(lambda: world.records("gate"), "the older build in line")

    new = run(world, locale, "wrap", "-w", "0", "--supersede", CAFE, "--", "true")
    newer = world.popen("wrap", "--supersede", CAFE, "--", "true", env=locale)

    assert (new.returncode, old.wait(), first.end(), newer.wait()) == (75, 76, 0, 0)


@pytest.mark.parametrize("label", [CAFE, KOREAN])
def test_a_label_is_the_same_wherever_it_is_told(
    label: str, world: World, locale: dict[str, str], tmp_path: Path
) -> None:
    history = str(tmp_path / "history.db")
    hook = f"cat >{tmp_path}/json; printenv IPCLOCK_LABEL >{tmp_path}/new; mv {tmp_path}/new {tmp_path}/label"
    world.env |= {"HISTORY": history, "ON_RELEASE": hook}

    build = run(world, locale, "wrap", "-q", label, "--", "printenv", "IPCLOCK_LABEL")
    until((tmp_path / "label").exists, "the hook")
    told = json.loads((tmp_path / "json").read_bytes())
    kept = json.loads(run(world, locale, "stats", "--json", "--label", label).stdout)["labels"]
    offered = run(world, locale, "complete", "labels").stdout
    counted = run(world, locale, "metrics").stdout

    line = label.encode() + b"\n"
    assert (build.returncode, build.stdout, (tmp_path / "label").read_bytes(), offered) == (0, line, line, line)
    assert (told["label"], [row["label"] for row in kept], f'label="{label}"'.encode() in counted) == (
        label,
        [label],
        True,
    )


def test_a_label_that_is_no_utf8_is_refused_in_every_locale(world: World, locale: dict[str, str]) -> None:
    labels = [b"caf\xe9", KOREAN.encode("euc_kr"), b"a\xff"]
    done = [run(world, locale, "wrap", label, "--", "true", IPCLOCK_LANG="en") for label in labels]

    told = b"expected printable UTF-8 text of at most 255 bytes"
    assert [(one.returncode, told in one.stderr) for one in done] == [(2, True)] * 3


def test_a_label_is_shown_as_far_as_the_locale_has_its_letters(world: World, locale: dict[str, str]) -> None:
    build = world.wrap(KOREAN).started()

    shown = run(world, locale, "status")
    waited = run(world, locale, "wrap", "-w", "0.1", CAFE, "--", "true")

    assert (shown.returncode, shown.stderr, waited.returncode, build.end()) == (0, b"", 75, 0)
    texts = shown.stdout + waited.stderr
    encoding = MADE.get(locale.get("LC_ALL", ""), ("", "utf-8"))[1]
    assert KOREAN in texts.decode(encoding) or ascii(KOREAN)[1:-1] in texts.decode(encoding)
    assert texts.decode(encoding).replace("\n", "").isprintable()


# What else is handed in


def test_the_reason_of_a_drain_is_the_same_in_every_locale(world: World, locale: dict[str, str]) -> None:
    world.ask("init")

    drained = run(world, locale, "drain", "--reason", KOREAN)

    assert (drained.returncode, world.status()["drain"]["reason"]) == (0, KOREAN)


@pytest.fixture
def korean(world: World, pool_name: str) -> Iterator[World]:
    """A pool with a Korean name."""
    world.name = f"/{KOREAN}-{pool_name}"
    world.folder = world.folder.with_name(f"ipclock.{world.name[1:]}")
    world.env["SEMAPHORE_NAME"] = world.name
    yield world
    remove_pool(world.name[1:])


@pytest.mark.parametrize("how", ["variable", "option", "file"])
def test_a_pool_is_the_same_one_in_every_locale(
    how: str, korean: World, locale: dict[str, str], tmp_path: Path
) -> None:
    korean.env["HISTORY"] = str(tmp_path / "history.db")
    name, more = korean.name, locale
    file = tmp_path / "build-config.sh"
    file.write_text(f'SEMAPHORE_NAME="{name}"\n' if how == "file" else "")
    if how != "variable":
        more = locale | {"SEMAPHORE_NAME": "", "IPCLOCK_CONFIG": str(file)}
    options = ["--name", name] if how == "option" else []

    made = run(korean, more, "init", *options)
    # the inner one finds by the variable that it runs in this pool: else it would wait for the outer one
    inner = [sys.executable, "-m", "ipclock", "wrap", "-n", *options, "inner", "--", "printenv", "IPCLOCK_NAME"]
    build = run(korean, more, "wrap", "-q", *options, "outer", "--", *inner)
    seen = json.loads(korean.run("stats", "--json").stdout)
    status = json.loads(run(korean, more, "status", "--json", *options).stdout)

    assert (made.returncode, made.stdout) == (0, os.fsencode(korean.folder) + b"\n")
    assert (build.returncode, build.stdout) == (0, name.encode() + b"\n")
    # before it is known whether a nested build has a row of its own
    assert (seen["name"], seen["all"]["builds"] >= 1, status["name"]) == (name, True, name)
    assert korean.settled() == (1, {})


def test_files_and_folders_are_the_same_in_every_locale(world: World, locale: dict[str, str], tmp_path: Path) -> None:
    folder = tmp_path / KOREAN
    folder.mkdir()
    file = folder / "build-config.sh"
    file.write_text(
        f"""LOCK_DIR="{folder}/locks"\nHISTORY="{folder}/history.db"\nON_RELEASE="touch '{folder}/hook'"\n"""
    )
    world.folder = folder / "locks" / world.folder.name
    options = ["--config", str(file)]

    made = run(world, locale, "init", *options, HISTORY="")
    build = run(world, locale, "wrap", "-q", *options, "a", "--", "true", HISTORY="")
    named = run(world, locale | {"LOCK_DIR": f"{folder}/locks"}, "init")
    pages = [
        run(world, locale, "stats", *options, "--html", f"{folder}/page.html", HISTORY="").returncode,
        run(world, locale, "metrics", *options, "-o", f"{folder}/metrics.prom", HISTORY="").returncode,
    ]
    until((folder / "hook").exists, "the hook")

    line = os.fsencode(world.folder) + b"\n"
    assert (made.stdout, build.returncode, build.stderr, named.stdout, pages) == (line, 0, b"", line, [0, 0])
    names = {path.name for path in folder.iterdir()} - {"history.db-wal", "history.db-shm"}
    assert names == {"build-config.sh", "locks", "history.db", "hook", "page.html", "metrics.prom"}


def test_the_command_gets_its_words_to_the_letter(world: World, locale: dict[str, str]) -> None:
    words = [KOREAN.encode(), b"caf\xe9", KOREAN.encode("euc_kr"), b"\xff\x80"]
    done = run(world, locale, "wrap", "-q", "a", "--", "printf", "%s\n", *words)

    assert (done.returncode, done.stdout.split(b"\n"), done.stderr) == (0, [*words, b""], b"")


@pytest.mark.parametrize("arguments", [["--config", b"/tmp/\x1b[31m\n\xc2\x9b"], ["--nonsense\x1b[31m\n\u009b"]])
def test_a_message_moves_no_cursor(arguments: list[str | bytes], world: World, locale: dict[str, str]) -> None:
    done = run(world, locale, "status", *arguments, IPCLOCK_LANG="en")

    shown = done.stderr.rstrip(b"\n").split(b"\n")
    assert [byte for line in shown for byte in line if byte < 0x20] == []
    assert (b"\xc2\x9b" in done.stderr, b"31m" in done.stderr, len(shown)) == (False, True, 2)
