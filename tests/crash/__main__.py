"""Hit a command at every system call: `python -m tests.crash [--scene NAME] [--faults] [--point call-7]`."""

from __future__ import annotations

import argparse
import sys
import time

from tests.crash.sweep import SCENES, Point, faults, play, problem


def main() -> int:
    """Play the scenes at their points, tell what broke and the figures, and return 1 if anything did."""
    parser = argparse.ArgumentParser(prog="python -m tests.crash", description=__doc__)
    parser.add_argument("--scene", choices=[scene.__name__ for scene in SCENES])
    parser.add_argument("--every", type=int, default=1, metavar="N", help="only every Nth point")
    parser.add_argument("--faults", action="store_true", help="errors instead of SIGKILL")
    parser.add_argument("--point", help="one point only, as it is printed")
    args = parser.parse_args()
    if reason := problem():
        print(reason)
        return 1
    tried = died = broken = 0
    slowest = 0.0
    for scene in SCENES:
        if args.scene not in (None, scene.__name__):
            continue
        begun = time.monotonic()
        _, points = play(scene, None)
        chosen = list(faults(points)) if args.faults else points
        if args.point:
            call, nth, *error = args.point.split("-")
            chosen = [Point(call, int(nth), *error)]
        for point in chosen[:: args.every]:
            outcome, _ = play(scene, point)
            tried += 1
            died += outcome.died
            broken += bool(outcome.wrong)
            slowest = max(slowest, outcome.proceed_s)
            if outcome.wrong:
                print(f"{scene.__name__} {point}: {outcome.wrong}", flush=True)
        print(f"{scene.__name__}: {len(points)} calls, {time.monotonic() - begun:.0f} s", flush=True)
    print(f"tried {tried}, died {died}, broken {broken}, slowest to go on {slowest:.2f} s")
    return int(broken > 0)


sys.exit(main())
