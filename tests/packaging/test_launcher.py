"""The command `ipclock` as it is installed: whatever modules its caller has, it runs with its own."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import ipclock

if TYPE_CHECKING:
    from tests.helpers.world import World

VERSION = f"ipclock {ipclock.__version__}\n"


@pytest.fixture(scope="session")
def python(installed: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Python that has our wheel, and what else this one has."""
    folder = tmp_path_factory.mktemp("python")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    (site,) = folder.glob("lib/python*/site-packages")
    (wheel,) = installed.glob("lib/python*/site-packages")
    # a folder in such a file is searched for modules, not for such files: there is one of the tree's own
    (site / "others.pth").write_text(f"{wheel}\n{sysconfig.get_path('purelib')}\n")
    return folder / "bin/python"


@pytest.fixture
def launcher(installed: Path, python: Path, tmp_path: Path) -> Path:
    """The command as pip, pipx and uv write it: with the first line of that Python, and a link to it."""
    (tmp_path / "bin").mkdir()
    command = tmp_path / "bin/ipclock"
    command.write_text(f"#!{python}\n{(installed / 'bin/ipclock').read_text().partition(chr(10))[2]}")
    command.chmod(0o755)
    os.symlink("bin/ipclock", tmp_path / "ipclock")
    return tmp_path / "ipclock"


@pytest.mark.parametrize("path", ["{folder}", ".", "", "/nonexistent:bin/..:"])
def test_the_command_runs_with_its_own_modules_and_gives_the_path_on(
    path: str, world: World, launcher: Path, tmp_path: Path
) -> None:
    for module in ("re", "types", "enum", "ipclock", "posix_ipc"):
        for folder in (tmp_path, tmp_path / "bin"):
            (folder / f"{module}.py").write_text("1/0")
    path = path.format(folder=tmp_path)
    command = [launcher, "wrap", "-q", "a", "--", "printenv", "PYTHONPATH"]
    env = world.env | {"PYTHONPATH": path}

    done = subprocess.run(command, env=env, cwd=tmp_path, capture_output=True, text=True, check=False)

    assert (done.returncode, done.stdout, done.stderr) == (0, f"{path}\n", "")


def test_under_a_prefix_it_is_found_by_the_callers_path(installed: Path) -> None:
    (path,) = installed.glob("lib/python*/site-packages")
    command = [sys.executable, "-S", installed / "bin/ipclock", "--version"]  # without what this Python has installed

    others = sysconfig.get_path("purelib")

    done = [
        subprocess.run(command, env={"PYTHONPATH": paths}, capture_output=True, text=True, check=False)
        for paths in (others, f"{path}:{others}")
    ]

    assert [(one.returncode, one.stdout) for one in done] == [(1, ""), (0, VERSION)]
