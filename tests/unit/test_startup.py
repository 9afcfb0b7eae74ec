"""The hot path stays lean: what starting a build loads, and what it does not."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from tests.helpers.world import until

if TYPE_CHECKING:
    from tests.helpers.world import World

HEAVY = {"typing", "re", "argparse", "gettext", "shutil", "subprocess", "json", "logging", "dataclasses", "pathlib"}
HEAVY |= {"psutil", "prometheus_client", "rich"}


def imported(world: World, *arguments: str) -> set[str]:
    """Return the top-level modules that a command of ipclock loads beyond those of a bare interpreter.

    The finder of an editable install and other `.pth` files may load more before our first line runs, so what a bare
    `-c pass` of the same interpreter loads does not count.
    """
    loaded = []
    for command in (["-c", "pass"], ["-m", "ipclock", *arguments]):
        result = subprocess.run(
            [sys.executable, "-X", "importtime", *command], env=world.env, capture_output=True, text=True, check=True
        )
        lines = [line for line in result.stderr.splitlines() if line.startswith("import time:")]
        loaded.append({line.split("|")[2].strip().split(".")[0] for line in lines})
    bare, ours = loaded
    return ours - bare


def test_a_wrapped_build_loads_no_heavy_module(world: World) -> None:
    loaded = imported(world, "wrap", "a", "--", "true")

    assert ({"ipclock", "posix_ipc"} <= loaded, loaded & HEAVY) == (True, set())


def test_the_hooks_are_loaded_only_where_one_is_set(world: World) -> None:
    command = [sys.executable, "-X", "importtime", "-m", "ipclock", "wrap", "-q", "a", "--", "true"]

    told = [
        subprocess.run(command, env=world.env | more, capture_output=True, text=True, check=True).stderr
        for more in ({}, {"ON_RELEASE": "true"})
    ]

    assert ["ipclock.run.hooks" in text for text in told] == [False, True]


def test_the_history_loads_its_database_when_it_is_first_used() -> None:
    code = "import sys, ipclock.history.finished; print('sqlite3' in sys.modules)"

    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert result.stdout == "False\n"


def test_the_library_is_loaded_when_it_is_first_used() -> None:
    code = (
        "import sys, ipclock; print(sorted(m for m in sys.modules if m.startswith('ipclock')), 'psutil' in sys.modules)"
    )

    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert result.stdout == "['ipclock'] False\n"


def test_a_build_that_lasts_finds_the_database_loaded_at_its_end(world: World, tmp_path: Path) -> None:
    build = world.wrap("a", env={"HISTORY": str(tmp_path / "history.db")}).started()

    until(lambda: "_sqlite3" in Path(f"/proc/{build.pid}/maps").read_text(), "the library in the supervisor")

    assert build.end() == 0
