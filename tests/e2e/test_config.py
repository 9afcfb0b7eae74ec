"""`config`: every setting, its value, and where that comes from."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from ipclock.config.settings import SETTINGS

if TYPE_CHECKING:
    from pathlib import Path

    from tests.helpers.world import World


@pytest.fixture
def file(world: World, tmp_path: Path) -> Path:
    """A settings file that the world's commands read."""
    path = tmp_path / "build-config.sh"
    path.write_text("# ours\nMAX_PARALLEL_BUILDS=3\nON_WAIT='echo hello'\nBUILD_TIMEOUT=60\n")
    world.env |= {"IPCLOCK_CONFIG": str(path), "BUILD_TIMEOUT": "soon"}
    return path


def test_each_setting_has_a_line_with_its_value_and_its_place(world: World, file: Path) -> None:
    done = world.run("config", "--name", "/here")

    lines = {line.split()[0]: line.split(None, 1)[1] for line in done.stdout.splitlines() if line[0] != " "}
    shown = {key: " ".join(lines[key].split()) for key in ("MAX_PARALLEL_BUILDS", "ON_WAIT", "LOG_DAYS", "MEMORY")}
    assert (done.returncode, done.stderr, list(lines)) == (0, "", [setting.key for setting in SETTINGS])
    assert shown == {
        "MAX_PARALLEL_BUILDS": f"3 {file}:2",
        "ON_WAIT": f"echo hello {file}:3",
        "LOG_DAYS": "30 default",
        "MEMORY": "not set default",
    }
    assert " ".join(lines["SEMAPHORE_NAME"].split()) == "/here --name"
    assert "$BUILD_TIMEOUT\n   invalid: expected seconds" in done.stdout


def test_json_tells_a_program_the_same(world: World, file: Path) -> None:
    for schema in (1, 2):
        found = json.loads(world.run("config", f"--json={schema}").stdout)
        rows: dict[str, dict[str, Any]] = {row.pop("key"): row for row in found["settings"]}

        assert (found["schema"], found["files"], list(rows)) == (schema, [str(file)], [each.key for each in SETTINGS])
        assert rows["MAX_PARALLEL_BUILDS"] == {
            "value": "3",
            "source": "file",
            "file": str(file),
            "line": 2,
            "valid": True,
        }
        nowhere = {"file": None, "line": None}
        assert rows["BUILD_TIMEOUT"] == {"value": "soon", "source": "environment", "valid": False} | nowhere
        assert rows["RESET_HINT"] == {"value": None, "source": "default", "valid": True} | nowhere


def test_a_file_that_cannot_be_read_is_told_and_counts_as_none(world: World, file: Path) -> None:
    file.write_text("MAX_PARALLEL_BUILDS=$(nproc)\n")

    done = world.run("config")

    assert (done.returncode, done.stderr.startswith(f"ipclock: {file}:1: ")) == (0, True)
    assert done.stdout.startswith("MAX_PARALLEL_BUILDS  not set")


def test_it_makes_no_pool(world: World) -> None:
    assert (world.run("config").returncode, world.folder.exists()) == (0, False)
