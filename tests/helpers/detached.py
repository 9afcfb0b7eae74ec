"""Builds that go on without their terminal, and processes that wait for them."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.helpers.world import until

if TYPE_CHECKING:
    from tests.helpers.world import Build, World


def keep_logs(world: World, folder: Path) -> Path:
    """Let the world's builds keep their output in a folder below this one; return that."""
    logs = folder / "logs"
    logs.mkdir(mode=0o700)
    for path in (folder, *folder.parents):
        if path.stat().st_mode & 0o022 and not path.stat().st_mode & 0o1000:
            pytest.skip(f"{path} is writable by other users")
    world.env["LOG_DIR"] = str(logs)
    return logs


def detach(world: World, script: str, *options: str, label: str = "staging", env: dict[str, str] | None = None) -> int:
    """Start a build of a shell script; return its ticket."""
    done = world.run("wrap", "--detach", *options, label, "--", "sh", "-c", script, env=env)
    assert (done.returncode, done.stderr) == (0, "")
    return int(done.stdout)


class Gate:
    """A pipe in the file system: a script that has `hold` in it goes on when it is opened, with the word that it gets.

    The word is in `$word`, "" if it is not told.
    """

    def __init__(self, path: Path) -> None:
        os.mkfifo(path)
        self.path = path
        self.hold = f"read -r word <{path}"

    def open(self, word: str = "") -> None:
        """Let the script go on; waits until it is there."""
        self.path.write_text(f"{word}\n")


def watches(waiter: Build) -> Build:
    """Return a process once it sleeps and watches another one, or has ended."""

    def sleeps() -> bool:
        proc = Path(f"/proc/{waiter.pid}")
        with suppress(OSError):  # a descriptor that is closed just then
            watched = "anon_inode:[pidfd]" in {os.readlink(path) for path in (proc / "fd").iterdir()}
            return watched and "poll" in (proc / "wchan").read_text()
        return False

    until(lambda: sleeps() or waiter.process.poll() is not None, "a process that watches another")
    return waiter
