"""The sdist of a copy of the tree, and the wheel that it makes, installed with pip under a prefix of its own."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[2]
DERIVED = ("__pycache__", "build", "dist", "*.egg-info", "*.mo", "*.1", "*.5", "_ipclock", "ipclock.fish")
FOREIGN = (".git", ".venv", ".*_cache", ".hypothesis")
MAKE_SDIST = (
    "import sys; sys.path.insert(0, 'contrib/packaging'); import build_ipclock; build_ipclock.build_sdist('..')"
)


class Package(NamedTuple):
    """A copy of the tree with nothing derived in it, and what was built from it."""

    sources: Path
    sdist: Path
    wheel: Path
    prefix: Path


@pytest.fixture(scope="session")
def package(tmp_path_factory: pytest.TempPathFactory) -> Package:
    """The tree, its sdist, the wheel of that, and a prefix (bin, lib, share) with nothing in it but the wheel."""
    folder = tmp_path_factory.mktemp("packaging")
    shutil.copytree(ROOT, folder / "sources", ignore=shutil.ignore_patterns(*DERIVED, *FOREIGN))
    shutil.copytree(folder / "sources", folder / "tree")
    subprocess.run([sys.executable, "-c", MAKE_SDIST], cwd=folder / "tree", check=True, stdout=subprocess.DEVNULL)
    (sdist,) = folder.glob("*.tar.gz")
    pip = [sys.executable, "-m", "pip", "-q", "--disable-pip-version-check"]
    subprocess.run([*pip, "wheel", "--no-deps", "--no-build-isolation", "-w", folder, sdist], check=True)
    (wheel,) = folder.glob("*.whl")
    install = [*pip, "install", "--no-deps", "--no-index", "--ignore-installed", "--no-warn-script-location"]
    subprocess.run([*install, "--prefix", folder / "prefix", wheel], check=True)
    return Package(folder / "sources", sdist, wheel, folder / "prefix")


@pytest.fixture(scope="session")
def installed(package: Package) -> Path:
    """A prefix (bin, lib, share) with nothing in it but our wheel."""
    return package.prefix
