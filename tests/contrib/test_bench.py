"""The benchmark runs, tells its rows, leaves nothing behind, and its observer finds what ran at once."""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from contrib.bench import observe, report
from contrib.bench.observe import Span
from contrib.bench.parts import Sample, Seen
from tests.helpers.world import SHM, until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Start = Callable[..., subprocess.Popen[str]]

ROOT = Path(__file__).parent.parent.parent
PEERS = ("floor", "ipclock", "flock")
pytestmark = pytest.mark.timeout(180)  # a hang bound: it starts a hundred processes one after the other


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Start]:
    """Start the benchmark of the three peers with what is installed here; it leaves at the end of the test."""
    if shutil.which("cc") is None:
        pytest.skip("there is no C compiler, by which the benchmark compiles its jobs")
    started: list[subprocess.Popen[str]] = []

    def start(*parts: str) -> subprocess.Popen[str]:
        words = [f"--part={part}" for part in parts] + [f"--peer={peer}" for peer in PEERS]
        words += ["--quick", f"--python={sys.executable}", f"--out={tmp_path}"]
        command = [sys.executable, "-m", "contrib.bench", *words]
        started.append(subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True))
        return started[-1]

    yield start
    for process in started:
        if process.poll() is None:
            process.terminate()
            process.communicate()


def traces(pid: int) -> list[str]:
    """Return what a benchmark has in /dev/shm, and the processes that carry its mark."""
    name = f"ipclock-bench-{pid}"
    running = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if f"BENCH_MARK={name}-".encode() in (folder / "environ").read_bytes():
                running.append(folder.name)
        except OSError:  # gone, or somebody else's
            continue
    return running + [path.name for path in SHM.iterdir() if name in path.name]


def rows(results: str, title: str) -> list[str]:
    """Return the first cells of the table under a title."""
    section = re.split(r"^## ", results, flags=re.MULTILINE)[1:]
    table = next(text for text in section if text.startswith(title))
    return [line.split("|")[1].strip() for line in table.splitlines() if line.startswith("|")][2:]


def test_two_parts_tell_a_row_of_each_peer_and_that_the_limit_held(bench: Start, tmp_path: Path) -> None:
    process = bench("start-up", "order")
    _, errors = process.communicate()
    results = (tmp_path / "RESULTS.md").read_text() if process.returncode == 0 else errors
    plots = re.findall(r"!\[\]\((plots/[a-z0-9-]+\.svg)\)", results)

    assert (
        process.returncode,
        [peer in rows(results, "Start-up: ") for peer in PEERS],
        rows(results, "Inversions"),
        re.findall(r"^\| (floor|ipclock|flock) \| (\d+/\d+) \| (0|\*\*)", results, re.MULTILINE),
        [(tmp_path / plot).read_text().startswith("<svg ") for plot in plots],
        traces(process.pid),
    ) == (0, [True] * 3, list(PEERS), [(peer, "1/1", "0") for peer in PEERS], [True] * 3, [])


def test_a_benchmark_that_is_told_to_leave_leaves_nothing_behind(bench: Start) -> None:
    process = bench("waiters")
    until(lambda: len([trace for trace in traces(process.pid) if trace.isdecimal()]) > 2, "waiters at work")
    before = traces(process.pid)
    process.send_signal(signal.SIGTERM)
    process.communicate()

    assert (process.returncode != 0, before != [], traces(process.pid)) == (True, True, [])


@pytest.mark.parametrize(
    ("spans", "most"),
    [
        ([], 0),
        ([Span(1, 0, 10), Span(2, 10, 20), Span(3, 20, 30)], 1),
        ([Span(2, 10, 20), Span(1, 0, 10)], 1),
        ([Span(1, 0, 10), Span(2, 9, 20), Span(3, 20, 30)], 2),
        ([Span(1, 0, 30), Span(2, 5, 10), Span(3, 10, 20), Span(4, 19, 21)], 3),
        ([Span(1, 0, None), Span(2, 100, 110)], 2),
    ],
)
def test_the_observer_counts_what_ran_at_once(spans: list[Span], most: int) -> None:
    assert observe.overlap(spans) == most


def test_stamps_that_overlap_are_a_run_beyond_the_limit(tmp_path: Path) -> None:
    log = tmp_path / "stamps"
    log.write_text(
        "a begin 7 100\nb begin 8 150\nkilled begin 9 160\nkilled end 0 170\na end 7 200\nb end 8 250\nc beg"
    )
    spans = observe.read(log)
    seen = Seen("floor", 2, observe.overlap(spans.values()), killed=False)

    assert (spans["b"], list(spans), report.limits([seen], PEERS).splitlines()[-1]) == (
        Span(8, 150, 250),
        ["a", "b", "killed"],
        "| floor | 3/2 | **1** of 1 | – |",
    )


def test_each_pair_that_began_in_another_order_is_an_inversion() -> None:
    spans = {"a": Span(1, 30), "b": Span(2, 10), "c": Span(3, 20)}

    assert observe.inversions(["a", "b", "c"], spans) == 2


def test_ratios_are_taken_within_a_round_and_what_never_came_is_said() -> None:
    values = {"floor": (1.0, 10.0, 2.0), "ipclock": (3.0, 20.0, 8.0), "flock": (float("inf"), float("inf"), 5.0)}
    samples = [
        Sample("time, ms", "", peer, place, value) for peer in values for place, value in enumerate(values[peer])
    ]
    measure = report.measures(samples)[0]

    assert [measure.cell(peer, "") for peer in (*values, "sem")] == [
        "**2.00** (10.0)",
        "**8.00** (20.0) ×3.00",
        "**never** (never) ×2.50",
        "–",
    ]
