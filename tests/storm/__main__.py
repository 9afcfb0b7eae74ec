"""A storm by hand: `python -m tests.storm --seed 1 --jobs 1000`. The same seed makes the same plan."""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.helpers.world import World
from tests.storm.plan import plan
from tests.storm.storm import Storm
from tests.storm.strangers import missing, users_ways


def main() -> int:
    """Let it blow, print what came of it, and return 1 if a promise was broken."""
    parser = argparse.ArgumentParser(prog="python -m tests.storm", description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=1000)
    parser.add_argument("--slots", type=int, default=3)
    parser.add_argument("--seconds", type=float, help="let no more jobs come after so long")
    parser.add_argument("--removals", action="store_true", help="remove the pool's files too; LOCK_DIRs differ")
    parser.add_argument("--namespaces", action="store_true", help="clients with PIDs or clocks of their own too")
    parser.add_argument("--users", action="store_true", help="clients of two users too, of one group")
    parser.add_argument("--fair", action="store_true", help="ten sessions take turns")
    args = parser.parse_args()
    if reason := missing(namespaces=args.namespaces, users=args.users):
        parser.error(reason)
    begun = time.monotonic()
    world = World(f"ipclock-storm-{os.getpid()}")
    with TemporaryDirectory() as folder:
        users = users_ways() if args.users else ()
        jobs = plan(args.seed, args.jobs, removals=args.removals, namespaces=args.namespaces, users=users)
        storm = Storm(world, Path(folder), args.seed, args.slots, removals=args.removals, fair=args.fair)
        report = storm.run(jobs, args.seconds)
    world.close()
    for name, value in report._asdict().items():
        print(f"{name}: {value}")
    print(f"{time.monotonic() - begun:.0f} s")
    return 0 if not report.odd and not report.violations and report.left_over == (args.slots, {}) else 1


sys.exit(main())
