"""Real builds on a real pool, in orders that hypothesis makes up, against a model of what must hold."""

from __future__ import annotations

import itertools
import os
import select
import signal
from pathlib import Path
from typing import TYPE_CHECKING

from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from ipclock.linux import locks
from tests.helpers.world import World, until

if TYPE_CHECKING:
    from tests.helpers.world import Build

_numbers = itertools.count(1)


class Pool(RuleBasedStateMachine):
    """The lists are the model: who is in line, who builds in a slot, and who builds on after a reset took it away."""

    def __init__(self) -> None:
        super().__init__()
        self.world = World(f"ipclock-machine-{os.getpid()}-{next(_numbers)}")
        self.capacity = 1
        self.line: list[Build] = []
        self.builds: list[Build] = []
        self.evicted: list[Build] = []
        self.stopped: list[Build] = []
        self.ever_stopped: list[Build] = []
        self.ticket: dict[Build, str] = {}

    # What the model says.

    def ready(self) -> list[Build]:
        """Return those in line who can take a slot."""
        return [build for build in self.line if build not in self.stopped]

    def settle(self) -> None:
        """Wait until as many build as may, and see that nobody else began."""
        while self.ready() and len(self.builds) < self.capacity:
            taken = f"{len(self.builds)} of {self.capacity} slots taken"
            # short, because hypothesis repeats what fails, and all of it must fit into the time of one test
            self.note_start(until(self.starter, f"a build, with {taken}", 10.0))
        assert self.starter() is None, f"began with {len(self.builds)} of {self.capacity} slots taken"

    def starter(self) -> Build | None:
        """Return somebody in line whose build says that it runs."""
        return next((build for build in self.line if has_output(build)), None)

    def note_start(self, build: Build) -> None:
        admitted = self.tickets_in("holding")
        earlier = itertools.takewhile(lambda other: other is not build, self.line)
        # who was stopped may have been passed over while it was
        overtaken = [self.ticket[one] for one in earlier if one not in self.ever_stopped]
        overtaken = [ticket for ticket in overtaken if ticket not in admitted]
        self.line.remove(build.started())
        self.builds.append(build)
        assert (len(self.builds) <= self.capacity, overtaken) == (True, [])

    def tickets_in(self, *states: str) -> list[str]:
        return [name.partition(".")[0] for state in states for name in self.world.records(state)]

    # What can happen.

    @initialize(first_in_line_is_stopped=st.booleans())
    def three_arrive(self, first_in_line_is_stopped: bool) -> None:
        for _ in range(3):
            self.one_arrives()
        if first_in_line_is_stopped:
            self.stop(self.line[0])

    def pick(self, data: st.DataObject, builds: list[Build]) -> Build:
        # by the ticket, so that a failure shows which one
        ticket = data.draw(st.sampled_from([self.ticket[build] for build in builds]))
        return next(build for build in builds if self.ticket[build] == ticket)

    @precondition(lambda self: len(self.line) < 3)
    @rule()
    def one_arrives(self) -> None:
        build = self.world.wrap()
        ticket = str(len(self.ticket) + 1)
        until(lambda: ticket in self.tickets_in("queued", "gate", "holding"), f"ticket {ticket} in the pool")
        self.ticket[build] = ticket
        self.line.append(build)
        self.settle()

    @precondition(lambda self: self.builds or self.evicted)
    @rule(data=st.data(), killed=st.booleans())
    def a_build_ends(self, data: st.DataObject, killed: bool) -> None:
        build = self.pick(data, self.builds + self.evicted)
        if killed:
            os.kill(build.command_pid, signal.SIGKILL)
        else:
            build.tell("exit 0")
        self.forget(build)
        self.settle()

    def forget(self, build: Build) -> None:
        until(lambda: not runs(build.command_pid), "the end of the build")
        build.wait()
        (self.builds if build in self.builds else self.evicted).remove(build)

    @precondition(lambda self: self.builds)
    @rule(data=st.data())
    def a_supervisor_is_killed(self, data: st.DataObject) -> None:
        build = self.pick(data, self.builds)
        build.process.kill()
        build.wait()
        # its build goes on and counts
        assert runs(build.command_pid)
        self.settle()

    @precondition(lambda self: self.line)
    @rule(data=st.data())
    def a_waiter_is_killed(self, data: st.DataObject) -> None:
        build = self.pick(data, self.line)
        build.process.kill()
        build.wait()
        self.line.remove(build)
        self.stopped = [other for other in self.stopped if other is not build]
        self.settle()

    @precondition(lambda self: self.line)
    @rule(data=st.data())
    def a_waiter_is_stopped_or_goes_on(self, data: st.DataObject) -> None:
        build = self.pick(data, self.line)
        if build in self.stopped:
            build.signal(signal.SIGCONT)
            self.stopped.remove(build)
        else:
            self.stop(build)
        self.settle()

    def stop(self, build: Build) -> None:
        """Stop a waiter, but not while it has the mutex: all would wait for it then, as they should."""
        mutex = os.open(self.world.folder / "mutex", os.O_RDONLY)
        while build not in self.stopped:
            build.signal(signal.SIGSTOP)
            until(lambda: state_of(build.pid) == "T", "the waiter to stop")
            try:
                until(lambda: not locks.is_locked(mutex), "somebody to give the mutex back", 2.0)
                self.stopped.append(build)
            except AssertionError:
                build.signal(signal.SIGCONT)
        os.close(mutex)
        self.ever_stopped.append(build)

    @precondition(lambda self: self.line and not self.evicted)
    @rule()
    def a_reset(self) -> None:
        assert self.world.run("reset").returncode == 0
        self.evicted += self.builds
        self.builds = []
        self.settle()

    @rule()
    def the_capacity_changes(self) -> None:
        self.capacity = 2 if self.capacity == 1 else 1
        assert self.world.run("init", "--max-parallel-builds", str(self.capacity)).returncode == 0
        self.settle()

    def teardown(self) -> None:
        try:
            for build in self.stopped:
                build.signal(signal.SIGCONT)
            self.stopped = []
            self.settle()
            while self.builds or self.evicted:
                build = (self.builds + self.evicted)[0]
                build.tell("exit 0")
                self.forget(build)
                self.settle()
            # what the killed have left goes with the next section
            self.world.ask("init")
            assert (self.line, self.world.settled()) == ([], (self.capacity, {}))
        finally:
            self.world.close()


def state_of(pid: int) -> str:
    """Return the one-letter state of a process; "X" if there is none."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return "X"


def has_output(build: Build) -> bool:
    """Return whether the build has written a line, or has ended."""
    return bool(select.select([build.process.stdout], [], [], 0)[0])


def runs(pid: int) -> bool:
    return state_of(pid) not in "XZ"


TestPool = Pool.TestCase
# the processes are real, so a failure is shown as it came: to shrink it would run for minutes
TestPool.settings = settings(
    max_examples=12, stateful_step_count=10, deadline=None, derandomize=True, database=None, phases=[Phase.generate]
)
