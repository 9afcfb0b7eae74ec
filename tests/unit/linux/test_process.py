"""A process's identity and whether it still exists, on real processes: gone only if proven."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ipclock.linux import process, process_view
from ipclock.linux.process import Identity
from tests.helpers.crash_at import OTHER_USER, USER, child, in_child, unshared
from tests.helpers.world import until

ROOT = str(Path(__file__).parents[3])


ASK = f"""
import os, sys
sys.path.insert(0, {ROOT!r})
from ipclock.linux import process
if uid := int(sys.argv[2]):
    os.setgroups([]); os.setgid(uid); os.setuid(uid)
print(process.exists(process.Identity.parse(sys.argv[1])))
"""


def gone() -> Identity:
    """Return the identity of a process that has been reaped."""
    with child() as pid:
        return process.identify(pid)


# Identity


def test_an_identity_survives_its_text() -> None:
    own = process.identify(os.getpid())

    assert (Identity.parse(str(own)), own.pid, own.namespace) == (own, os.getpid(), os.stat("/proc/self/ns/pid").st_ino)


@pytest.mark.parametrize("text", ["", "1", "1:2:3", "1:2:b:4:5", "x:2:b:4", "1:x:b:4", "1:2:b:x"])
def test_a_text_that_is_no_identity_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"unpack|^[x1]:"):
        Identity.parse(text)


def test_a_process_that_is_not_there_has_no_identity() -> None:
    with pytest.raises(FileNotFoundError):
        process.identify(gone().pid)


def test_a_name_with_brackets_and_blanks_does_not_confuse(tmp_path: Path) -> None:
    def rename() -> None:
        Path("/proc/self/comm").write_text(") Z 1 (x")
        signal.pause()

    before = process.identify(os.getpid())
    with child(rename) as pid:
        until(lambda: "Z 1" in Path(f"/proc/{pid}/comm").read_text(), "the new name")
        found = process.identify(pid)

        assert (process.exists(found), process.stopped(pid), found.start >= before.start) == (True, False, True)


# Existence


def test_a_living_process_exists() -> None:
    with child() as pid:
        identity = process.identify(pid)

        assert (process.exists(identity), process.is_stopped(identity)) == (True, False)


def test_a_reaped_process_is_gone() -> None:
    assert process.exists(gone()) is False


def test_a_zombie_is_gone() -> None:
    with child() as pid:
        identity = process.identify(pid)
        os.kill(pid, signal.SIGKILL)
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)

        assert (process.exists(identity), process.is_stopped(identity)) == (False, False)


def test_another_process_under_the_same_pid_is_not_the_one() -> None:
    with child() as pid:
        earlier = process.identify(pid)._replace(start=process.identify(pid).start - 2)

        assert (process.exists(earlier), process.is_stopped(earlier)) == (False, False)


@pytest.mark.parametrize("started", [0, 1, 9_999_999, 10_000_000, 123_456_789_012])
@pytest.mark.parametrize(
    "ahead", [0, 1, 5_000_000, 10**14, 10**14 + 9_999_999, -5_000_000, -120_000_000_001, -(10**14)]
)
def test_a_start_is_the_same_in_each_time_namespace_to_a_tick(
    ahead: int, started: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    tick = 10**9 // os.sysconf("SC_CLK_TCK")
    monkeypatch.setattr(process.clocks, "starts_ahead", lambda: ahead)

    found = process._start((started + ahead) % (1 << 64) // tick)

    own = process.identify(os.getpid())
    exact = ahead % tick == 0 and started + ahead >= 0
    assert own._replace(start=found).names(own._replace(start=started // tick))
    assert found == started // tick or not exact


def test_a_start_that_is_not_known_names_nobody() -> None:
    own = process.identify(os.getpid())._replace(start=process.UNKNOWN_START)

    assert (own.names(own), process.exists(own)) == (False, None)


def test_a_process_of_another_boot_is_gone() -> None:
    own = process.identify(os.getpid())

    assert process.exists(own._replace(boot="00000000-0000-0000-0000-000000000000")) is False


def test_of_another_pid_namespace_nothing_is_known() -> None:
    identity = gone()._replace(namespace=1)

    assert (process.exists(identity), process.is_stopped(identity)) == (None, False)


def test_from_inside_a_pid_namespace_nothing_is_known_of_outside() -> None:
    own = process.identify(os.getpid())

    inside = unshared(["-m", "-p", "-f", "--mount-proc"], 'exec "$@"', sys.executable, "-c", ASK, str(own), "0")

    assert inside == (0, "None\n")


def test_a_process_is_the_same_seen_by_another_user() -> None:
    own = process.identify(os.getpid())

    assert in_child(lambda: process.exists(own), USER) is True


def test_a_process_that_may_not_be_seen_is_not_gone() -> None:
    hide = 'mount -t proc -o hidepid=2 proc /proc; exec "$@"'
    with child(uid=OTHER_USER) as pid:
        hidden = process.identify(pid)
        identities = {"hidden": hidden, "gone": gone(), "seen by root": hidden}
        users = {"hidden": USER, "gone": USER, "seen by root": 0}

        found = {
            name: unshared(["-m"], hide, sys.executable, "-c", ASK, str(identity), str(users[name]))
            for name, identity in identities.items()
        }

    assert found == {"hidden": (0, "None\n"), "gone": (0, "False\n"), "seen by root": (0, "True\n")}


# Stopped, ancestors


def test_a_stopped_process_is_there_and_stopped_until_it_goes_on() -> None:
    with child() as pid:
        identity = process.identify(pid)
        os.kill(pid, signal.SIGSTOP)
        os.waitid(os.P_PID, pid, os.WSTOPPED)
        seen = [process.exists(identity), process.is_stopped(identity), process.stopped(pid)]
        os.kill(pid, signal.SIGCONT)
        os.waitid(os.P_PID, pid, os.WCONTINUED)

        assert [*seen, process.is_stopped(identity)] == [True, True, True, False]


def test_who_is_gone_is_not_stopped() -> None:
    identity = gone()

    assert (process.is_stopped(identity), process.stopped(identity.pid)) == (False, False)


def test_we_are_within_ourselves_our_parents_and_their_parents() -> None:
    grandparent = process.identify(os.getpid())

    def grandchild() -> list[bool]:
        own, parent = process.identify(os.getpid()), process.identify(os.getppid())
        wrong = grandparent._replace(start=grandparent.start + 1)
        found = process.ancestors()
        return [one in found for one in (grandparent, parent, own, wrong)]

    assert in_child(lambda: in_child(grandchild)) == [True, True, True, False]


def test_a_child_is_no_ancestor() -> None:
    with child() as pid:
        assert process.identify(pid) not in process.ancestors()


def test_a_child_is_a_fork_until_it_runs_a_program_even_the_same_one() -> None:
    code = "import os, sys; sys.stdin.read()"
    with child(lambda: signal.pause()) as forked:
        plain = process.is_fork(forked)
        other = in_child(lambda: process.is_fork(forked), USER) if os.geteuid() == 0 else False
    twin = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE)
    until(lambda: code in process.arguments_of(twin.pid), "the program to run")

    run = process.is_fork(twin.pid)
    twin.communicate()

    assert (plain, other, run, process.is_fork(1 << 22)) == (True, False, False, False)


def test_a_process_is_shown_with_its_command_and_age() -> None:
    shown = process_view.usage([os.getpid(), gone().pid])

    assert [(row.pid, "python" in row.command or "pytest" in row.command, row.age_s > 0) for row in shown] == [
        (os.getpid(), True, True)
    ]


@pytest.mark.parametrize("listed", [True, False])
def test_children_of_children_are_descendants_on_any_kernel(listed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    # one without CONFIG_PROC_CHILDREN lists no children
    monkeypatch.setattr(process, "_lists_children", lambda: listed)

    def parent() -> None:
        os.fork()
        signal.pause()

    with child(parent) as pid:
        until(lambda: process.descendants_of(pid), "the grandchild")
        found = process.descendants_of(os.getpid())
        grandchildren = process.descendants_of(pid)

        assert (set(found) >= {pid, *grandchildren}, len(grandchildren)) == (True, 1)
        os.kill(grandchildren[0], signal.SIGKILL)
    assert process.descendants_of(gone().pid) == []


def test_the_use_of_a_tree_counts_each_process_once_and_ended_children_too() -> None:
    def burn() -> None:
        while time.process_time() < 0.1:
            pass

    def parent() -> None:
        if os.fork() == 0:
            burn()
            os._exit(0)
        os.wait()
        os.fork()
        signal.pause()

    with child(parent) as pid:
        # cutime and cstime: which of the two a short run counts as is for the kernel's clock tick to say
        until(
            lambda: Path(f"/proc/{pid}/stat").read_text().split()[15:17] != ["0", "0"],
            "the time of the child that has ended",
        )
        until(lambda: process.descendants_of(pid), "the child that stays")
        alone, doubled = process_view.use_of([pid]), process_view.use_of([pid, *process.descendants_of(pid)])

        assert alone
        assert doubled
        assert (alone.cpu_s >= 0.09, doubled.cpu_s < 2 * alone.cpu_s) == (True, True)
        for one in process.descendants_of(pid):
            os.kill(one, signal.SIGKILL)
    assert process_view.use_of([gone().pid]) is None


def test_a_signal_reaches_the_very_process_and_no_other() -> None:
    with child() as pid:
        identity = process.identify(pid)
        process.send(identity._replace(start=identity.start + 2), signal.SIGKILL)
        spared = process.exists(identity)
        process.send(identity, signal.SIGKILL)
        until(lambda: not process.exists(identity), "the end of the child")
        process.send(gone(), signal.SIGKILL)

        assert spared is True


def test_a_user_without_a_name_is_a_number() -> None:
    assert (process.user_name(0), process.user_name(USER)) == ("root", str(USER))
