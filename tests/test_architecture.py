"""The rooms: imports run downward only, each door to the kernel has one keeper, and no room grows unnoticed."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "ipclock"
LAYERS = (
    "values utf8 users bounded",
    "errors messages address",
    "shellfile quick parser deaths place apart clocks procfs",
    "config locks folder entry clockwait stats forecast notes sentinel",
    "records semaphore process policy host database callers",
    "liveness patience claim line memory totals pools canvas terminate",
    "pool snapshot advice",
    "supervise doctor takeover headroom meter history screen hooks",
    "outlook chart archive metrics engine warden",
    "phrases connection",
    "prospect drawing local session holder",
    "progress page nodes",
    "ledger zookeeper",
    "guard",
    "waiting board keeper api",
    "cli commands",
    "__main__",
)
SIZES = """
    cli 270  supervise 360  sentinel 140  progress 230  api 140  pool 700  snapshot 250  liveness 130  patience 100
    records 620  folder 530  semaphore 360  process 510  policy 200  locks 120  config 590  messages 120
    errors 530  memory 260  commands.__init__ 230  commands.status 140  commands.wrap 215  __main__ 45  host 200
    doctor 490  history 180  database 265  apart 130  ledger 165  metrics 125  waiting 200  board 230  stats 200
    commands.stats 190
    archive 210  hooks 220  chart 210  drawing 280  page 200
    session 260  zookeeper 490  nodes 230  engine 140  local 265  phrases 165  place 160  takeover 190  advice 140
"""
LINES = dict(zip(SIZES.split()[::2], map(int, SIZES.split()[1::2]), strict=True))
FILES = {".".join(path.relative_to(PACKAGE).with_suffix("").parts): path for path in PACKAGE.rglob("*.py")}
TREES = {room.removesuffix(".__init__"): ast.parse(path.read_text()) for room, path in FILES.items()}
FRONT = TREES.pop("__init__")  # hands out the names of other rooms, and loads them only then
ROOMS = sorted(TREES)


def layer(room: str) -> int:
    return next(number for number, rooms in enumerate(LAYERS) if room.split(".")[0] in rooms.split())


def test_the_table_of_rooms_has_each_room_once_and_in_its_layer() -> None:
    guide = (PACKAGE.parent / "CONTRIBUTING.md").read_text()
    rows = re.findall(r"^\| (\d+) \| (.*?) \|", guide, re.MULTILINE)
    told = [
        (name.removesuffix("/*"), int(number)) for number, cell in rows for name in re.findall(r"`(\S+)\.py`", cell)
    ]

    rooms = {room.split(".")[0] for room in ROOMS}

    assert sorted(told) == sorted((room, layer(room)) for room in rooms)


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


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_imports_only_from_the_layers_below_it(room: str) -> None:
    names = [name.removeprefix("ipclock.") for name in imports(TREES[room]) if name.startswith(("ipclock.", "."))]
    # `commands.wrap.run` is of the room `commands.wrap`; what is of no room is of the package's front
    used = {
        max((other for other in ROOMS if f"{name}.".startswith(f"{other}.")), key=len, default="") for name in names
    }
    shared = {"errors", "commands" if room.startswith("commands.") else ""}

    assert {other for other in used - shared - {""} if layer(other) >= layer(room) or other == "api"} == set()


def test_the_front_loads_no_room_before_it_is_asked() -> None:
    at_once = [node for node in FRONT.body if isinstance(node, ast.Import | ast.ImportFrom)]

    assert {name.split(".")[0] for node in at_once for name in imports(node)} == {"__future__"}


@pytest.mark.parametrize(
    ("door", "keepers"),
    [
        ("fcntl", {"locks"}),
        ("posix_ipc", {"semaphore"}),
        ("psutil", {"process"}),
        ("sqlite3", {"database"}),
        ("rich", {"board"}),
        ("prometheus_client", {"metrics"}),
        ("kazoo", {"connection", "session"}),
    ],
)
def test_a_library_for_the_kernel_or_servers_has_its_importers(door: str, keepers: set[str]) -> None:
    assert {room for room in ROOMS if door in {name.split(".")[0] for name in imports(TREES[room])}} == keepers


@pytest.mark.parametrize(
    ("door", "keepers"),
    [
        ("/proc", {"process", "host", "memory", "semaphore", "locks", "users", "clocks", "procfs"}),
        ("/dev/kmsg", {"memory"}),
        ("os.environ", {"config"}),
        ("os.getenv", set()),
    ],
)
def test_the_kernels_files_and_the_environment_have_their_readers(door: str, keepers: set[str]) -> None:
    assert {room for room in ROOMS if any(door in text for text in mentions(TREES[room]))} == keepers


def test_psutil_is_loaded_only_when_it_is_needed() -> None:
    functions = [node for node in ast.walk(TREES["process"]) if isinstance(node, ast.FunctionDef)]
    statements = [node for node in TREES["process"].body if node not in functions]

    assert [node for node in statements if any(name.startswith("psutil") for name in imports(node))] == []


@pytest.mark.parametrize("room", [room for room in ROOMS if layer(room) <= 3])
def test_a_lower_room_neither_prints_nor_exits_nor_reads_arguments(room: str) -> None:
    assert mentions(TREES[room]) & {"print", "sys.exit", "exit", "sys.argv", "sys.stdout", "sys.stderr"} == set()


@pytest.mark.parametrize("room", sorted(FILES))
def test_no_room_outgrows_its_size(room: str) -> None:
    size = len(FILES[room].read_text().splitlines())

    assert size <= LINES.get(room, 120)
