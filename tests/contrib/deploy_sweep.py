"""The deploy scripts killed at every command: `python -m tests.contrib.deploy_sweep [--scene NAME] [--signal KILL]`.

BASH_ENV lets bash read a file before a script: it sets a DEBUG trap, by which the script sends itself a signal before
its nth command, or while the program that this command runs is at work. So the scripts need no hooks. Afterwards
`current` leads to a whole release, the next roll-back and the next deploy do what they say, and nothing is left over.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, NamedTuple

from tests.helpers.world import World, until

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

ORACLE = Path(__file__).parents[2] / "contrib/oracle"
DEPLOY, PROMOTE, ROLL_BACK = "deploy-staging.sh", "promote-production.sh", "rollback-production.sh"
SIGNALS = ("KILL", "TERM", "HUP")
PROGRAMS = ("cp", "date", "flock", "ln", "ls", "mkdir", "mv", "readlink", "rm", "rmdir", "sort", "tar")

# $1 of at_point is the command that comes next. Subshells count in the same file, some beside the script: so a command
# looks for its own line.
HARNESS = r"""
unset BASH_ENV
at_point() {
    local command=${1//$'\n'/ } passed
    points=$((${points-0} + 1))
    unset POINT_WITHIN
    # shellcheck disable=SC2053  # a pattern
    [[ $command == $POINT_AT ]] || return 0
    command="$BASHPID.$points $command"
    printf '%s\n' "$command" >>"$POINT_LOG"
    mapfile -t -O 1 passed <"$POINT_LOG"
    [[ ${passed[POINT_NTH]-} == "$command" ]] || return 0
    case $POINT_HOW in
    before) kill -s "$POINT_SIGNAL" "$$" ;;
    during) export POINT_WITHIN="$POINT_SIGNAL $$" ;;
    esac
}
set -o functrace
trap 'at_point "$BASH_COMMAND"' DEBUG
"""
SHIM = """#!/bin/sh
if [ -n "${{POINT_WITHIN-}}" ]; then
    kill -s $POINT_WITHIN
    unset POINT_WITHIN
fi
exec {program} "$@"
"""


class Point(NamedTuple):
    """The nth command that matches a shell pattern, and the signal that comes before it or during it."""

    nth: int = 0
    signal: str = "KILL"
    how: str = "before"
    pattern: str = "*"

    def __str__(self) -> str:
        return f"{self.signal} {self.how} {self.nth}"

    def env(self, folder: Path) -> dict[str, str]:
        """Return what lets a script come to the point; *folder* is for this one run."""
        folder.mkdir(exist_ok=True)
        (folder / "bash-env").write_text(HARNESS)
        (folder / "passed").write_text("")
        texts = {"AT": self.pattern, "NTH": str(self.nth), "SIGNAL": self.signal, "HOW": self.how}
        return {f"POINT_{key}": text for key, text in texts.items()} | {
            "POINT_LOG": str(folder / "passed"),
            "BASH_ENV": str(folder / "bash-env"),
        }


def provide(folder: Path) -> None:
    """Write the programs through which a script is signalled while one of them is at work."""
    folder.mkdir(exist_ok=True)
    for name in PROGRAMS:
        shim = folder / name
        shim.write_text(SHIM.format(program=shutil.which(name)))
        shim.chmod(0o755)


def bring_ipclock(world: World, folder: Path) -> None:
    """Put the `ipclock` of this checkout first in PATH, as an installed one would be."""
    command = folder / "bin/ipclock"
    command.parent.mkdir()
    command.write_text(f'#!/bin/sh\nexec {sys.executable} -m ipclock "$@"\n')
    command.chmod(0o755)
    world.env["PATH"] = f"{command.parent}:{os.environ['PATH']}"
    world.env["PYTHONPATH"] = str(Path(__file__).parents[2])


def pass_second(tag: str) -> None:
    """Wait until the clock has passed the second in which a release was made."""
    until(lambda: time.strftime("%Y%m%dT%H%M%SZ", time.gmtime()) > tag.partition(".")[0], "the next second")


class Scene(NamedTuple):
    """A script, the environment that it changes, and what the releases there say: the current, previous and new one."""

    name: str
    script: str
    place: str
    live: str
    before: str
    new: str

    @property
    def starts(self) -> tuple[tuple[str, str], ...]:
        """Which texts were deployed by which scripts before."""
        if self.live:
            return ((DEPLOY, "first"), (PROMOTE, ""), (DEPLOY, "second"), (PROMOTE, ""), (DEPLOY, "third"))
        return ((DEPLOY, "third"),) if self.place == "production" else ()


SCENES = {
    scene.name: scene
    for scene in (
        Scene("deploy", DEPLOY, "staging", "third", "second", "fourth"),
        Scene("promote", PROMOTE, "production", "second", "first", "third"),
        Scene("roll_back", ROLL_BACK, "production", "second", "first", "first"),
        Scene("first_deploy", DEPLOY, "staging", "", "", "fourth"),
        Scene("first_promote", PROMOTE, "production", "", "", "third"),
    )
}


class Place:
    """The folder of an environment, as one finds it."""

    def __init__(self, project: Path, name: str) -> None:
        self.folder = project / ".deploy" / name

    def tag(self, link: str) -> str:
        """Return the release that a link names, "" if there is no such link."""
        try:
            return (self.folder / link).readlink().name
        except FileNotFoundError:
            return ""

    def text(self, release: Path | str) -> str:
        """Return what the artefact of a release says; "broken" if that is not to be had."""
        try:
            with tarfile.open(self.folder / release / "artefact.tar.gz") as archive:
                member = archive.extractfile("./text")
                assert member
                return member.read().decode()
        except (OSError, tarfile.TarError, KeyError, EOFError):
            return "broken"

    def print(self) -> tuple[object, ...]:
        """Return all that is there, with the times of releases replaced by numbers."""
        paths = sorted(self.folder.rglob("*"))
        releases = self.folder / "releases"
        tags = sorted({path.name.lstrip(".") for path in paths if path.parent == releases}, key=len, reverse=True)
        found = []
        for path in paths:
            what = str(path.readlink()) if path.is_symlink() else self.text(path.parent) if path.is_file() else ""
            entry = f"{path.relative_to(self.folder)} {what}"
            for number, tag in enumerate(tags):
                entry = entry.replace(tag, f"<{number}>")
            found.append(entry)
        return tuple(found)


class Sweep:
    """A pool, the scripts, and what was found out so far."""

    def __init__(self, world: World, folder: Path, scripts: Path = ORACLE) -> None:
        self.world = world
        self.folder = folder
        self.scripts = scripts
        self.known: dict[object, list[str]] = {}
        provide(folder / "programs")
        world.env["PATH"] = f"{folder / 'programs'}:{world.env['PATH']}"
        world.env |= {"KEEP_RELEASES": "1", "BUILD_TIMEOUT": "15"}

    def run(self, script: str, project: Path, point: Point | None = None) -> subprocess.CompletedProcess[str]:
        """Run a script, and wait for all that it has started."""
        env = self.world.env | (point.env(self.folder / "point") if point else {})
        return subprocess.run(
            [str(self.scripts / script), str(project)],
            env=env,
            cwd="/",
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def start(self, scene: Scene) -> Path:
        """Return a project in the state in which the scene begins."""
        template = self.folder / f"from-{len(scene.starts)}"
        if not template.exists():
            template.mkdir()
            for script, text in scene.starts:
                if text:
                    (template / "text").write_text(text)
                done = self.run(script, template)
                assert done.returncode == 0, done.stderr
            for link in template.rglob("current"):
                pass_second(link.readlink().name)  # or the first run would pass more commands than the next ones
        project = self.copy(template, "project")
        (project / "text").write_text(scene.new if scene.place == "staging" else "third")
        return project

    def copy(self, source: Path, name: str) -> Path:
        """Return a copy of a project."""
        target = self.folder / name
        shutil.rmtree(target, ignore_errors=True)
        return shutil.copytree(source, target, symlinks=True)

    def points(self, scene: Scene, signals: Sequence[str], programs: Sequence[str] = ()) -> Iterator[Point]:
        """Run a scene undisturbed; yield its points, or those at *programs* only."""
        done = self.run(scene.script, self.start(scene), Point())
        assert done.returncode == 0, done.stderr
        for nth, command in enumerate((self.folder / "point/passed").read_text().splitlines(), 1):
            word = command.split()[1]
            for name in signals:
                if word in programs or not programs:
                    yield Point(nth, name)
                if word in PROGRAMS:
                    yield Point(nth, name, "during")

    def play(self, scene: Scene, point: Point) -> tuple[bool, list[str]]:
        """Return whether the script died at the point, and what is wrong afterwards."""
        project = self.start(scene)
        done = self.run(scene.script, project, point)
        number = signal.Signals[f"SIG{point.signal}"]
        wrong = [] if done.returncode in (0, -number) else [f"ends with {done.returncode}: {done.stderr}"]
        following = self.world.run("wrap", "-q", "-w", "15", "next", "--", "true")
        value, left = self.world.settled()
        left.pop("new", None)  # a draft, which anybody sweeps away after a minute
        if (following.returncode, value, left) != (0, 1, {}):
            wrong.append(f"slots: {following.returncode}, {value}, {left}")
        state = (scene, Place(project, scene.place).print())
        if state not in self.known:
            self.known[state] = list(self.aftermath(scene, project))
        return done.returncode == -number, wrong + self.known[state]

    def aftermath(self, scene: Scene, project: Path) -> Iterator[str]:
        """Run a roll-back, and beside it a deploy and then a roll-back; tell what is wrong."""
        place = Place(project, scene.place)
        live = place.tag("current")
        text = place.text("current") if live else ""
        if text not in (scene.live, scene.new):
            yield f"current is {text}"
        before = scene.before if text == scene.live else scene.live
        if scene.place == "production":
            yield from self.roll_back(self.copy(project, "beside"), before, "a roll-back")
        (project / "text").write_text("fifth")
        script, new = (DEPLOY, "fifth") if scene.place == "staging" else (PROMOTE, "third")
        yield from self.deployed(self.run(script, project), place, new, live)
        if scene.place == "production":
            yield from self.roll_back(project, text, "a roll-back of the next deploy")
        kept = {place.tag("current"), place.tag("previous")} - {""}
        releases = {path.name for path in (place.folder / "releases").iterdir()}
        beside = {path.name for path in place.folder.iterdir()} - {"current", "previous", "releases"}
        if strange := sorted(name for name in releases if place.text(f"releases/{name}") == "broken"):
            yield f"left over: {len(strange)} releases that are not whole"
        if beside:
            yield f"left over: {len(beside)} files"
        if releases - kept - set(strange):
            yield "more releases than are to be kept"

    def deployed(self, done: subprocess.CompletedProcess[str], place: Place, text: str, before: str) -> Iterator[str]:
        """Tell what is wrong after a deploy."""
        said = done.stderr.splitlines()[-1].partition(" (")[0] if done.stderr else ""
        truth = f"{place.folder.name}: {place.tag('current')}"
        if (done.returncode, said, place.text("current")) != (0, truth, text):
            yield f"the next deploy ends with {done.returncode} and says {said!r}; current is {place.text('current')}"
        elif place.tag("previous") != before:
            yield "the release before the next deploy is forgotten"

    def roll_back(self, project: Path, before: str, what: str) -> Iterator[str]:
        """Roll back, and tell what is wrong afterwards; *before* is the text of the release that was live before."""
        place = Place(project, "production")
        live = place.tag("current")
        done = self.run(ROLL_BACK, project)
        said = done.stderr.splitlines()[-1]
        if before:
            truth = (0, f"production: {place.tag('current')}", before)
            if (done.returncode, said, place.text("current")) != truth or place.tag("previous") != live:
                yield f"{what} ends with {done.returncode}; current is {place.text('current')} instead of {before}"
        elif done.returncode == 0 or "there is no" not in said or place.tag("current") != live:
            yield f"{what} to nothing ends with {done.returncode}"


def main() -> int:
    """Play the scenes at their points, tell what broke and a table, and return 1 if anything did."""
    parser = argparse.ArgumentParser(prog="python -m tests.contrib.deploy_sweep", description=__doc__)
    parser.add_argument("--scene", choices=list(SCENES))
    parser.add_argument("--signal", choices=SIGNALS)
    parser.add_argument("--every", type=int, default=1, metavar="N", help="only every Nth point")
    parser.add_argument(
        "--scripts", type=Path, default=ORACLE, help="the folder of the scripts, if not of this checkout"
    )
    args = parser.parse_args()
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # nohup(1) has the scripts ignore it
    broken = 0
    rows = []
    for scene in SCENES.values():
        if args.scene not in (None, scene.name):
            continue
        world = World(f"ipclock-deploy-{os.getpid()}")
        begun = time.monotonic()
        tried, died, bad = Counter[str](), Counter[str](), Counter[str]()
        with TemporaryDirectory() as folder:
            bring_ipclock(world, Path(folder))
            sweep = Sweep(world, Path(folder), args.scripts)
            try:
                for point in list(sweep.points(scene, (args.signal,) if args.signal else SIGNALS))[:: args.every]:
                    hit, wrong = sweep.play(scene, point)
                    tried[point.signal] += 1
                    died[point.signal] += hit
                    bad[point.signal] += bool(wrong)
                    if wrong:
                        print(f"{scene.name} {point}: {'; '.join(wrong)}", flush=True)
            finally:
                world.close()
        rows += [f"{scene.name:14} {name:5} {tried[name]:6} {died[name]:6} {bad[name]:6}" for name in tried]
        broken += bad.total()
        print(f"{scene.name}: {time.monotonic() - begun:.0f} s", flush=True)
    print(f"{'scene':14} {'':5} {'points':>6} {'died':>6} {'wrong':>6}", *rows, sep="\n")
    return int(broken > 0)


if __name__ == "__main__":
    sys.exit(main())
