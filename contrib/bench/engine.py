"""What one ZooKeeper server on this machine bears: hand-off, admissions, a raised capacity, waiting sessions.

    python contrib/bench/engine.py

Starts a server of its own on loopback, with the settings that a production would have (it syncs to the disk). The
clients are threads of this process, each with a session of its own.
"""

from __future__ import annotations

import json
import os
import resource
import statistics
import sys
import tempfile
import threading
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from ipclock.config.settings import load_settings
from ipclock.pool.claim import Claim
from ipclock.pool.wait_context import WaitContext
from ipclock.zookeeper.pool import SharedPool
from tests.zookeeper import servers

ROUNDS = 100
WAITERS = 200
CLIENTS = 8
EMPTY = tempfile.NamedTemporaryFile()  # noqa: SIM115 - no settings of this machine, for as long as we run


def pool(server: servers.Server, name: str, capacity: int) -> SharedPool:
    """Return a client of a pool."""
    engine = f"zookeeper://{server.address}/{name}"
    options = {"ENGINE": engine, "MAX_PARALLEL_BUILDS": str(capacity), "HISTORY": "off", "CONFIG": EMPTY.name}
    return SharedPool(load_settings(options))


def take(one: SharedPool) -> Claim:
    """Wait for a slot."""
    return one.acquire(Claim("bench"), WaitContext(600))


def hand_off(server: servers.Server) -> list[float]:
    """Return the times from the end of one holder to the next one's start, in ms."""
    spans = []
    for _ in range(ROUNDS):
        first, second = pool(server, "handoff", 1), pool(server, "handoff", 1)
        held = take(first)
        got: list[float] = []
        waiter = threading.Thread(target=lambda second=second, got=got: (take(second), got.append(time.monotonic())))
        waiter.start()
        while not first.snapshot().waiters:
            time.sleep(0.01)
        time.sleep(0.02)  # it has set its watch
        begun = time.monotonic()
        first.release(held)
        waiter.join()
        spans.append((got[0] - begun) * 1000)
        second.close()
    return spans


def raised(server: servers.Server) -> list[float]:
    """Return the times from a capacity raised from 2 to 4 to the start of both who waited, in ms."""
    spans = []
    for number in range(20):
        name = f"raised{number}"
        holders = [pool(server, name, 2) for _ in range(2)]
        for one in holders:
            take(one)
        waiters = [pool(server, name, 2) for _ in range(2)]
        got: list[float] = []
        threads = [
            threading.Thread(target=lambda one=one, got=got: (take(one), got.append(time.monotonic())))
            for one in waiters
        ]
        for thread in threads:
            thread.start()
        admin = pool(server, name, 2)
        while len(admin.snapshot().waiters) < 2:
            time.sleep(0.01)
        time.sleep(0.1)
        begun = time.monotonic()
        admin.resize(4, WaitContext(10))
        for thread in threads:
            thread.join()
        spans.append((max(got) - begun) * 1000)
        for one in [admin, *holders, *waiters]:
            one.close()
    return spans


def admissions(server: servers.Server) -> float:
    """Return how many times a second CLIENTS clients come, hold for no time, and go, with a session for each time."""
    end = time.monotonic() + 10
    done = [0] * CLIENTS

    def work(number: int) -> None:
        while time.monotonic() < end:
            one = pool(server, "admissions", CLIENTS)
            one.release(take(one))
            done[number] += 1

    threads = [threading.Thread(target=work, args=(number,)) for number in range(CLIENTS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(done) / 10


def waiting(server: servers.Server) -> tuple[float, float, float]:
    """Return what the server takes for WAITERS waiters: percent of a processor, MB; and the time to serve them all."""
    holder = pool(server, "waiting", 1)
    held = take(holder)
    waiters = [pool(server, "waiting", 1) for _ in range(WAITERS)]

    def work(one: SharedPool) -> None:
        one.release(take(one))

    threads = [threading.Thread(target=work, args=(one,)) for one in waiters]
    for thread in threads:
        thread.start()
    while len(holder._nodes.in_line()) < WAITERS:
        time.sleep(0.1)
    before = cpu_s(server)
    time.sleep(20)
    percent = (cpu_s(server) - before) / 20 * 100
    memory = next(
        int(line.split()[1]) / 1024
        for line in Path(f"/proc/{server.process.pid}/status").read_text().splitlines()
        if line.startswith("VmRSS")
    )
    begun = time.monotonic()
    holder.release(held)
    for thread in threads:
        thread.join()
    return percent, memory, time.monotonic() - begun


def cpu_s(server: servers.Server) -> float:
    """Return the processor time that the server has used."""
    fields = Path(f"/proc/{server.process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def spread(spans: list[float]) -> dict[str, float]:
    """Return the median, what 95 of 100 stay below, and the most."""
    ordered = sorted(spans)
    return {
        "median": round(statistics.median(ordered), 1),
        "p95": round(ordered[int(len(ordered) * 0.95)], 1),
        "most": round(ordered[-1], 1),
    }


def main() -> None:
    """Measure, and print it."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (8192, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    before = os.getloadavg()[0]
    with tempfile.TemporaryDirectory(dir=".") as folder:
        server = servers.Server(Path(folder) / "zookeeper", "tickTime=2000", "forceSync=yes").start()
        try:
            found: dict[str, object] = {
                "hand_off_ms": spread(hand_off(server)),
                "raised_2_to_4_ms": spread(raised(server)),
            }
            found["admissions_a_second"] = round(admissions(server), 1)
            percent, memory, seconds = waiting(server)
            found |= {"waiters": WAITERS, "server_cpu_percent": round(percent, 2), "server_mb": round(memory)}
            found["served_a_second"] = round(WAITERS / seconds, 1)
        finally:
            server.kill()
    found["load_before_and_after"] = [round(before, 1), round(os.getloadavg()[0], 1)]
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
