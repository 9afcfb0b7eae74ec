"""How often the estimate of a wait is right: a storm of builds through ipclock, then its history played again.

    python contrib/bench/estimates.py [--seconds 240] [--seed 1] [--scale 60]

Each wait of the history is foretold as it would have been at its arrival, and again half way through, from nothing but
what was known then; it is right if the wait that was left lies within what a person would have been told. The builds of
the storm are seconds long and are taken for minutes (--scale), or all would be estimated as "any moment".
"""

from __future__ import annotations

import argparse
import random
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

from ipclock.history import simulation
from ipclock.history.finished import HELD, RECENT
from ipclock.linux import semaphore
from ipclock.pool import place

SLOTS = 2
LABELS = {"staging": (1.2, 0.2), "production": (2.0, 0.15), "docs": (0.4, 0.5), "tests": (0.8, 0.4)}  # median, sigma


class Build(NamedTuple):
    """A row of the history: when it came, was let in (None: never) and ended, in seconds."""

    label: str
    arrived: float
    admitted: float | None
    ended: float
    outcome: str
    slots: int
    capacity: int


def storm(history: Path, folder: Path, seed: int, seconds: float) -> None:
    """Let builds come a little faster than they can be served, for so long; some fail, are killed or give up."""
    dice = random.Random(seed)
    env = {
        "PATH": "/usr/bin:/bin",
        "LOCK_DIR": str(folder),
        "SEMAPHORE_NAME": f"/estimates-{seed}",
        "HISTORY": str(history),
        "MAX_PARALLEL_BUILDS": str(SLOTS),
    }
    clients: list[subprocess.Popen[bytes]] = []
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        label = dice.choice(list(LABELS))
        median, sigma = LABELS[label]
        length = median * dice.lognormvariate(0, sigma)
        code = 0 if dice.random() > 0.08 else 3
        script = f"sleep {length * (1 if code == 0 else dice.random()):.2f}; exit {code}"
        wait = "60" if dice.random() > 0.05 else "2"
        command = [sys.executable, "-m", "ipclock", "wrap", "-q", "-w", wait, label, "--", "sh", "-c", script]
        clients.append(subprocess.Popen(command, env=env, stderr=subprocess.DEVNULL))
        if dice.random() < 0.03:
            dice.choice(clients).send_signal(signal.SIGINT)
        time.sleep(dice.expovariate(1.6 if len([client for client in clients if client.poll() is None]) < 9 else 0.8))
    for client in clients:
        client.wait()


def builds(history: Path, scale: float) -> list[Build]:
    """Return the rows of the history, all times multiplied."""
    question = "SELECT label, arrived, admitted, ended, outcome, slots, capacity FROM finished ORDER BY arrived"
    with closing(sqlite3.connect(history)) as connection:
        rows = connection.execute(question).fetchall()
    start = rows[0][1]
    times = [[None if when is None else (when - start) * scale for when in row[1:4]] for row in rows]
    return [Build(row[0], *when, *row[4:]) for row, when in zip(rows, times, strict=True)]  # type: ignore[arg-type]


def spans(past: list[Build], now: float) -> dict[str, tuple[float, ...]]:
    """Return what was known of each label at that time, as `finished.expected` would have said it."""
    found = defaultdict(list)
    for build in sorted(past, key=lambda build: build.ended):
        if build.ended < now and build.admitted is not None and build.outcome in HELD:
            found[build.label].append(build.ended - build.admitted)
    return {label: tuple(sorted(lengths[-RECENT:])) for label, lengths in found.items()}


def foretell(all_builds: list[Build], own: Build, now: float) -> simulation.Told | None:
    """Return what a person in that build's place would have been told at that time."""
    known = spans(all_builds, now)
    running, ahead = [], []
    for build in all_builds:
        if build.admitted is not None and build.admitted <= now < build.ended:
            running.append(simulation.Work(known.get(build.label, ()), build.slots, now - build.admitted))
        elif build.arrived < own.arrived and now < (build.ended if build.admitted is None else build.admitted):
            ahead.append(simulation.Work(known.get(build.label, ()), build.slots))
    left = simulation.wait(running, ahead, own.slots, own.capacity)
    return left and simulation.rounded(left)


def main() -> None:
    """Print how often the estimates were right, by how they were told."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--seconds", type=float, default=240)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--scale", type=float, default=60)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        history = Path(folder) / "history.db"
        try:
            storm(history, Path(folder), args.seed, args.seconds)
        finally:
            semaphore.unlink(f"/estimates-{args.seed}")
            Path(place.path_of(f"estimates-{args.seed}")).unlink(missing_ok=True)
        found = builds(history, args.scale)
    right, asked, unknown = Counter[str](), Counter[str](), 0
    widths = []
    for own in found:
        if own.admitted is None or own.admitted - own.arrived < args.scale / 10:
            continue
        for now in (own.arrived, (own.arrived + own.admitted) / 2):
            told = foretell(found, own, now)
            if told is None:
                unknown += 1
                continue
            asked[told.how] += 1
            right[told.how] += told.low <= own.admitted - now <= told.high
            widths.append((told.high - told.low) / 60)
    print(f"{len(found)} builds, {asked.total()} estimates, {unknown} times nothing was told")
    for how in (*asked, ""):
        hits, count = (right[how], asked[how]) if how else (right.total(), asked.total())
        print(f"{how or 'all':10} {hits:5} of {count:5} right: {100 * hits / count:.0f} %")
    print(f"the range told is {sorted(widths)[len(widths) // 2]:.1f} minutes wide in the median")


if __name__ == "__main__":
    main()
