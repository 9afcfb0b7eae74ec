"""A pool that is fair: builds of one priority take turns by user or by session, and otherwise as they came."""

from __future__ import annotations

import json
import shutil
import signal
from typing import TYPE_CHECKING

import pytest

from tests.helpers.crash_at import OTHER_USER, USER, Client, needs_root
from tests.helpers.world import until

if TYPE_CHECKING:
    from pathlib import Path

    from tests.helpers.world import Build, World

GROUP = 54400


class Sessions:
    """Builds of named sessions in one pool, each listed before the next one comes."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.builds: dict[str, Build] = {}

    def queue(self, *labels: str, env: dict[str, str] | None = None) -> None:
        """Queue builds, each of the session that the first letter of its label names."""
        for label in labels:
            before = len(self.world.records("holding")) + self.world.waiting()
            self.builds[label] = self.world.wrap(label, "-q", env={"IPCLOCK_SESSION": label[0], **(env or {})})
            until(
                lambda before=before: len(self.world.records("holding")) + self.world.waiting() > before,
                f"{label} in line",
            )

    def line(self) -> list[str]:
        """Return the labels of those that wait, as status has them."""
        return [waiter["label"] for waiter in self.world.status()["waiters"]]

    def run_all(self) -> list[str]:
        """End one build after the other; return their labels in the order in which they ran."""
        order = []
        while len(order) < len(self.builds):
            holders = until(lambda: self.world.status()["holders"], "a build that holds the slot")
            (label,) = [holder["label"] for holder in holders]
            order.append(label)
            assert self.builds[label].started().end() == 0
        return order


@pytest.fixture
def sessions(world: World) -> Sessions:
    """No builds yet."""
    return Sessions(world)


def parties(world: World) -> set[str]:
    """Return what the names of the waiting records say of users and sessions."""
    return {name.partition(",f")[2] for state in ("queued", "gate") for name in world.records(state)}


def test_a_session_that_queues_five_builds_keeps_none_of_the_others_waiting_for_all_five(sessions: Sessions) -> None:
    sessions.world.run("init", "--fair", "session")
    sessions.queue("a1", "a2", "a3", "a4", "a5", "b1")

    line = sessions.line()
    order = sessions.run_all()

    assert (line, order) == (["b1", "a2", "a3", "a4", "a5"], ["a1", *line])
    assert sessions.world.settled() == (1, {})


def test_two_sessions_take_turns_and_each_keeps_its_own_order(sessions: Sessions) -> None:
    sessions.world.run("init", "--fair", "session")
    sessions.queue("a1", "a2", "a3", "b1", "b2", "b3")

    line = sessions.line()

    assert (line, sessions.run_all()) == (["b1", "a2", "b2", "a3", "b3"], ["a1", "b1", "a2", "b2", "a3", "b3"])


def test_without_fairness_builds_go_as_they_came_and_their_names_say_nothing_of_sessions(sessions: Sessions) -> None:
    sessions.queue("a1", "a2", "a3", "b1")

    found = (sessions.line(), parties(sessions.world), "turns" in sessions.world.run("status").stdout)

    assert (found, sessions.run_all()) == ((["a2", "a3", "b1"], {""}, False), ["a1", "a2", "a3", "b1"])


def test_a_priority_counts_before_fairness(sessions: Sessions) -> None:
    sessions.world.run("init", "--fair", "session")
    sessions.queue("a1", "a2")
    sessions.queue("b1", env={"BUILD_PRIORITY": "5"})
    sessions.queue("a3")

    assert sessions.run_all() == ["a1", "a2", "a3", "b1"]


def test_those_who_wait_follow_a_change(sessions: Sessions) -> None:
    world = sessions.world
    sessions.queue("a1", "a2", "a3", "b1")
    lines = []
    for between, count in (("session", 2), ("off", 1), ("session", 2)):
        world.run("init", "--fair", between)
        until(lambda count=count: len(parties(world)) == count and ("" in parties(world)) == (count == 1), between)
        lines.append(sessions.line())

    # what runs since before the change counts for no session
    assert lines == [["a2", "b1", "a3"], ["a2", "a3", "b1"], ["a2", "b1", "a3"]]
    assert (sessions.run_all(), world.settled()) == (["a1", "a2", "b1", "a3"], (1, {}))


def test_status_says_between_whom_a_pool_is_fair(world: World) -> None:
    seen = []
    for between in ("user", "session", "off"):
        world.run("init", "--fair", between)
        told = json.loads(world.run("status", "--json=2").stdout)["fair"]
        lines = [line.strip() for line in world.run("status").stdout.splitlines() if "turns" in line]
        seen.append((told, lines, "fair" in world.status()))

    assert seen == [
        ("user", ["builds take turns by user"], False),
        ("session", ["builds take turns by session"], False),
        (None, [], False),
    ]


def test_a_build_of_the_pools_owner_says_it_too(world: World) -> None:
    built = world.run("wrap", "-q", "a", "--", "true", env={"FAIR": "session"}).returncode
    first = json.loads(world.run("status", "--json=2").stdout)["fair"]
    world.run("wrap", "-q", "a", "--", "true")

    assert (built, first, json.loads(world.run("status", "--json=2").stdout)["fair"]) == (0, "session", "session")


def test_a_pool_that_is_removed_or_loses_its_note_goes_on_by_tickets(sessions: Sessions) -> None:
    world = sessions.world
    world.run("init", "--fair", "session")
    sessions.queue("a1", "a2", "b1", "a3")
    (world.folder / "fair").unlink()
    without = sessions.line()
    until(lambda: parties(world) == {""}, "names that say nothing of sessions")
    world.run("init", "--fair", "session")
    until(lambda: "" not in parties(world), "names of sessions")
    fair = sessions.line()
    shutil.rmtree(world.folder)
    until(lambda: world.waiting() == 3 and len(world.records("holding")) == 1, "all of them back")
    until(lambda: parties(world) == {""}, "names that say nothing of sessions")

    assert (without, fair) == (["a2", "b1", "a3"], ["b1", "a2", "a3"])
    assert (sorted(sessions.run_all()), world.settled()) == (["a1", "a2", "a3", "b1"], (1, {}))


def test_a_reset_leaves_a_pool_fair(sessions: Sessions) -> None:
    world = sessions.world
    world.run("init", "--fair", "session")
    sessions.queue("a1", "a2", "b1")
    lost = sessions.builds.pop("a1").started()

    assert world.run("reset").returncode == 0
    order = sessions.run_all()

    assert (order, lost.end(), world.settled()) == (["b1", "a2"], 0, (1, {}))


def test_a_killed_waiter_at_the_gate_of_a_fair_pool_keeps_nobody(sessions: Sessions) -> None:
    world = sessions.world
    world.run("init", "--fair", "session")
    sessions.queue("a1", "a2", "b1")
    until(lambda: [name for name in world.records("gate") if name.startswith("3,")], "the other session at the gate")
    victim = sessions.builds.pop("b1")
    victim.signal(signal.SIGKILL)
    victim.wait()

    assert (sessions.run_all(), world.settled()) == (["a1", "a2"], (1, {}))


def test_a_detached_build_is_of_the_session_that_has_asked_for_it(world: World, tmp_path: Path) -> None:
    world.run("init", "--fair", "session")
    holder = world.wrap("holder", "-q").started()
    tmp_path.chmod(0o700)
    for label in ("one", "two"):
        detached = world.run("wrap", "--detach", label, "--", "true", env={"LOG_DIR": str(tmp_path / "logs")})
        assert (detached.returncode, detached.stderr) == (0, "")
    attached = world.wrap("three", "-q")
    until(lambda: world.waiting() == 3, "all in line")
    # each looks after its name meanwhile
    ticked = [until(lambda: parties(world), "names"), *(parties(world) for _ in range(2))]
    holder.end()

    assert ([len(found) for found in ticked], attached.started().end()) == ([1, 1, 1], 0)


@pytest.fixture
def users(world: World) -> dict[int, list[Client]]:
    """The clients of two users of a shared pool, to be closed."""
    needs_root(0)
    clients: dict[int, list[Client]] = {USER: [], OTHER_USER: []}
    yield clients
    for client in (*clients[USER], *clients[OTHER_USER]):
        client.close()


def test_by_user_the_sessions_of_one_count_as_one(world: World, users: dict[int, list[Client]]) -> None:
    world.run("init", "--mode", "0660", "--group", str(GROUP), "--fair", "user")

    def start(uid: int, session: str, *options: str) -> Client:
        env = world.env | {"HOME": "/nonexistent", "IPCLOCK_SESSION": session}
        command = ("wrap", "-q", *options, f"{uid}-{session}", "--", "sh", "-c", "echo ready; cat")
        users[uid].append(Client(*command, env=env, uid=uid, groups=(GROUP,)))
        return users[uid][-1]

    def listed(count: int) -> None:
        until(lambda: len(world.records("holding")) + world.waiting() == count, "it is listed")

    for number, (uid, session) in enumerate([(USER, "a"), (USER, "b"), (USER, "c"), (OTHER_USER, "a")], 1):
        start(uid, session)
        listed(number)
    line = [waiter["label"] for waiter in world.status()["waiters"]]
    ended = [client.end() for client in (users[USER][0], users[OTHER_USER][0], *users[USER][1:])]

    assert (line, ended) == ([f"{OTHER_USER}-a", f"{USER}-b", f"{USER}-c"], [0] * 4)
    assert world.settled() == (1, {})


def test_what_a_member_says_of_fairness_is_not_heeded(world: World, users: dict[int, list[Client]]) -> None:
    world.run("init", "--mode", "0660", "--group", str(GROUP), "--fair", "user")
    env = world.env | {"HOME": "/nonexistent", "FAIR": "off"}
    for arguments in (("wrap", "-q", "a", "--", "true"), ("init",)):
        users[USER].append(Client(*arguments, env=env, uid=USER, groups=(GROUP,)))
    ended = [client.end() for client in users[USER]]

    assert (ended, json.loads(world.run("status", "--json=2").stdout)["fair"]) == ([0, 77], "user")
