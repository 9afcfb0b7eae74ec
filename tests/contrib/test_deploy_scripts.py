"""The deploy scripts, run for real: from any folder, on paths with blanks and Korean, on a clean pool."""

from __future__ import annotations

import shutil
import subprocess
import tarfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from ipclock import config
from tests.helpers.crash_at import unshared
from tests.helpers.world import until

if TYPE_CHECKING:
    from tests.helpers.world import World

ORACLE = Path(__file__).parents[2] / "contrib/oracle"


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


def test_a_rollback_without_a_release_before_says_so(world: World, project: Path) -> None:
    result = run(world, "rollback-production.sh", project)

    assert (result.returncode, result.stderr.splitlines()[-1], world.settled()) == (
        1,
        f"rollback-production.sh: there is no previous release of production in {project}/.deploy",
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
        source "$1/lib/deploy.sh"; load_config; ipclock doctor | grep -E "^ok   (BUILD_TIMEOUT|PROGRESS_INTERVAL):"
    ' bash "$1"
    """

    status, output = unshared(["-m"], script, str(ORACLE), str(project), env=world.env)

    assert (status, output.splitlines()) == (
        0,
        [
            f"ok   BUILD_TIMEOUT: 600 ({ORACLE}/build-config.sh: BUILD_TIMEOUT)",
            "ok   PROGRESS_INTERVAL: 0.1 (/etc/ipclock/build-config.sh: PROGRESS_INTERVAL)",
        ],
    )


def test_what_the_scripts_file_exports_is_still_read_from_the_file(world: World, project: Path, tmp_path: Path) -> None:
    settings = tmp_path / "build-config.sh"
    assigned = "".join(f"export {setting.key}=file\n" for setting in config.SETTINGS)
    settings.write_text(f"{assigned}export OF_THE_BUILD=file\n")
    script = 'source "$1/lib/deploy.sh"; load_config; env'
    env = {key: text for key, text in world.env.items() if key != "HISTORY"}
    env |= {"IPCLOCK_CONFIG": str(settings), "BUILD_TIMEOUT": "3", "SEMAPHORE_NAME": "/web"}

    done = subprocess.run(
        ["bash", "-euc", script, "bash", str(ORACLE)], env=env, capture_output=True, text=True, check=False
    )

    keys = {setting.key for setting in config.SETTINGS} | {"OF_THE_BUILD"}
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
