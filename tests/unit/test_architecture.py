"""The packages: imports run one way only, a library for the kernel has one importer, no module grows unnoticed."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "ipclock"
# a module imports only from its own package and from those further right; the last ones lie in the root
ORDER = (
    "cli",
    "api",
    "acquisition",
    "zookeeper",
    "display",
    "history",
    "run",
    "pool",
    "config",
    "linux",
    "console",
    "i18n",
    "errors",
    "users",
    "utf8",
    "bounded",
    "_typing",
)
LONG = 400  # lines; a longer module says why in its head
FILES = {".".join(path.relative_to(PACKAGE).with_suffix("").parts): path for path in PACKAGE.rglob("*.py")}
TREES = {module.removesuffix(".__init__"): ast.parse(path.read_text()) for module, path in FILES.items()}
FRONT = TREES.pop("__init__")  # hands out the names of other modules, and loads them only then
MODULES = sorted(TREES)


def package(name: str) -> str:
    """Return the package of a module of ours, or of what is imported from one."""
    return name.removeprefix("ipclock.").split(".")[0]


def imports(tree: ast.AST) -> set[str]:
    """Return the full names of all that is imported, anywhere in the tree."""
    nodes = list(ast.walk(tree))
    found = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    froms = [node for node in nodes if isinstance(node, ast.ImportFrom)]
    return found | {f"{'.' * node.level}{node.module}.{alias.name}" for node in froms for alias in node.names}


def mentions(tree: ast.AST) -> set[str]:
    """Return all names and dotted names, and all literal strings, in the tree."""
    nodes = list(ast.walk(tree))
    strings = {str(node.value) for node in nodes if isinstance(node, ast.Constant)}
    return strings | {ast.unparse(node) for node in nodes if isinstance(node, ast.Name | ast.Attribute)}


def test_a_module_imports_only_from_its_own_package_and_from_those_further_right() -> None:
    pairs = {
        (module, name)
        for module in MODULES
        for name in imports(TREES[module])
        if name.startswith("ipclock.") and module != "__main__" and package(name) in ORDER
    }

    assert len(pairs) > 300
    assert {pair for pair in pairs if ORDER.index(package(pair[1])) < ORDER.index(package(pair[0]))} == set()


def test_the_guide_has_a_line_for_each_package() -> None:
    guide = (PACKAGE.parent / "CONTRIBUTING.md").read_text()

    told = re.findall(r"^\| `(\w+)(?:/|\.py)` \|", guide, re.MULTILINE)

    assert told == [name for name in ORDER if name != "_typing"] + ["_typing"]


def test_the_front_loads_no_module_before_it_is_asked() -> None:
    at_once = [node for node in FRONT.body if isinstance(node, ast.Import | ast.ImportFrom)]

    assert {name.split(".")[0] for node in at_once for name in imports(node)} == {"__future__"}


@pytest.mark.parametrize(
    ("door", "keepers"),
    [
        ("fcntl", {"linux.locks", "linux.terminal"}),
        ("posix_ipc", {"linux.semaphore"}),
        ("psutil", {"linux.process", "linux.process_view"}),
        ("sqlite3", {"history.database"}),
        ("rich", {"display.status_table"}),
        ("prometheus_client", {"display.prometheus"}),
        ("kazoo", {"zookeeper.connection", "zookeeper.session"}),
    ],
)
def test_a_library_for_the_kernel_or_servers_has_its_importers(door: str, keepers: set[str]) -> None:
    assert {module for module in MODULES if door in {name.split(".")[0] for name in imports(TREES[module])}} == keepers


@pytest.mark.parametrize(
    ("door", "keepers"),
    [
        (
            "/proc",
            {
                *("users", "linux.clocks", "linux.descriptors", "linux.locks", "linux.machine", "linux.memory"),
                *("linux.process", "linux.procfs", "linux.semaphore"),
            },
        ),
        ("/dev/kmsg", {"linux.memory"}),
        ("os.environ", {"config.environment", "config.settings", "config.values"}),
        ("os.getenv", set()),
        ("inotify_init1", {"linux.inotify"}),
    ],
)
def test_the_kernels_files_and_the_environment_have_their_readers(door: str, keepers: set[str]) -> None:
    assert {module for module in MODULES if any(door in text for text in mentions(TREES[module]))} == keepers


def test_psutil_is_loaded_only_when_it_is_needed() -> None:
    statements = [
        node
        for module in ("linux.process", "linux.process_view")
        for node in TREES[module].body
        if not isinstance(node, ast.FunctionDef)
    ]

    assert [node for node in statements if any(name.startswith("psutil") for name in imports(node))] == []


def test_what_lies_low_neither_prints_nor_exits_nor_reads_arguments() -> None:
    low = [module for module in MODULES if package(module) in ORDER[ORDER.index("pool") :] and module != "console"]
    loud = {"print", "sys.exit", "exit", "sys.argv", "sys.stdout", "sys.stderr"}

    assert {module for module in low if mentions(TREES[module]) & loud} == set()


def test_a_long_module_says_why() -> None:
    long = {module for module, path in FILES.items() if len(path.read_text().splitlines()) > LONG}

    assert {module for module in long if "One file, because" not in (ast.get_docstring(TREES[module]) or "")} == set()
