"""What a storm has in store: which clients come, how they ask, and what happens to each. All comes from the seed."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, NamedTuple

from tests.helpers.crash_at import OTHER_USER, USER
from tests.storm.clients import SOURCED, WAYS, WEIGHTS
from tests.storm.strangers import NAMESPACES

if TYPE_CHECKING:
    from collections.abc import Collection


class Job(NamedTuple):
    """One client as the plan has it: how it asks, how long it builds, what happens to it how long after its start.

    The `way` that it asks is `wrap`, `acquire`, `nested`, `detached`, or one of SOURCED; what happens to those happens
    `after` the build's start. It is in a `namespace` of NAMESPACES, and of another user if there is a `uid`.
    """

    label: str
    options: tuple[str, ...]
    slots: int
    way: str
    seconds: float
    fate: str
    after: float
    namespace: str = ""
    uid: int | None = None


def plan(
    seed: int, jobs: int, *, removals: bool = False, namespaces: bool = False, users: Collection[str] = ()
) -> list[Job]:
    """Return what the seed has in store. With *removals* nobody holds a slot that no lock tells of.

    With *namespaces*, some of the same jobs are in one of their own; of those that ask in a way of *users*, some are
    other users'.
    """
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
    strange = random.Random(f"strangers of {seed}")  # dice of their own: what else happens is the same without them
    return [_strange(job, strange, namespaces, users) for job in found]


def _strange(job: Job, dice: random.Random, namespaces: bool, users: Collection[str]) -> Job:
    namespace = dice.choice(["", "", *NAMESPACES])
    uid = dice.choice([None, USER, OTHER_USER])
    if job.way == "acquire" and "PIDs" in namespace:
        namespace = "clocks"  # nobody outside could tell that the script is dead: contrib/cookbook.md, "Docker"
    if job.way == "detached":
        namespace = ""  # its caller's end would be the end of what goes on without it
    if job.way != "wrap" and namespace == "PIDs, as PID 1":
        namespace = "PIDs"  # its end would be the end of what goes on without it
    return job._replace(namespace=namespace if namespaces else "", uid=uid if job.way in users else None)
