"""Explore larger bounds: `python -m tests.model --clients 3 --capacity 1 --kill 1 --give_up 1 --resize 1`."""

from __future__ import annotations

import argparse
import sys
import time

from tests.model.checker import Checker, initial

KINDS = ("kill", "give_up", "reset", "post", "stop", "resize")


def main() -> int:
    """Explore, print the figures, and the way to the first violation if there is one."""
    parser = argparse.ArgumentParser(prog="python -m tests.model")
    parser.add_argument("--clients", type=int, default=3)
    parser.add_argument("--capacity", type=int, default=1)
    parser.add_argument("--most", type=int, default=10_000_000, help="states to visit at most")
    for kind in KINDS:
        parser.add_argument(f"--{kind}", type=int, default=0, help=f"how often a {kind} may happen")
    args = parser.parse_args()
    begun = time.monotonic()
    budget = {kind: getattr(args, kind) for kind in KINDS if getattr(args, kind)}
    verdict = Checker().explore(initial(args.clients, args.capacity, **budget), args.most)
    for line in verdict.violation.trace if verdict.violation else ():
        print(line)
    print(f"{verdict.states} states, {verdict.transitions} transitions, {time.monotonic() - begun:.1f} s")
    print(verdict.violation.kind if verdict.violation else "no violation")
    return 1 if verdict.violation else 0


sys.exit(main())
