"""Runs a command as if ipclock were not there: its terminal, its streams, its signals, its exit status.

Knows nothing of slots. The child stays in our process group, so whatever comes to the group reaches it without us: what
the terminal sends (Ctrl-C, Ctrl-Z), what timeout(1) does, and a SIGKILL. What comes to us alone is passed on, and a
`Sentinel` tells the one from the other. In a group of its own the command would outlive a SIGKILL to its caller's; and
not to pass on what a member of the group has sent, as sudo does, would lose what `timeout --foreground` sends.
Not for threads other than the main one.
"""

from __future__ import annotations

import os
import resource  # os.wait4 needs it, when no descriptor may be left to load it by
import select
import signal
from contextlib import suppress
from functools import partial

from ipclock._typing import TYPE_CHECKING, NamedTuple
from ipclock.errors import Interrupted
from ipclock.linux import process, terminate
from ipclock.linux.terminate import Termination
from ipclock.run import command_start
from ipclock.run.command_start import PYTHON_IGNORES
from ipclock.run.sentinel import Sentinel

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence
    from types import FrameType

    from ipclock.run.relay import Relay

# the others are passed on; a fault of our own kills us, blocked or not
OURS = {signal.SIGKILL, signal.SIGSTOP, signal.SIGCHLD}
ENDING = (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM)
TICK_S = 1.0
FIRST_TICK_S = 0.1  # short builds have a life too
POLL_S = 0.05
ENDING_TICK_S = 0.2  # while a command is ended before its time


class Ending(NamedTuple):
    """That the command is to end, with all that it has started: SIGTERM now, SIGKILL after `grace_s` seconds.

    `besides` are processes of it that need not descend from us any more.
    """

    grace_s: float
    besides: Sequence[int] = ()


class PendingSignals:
    """Notes the signals that ask to leave, from its making on, instead of dying of them.

    A handler that raises would lose a unit just taken from a semaphore, and posix_ipc replaces what it raises;
    so `check` raises instead, where it is called. A signal that was ignored on entry (nohup) stays ignored; `heeded`
    are the others that a supervisor has to do with. `earlier` are the processes that were below us before.
    """

    def __init__(self) -> None:
        self._first = 0
        passed_on = signal.valid_signals() - OURS
        ignored = {number for number in passed_on - PYTHON_IGNORES if signal.getsignal(number) == signal.SIG_IGN}
        # of a shell that has put us in its place
        self.earlier = set(process.descendants_of(os.getpid())) if _has_children() else set()
        self.heeded = passed_on - ignored | {signal.SIGCHLD}
        # inherited as ignored, it would make waitpid(2) report no status
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        for number in self.heeded.intersection(ENDING):
            signal.signal(number, self._note)

    def _note(self, number: int, _frame: FrameType | None) -> None:
        self._first = self._first or number

    def check(self) -> None:
        """Raise Interrupted (128+n) if a signal has come."""
        if self._first:
            raise Interrupted(self._first)


def run(
    command: Sequence[str],
    environment: Mapping[str, str],
    signals: PendingSignals,
    *,
    keep_open: int | None = None,
    leftovers: str = "release",
    apart: Collection[int] = (),
    relay: Relay | None = None,
    tick_s: float = TICK_S,
    on_start: Callable[[int], None] = lambda pid: None,
    on_tick: Callable[[], Ending | None] = lambda: None,
    on_reaped: Callable[[resource.struct_rusage], None] = lambda used: None,
    on_leftovers: Callable[[str, list[int]], None] = lambda fate, pids: None,
) -> int:
    """Run *command* to its end and return its exit status, or -n if signal n ended it.

    *keep_open* is a descriptor that the command inherits; *on_start* gets its PID; *on_tick* is called about every
    *tick_s* seconds, and soon after the start, and what it returns ends the command; *on_reaped* gets what each process
    has used that we have waited for.
    *leftovers* says what becomes of processes of the command that outlive it, whichever process is their parent by
    then: "release" leaves them alone, "wait" waits for their end (a signal that asks to leave ends them), "kill" ends
    them. Processes in a session of *apart* are none of them. *on_leftovers* gets
    "wait" or "kill" and their PIDs before it, "stay" and those of who could not be ended. A *relay* has the command's
    output.
    Leaves what is heeded blocked, so that the caller can tidy up undisturbed.
    Raises CommandFailed (126, 127), and Interrupted if a signal came before the start.
    """
    heeded = signals.heeded
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, heeded)
    signals.check()
    if leftovers != "release":
        process.adopt_orphans()
    if keep_open is not None:
        os.set_inheritable(keep_open, True)
    sentinel = Sentinel()
    try:
        pid, early = command_start.spawn(command, environment, mask, relay.streams() if relay else {})
    except BaseException:
        sentinel.close()
        raise
    if relay:
        relay.ring()
    sentinel.begin(pid)
    on_start(pid)
    pending = _pending(heeded)
    pause = min(FIRST_TICK_S, tick_s)
    asked: set[int] = set()  # signals that ask to leave
    lent = False
    ending: Termination | None = None
    while (status := _reap(pid, on_reaped)) is None:
        info = _next(pending, heeded, pause)
        if info is None:
            lent = _lend_terminal(pid) or lent
            pause = tick_s
            if why := on_tick():
                ending = ending or _begin_to_end(why, pid, {*signals.earlier, sentinel.pid}, apart)
                ending.within(why.grace_s)
            if ending:
                ending.step()
                pause = ENDING_TICK_S
        elif info.si_signo == signal.SIGCHLD:
            _stop_with(pid)
        else:
            if relay and info.si_signo == signal.SIGWINCH:
                relay.ring()
            asked.update({info.si_signo}.intersection(ENDING))
            _pass_on(info, pid, sentinel, early)
    sentinel.close()
    if lent:
        _bring_to_front(os.getpgrp(), pid)
    left = partial(_leftovers, signals.earlier, apart, on_reaped)
    if ending:
        while ending.step():
            _reap(0, on_reaped)
            if _next(pending, heeded, ENDING_TICK_S) is None and (why := on_tick()):
                ending.within(why.grace_s)
        if ending.left:
            on_leftovers("stay", ending.left)
        return status
    if leftovers == "release" or not (found := left()):
        return status
    # what has ended the command ends the wait for what it has left; a command may survive signals other than SIGTERM
    if leftovers == "wait" and any(number == signal.SIGTERM or status in (-number, 128 + number) for number in asked):
        leftovers = "kill"
    on_leftovers(leftovers, found)
    while leftovers == "wait" and left():
        info = _next(pending, heeded, tick_s)
        if info is None:
            on_tick()
        elif info.si_signo in ENDING:
            leftovers, status = "kill", -info.si_signo
    if leftovers == "kill" and (found := terminate.end(left)):
        on_leftovers("stay", found)
    return status


def _begin_to_end(why: Ending, pid: int, spared: set[int], apart: Collection[int]) -> Termination:
    """Return what ends the command *pid*, whichever process is their parent by then."""
    with suppress(OSError, ImportError):  # those that have lost their parents before are `besides`
        process.adopt_orphans()

    def find() -> list[int]:
        found = (one for one in process.descendants_of(os.getpid()) if not (apart and _session(one) in apart))
        return [one for one in (*found, *why.besides) if one not in spared]

    return Termination(find, leader=pid, grace_s=why.grace_s)


def _pass_on(info: signal.struct_siginfo, pid: int, sentinel: Sentinel, early: set[signal.Signals | int]) -> None:
    """Send the command a signal that we got, unless it has got it itself; *early* ones came before it was there."""
    number, from_kernel = info.si_signo, info.si_code > 0
    own = not from_kernel and info.si_pid == os.getpid() and number in PYTHON_IGNORES
    if (from_kernel and number == signal.SIGXCPU) or own or sentinel.sent(info):
        return  # about what we have used or written ourselves; or it has only woken us
    queued = number >= signal.SIGRTMIN
    came_to_all = sentinel.has_seen(number, twins=not queued)
    if came_to_all is None:  # no process to spare: by kill(2) then means to us alone, and so does its leader's hangup
        came_to_all = from_kernel and not (number == signal.SIGHUP and os.getsid(0) == os.getpid())
    if not came_to_all or number in early:
        early.discard(number)
        _send(os.kill, pid, number)
        return
    if os.getpgid(pid) != os.getpgrp():
        _make_up_for(info, pid)
    if not queued:
        signal.sigtimedwait({number}, 0)  # a twin, which the command would have got as one with the first


def _make_up_for(info: signal.struct_siginfo, pid: int) -> None:
    """Send a command that has left our group what came to the group, where without us it would have got it."""
    if os.getpgrp() == os.getpid():
        # a shell's job: the command would lead the group in our place, and no leader can leave
        _send(os.killpg if os.getpgid(pid) == pid else os.kill, pid, info.si_signo)
    elif info.si_code <= 0 and info.si_pid == os.getppid():
        _send(os.kill, pid, info.si_signo)  # timeout(1) sends to its command too, which is us


def _lend_terminal(pid: int) -> bool:
    """Let a command that leads a group of its own have the terminal where it is ours, a shell's job in front.

    Without us it would lead the group that has it: so timeout(1) leaves ours, and what it runs would stop at a read.
    """
    if not (os.getpgrp() == os.getpid() and os.getpgid(pid) == pid and _bring_to_front(pid, os.getpgrp())):
        return False
    _send(os.killpg, pid, signal.SIGCONT)  # it may have stopped for want of it
    return True


def _bring_to_front(group: int, instead_of: int) -> bool:
    """Give the terminal to a process group if *instead_of* has it; return whether it had. With SIGTTOU blocked."""
    with suppress(OSError):
        terminal = os.open("/dev/tty", os.O_RDWR | os.O_CLOEXEC)
        try:
            if os.tcgetpgrp(terminal) == instead_of:
                os.tcsetpgrp(terminal, group)
                return True
        finally:
            os.close(terminal)
    return False


def _send(kill: Callable[[int, int], None], pid: int, number: int) -> None:
    with suppress(PermissionError):  # a setuid command: its caller could not have sent it either
        kill(pid, number)


def _stop_with(pid: int) -> None:
    """Stop as the command does if it has stopped, and a shell is there to see it, and to continue us all."""
    try:
        found = os.waitid(os.P_PID, pid, os.WSTOPPED | os.WNOHANG)
        parent = os.getppid()
        under_job_control = os.getsid(parent) == os.getsid(0) and os.getpgid(parent) != os.getpgrp()
    except (ChildProcessError, ProcessLookupError):
        return
    if found and under_job_control:
        os.kill(os.getpid(), found.si_status)
        if found.si_status != signal.SIGSTOP:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {found.si_status})
            signal.pthread_sigmask(signal.SIG_BLOCK, {found.si_status})


def _pending(numbers: set[signal.Signals]) -> list[int]:
    """Return a descriptor that is readable while one of the blocked signals is pending: signalfd(2). [] without it."""
    try:
        import ctypes  # after the start of the command, which need not wait for it
    except (ImportError, OSError):  # not there, or no descriptor left to load it by
        return []
    # sigset_t: bit n - 1 is signal n, in words of the machine
    mask = (ctypes.c_ulong * (128 // ctypes.sizeof(ctypes.c_ulong)))()
    for number in numbers:
        word, bit = divmod(number - 1, 8 * ctypes.sizeof(ctypes.c_ulong))
        mask[word] |= 1 << bit
    fd = ctypes.CDLL(None).signalfd(-1, mask, os.O_CLOEXEC)  # SFD_CLOEXEC is O_CLOEXEC
    return [fd] if fd >= 0 else []


def _next(pending: list[int], numbers: set[signal.Signals], tick_s: float) -> signal.struct_siginfo | None:
    """Take the next of the blocked signals; None after about *tick_s* without one.

    To wait in sigtimedwait(2) itself would do, but for CPython's: it returns what lies on its stack if a stop (Ctrl-Z)
    interrupts it beyond its time.     A random signal would go to the build, or the call would fail, and the slot
    be given back under a build that runs. A zero time is never interrupted.
    """
    poll = select.poll()  # select(2) knows no descriptor above 1023, and a caller may have left us as many
    for fd in pending:
        poll.register(fd, select.POLLIN)
    poll.poll(1000 * (tick_s if pending else POLL_S))
    return signal.sigtimedwait(numbers, 0)


def _reap(pid: int, on_reaped: Callable[[resource.struct_rusage], None]) -> int | None:
    """Take note of children that have ended, adopted ones too; return the exit status of *pid* if it is one of them.

    All of them, or up to *pid*: the others can wait until its slot was given back.
    """
    with suppress(ChildProcessError):
        while True:
            done, status, used = os.wait4(-1, os.WNOHANG)
            if done:
                on_reaped(used)
            if done == pid:
                return os.waitstatus_to_exitcode(status)
            if not done:
                break
    return None


def _has_children() -> bool:
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    return True


def _leftovers(
    earlier: set[int], apart: Collection[int], on_reaped: Callable[[resource.struct_rusage], None]
) -> list[int]:
    _reap(0, on_reaped)
    found = process.descendants_of(os.getpid()) if _has_children() else []
    return [pid for pid in found if pid not in earlier and not (apart and _session(pid) in apart)]


def _session(pid: int) -> int:
    try:
        return os.getsid(pid)
    except ProcessLookupError:
        return 0


def die_of(number: int) -> None:
    """End this process by signal *number*, so that a calling shell sees what ended the command.

    An exit status of 130 would let a loop in the calling script go on after Ctrl-C. Leaves no core file: the
    command may have left its own.
    """
    hard = resource.getrlimit(resource.RLIMIT_CORE)[1]
    resource.setrlimit(resource.RLIMIT_CORE, (0, hard))
    if number != signal.SIGKILL:
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {number})
    os.kill(os.getpid(), number)
