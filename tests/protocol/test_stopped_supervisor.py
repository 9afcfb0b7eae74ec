"""A supervisor that is stopped beyond its tick (Ctrl-Z, SIGSTOP) goes on as if nothing had been."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.helpers.world import STUB, until

if TYPE_CHECKING:
    from tests.helpers.world import Build, World

TICK_S = 0.05
# whether a signal that is none goes on to the build is a matter of what lay on the stack, so it is told in any case
SUPERVISOR = f"""
import os, signal, sys
from ipclock.cli.command_line import main
from ipclock.run import supervisor
supervisor.TICK_S = {TICK_S}
if sys.argv.pop(1) == "no":
    sys.modules["ctypes"] = None
take = signal.sigtimedwait
def checked(*arguments):
    info = take(*arguments)
    if info and info.si_signo not in signal.valid_signals():
        os._exit(99)
    return info
signal.sigtimedwait = checked
sys.exit(main())
"""


def stopped_and_continued(build: Build) -> None:
    """Stop the supervisor for longer than its tick, and let it come back to its wait."""
    stat = Path(f"/proc/{build.pid}/stat")
    build.signal(signal.SIGSTOP)
    os.waitid(os.P_PID, build.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
    begun = time.monotonic()
    until(lambda: time.monotonic() > begun + 2 * TICK_S, "the end of the tick")
    build.signal(signal.SIGCONT)
    until(lambda: stat.read_text().rpartition(")")[2].split()[0] in "SZ", "the supervisor asleep, or dead")


@pytest.mark.parametrize("ctypes", ["yes", "no"])
def test_a_supervisor_that_was_stopped_sends_its_build_no_signal_and_keeps_the_slot(world: World, ctypes: str) -> None:
    wrap = ("wrap", "-q", "stopped", "--", sys.executable, STUB)
    build = world.spawn(sys.executable, "-c", SUPERVISOR, ctypes, *wrap).started()
    waiter = world.wrap("waiter")
    until(lambda: world.records("gate"), "the waiter at the gate")

    for _ in range(3):
        stopped_and_continued(build)
    build.signal(signal.SIGSTOP)
    build.signal(signal.SIGTERM)
    build.signal(signal.SIGCONT)
    ended = build.wait()
    build.process.stdin.close()  # the end of a build that outlived its supervisor

    assert (ended, waiter.started().end(), world.settled()) == (-signal.SIGTERM, 0, (1, {}))
