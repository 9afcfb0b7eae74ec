"""The recipes of `contrib/cookbook.md`, each as its tool runs it: bash, make, cron, git, systemd, runners, ssh."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import subprocess
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import yaml

from tests.helpers.crash_at import unshared
from tests.helpers.world import HANG_S, until

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from tests.helpers.world import Build, World

BOOK = (Path(__file__).parents[2] / "contrib/cookbook.md").read_text()
RECIPES = dict(re.findall(r"^```\S+ test=(\S+)\n(.*?)^```$", BOOK, re.DOTALL | re.MULTILINE))
ROWS = [[cell.strip() for cell in line.split("|")[1:4]] for line in BOOK.splitlines() if line.startswith("| `")]
BUSY = {before: (now, busy) for before, now, busy in ROWS if busy}
# what `make` stands for; STAY is a FIFO at which it waits
MAKEFILE = 'all:\n\t@echo "built in slot $$IPCLOCK_SLOT"; test -z "$$STAY" || read -r _ <"$$STAY"; exit $${FAIL:-0}\n'
# a container as far as processes and /dev/shm go: the image is this machine
DOCKER = """#!/bin/sh
shift
while :; do
    case $1 in
        -v) [ "$2" != /dev/shm:/dev/shm ] || shared=yes; shift 2 ;;
        --ipc=host) shared=yes; shift ;;
        -*) shift ;;
        *) break ;;
    esac
done
shift
export shared
exec unshare --ipc --pid --mount --mount-proc --fork --kill-child \
    sh -c '[ "$shared" ] || mount -t tmpfs tmpfs /dev/shm; exec "$@"' sh "$@"
"""
SSHD = shutil.which("sshd", path=f"{os.environ['PATH']}:/usr/sbin") or ""
SSHD_CONFIG = """
HostKey {folder}/host
AuthorizedKeysFile {folder}/user.pub
StrictModes no
UsePAM no
PermitRootLogin yes
PidFile none
SetEnv {env}
"""
# sshd insists on a folder of its own in /run
PROXY = """#!/bin/sh
echo $$ >{folder}/sshd.pid
if [ "$(id -u)" = 0 ]; then
    exec unshare --mount sh -c 'mount -t tmpfs tmpfs /run; mkdir /run/sshd; exec {sshd} -i -f {folder}/sshd_config'
fi
exec {sshd} -i -f {folder}/sshd_config
"""
SSH = """#!/bin/sh
exec {ssh} -F /dev/null -i {folder}/user -o ProxyCommand={folder}/proxy -o StrictHostKeyChecking=no \
    -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR "$@"
"""


class Kitchen:
    """A home with settings for the test's pool, a project to build, and an `ipclock` in PATH."""

    def __init__(self, world: World, folder: Path) -> None:
        self.world = world
        self.folder = folder
        self.bin = folder / "bin"
        self.app = folder / "app"
        self.app.mkdir()
        self.started: list[Build] = []
        (self.app / "Makefile").write_text(MAKEFILE)
        settings = folder / "home/.config/ipclock/build-config.sh"
        settings.parent.mkdir(parents=True)
        settings.write_text(f"SEMAPHORE_NAME={world.name}\nHISTORY=off\n")
        self.env = {"HOME": str(folder / "home"), "PATH": world.env["PATH"], "LANG": "C.UTF-8"}

    def recipe(self, name: str) -> str:
        """Return a recipe with the test's own folders in the places of those that it names."""
        text = RECIPES[name].replace("/usr/local/bin", str(self.bin)).replace("/srv/app", str(self.app))
        return text.replace("/srv/", f"{self.folder}/")

    def file(self, name: str, text: str) -> Path:
        """Write a file that can be executed."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(0o755)
        return path

    def stay(self) -> Path:
        """Make builds wait at the FIFO that is returned, until it is written to."""
        fifo = self.folder / "stay"
        os.mkfifo(fifo)
        self.env["STAY"] = str(fifo)
        return fifo

    def run(self, *command: str | Path, env: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        """Run a command to its end in the project's folder."""
        return subprocess.run(
            command,
            env=self.env | dict(env or {}),
            cwd=self.app,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=HANG_S,
            check=False,
        )

    def start(self, *command: str | Path) -> Build:
        """Start a command in the project's folder, in a session of its own."""
        build = self.world.spawn(
            "env",
            "-i",
            *(f"{key}={value}" for key, value in self.env.items()),
            *map(str, command),
            cwd=self.app,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
        self.started.append(build)
        return build


@pytest.fixture
def kitchen(world: World, tmp_path: Path, _ipclock_on_path: None) -> Iterator[Kitchen]:
    """A place to try recipes in; what they have started and a failed test has left is ended."""
    made = Kitchen(world, tmp_path)
    yield made
    for build in made.started:
        if build.process.returncode is None:  # not reaped, so the PID is still its own
            os.killpg(build.pid, signal.SIGKILL)


def test_every_snippet_of_the_book_is_tried_here() -> None:
    tests = Path(__file__).read_text()
    fences = re.findall(r"^```(\S.*)$", BOOK, re.MULTILINE)

    assert (len(RECIPES), [name for name in RECIPES if f'"{name}"' not in tests]) == (len(fences), [])


def test_a_deploy_script_runs_itself_in_a_slot(kitchen: Kitchen) -> None:
    script = kitchen.file("deploy.sh", kitchen.recipe("deploy-script"))

    free, failing = kitchen.run(script), kitchen.run(script, env={"FAIL": "1"})

    assert (free.returncode, free.stdout, failing.returncode) == (0, "built in slot 1\n", 2)
    assert kitchen.world.settled() == (1, {})


def test_a_busy_server_can_be_told_from_a_build_that_fails(kitchen: Kitchen) -> None:
    recipe = kitchen.recipe("busy-is-no-failure")
    holder = kitchen.world.wrap("holder").started()

    busy = kitchen.run("sh", "-c", recipe)
    holder.end()
    free, failing = kitchen.run("sh", "-c", recipe), kitchen.run("sh", "-c", recipe, env={"FAIL": "1"})

    assert (busy.returncode, busy.stdout) == (0, "busy, another time\n")
    assert (free.returncode, free.stdout, failing.returncode) == (0, "built in slot 1\n", 2)


def test_makes_job_server_reaches_a_make_in_a_slot(kitchen: Kitchen) -> None:
    kitchen.file("app/src/Makefile", 'all:\n\t@echo "slot $$IPCLOCK_SLOT, $(MAKEFLAGS)"\n')
    (kitchen.app / "Makefile").write_text(kitchen.recipe("make"))

    made = kitchen.run("make", "-j2", "wheel")

    # with descriptors that it has not got, make warns that the jobserver is unavailable
    (told,) = re.findall(r"^slot.*", made.stdout, re.MULTILINE)
    assert (made.returncode, told[:6], "jobserver" in told, "jobserver" in made.stderr) == (0, "slot 1", True, False)


def test_make_without_doing_waits_for_a_slot_all_the_same(kitchen: Kitchen) -> None:
    (kitchen.app / "Makefile").write_text(kitchen.recipe("make"))
    kitchen.world.wrap("holder").started()

    dry = kitchen.run("make", "-n", "wheel", env={"BUILD_TIMEOUT": "0.1"})

    assert (dry.returncode, "Error 75" in dry.stderr) == (2, True)


def test_a_line_for_cron_finds_ipclock_and_writes_a_log_named_for_the_day(kitchen: Kitchen) -> None:
    path, line = kitchen.recipe("cron").splitlines()
    command = line.split(None, 5)[5]
    assert re.search(r"(?<!\\)%", command) is None  # cron would end the line there

    done = subprocess.run(
        ["/bin/sh", "-c", command.replace(r"\%", "%")],
        env={"HOME": kitchen.env["HOME"], "LOGNAME": "root", "SHELL": "/bin/sh", "PATH": path.removeprefix("PATH=")},
        cwd=kitchen.env["HOME"],
        capture_output=True,
        text=True,
        timeout=HANG_S,
        check=False,
    )

    logs = list(kitchen.app.glob("nightly-????-??-??.log"))
    assert (done.returncode, done.stdout, done.stderr, len(logs)) == (0, "", "", 1)
    assert "built in slot 1" in logs[0].read_text()


@pytest.fixture
def units(kitchen: Kitchen) -> Path:
    """The book's units in a folder; skips without systemd-analyze."""
    if not shutil.which("systemd-analyze"):
        pytest.skip("no systemd-analyze here")
    for name in ("build@.service", "builds.slice", "nightly.service"):
        kitchen.file(f"units/{name}", kitchen.recipe(name)).chmod(0o644)
    return kitchen.folder / "units"


def verify(kitchen: Kitchen, units: Path) -> tuple[int, str]:
    done = kitchen.run(
        *("systemd-analyze", "--man=no", "verify", *sorted(units.iterdir())), env={"SYSTEMD_UNIT_PATH": f"{units}:"}
    )
    return done.returncode, done.stdout + done.stderr


def test_systemd_finds_no_fault_with_the_units(kitchen: Kitchen, units: Path) -> None:
    assert verify(kitchen, units) == (0, "")


def test_systemd_lets_no_oneshot_be_started_again_by_its_exit_status(kitchen: Kitchen, units: Path) -> None:
    if "systemd 252 " not in kitchen.run("systemd-analyze", "--version").stdout:
        pytest.skip("what systemd 252 says is asked of it alone")
    template = units / "build@.service"
    template.write_text(template.read_text().replace("Type=exec", "Type=oneshot"))

    assert "isn't allowed for Type=oneshot" in verify(kitchen, units)[1]


def exec_start(kitchen: Kitchen, unit: str) -> list[str]:
    line = next(line for line in kitchen.recipe(unit).splitlines() if line.startswith("ExecStart="))
    return shlex.split(line.removeprefix("ExecStart=").replace("%i", "staging"))


def test_the_commands_of_the_units_build_in_a_slot(kitchen: Kitchen) -> None:
    for name in ("staging/build.sh", "nightly.sh"):
        kitchen.file(name, "#!/bin/sh\nmake\n")

    done = [kitchen.run(*exec_start(kitchen, unit)) for unit in ("build@.service", "nightly.service")]

    assert [(run.returncode, run.stdout) for run in done] == [(0, "built in slot 1\n")] * 2


def test_the_condition_of_the_unit_sees_a_drain_until_one_who_asks_for_a_slot_has_swept_it_away(
    kitchen: Kitchen,
) -> None:
    world = kitchen.world
    condition = re.search(r"ConditionPathExists=!(.*)", RECIPES["build@.service"])
    assert condition
    drained = Path(condition[1].replace("oracle-build", world.name[1:]))
    before = (world.run("init").returncode, drained.exists())

    world.run("drain", "--for", "1")
    until(lambda: not world.status()["drained"], "the end of the drain")
    after = drained.exists()
    world.run("wrap", "-n", "a", "--", "true")

    assert (before, after, drained.exists()) == ((0, False), True, False)


def test_a_push_deploys_each_branch_in_a_slot_and_stands_whatever_comes_of_it(kitchen: Kitchen) -> None:
    deploy = 'cat >/dev/null; echo "deployed $IPCLOCK_LABEL at ${1%${1#???????}} in slot $IPCLOCK_SLOT"; exit 5\n'
    kitchen.file("app/deploy.sh", f"#!/bin/sh\n{deploy}")
    who = ("-c", "user.name=a", "-c", "user.email=a@example.com")
    kitchen.run("git", "init", "-q", "--bare", "../origin.git")
    kitchen.file("origin.git/hooks/post-receive", kitchen.recipe("post-receive"))
    kitchen.run("git", "init", "-q", "-b", "main")
    kitchen.run("git", *who, "commit", "-q", "--allow-empty", "-m", "first")
    commit = kitchen.run("git", "rev-parse", "--short=7", "HEAD").stdout.strip()
    for branch in ("staging", "topic"):
        kitchen.run("git", "branch", branch)

    push = kitchen.run("git", "push", "../origin.git", "main", "staging", "topic")

    deployed = [line.removeprefix("remote: ").strip() for line in push.stderr.splitlines() if "deployed" in line]
    assert (push.returncode, deployed) == (
        0,
        [f"deployed {name} at {commit} in slot 1" for name in ("main", "staging")],
    )


def test_the_step_of_a_workflow_builds_in_a_slot(kitchen: Kitchen) -> None:
    (step,) = yaml.safe_load(kitchen.recipe("github-step"))["jobs"]["build"]["steps"]

    done = kitchen.run("bash", "-e", kitchen.file("step.sh", step["run"]), env={"GITHUB_REPOSITORY": "a/b"})

    assert (done.returncode, done.stdout) == (0, "built in slot 1\n")


@pytest.fixture
def worker(kitchen: Kitchen) -> Path:
    """A script that does as the worker of a runner: a hook before the job, the job's step, a hook after it."""
    for name in ("job-started.sh", "job-completed.sh"):
        kitchen.file(name, kitchen.recipe(name))
    (step,) = yaml.safe_load(kitchen.recipe("github-step"))["jobs"]["build"]["steps"]
    kitchen.file("step.sh", step["run"])
    kitchen.env |= {"GITHUB_REPOSITORY": "a/b", "GITHUB_ENV": f"{kitchen.folder}/env"}
    body = """
        bash -e ../job-started.sh && echo started && read -r _ <../go
        set -a; . "$GITHUB_ENV"; set +a
        timeout 20 bash -e ../step.sh
        bash -e ../job-completed.sh
        echo completed; read -r _ <../go
    """
    os.mkfifo(kitchen.folder / "go")
    return kitchen.file("worker.sh", body)


def test_the_hooks_of_a_runner_hold_one_slot_for_the_whole_job(kitchen: Kitchen, worker: Path) -> None:
    job = kitchen.start("sh", worker)
    assert job.line() == "started"
    (holder,) = kitchen.world.status()["holders"]

    (kitchen.folder / "go").write_text("\n")

    assert (holder["label"], holder["pid"], holder["state"]) == ("a/b", job.pid, "running")
    assert (job.line().startswith("built in slot"), job.line()) == (True, "completed")
    assert (job.process.poll(), kitchen.world.settled()) == (None, (1, {}))


def test_a_slot_of_a_hook_without_a_process_to_hold_it_ends_with_the_hook(kitchen: Kitchen, worker: Path) -> None:
    hook = kitchen.folder / "job-started.sh"
    hook.write_text(hook.read_text().replace('--pid "$PPID" ', ""))

    job = kitchen.start("sh", worker)

    assert (job.line(), kitchen.world.status()["holders"], job.process.poll()) == ("started", [], None)


def test_a_step_finds_the_slot_of_its_job_without_the_ticket_in_its_environment(kitchen: Kitchen, worker: Path) -> None:
    for name, old, new in (("job-started.sh", '"IPCLOCK_TICKET=', '"OTHER='), ("step.sh", "-w 1h", "-w 0.1")):
        script = kitchen.folder / name
        script.write_text(script.read_text().replace(old, new))
    job = kitchen.start("sh", worker)
    assert job.line() == "started"

    (kitchen.folder / "go").write_text("\n")

    assert [job.line(), job.line()] == ["built in slot 1", "completed"]


def gitlab(kitchen: Kitchen, *lines: str) -> str:
    """Return what the runner of GitLab gives to bash."""
    script = "\n".join([*lines, ""])
    return f"set -eo pipefail\nset +o noclobber\n: | (eval {shlex.quote(script)})\nexit 0\n"


def test_the_job_of_a_pipeline_builds_in_a_slot(kitchen: Kitchen) -> None:
    script = yaml.safe_load(kitchen.recipe("gitlab-job"))["build"]["script"]

    done = kitchen.run("bash", "-c", gitlab(kitchen, *script), env={"CI_PROJECT_PATH": "a/b"})

    assert (done.returncode, done.stdout, kitchen.world.settled()) == (0, "built in slot 1\n", (1, {}))


def test_the_script_before_each_job_of_a_runner_holds_one_slot_to_the_jobs_end(kitchen: Kitchen) -> None:
    before = tomllib.loads(kitchen.recipe("gitlab-runner"))["runners"][0]["pre_build_script"]
    script = yaml.safe_load(kitchen.recipe("gitlab-job"))["build"]["script"]
    kitchen.env["CI_PROJECT_PATH"] = "a/b"
    fifo = kitchen.stay()

    job = kitchen.start("bash", "-c", gitlab(kitchen, before, *script))
    built = job.line()
    held = [(holder["label"], holder["pid"], holder["within"]) for holder in kitchen.world.status()["holders"][:1]]
    fifo.write_text("\n")

    assert (built.startswith("built in slot"), held, job.wait()) == (True, [("a/b", job.pid, None)], 0)
    assert kitchen.world.run("wrap", "-w", "20", "next", "--", "true").returncode == 0


def test_a_job_of_a_runner_without_a_slot_in_time_does_not_build(kitchen: Kitchen) -> None:
    before = tomllib.loads(kitchen.recipe("gitlab-runner"))["runners"][0]["pre_build_script"]
    kitchen.world.wrap("holder").started()

    done = kitchen.run(
        "bash", "-c", gitlab(kitchen, before.replace("45m", "0.1"), "make"), env={"CI_PROJECT_PATH": "a/b"}
    )

    assert (done.returncode, done.stdout) == (75, "")


def test_the_step_of_a_jenkins_stage_builds_in_a_slot(kitchen: Kitchen) -> None:
    (command,) = re.findall(r"sh '(.*)'", kitchen.recipe("jenkins"))

    done = kitchen.run("sh", "-xe", kitchen.file("script.sh", command), env={"JOB_NAME": "folder/a b"})

    assert (done.returncode, done.stdout) == (0, "built in slot 1\n")


@pytest.fixture
def docker(kitchen: Kitchen) -> Kitchen:
    """A kitchen whose `docker` runs commands of this machine in namespaces like a container's."""
    unshared(["--ipc", "--pid", "--mount", "--mount-proc", "--fork"], "true")
    kitchen.file("bin/docker", DOCKER)
    return kitchen


def test_a_container_that_shares_dev_shm_waits_for_the_machines_builds(docker: Kitchen) -> None:
    holder = docker.world.wrap("holder").started()

    container = docker.start("sh", "-c", docker.recipe("docker-inside"))
    until(lambda: docker.world.records("gate"), "the container's build at the gate")
    holder.end()

    assert (container.line(), container.wait(), docker.world.settled()) == ("built in slot 1", 0, (1, {}))


def test_a_container_with_a_dev_shm_of_its_own_waits_for_nobody(docker: Kitchen) -> None:
    docker.world.wrap("holder").started()

    container = docker.run("sh", "-c", docker.recipe("docker-inside").replace("-v /dev/shm:/dev/shm", ""))

    assert (container.returncode, container.stdout) == (0, "built in slot 1\n")


def test_a_killed_containers_slot_is_free_and_until_then_its_build_counts_as_unknown(docker: Kitchen) -> None:
    docker.stay()
    container = docker.start("sh", "-c", f"exec {docker.recipe('docker-inside')}")
    container.line()
    (holder,) = docker.world.status()["holders"]
    busy = docker.world.run("wrap", "-n", "next", "--", "true").returncode

    container.signal(signal.SIGKILL)
    container.wait()

    free = docker.world.run("wrap", "-w", "20", "next", "--", "true").returncode
    assert (holder["state"], busy, free, docker.world.settled()) == ("unknown", 75, 0, (1, {}))


def test_a_slot_that_a_container_bound_to_a_process_stays_taken_until_a_reset(docker: Kitchen) -> None:
    taken = docker.recipe("docker-inside").replace("ipclock wrap staging -- make", "sh -c 'ipclock acquire a; exit'")

    ticket = docker.run("sh", "-c", taken).stdout.strip()
    busy = docker.world.run("wrap", "-w", "1.5", "next", "--", "true").returncode
    docker.world.run("reset", ticket)

    assert (busy, docker.world.run("wrap", "-n", "next", "--", "true").returncode) == (75, 0)


def test_a_container_is_run_in_a_slot(docker: Kitchen) -> None:
    done = docker.run("sh", "-c", docker.recipe("docker-around"))

    assert (done.returncode, done.stdout, docker.world.settled()) == (0, "built in slot 1\n", (1, {}))


@pytest.fixture
def remote(kitchen: Kitchen) -> Kitchen:
    """A kitchen whose `ssh` comes to this machine, by an sshd of its own that listens on no port."""
    if not SSHD or not shutil.which("ssh"):
        pytest.skip("no sshd here" if shutil.which("ssh") else "no ssh here")
    if os.geteuid() == 0:
        unshared(["--mount"], "true")
    folder = kitchen.folder
    env = f"SEMAPHORE_NAME={kitchen.world.name} HISTORY=off XDG_CONFIG_HOME=/nonexistent STAY={kitchen.stay()}"
    env += f" LANG=C.UTF-8 PATH={kitchen.env['PATH']}"
    for key in ("host", "user"):
        kitchen.run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / key)
    kitchen.file("sshd_config", SSHD_CONFIG.format(folder=folder, env=env))
    kitchen.file("proxy", PROXY.format(folder=folder, sshd=SSHD))
    kitchen.file("bin/ssh", SSH.format(folder=folder, ssh=shutil.which("ssh")))
    return kitchen


def drop(kitchen: Kitchen, client: Build) -> None:
    """Kill the ssh client, and wait until its server has seen that."""
    server = Path("/proc", (kitchen.folder / "sshd.pid").read_text().strip(), "stat")
    client.signal(signal.SIGKILL)
    client.wait()
    until(lambda: not server.exists() or ") Z " in server.read_text(), "the end of sshd")


def test_a_build_over_ssh_outlives_its_connection_in_its_slot(remote: Kitchen) -> None:
    client = remote.start("sh", "-c", f"exec {remote.recipe('ssh')}")
    until(lambda: "built in slot 1" in client.line(), "the start of the build")

    drop(remote, client)
    (holder,) = remote.world.status()["holders"]
    Path(remote.env["STAY"]).write_text("\n")

    assert holder["state"] == "running"
    until(lambda: remote.world.settled() == (1, {}), "the end of the build")


def test_a_build_that_waits_over_ssh_waits_on_without_its_connection_and_builds(remote: Kitchen) -> None:
    built = remote.folder / "built"
    holder = remote.world.wrap("holder").started()
    client = remote.start("ssh", "build-host", f"ipclock wrap -w 1h staging -- touch {built}")
    until(lambda: remote.world.records("gate"), "the build at the gate")

    drop(remote, client)
    before = (remote.world.waiting(), built.exists())
    holder.end()

    until(lambda: remote.world.settled() == (1, {}), "the end of the build")
    assert (before, built.exists()) == ((1, False), True)


def test_a_build_over_ssh_dies_of_its_first_line_after_the_connection_has_dropped(remote: Kitchen) -> None:
    fifo = Path(remote.env["STAY"])
    command = 'sh -c "echo built; read -r _ <$STAY; echo more; touch $STAY.end"'
    client = remote.start("ssh", "build-host", f"ipclock wrap a -- {command}")
    until(lambda: "built" in client.line(), "the start of the build")

    drop(remote, client)
    fifo.write_text("\n")

    until(lambda: remote.world.settled() == (1, {}), "the end of the build")
    assert not fifo.with_name("stay.end").exists()


def test_a_build_on_a_terminal_over_ssh_is_hung_up_with_its_connection(remote: Kitchen) -> None:
    # of a make only its own process would be told, which waits for its children
    client = remote.start("ssh", "-tt", "build-host", "ipclock wrap a -- sh -c 'echo built; exec sleep 100'")
    until(lambda: "built" in client.line(), "the start of the build")

    drop(remote, client)

    until(lambda: remote.world.settled() == (1, {}), "the end of the build")


@pytest.mark.parametrize("before", BUSY)
def test_a_row_of_the_table_says_what_both_commands_exit_with(kitchen: Kitchen, before: str) -> None:
    now, busy = BUSY[before]
    tool = before.strip("`").split()[0]
    if not shutil.which(tool):
        pytest.skip(f"no {tool} here")
    kitchen.file("home/.parallel/will-cite", "")
    os.mkfifo(kitchen.folder / "go")
    words = {"FILE": "../lock", "LABEL": "staging", "ID": kitchen.world.name, "N": "1", "-600": "-1"}

    def command(cell: str, script: str) -> list[str]:
        # sem gives what follows to a shell of its own
        build = [script] if cell.startswith("`sem") else ["sh", "-c", script]
        words["600"] = "1" if cell.startswith("`lckdo") else "0.1"  # lckdo counts whole ones
        return [words.get(word, word) for word in shlex.split(cell.strip("`"))[:-1]] + build

    free = [kitchen.run(*command(cell, "exit 7")).returncode for cell in (before, now)]
    kitchen.start(*command(before, "touch ../held; read -r _ <../go"))
    until((kitchen.folder / "held").exists, f"{tool} to hold its lock")
    kitchen.world.wrap("holder").started()
    taken = [kitchen.run(*command(cell, "true")).returncode for cell in (before, now)]
    (kitchen.folder / "go").write_text("\n")

    assert (free, taken) == ([7, 7], [int(status) for status in busy.split(",")])
