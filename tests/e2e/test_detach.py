"""`wrap --detach`: a build that goes on without the terminal, the session and the process that asked for it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.helpers.crash_at import OTHER_USER, USER, Client, Crash, needs_root, stopped_owner
from tests.helpers.detached import detach, keep_logs
from tests.helpers.terminal import Terminal
from tests.helpers.world import let_everybody_in, until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.helpers.sample import Sample
    from tests.helpers.world import World

DAEMON = 1  # the user daemon, whose group has its name


@pytest.fixture(autouse=True)
def logs(world: World, tmp_path: Path) -> Path:
    """Where the world's builds keep their output."""
    return keep_logs(world, tmp_path)


def written(logs: Path, ticket: int) -> str:
    """Return the output of a build so far."""
    (found,) = logs.glob(f"*.{ticket}.*.log")
    return found.read_text()


def ended(world: World) -> bool:
    """Return whether no build holds or waits."""
    return not world.records("holding") and not world.waiting()


def test_it_prints_the_ticket_and_returns_while_builds_wait_and_run(world: World, logs: Path) -> None:
    holder = world.wrap("holder").started()

    first, second = detach(world, "echo one"), detach(world, "echo two; echo three >&2; echo four")
    waiting = [(row["ticket"], row["label"]) for row in world.status()["waiters"]]
    holder.end()
    until(lambda: ended(world), "the end of both builds")

    assert (first, second, waiting, world.settled()) == (2, 3, [(2, "staging"), (3, "staging")], (1, {}))
    until(lambda: written(logs, 3) == "two\nthree\nfour\n", "its output")


def test_it_keeps_directory_umask_and_environment_and_has_no_terminal(world: World, logs: Path, tmp_path: Path) -> None:
    script = 'pwd; umask; echo "$KEPT $IPCLOCK_LABEL $IPCLOCK_TICKET"; cat; [ -t 1 ] || echo no terminal; ps -o sid= $$'
    command = [sys.executable, "-m", "ipclock", "wrap", "--detach", "a", "--", "sh", "-c", script]

    done = subprocess.run(
        command, env=world.env | {"KEPT": "kept"}, cwd=tmp_path, umask=0o027, capture_output=True, text=True, check=True
    )
    until(lambda: ended(world), "the end of the build")

    *lines, session = until(lambda: written(logs, 1).count("\n") == 5 and written(logs, 1), "its output").splitlines()
    assert (done.stdout, lines) == ("1\n", [str(tmp_path), "0027", "kept a 1", "no terminal"])
    assert int(session) != os.getsid(0)


def test_neither_the_end_of_its_terminal_nor_ctrl_c_there_reaches_it(world: World, logs: Path) -> None:
    fifo = logs.parent / "fifo"
    os.mkfifo(fifo)
    wrap = f"{sys.executable} -m ipclock wrap --detach a -- sh -c 'read -r word <{fifo}; echo $word'"
    shell = Terminal(["bash", "--norc", "-i"], world.env)
    shell.type(f"{wrap}\n")
    until(lambda: world.records("holding"), "the build")
    shell.type("\x03")
    shell.close()

    with fifo.open("w") as order:
        order.write("goes on\n")
    until(lambda: ended(world), "the end of the build")

    until(lambda: written(logs, 1) == "goes on\n", "its output")


@pytest.mark.parametrize(
    ("options", "command", "status", "told"),
    [
        ((), "no-such-command", 127, "command not found"),
        ((), "/etc/passwd", 126, "Permission denied"),
        (("-n",), "true", 75, "no free build slot"),
        (("--slots", "5"), "true", 78, "the pool has 1"),
        (("--engine", "zookeeper://127.0.0.1:1/pool"), "true", 69, "--detach"),
        (("-w", "never"), "true", 2, "invalid value"),
    ],
)
def test_what_cannot_start_is_told_before_it_returns(
    options: tuple[str, ...], command: str, status: int, told: str, world: World, logs: Path
) -> None:
    holder = world.wrap("holder").started()

    done = world.run("wrap", "--detach", *options, "a", "--", command)

    assert (done.returncode, done.stdout, told in done.stderr, world.waiting()) == (status, "", True, 0), done.stderr
    assert (holder.end(), world.settled(), list(logs.iterdir())) == (0, (1, {}), [])


MANY_OPEN = """
ulimit -n 4096
for fd in $(seq 10 1500); do eval "exec $fd</dev/null"; done
ipclock() { "$PYTHON" -m ipclock "$@"; }
ipclock wrap -q attached -- true
ticket=$(ipclock wrap --detach detached -- sh -c 'exit 3')
ipclock wait "$ticket"
echo $?
"""


def test_more_open_files_than_select_knows_change_nothing(world: World, logs: Path) -> None:
    env = {"HISTORY": str(logs.parent / "history.db"), "PYTHON": sys.executable}

    done = subprocess.run(["bash", "-c", MANY_OPEN], env=world.env | env, capture_output=True, text=True, check=False)

    kept = world.run("log", "--json", env=env).stdout
    assert (done.stdout, done.stderr) == ("3\n", "")
    assert [row["outcome"] for row in json.loads(kept)["builds"]] == ["failed", "done"]


def test_another_users_pool_is_refused_before_it_returns(world: World, logs: Path) -> None:
    needs_root(0)
    world.run("init")
    let_everybody_in(logs.parent)

    client = Client("wrap", "--detach", "a", "--", "true", env=world.env | {"LOG_DIR": "/tmp/none"}, uid=USER)

    assert (client.line(), client.wait(), "belongs to another user" in client.errors()) == ("", 77, True)
    client.close()


def test_a_log_that_cannot_be_made_is_told_and_the_build_leaves_the_line(world: World, logs: Path) -> None:
    logs.chmod(0o777)

    done = world.run("wrap", "--detach", "a", "--", "true")

    assert (done.returncode, done.stdout, "writable by other users" in done.stderr) == (73, "", True)
    assert world.settled() == (1, {})


@pytest.mark.parametrize(("uid", "status"), [(DAEMON, 0), (USER, 73)], ids=["a private group", "another group"])
def test_directories_of_a_private_group_are_the_users_own(uid: int, status: int, world: World, logs: Path) -> None:
    """With a umask of 002, which private groups have, all that lies at home may be written by the group."""
    needs_root(uid)
    let_everybody_in(logs.parent)
    home = logs.parent / "home"
    for folder in (home, home / ".local"):
        folder.mkdir()
        folder.chmod(0o775)
        os.chown(folder, uid, uid)
    env = world.env | {"HOME": str(home), "LOG_DIR": "auto"}

    client = Client("wrap", "--detach", "a", "--", "true", env=env, uid=uid, umask=0o002)
    found = client.line(), client.wait(), "writable by other users" in client.errors()
    client.close()
    until(lambda: ended(world), "the end of the build")

    assert found == ("" if status else "1", status, status != 0)
    if not status:
        made = [
            oct(path.stat().st_mode & 0o777) for path in (home / ".local/state", home / ".local/state/ipclock/logs")
        ]
        assert made == ["0o755", "0o700"]


def test_a_ticket_that_cannot_be_printed_is_of_no_build(world: World, tmp_path: Path) -> None:
    with Path("/dev/full").open("w") as full:
        wrap = world.popen("wrap", "--detach", "a", "--", "touch", str(tmp_path / "ran"), stdout=full)
        status = wrap.wait()

    assert (status, "No space left" in wrap.errors(), (tmp_path / "ran").exists()) == (73, True, False)
    assert world.settled() == (1, {})


def test_a_wait_that_is_over_is_told_in_the_log(world: World, logs: Path) -> None:
    holder = world.wrap("holder").started()

    ticket = detach(world, "echo never", "-w", "0.2")
    until(lambda: not world.waiting(), "the end of the wait")

    assert until(lambda: written(logs, ticket), "the reason").startswith("❌ timed out: no build slot within 0.2 s.")
    assert (holder.end(), world.settled()) == (0, (1, {}))


def test_a_killed_supervisor_leaves_a_build_that_counts_and_is_still_logged(world: World, logs: Path) -> None:
    fifo = logs.parent / "fifo"
    os.mkfifo(fifo)
    ticket = detach(world, f"echo begun; read -r word <{fifo}; echo $word")
    (row,) = until(lambda: world.status()["holders"], "the build")
    until(lambda: written(logs, ticket), "its first word")

    os.kill(row["pid"], signal.SIGKILL)
    orphan = until(
        lambda: [one["state"] for one in world.status()["holders"] if one["state"] != "running"], "an orphan"
    )
    late = world.run("wrap", "-n", "late", "--", "true").returncode
    with fifo.open("w") as order:
        order.write("goes on\n")
    until(lambda: world.run("wrap", "-n", "late", "--", "true").returncode == 0, "the end of the build")

    until(lambda: written(logs, ticket) == "begun\ngoes on\n", "its last word")
    assert (orphan, late, world.settled()) == (["orphaned"], 75, (1, {}))


def test_a_daemon_that_keeps_the_output_open_keeps_no_slot(world: World, logs: Path) -> None:
    ticket = detach(world, "sleep 1000 & echo $!")
    until(lambda: ended(world), "the end of the build")
    daemon = int(until(lambda: written(logs, ticket), "its PID"))
    world.extra.append(daemon)

    assert (world.run("wrap", "-n", "next", "--", "true").returncode, Path(f"/proc/{daemon}").exists()) == (0, True)


def test_inside_a_build_it_shares_the_slot_and_outlives_that_build(world: World, logs: Path) -> None:
    wrap = f"{sys.executable} -m ipclock wrap --detach inner -- sleep 1000"
    outer = world.run("wrap", "outer", "--", "sh", "-c", wrap)
    (row,) = world.status()["holders"]
    late = world.run("wrap", "-n", "late", "--", "true").returncode

    os.kill(row["pid"], signal.SIGTERM)
    until(lambda: ended(world), "the end of the inner build")

    assert (outer.returncode, outer.stdout, row["label"], late, world.settled()) == (0, "2\n", "inner", 75, (1, {}))


@pytest.fixture
def scenes(world: World, logs: Path) -> Iterator[list[Client]]:
    """The clients of a test, ended after it."""
    clients: list[Client] = []
    yield clients
    for client in clients:
        client.close()


@pytest.mark.timeout(120)
def test_its_supervisor_killed_anywhere_a_status_of_0_is_that_of_a_ticket(
    world: World, logs: Path, scenes: list[Client], sample: Sample
) -> None:
    world.run("init")
    ran = logs.parent / "ran"
    command = ("wrap", "--detach", "a", "--", "touch", str(ran))

    def play(nth: int) -> tuple[Client, str]:
        crash = Crash(world.folder.name, nth, generation=1)
        client = Client(*command, env=world.env, uid=os.geteuid(), crash=crash)
        scenes.append(client)
        return client, client.line()

    client, _ticket = play(0)
    client.wait()
    until(lambda: ended(world), "the end of an undisturbed build")
    wrong = {}
    for nth in sample.of_trace(client.trace(), 8):
        ran.unlink(missing_ok=True)
        client, ticket = play(nth)
        status = client.wait()
        # the next build clears away what is dead, and then the one that was printed has had its turn
        following = world.run("wrap", "-w", "20", "next", "--", "true").returncode
        left = world.leftovers()
        left.pop("new", None)  # drafts, for a minute
        facts = status == 0, bool(ticket), following, (world.value(), left)
        if facts not in [(True, True, 0, (1, {})), (False, False, 0, (1, {}))]:
            wrong[nth] = (*facts, ran.exists(), client.trace()[-1:], client.errors()[-200:])

    assert (len(scenes) > 10, wrong) == (True, {})


def test_one_whose_caller_is_killed_before_the_ticket_leaves_the_line(world: World, logs: Path) -> None:
    world.run("init")
    ran = logs.parent / "ran"
    with stopped_owner(world):
        starter = world.popen("wrap", "--detach", "a", "--", "touch", str(ran))
        children = Path(f"/proc/{starter.pid}/task/{starter.pid}/children")
        supervisor = int(until(children.read_text, "the supervisor"))
        until(lambda: has_the_pool_open(supervisor), "the supervisor at the mutex")
        starter.signal(signal.SIGKILL)
        starter.wait()

    until(lambda: not Path(f"/proc/{supervisor}").exists(), "the supervisor's end")
    assert (ran.exists(), world.settled()) == (False, (1, {}))


def has_the_pool_open(supervisor: int) -> bool:
    """Return whether a process has the files of a pool open."""
    links = [os.readlink(path) for path in Path(f"/proc/{supervisor}/fd").iterdir()]
    return any(link.endswith("/mutex") for link in links)


def test_the_log_is_its_owners_or_the_groups_that_shares_the_pool(world: World, logs: Path) -> None:
    needs_root(0)
    alone = detach(world, "true")
    until(lambda: ended(world), "the end of the build")
    world.run("init", "--mode", "0660", "--group", str(OTHER_USER))
    shared = world.run("wrap", "--detach", "b", "--", "true", env={"LOCK_MODE": "0660", "LOCK_GROUP": str(OTHER_USER)})
    until(lambda: ended(world), "the end of the other build")

    modes = [
        (oct(status.st_mode & 0o777), status.st_gid)
        for ticket in (alone, int(shared.stdout))
        for status in [next(logs.glob(f"*.{ticket}.*.log")).stat()]
    ]
    assert modes == [("0o600", os.getegid()), ("0o640", OTHER_USER)]
