"""PROTOCOL.md, code and tests agree: each test that the page names exists, each invariant is defined and guarded."""

from __future__ import annotations

import ast
import re
from importlib import import_module
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "ipclock/pool/PROTOCOL.md").read_text()
INVARIANT = re.compile(r"\bINV-\d+[a-z]?\b")
GUARD = re.compile(r"`([a-z_]+)::([\w-]+)`")  # FILE::NAME


def rows(heading: str) -> list[str]:
    """Return the rows of the table below a heading."""
    section = PAGE.partition(f". {heading}\n")[2].partition("\n## ")[0]
    return re.findall(r"^\|.*\|$", section, re.MULTILINE)[2:]


def names(file: str) -> set[str]:
    """Return what NAME may stand for in a file: its tests, the ids, classes and scenes that it hands to them."""
    found: set[str] = set()
    for path in (ROOT / "tests").rglob(f"test_{file}.py"):
        nodes = list(ast.walk(ast.parse(path.read_text())))
        tests = [node for node in nodes if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")]
        found.update(test.name.removeprefix("test_") for test in tests)
        handed = [node for test in tests for decorator in test.decorator_list for node in ast.walk(decorator)]
        found.update(str(node.value) for node in handed if isinstance(node, ast.Constant))
        classes = {node.name for node in nodes if isinstance(node, ast.ClassDef)}
        found.update(classes & {node.id for node in handed if isinstance(node, ast.Name)})
        for node in nodes:
            if isinstance(node, ast.ImportFrom) and node.module and "SCENES" in {alias.name for alias in node.names}:
                found.update(scene.__name__ for scene in import_module(node.module).SCENES)
    return found


def test_each_test_that_the_page_names_exists() -> None:
    named = GUARD.findall(PAGE)

    missing = {f"{file}::{name}" for file, name in named if name not in names(file)}

    assert (len(named) > 50, missing) == (True, set())


def test_each_invariant_and_each_crash_names_a_test() -> None:
    invariants, crashes = rows("Invariants"), rows("Crashes")

    unguarded = [row for row in (*invariants, *crashes) if not GUARD.search(row.split(" | ")[-1])]

    assert (len(invariants) > 20, len(crashes) > 20, unguarded) == (True, True, [])


def test_each_invariant_is_defined_once_and_cited_in_code_or_tests() -> None:
    defined = [row.split(" | ")[0].removeprefix("| ") for row in rows("Invariants")]
    files = [path for part in ("ipclock", "tests") for path in (ROOT / part).rglob("*.py") if path != Path(__file__)]

    cited = {invariant for path in files for invariant in INVARIANT.findall(path.read_text())}

    in_page = set(INVARIANT.findall(PAGE))
    assert (sorted(set(defined)), cited - set(defined), set(defined) - cited, in_page - set(defined)) == (
        sorted(defined),
        set(),
        set(),
        set(),
    )
