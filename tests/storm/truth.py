"""`plan` against the truth: the same load on two pools, and what the history of each foretells of the other one.

By hand: `python -m tests.storm.truth --seed 1 --jobs 150 --slots 1 2`. The builds are sleeps, as long in both pools,
some with a short time limit. The figures of a pool's own N are to be those that really came; those of the other N too,
but for the time limits of builds that had no need to give up.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, NamedTuple

from tests.helpers.world import World

if TYPE_CHECKING:
    from collections.abc import Sequence

LABELS = {"web": 0.5, "api": 0.9, "docs": 0.2}  # seconds


class Load(NamedTuple):
    """One build: when it comes, its label, how long it takes and waits at most."""

    at_s: float
    label: str
    length_s: float
    limit_s: float


def load(seed: int, jobs: int) -> list[Load]:
    """Return builds that come in bursts; one pool of one slot is busy with them nearly all the time."""
    dice, now, found = random.Random(seed), 0.0, []
    for _ in range(jobs):
        now += dice.expovariate(1 / 0.9) if dice.random() < 0.7 else dice.random() * 0.2
        label = dice.choice(list(LABELS))
        length_s = max(0.05, LABELS[label] * dice.lognormvariate(0, 0.5))
        found.append(Load(now, label, length_s, 2.5 if dice.random() < 0.2 else 600.0))
    return found


def happened(builds: Sequence[Load], slots: int, asked: Sequence[int], folder: str) -> dict[str, Any]:
    """Run the builds in a pool of its own, and return what `plan` says of its history."""
    world = World(f"ipclock-truth-{os.getpid()}-{slots}")
    world.env["HISTORY"] = str(Path(folder) / f"{slots}.db")
    world.ask("init", "--max-parallel-builds", str(slots))
    begun = time.monotonic()
    children = []
    for build in builds:
        time.sleep(max(0.0, begun + build.at_s - time.monotonic()))  # the load itself, no synchronisation
        command = ["wrap", "-q", "-w", f"{build.limit_s}", build.label, "--", "sleep", f"{build.length_s:.3f}"]
        children.append(world.popen(*command))
    for child in children:
        child.wait()
    found: dict[str, Any] = json.loads(world.run("plan", *map(str, asked), "--json").stdout)
    world.close()
    return found


def main() -> None:
    """Print, for each pool, what came and what its history says of each N."""
    parser = argparse.ArgumentParser(prog="python -m tests.storm.truth", description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=150)
    parser.add_argument("--slots", type=int, nargs="+", default=[1, 2])
    args = parser.parse_args()
    builds = load(args.seed, args.jobs)
    with TemporaryDirectory() as folder, ThreadPoolExecutor() as pool:
        answers = pool.map(lambda slots: happened(builds, slots, args.slots, folder), args.slots)
        for slots, answer in zip(args.slots, answers, strict=True):
            print(f"pool of {slots}: {answer['builds']} builds")
            print(f"  what came: {_words(answer['actual'])}")
            for plan in answer["plans"]:
                print(f"  plan {plan['slots']}:    {_words(plan)}")


def _words(figures: dict[str, Any]) -> str:
    waits = ", ".join(f"{name} {value:.2f} s" for name, value in figures["waited_seconds"].items())
    return f"{waits}, in use {figures['utilization']:.0%}, gave up {figures['gave_up']}"


if __name__ == "__main__":
    main()
