"""The machine as it shows itself: mounts, room, writing, on real file systems."""

from __future__ import annotations

import errno
import json
import math
import os
import sys
from pathlib import Path

import pytest

from ipclock.linux import machine, process
from tests.helpers.crash_at import USER, in_child, unshared

ROOT = str(Path(__file__).parents[3])
ASK = f"""
import json, sys
sys.path.insert(0, {ROOT!r})
from ipclock.linux import machine
found = [machine.mount_of(path) for path in sys.argv[1:]]
print(json.dumps([[mount.path, mount.kind, sorted(mount.options & {{"size=8k", "size=16k"}})] for mount in found]))
"""


def files(path: Path) -> list[str]:
    return sorted(os.listdir(path))


def test_a_path_lies_on_the_deepest_mount_and_the_last_one_there() -> None:
    script = """
mount -t tmpfs tmpfs /mnt
mkdir "/mnt/a b" "/mnt/a bc"
mount -t tmpfs -o size=8k tmpfs "/mnt/a b"
mount -t tmpfs -o size=16k tmpfs "/mnt/a b"
exec "$@"
"""

    status, output = unshared(["-m"], script, sys.executable, "-c", ASK, "/mnt/a b/file", "/mnt/a bc", "/mnt")

    assert (status, json.loads(output)) == (
        0,
        [["/mnt/a b", "tmpfs", ["size=16k"]], ["/mnt", "tmpfs", []], ["/mnt", "tmpfs", []]],
    )


def test_of_a_process_that_is_not_there_no_mount_is_known() -> None:
    assert machine.mount_of("/", 1 << 22) is None


def test_a_trial_leaves_nothing_behind(tmp_path: Path) -> None:
    machine.try_writing(str(tmp_path))

    assert files(tmp_path) == []


def test_a_folder_that_takes_no_files_of_ours_is_told(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)

    def refused(path: str) -> int:
        try:
            machine.try_writing(path)
        except OSError as error:
            return error.errno or 0
        return 0

    assert [
        refused(str(tmp_path / "none")),
        in_child(lambda: refused("/"), USER),
        # one that knows no files without a name
        in_child(lambda: refused("/dev/pts"), USER),
        refused("/dev/pts"),
    ] == [errno.ENOENT, errno.EACCES, errno.EACCES, 0]


def test_the_room_is_that_of_the_file_system(tmp_path: Path) -> None:
    left, told = machine.room(str(tmp_path)), os.statvfs(tmp_path)

    assert (left.block, 0 < left.bytes <= told.f_blocks * told.f_frsize) == (told.f_frsize, True)


def test_without_limits_the_room_is_infinite() -> None:
    code = (
        f"import sys; sys.path.insert(0, {ROOT!r}); from ipclock.linux import machine; print(*machine.room('/mnt')[:2])"
    )
    script = 'mount -t tmpfs -o size=0,nr_inodes=0 tmpfs /mnt; exec "$@"'

    assert unshared(["-m"], script, sys.executable, "-c", code) == (0, f"{math.inf} {math.inf}\n")


def test_a_kernel_setting_is_a_number_or_unknown() -> None:
    limit = int(Path("/proc/sys/kernel/pid_max").read_text())

    found = [machine.sysctl(name) for name in ("kernel.pid_max", "no.such.setting", "kernel.ostype")]

    assert found == [limit, None, None]


@pytest.mark.parametrize("options", [[], ["-p", "-f", "--mount-proc"]])
def test_a_pid_namespace_of_ones_own_is_a_container(options: list[str]) -> None:
    code = f"import sys; sys.path.insert(0, {ROOT!r}); from ipclock.linux import process; print(process.is_contained())"

    status, output = unshared(["-m", *options], 'exec "$@"', sys.executable, "-c", code)

    assert (status, output.strip()) == (0, str(True if options else process.is_contained()))
