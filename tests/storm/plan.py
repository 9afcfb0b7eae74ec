"""What a storm has in store: which clients come, how they ask, and what happens to each. All comes from the seed."""

from __future__ import annotations

import random
from typing import NamedTuple

from tests.storm.clients import SOURCED

WAYS, WEIGHTS = ["wrap", "acquire", "nested", *SOURCED], [12, 4, 6] + [2] * len(SOURCED)


class Job(NamedTuple):
    """One client as the plan has it: how it asks, how long it builds, what happens to it how long after its start.

    The `way` that it asks is `wrap`, `acquire`, `nested`, or one of SOURCED; what happens to those happens `after` the
    build's start.
    """

    label: str
    options: tuple[str, ...]
    slots: int
    way: str
    seconds: float
    fate: str
    after: float


def plan(seed: int, jobs: int, *, removals: bool = False) -> list[Job]:
    """Return what the seed has in store. With *removals* nobody holds a slot that no lock tells of."""
    dice = random.Random(seed)
    fates = ["", "kill", "kill build", "stop", "stop", "SIGTERM", "SIGINT", "freeze"]
    found = []
    for number in range(jobs):
        slots = dice.choices([1, 2], [9, 1])[0]
        options = ["--slots", "2"] if slots == 2 else []
        options += dice.choice([[], [], [], ["--priority", "5"], ["--priority", "-3"]])
        way = "wrap" if options else dice.choices(WAYS, WEIGHTS)[0]
        fate = dice.choices(fates, [24, 4, 4, 4, 4, 4, 4, 1])[0]
        seconds, after = round(dice.uniform(0.01, 0.25), 3), round(dice.uniform(0.0, 1.5), 3)
        if way == "nested" or (way == "acquire" and removals):
            way, seconds = "nested", 0.3 + seconds
        if way in SOURCED:
            fate = dice.choice(["", "kill", "SIGTERM", "SIGTERM", "SIGHUP", "SIGINT"])
            seconds, after = 0.2 + seconds, after / 10
        found.append(Job(f"job-{number}", tuple(options), slots, way, seconds, fate, after))
    return found
