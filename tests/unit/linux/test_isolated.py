"""A function in a process of its own: what it returns and raises, and that nothing it does harms who asked."""

from __future__ import annotations

import os
import resource
import signal
from contextlib import ExitStack
from pathlib import Path

import pytest

from ipclock.errors import HistoryFailed
from ipclock.linux import isolated
from tests.helpers.crash_at import USER, child, in_child
from tests.helpers.world import HANG_S, until


def fail(error: Exception) -> None:
    raise error


def ending(function: object, seconds: float = HANG_S) -> tuple[object, str | None]:
    """Return the kind of failure, and what is said of it."""
    with pytest.raises((TimeoutError, InterruptedError, ChildProcessError)) as caught:
        isolated.run(function, seconds)  # type: ignore[arg-type]
    return type(caught.value), caught.value.strerror


def children() -> list[int]:
    """Return our children that have ended and were not waited for."""
    try:
        return [pid for pid in [os.waitpid(-1, os.WNOHANG)[0]] if pid]
    except ChildProcessError:
        return []


@pytest.mark.parametrize("value", [None, [], {"a": (1, None)}, "x" * 1_000_000])
def test_what_is_returned_there_is_returned_here(value: object) -> None:
    assert (isolated.run(lambda: value, HANG_S), children()) == (value, [])


def test_what_is_raised_there_is_raised_here() -> None:
    with pytest.raises(HistoryFailed) as caught:
        isolated.run(lambda: fail(HistoryFailed("/a", "not a regular file")), HANG_S)

    assert (caught.value.path, caught.value.reason) == ("/a", "not a regular file")


def test_what_hangs_is_ended() -> None:
    assert (ending(signal.pause, 0.1), children()) == ((TimeoutError, "takes too long"), [])


@pytest.mark.parametrize("number", [signal.SIGBUS, signal.SIGSEGV, signal.SIGKILL])
def test_a_crash_there_is_an_error_here(number: int) -> None:
    found = ending(lambda: os.kill(os.getpid(), number))

    assert (found, children()) == ((ChildProcessError, "crashes the process that uses it"), [])


@pytest.mark.parametrize("number", sorted(isolated.LEAVING))
def test_a_signal_that_waits_to_be_taken_ends_what_hangs(number: int) -> None:
    def interrupted() -> tuple[object, bool]:
        signal.pthread_sigmask(signal.SIG_BLOCK, {number})
        os.kill(os.getpid(), number)
        return ending(signal.pause), number in signal.sigpending()

    # and it is still there for who has blocked it
    assert in_child(interrupted) == ((InterruptedError, "interrupted by a signal"), True)


def test_ctrl_c_ends_who_asks_and_what_hangs() -> None:
    def interrupted() -> tuple[bool, list[int]]:
        signal.signal(signal.SIGALRM, signal.default_int_handler)
        signal.setitimer(signal.ITIMER_REAL, 0.1)
        try:
            isolated.run(signal.pause, HANG_S)
        except KeyboardInterrupt:
            return True, children()
        return False, []

    assert in_child(interrupted) == (True, [])


def test_it_keeps_none_of_our_descriptors_but_the_one_for_its_answer(tmp_path: Path) -> None:
    with ExitStack() as stack:
        for number in range(50):
            stack.enter_context((tmp_path / f"{number}").open("w"))

        found = isolated.run(lambda: len(os.listdir("/proc/self/fd")), HANG_S)

    assert found == 2  # the other one is that of the listing


def test_it_does_not_outlive_who_asked(tmp_path: Path) -> None:
    def ask() -> None:
        def hang() -> None:
            (tmp_path / "pid").write_text(f"{os.getpid()}\n")
            signal.pause()

        isolated.run(hang, 0.5)

    with child(ask) as asking:
        text = until(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text(), "its PID")
        os.kill(asking, signal.SIGKILL)

        until(lambda: not Path(f"/proc/{int(text)}").exists(), "its end")


def test_where_ended_children_are_not_kept_for_their_parent_it_works_too() -> None:
    def asked() -> int:
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        return isolated.run(lambda: 5, HANG_S)

    assert in_child(asked) == 5


def test_no_process_to_be_had_is_told() -> None:
    def asked() -> str | None:
        resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))
        with pytest.raises(BlockingIOError) as caught:
            isolated.run(lambda: 5, HANG_S)
        return caught.value.strerror

    assert in_child(asked, USER) == "Resource temporarily unavailable"
