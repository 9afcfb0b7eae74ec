"""A command that dies, or is refused, at one chosen system call, and what must hold afterwards.

strace(1) counts the calls of each name from the start of the process on and injects at the nth: SIGKILL before the call
happens, or an error instead of it. A first run tells which calls there are from the first touch of the pool on; what an
interpreter does before that is not ours. A call that only asks the process about itself changes nothing for others, so
to be killed there is to be killed at the next one.
"""

from __future__ import annotations

import os
import re
import select
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, NamedTuple

from ipclock.pool import place
from tests.helpers.world import HANG_S, SHM, Build, World, until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

# each slot has a file: two builds in one slot leave a mark
BUILD = 'exec 9>>"$0.$IPCLOCK_SLOT"; flock -n 9 || { echo "$IPCLOCK_LABEL" >>"$0"; exit 99; }; echo ready; '

# What may go wrong with a call in reality. Left out: errors that the kernel never gives there (ENOSPC of a read), EINTR
# of a call that does not sleep, and close(2) and munmap(2), of which nobody could make anything.
ERRORS = {
    "openat": ("EACCES", "EMFILE", "ENOSPC", "EIO"),
    "mkdirat": ("EACCES", "ENOSPC", "EIO"),
    "renameat": ("EACCES", "ENOSPC", "EIO"),
    "unlinkat": ("EACCES", "EIO"),
    "unlink": ("EACCES", "EIO"),
    "linkat": ("EACCES", "ENOSPC", "EIO"),
    "fchmod": ("EACCES", "EIO"),
    "fcntl": ("EIO",),
    "pwrite64": ("ENOSPC", "EIO", "EINTR"),
    "write": ("ENOSPC", "EIO", "EINTR"),
    "pread64": ("EIO", "EINTR"),
    "getdents64": ("EIO",),
    "newfstatat": ("EACCES", "EIO"),
    "faccessat2": ("EACCES", "EIO"),
    "wait4": ("EINTR",),
    "rt_sigtimedwait": ("EINTR",),
    "futex": ("EINTR",),
}
CALLS = (*ERRORS, "close", "read", "mmap", "munmap", "clone3", "clone", "vfork", "execve", "kill", "rt_sigprocmask")
STATUSES = (0, 2, 69, 70, 73, 75, 77, 78, 126)
_CALL = re.compile(r"([a-z0-9_]+)\(")
_LIBRARY = "|".join(re.escape(path) for path in sys.path if path)
# nobody sleeps in a FUTEX_WAKE, so it never gives EINTR; and what to make of an error where a module to import is
# looked for is the interpreter's choice (it goes on to the next place)
_NO_ERROR = re.compile(rf'futex\(\w+, FUTEX_WAKE|newfstatat\(AT_FDCWD, "(?:{_LIBRARY})')


class Point(NamedTuple):
    """The nth call of a name, and the error to be given instead of it; "" stands for SIGKILL before it.

    `fails`: whether there are errors that it could give in reality.
    """

    call: str
    nth: int
    error: str = ""
    fails: bool = True

    def __str__(self) -> str:
        return f"{self.call}-{self.nth}{'-' * bool(self.error)}{self.error}"


class Outcome(NamedTuple):
    """What came of one run: `wrong` is empty if all promises held; `proceed_s` is how long the others took to go on."""

    died: bool
    wrong: list[str]
    proceed_s: float


class Scene:
    """A pool, others in it, and a victim under strace."""

    def __init__(self, world: World, folder: Path, point: Point | None) -> None:
        self.world = world
        self.mark = folder / "mark"
        self.log = folder / "strace"
        self.point = point
        self.capacity = 1

    def wrap(self, label: str, *, stays: bool = False) -> list[str]:
        build = ["sh", "-c", BUILD + ("cat" if stays else ":"), str(self.mark)]
        return ["wrap", "-w", "20", label, "--", *build]

    def start(self, label: str, *, stays: bool = False) -> Build:
        return self.world.popen(*self.wrap(label, stays=stays))

    def victim(self, *arguments: str, before: tuple[str, ...] = ()) -> Build:
        """Start the victim; *before* is a command that runs the one behind it, and ends as it ends."""
        inject = []
        if self.point:
            call, nth, error, _ = self.point
            how = f"error={error}" if error else "signal=SIGKILL"
            inject = ["-e", f"inject={call}:{how}:when={nth}"]
        trace = ["-e", f"trace={','.join(f'?{call}' for call in CALLS)}", "-o", str(self.log), *inject]
        return self.world.spawn(*before, "strace", "-qq", *trace, sys.executable, "-m", "ipclock", *arguments)

    def shell(self, script: str) -> tuple[str, ...]:
        """Return a command that runs a script and then, in its place, the one behind it."""
        ipclock = f'ipclock() {{ {sys.executable} -m ipclock "$@"; }}; '
        return ("sh", "-c", f'{ipclock}{script}; exec "$@"', "sh")

    def points(self) -> list[Point]:
        """Return the calls of the run that has been, from the first touch of the pool on."""
        counts: dict[str, int] = {}
        found = []
        ours = False
        for line in self.log.read_text(errors="replace").splitlines():
            if matched := _CALL.match(line):
                call = matched[1]
                counts[call] = counts.get(call, 0) + 1
                ours = ours or self.world.folder.name in line
                if ours:
                    found.append(Point(call, counts[call], fails=not _NO_ERROR.match(line)))
        return found

    def hit(self) -> str:
        """Return the call that got the error. In a scene with others the nth one is not always the same."""
        lines = self.log.read_text(errors="replace").splitlines()
        return next((line for line in lines if line.endswith("(INJECTED)")), "")


# The scenes: each plays its story and returns the victim, which has ended, and those who must go on all the same.


def alone(scene: Scene) -> tuple[Build, list[Build]]:
    """Make the pool, build, give the slot back."""
    return ended(scene.victim(*scene.wrap("victim"))), []


def beside_another(scene: Scene) -> tuple[Build, list[Build]]:
    """The same with N=2 and another build in the first slot."""
    scene.capacity = 2
    scene.world.run("init", "--max-parallel-builds", "2")
    other = scene.start("other", stays=True)
    other.line()
    victim = ended(scene.victim(*scene.wrap("victim")))
    close(other)
    return victim, [other]


def behind_a_holder(scene: Scene) -> tuple[Build, list[Build]]:
    """Wait at the gate, with one behind, then build and give the slot to that one."""
    holder = scene.start("holder", stays=True)
    holder.line()
    victim = scene.victim(*scene.wrap("victim"))
    until(lambda: scene.world.records("gate") or victim.process.poll() is not None, "the victim at the gate")
    waiter = scene.start("waiter")
    until(lambda: scene.world.waiting() >= 1 + (victim.process.poll() is None) - dead(scene), "the waiter in line")
    close(holder)
    return ended(victim), [holder, waiter]


def in_line(scene: Scene) -> tuple[Build, list[Build]]:
    """Wait behind one who stands at the gate."""
    holder = scene.start("holder", stays=True)
    holder.line()
    first = scene.start("first")
    until(lambda: scene.world.records("gate"), "the first waiter at the gate")
    victim = scene.victim(*scene.wrap("victim"))
    until(lambda: scene.world.turns() or victim.process.poll() is not None, "the turn of the victim")
    close(holder)
    return ended(victim), [holder, first]


def acquiring(scene: Scene) -> tuple[Build, list[Build]]:
    """Take a slot for a process that ends soon after."""
    script = subprocess.Popen(["sleep", "1000"])
    victim = ended(scene.victim("acquire", "--pid", str(script.pid), "victim"))
    script.kill()
    script.wait()
    return victim, []


def releasing(scene: Scene) -> tuple[Build, list[Build]]:
    """Give back what a script has acquired, while one waits for it; what fails is done by the end of the script."""
    victim = scene.victim("release", before=scene.shell("ipclock acquire --pid $$ here; read -r _"))
    ticket = victim.line()
    waiter = scene.start("waiter")
    until(lambda: scene.world.records("gate"), "the waiter at the gate")
    victim.tell(ticket)
    return ended(victim), [waiter]


def resetting(scene: Scene) -> tuple[Build, list[Build]]:
    """Take the slot of one that goes on; what fails is done again."""
    script = subprocess.Popen(["sleep", "1000"])
    ticket = scene.world.run("acquire", "--pid", str(script.pid), "here").stdout.strip()
    waiter = scene.start("waiter")
    until(lambda: scene.world.records("gate"), "the waiter at the gate")
    victim = ended(scene.victim("reset", ticket))
    scene.world.run("reset", ticket)
    script.kill()
    script.wait()
    return victim, [waiter]


def inside(scene: Scene) -> tuple[Build, list[Build]]:
    """Build inside of another build, whose supervisor is killed when this one runs; one more waits for both to end."""
    outer = (sys.executable, "-m", "ipclock", "wrap", "-q", "outer", "--", *scene.shell("unset IPCLOCK_TICKET"))
    victim = scene.victim(*scene.wrap("victim", stays=True), before=outer)
    until(lambda: ready(victim) or victim.process.poll() is not None, "the nested build, or its end")
    waiter = scene.start("waiter")
    until(lambda: scene.world.records("gate") or waiter.process.poll() is not None, "the waiter at the gate")
    close(victim)
    return ended(victim), [waiter]


def elsewhere(scene: Scene) -> tuple[Build, list[Build]]:
    """Make the pool in a LOCK_DIR, and build; another one has no LOCK_DIR."""
    move(scene)
    victim = ended(scene.victim(*scene.wrap("victim")))
    del scene.world.env["LOCK_DIR"]
    return victim, [scene.start("other")]


def after_a_removal(scene: Scene) -> tuple[Build, list[Build]]:
    """Make the pool anew after its place was removed under a build, which has the folder in a LOCK_DIR open."""
    move(scene)
    holder = scene.start("holder", stays=True)
    holder.line()
    (SHM / scene.world.folder.name).unlink()
    del scene.world.env["LOCK_DIR"]
    victim = scene.victim(*scene.wrap("victim"))
    waiter = scene.start("waiter")
    until(lambda: follow(scene).waiting() or victim.process.poll() is not None, "somebody in line")
    close(holder)
    ended(victim)
    for other in (holder, waiter):
        other.wait()
    follow(scene)
    return victim, [holder, waiter]


def follow(scene: Scene) -> World:
    """Return the world with the folder that is the pool's now: the victim's, or again the holder's."""
    if found := place.look_up(scene.world.name[1:]):
        scene.world.folder = Path(found.path)
    return scene.world


def move(scene: Scene) -> None:
    """Let the folder of the pool, which is not made yet, lie in a LOCK_DIR."""
    scene.world.env["LOCK_DIR"] = str(scene.mark.parent / "locks")
    scene.world.folder = scene.mark.parent / "locks" / scene.world.folder.name


def ready(build: Build) -> bool:
    """Return whether the build has said that it runs."""
    assert build.process.stdout
    return bool(select.select([build.process.stdout], [], [], 0)[0])


SCENES = (
    *(alone, beside_another, behind_a_holder, in_line, acquiring, releasing, resetting),
    *(inside, elsewhere, after_a_removal),
)


def ended(build: Build) -> Build:
    """Wait for the end of a client whose build ends by itself."""
    build.wait()
    return build


def close(build: Build) -> None:
    """Let a build end that stays until its stdin ends."""
    assert build.process.stdin
    build.process.stdin.close()


def dead(scene: Scene) -> int:
    """Return whether a dead victim's record may still be among those that wait."""
    return 0 if scene.point is None else 1


def play(scene_of: Callable[[Scene], tuple[Build, list[Build]]], point: Point | None) -> tuple[Outcome, list[Point]]:
    """Play a scene, with the victim hit at the point, and return what came of it, and the points that it passed."""
    world = World(f"ipclock-crash-{os.getpid()}")
    strangers = temporary()
    with TemporaryDirectory() as folder:
        scene = Scene(world, Path(folder), point)
        try:
            victim, others = scene_of(scene)
            left_at_once = temporary() - strangers
            begun = time.monotonic()
            statuses = [other.wait() for other in others]
            proceed_s = time.monotonic() - begun
            following = world.run("wrap", "-q", "-w", "20", "next", "--", "true").returncode
            left = world.leftovers()
            drafts = left.pop("new", [])
            facts = {
                "an overlap": scene.mark.exists(),
                "others end with": [status for status in statuses if status],
                "the next one ends with": following,
                "value": world.value() - scene.capacity,
                "left over": left or len(drafts) > 1,
                "victim": "" if _NO_ERROR.match(scene.hit()) else _odd(victim, point),
            }
            wrong = [f"{name}: {fact}" for name, fact in facts.items() if fact]
            # other programs make such files too, for a moment
            if more := temporary() & left_at_once:
                wrong.append(f"temporary files: {more}")
            for path in more:
                path.unlink()
            died = victim.wait() == -signal.SIGKILL
            return Outcome(died, wrong, proceed_s), scene.points()
        finally:
            world.close()


def temporary() -> set[Path]:
    """Return the files that sem_open(3) makes before it links them to their names."""
    return {path for path in SHM.iterdir() if re.fullmatch(r"(sem\.)?[A-Za-z0-9]{6}", path.name)}


def _odd(victim: Build, point: Point | None) -> str:
    """Return what is wrong with how the victim ended; "" if it died as planned or told a person what failed."""
    status = victim.wait()
    lines = [line for line in victim.errors().splitlines() if not line.startswith(("✓", "⏳"))]
    if point and not point.error:
        return "" if status in (0, -signal.SIGKILL) else f"ends with {status}: {lines}"
    text = "\n".join(lines)
    if status not in STATUSES or "Traceback" in text or "internal error" in text:
        return f"ends with {status}: {text[-300:]}"
    told = [line for line in lines if not line.startswith("   ")]
    return "" if len(told) <= 1 else f"says {told}"


def faults(points: list[Point]) -> Iterator[Point]:
    """Yield every error that each of the calls may give."""
    for point in points:
        for error in ERRORS.get(point.call, ()) if point.fails else ():
            yield point._replace(error=error)


def problem() -> str:
    """Return why strace cannot be used here; "" if it can."""
    if shutil.which("strace") is None:
        return "strace is not installed"
    done = subprocess.run(["strace", "-qq", "-o", os.devnull, "true"], capture_output=True, text=True, timeout=HANG_S)
    return done.stderr.strip() if done.returncode else ""
