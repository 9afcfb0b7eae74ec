"""A pool, a past and a doctor's round whose every value is known: what the JSON of each schema is made of in tests."""

from __future__ import annotations

from ipclock.display.estimates import Activity, Standing
from ipclock.history import statistics
from ipclock.history.simulation import Range
from ipclock.history.statistics import Part, Past, Report
from ipclock.linux.process_view import Usage
from ipclock.pool.notes import Drain, Resize
from ipclock.pool.snapshot import Holder, Origin, Snapshot, Waiter

DAY = 86400.0
GB = 1 << 30


def holder(ticket: int, **more: object) -> Holder:
    """Return a build that runs as most do."""
    common = {"slot": ticket, "slots": 1, "label": "web", "pid": 40, "command_pid": 41, "user": "root"}
    times = {"since": 1767225600.25, "held_s": 61.5, "state": "running", "here": False, "processes": []}
    return Holder(ticket=ticket, **common | times | more)  # type: ignore[arg-type]


def waiter(ticket: int, **more: object) -> Waiter:
    """Return a waiter as most are."""
    common = {"position": 1, "slots": 1, "priority": 0, "held_back": "", "label": "배포", "pid": 42, "user": "root"}
    times = {"since": 1767225601.0, "waited_s": 60.75, "timeout_s": 600.0, "at_gate": False}
    return Waiter(ticket=ticket, **common | times | more)  # type: ignore[arg-type]


def standing() -> Standing:
    """Return a busy pool: an orphan, a nested build, one on another host, a damaged record, and two who wait."""
    damaged = {"label": "?", "pid": None, "command_pid": None, "since": None, "held_s": None, "state": "unknown"}
    holders = [
        holder(1, origin=Origin(detached=True, log="/var/log/ipclock/known.1.web.1767225600.log")),
        holder(2, state="orphaned", processes=[Usage(43, "sleep 60", 5.0), Usage(44, "", 0.0)]),
        holder(3, slot=1, within=1),
        holder(4, host="ci-2", session_s=90.5, token="00000000000000000017"),
        holder(5, **damaged),
    ]
    waiters = [
        waiter(6, at_gate=True, origin=Origin(detached=True, log="/var/log/ipclock/known.6.web.1767225600.log")),
        waiter(7, position=2, slots=2, priority=-5, held_back="size", timeout_s=None, host="ci-2", session_s=3.0),
    ]
    pool = Snapshot(
        name="/known",
        capacity=5,
        taken=4,
        free=0,
        drained=True,
        drain=Drain("", 0, None),
        holders=holders,
        waiters=waiters,
        folder="/dev/shm/ipclock.known",
        unlisted=1,
        unlisted_pids=(50,),
        resized=Resize(2, 5, 0, 1767225500.0),
    )
    uses = {1: Activity(12.5, None, 3 * GB), 2: Activity(0.0, 1.5, 4096)}
    return Standing(pool, uses, {"web": 120.0}, {6: Range(30.0, 58.5)})


def idle() -> Standing:
    """Return a pool that nobody has made yet."""
    return Standing(Snapshot("/known", 1, 0, 1, False, None, [], []), {}, {}, {})


def past() -> Past:
    """Return a week of builds of two labels."""
    parts = [
        Part("web", "done", 2, 3.0, 100.0, 100.0, 1, [1.0, 2.0], [40.0, 60.0], [1.5 * GB, 2.0 * GB]),
        Part("web", "failed", 1, 0.5, 10.0, 10.0, 1, [0.5], [10.0], []),
        Part("배포", "timeout", 1, 600.0, 0.0, 0.0, 1, [600.0], [], []),
    ]
    return Past(1767225600.0, 1767225600.0 + 7 * DAY, [(1767225600.0, 1), (1767225600.0 + DAY, 2)], parts)


def report() -> Report:
    """Return that week in numbers, on a machine of 8 GB."""
    return statistics.report(past(), 8 * GB)


def nothing() -> Past:
    """Return a week in which nothing has ended."""
    return Past(1767225600.0, 1767225600.0 + 7 * DAY, [], [])
