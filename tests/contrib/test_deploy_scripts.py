"""The deploy scripts, run for real: from any folder, on paths with blanks and Korean, on a clean pool."""

from __future__ import annotations

import random
import shutil
import signal
import subprocess
import tarfile
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from ipclock.config.settings import SETTINGS
from tests.contrib.deploy_sweep import DEPLOY, PROGRAMS, PROMOTE, ROLL_BACK, SCENES, SIGNALS, Point, Sweep, pass_second
from tests.helpers.crash_at import unshared
from tests.helpers.world import SHM, until

if TYPE_CHECKING:
    from tests.helpers.world import World

ORACLE = Path(__file__).parents[2] / "contrib/oracle"
SAMPLE = 3  # points a scene, others in each run; `python -m tests.contrib.deploy_sweep` tries them all


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project to deploy, at an awkward path."""
    folder = tmp_path / "내 프로젝트 1"
    folder.mkdir()
    (folder / "설정 파일.txt").write_text("first\n")
    return folder


def run(world: World, script: str, *arguments: object, **env: str) -> subprocess.CompletedProcess[str]:
    """Run one of the scripts from the root folder."""
    command = [str(ORACLE / script), *map(str, arguments)]
    return subprocess.run(
        command, env=world.env | env, cwd="/", capture_output=True, text=True, timeout=60, check=False
    )


def deployed(project: Path, place: str, link: str = "current") -> str:
    """Return what the released artefact says."""
    with tarfile.open(project / ".deploy" / place / link / "artefact.tar.gz") as archive:
        member = archive.extractfile("./설정 파일.txt")
        assert member
        return member.read().decode().strip()


def links(project: Path, place: str = "production") -> tuple[str, ...]:
    """Return the names of the releases that are current and previous."""
    both = [project / ".deploy" / place / link for link in ("current", "previous")]
    return tuple(link.readlink().name if link.is_symlink() else "" for link in both)


def promote(world: World, project: Path, *texts: str, **env: str) -> tuple[str, ...]:
    """Deploy and promote one text after the other; return the releases that are current and previous then."""
    for text in texts:
        (project / "설정 파일.txt").write_text(f"{text}\n")
        for script in (DEPLOY, PROMOTE):
            done = run(world, script, project, **env)
            assert done.returncode == 0, done.stderr
    return links(project)


def test_a_project_goes_to_staging_to_production_and_back(world: World, project: Path) -> None:
    for text in ("first", "second"):
        (project / "설정 파일.txt").write_text(f"{text}\n")
        assert run(world, "deploy-staging.sh", project).returncode == 0
        assert run(world, "promote-production.sh", project).returncode == 0
    promoted = deployed(project, "production")

    rollback = run(world, "rollback-production.sh", project)

    assert (promoted, rollback.returncode, deployed(project, "production"), deployed(project, "staging")) == (
        "second",
        0,
        "first",
        "second",
    )
    assert world.settled() == (1, {})


def test_releases_made_in_the_same_second_get_tags_of_their_own(world: World, project: Path) -> None:
    for _ in range(3):
        run(world, "deploy-staging.sh", project)

    releases = [path.name for path in (project / ".deploy/staging/releases").iterdir()]

    assert (len(releases), len(set(releases))) == (3, 3)


def test_a_failing_build_leaves_staging_as_it_was_and_frees_the_slot(world: World, project: Path) -> None:
    run(world, "deploy-staging.sh", project)
    before = (project / ".deploy/staging/current").readlink()

    failed = run(world, "deploy-staging.sh", project, BUILD_COMMAND="exit 5")

    assert (failed.returncode, (project / ".deploy/staging/current").readlink(), world.settled()) == (
        5,
        before,
        (1, {}),
    )
    assert len(list((project / ".deploy/staging/releases").iterdir())) == 1


def test_a_build_command_makes_the_artefact_in_the_projects_folder(world: World, project: Path) -> None:
    result = run(world, "deploy-staging.sh", project, BUILD_COMMAND='cat *.txt > "$ARTEFACT"')

    assert (result.returncode, (project / ".deploy/staging/current/artefact.tar.gz").read_text()) == (0, "first\n")


# each process gets the PID that the one before had, as in a container that starts anew
SAME_PID = """
deploy() {
    echo 999 >/proc/sys/kernel/ns_last_pid
    "$1/deploy-staging.sh" "$2" & wait "$!" || echo "$?"
    echo "$!"
}
exec 2>/dev/null
deploy "$@"
unset BASH_ENV
echo second >"$2/설정 파일.txt"
deploy "$@"
"""


@pytest.mark.parametrize("nth", [1, 2, 3])
def test_a_deploy_with_the_pid_of_a_killed_one_is_the_one_that_is_live(
    nth: int, world: World, project: Path, tmp_path: Path
) -> None:
    run(world, DEPLOY, project)
    env = world.env | Point(nth, pattern="mv *").env(tmp_path / "point")

    status, output = unshared(["-pf", "--mount-proc"], SAME_PID, str(ORACLE), str(project), env=env)

    assert (status, output.split(), deployed(project, "staging")) == (0, ["137", "1000", "1000"], "second")


def test_a_rollback_to_a_release_that_was_removed_changes_nothing_and_says_so(world: World, project: Path) -> None:
    current, previous = promote(world, project, "first", "second")
    releases = project / ".deploy/production/releases"
    shutil.rmtree(releases / previous)

    result = run(world, ROLL_BACK, project)

    assert (result.returncode, result.stderr.splitlines()[-1], links(project), deployed(project, "production")) == (
        1,
        f"rollback-production.sh: the previous release of production was removed: {releases / previous}",
        (current, previous),
        "second",
    )


def test_a_rollback_from_a_release_that_was_removed_brings_back_the_one_before(world: World, project: Path) -> None:
    current, previous = promote(world, project, "first", "second")
    shutil.rmtree(project / ".deploy/production/releases" / current)

    results = [run(world, ROLL_BACK, project) for _ in range(2)]

    assert ([(result.returncode, result.stderr.splitlines()[-1]) for result in results], links(project)[0]) == (
        [
            (0, f"production: {previous}"),
            (1, f"rollback-production.sh: there is no previous release of production in {project}/.deploy"),
        ],
        previous,
    )


def test_a_deploy_over_a_release_that_was_removed_keeps_the_one_before_it(world: World, project: Path) -> None:
    current, previous = promote(world, project, "first", "second")
    shutil.rmtree(project / ".deploy/production/releases" / current)
    pass_second(current)

    kept = promote(world, project, "third")[1]

    assert (kept, deployed(project, "production"), deployed(project, "production", "previous")) == (
        previous,
        "third",
        "first",
    )


@pytest.mark.parametrize("nth", [1, 2, 3])
def test_a_promotion_killed_at_its_links_leaves_a_rollback_to_the_release_before(
    nth: int, world: World, project: Path, tmp_path: Path
) -> None:
    before, before_that = promote(world, project, "first", "second")

    killed = run(world, PROMOTE, project, **Point(nth, pattern="mv *").env(tmp_path / "point"))
    current = links(project)[0]
    result = run(world, ROLL_BACK, project)

    expected = before_that if current == before else before
    assert (killed.returncode, result.returncode, result.stderr.splitlines()[-1], links(project)) == (
        -signal.SIGKILL,
        0,
        f"production: {expected}",
        (expected, current),
    )


@pytest.mark.parametrize("nth", [1, 2])
@pytest.mark.parametrize("name", ["TERM", "HUP"])
def test_a_signal_during_the_switch_does_not_take_the_live_release_away(
    name: str, nth: int, world: World, project: Path, tmp_path: Path
) -> None:
    sweep = Sweep(world, tmp_path)

    done = sweep.run(DEPLOY, project, Point(nth, name, "during", "mv *"))

    switched = bool(links(project, "staging")[0])
    assert (done.returncode, switched and deployed(project, "staging")) == (
        -signal.Signals[f"SIG{name}"],
        switched and "first",
    )


@pytest.mark.parametrize("nth", [1, 2, 3, 4])
def test_two_rollbacks_at_once_end_where_they_began(nth: int, world: World, project: Path, tmp_path: Path) -> None:
    before = promote(world, project, "first", "second")
    world.env["MAX_PARALLEL_BUILDS"] = "2"
    point = Point(nth, "STOP", pattern="*readlink *").env(tmp_path / "point")

    first = world.spawn(str(ORACLE / ROLL_BACK), str(project), env=point)
    until(lambda: state(first.pid) == "T", "the first roll-back at its point")
    second = world.spawn(str(ORACLE / ROLL_BACK), str(project))
    until(lambda: second.process.poll() is not None or blocked(second.pid), "the second one ended, or behind the first")
    first.signal(signal.SIGCONT)
    ends = [build.wait() for build in (first, second)]

    said = {build.errors().splitlines()[-1] for build in (first, second)}
    assert (ends, said, links(project)) == ([0, 0], {f"production: {tag}" for tag in before}, before)


def state(pid: int) -> str:
    """Return the state of a process, as ps(1) shows it."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0]


def blocked(pid: int) -> bool:
    """Return whether a script waits in flock(1)."""
    with suppress(OSError):  # one of them has ended meanwhile
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        names = {child: Path(f"/proc/{child}/comm").read_text() for child in children}
        return any("flock" in name and state(int(child)) == "S" for child, name in names.items())
    return False


def test_a_release_that_is_removed_while_it_is_copied_is_not_promoted(
    world: World, project: Path, tmp_path: Path
) -> None:
    before = promote(world, project, "first")
    staged = project / ".deploy/staging/releases" / links(project, "staging")[0]
    (tmp_path / "bin/cp").write_text(f'#!/bin/sh\n{shutil.which("cp")} "$@" && rm -r "{staged}"\n')
    (tmp_path / "bin/cp").chmod(0o755)

    result = run(world, PROMOTE, project)

    assert (result.returncode, result.stderr.splitlines()[-1], links(project)) == (
        1,
        f"promote-production.sh: the release of staging was removed meanwhile: {staged}; production is as it was",
        before,
    )


def releases(project: Path, place: str = "production") -> list[str]:
    """Return what lies where the releases are."""
    return sorted(path.name for path in (project / ".deploy" / place / "releases").iterdir())


def test_a_deploy_keeps_as_many_releases_as_are_to_be_kept(world: World, project: Path) -> None:
    tags = [promote(world, project, text, KEEP_RELEASES="3")[0] for text in ("1", "2", "3", "4", "5")]

    assert (releases(project), len(releases(project, "staging")), deployed(project, "production", "previous")) == (
        sorted(tags[2:]),
        3,
        "4",
    )


def test_what_is_live_and_what_was_before_are_kept_however_old_they_are(world: World, project: Path) -> None:
    old = promote(world, project, "first", "second")[0]
    promote(world, project, "third")
    run(world, ROLL_BACK, project)
    (project / ".deploy/production/releases/by-hand").mkdir()

    new = promote(world, project, "fourth", KEEP_RELEASES="1")[0]

    assert (links(project), releases(project)) == ((new, old), sorted([old, new, "by-hand"]))


@pytest.mark.parametrize("number", ["0", "-1", "two", "08"])
def test_a_wrong_number_of_releases_to_keep_is_refused_before_anything_is_built(
    number: str, world: World, project: Path
) -> None:
    result = run(world, DEPLOY, project, KEEP_RELEASES=number)

    assert (result.returncode, result.stderr, (project / ".deploy").exists()) == (
        1,
        f"deploy-staging.sh: KEEP_RELEASES is a number from 1 on, or empty, and not {number!r}\n",
        False,
    )


def test_what_a_running_build_makes_is_left_to_it_by_others(world: World, project: Path) -> None:
    world.env["MAX_PARALLEL_BUILDS"] = "2"
    build = 'echo built >"$ARTEFACT"; echo built; read -r _'
    slow = world.spawn(str(ORACLE / DEPLOY), str(project), env={"BUILD_COMMAND": build})
    assert slow.line() == "built"
    quick = run(world, DEPLOY, project, KEEP_RELEASES="1")
    slow.tell("")

    artefact = project / ".deploy/staging/current/artefact.tar.gz"
    assert (quick.returncode, slow.wait(), artefact.read_text()) == (0, 0, "built\n")
    assert len(releases(project, "staging")) == 2


@pytest.mark.timeout(180)
@pytest.mark.parametrize("scene", SCENES)
def test_hit_at_any_command_a_script_leaves_what_the_next_ones_can_trust(
    scene: str, world: World, tmp_path: Path
) -> None:
    sweep = Sweep(world, tmp_path)
    points = random.sample(list(sweep.points(SCENES[scene], SIGNALS, PROGRAMS)), SAMPLE)

    outcomes = {str(point): sweep.play(SCENES[scene], point) for point in points}

    assert outcomes == {str(point): (True, []) for point in points}


@pytest.mark.parametrize(("texts", "what"), [((), "release"), (("first",), "previous release")])
def test_a_rollback_without_a_release_before_says_so(
    texts: tuple[str, ...], what: str, world: World, project: Path
) -> None:
    before = promote(world, project, *texts)

    result = run(world, ROLL_BACK, project)

    assert (result.returncode, result.stderr.splitlines()[-1], links(project), world.settled()) == (
        1,
        f"rollback-production.sh: there is no {what} of production in {project}/.deploy",
        before,
        (1, {}),
    )


def test_the_users_korean_lines_hold_to_the_letter(world: World, project: Path) -> None:
    korean = {"LANG": "ko_KR.UTF-8"}
    done = run(world, "deploy-staging.sh", project, **korean)
    holder = world.wrap("Staging Deployment").started()
    late = run(world, "deploy-staging.sh", project, BUILD_TIMEOUT="0.5", **korean)
    status = run(world, "check-build-status.sh", **korean)
    reset = run(world, "force-unlock.sh", **korean)
    since = world.run("status").stdout  # the slot is free again: nothing runs by the records
    holder.end()

    assert done.stderr.splitlines()[:2] == ["✓ 빌드 슬롯 획득 (1/1)", "✓ Staging Deployment 빌드를 시작합니다."]
    assert late.returncode == 75
    assert late.stderr.startswith("⏳ 대기 중 (0/0.5초, 남은: 0.5초, 빌드: 1/1)")
    assert late.stderr.splitlines()[-3:] == [
        "❌ 타임아웃: 0.5초 동안 빌드 슬롯을 획득하지 못했습니다.",
        "   현재 빌드 상태: ./scripts/oracle/check-build-status.sh",
        "   강제 해제: ./scripts/oracle/force-unlock.sh",
    ]
    assert status.stdout.splitlines()[0] == "⏳ 진행 중인 빌드: 1/1"
    row = status.stdout.splitlines()[1].partition("] ")[2]
    assert row.startswith(f"Staging Deployment (PID: {holder.command_pid})")
    assert reset.stderr.splitlines()[-1] == "✓ 모든 락이 해제되었습니다."
    assert since == "✓ no build is running (0/1)\n"


def test_the_environment_wins_over_the_settings_file(world: World, project: Path) -> None:
    holder = world.wrap("holder").started()

    late = run(world, "deploy-staging.sh", project, BUILD_TIMEOUT="0.3", STATUS_HINT="look here")

    assert (late.returncode, late.stderr.splitlines()[-2]) == (75, "   current builds: look here")
    holder.end()


def test_the_pool_that_the_environment_names_wins_over_the_settings_files(
    world: World, project: Path, tmp_path: Path
) -> None:
    settings = tmp_path / "build-config.sh"
    settings.write_text(f"SEMAPHORE_NAME={world.name}-of-the-file\n")
    build = 'ipclock status; : >"$ARTEFACT"'

    result = run(world, DEPLOY, project, IPCLOCK_CONFIG=str(settings), BUILD_COMMAND=build)

    pools = [path.name for path in SHM.glob(f"ipclock.{world.name[1:]}*")]
    assert (result.returncode, "Staging Deployment" in result.stdout, pools) == (0, True, [world.folder.name])


def test_a_changed_settings_file_lets_a_waiting_script_in(world: World, project: Path, tmp_path: Path) -> None:
    settings = tmp_path / "build-config.sh"
    settings.write_text((ORACLE / "build-config.sh").read_text())
    world.env["IPCLOCK_CONFIG"] = str(settings)
    holder = world.wrap("holder").started()
    script = subprocess.Popen(
        [str(ORACLE / "deploy-staging.sh"), str(project)], env=world.env, stderr=subprocess.DEVNULL
    )
    until(lambda: world.records("gate"), "the script at the gate")

    settings.write_text(settings.read_text().replace("MAX_PARALLEL_BUILDS=1", "MAX_PARALLEL_BUILDS=2"))

    assert (script.wait(30), deployed(project, "staging"), holder.end(), world.value()) == (0, "first", 0, 2)


def test_the_lock_dir_of_an_old_settings_file_keeps_working(world: World, project: Path, tmp_path: Path) -> None:
    settings = tmp_path / "build-config.sh"
    lock_dir = tmp_path / "oracle-build-locks"
    settings.write_text(f'MAX_PARALLEL_BUILDS=1\nBUILD_TIMEOUT=600\nLOCK_DIR="{lock_dir}"\n')

    result = run(world, "deploy-staging.sh", project, IPCLOCK_CONFIG=str(settings))

    assert (result.returncode, [path.name for path in lock_dir.iterdir()]) == (
        0,
        [f"ipclock{world.name.replace('/', '.')}"],
    )


# an /etc of the test's own, with the settings of the package; everybody is in the group of the test's user
PACKAGE = """
mount -t tmpfs tmpfs /mnt && cp -a /etc/. /mnt/ && mount --bind /mnt /etc && mount -t tmpfs tmpfs /run
mkdir -p /etc/ipclock
sed "s/^LOCK_GROUP=.*/LOCK_GROUP=$(id -g)/" "$1/../debian/build-config.sh" >/etc/ipclock/build-config.sh
"""


def test_the_package_and_the_scripts_share_one_pool(world: World, project: Path) -> None:
    script = f"""{PACKAGE}
    ipclock wrap -q package -- sh -c 'echo >"$0"; exec sleep 1000' "$2/started" & build=$!
    trap 'kill "$build"' EXIT
    until [ -e "$2/started" ]; do :; done
    BUILD_TIMEOUT=0.2 "$1/deploy-staging.sh" "$2" 2>/dev/null || echo "$?"
    "$1/check-build-status.sh" | grep -c package
    ipclock status | grep -c package
    find /dev/shm /run -name "ipclock.${{SEMAPHORE_NAME#/}}"
    """

    status, output = unshared(["-m"], script, str(ORACLE), str(project), env=world.env)

    name = f"ipclock{world.name.replace('/', '.')}"
    assert (status, output.splitlines()) == (0, ["75", "1", "1", f"/dev/shm/{name}", f"/run/ipclock/{name}"])


def test_a_setting_of_etc_counts_unless_the_scripts_file_has_it_too(world: World, project: Path) -> None:
    script = f"""{PACKAGE}
    echo BUILD_TIMEOUT=9 >>/etc/ipclock/build-config.sh
    echo PROGRESS_INTERVAL=0.1 >>/etc/ipclock/build-config.sh
    ipclock wrap -q package -- env -u IPCLOCK_TICKET -u IPCLOCK_NAME PROJECT="$2" bash -c '
        source "$1/lib/deploy.sh"; load_config; ipclock config | grep -E "^(BUILD_TIMEOUT|PROGRESS_INTERVAL) "
    ' bash "$1"
    """

    status, output = unshared(["-m"], script, str(ORACLE), str(project), env=world.env)

    places = [" ".join(line.split()).rpartition(":")[0] for line in output.splitlines()]
    assert (status, places) == (
        0,
        [f"BUILD_TIMEOUT 600 {ORACLE}/build-config.sh", "PROGRESS_INTERVAL 0.1 /etc/ipclock/build-config.sh"],
    )


def test_what_the_scripts_file_exports_is_still_read_from_the_file(world: World, project: Path, tmp_path: Path) -> None:
    settings = tmp_path / "build-config.sh"
    assigned = "".join(f"export {setting.key}=file\n" for setting in SETTINGS)
    settings.write_text(f"{assigned}export OF_THE_BUILD=file\n")
    script = 'source "$1/lib/deploy.sh"; load_config; env'
    env = {key: text for key, text in world.env.items() if key != "HISTORY"}
    env |= {"IPCLOCK_CONFIG": str(settings), "BUILD_TIMEOUT": "3", "SEMAPHORE_NAME": "/web"}

    done = subprocess.run(
        ["bash", "-euc", script, "bash", str(ORACLE)], env=env, capture_output=True, text=True, check=False
    )

    keys = {setting.key for setting in SETTINGS} | {"OF_THE_BUILD"}
    found = dict(line.partition("=")[::2] for line in done.stdout.splitlines())
    assert (done.returncode, {key: text for key, text in found.items() if key in keys}) == (
        0,
        {"BUILD_TIMEOUT": "3", "SEMAPHORE_NAME": "/web", "OF_THE_BUILD": "file"},
    )


def test_the_shell_files_pass_shellcheck() -> None:
    shellcheck = shutil.which("shellcheck")
    if shellcheck is None:
        pytest.skip("shellcheck is not installed")
    files = sorted(str(path.relative_to(ORACLE)) for path in ORACLE.rglob("*.sh"))

    result = subprocess.run([shellcheck, "-x", *files], cwd=ORACLE, capture_output=True, text=True, check=False)

    assert (result.returncode, result.stdout, len(files)) == (0, "", 8)
