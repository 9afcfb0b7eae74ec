"""Commands of the user's own that run when a build waits, starts and ends.

Guarantees: a hook neither delays nor fails a build. It is forked twice into a session of its own and inherits no
descriptor: that of the record would keep the slot while a hook hangs. Root runs none that another user may have
written. Does not know how a hook ends.
"""

from __future__ import annotations

import errno
import os
import signal
from contextlib import suppress

from ipclock import utf8
from ipclock._typing import TYPE_CHECKING
from ipclock.bounded import moment_in
from ipclock.config.environment import hook_environment
from ipclock.config.settings import read_hooks
from ipclock.errors import UnsafeHook, reason_of
from ipclock.i18n import _
from ipclock.linux import clocks, descriptors, trusted_path

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any, NoReturn

    from ipclock.config.settings import Settings
    from ipclock.pool.claim import Claim
    from ipclock.pool.record_name import RecordName

EVENTS = ("wait", "acquire", "release", "timeout")
FACTS = ("event", "name", "label", "ticket", "slot", "pid", "waited_s", "held_s", "outcome", "code")
WAIT_S = 0.25  # of two builds that start together one stands behind the other for a moment; that is no wait


class Hooks:
    """The hooks of a command on the pool that the settings name.

    What they print goes to the descriptor *out*, if there is one; *warn* gets a line about each that cannot be started.
    `sessions` are those of the hooks that were. Raises UnsafeHook (78).
    """

    def __init__(self, settings: Settings, out: int | None, warn: Callable[[str], None]) -> None:
        self.sessions: set[int] = set()
        self._name = settings.pool_name
        self._out = out
        self._warn = warn
        self._commands = {f"ON_{event.upper()}": getattr(settings, f"on_{event}") for event in EVENTS}
        files = settings.hook_files if os.geteuid() == 0 else {}
        for path in set(files.values()):
            _require_roots(path)
            # once more: what was read before that look may have been another user's
            now = read_hooks(path)
            self._commands |= {key: now[key] for key, file in files.items() if file == path}

    def waiting(self, claim: Claim) -> None:
        """Run ON_WAIT once the claim has stood in line for WAIT_S; called again it does nothing."""
        if self._commands["ON_WAIT"] and clocks.monotonic() - float(claim.times["arrived_mono"]) >= WAIT_S:
            self.tell_of("wait", claim)
            self._commands["ON_WAIT"] = None

    def tell_of(self, event: str, claim: Claim, outcome: str | None = None, code: int | None = None) -> None:
        """Run the hook of *event*, if there is one, for what became of the claim."""
        pid = claim.holder.pid if claim.holder else os.getpid()
        self.tell(event, claim.label, claim.entry, claim.times, pid, outcome, code)

    def tell(
        self,
        event: str,
        label: str,
        entry: RecordName,
        times: Mapping[str, str],
        pid: int | None,
        outcome: str | None = None,
        code: int | None = None,
    ) -> None:
        """Run the hook of *event*, if there is one. *times* are the stamps of a claim, or of a record.

        If it cannot be started that is said, and nothing else is wrong.
        """
        key = f"ON_{event.upper()}"
        if (command := self._commands[key]) is None:
            return
        arrived, admitted = moment_in(times, "arrived_mono"), moment_in(times, "admitted_mono")
        now = clocks.monotonic()
        facts = {
            "event": event,
            "name": self._name,
            "label": label,
            "ticket": entry.ticket or None,
            "slot": entry.slot or None,
            "pid": pid,
            "waited_s": clocks.elapsed(arrived, now if admitted is None else admitted),
            "held_s": clocks.elapsed(admitted, now) if event == "release" else None,
            "outcome": outcome,
            "code": code,
        }
        try:
            self.sessions.add(_start_hook(utf8.native(command), facts, self._out))
        except OSError as error:
            text = _("ipclock: warning: {key} could not be run: {reason}")
            self._warn(text.format(key=key, reason=reason_of(error)))


def _start_hook(command: str, facts: Mapping[str, Any], out: int | None) -> int:
    """Start *command* and return its session. Raises OSError."""
    import json

    known = {key: value for key, value in facts.items() if value is not None}
    environment = hook_environment({key: known.get(key) for key in FACTS})
    fds = [os.memfd_create("ipclock-hook")]  # a file: a hook that does not read it keeps no writer waiting
    try:
        os.write(fds[0], json.dumps(known, ensure_ascii=False).encode() + b"\n")
        os.lseek(fds[0], 0, os.SEEK_SET)
        fds += os.pipe()  # closed by the start itself: tells why there was none
        # or a handler of ours would run in the child
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        try:
            child = os.fork()
            if child == 0:
                _become_hook(command, environment, fds[0], out, fds[2])
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        os.close(fds.pop())
        problem = os.read(fds[1], 16)
        with suppress(ChildProcessError):  # SIGCHLD was inherited as ignored
            os.waitpid(child, 0)
    finally:
        for fd in fds:
            os.close(fd)
    if problem:
        raise OSError(int(problem), os.strerror(int(problem)))
    return child


def _become_hook(command: str, environment: Mapping[str, str], stdin: int, out: int | None, problem: int) -> NoReturn:
    """Cut whatever ties this process to its parent, and run the command in a child for which no process waits."""
    try:
        os.setsid()
        for heeded in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
            # ignored first, which drops a Ctrl-C that came while we were in the build's process group
            signal.signal(heeded, signal.SIG_IGN)
            signal.signal(heeded, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        output = os.open(os.devnull, os.O_RDWR) if out is None else out
        for number, fd in enumerate((stdin, output, output)):
            os.dup2(fd, number)
            os.set_inheritable(number, True)  # which dup2 onto itself does not do
        for fd in descriptors.own_descriptors():
            if fd > 2 and fd != problem:
                with suppress(OSError):  # the one by which they were listed
                    os.close(fd)
        if os.fork() == 0:
            os.execve("/bin/sh", ["sh", "-c", command], environment)  # noqa: S606 - it is one
    except BaseException as error:
        os.write(problem, str(getattr(error, "errno", None) or errno.EIO).encode())
    finally:
        os._exit(0)


def _require_roots(path: str) -> None:
    """Raise UnsafeHook (78) unless only root can have put what lies at *path* there, and can change it."""
    at = path
    try:
        for at, status, _link in trusted_path.steps(path):
            if not trusted_path.is_roots(status) or any(trusted_path.writers(status)):
                raise UnsafeHook(path, at)
    except OSError as error:
        raise UnsafeHook(path, error.filename or at, reason_of(error)) from None
