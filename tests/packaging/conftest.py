"""The wheel, built from a copy of the tree and installed with pip under a prefix of its own."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# what is derived must come from the build
DERIVED = ("__pycache__", "build", "dist", "*.egg-info", "*.mo", "*.1", "*.5", "_ipclock", "ipclock.fish")


@pytest.fixture(scope="session")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A prefix (bin, lib, share) with nothing in it but our wheel."""
    folder = tmp_path_factory.mktemp("packaging")
    shutil.copytree(ROOT, folder / "tree", ignore=shutil.ignore_patterns(".*", *DERIVED))
    pip = [sys.executable, "-m", "pip", "-q", "--disable-pip-version-check"]
    wheel = [*pip, "wheel", "--no-deps", "--no-build-isolation", "-w", "wheels", "./tree"]
    subprocess.run(wheel, cwd=folder, check=True)
    (found,) = (folder / "wheels").iterdir()
    install = [*pip, "install", "--no-deps", "--no-index", "--ignore-installed", "--no-warn-script-location"]
    subprocess.run([*install, "--prefix", folder / "prefix", found], check=True)
    return folder / "prefix"
