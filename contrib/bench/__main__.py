"""ipclock beside its peers: what they cost, how fast they hand on a slot, and whether they keep to their limit.

    .venv/bin/python -m contrib.bench

Runs every part with whichever peers are installed, and writes all tables and plots. See contrib/bench/README.md.
"""

from __future__ import annotations

import argparse
import os
import platform
import signal
import sys
import time
from pathlib import Path

from contrib.bench import parts, report
from contrib.bench.ground import Ground
from contrib.bench.peers import HERE, PEERS, Peer


def parser() -> argparse.ArgumentParser:
    """Return the parser."""
    made = argparse.ArgumentParser(prog="python -m contrib.bench", description=__doc__.split("\n")[0])
    made.add_argument("--part", action="append", choices=parts.PARTS, help="only this part; may be repeated")
    made.add_argument("--peer", action="append", choices=[peer.name for peer in PEERS], help="only this peer; likewise")
    made.add_argument("--rounds", type=int, default=0, help="so many rounds, instead of each part's own number")
    made.add_argument("--quick", action="store_true", help="little of everything: to see that it works")
    made.add_argument("--seed", type=int, default=1, help="of the order of runs within a round")
    made.add_argument(
        "--python",
        help="the Python in whose environment ipclock and the peers of PyPI are installed"
        " (without it a new environment is made, and removed)",
    )
    made.add_argument("--out", type=Path, default=HERE.parents[1] / "build" / "bench", help="folder of the results")
    return made


def chosen(names: list[str] | None, places: dict[str, str]) -> tuple[list[Peer], list[str]]:
    """Return the peers that are here, and what to do about those that are not."""
    missing = {peer: peer.missing(places) for peer in PEERS if names is None or peer.name in names}
    absent = [f"not installed: {peer.name} ({how})" for peer, how in missing.items() if how]
    return [peer for peer, how in missing.items() if not how], absent


def head(bench: parts.Bench, begun: float, loads: list[float]) -> str:
    """Return what one must know to read the figures."""
    load = ", ".join(f"{load:.2f}" for load in loads)
    versions = ", ".join(f"{peer.name} {peer.version(bench.ground.places)}" for peer in bench.peers)
    return (
        "# Results\n\n"
        f"{os.cpu_count()} processors, Linux {platform.release()}, Python {platform.python_version()};"
        f" {(time.monotonic() - begun) / 60:.0f} minutes; load at the start and after each part: {load}.\n\n"
        f"{versions}.\n\n"
        "Each cell is the **median**, (p95) where there is more than one round, and × the median of the ratios to the"
        " floor in the same round. How it is measured: contrib/bench/README.md."
    )


def run(arguments: argparse.Namespace, ground: Ground) -> None:
    """Run the parts, and write after each what came of them so far: an interrupt costs one part."""
    begun, loads = time.monotonic(), [os.getloadavg()[0]]
    peers, missing = chosen(arguments.peer, ground.places)
    sizes = parts.QUICK if arguments.quick else parts.FULL
    bench = parts.Bench(ground, peers, sizes, arguments.rounds, arguments.seed)
    bench.notes += missing
    known = [peer.name for peer in PEERS]
    for name in arguments.part or parts.PARTS:
        started = time.monotonic()
        parts.PARTS[name](bench)
        loads.append(os.getloadavg()[0])
        print(f"{name}: {time.monotonic() - started:.0f} s", file=sys.stderr, flush=True)
        report.write(arguments.out, head(bench, begun, loads), bench.samples, bench.seen, bench.notes, known)


def main() -> None:
    """Measure, and remove all traces of it."""
    arguments = parser().parse_args()
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)  # as Ctrl-C: tidy up
    ground = Ground(arguments.python)
    try:
        run(arguments, ground)
    finally:
        ground.close()


if __name__ == "__main__":
    main()
