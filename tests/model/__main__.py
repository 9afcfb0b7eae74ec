"""Explore larger bounds: `python -m tests.model --clients 3 --kill 1 --give-up 1`."""

from __future__ import annotations

import argparse
import sys
import time

from tests.model.checker import KINDS, Checker, client, initial


def main() -> int:
    """Explore, print the way to the first violation if there is one, the figures and the verdict."""
    parser = argparse.ArgumentParser(prog="python -m tests.model", description=__doc__)
    parser.add_argument("--clients", type=int, default=3)
    parser.add_argument("--capacity", type=int, default=1)
    parser.add_argument("--most", type=int, default=100_000_000, metavar="STATES", help="visit so many at most")
    parser.add_argument(
        "--nested", type=int, default=0, metavar="N", help="so many of them run inside the first's build"
    )
    parser.add_argument(
        "--parties",
        type=int,
        default=0,
        metavar="N",
        help="the pool is fair between so many; the first has most builds",
    )
    for kind in KINDS:
        parser.add_argument(f"--{kind.replace('_', '-')}", type=int, default=0, metavar="TIMES")
    args = parser.parse_args()
    begun = time.monotonic()
    budget = {kind: getattr(args, kind) for kind in KINDS if getattr(args, kind)}
    clients = [
        client(
            inside=0 if 0 < number <= args.nested else -1,
            party=f"u{max(0, number - args.clients + args.parties)}" if args.parties else "",
        )
        for number in range(args.clients)
    ]
    verdict = Checker().explore(initial(clients, args.capacity, **budget), args.most)
    print(f"{verdict.states} states, {verdict.transitions} transitions, {time.monotonic() - begun:.1f} s")
    print(verdict.violation or "no violation" + " so far" * (verdict.states >= args.most))
    return 1 if verdict.violation else 0


sys.exit(main())
