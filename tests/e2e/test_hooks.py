"""Hooks: what they are told, that a build never feels them, and whose commands root does not run."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from ipclock.config.settings import load_settings
from ipclock.errors import UnsafeHook
from ipclock.run.hooks import Hooks
from tests.helpers.crash_at import USER, in_child, needs_root, unshared
from tests.helpers.machine import ROOT, in_a_world_where
from tests.helpers.world import HANG_S, let_everybody_in, remove_pool, script_of_nothing, until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.helpers.world import World

EVENTS = ("wait", "acquire", "release", "timeout")
CHAT = ROOT / "contrib/hooks/notify-chat.sh"
# says in a file of its own what it was given; `mv` last: who sees the file sees all of it
NOTE = """#!/bin/sh
to=$1/$IPCLOCK_EVENT.${IPCLOCK_TICKET-none}
{
    cat
    read -r pid _ _ parent _ session terminal _ <"/proc/$$/stat"
    echo "$pid $parent $session $terminal"
    grep -E '^Sig(Blk|Ign)' "/proc/$$/status" | tr '\\n' ' '
    echo
    env | grep ^IPCLOCK_
} >"$to.new"
mv "$to.new" "$to"
"""


class Notes:
    """A hook script that notes what it is given in a folder, and what it noted."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "notes"
        self.folder.mkdir()
        self.script = folder / "note.sh"
        self.script.write_text(NOTE)
        self.script.chmod(0o755)
        self.command = f"{self.script} {self.folder}"

    def names(self) -> set[str]:
        """Return which events were noted, as EVENT.TICKET."""
        return {path.name for path in self.folder.iterdir() if not path.name.endswith(".new")}

    def of(self, name: str) -> dict[str, Any]:
        """Wait for the note of EVENT.TICKET and return it."""
        path = self.folder / name
        until(path.exists, f"the note {name}; there are {self.names()}")
        said, family, signals, *variables = path.read_text().splitlines()
        pid, parent, session, terminal = family.split()
        environment = dict(line.split("=", 1) for line in variables)
        return {
            "said": json.loads(said),
            "environment": environment,
            "signals": signals.split(),
            "pid": int(pid),
            "parent": int(parent),
            "session": int(session),
            "terminal": terminal,
        }


@pytest.fixture
def notes(world: World, tmp_path: Path) -> Notes:
    """Every event of the world is noted."""
    made = Notes(tmp_path)
    world.env |= {f"ON_{event.upper()}": made.command for event in EVENTS}
    return made


@pytest.fixture
def hanging(world: World, tmp_path: Path) -> Iterator[Callable[[str], int]]:
    """Hooks that hang until the test has ended; waits for the one of an event and returns its PID."""

    def pid_of(event: str) -> int:
        path = tmp_path / event
        until(path.exists, f"the hook of {event}")
        return int(path.read_text())

    pipe = tmp_path / "end"
    os.mkfifo(pipe)
    held_open = os.open(pipe, os.O_RDWR)
    script = f'echo $$ >{tmp_path}/new.$$; mv {tmp_path}/new.$$ {tmp_path}/"$IPCLOCK_EVENT"; exec cat {pipe}'
    world.env |= {f"ON_{event.upper()}": script for event in EVENTS}
    yield pid_of
    pipe.unlink()  # first: a hook that starts only now would wait for a writer for ever
    os.close(held_open)


def facts(note: dict[str, Any]) -> dict[str, Any]:
    """Return what a hook was told, less the spans of time."""
    return {key: value for key, value in note["said"].items() if not key.endswith("_s")}


# What a hook is told


def test_a_build_that_waits_and_runs_is_told_of_three_times(world: World, notes: Notes) -> None:
    holder = world.wrap("holder").started()
    build = world.wrap('스테이징 "배포"')
    waited = notes.of("wait.2")
    holder.end()
    build.started()
    acquired = notes.of("acquire.2")

    build.tell("exit 7")

    released = notes.of("release.2")
    common = {"name": world.name, "label": '스테이징 "배포"', "ticket": 2, "pid": build.pid}
    assert [facts(note) for note in (waited, acquired, released)] == [
        {"event": "wait", **common},
        {"event": "acquire", "slot": 1, **common},
        {"event": "release", "slot": 1, "outcome": "failed", "code": 7, **common},
    ]
    spans = [sorted(key for key in note["said"] if key.endswith("_s")) for note in (waited, acquired, released)]
    assert spans == [["waited_s"], ["waited_s"], ["held_s", "waited_s"]]
    assert (build.wait(), notes.names()) == (7, {"acquire.1", "release.1", "wait.2", "acquire.2", "release.2"})


def test_stdin_says_the_same_as_the_environment(world: World, notes: Notes) -> None:
    # those of a build around this one are none of the hook's
    world.run("wrap", "a", "--", "true", env={"IPCLOCK_SLOT": "9", "IPCLOCK_OUTCOME": "done"})

    for name in ("acquire.1", "release.1"):
        note = notes.of(name)
        assert note["environment"] == {f"IPCLOCK_{key.upper()}": str(value) for key, value in note["said"].items()}


def test_a_build_that_gets_its_slot_at_once_has_not_waited(world: World, notes: Notes) -> None:
    world.run("wrap", "a", "--", "true")

    notes.of("release.1")
    assert notes.names() == {"acquire.1", "release.1"}


@pytest.mark.parametrize(("options", "ticket", "outcome"), [(("-w", "1"), "2", "timeout"), (("-n",), "none", "busy")])
def test_a_wait_that_ends_with_75_is_told_of(
    options: tuple[str, ...], ticket: str, outcome: str, world: World, notes: Notes
) -> None:
    holder = world.wrap("holder").started()

    late = world.run("wrap", *options, "-E", "3", "late", "--", "true")

    note = notes.of(f"timeout.{ticket}")
    assert (late.returncode, note["said"]["outcome"], note["said"]["label"], holder.end()) == (3, outcome, "late", 0)
    assert f"acquire.{ticket}" not in notes.names()


@pytest.mark.parametrize(
    ("command", "outcome", "code"),
    [("kill -9 $$", "signal", 9), ("exit 0", "done", 0), ("exec /proc/none", "failed", 127)],
)
def test_the_end_of_a_build_is_told_as_the_history_has_it(
    command: str, outcome: str, code: int, world: World, notes: Notes
) -> None:
    world.run("wrap", "a", "--", "sh", "-c", command)

    said = notes.of("release.1")["said"]
    assert (said["outcome"], said["code"]) == (outcome, code)


def test_a_build_that_cannot_be_started_has_given_its_slot_back(world: World, notes: Notes, tmp_path: Path) -> None:
    result = world.run("wrap", "a", "--", str(script_of_nothing(tmp_path)))

    said = notes.of("release.1")["said"]
    assert (result.returncode, said["outcome"], said["code"], world.settled()) == (127, "failed", 127, (1, {}))


def test_acquire_and_release_tell_of_the_script(world: World, notes: Notes) -> None:
    ipclock = f"{sys.executable} -m ipclock"

    shell = world.spawn("bash", "-c", f"t=$({ipclock} acquire a); {ipclock} release $t; {ipclock} release -q $t; true")

    acquired, released = notes.of("acquire.1"), notes.of("release.1")
    common = {"name": world.name, "label": "a", "ticket": 1, "slot": 1, "pid": shell.pid}
    assert (shell.wait(), facts(acquired), facts(released), notes.names()) == (
        0,
        {"event": "acquire", **common},
        {"event": "release", **common},
        {"acquire.1", "release.1"},
    )
    assert released["said"]["waited_s"] == acquired["said"]["waited_s"]


def test_the_slot_is_free_before_its_release_is_told(world: World, tmp_path: Path) -> None:
    seen = tmp_path / "seen"
    hook = f"{sys.executable} -m ipclock status --json >{seen}.new; mv {seen}.new {seen}"

    world.run("wrap", "a", "--", "true", env={"ON_RELEASE": hook})

    until(seen.exists, "the hook")
    assert json.loads(seen.read_text())["free"] == 1


def test_a_build_that_a_hook_starts_runs_no_hooks(world: World, notes: Notes, tmp_path: Path) -> None:
    done = tmp_path / "done"
    inner = f"{notes.command}; {sys.executable} -m ipclock wrap -q again -- true; touch {done}"

    world.run("wrap", "a", "--", "true", env={"ON_RELEASE": inner})

    until(done.exists, "the end of the build that the hook started")
    assert notes.names() == {"acquire.1", "release.1"}


@pytest.mark.parametrize("key", ["ON_ACQUIRE", "ON_RELEASE"])
@pytest.mark.parametrize(("option", "shown"), [("-v", True), ("--supersede", False)])
def test_what_a_hook_prints_is_shown_where_it_was_asked_for(key: str, option: str, shown: bool, world: World) -> None:
    result = world.run("wrap", option, "a", "--", "true", env={key: "echo out; echo err >&2"})

    lines = result.stderr.splitlines()
    assert (result.stdout, "out" in lines, "err" in lines) == ("", shown, shown)


# What a build feels of it


def test_hooks_that_hang_delay_neither_start_nor_end(world: World, hanging: Callable[[str], int]) -> None:
    holder = world.wrap("holder").started()
    build = world.wrap("build")
    pids = [hanging("acquire"), hanging("wait")]
    holder.end()

    ended = build.started().end()

    pids.append(hanging("release"))
    assert (ended, [psutil.pid_exists(pid) for pid in pids], world.settled()) == (0, [True] * 3, (1, {}))


def test_a_hook_that_hangs_does_not_keep_the_slot_of_a_killed_supervisor(
    world: World, hanging: Callable[[str], int]
) -> None:
    build = world.wrap("build").started()
    hook = hanging("acquire")
    build.signal(signal.SIGKILL)
    build.wait()
    orphan = world.status()["holders"][0]

    os.kill(build.command_pid, signal.SIGKILL)
    after = world.run("wrap", "-w", "20", "next", "--", "true", env={"ON_ACQUIRE": "off"})

    keepers = [process["pid"] for process in orphan["processes"]]
    assert (keepers, after.returncode, psutil.pid_exists(hook), world.settled()) == (
        [build.command_pid],
        0,
        True,
        (1, {}),
    )


def test_a_hook_that_hangs_does_not_keep_the_slot_of_a_killed_script(
    world: World, hanging: Callable[[str], int]
) -> None:
    world.ask("init")
    ipclock = f"{sys.executable} -m ipclock"
    shell = world.spawn("bash", "-c", f"exec 8>{world.folder}/new/mine; {ipclock} acquire --fd 8 a; read -r _")
    ticket, hook = shell.line(), hanging("acquire")

    shell.signal(signal.SIGKILL)
    shell.wait()
    after = world.run("wrap", "-n", "next", "--", "true", env={"ON_ACQUIRE": "off"})

    assert (ticket, after.returncode, psutil.pid_exists(hook)) == ("1", 0, True)


def test_a_hook_that_hangs_keeps_no_slot_of_another_pool_around_the_build(
    world: World, hanging: Callable[[str], int], request: pytest.FixtureRequest
) -> None:
    inner = f"{world.name}-inner"
    request.addfinalizer(lambda: remove_pool(inner[1:]))
    hooks = {key: world.env.pop(f"ON_{key.upper()}") for key in EVENTS}
    wrap = f"SEMAPHORE_NAME={inner} {sys.executable} -m ipclock wrap -q inner -- true"
    build = world.popen("wrap", "-q", "outer", "--", "sh", "-c", f"ON_RELEASE='{hooks['release']}' {wrap}; read -r _")
    hook = hanging("release")

    build.signal(signal.SIGKILL)  # its build reads the end of its stdin, and ends
    build.process.communicate()
    after = world.run("wrap", "-w", "20", "next", "--", "true")

    assert (after.returncode, psutil.pid_exists(hook), world.settled()) == (0, True, (1, {}))


def test_a_hook_has_no_descriptor_of_ours_nor_of_who_called_us(world: World, tmp_path: Path) -> None:
    # the shell sees one more in the folder, by which it reads it
    hook = 'readlink /proc/self/fd/* >"{0}/$IPCLOCK_EVENT.new"; mv "{0}/$IPCLOCK_EVENT.new" "{0}/$IPCLOCK_EVENT"'
    world.env |= dict.fromkeys(("ON_ACQUIRE", "ON_RELEASE"), hook.replace("{0}", str(tmp_path)))
    with open(os.devnull) as inherited:
        world.popen("wrap", "a", "--", "true", pass_fds=[inherited.fileno()]).wait()

    for event in ("acquire", "release"):
        until((tmp_path / event).exists, f"the hook of {event}")
        assert (tmp_path / event).read_text().splitlines() == [
            "/memfd:ipclock-hook (deleted)",
            f"{tmp_path}/{event}.new",
            "/dev/null",
        ]


@pytest.mark.parametrize("locale", [{}, {"LC_ALL": "C"}, {"LANG": "C"}, {"LC_ALL": "ko_KR.UTF-8"}])
def test_a_hook_has_the_callers_environment_and_what_it_is_told(
    locale: dict[str, str], world: World, tmp_path: Path
) -> None:
    hook = f'env -0 >"{tmp_path}/$IPCLOCK_EVENT.new"; mv "{tmp_path}/$IPCLOCK_EVENT.new" "{tmp_path}/$IPCLOCK_EVENT"'
    given = {key: value for key, value in world.env.items() if key not in ("LC_ALL", "LC_CTYPE", "LANG")}
    given |= {"PWD": str(tmp_path), "ODD": "a\nb", "ON_ACQUIRE": hook, "ON_RELEASE": hook} | locale
    wrap = [sys.executable, "-m", "ipclock", "wrap", "-q", "a", "--", "true"]

    subprocess.run(wrap, env=given, cwd=tmp_path, check=True)

    for event in ("acquire", "release"):
        until((tmp_path / event).exists, f"the hook of {event}")
        rows = (tmp_path / event).read_text().removesuffix("\0").split("\0")
        seen = dict(row.split("=", 1) for row in rows)
        told = {key for key in seen if key.startswith("IPCLOCK_")}
        assert ("IPCLOCK_EVENT" in told, {key: seen[key] for key in seen.keys() - told}) == (True, given)


def test_a_hook_is_in_a_session_of_its_own_with_all_signals_as_they_were_made(world: World, notes: Notes) -> None:
    script = 'trap "" HUP INT TERM USR1 CHLD; exec "$0" -m ipclock wrap a -- true'

    shell = world.spawn("sh", "-c", script, sys.executable)
    shell.wait()

    for name in ("acquire.1", "release.1"):
        note = notes.of(name)
        assert (note["session"] in (os.getsid(0), shell.pid, note["pid"]), note["terminal"], note["signals"]) == (
            False,
            "0",
            ["SigBlk:", "0" * 16, "SigIgn:", "0" * 16],
        )


def test_a_hook_is_no_child_of_ours_and_leaves_no_zombie(world: World, notes: Notes) -> None:
    build = world.wrap("build").started()
    hook = notes.of("acquire.1")

    wrap = psutil.Process(build.pid)
    # but for its sentinel, which is a part of itself
    children = [child.pid for child in wrap.children(recursive=True) if child.cmdline() != wrap.cmdline()]

    assert (children, hook["parent"] == build.pid, build.end()) == ([build.command_pid], False, 0)


@pytest.mark.parametrize("how", ["wait", "kill"])
def test_a_hook_is_none_of_what_a_build_leaves_running(how: str, world: World, hanging: Callable[[str], int]) -> None:
    build = world.wrap("build", "--leftovers", how).started()
    hook = hanging("acquire")

    ended = build.end()

    warned = [line for line in build.errors().splitlines() if "left running" in line]
    assert (ended, warned, psutil.pid_exists(hook), hanging("release") > 0) == (0, [], True, True)


@pytest.mark.parametrize("how", ["wait", "kill"])
def test_where_we_are_the_parent_of_all_orphans_a_hook_is_no_leftover_either(
    how: str, world: World, tmp_path: Path
) -> None:
    needs_root(0)
    go, here, there = tmp_path / "go", tmp_path / "here", tmp_path / "there"
    # what the hook starts while the build runs is no child from before
    hook = f"until test -e {go}; do sleep 0.01; done; sleep 1000 & touch {here}; wait"
    build = f"touch {go}; until test -e {here}; do sleep 0.01; done; (sleep 0.1; touch {there}) & exit 5"
    wrap = ("-m", "ipclock", "wrap", "-q", "--leftovers", how, "a", "--", "sh", "-c", build)

    status, output = unshared(
        ["-p", "-f", "--mount-proc"], 'exec "$@"', sys.executable, *wrap, env=world.env | {"ON_ACQUIRE": hook}
    )

    assert (status, output, there.exists()) == (5, "", how == "wait")


def test_a_hook_that_cannot_be_started_costs_one_line(world: World, notes: Notes) -> None:
    needs_root(0)
    status, lines = in_a_world_where("mount --bind /dev/null /bin/sh", world, "wrap", "-q", "a", "--", "true")

    text = "ipclock: warning: cannot run {}: Permission denied"
    assert (status, lines, world.settled()) == (
        0,
        [text.format("ON_ACQUIRE"), text.format("ON_RELEASE")],
        (1, {}),
    )


# Whose commands root runs


@pytest.fixture
def settings_file(world: World, tmp_path: Path, notes: Notes) -> Path:
    """A settings file, root's in root's folder, that names a hook."""
    world.env = {key: text for key, text in world.env.items() if not key.startswith("ON_")}
    path = tmp_path / "etc/build-config.sh"
    path.parent.mkdir(mode=0o755)
    path.write_text(f"ON_ACQUIRE='{notes.command}'\n")
    path.chmod(0o644)
    return path


def linked(path: Path) -> None:
    """Put a link of somebody else's in the file's place; it leads to root's."""
    path.rename(path.with_name("real.sh"))
    path.symlink_to("real.sh")
    os.lchown(path, USER, USER)


SPOILED: dict[str, Callable[[Path], None]] = {
    "somebody else's": lambda path: os.chown(path, USER, USER),
    "written by a group": lambda path: path.chmod(0o664),
    "written by everybody": lambda path: path.chmod(0o646),
    "in somebody else's folder": lambda path: os.chown(path.parent, USER, USER),
    "in a folder of everybody's": lambda path: path.parent.chmod(0o777),
    "by somebody else's link": linked,
}


@pytest.mark.parametrize("how", SPOILED)
@pytest.mark.parametrize("command", [("wrap", "a", "--", "echo", "built"), ("acquire", "a"), ("release", "1")])
def test_root_runs_no_hook_from_a_file_that_somebody_else_may_have_written(
    how: str, command: tuple[str, ...], world: World, settings_file: Path
) -> None:
    needs_root(0)
    SPOILED[how](settings_file)

    result = world.run(*command[:-1], command[-1], env={"IPCLOCK_CONFIG": str(settings_file)})

    at = settings_file.parent if "folder" in how else settings_file
    assert (result.returncode, result.stdout, result.stderr.splitlines()) == (
        78,
        "",
        [
            f"ipclock: {settings_file}: refusing to run a hook as root: {at}: writable by other users",
            "   Let root own the settings file and its directories, and no other user write to them.",
        ],
    )


def test_root_runs_a_hook_from_a_file_of_roots_also_by_links_of_roots(
    world: World, settings_file: Path, notes: Notes
) -> None:
    needs_root(0)
    (settings_file.parent / "link").symlink_to("..", target_is_directory=True)
    way = f"{settings_file.parent}/link/etc/../etc/{settings_file.name}"

    result = world.run("wrap", "--config", way, "a", "--", "true")

    assert (result.returncode, notes.of("acquire.1")["said"]["ticket"]) == (0, 1)


def beside(world: World, settings_file: Path, text: str) -> Path:
    """Make a user's own settings file, which adds to the one that is asked for, and return it."""
    file = settings_file.parent / "xdg" / "ipclock" / "build-config.sh"
    file.parent.mkdir(parents=True)
    file.write_text(text)
    world.env["XDG_CONFIG_HOME"] = str(file.parents[1])
    return file


def test_root_runs_no_hook_although_only_one_of_the_files_that_name_hooks_may_be_somebody_elses(
    world: World, settings_file: Path
) -> None:
    needs_root(0)
    other = beside(world, settings_file, "ON_TIMEOUT=true\n")
    other.chmod(0o666)

    result = world.run("wrap", "--config", str(settings_file), "a", "--", "echo", "built")

    assert (result.returncode, result.stdout, result.stderr.partition(": refusing to run")[0]) == (
        78,
        "",
        f"ipclock: {other}",
    )


def test_a_file_that_names_no_hook_for_root_may_be_somebody_elses(
    world: World, settings_file: Path, notes: Notes
) -> None:
    needs_root(0)
    other = beside(world, settings_file, "BUILD_TIMEOUT=9\n")
    other.chmod(0o666)

    result = world.run("wrap", "--config", str(settings_file), "a", "--", "true")

    assert (result.returncode, notes.of("acquire.1")["said"]["ticket"]) == (0, 1)


def test_a_nearer_file_turns_off_one_hook_for_root_and_leaves_the_others(
    world: World, settings_file: Path, notes: Notes
) -> None:
    needs_root(0)
    hook = settings_file.read_text()
    beside(world, settings_file, hook + hook.replace("ON_ACQUIRE", "ON_RELEASE"))
    settings_file.write_text("ON_ACQUIRE=off\n")

    result = world.run("wrap", "--config", str(settings_file), "a", "--", "true")

    assert (result.returncode, notes.of("release.1")["said"]["ticket"]) == (0, 1)
    assert notes.names() == {"release.1"}


def test_a_hook_of_the_environment_does_not_make_the_file_matter(
    world: World, settings_file: Path, notes: Notes
) -> None:
    needs_root(0)
    settings_file.chmod(0o666)

    result = world.run("wrap", "--config", str(settings_file), "a", "--", "true", env={"ON_ACQUIRE": notes.command})

    assert (result.returncode, notes.of("acquire.1")["said"]["ticket"]) == (0, 1)


def test_a_command_that_runs_no_hook_does_not_mind_whose_file_names_one(world: World, settings_file: Path) -> None:
    needs_root(0)
    settings_file.chmod(0o666)
    world.ask("init")

    done = [world.run(name, "--config", str(settings_file)).returncode for name in ("status", "reset")]

    assert done == [0, 0]


def test_the_doctor_finds_hooks_that_root_would_refuse(world: World, settings_file: Path) -> None:
    needs_root(0)
    safe = world.run("doctor", "--config", str(settings_file))
    settings_file.chmod(0o666)

    unsafe = world.run("doctor", "--config", str(settings_file))

    assert (unsafe.returncode, "bad  hooks: " in unsafe.stdout, "hooks: " in safe.stdout) == (69, True, False)


def test_a_user_runs_the_hooks_of_a_file_of_their_own(settings_file: Path) -> None:
    needs_root(0)
    os.chown(settings_file, USER, USER)
    let_everybody_in(settings_file.parent)

    def accepted() -> str | None:
        settings = load_settings({"CONFIG": str(settings_file)})
        Hooks(settings, None, print)
        return settings.on_acquire

    with pytest.raises(UnsafeHook):
        accepted()
    assert in_child(accepted, USER) == load_settings({"CONFIG": str(settings_file)}).on_acquire


# The example


class Chat(HTTPServer):
    """A chat's webhook: keeps what it is sent, and with which path."""

    def __init__(self) -> None:
        self.heard: list[tuple[str, Any]] = []
        super().__init__(("127.0.0.1", 0), Webhook)


class Webhook(BaseHTTPRequestHandler):
    """Hears one message."""

    server: Chat

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.end_headers()
        self.server.heard.append((self.path, json.loads(body)))

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def chat(world: World, tmp_path: Path) -> Iterator[Chat]:
    """A chat that listens; its address stands in a file of ours, and each curl leaves its command line in another."""
    server = Chat()
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    address = tmp_path / "chat-url"
    address.write_text(f"http://127.0.0.1:{server.server_port}/services/T1/s3cret?a=b\n")
    address.chmod(0o600)
    curl = tmp_path / "bin/curl"
    curl.parent.mkdir()
    curl.write_text(f'#!/bin/sh\necho "$@" >>{tmp_path}/curl.args\nexec {shutil.which("curl")} "$@"\n')
    curl.chmod(0o755)
    world.env |= {"CHAT_URL_FILE": str(address), "PATH": f"{curl.parent}:{os.environ['PATH']}"}
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def notify(world: World, **facts: str) -> subprocess.CompletedProcess[str]:
    """Run the example as a hook is run."""
    environment = world.env | {f"IPCLOCK_{key}": value for key, value in facts.items()}
    return subprocess.run(
        [str(CHAT)], env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=HANG_S
    )


def test_the_example_tells_a_chat_of_every_event(world: World, chat: Chat) -> None:
    label = r'스테이징 "배포" \n $(id) `id`'
    world.env |= {f"ON_{event.upper()}": str(CHAT) for event in EVENTS}

    def told(count: int) -> list[str]:
        until(lambda: len(chat.heard) >= count, f"{count} messages; so far {chat.heard}")
        return [body["text"].partition(" (")[0] for _, body in chat.heard]

    holder = world.wrap(label).started()
    told(1)
    world.run("wrap", "-n", label, "--", "true")
    told(2)
    waiter = world.wrap(label)
    told(3)
    holder.tell("exit 3")
    waiter.started()
    texts = told(5)

    beginnings = ["🔨", "⌛", "⏳", *sorted(text[0] for text in texts[3:])]
    assert ([text[0] for text in texts[:3]], sorted(text[0] for text in texts[3:])) == (beginnings[:3], ["❌", "🔨"])
    assert ([text for text in texts if label not in text], {path for path, _ in chat.heard}) == (
        [],
        {"/services/T1/s3cret?a=b"},
    )
    waiter.end()


def test_the_address_of_the_chat_stands_on_no_command_line(world: World, chat: Chat, tmp_path: Path) -> None:
    done = notify(world, EVENT="wait", LABEL="a")

    command_line = (tmp_path / "curl.args").read_text()
    assert (done.returncode, len(chat.heard), "s3cret" in command_line, "--max-time" in command_line) == (
        0,
        1,
        False,
        True,
    )


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644, 0o700])
def test_an_address_that_others_can_read_is_not_used(mode: int, world: World, chat: Chat) -> None:
    file = Path(world.env["CHAT_URL_FILE"])
    file.chmod(mode)

    done = notify(world, EVENT="wait", LABEL="a")

    assert (done.returncode, chat.heard, done.stderr) == (
        1,
        [],
        f"notify-chat: {file}: not its owner's alone (chmod 600)\n",
    )


@pytest.mark.parametrize(
    "address", ["", "\n", "file:///etc/passwd", 'http://h/"\nupload-file = "/etc/passwd', "http://a b"]
)
def test_what_is_no_address_is_not_used(address: str, world: World, chat: Chat) -> None:
    Path(world.env["CHAT_URL_FILE"]).write_text(address)

    done = notify(world, EVENT="wait", LABEL="a")

    assert (done.returncode, chat.heard, done.stderr.startswith("notify-chat: ")) == (1, [], True)


def test_the_example_is_clean_for_shellcheck() -> None:
    done = subprocess.run(["shellcheck", str(CHAT)], capture_output=True, text=True, check=False)

    assert (done.returncode, done.stdout) == (0, "")


def test_a_settings_file_in_shell_quotes_says_the_whole_command(world: World, notes: Notes, tmp_path: Path) -> None:
    file = tmp_path / "build-config.sh"
    file.write_text(f"""ON_ACQUIRE="{notes.command} # the team's"\n""")

    result = world.run("wrap", "--config", str(file), "a", "--", "true", env={"ON_ACQUIRE": ""})

    assert (result.returncode, notes.of("acquire.1")["said"]["event"]) == (0, "acquire")
