"""`ipclock cancel`: a waiter leaves and a build ends, whoever looks after it, and the slot is free afterwards."""

from __future__ import annotations

import json
import os
import re
import signal
import sqlite3
import sys
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from ipclock.linux import process
from tests.helpers.crash_at import OTHER_USER, USER, Client, child, needs_root
from tests.helpers.world import until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.helpers.world import Build, World

STUB_DEAF = ("--ignore", str(int(signal.SIGTERM)))
TERMED = -signal.SIGTERM
US = process.user_name(os.getuid())
GROUP = 54400


@pytest.fixture
def history(world: World, tmp_path: Path) -> Path:
    """The history of the world's pool."""
    tmp_path.chmod(0o700)
    path = tmp_path / "history.db"
    world.env["HISTORY"] = str(path)
    return path


def ends(history: Path) -> list[tuple[str, str, bool]]:
    """Return (label, outcome, whether it had a slot) of all that has ended, by label."""
    with closing(sqlite3.connect(history)) as connection:
        return connection.execute("SELECT label, outcome, held_s NOT NULL FROM finished ORDER BY label").fetchall()


def gone(pid: int) -> bool:
    try:
        return " Z " in Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return True


def in_line(world: World, label: str, *options: str) -> Build:
    """Start a build that waits, and return once it sleeps on its turn, or at the gate."""
    before = world.waiting()
    build = world.wrap(label, "-q", *options)
    until(lambda: world.waiting() == before + 1, f"{label} in line")
    if before:
        until(lambda: len(world.turns()) >= before, f"the turn of {label}")
    return build


def cancel(world: World, *arguments: str) -> tuple[int, list[str]]:
    done = world.run("cancel", *arguments)
    return done.returncode, done.stderr.splitlines()


@pytest.mark.parametrize("where", ["gate", "queued"])
def test_a_waiter_leaves_the_line_and_says_on_whose_word(where: str, world: World, history: Path) -> None:
    holder = world.wrap("a").started()
    waiters = [in_line(world, "b"), in_line(world, "c")]
    victim, other = waiters if where == "gate" else reversed(waiters)
    label, ticket = ("b", "2") if where == "gate" else ("c", "3")
    assert world.records(where) == [ticket]
    with (world.folder / where / ticket).open() as record:
        answer = cancel(world, ticket)
        left = victim.wait()
        ended = re.findall(r"^ended=(.*)$", record.read(), re.MULTILINE)

    assert (answer, left, victim.errors(), ended) == (
        (0, [f"✓ {label} (ticket {ticket}) was cancelled."]),
        TERMED,
        f"ipclock: {label}: cancelled by {US}\n",
        ["-15"],
    )
    assert (holder.end(), other.started().end(), world.settled()) == (0, 0, (1, {}))
    assert (label, "cancelled", 0) in ends(history)


def test_a_build_ends_and_its_slot_goes_on_when_all_its_processes_are_gone(world: World, history: Path) -> None:
    build = world.wrap("a", stub=STUB_DEAF).started()
    daemon = int(build.ask("daemon deaf closed").split()[1])
    waiter = in_line(world, "b")
    with (world.folder / "holding" / "1.1").open() as record:
        answer = cancel(world, "1", "--grace", "0.3")
        left = build.wait()
        ended = re.findall(r"^ended=(.*)$", record.read(), re.MULTILINE)

    assert (answer, left, ended) == ((0, ["✓ a (ticket 1) was cancelled."]), -signal.SIGKILL, ["-9"])
    assert (gone(build.command_pid), gone(daemon)) == (True, True)
    assert build.errors().splitlines()[-1] == f"ipclock: a: cancelled by {US}"
    assert (waiter.started().end(), world.settled(), ends(history)) == (
        0,
        (1, {}),
        [("a", "cancelled", 1), ("b", "done", 1)],
    )


def test_what_a_build_has_left_behind_before_ends_with_it(world: World) -> None:
    script = f"{sys.executable} -c 'import os; os.fork() and os._exit(0); os.setsid(); print(os.getpid(), flush=True)"
    script += "; import signal; signal.pause()' & wait; exec sleep 60"
    build = world.spawn(sys.executable, "-m", "ipclock", "wrap", "-q", "a", "--", "sh", "-c", script)
    daemon = int(build.line())
    until(lambda: process.parent_of(daemon) != build.pid, "a daemon that has lost its parents")
    world.extra.append(daemon)

    answer = cancel(world, "1")

    assert (answer[0], build.wait(), gone(daemon), world.settled()) == (0, TERMED, True, (1, {}))


def test_what_a_build_starts_to_clean_up_is_let_be(world: World, tmp_path: Path) -> None:
    script = f'trap "sleep 0.4; echo clean >{tmp_path}/done; exit 3" TERM; echo ready; sleep 60 & wait'
    build = world.spawn(sys.executable, "-m", "ipclock", "wrap", "-q", "a", "--", "sh", "-c", script)
    assert build.line() == "ready"

    answer = cancel(world, "1")

    assert (answer[0], build.wait(), (tmp_path / "done").read_text()) == (0, 3, "clean\n")


def test_a_shorter_grace_counts_from_when_it_is_said(world: World) -> None:
    build = world.wrap("a", "-q", stub=STUB_DEAF).started()
    first = world.popen("cancel", "1", "--grace", "600")
    until(lambda: "ending=1" in (world.folder / "holding" / "1.1").read_text(), "a build that is being ended")

    second = cancel(world, "1", "--grace", "0")

    assert (second[0], first.wait(), build.wait(), world.settled()) == (0, 0, -signal.SIGKILL, (1, {}))


@pytest.mark.parametrize("where", ["gate", "queued", "holding"])
def test_a_client_that_is_stopped_is_ended_all_the_same(where: str, world: World, history: Path) -> None:
    holder = world.wrap("a").started()
    waiters = [in_line(world, "b"), in_line(world, "c")]
    victim = {"gate": waiters[0], "queued": waiters[1], "holding": holder}[where]
    victim.signal(signal.SIGSTOP)
    ticket = {"gate": "2", "queued": "3", "holding": "1"}[where]

    answer = cancel(world, ticket)

    left = victim.wait()
    others = [build for build in (holder, *waiters) if build != victim]
    rest = [build.end() if build == holder else build.started().end() for build in others]
    label = {"gate": "b", "queued": "c", "holding": "a"}[where]
    assert (answer, left, rest, world.settled()) == (
        (0, [f"✓ {label} (ticket {ticket}) was cancelled."]),
        TERMED,
        [0, 0],
        (1, {}),
    )
    assert (label, "cancelled", int(where == "holding")) in ends(history)


def test_a_waiter_that_cannot_leave_by_itself_is_killed_and_cleared_away(world: World, history: Path) -> None:
    holder = world.wrap("a").started()
    waiter = in_line(world, "b")
    waiter.signal(signal.SIGSTOP)

    answer = cancel(world, "2", "--grace", "0")

    assert (answer[0], waiter.wait(), holder.end(), world.settled()) == (0, -signal.SIGKILL, 0, (1, {}))
    assert ("b", "cancelled", 0) in ends(history)


def test_an_orphan_is_ended_and_is_in_the_history_as_cancelled(world: World, history: Path) -> None:
    build = world.wrap("a").started()
    build.signal(signal.SIGKILL)
    build.wait()

    answer = cancel(world, "1")

    assert (answer, gone(build.command_pid), world.settled(), ends(history)) == (
        (0, ["✓ a (ticket 1) was cancelled."]),
        True,
        (1, {}),
        [("a", "cancelled", 1)],
    )


def test_an_orphan_is_ended_while_another_build_waits_for_its_slot(world: World, history: Path) -> None:
    build = world.wrap("a").started()
    waiter = in_line(world, "b")
    build.signal(signal.SIGKILL)
    build.wait()

    answer = cancel(world, "1")

    assert (answer[0], waiter.started().end(), ends(history)) == (0, 0, [("a", "cancelled", 1), ("b", "done", 1)])


@pytest.mark.parametrize("way", ["--pid", "--fd"])
def test_a_script_that_holds_a_slot_is_ended(way: str, world: World, history: Path) -> None:
    world.run("init")
    acquire = f"{sys.executable} -m ipclock acquire -q"
    held = {"--pid": f"{acquire} --pid $$ a", "--fd": f"exec 8>{world.folder}/new/mine; {acquire} --fd 8 a"}
    body = f"{held[way]}; sleep 60; echo no"
    script = world.spawn("bash", "-c", body)
    assert script.line() == "1"

    answer = cancel(world, "1")

    assert (answer, script.wait(), world.settled()) == ((0, ["✓ a (ticket 1) was cancelled."]), TERMED, (1, {}))
    assert ends(history) == [("a", "cancelled", 1)]


def test_a_script_that_waits_for_its_slot_gets_none(world: World) -> None:
    holder = world.wrap("a").started()
    script = world.spawn("bash", "-c", f"{sys.executable} -m ipclock acquire -q --pid $$ b; echo $?; exit 5")
    until(lambda: world.records("gate"), "a waiter at the gate")

    answer = cancel(world, "2")

    assert (answer[0], script.line(), script.wait(), holder.end(), world.settled()) == (0, "143", 5, 0, (1, {}))


def test_a_program_that_waits_by_the_library_gets_an_exception(world: World) -> None:
    holder = world.wrap("a").started()
    code = "import ipclock\ntry: ipclock.slot('b')\nexcept ipclock.IpclockError as error: print(error, flush=True)"
    program = world.spawn(sys.executable, "-c", code)
    until(lambda: world.records("gate"), "a waiter at the gate")

    answer = cancel(world, "2")

    assert (answer[0], program.line(), program.wait(), holder.end()) == (0, f"b: cancelled by {US}", 0, 0)


def test_of_nested_builds_only_the_one_that_was_named_ends(world: World) -> None:
    inner = f"{sys.executable} -m ipclock wrap -q b -- sleep 60; echo inner $?; read -r _"
    outer = world.spawn(sys.executable, "-m", "ipclock", "wrap", "-q", "a", "--", "sh", "-c", inner)
    until(lambda: len(world.records("holding")) == 2, "the nested build")
    until(lambda: all(one["command_pid"] for one in world.status()["holders"]), "its command")

    answer = cancel(world, "2")

    assert (answer, outer.line(), world.records("holding")) == (
        (0, ["✓ b (ticket 2) was cancelled."]),
        "inner 143",
        ["1.1"],
    )
    outer.tell("")
    assert (outer.wait(), world.settled()) == (0, (1, {}))


def test_the_outer_build_ends_with_what_runs_inside_of_it(world: World) -> None:
    inner = f"{sys.executable} -m ipclock wrap -q b -- sleep 60; exit 7"
    outer = world.spawn(sys.executable, "-m", "ipclock", "wrap", "-q", "a", "--", "sh", "-c", inner)
    until(lambda: len(world.records("holding")) == 2, "the nested build")

    answer = cancel(world, "1")

    assert (answer[0], outer.wait(), world.settled()) == (0, TERMED, (1, {}))


def test_a_command_does_not_cancel_the_build_that_it_runs_in(world: World) -> None:
    done = world.run("wrap", "-q", "a", "--", sys.executable, "-m", "ipclock", "cancel", "1")

    assert (done.returncode, done.stderr.splitlines()[0]) == (
        2,
        "ipclock: this command runs inside the build that it would end",
    )


def test_several_are_cancelled_at_once_or_none(world: World) -> None:
    holder = world.wrap("a").started()
    waiters = [in_line(world, "b"), in_line(world, "c")]
    refused = cancel(world, "2", "9", "3")
    waiting = world.waiting()

    answer = cancel(world, "2", "3", "2")

    assert (refused[0], refused[1][0], waiting) == (2, "ipclock: no such ticket: 9", 2)
    assert (answer[0], [waiter.wait() for waiter in waiters], holder.end()) == (0, [TERMED, TERMED], 0)


def test_a_reset_of_a_ticket_that_waits_names_the_way_to_cancel_it(world: World) -> None:
    holder = world.wrap("a").started()
    waiter = in_line(world, "b")

    told = [world.run("reset", "2", *more) for more in ((), ("--kill",))]

    text = "ipclock: ticket 2 has no slot yet: it is waiting\n   'ipclock cancel 2' removes it from the queue.\n"
    assert [(one.returncode, one.stderr) for one in told] == [(2, text)] * 2
    assert (holder.end(), waiter.started().end()) == (0, 0)


def test_a_detached_build_is_cancelled_and_says_so_in_its_log(world: World, tmp_path: Path) -> None:
    world.env["LOG_DIR"] = str(tmp_path / "logs")
    tmp_path.chmod(0o700)
    started = world.run("wrap", "--detach", "a", "--", "sleep", "60")
    waits = world.run("wrap", "--detach", "b", "--", "sleep", "60")
    assert (started.stdout, waits.stdout) == ("1\n", "2\n")

    answer = cancel(world, "2", "1")

    logs = [path.read_text() for path in sorted((tmp_path / "logs").iterdir())]
    said = [f"ipclock: {label}: cancelled by {US}\n" for label in "ab"]
    assert (answer[0], logs, world.settled()) == (0, said, (1, {}))


@pytest.mark.parametrize("command", ["cancel 1", "wrap --for 1 a -- true"])
def test_pools_of_several_hosts_refuse_it(command: str, world: World) -> None:
    done = world.run(*command.split(), env={"ENGINE": "zookeeper://127.0.0.1:1/pool"})

    assert (done.returncode, "not supported" in done.stderr) == (69, True)


class Members:
    """Two users and root in a pool that their group shares."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.clients: list[Client] = []
        self.env = world.env | {"HOME": "/nonexistent"}

    def start(self, uid: int, *arguments: str) -> Client:
        client = Client(*arguments, env=self.env, uid=uid, groups=(GROUP,))
        self.clients.append(client)
        return client

    def run(self, uid: int, *arguments: str) -> tuple[int, list[str]]:
        client = self.start(uid, *arguments)
        return client.end(), client.errors().splitlines()

    def build(self, uid: int, label: str) -> Client:
        client = self.start(uid, "wrap", "-q", "-w", "20", label, "--", "sh", "-c", "echo ready; cat")
        assert client.line() == "ready"
        return client


@pytest.fixture
def members(world: World) -> Iterator[Members]:
    """A pool of USER's, which OTHER_USER may use too."""
    needs_root(0)
    made = Members(world)
    assert made.run(USER, "init", "--mode", "0660", "--group", str(GROUP))[0] == 0
    yield made
    for client in made.clients:
        client.close()


def test_another_users_build_is_not_cancelled_and_its_owner_is_named(members: Members) -> None:
    build = members.build(USER, "a")
    waiter = members.start(USER, "wrap", "-q", "b", "--", "true")
    until(lambda: members.world.records("gate"), "a waiter at the gate")

    told = [members.run(OTHER_USER, "cancel", ticket) for ticket in "12"]

    remedy = "   That user, the owner of the pool or root can cancel it."
    lines = [
        f"ipclock: ticket {ticket} is a build of another user: {label} (uid {USER})"
        for ticket, label in ((1, "a"), (2, "b"))
    ]
    assert told == [(77, [line, remedy]) for line in lines]
    assert (build.end(), waiter.wait()) == (0, 0)


@pytest.mark.parametrize("uid", [OTHER_USER, USER, 0])
def test_a_user_the_owner_of_the_pool_and_root_cancel_a_build(uid: int, members: Members) -> None:
    build = members.build(OTHER_USER, "a")

    answer = members.run(uid, "cancel", "1")

    assert (answer, build.wait()) == ((0, ["✓ a (ticket 1) was cancelled."]), TERMED)
    assert build.errors() == f"ipclock: a: cancelled by {process.user_name(uid)}\n"


def test_what_the_pools_owner_may_not_end_goes_on_and_is_named(members: Members) -> None:
    build = members.start(OTHER_USER, "wrap", "-q", "a", "--", "sh", "-c", 'echo "$$"; exec cat')
    orphan = int(build.line())
    members.world.extra.append(orphan)
    build.kill()

    status, lines = members.run(USER, "cancel", "1", "--grace", "0")

    assert (status, lines[0].startswith("ipclock: ticket 1: cannot kill process ")) == (77, True)
    assert (members.world.records("holding"), gone(orphan)) == (["1.1"], False)


def test_the_record_of_another_users_build_is_no_way_to_its_processes(members: Members) -> None:
    """A record that names a stranger's process, or that of root, does not have it ended."""
    build = members.build(OTHER_USER, "a")
    with child() as bystander:
        record = members.world.folder / "holding" / "1.1"
        named = str(process.identify(bystander))
        record.write_text(
            record.read_text() + f"process={named}\nwaiter={named}\ncommand_pid={bystander}\ncommand_start=1\n"
        )
        build.kill()
        answer = members.run(0, "cancel", "1")

        assert (answer, gone(bystander)) == ((0, ["✓ a (ticket 1) was cancelled."]), False)


def test_json_and_words_for_the_completion_know_the_ticket_of_a_waiter(world: World) -> None:
    holder = world.wrap("a").started()
    waiter = in_line(world, "b")

    offered = [world.run("complete", "tickets", command).stdout for command in ("cancel", "reset")]

    assert offered == ["1 a\n2 b\n", "1 a\n"]
    assert [one["ticket"] for one in json.loads(world.run("status", "--json").stdout)["waiters"]] == [2]
    assert (holder.end(), waiter.started().end()) == (0, 0)
