"""What a member may write into a pool, and settings files, damaged at random: `python -m tests.protocol.fuzz`.

A round is its seed. It makes a real pool, perhaps with a build and one that waits, damages records, their names, the
numbers and notes, the semaphores, the place or a settings file, and runs real commands on that. Each of them ends in
time, with a documented status, and prints nothing that could move a cursor. A reset by root mends all of it.
"""

from __future__ import annotations

import json
import os
import random
import select
import shutil
import signal
import socket
import stat
import sys
import tempfile
import time
import traceback
from argparse import ArgumentParser
from collections import Counter
from contextlib import closing, suppress
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, NoReturn

import prometheus_client

from ipclock import users as system_users
from ipclock.cli import command_line, metrics, resume
from ipclock.config import shell_file
from ipclock.display import waiting_line
from ipclock.history import counters, recorder
from ipclock.linux import clocks, exit_watcher, memory, process
from ipclock.linux.locks import table, try_lock
from ipclock.linux.semaphore import SHARED_MARK, SIZE
from ipclock.pool import headroom, sections
from ipclock.pool.directory import NUMBERS, STATES
from ipclock.pool.record import Beacons
from ipclock.pool.records import LAST_DRAWN
from ipclock.run import hooks
from tests.helpers.crash_at import LOADED, OTHER_USER, USER, become
from tests.helpers.world import SHM, World, clients_of, until

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

# a child must not read the source tree: it may be another user's
PREPARED = (*LOADED, exit_watcher, headroom, hooks, recorder, memory, metrics, waiting_line, prometheus_client)
PREPARED += (resume, shell_file, counters)
DOCUMENTED = {0, 2, 69, 73, 75, 76, 77, 78, 80}
# with the pool's own parts in place: usage, a slot that cannot be had, a pool or a slot that is not ours
GOOD_PARTS = {0, 2, 75, 76, 77, 80}
HARMLESS = {"damage_record", "plant_record", "damage_note", "damage_turn"}
SLOW_S = 20.0  # most commands need less than a tenth of a second; one waits 10 s for a mutex
TOLD = 400  # letters of what a command has said, in a fault
CALLED_S = sections.CALLED_S
VICTIM = b"kind=fd\nlabel=victim\n"
SOUND = "MAX_PARALLEL_BUILDS=2\n"

COMMANDS = (
    ("status",),
    ("status", "--json"),
    ("doctor",),
    ("doctor", "--json"),
    ("metrics",),
    ("init",),
    ("wrap", "-n", "x", "--", "true"),
    ("wrap", "-n", "--slots", "2", "x", "--", "true"),
    ("wrap", "-n", "--per-label", "1", "x", "--", "true"),
    ("wrap", "-w", "1", "x", "--", "true"),
    ("wrap", "-w", "1", "--supersede", "waiter", "--", "true"),
    ("acquire", "-w", "0.2", "x"),
    ("release",),
    ("wait", "-w", "0.2", "1"),
    ("wait", "-w", "0.2", "--idle"),
    ("logs", "1"),
    ("logs", "staging"),
    ("drain", "--for", "1h", "night"),
    ("resume",),
    ("reset", "1"),
    ("reset",),
)

# Texts and numbers that nobody of ours writes

DIGITS = ("0", "1", "2", "3", "7", "40", "999", "1000", "1001", "9" * 9, str(10**9), str(2**31), str(2**32 - 1))
DIGITS += (str(2**63), str(2**64 - 1), str(2**64), "9" * 18, str(10**18), str(LAST_DRAWN), "9" * 20, "9" * 500)
DIGITS += ("00", "01", "-0", "-1", "-5", "-999", "+1", "1_0", "1e3", "0x1", "٣", "²", "", " ", "nan", "inf", "-inf")
MOMENTS = (*DIGITS, "0.5", ".", "1.", ".5", "1e308", "9" * 29, "1" + "0" * 10, "-1.5", "1.2.3", "1790000000.5")
STRANGE = ("", "x", "\x1b[2J", "a\rb", "\x07", "\x9b31m", "\u202egnol", "\u2028", "\0", "배포", "x" * 300, "{3}", "%s")
LETTERS = "uplrbnskzq"
SIZES = (0, 1, 8, 31, 32, 33, 4096, 100_000)
UNITS = (0, 1, 2, 5, 1000, 10_000, 10_001, 2**31 - 1, 2**31, 2**31 + 5, 3 * 2**30, 2**32 - 1)


class Outcome(NamedTuple):
    """How a command has ended: its status, -n for signal n, None where it did not end in time, and what it has said."""

    status: int | None
    out: bytes
    err: bytes


def start(arguments: tuple[str, ...], env: Mapping[str, str], uid: int) -> tuple[int, int, int]:
    """Run `ipclock` in a forked child; return its PID and the files of its stdout and stderr."""
    streams = [os.open(os.devnull, os.O_RDONLY), os.memfd_create("stdout"), os.memfd_create("stderr")]
    pid = os.fork()
    if pid == 0:
        _be(arguments, env, uid, streams)
    os.close(streams[0])
    return pid, streams[1], streams[2]


def _be(arguments: tuple[str, ...], env: Mapping[str, str], uid: int, streams: list[int]) -> NoReturn:
    code = 255
    try:
        for number, fd in enumerate(streams):
            os.dup2(fd, number)
        os.closerange(3, 4096)
        sys.stdin, sys.stdout, sys.stderr = (
            os.fdopen(fd, mode, encoding="utf-8", errors=errors)
            for fd, mode, errors in ((0, "r", None), (1, "w", "strict"), (2, "w", "backslashreplace"))
        )
        os.chdir("/")
        os.environ.clear()
        os.environ.update(env)
        become(uid, [USER] if uid == OTHER_USER else [])
        code = command_line.main(arguments)
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 0
    except BaseException:
        traceback.print_exc()
    finally:
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError):
                stream.flush()
        os._exit(code)


def finish(pid: int, out: int, err: int) -> Outcome:
    """Wait for the end of a child, or end it."""
    pidfd = os.pidfd_open(pid)
    in_time = select.select([pidfd], [], [], SLOW_S)[0]
    if not in_time:
        os.kill(pid, signal.SIGKILL)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    os.close(pidfd)
    found = Outcome(code if in_time else None, _all_of(out), _all_of(err))
    os.close(out)
    os.close(err)
    return found


def _all_of(fd: int) -> bytes:
    return os.pread(fd, os.fstat(fd).st_size, 0)


def faults(found: Outcome, statuses: set[int]) -> list[str]:
    """Return what is wrong with how a command has ended."""
    wrong = []
    if found.status is None:
        wrong.append("does not end")
    elif found.status not in statuses:
        wrong.append(f"status {found.status}")
    for stream in (found.out, found.err):
        try:
            text = stream.decode()
        except UnicodeDecodeError:
            wrong.append("no UTF-8")
            continue
        if "Traceback" in text or "internal error" in text:
            wrong.append("traceback")
        if any(not letter.isprintable() and letter != "\n" for letter in text):
            wrong.append("control characters")
    return wrong


# What is damaged, and how


def flipped(chance: random.Random, data: bytes) -> bytes:
    """Return the bytes with some of them changed, cut off, or many more of them."""
    changed = bytearray(data)
    kind = chance.randrange(8)
    if kind == 0:
        return b""
    if kind == 1:
        return bytes(changed[: chance.randrange(len(changed) + 1)])
    if kind == 2:
        return bytes(changed) + chance.choice((b"\n", b"\0", b"x=y\n", b"\xff")) * chance.choice((1, 100, 10_000))
    for _ in range(chance.choice((1, 1, 2, 5, 50))):
        if not changed:
            break
        place = chance.randrange(len(changed))
        new = chance.choice((0, 10, 13, 27, 0x3D, 0x39, 0x2D, 0xFF, chance.randrange(256), changed[place] ^ 1))
        if chance.random() < 0.2:
            changed.insert(place, new)
        else:
            changed[place] = new
    return bytes(changed)


def identity(chance: random.Random) -> str:
    """Return what a record may say of a process: somebody, nobody, or what cannot be."""
    this = process.identify(os.getpid())
    pid = chance.choice((this.pid, os.getppid(), 1, 2**22 - 1, 2**31 - 1, 2**31, 0, -1))
    start_tick = chance.choice((this.start, 0, 2**63, 2**64 - 1, 2**64, -1))
    boot = chance.choice((this.boot, this.boot, "0" * 36, "", "\x1b"))
    namespace = chance.choice((this.namespace, this.namespace, 0, 2**64 - 1, 2**64))
    whole = f"{pid}:{start_tick}:{boot}:{namespace}"
    return chance.choice((str(this), whole, whole, whole, "", ":::", "1:2:3", whole + ":1", "x"))


def record(chance: random.Random) -> bytes:
    """Return the text of a record that a member could have written."""
    now, mono = f"{time.time():.3f}", f"{clocks.monotonic():.3f}"
    digits = chance.choice(DIGITS)
    fields = {
        "kind": chance.choice(("fd", "fd", "pid", "pid", "lease", "")),
        "label": chance.choice(("staging", "waiter", "holder", *STRANGE)),
        "process": identity(chance),
        "waiter": identity(chance),
        "timeout": chance.choice((*MOMENTS, "600")),
        "arrived": chance.choice((*MOMENTS, now)),
        "arrived_mono": chance.choice((*MOMENTS, mono)),
        "admitted": chance.choice((*MOMENTS, now)),
        "admitted_mono": chance.choice((*MOMENTS, mono)),
        "command_pid": chance.choice((*DIGITS, str(os.getpid()))),
        "command_start": chance.choice((*DIGITS, str(process.start_of(os.getpid())))),
        "uid": chance.choice(DIGITS),
        "memory": chance.choice((*DIGITS, "1000000")),
        "log": chance.choice(
            (*STRANGE, "/", "/etc/passwd", "relative.1.a.1.log", f"/{digits}.{digits}.a.{digits}.log")
        ),
        "log_writer": chance.choice((*DIGITS, str(os.getpid()))),
        "beacon": chance.choice(("", f"{digits}:{digits}", f"1:{digits}", f"{digits}:1", "1", ":", "1:2:3")),
    }
    kept = [key for key in fields if chance.random() < 0.8]
    if chance.random() < 0.2:
        chance.shuffle(kept)
    text = "".join(f"{key}={fields[key]}\n" for key in kept).encode()
    return flipped(chance, text) if chance.random() < 0.4 else text


def name(chance: random.Random, state: str) -> bytes:
    """Return a file name: nearly that of a record, or anything."""
    ticket = chance.choice((*("1", "2", "3", "4", "5", "17"), *DIGITS))
    slot = chance.choice((".1", ".2", f".{chance.choice(DIGITS)}")) if state == "holding" else ""
    if chance.random() < 0.1:
        slot = chance.choice(("", ".", ".1", ".0", "..", ".1.1"))
    text = ticket + slot
    for _ in range(chance.choice((0, 0, 1, 1, 2, 4))):
        text += f",{chance.choice(LETTERS)}{chance.choice((*DIGITS, '1', '2', 'deadbeef', 'p-999'))}"
    if chance.random() < 0.1:
        text += chance.choice(STRANGE)
    if chance.random() < 0.1:
        text += ",z" + "x" * chance.choice((1, 100, max(0, chance.choice((200, 240, 252, 253)) - len(text))))
    if chance.random() < 0.05:
        text = "." + text
    data = text.encode().replace(b"/", b"").replace(b"\0", b"")
    if chance.random() < 0.05:
        data = flipped(chance, data).replace(b"/", b"").replace(b"\0", b"")
    data = data[:255]
    return b"x" if data in (b"", b".", b"..") else data


def number(chance: random.Random) -> bytes:
    """Return what a file with a number could hold."""
    digits = chance.choice(DIGITS)
    padded = digits.rjust(20, "0") + "\n"
    data = chance.choice((digits, digits + "\n", padded, padded, " " + digits, digits * 100_000)).encode()
    return flipped(chance, data) if chance.random() < 0.3 else data


def note(chance: random.Random) -> bytes:
    """Return what a note could say."""
    fields = {
        "between": chance.choice(("user", "session", "off", *STRANGE)),
        chance.choice(DIGITS): chance.choice(("u0,0", "s0badcafe,-20", "u0,99", ",", *STRANGE)),
        "reason": chance.choice(STRANGE),
        "uid": chance.choice(DIGITS),
        "until": chance.choice((*MOMENTS, str(time.monotonic() + 60), str(time.monotonic() - 60))),
        "boot": chance.choice((clocks.boot_id(), clocks.boot_id(), "0" * 36, "", "\x1b")),
        "ends": chance.choice((*MOMENTS, str(time.time() + 60))),
        "before": chance.choice(DIGITS),
        "capacity": chance.choice(DIGITS),
        "at": chance.choice((*MOMENTS, str(time.time()))),
    }
    text = "".join(f"{key}={value}\n" for key, value in fields.items() if chance.random() < 0.8).encode()
    return flipped(chance, text) if chance.random() < 0.4 else text


def semaphore(chance: random.Random) -> bytes:
    """Return what a semaphore's file could hold."""
    waiters = chance.choice((0, 0, 0, 1, 2**31, 2**32 - 1))
    data = chance.choice(UNITS).to_bytes(4, sys.byteorder) + waiters.to_bytes(4, sys.byteorder)
    data += chance.choice((128, 128, 128, 0, 1, 2**32 - 1)).to_bytes(4, sys.byteorder) + bytes(20)
    if chance.random() < 0.3:
        data = flipped(chance, data)
    return (data * 4000)[: chance.choice(SIZES)] if chance.random() < 0.3 else data


VALUES = ("1", "2", "0", "1000", "-20", "19", "600", "90s", "1.5GiB", "auto", "kill", "off", "none", "0660", "0600")
VALUES += (*DIGITS, "1e400", "9" * 400 + "s", "9e9e9", "'a b'", '"a\\"b"', "'", '"', "$X", "`id`")
VALUES += ("\\", "a b", "#", "\\'")
VALUES += ("~", "root", "nobody", *STRANGE)
# but those by which a command would run, connect or write elsewhere
KEYS = ("MAX_PARALLEL_BUILDS", "BUILD_TIMEOUT", "BUILD_SLOTS", "MAX_PER_LABEL", "BUILD_PRIORITY", "PRIORITY_MIN")
KEYS += ("MEMORY", "MIN_FREE_MEMORY", "LOCK_MODE", "LOCK_GROUP", "LEFTOVERS", "ON_LOST", "HISTORY_DAYS", "FAIR")
KEYS += ("PROGRESS_INTERVAL", "STATUS_HINT", "RESET_HINT", "UNKNOWN")
LINES = ("# a comment", "", "if true; then", "export", "=", "A=B C=D", "set -e", "\\", "X=(1 2)", "f() {", "A=$(id)")


def settings(chance: random.Random) -> bytes:
    """Return a settings file: a sound one with bytes changed, or lines of a kind."""
    lines = []
    for _ in range(chance.choice((0, 1, 2, 5, 20))):
        line = f"{chance.choice(KEYS)}={chance.choice(VALUES)}"
        lines.append(chance.choice((line, line, line, line, f"export {line}", f"  {line} # x", chance.choice(LINES))))
    text = "\n".join(lines) + chance.choice(("\n", "\n", "", "\r\n"))
    data = text.encode(errors="surrogateescape")
    if chance.random() < 0.4:
        data = flipped(chance, data)
    return data * 5000 if chance.random() < 0.02 else data


def remove(path: Path | bytes) -> None:
    """Remove whatever lies there."""
    shutil.rmtree(path) if stat.S_ISDIR(os.lstat(path).st_mode) else os.unlink(path)


def overwrite(path: Path, content: bytes, *, cut: bool = True) -> None:
    """Write into a file of the pool, never through a link. Raises OSError."""
    fd = os.open(path, os.O_WRONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        if cut:
            os.ftruncate(fd, 0)
        os.write(fd, content)
        os.ftruncate(fd, len(content))
    finally:
        os.close(fd)


def plant(chance: random.Random, path: bytes, content: bytes, victim: Path, *, owner: int | None = None) -> str:
    """Put something at the path, whatever lies there, perhaps a link to the *victim*; return what.

    With an *owner* it may be that one's, as what another member of a shared pool makes.
    """
    kind = chance.choice((*("file",) * 12, "folder", "full folder", "fifo", "link", "loop", "socket", "second link"))
    with suppress(OSError):
        remove(path)
    with suppress(OSError):  # a name that cannot be
        if kind == "file":
            Path(os.fsdecode(path)).write_bytes(content)
            os.chmod(path, chance.choice((0o600, 0o600, 0o660, 0o644, 0)))
        elif kind == "fifo":
            os.mkfifo(path)
        elif kind == "link":
            os.symlink(chance.choice((os.fsencode(victim), b"nowhere", b"/dev/zero", b"\x1b[2J", b"x" * 4000)), path)
        elif kind == "loop":
            os.symlink(os.path.basename(path), path)
        elif kind == "socket":
            _listen(path)
        elif kind == "second link":
            beside = path + b"~"
            Path(os.fsdecode(beside)).write_bytes(content)
            os.link(beside, path)
        else:
            os.mkdir(path)
            if kind == "full folder":
                os.mkdir(path + b"/1")
                Path(os.fsdecode(path + b"/2")).write_bytes(content)
        if owner is not None and chance.random() < 0.5:
            group = os.stat(os.path.dirname(path)).st_gid
            os.chown(path, owner, chance.choice((group, group, owner)), follow_symlinks=False)
    return kind


def _listen(path: bytes) -> None:
    """Leave a socket at the path; its address has room for a short name only."""
    folder = os.open(os.path.dirname(path), os.O_RDONLY)
    try:
        with closing(socket.socket(socket.AF_UNIX)) as made:
            made.bind(f"/proc/self/fd/{folder}/s")
        os.rename("s", os.path.basename(path), src_dir_fd=folder, dst_dir_fd=folder)
    finally:
        os.close(folder)


class Round:
    """One pool, what was done to it, and what was wrong with what came of it."""

    def __init__(self, seed: int, folder: Path) -> None:
        self.chance = random.Random(seed)
        self.world = World(f"ipclock-fuzz-{os.getpid()}-{seed}x")
        self.away = SHM / f"away-{self.world.name[1:]}"
        self.config = folder / "build-config.sh"
        self.config.write_text(SOUND)
        self.victim = folder / "victim"
        self.victim.write_bytes(VICTIM)
        os.chmod(folder, 0o755)
        os.chmod(self.config, 0o644)
        self.env = self.world.env | {"IPCLOCK_CONFIG": str(self.config), "LOCK_DIR": str(SHM)}
        self.owner = USER if os.geteuid() == 0 and self.chance.random() < 0.25 else os.geteuid()
        self.shared = os.geteuid() == 0 and self.chance.random() < 0.3
        self.users = {self.owner, os.geteuid(), OTHER_USER if self.shared else self.owner}
        self.clients: list[tuple[int, int, int]] = []
        self.lit: list[int] = []
        self.done: list[str] = []
        self.faults: list[str] = []
        self.told: Counter[str] = Counter()
        self.whole = True  # but for records and notes
        self.struck = False  # a living client may have a damaged record, which counts when it was killed
        self.client_endings = {-signal.SIGKILL, *DOCUMENTED}

    def play(self) -> None:
        """Damage the pool and use it; then mend it by a reset."""
        sections.CALLED_S = self.chance.choice((CALLED_S, CALLED_S, 0.0))  # or a round would have to wait for that
        group = ("--mode", "0660", "--group", str(USER)) if self.shared else ()
        self.run(("init", *group), {0}, self.owner)
        if self.chance.random() < 0.5:
            self.begin()
        for _ in range(self.chance.choice((1, 1, 2, 4, 10))):
            self.damage()
        for _ in range(self.chance.choice((2, 3, 5))):
            uid = self.chance.choice(sorted(self.users))
            arguments = self.chance.choice(COMMANDS)
            self.run(arguments, GOOD_PARTS if self.whole and arguments[0] != "doctor" else DOCUMENTED, uid)
        self.mend()

    def begin(self) -> None:
        """Start a build and one that waits."""
        wait = ("wrap", "-q", "-w", "30", "--slots", "2")
        self.clients.append(start((*wait, "holder", "--", "sleep", "100"), self.env, self.owner))
        until(lambda: self.world.records("holding"), "a holder")
        waiter = self.chance.choice(sorted(self.users))
        self.clients.append(start((*wait, "waiter", "--", "true"), self.env, waiter))
        until(lambda: self.world.records("gate"), "a waiter")

    def run(self, arguments: tuple[str, ...], statuses: set[int], uid: int, *, sound: bool = False) -> Outcome:
        """Run a command and note what is wrong with it."""
        words, env = arguments, self.env
        if arguments[0] == "acquire":
            words = (*arguments, "--pid", str(os.getpid()))
        if sound:
            self.config.write_text(SOUND)
        begun = time.monotonic()
        found = finish(*start(words, env, uid))
        self.told[f"{arguments[0]} {found.status}"] += 1
        self.done.append(f"{' '.join(arguments)}{f' by {uid}' * (uid != os.geteuid())}: {found.status}")
        for fault in faults(found, statuses):
            said = (found.err + found.out)[:TOLD]
            self.faults.append(f"{fault} {time.monotonic() - begun:.1f} s {said!r}; so far: {self.done}")
        if arguments[-1] == "--json" and found.status in (0, 69) and found.out:
            json.loads(found.out)
        if arguments[0] == "acquire" and found.status == 0:
            self.run(("release", found.out.decode().strip()), {0, 78}, uid)
        return found

    # Damage

    def damage(self) -> None:
        """Damage something."""
        kinds: list[tuple[int, Callable[[], str]]] = [
            (30, self.damage_record),
            (30, self.plant_record),
            (12, self.damage_number),
            (10, self.damage_note),
            (10, self.damage_semaphore),
            (6, self.damage_turn),
            (5, self.damage_folder),
            (4, self.damage_place),
            (12, self.damage_settings),
        ]
        what = self.chance.choices([kind for _, kind in kinds], [weight for weight, _ in kinds])[0]
        self.whole &= what.__name__ in HARMLESS
        try:
            self.done.append(f"[{what()}]")
        except OSError as error:  # damaged before
            self.done.append(f"[{what.__name__}: {error.strerror}]")

    def plant(self, path: bytes, content: bytes) -> str:
        owner = OTHER_USER if self.shared else self.owner
        return plant(self.chance, path, content, self.victim, owner=owner if os.geteuid() == 0 else None)

    def state(self) -> str:
        return self.chance.choice((*STATES, "holding", "queued", "gate"))

    def damage_record(self) -> str:
        state = self.state()
        names = self.world.records(state)
        if not names:
            return self.plant_record()
        self.struck = bool(self.clients)
        path = self.world.folder / state / self.chance.choice(names)
        if self.chance.random() < 0.3:
            new = name(self.chance, state)
            with suppress(OSError):
                os.rename(path, os.fsencode(path.parent) + b"/" + new)
            return f"{state}/{path.name} -> {new!r}"
        data = flipped(self.chance, path.read_bytes()) if path.is_file() and not path.is_symlink() else b""
        if self.chance.random() < 0.8:
            overwrite(path, data)  # under the beacon
            return f"{state}/{path.name} = {data[:200]!r}"
        return f"{state}/{path.name} = {self.plant(os.fsencode(path), data)} {data[:200]!r}"

    def plant_record(self) -> str:
        state, content = self.state(), record(self.chance)
        path = os.fsencode(self.world.folder / state) + b"/" + name(self.chance, state)
        kind = self.plant(path, content)
        told = f"{kind} {state}/{os.path.basename(path)!r} = {content!r}"
        if self.chance.random() < 0.3:
            with suppress(OSError):
                self.lit.append(os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_NOFOLLOW))
                beacons = Beacons.of(self.world.name[1:], self.world.folder.stat().st_dev)
                units = self.chance.choice((1, 2, 999, 2**40))
                try_lock(self.lit[-1], beacons.holder(units) if self.chance.random() < 0.6 else beacons.waiter)
                told += ", lit"
        return told

    def damage_number(self) -> str:
        path, content = self.world.folder / self.chance.choice(NUMBERS), number(self.chance)
        if self.chance.random() < 0.8:
            overwrite(path, content)
            return f"{path.name} = {content[:80]!r}"
        return f"{path.name} = {self.plant(os.fsencode(path), content)} {content[:80]!r}"

    def damage_note(self) -> str:
        path, content = self.world.folder / self.chance.choice(("drained", "resized", "fair")), note(self.chance)
        if self.chance.random() < 0.3 and (self.world.folder / "capacity").is_file():
            # a change counts only where it speaks of the capacity that there is
            content = b"before=1\ncapacity=2\n" + content
        return f"{path.name} = {self.plant(os.fsencode(path), content)} {content[:300]!r}"

    def damage_semaphore(self) -> str:
        return self._damage_semaphore(SHM / f"sem.{self.world.name[1:]}")

    def damage_turn(self) -> str:
        ticket = self.chance.choice(("1", "2", "3", "4", "5", *DIGITS))
        return self._damage_semaphore(SHM / f"sem.{self.world.name[1:]}.{ticket}"[:240].replace("/", ""))

    def _damage_semaphore(self, path: Path) -> str:
        content = semaphore(self.chance)
        if self.chance.random() < 0.5 and path.is_file() and not path.is_symlink():
            # in place, under those who have it mapped; without a byte of it the kernel would end them (SIGBUS)
            content = content or b"\1"
            if len(content) != SIZE or content[8:12] != SHARED_MARK:
                self.client_endings.add(-signal.SIGABRT)  # glibc's; the build is none of its processes
            overwrite(path, content, cut=False)
            return f"{path.name} = {content[:40]!r} {len(content)}, in place"
        return f"{path.name} = {self.plant(os.fsencode(path), content)} {content[:40]!r} {len(content)}"

    def damage_folder(self) -> str:
        """Damage what is no record: a folder of records, a part of the pool, or something beside."""
        path = self.world.folder / self.chance.choice((*STATES, *NUMBERS, "strange"))
        how = self.chance.choice(("away", "mode", "planted"))
        if how == "mode" and not path.is_symlink():
            path.chmod(self.chance.choice((0, 0o500, 0o777, 0o2770)))
        elif how == "away":
            remove(path)
        else:
            how = self.plant(os.fsencode(path), b"1")
        return f"{path.name}: {how}"

    def damage_place(self) -> str:
        place = self.world.folder
        status = place.lstat()
        if self.away.exists():
            return "nothing"
        os.rename(place, self.away)
        target = self.chance.choice((str(self.away), str(place), "/etc/" + place.name, "/x", "x", "", "/" + "x" * 3000))
        device = self.chance.choice((str(status.st_dev), *DIGITS))
        inode = self.chance.choice((str(status.st_ino), *DIGITS))
        text = self.chance.choice((f"{target}@{device}:{inode}", f"{target}@{device}", "@", "\x1b[2J@1:1", "x" * 4000))
        if self.chance.random() < 0.1:
            return f"place: {self.plant(os.fsencode(place), b'')}"
        os.symlink(text.replace("\0", "") or "x", place)
        if self.owner != os.geteuid() and self.chance.random() < 0.5:
            os.chown(place, self.owner, self.owner, follow_symlinks=False)
        return f"place -> {text!r}"

    def damage_settings(self) -> str:
        content = settings(self.chance)
        self.config.write_bytes(content)
        return f"settings {content[:300]!r}"

    # Afterwards

    def end_clients(self) -> None:
        """End the build and those that wait, and put out what was lit."""
        for fd in self.lit:
            os.close(fd)
        self.lit.clear()
        for client in self.clients:
            with suppress(ProcessLookupError):
                os.kill(client[0], signal.SIGKILL)
        for client in self.clients:
            found = finish(*client)
            for fault in faults(found, self.client_endings):
                said = (found.err + found.out)[:TOLD]
                self.faults.append(f"client: {fault} {said!r}; so far: {self.done}")
        self.clients.clear()
        for pid in clients_of(self.world.name):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        # one that was just being started has no environment of its own yet, but the beacon
        start_of_locks = Beacons.of(self.world.name[1:], SHM.stat().st_dev).holder().start
        until(lambda: not table(start_of_locks), "the end of what the build has started")

    def mend(self) -> None:
        """Reset the pool, before or after its builds have ended, and see that it is as good as new."""
        root = os.geteuid()
        late = self.chance.random() < 0.5
        if late:
            self.end_clients()
        self.run(("reset",), {0}, root, sound=True)
        if not late:
            self.end_clients()
            if self.struck:
                self.run(("reset",), {0}, root)
        if os.path.lexists(self.world.folder / "drained"):  # that somebody wants it so is no damage
            self.run(("resume",), {0}, root)
        self.run(("wrap", "-n", "x", "--", "true"), {0}, root)
        found = self.run(("status", "--json"), {0}, root)
        if found.status == 0:
            shown = json.loads(found.out)
            value = int.from_bytes((SHM / f"sem.{self.world.name[1:]}").read_bytes()[:4], sys.byteorder)
            left = (shown["holders"], shown["waiters"], shown["free"], value)
            if left != ([], [], 2, 2):
                self.faults.append(f"left: {left}; so far: {self.done}")
        if self.victim.read_bytes() != VICTIM:
            self.faults.append(f"written through a link; so far: {self.done}")

    def close(self) -> None:
        """End all, and remove every trace of the pool."""
        self.end_clients()
        ours = self.world.name[1:]
        for path in SHM.iterdir():
            if ours in path.name:
                remove(path)


def round_of(seed: int) -> Round:
    """Play one round and return it."""
    system_users.shows_all()  # before a child becomes another user
    with tempfile.TemporaryDirectory() as folder:
        played = Round(seed, Path(folder))
        try:
            played.play()
        except Exception as error:
            played.faults.append(f"{error!r}; so far: {played.done}")
        finally:
            sections.CALLED_S = CALLED_S
            played.close()
    return played


def _work(first: int, step: int, end: float, out: int) -> None:
    """Play rounds until the end; write what came of each."""
    seed = first
    while time.monotonic() < end:
        played = round_of(seed)
        os.write(out, json.dumps([seed, dict(played.told), played.faults]).encode() + b"\n")
        seed += step


def main() -> int:
    """Play rounds for some time, tell how the commands have ended and what was wrong, and return the exit status."""
    parser = ArgumentParser(prog="python -m tests.protocol.fuzz", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seed", type=int, default=0, help="of the first round")
    parser.add_argument("--seconds", type=float, default=300.0, help="0: one round")
    parser.add_argument("--jobs", type=int, default=4, help="rounds at once: most of the time they wait")
    args = parser.parse_args()
    if not args.seconds:
        played = round_of(args.seed)
        print("\n".join([*played.done, *(f"FAULT {fault}" for fault in played.faults)]))
        return int(bool(played.faults))
    end = time.monotonic() + args.seconds
    told: Counter[str] = Counter()
    rounds = 0
    with tempfile.TemporaryFile() as results:
        workers = []
        for number_of in range(args.jobs):
            pid = os.fork()
            if pid == 0:
                fd = os.open(f"/proc/self/fd/{results.fileno()}", os.O_WRONLY | os.O_APPEND)
                try:
                    _work(args.seed + number_of, args.jobs, end, fd)
                    os._exit(0)
                except BaseException:
                    traceback.print_exc()
                finally:
                    os._exit(1)
            workers.append(pid)
        wrong = sum(os.waitpid(pid, 0)[1] != 0 for pid in workers)
        results.seek(0)
        for line in results:
            seed, counts, found = json.loads(line)
            rounds += 1
            told.update(counts)
            for fault in found:
                wrong += 1
                print(f"seed {seed}: {fault}")
    print(f"{rounds} rounds, {wrong} faults")
    for ending, count in sorted(told.items()):
        print(f"{count:8} {ending}")
    return int(bool(wrong) or not rounds)


if __name__ == "__main__":
    sys.exit(main())
