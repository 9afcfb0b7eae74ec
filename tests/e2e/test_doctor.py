"""`ipclock doctor`: each check in a world that is in order and in one that is not; nothing is changed by it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import posix_ipc
import pytest

from ipclock.linux import machine, process
from ipclock.linux.locks import try_lock
from ipclock.linux.semaphore import path_of
from tests.helpers.crash_at import OTHER_USER, USER, Client, in_child, needs_root, stopped_owner, sysctl, unshared
from tests.helpers.machine import FULL, NO_SHM, READ_ONLY, ROOT, in_a_world_where
from tests.helpers.world import SHM, until

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.helpers.world import World

CHECK = {"name": str, "level": str, "finding": str, "remedy": str}
# what depends on the machine that runs the tests
SURROUNDINGS = {
    "shm",
    "shm-room",
    "shm-shared",
    "lock-dir",
    "lock-dir-shared",
    "pid-namespace",
    "hidepid",
    "remove-ipc",
}


def parsed(text: str) -> dict[str, dict[str, str]]:
    """Return the checks of a doctor's JSON by name."""
    return {row["name"]: row for row in json.loads(text)["checks"]}


def doctor(world: World, *options: str, **more: Any) -> tuple[int, dict[str, dict[str, str]]]:
    """Return (exit status, the checks by name)."""
    result = world.run("doctor", "--json", *options, **more)
    assert result.stderr == ""
    return result.returncode, parsed(result.stdout)


def check(world: World, name: str) -> tuple[str, str, str]:
    """Return (level, finding, remedy) of one check."""
    row = doctor(world)[1][name]
    return row["level"], row["finding"], row["remedy"]


def levels(world: World, *names: str) -> list[str]:
    found = doctor(world)[1]
    return [found[name]["level"] for name in names]


def elsewhere(script: str, world: World, *options: str, uid: int = 0) -> tuple[int, dict[str, dict[str, str]]]:
    """Return what `doctor` does in a mount namespace of its own, after a shell script."""
    status, lines = in_a_world_where(script, world, "doctor", "--json", *options, uid=uid)
    return status, parsed("\n".join(lines))


@pytest.mark.parametrize("language", ["en", "ko"])
def test_the_codes_of_schema_2_are_the_same_in_every_language(language: str, world: World) -> None:
    world.ask("init")
    Path(path_of(world.name)).unlink()

    result = world.run("doctor", "--json=2", env={"IPCLOCK_LANG": language})

    shown = json.loads(result.stdout)
    rows = {row["name"]: (row["code"], row["level"]) for row in shown["checks"]}
    assert (shown["schema"], rows["semaphore"], rows["pool"], rows["BUILD_TIMEOUT"], [*shown["checks"][0]]) == (
        2,
        ("semaphore-missing", "warn"),
        ("pool-sound", "ok"),
        ("setting", "ok"),
        ["name", "code", "level", "finding", "remedy"],
    )


# The whole


def test_where_all_is_in_order_there_is_no_remedy_and_the_status_is_0(world: World) -> None:
    world.ask("init")

    # as an option the name is none that others would lack
    status, found = doctor(world, "--name", world.name)

    amiss = {name for name, row in found.items() if row["level"] != "ok" or row["remedy"]}
    assert (status, amiss - SURROUNDINGS) == (0, set())


def test_json_has_the_documented_keys(world: World) -> None:
    report = json.loads(world.run("doctor", "--json").stdout)

    shapes = [{key: type(value) for key, value in row.items()} for row in report["checks"]]
    assert ({key: report[key] for key in ("schema", "name")}, shapes) == (
        {"schema": 1, "name": world.name},
        [CHECK] * len(report["checks"]),
    )


def test_a_line_a_check_and_its_remedy_below(world: World) -> None:
    shm = Path(path_of(world.name))
    shm.touch()

    result = world.run("doctor", "--all")

    lines = result.stdout.splitlines()
    bad = next(number for number, line in enumerate(lines) if line.startswith("bad"))
    assert (
        result.returncode,
        lines[bad : bad + 2],
        {line.split(" ")[0] for line in lines} <= {"ok", "warn", "bad", ""},
    ) == (
        69,
        [f"bad  semaphore: {shm}: not a usable semaphore: wrong size or content", "   'ipclock reset' replaces it."],
        True,
    )


@pytest.mark.parametrize("language", ["en", "ko"])
def test_what_is_in_order_is_only_counted(world: World, language: str) -> None:
    Path(path_of(world.name)).touch()
    env = {"IPCLOCK_LANG": language}

    short, whole = (world.run("doctor", *words, env=env).stdout.splitlines() for words in ((), ("--all",)))

    good = [line for line in whole if line.startswith("ok ")]
    assert short[:-1] == [line for line in whole if line not in good]
    assert (len(good) > 20, f" {len(good)}" in short[-1], "'ipclock doctor --all'" in short[-1]) == (True, True, True)


def test_the_findings_are_korean_where_the_locale_is(world: World) -> None:
    text = world.run("doctor", "-v", env={"LANG": "ko_KR.UTF-8"}).stdout

    assert ("아직 만들어지지 않았습니다" in text, "not created yet" in text) == (True, False)


@pytest.mark.parametrize("made", [False, True])
def test_nothing_is_made_and_nothing_in_the_pool_is_touched(made: bool, world: World) -> None:
    if made:
        world.ask("init")

    def stamps() -> dict[str, tuple[int, int]]:
        paths = [world.folder, *world.folder.rglob("*"), Path(path_of(world.name))]
        return {str(path): (path.stat().st_mtime_ns, path.stat().st_ctime_ns) for path in paths if path.exists()}

    before, names = stamps(), set(os.listdir(SHM))
    status, _ = doctor(world)

    ours = {name for name in set(os.listdir(SHM)) - names if world.name[1:] in name or "doctor" in name}
    assert (status, stamps() == before, bool(before), ours) == (0, True, made, set())


# /dev/shm and LOCK_DIR

DISK = mounted.kind if (mounted := machine.mount_of(str(ROOT))) else "?"
WORLDS = {
    "missing": (NO_SHM, {"shm": "bad"}, "/dev/shm: not available: no such directory"),
    "a file": (f"{NO_SHM}\ntouch /dev/shm", {"shm": "bad"}, "/dev/shm: not available: no such directory"),
    "read-only": (READ_ONLY, {"shm": "bad"}, "/dev/shm/: cannot create or write: Read-only file system"),
    "full": (FULL, {"shm": "bad"}, "/dev/shm/: cannot create or write: No space left on device"),
    "everybody's": (
        "mount -t tmpfs -o mode=0777 tmpfs /dev/shm",
        {"shm": "bad", "shm-room": "ok"},
        "/dev/shm: all users may remove each other's files",
    ),
    "on a disk": (
        f"mount --bind {ROOT} /dev/shm",
        {"shm": "warn"},
        f"/dev/shm: on {DISK}: may be slow, and files survive a reboot",
    ),
    "with little room": (
        "mount -t tmpfs -o size=512k tmpfs /dev/shm",
        {"shm": "ok", "shm-room": "warn"},
        "/dev/shm: on tmpfs, writable",
    ),
    "with a page": (
        "mount -t tmpfs -o size=4k tmpfs /dev/shm",
        {"shm": "ok", "shm-room": "warn"},
        "/dev/shm: on tmpfs, writable",
    ),
    "with few inodes": (
        "mount -t tmpfs -o nr_inodes=20 tmpfs /dev/shm",
        {"shm": "ok", "shm-room": "warn"},
        "/dev/shm: on tmpfs, writable",
    ),
    "without limits": (
        "mount -t tmpfs -o size=0,nr_inodes=0 tmpfs /dev/shm",
        {"shm": "ok", "shm-room": "ok"},
        "/dev/shm: on tmpfs, writable",
    ),
}


@pytest.mark.parametrize("shape", WORLDS)
def test_a_dev_shm_that_will_not_do_is_told_with_a_remedy(shape: str, world: World) -> None:
    script, expected, finding = WORLDS[shape]
    if shape == "on a disk" and DISK in ("tmpfs", "ramfs"):
        pytest.skip("this checkout lies on no disk")

    status, found = elsewhere(script, world)

    assert (
        {name: found[name]["level"] for name in expected},
        found["shm"]["finding"],
        [name for name, row in found.items() if row["level"] != "ok" and not row["remedy"]],
        status,
    ) == (expected, finding, [], 69 if "bad" in {row["level"] for row in found.values()} else 0)


def test_a_full_device_shows_no_room_at_all(world: World) -> None:
    full = "mount -t tmpfs -o size=64k tmpfs /dev/shm; cat /dev/zero >/dev/shm/filler 2>/dev/null || true"

    status, found = elsewhere(full, world)

    assert (status, found["shm"]["level"]) == (69, "bad")


def test_a_user_who_may_not_write_is_told(world: World) -> None:
    status, found = elsewhere("mount -t tmpfs -o mode=0755 tmpfs /dev/shm", world, uid=USER)

    assert (status, found["shm"]["level"], found["shm"]["finding"][:9]) == (69, "bad", "/dev/shm/")


def lock_dir_missing(path: Path) -> str:
    return str(path / "not" / "yet")


def lock_dir_open(path: Path) -> str:
    path.chmod(0o777)
    return str(path)


def lock_dir_file(path: Path) -> str:
    (path / "file").touch()
    return str(path / "file")


def lock_dir_is_nowhere(path: Path) -> str:
    (path / "link").symlink_to(path / "nowhere")
    return str(path / "link")


@pytest.mark.parametrize(
    ("make", "bad"),
    [
        (str, False),
        (lock_dir_missing, False),
        (lock_dir_open, True),
        (lock_dir_file, True),
        (lock_dir_is_nowhere, True),
    ],
)
def test_the_folder_of_the_records_is_looked_at_like_dev_shm(
    make: Callable[[Path], str], bad: bool, world: World, tmp_path: Path
) -> None:
    status, found = doctor(world, "--lock-dir", make(tmp_path))

    assert (status, found["lock-dir"]["level"] == "bad", list(tmp_path.rglob("yet"))) == (69 if bad else 0, bad, [])


def test_a_lock_folder_of_root_in_which_a_shared_pool_takes_files_will_do(world: World) -> None:
    needs_root(0)
    place = SHM / f"{world.folder.name}.place"
    place.mkdir(0o755)
    world.ask("init", "--lock-dir", str(place))
    for path in place.rglob("*"):
        shutil.chown(path, USER, USER)

    client = Client("doctor", "--all", "--lock-dir", str(place), env=world.env | {"HOME": "/nonexistent"}, uid=USER)
    lines = []
    while line := client.line():
        lines.append(line)
    client.close()
    shutil.rmtree(place)

    assert [line for line in lines if line.startswith("ok   lock-dir:")] != []


def test_a_private_dev_shm_is_told_from_the_machines(world: World) -> None:
    if process.is_contained():
        pytest.skip("this is a container: what the machine's first process sees cannot be seen")

    here, there = doctor(world)[1], elsewhere("mount -t tmpfs tmpfs /dev/shm", world)[1]

    assert [(row["shm-shared"]["level"], row["shm-shared"]["finding"]) for row in (here, there)] == [
        ("ok", "/dev/shm: shared with the whole machine"),
        ("warn", "/dev/shm: private: builds elsewhere on this machine are not counted"),
    ]


def test_in_a_container_nothing_is_claimed_about_the_machine(world: World) -> None:
    status, output = unshared(
        ["-m", "-p", "-f", "--mount-proc"],
        'exec "$@"',
        *(sys.executable, "-m", "ipclock", "doctor", "--json"),
        env=world.env | {"PYTHONPATH": str(ROOT)},
    )

    found = parsed(output)
    assert (status, [found[name]["level"] for name in ("shm-shared", "pid-namespace")]) == (0, ["warn", "warn"])


# The system

LOGIND = """
mount -t tmpfs tmpfs /mnt
{ cat /etc/passwd; echo "builder:x:54321:54321::/:/bin/sh"; } >/mnt/passwd; mount --bind /mnt/passwd /etc/passwd
touch /mnt/login.defs; mount --bind /mnt/login.defs /etc/login.defs
mount -t tmpfs tmpfs /run; mount -t tmpfs tmpfs /etc/systemd; mount -t tmpfs tmpfs /var/lib/systemd
mkdir -p /run/systemd/system /run/systemd/logind.conf.d /etc/systemd/logind.conf.d /var/lib/systemd/linger
"""
NO = "printf '[Login]\\nRemoveIPC=no\\n' >"
YES = "printf '[Login]\\n RemoveIPC = yes\\n' >"
REMOVERS = {
    "by default": ("", USER, "warn"),
    "not without systemd": ("rmdir /run/systemd/system", USER, "ok"),
    "not of root": ("", 0, "ok"),
    "not of system users": ("echo 'SYS_UID_MAX 60000' >/etc/login.defs", USER, "ok"),
    "of users above the system's": ("echo 'SYS_UID_MAX 54320' >/etc/login.defs", USER, "warn"),
    "not of those who linger": ("touch /var/lib/systemd/linger/builder", USER, "ok"),
    "not where it is off": (f"{NO}/etc/systemd/logind.conf", USER, "ok"),
    "not in another section": ("printf '[Else]\\nRemoveIPC=no\\n' >/etc/systemd/logind.conf", USER, "warn"),
    "by a comment": ("printf '[Login]\\n#RemoveIPC=no\\n' >/etc/systemd/logind.conf", USER, "warn"),
    "by a value that is none": ("printf '[Login]\\nRemoveIPC=perhaps\\n' >/etc/systemd/logind.conf", USER, "warn"),
    "first folder's main file": (f"{NO}/etc/systemd/logind.conf; {YES}/run/systemd/logind.conf", USER, "ok"),
    "drop-in over main file": (f"{NO}/etc/systemd/logind.conf; {YES}/run/systemd/logind.conf.d/a.conf", USER, "warn"),
    "later drop-in": (
        f"{YES}/etc/systemd/logind.conf.d/a.conf; {NO}/run/systemd/logind.conf.d/b.conf",
        USER,
        "ok",
    ),
    "masked drop-in": (
        f"{NO}/run/systemd/logind.conf.d/a.conf; ln -s /dev/null /etc/systemd/logind.conf.d/a.conf",
        USER,
        "warn",
    ),
    "no drop-in without .conf": (f"{NO}/etc/systemd/logind.conf.d/a.conf.orig", USER, "warn"),
}


@pytest.mark.parametrize("how", REMOVERS)
def test_what_a_logout_would_delete_is_told(how: str, world: World) -> None:
    needs_root(0)
    script, uid, level = REMOVERS[how]

    _, found = elsewhere(f"{LOGIND}\n{script}", world, uid=uid)

    row = found["remove-ipc"]
    assert (row["level"], "enable-linger builder" in row["remedy"]) == (level, level == "warn")


def test_the_remedy_against_a_logout_is_one(world: World) -> None:
    needs_root(0)
    apart = f"{LOGIND}\nmkdir /run/ipclock\n{sys.executable} -m ipclock init --lock-dir /run/ipclock >/dev/null"

    _, found = elsewhere(apart, world, "--lock-dir", "/run/ipclock", uid=USER)

    assert found["remove-ipc"]["level"] == "ok"


def test_for_a_users_pool_root_is_told_what_becomes_of_it(world: World) -> None:
    needs_root(0)
    in_child(lambda: world.folder.mkdir(0o700), USER)

    _, found = elsewhere(LOGIND, world)

    assert (found["remove-ipc"]["level"], "builder" in found["remove-ipc"]["finding"]) == ("warn", True)


def test_hidden_processes_are_told_to_those_who_cannot_see_them(world: World) -> None:
    needs_root(0)
    hide = "mount -t proc -o hidepid=2 proc /proc"

    found = [
        elsewhere(script, world, uid=uid)[1]["hidepid"]["level"]
        for script, uid in ((hide, USER), (hide, 0), (f"{hide[:-11]},gid={USER} proc /proc", USER))
    ]

    assert found == ["warn", "ok", "ok"]


@pytest.mark.parametrize("value", [0, 1, 2])
def test_protected_regular_is_shown_and_in_order_with_any_value(value: int, world: World) -> None:
    with sysctl("fs/protected_regular", value):
        level, finding, _ = check(world, "protected-regular")

    # it is the whole machine's, so somebody else may have set it meanwhile
    shown = finding.removeprefix("fs.protected_regular is ").partition(":")[0]
    assert (level, shown in ("0", "1", "2")) == ("ok", True)


# The pool


def test_a_pool_that_nobody_has_made_is_in_order(world: World) -> None:
    status, found = doctor(world)

    assert (status, [found[name]["level"] for name in ("pool", "semaphore")], "mutex" in found) == (
        0,
        ["ok"] * 2,
        False,
    )


def test_a_foreign_pool_is_bad_and_its_owner_is_named(world: World) -> None:
    needs_root(0)
    Client("init", env=world.env | {"HOME": "/nonexistent"}, uid=OTHER_USER).wait()

    client = Client("doctor", env=world.env | {"HOME": "/nonexistent"}, uid=USER)
    lines = []
    while line := client.line():
        lines.append(line)
    status = client.wait()
    client.close()

    owners = [str(OTHER_USER) in line for line in lines if line.startswith(("bad  pool:", "bad  semaphore:"))]
    assert (status, owners) == (69, [True, True])


def test_a_semaphore_of_somebody_else_without_a_pool_is_bad(world: World) -> None:
    in_child(lambda: bool(posix_ipc.Semaphore(world.name, posix_ipc.O_CREX, 0o666, 1)), OTHER_USER)

    level, finding, _ = check(world, "semaphore")

    assert (level, str(OTHER_USER) in finding) == ("bad", True)


def replaced(path: Path) -> Path:
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    return path


DAMAGE: dict[str, tuple[Callable[[World], object], str, str]] = {
    "no folder for holders": (lambda world: replaced(world.folder / "holding"), "pool", "warn"),
    "no mutex": (lambda world: replaced(world.folder / "mutex"), "pool", "warn"),
    "a file for a folder": (lambda world: replaced(world.folder / "holding").touch(), "pool", "bad"),
    "a file for the pool": (lambda world: replaced(world.folder).touch(), "pool", "bad"),
    "a link for the pool": (lambda world: replaced(world.folder).symlink_to("/tmp"), "pool", "bad"),
    "everybody's": (lambda world: world.folder.chmod(0o777), "pool", "bad"),
    "a mode of its own": (lambda world: (world.folder / "ticket").chmod(0o644), "pool", "warn"),
    "a folder's mode": (lambda world: (world.folder / "queued").chmod(0o755), "pool", "warn"),
    "no semaphore": (lambda world: Path(path_of(world.name)).unlink(), "semaphore", "warn"),
    "a semaphore's mode": (lambda world: Path(path_of(world.name)).chmod(0o644), "semaphore", "warn"),
    "a semaphore of size 0": (lambda world: replaced(Path(path_of(world.name))).touch(), "semaphore", "bad"),
    "a linked semaphore": (lambda world: replaced(Path(path_of(world.name))).symlink_to("/x"), "semaphore", "bad"),
    "a FIFO for a semaphore": (lambda world: os.mkfifo(replaced(Path(path_of(world.name)))), "semaphore", "bad"),
    "a damaged record": (lambda world: (world.folder / "holding" / "5.1").touch(0o600), "records", "warn"),
    "a record with a mode": (lambda world: (world.folder / "holding" / "5.1").touch(0o640), "pool", "warn"),
}


@pytest.mark.parametrize("how", DAMAGE)
def test_a_damaged_pool_is_told_with_a_remedy_and_the_other_checks_go_on(how: str, world: World) -> None:
    harm, name, level = DAMAGE[how]
    world.ask("init")
    harm(world)

    status, found = doctor(world)

    assert (found[name]["level"], bool(found[name]["remedy"]), status, "RESET_HINT" in found) == (
        level,
        True,
        69 if level == "bad" else 0,
        True,
    )


def test_a_shared_pool_is_in_order_and_what_is_not_shared_in_it_is_told(world: World) -> None:
    needs_root(0)
    shared = ("--mode", "0660", "--group", str(USER))
    made = world.run("init", *shared).returncode
    before = levels(world, "pool", "semaphore")
    os.chown(world.folder / "gate", 0, OTHER_USER)
    os.chown(path_of(world.name), 0, OTHER_USER)

    found = doctor(world)[1]

    rows = [(found[name]["level"], found[name]["remedy"]) for name in ("pool", "semaphore")]
    assert (made, before, rows) == (
        0,
        ["ok", "ok"],
        [
            ("warn", f"Set the mode of files to 0660, that of directories to 2770, and the owner to root:{USER}."),
            ("warn", f"chgrp {USER} {path_of(world.name)} && chmod 0660 {path_of(world.name)}"),
        ],
    )


def test_a_folder_of_a_stranger_in_the_pool_is_told(world: World) -> None:
    needs_root(0)
    world.ask("init")
    os.chown(world.folder / "gate", OTHER_USER, OTHER_USER)

    level, finding, _ = check(world, "pool")

    assert (level, finding.endswith(": gate")) == ("warn", True)


def test_a_number_of_a_stranger_in_the_pool_is_bad_until_root_takes_it_over(world: World) -> None:
    needs_root(0)
    world.ask("init")
    path = world.folder / "epoch"
    os.chown(path, OTHER_USER, OTHER_USER)

    found = check(world, "pool")
    world.ask("init")

    remedy = "'ipclock init' takes it over; running builds keep their slots."
    told = ("bad", f"{path}: not permitted: not part of the pool", remedy)
    assert (found, levels(world, "pool")) == (told, ["ok"])


@pytest.mark.parametrize(("change", "level"), [(0, "ok"), (1, "warn"), (-1, "warn")])
def test_a_value_that_the_records_do_not_explain_is_told(change: int, level: str, world: World) -> None:
    world.ask("init")
    semaphore = posix_ipc.Semaphore(world.name)
    if change:
        semaphore.release() if change > 0 else semaphore.acquire(0)
    semaphore.close()

    found = check(world, "value")[0]

    # the remedy that is named
    assert (found, world.run("init").returncode, check(world, "value")[0]) == (level, 0, "ok")


def test_a_value_that_is_off_while_somebody_waits_is_the_waiters_business(world: World) -> None:
    holder = world.wrap("holder").started()
    waiter = world.wrap("waiter")
    until(lambda: world.records("gate"), "the waiter at the gate")
    waiter.signal(signal.SIGSTOP)
    world.post()

    found = check(world, "value")[0]
    waiter.signal(signal.SIGCONT)

    assert (found, holder.end(), waiter.started().end()) == ("ok", 0, 0)


def test_a_turn_of_another_user_that_nobody_waits_for_is_named_and_a_reset_removes_it(world: World) -> None:
    needs_root(0)
    holder = world.wrap("holder").started()
    waiters = []
    for number in range(2):
        waiters.append(world.wrap(f"waiter {number}"))
        until(lambda: world.waiting() == len(waiters), "one more in line")
    until(lambda: len(world.turns()) == 1, "the turn of the second")
    before = check(world, "turns")
    for waiter in waiters:  # or a tick of theirs removes it first
        waiter.signal(signal.SIGSTOP)
    left = Path(path_of(f"{world.name}.99"))
    left.touch(0o600)
    os.chown(left, USER, USER)

    found = check(world, "turns")
    world.run("reset")
    for waiter in waiters:
        waiter.signal(signal.SIGCONT)
    ended = [build.started().end() for build in waiters] + [holder.end()]

    assert (before[0], found[:2], left.exists(), check(world, "turns")[0], ended) == (
        "ok",
        ("warn", f"leftover wake-up semaphores: {left} ({USER})"),
        False,
        "ok",
        [0, 0, 0],
    )


def test_an_orphan_is_named_with_its_processes_and_what_ends_it(world: World) -> None:
    orphan = world.wrap("lonely").started()
    before = check(world, "orphans")[0]
    orphan.signal(signal.SIGKILL)
    orphan.wait()

    level, finding, remedy = check(world, "orphans")
    ended = world.run(*remedy.partition("ipclock ")[2].split()).returncode

    assert (
        before,
        level,
        f"lonely (ticket 1, PIDs {orphan.command_pid})" in finding,
        ended,
        check(world, "orphans"),
    ) == (
        "ok",
        "warn",
        True,
        0,
        ("ok", "no orphaned builds", ""),
    )


def test_without_psutil_the_other_checks_go_on_although_there_is_an_orphan(world: World) -> None:
    orphan = world.wrap("lonely").started()
    orphan.signal(signal.SIGKILL)
    orphan.wait()
    code = (
        "import sys; sys.modules['psutil'] = None;"
        "from ipclock.cli.command_line import main; sys.exit(main(['doctor', '--json']))"
    )

    run = world.spawn(sys.executable, "-c", code)
    output, errors = run.process.communicate()

    found = parsed(output.decode())
    assert (run.wait(), errors, found["versions"]["level"], "RESET_HINT" in found) == (69, b"", "bad", True)


@pytest.mark.parametrize("command", ["doctor", "wrap"])
def test_a_c_library_that_is_not_glibc_is_refused(world: World, command: str) -> None:
    # as musl's answers: no Python that was built for it is at hand
    code = """
import errno, os, sys
def confstr(name):
    raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
os.confstr = confstr
from ipclock.cli.command_line import main
sys.exit(main(sys.argv[1:]))
"""
    words = {"doctor": ["doctor"], "wrap": ["wrap", "-q", "staging", "--", "true"]}[command]

    run = world.spawn(sys.executable, "-c", code, *words)
    output, errors = run.process.communicate()

    assert (run.wait(), b"not glibc" in output + errors, b"Traceback" in errors) == (69, True, False)
    assert not Path(path_of(world.name)).exists()


def test_a_stopped_owner_of_the_mutex_is_named(world: World) -> None:
    world.ask("init")
    before = check(world, "mutex")[0]
    with stopped_owner(world) as owner:
        status, found = doctor(world)

    assert (before, status, found["mutex"]["level"], found["mutex"]["finding"], found["mutex"]["remedy"]) == (
        "ok",
        69,
        "bad",
        f"locked by process {owner}, which is stopped",
        f"Continue the process (kill -CONT {owner}) or kill it (kill -KILL {owner}).",
    )


@pytest.mark.parametrize(("seconds", "level"), [(0, "ok"), (3600, "bad")])
def test_a_mutex_is_stuck_only_after_a_while(seconds: int, level: str, world: World) -> None:
    world.ask("init")
    fd = os.open(world.folder / "mutex", os.O_RDWR)
    assert try_lock(fd)
    os.pwrite(fd, b"%-20d\n" % os.getpid(), 0)
    if seconds:
        os.utime(fd, (0, os.fstat(fd).st_mtime - seconds))

    found = check(world, "mutex")
    os.close(fd)

    assert (found[0], f"locked by process {os.getpid()}" in found[1]) == (level, True)


# The settings


def test_each_setting_is_shown_with_where_it_stands(world: World, tmp_path: Path) -> None:
    file = tmp_path / "build-config.sh"
    file.write_text("BUILD_TIMEOUT=90s\nSTATUS_HINT='from the file'\n")

    _, found = doctor(
        world, "--config", str(file), "--lock-dir", "/dev/shm", env={"PROGRESS_INTERVAL": "2", "STATUS_HINT": "env"}
    )

    keys = ("settings-file", "LOCK_DIR", "PROGRESS_INTERVAL", "STATUS_HINT", "BUILD_TIMEOUT", "LEFTOVERS")
    assert [found[key]["finding"] for key in keys] == [
        f"{file}: read",
        "/dev/shm (--lock-dir)",
        "2 ($PROGRESS_INTERVAL)",
        "env ($STATUS_HINT)",
        f"90s ({file}: BUILD_TIMEOUT)",
        "release (default)",
    ]


def test_the_places_of_a_settings_file_are_named_where_there_is_none(world: World, tmp_path: Path) -> None:
    _, found = doctor(world, env={"XDG_CONFIG_HOME": str(tmp_path)})

    first = f"{tmp_path}/ipclock/build-config.sh"
    finding = found["settings-file"]["finding"]
    assert finding in (f"none found: {first}, /etc/ipclock/build-config.sh", "/etc/ipclock/build-config.sh: read")


@pytest.mark.parametrize("content", [b"no assignment\n", b"\xff\n", None])
def test_a_settings_file_that_cannot_be_read_is_bad_and_the_defaults_are_checked(
    content: bytes | None, world: World, tmp_path: Path
) -> None:
    file = tmp_path / "build-config.sh"
    if content:
        file.write_bytes(content)

    status, found = doctor(world, env={"IPCLOCK_CONFIG": str(file)})

    bad = [
        (name, str(file) in row["finding"], bool(row["remedy"])) for name, row in found.items() if row["level"] == "bad"
    ]
    assert (status, bad, found["BUILD_TIMEOUT"]["finding"]) == (69, [("settings-file", True, True)], "600 (default)")


@pytest.mark.parametrize("where", ["option", "environment", "file"])
def test_a_value_that_cannot_be_is_bad_and_its_default_is_checked(where: str, world: World, tmp_path: Path) -> None:
    file = tmp_path / "build-config.sh"
    file.write_text("LOCK_DIR=relative\n" if where == "file" else "")

    status, found = doctor(
        world,
        *(["--lock-dir", "relative"] if where == "option" else []),
        env={"IPCLOCK_CONFIG": str(file), "LOCK_DIR": "relative" if where == "environment" else ""},
    )

    bad = [name for name, row in found.items() if row["level"] == "bad"]
    assert (status, bad, found["pool"]["finding"].split(":")[0]) == (69, ["LOCK_DIR"], str(world.folder))
