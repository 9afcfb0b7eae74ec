"""What is released: an sdist with all of the tree, a wheel with what is used, one version, and a tidy top level."""

from __future__ import annotations

import re
import tarfile
import zipfile
from email.parser import Parser
from typing import TYPE_CHECKING

import ipclock

if TYPE_CHECKING:
    from tests.packaging.conftest import Package

TOP_LEVEL = {"README.md", "README.ko.md", "CHANGELOG.md", "CONTRIBUTING.md", "LICENSE", "pyproject.toml", "setup.cfg"}
DOTTED = {".ci", ".github", ".gitignore"}
FOLDERS = {"ipclock", "man", "tests", "contrib"}
CHANGES = {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}  # keepachangelog.com


def test_the_sdist_has_every_file_of_the_tree(package: Package) -> None:
    with tarfile.open(package.sdist) as archive:
        held = {name.partition("/")[2] for name in archive.getnames()}

    paths = [path.relative_to(package.sources) for path in package.sources.rglob("*") if path.is_file()]
    ours = {str(path) for path in paths if not path.parts[0].startswith(".") or path.parts[0] in DOTTED}

    assert (len(ours) > 100, ours - held) == (True, set())


def test_the_wheel_has_the_package_and_what_goes_under_share(package: Package) -> None:
    names = zipfile.ZipFile(package.wheel).namelist()
    version = ipclock.__version__
    parts = {name.split("/")[0] for name in names}

    suffixes = {name.rpartition(".")[2] for name in names if name.startswith("ipclock/")}

    folders = {f"ipclock-{version}.{kind}" for kind in ("data", "dist-info")} | {"ipclock"}
    assert (parts, suffixes) == (folders, {"py", "md", "typed", "mo", "html"})


def test_the_version_stands_in_one_place(package: Package) -> None:
    version = ipclock.__version__
    told = {"CHANGELOG.md", "RESULTS.md"}  # of what was, which a new version does not change
    paths = [path for path in package.sources.rglob("*") if path.is_file() and path.name not in told]

    places = [
        str(path.relative_to(package.sources))
        for path in paths
        if re.search(rf"(?<![\d.]){re.escape(version)}(?![\d.])", path.read_text(errors="replace"))
    ]

    wheel = zipfile.ZipFile(package.wheel)
    metadata = Parser().parsestr(wheel.read(f"ipclock-{version}.dist-info/METADATA").decode())
    assert (places, metadata["Version"]) == (["ipclock/__init__.py"], version)


def test_the_changelog_keeps_its_form(package: Package) -> None:
    headings = re.findall(r"^(#+) (.+)$", (package.sources / "CHANGELOG.md").read_text(), re.M)
    versions = [text for level, text in headings if level == "##"]

    odd = [text for text in versions[1:] if not re.fullmatch(r"\[\d+\.\d+\.\d+\] - \d{4}-\d\d-\d\d", text)]

    kinds = {text for level, text in headings if level == "###"}
    assert (headings[0], versions[0], odd, kinds - CHANGES) == (("#", "Changelog"), "[Unreleased]", [], set())


def test_nothing_else_lies_at_the_top_level(package: Package) -> None:
    names = {path.name for path in package.sources.iterdir() if not path.name.startswith(".")}

    assert names - TOP_LEVEL == FOLDERS
