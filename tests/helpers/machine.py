"""`ipclock` on a machine that is not in order: mount namespaces of its own, other users in them, and little memory."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.helpers.crash_at import unshared

if TYPE_CHECKING:
    from tests.helpers.world import World

ROOT = Path(__file__).parent.parent.parent
# every device that Python opens, in a /dev without shm
NO_SHM = """
mount -t tmpfs tmpfs /mnt
for name in null zero random urandom tty; do touch /mnt/$name; mount --bind /dev/$name /mnt/$name; done
mount --move /mnt /dev
"""
READ_ONLY = "mount -t tmpfs -o ro tmpfs /dev/shm"
FULL = "mount -t tmpfs -o nr_inodes=1 tmpfs /dev/shm"
# what is loaded first need not be readable for the user
BECOME = """
import difflib, grp, json, os, psutil, pwd, shlex, sys
from ipclock.cli import advice, command_line
from ipclock.config import shell_file
command_line.get_parser().format_help()
uid = int(sys.argv[1])
if uid:
    os.setgroups([]); os.setgid(uid); os.setuid(uid)
sys.exit(command_line.main(sys.argv[2:]))
"""


def in_a_world_where(script: str, world: World, *arguments: str, uid: int = 0) -> tuple[int, list[str]]:
    """Run `ipclock` as user *uid* in a mount namespace of its own, after a shell script; return (exit status, lines).

    The script may end by itself; the command is its "$@".
    """
    command = ["-m", "ipclock"] if uid == 0 else ["-c", BECOME, str(uid)]
    status, output = unshared(
        ["-m"],
        f'{script}\nexec "$@"',
        *(sys.executable, *command, *arguments),
        env=world.env | {"PYTHONPATH": str(ROOT)},
    )
    return status, output.splitlines()


def memory_group(name: str, limit: int) -> Path:
    """Make a memory cgroup with a limit in bytes, and return its folder; skip the test where that is not possible."""
    for folder, file in (("/sys/fs/cgroup/memory", "memory.limit_in_bytes"), ("/sys/fs/cgroup", "memory.max")):
        group = Path(folder, name)
        try:
            group.mkdir()
            (group / file).write_text(str(limit))
        except OSError:
            if group.exists():
                group.rmdir()
            continue
        return group
    pytest.skip("no memory cgroup can be made here")
