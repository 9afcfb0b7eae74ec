"""`ipclock logs`: the output of a build, while it runs and afterwards."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.helpers.crash_at import OTHER_USER, USER, Client, needs_root
from tests.helpers.detached import Gate, detach, keep_logs, watches
from tests.helpers.terminal import Terminal
from tests.helpers.world import let_everybody_in, until

if TYPE_CHECKING:
    from tests.helpers.world import Build, World


@pytest.fixture(autouse=True)
def logs(world: World, tmp_path: Path) -> Path:
    """Where the world's builds keep their output."""
    return keep_logs(world, tmp_path)


@pytest.fixture
def gate(tmp_path: Path) -> Gate:
    """What a build waits for."""
    return Gate(tmp_path / "gate")


def follow(world: World, *arguments: str, **more: dict[str, str]) -> Build:
    """Start to follow a build, and return that once it watches it."""
    return watches(world.popen("logs", "-f", *arguments, **more))


def over(world: World, *tickets: int) -> None:
    """Wait until the builds have ended, and their output is written."""
    world.run("wait", "-f", str(tickets[-1]))
    until(lambda: not any(world.records(state) for state in ("queued", "gate", "holding")), "the end of all builds")


def read(world: World, *arguments: str) -> tuple[int, str, str]:
    """Return the status, the output and the first line of the errors."""
    done = world.run("logs", *arguments)
    return done.returncode, done.stdout, done.stderr.partition("\n")[0]


def test_it_shows_the_log_of_a_ticket_of_a_label_and_the_newest_one(world: World, gate: Gate) -> None:
    over(world, detach(world, "echo one", label="a b"))
    over(world, detach(world, "echo two >&2", label="2"))
    ticket = detach(world, f"echo three; {gate.hold}", label="a b")
    until(lambda: world.run("logs").stdout == "three\n", "the output of the last one")

    asked = ("1", "2", str(ticket), "a b")
    found = [read(world, one) for one in asked]
    gate.open()
    until(lambda: not world.records("holding"), "its end")

    assert found == [(0, f"{word}\n", "") for word in ("one", "two", "three", "three")]
    assert [read(world, one)[1] for one in ("2", "a b")] == ["two\n", "three\n"]


def test_a_number_is_a_ticket_first_and_else_a_label(world: World) -> None:
    over(world, detach(world, "echo label 7", label="7"))
    before = read(world, "7")
    for _ in range(6):
        over(world, detach(world, "echo ticket $IPCLOCK_TICKET"))

    assert [before, read(world, "7")] == [(0, "label 7\n", ""), (0, "ticket 7\n", "")]


def test_what_there_is_no_log_of_is_told(world: World, logs: Path) -> None:
    before = read(world)
    holder = world.wrap("attached").started()

    found = [read(world, asked) for asked in ("1", "9", "nothing")]

    told = "ipclock: {}: there is no log of it"
    assert before == (2, "", told.format(world.name))
    assert (found, holder.end()) == ([(2, "", told.format(asked)) for asked in ("1", "9", "nothing")], 0)
    assert read(world, "--engine", "zookeeper://127.0.0.1:1/pool")[0] == 69


def test_the_log_of_a_ticket_of_before_the_last_boot_is_not_that_of_the_same_number_now(
    world: World, logs: Path
) -> None:
    old = logs / f"{world.name[1:]}.1.staging.1000000.log"
    old.write_text("old\n")
    before = read(world, "1")

    world.run("wrap", "-q", "a", "--", "true")

    assert [before, read(world, "1"), read(world, "staging")] == [
        (0, "old\n", ""),
        (2, "", "ipclock: 1: there is no log of it"),
        (0, "old\n", ""),
    ]


@pytest.mark.parametrize(
    ("script", "lines", "shown"),
    [
        ("printf '1\\n2\\n3\\n'", 2, "2\n3\n"),
        ("printf '1\\n2\\n3'", 2, "2\n3"),
        ("printf '1\\n2\\n3\\n'", 9, "1\n2\n3\n"),
        ("printf '1\\n2\\n3\\n'", 0, ""),
        ("printf '1\\n\\n\\n'", 2, "\n\n"),
        ("true", 2, ""),
    ],
)
def test_n_shows_the_last_lines(script: str, lines: int, shown: str, world: World) -> None:
    over(world, detach(world, script))

    assert read(world, "-n", str(lines)) == (0, shown, "")


def test_it_is_shown_to_the_byte(world: World, tmp_path: Path) -> None:
    noise = os.urandom(300_000)
    (tmp_path / "noise").write_bytes(noise)
    over(world, detach(world, f"cat {tmp_path}/noise"))

    done = subprocess.run([sys.executable, "-m", "ipclock", "logs"], env=world.env, capture_output=True, check=False)

    assert (done.returncode, done.stdout == noise, done.stderr) == (0, True, b"")


def test_f_follows_through_the_wait_and_the_build_to_its_end(world: World, tmp_path: Path) -> None:
    gates = [Gate(tmp_path / name) for name in ("first", "second")]
    holder = world.wrap("holder").started()
    script = f"echo one; {gates[0].hold}; seq 100000; {gates[1].hold}; echo two; kill -TERM $$"
    ticket = detach(world, script)
    followers = [follow(world, str(ticket)), follow(world), follow(world, "staging", "-n", "0")]
    holder.end()

    first = [follower.line() for follower in followers]
    gates[0].open()
    numbers = [[follower.line() for _ in range(100_000)] for follower in followers]
    gates[1].open()

    assert first == ["one"] * 3
    assert numbers == [[str(number) for number in range(1, 100_001)]] * 3
    assert [(follower.line(), follower.wait(), follower.errors()) for follower in followers] == [("two", 0, "")] * 3


def test_f_of_a_build_that_has_ended_shows_its_log_and_ends(world: World) -> None:
    over(world, detach(world, "echo one; exit 3"))

    assert (read(world, "-f"), read(world, "-f", "-n", "0", "1")) == ((0, "one\n", ""), (0, "", ""))


def test_f_ends_with_an_orphan(world: World, gate: Gate) -> None:
    ticket = detach(world, f"echo one; {gate.hold}; echo two")
    (row,) = until(lambda: [row for row in world.status()["holders"] if row["command_pid"]], "the build")
    follower = follow(world, str(ticket))
    assert follower.line() == "one"

    os.kill(row["pid"], signal.SIGKILL)
    until(lambda: world.status()["holders"][0]["state"] == "orphaned", "an orphan")
    still = follower.process.poll()
    gate.open()

    assert (still, follower.line(), follower.wait()) == (None, "two", 0)


def test_f_of_a_build_that_leaves_a_process_with_its_output_ends_with_the_build(world: World, gate: Gate) -> None:
    ticket = detach(world, f"sleep 1000 & echo $!; {gate.hold}")
    follower = follow(world, str(ticket))
    world.extra.append(int(follower.line()))

    gate.open()

    assert follower.wait() == 0


def is_all_of(shown: bytes, written: bytes) -> bool:
    """Return whether what was shown is what was written, but for what marks tell of, to the byte."""
    at = 0
    for piece in re.split(rb"(\n\[ipclock: \d+ bytes left out\]\n)", shown):
        if piece.startswith(b"\n[ipclock: "):
            at += int(piece.split()[1])
        elif written[at : at + len(piece)] != piece:
            return False
        else:
            at += len(piece)
    return at == len(written)


def counted(first: int, last: int) -> bytes:
    """Return what seq(1) writes."""
    return b"".join(b"%d\n" % number for number in range(first, last + 1))


def test_a_log_that_is_cut_under_a_follower_is_shown_once_and_all_gaps_are_told(world: World, tmp_path: Path) -> None:
    gates = [Gate(tmp_path / str(number)) for number in range(3)]
    world.env["LOG_LIMIT"] = "8K"
    ends = (1000, 2000, 9000)
    script = "; ".join(
        f"seq {begin + 1} {end}; {gate.hold}" for begin, end, gate in zip((0, *ends), ends, gates, strict=False)
    )
    ticket = detach(world, script)
    out = tmp_path / "out"
    with out.open("wb") as file:
        follower = watches(world.popen("logs", "-f", str(ticket), stdout=file))

    for end, gate in zip(ends, gates, strict=True):
        until(lambda end=end: out.read_bytes().endswith(b"\n%d\n" % end), "all of a part")
        gate.open()

    assert (follower.wait(), is_all_of(out.read_bytes(), counted(1, 9000))) == (0, True)
    assert is_all_of(world.run("logs", str(ticket)).stdout.encode(), counted(1, 9000))
    assert world.run("logs").stdout.count("bytes left out]") == 1


def test_a_follower_that_was_stopped_while_the_log_was_cut_is_told_of_what_it_has_missed(
    world: World, tmp_path: Path
) -> None:
    gates = [Gate(tmp_path / str(number)) for number in range(2)]
    world.env["LOG_LIMIT"] = "8K"
    # a mark of its own, as of a log that it shows
    fake = "\n[ipclock: 77 bytes left out]\n"
    script = f"seq 10; printf '{fake}'; seq 1000 1099; {gates[0].hold}; seq 1100 9999; {gates[1].hold}; echo end"
    ticket = detach(world, script.replace("\n", "\\n"))
    out = tmp_path / "out"
    with out.open("wb") as file:
        follower = watches(world.popen("logs", "-f", str(ticket), stdout=file))
    until(lambda: out.read_bytes().endswith(b"1099\n"), "the first part")
    follower.signal(signal.SIGSTOP)
    gates[0].open()
    until(lambda: read(world, str(ticket), "-n", "1")[1] == "9999\n", "all of the output")

    follower.signal(signal.SIGCONT)
    until(lambda: out.read_bytes().endswith(b"9999\n"), "the second part")
    gates[1].open()

    begin = counted(1, 10) + fake.encode()
    assert (follower.wait(), out.read_bytes().startswith(begin)) == (0, True)
    shown = out.read_bytes()[len(begin) :]
    assert (shown.count(b"left out"), is_all_of(shown, counted(1000, 9999) + b"end\n")) == (1, True)


def test_a_reader_that_leaves_ends_it_quietly(world: World, gate: Gate) -> None:
    ticket = detach(world, f"seq 100000; {gate.hold}; seq 100000")
    ipclock = f"{sys.executable} -m ipclock logs -f {ticket} 2>&1"
    shell = world.spawn("bash", "-c", f"set -o pipefail; {ipclock} | head -1; echo ${{PIPESTATUS[0]}}")
    first = shell.line()

    gate.open()

    assert (first, shell.line()) == ("1", "0")


def test_ctrl_c_ends_only_the_look(world: World, gate: Gate) -> None:
    ticket = detach(world, f"echo one; {gate.hold}; exit 3")
    follower, other = follow(world, str(ticket)), watches(world.popen("wait", str(ticket)))
    assert follower.line() == "one"

    follower.signal(signal.SIGINT)

    assert follower.wait() == -signal.SIGINT
    gate.open()
    assert other.wait() == 3


def test_on_a_terminal_the_waiting_line_shows_until_the_build_starts(world: World, gate: Gate) -> None:
    holder = world.wrap("holder").started()
    first, second = detach(world, "true"), detach(world, f"echo begun; {gate.hold}; echo over")
    env = world.env | {"TERM": "xterm"}
    terminal = Terminal([sys.executable, "-m", "ipclock", "logs", "-f", str(second)], env, columns=150)

    waiting = terminal.wait_for("position 2 in queue")
    holder.end()
    terminal.wait_for("begun")
    gate.open()

    assert (terminal.wait(), "600 s" in waiting, first) == (0, True, 2)
    *_, rows = terminal.text.rpartition("\x1b[J")
    terminal.close()
    # the line is taken away before the output begins
    assert rows.replace("\r\n", "\n") == "begun\nover\n"


def test_ctrl_c_leaves_the_terminal_clean(world: World) -> None:
    holder = world.wrap("holder").started()
    ticket = detach(world, "true")
    env = world.env | {"TERM": "xterm"}
    terminal = Terminal([sys.executable, "-m", "ipclock", "logs", "-f", str(ticket)], env, columns=150)
    terminal.wait_for("position 1 in queue")

    terminal.type("\x03")

    assert (terminal.wait(), terminal.text.endswith("\x1b[J"), world.waiting()) == (-signal.SIGINT, True, 1)
    terminal.close()
    holder.end()


def test_a_log_that_is_another_users_alone_is_told_to_be_that(world: World, tmp_path: Path) -> None:
    needs_root(0)
    let_everybody_in(tmp_path)
    world.run("init", "--mode", "0660", "--group", str(USER))
    home = tmp_path / "home"
    home.mkdir(mode=0o700)
    os.chown(home, OTHER_USER, OTHER_USER)
    env = world.env | {"LOG_DIR": str(home / "logs"), "HOME": str(home)}
    script = ("sh", "-c", "echo secret; sleep 1000")
    build = Client("wrap", "--detach", "theirs", "--", *script, env=env, uid=OTHER_USER, groups=[USER])
    assert (build.line(), build.wait()) == ("1", 0), build.errors()
    (row,) = until(lambda: world.status()["holders"], "the build")
    world.extra.append(row["pid"])

    mine = world.env | {"HOME": "/nonexistent", "LOG_DIR": "/nonexistent"}
    looks = [Client("logs", *asked, env=mine, uid=USER) for asked in (("1",), ("theirs",), ())]

    log = f"{home}/logs/{world.name[1:]}.1.theirs."
    for look in looks:
        status, told = look.wait(), look.errors()
        assert (status, told.startswith(f"ipclock: {log}"), told.count("\n")) == (77, True, 1), told
        assert told.endswith(f"the log of uid {OTHER_USER} cannot be read: Permission denied\n")
        look.close()
    until(lambda: world.run("logs", "1").stdout == "secret\n", "the log, as root sees it")
    build.close()


@pytest.mark.parametrize("lie", ["link", "second link", "elsewhere", "fifo", "folder"])
def test_a_record_that_names_another_file_shows_nothing_of_it(lie: str, world: World, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("secret\n")
    lied = tmp_path / f"{world.name[1:]}.1.a.1000000.log"
    if lie == "link":
        lied.symlink_to(secret)
    elif lie == "second link":
        lied.hardlink_to(secret)
    elif lie == "fifo":
        os.mkfifo(lied)
    elif lie == "folder":
        lied.mkdir()
    holder = world.wrap("a").started()
    with (world.folder / "holding" / "1.1").open("a") as record:
        record.write(f"log={secret if lie == 'elsewhere' else lied}\n")

    found = read(world, "1"), read(world, "-f", "a")

    assert ([status for status, _, _ in found], [text for _, text, _ in found]) in (
        ([77, 77], ["", ""]),
        ([2, 2], ["", ""]),
    )
    assert holder.end() == 0
