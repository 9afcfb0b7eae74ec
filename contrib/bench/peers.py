"""The peers: how each of them runs `TOOL [-j N] -- COMMAND` under a fresh lock, as it comes, without tuning."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).parent


class Peer(NamedTuple):
    """A row of the table. `command`, `settings` (the environment), `prepare` and `finish` are lines of words.

    In them stand {n} for the slots, {folder} and {name} for a folder and a name that nobody else uses, {home} for a
    folder on a disk, {tools} for what was compiled, {python} for the Python under test and {bin} for the folder of
    its programs.
    `debian` and `pypi` name the package. `counts` says whether it can count to more than one.
    """

    name: str
    command: str
    settings: str = ""
    prepare: str = ""
    finish: str = ""
    debian: str = ""
    pypi: str = ""
    counts: bool = True

    def missing(self, places: dict[str, str]) -> str:
        """Return what it takes to have this peer here, empty if nothing."""
        program = self.command.split()[0].format(**places, n=1, folder="", name="")
        if shutil.which(program) is None or not self.version(places):
            return f"pip install {self.pypi}" if self.pypi else f"apt-get install {self.debian}"
        return ""

    def version(self, places: dict[str, str]) -> str:
        """Return the version of the package, empty if it is not installed; `-` for what comes with the benchmark."""
        if self.pypi:
            code = f"import importlib.metadata as m; print(m.version({self.pypi!r}))"
            command = [places["python"], "-c", code]
        elif self.debian:
            command = ["dpkg-query", "-W", "-f=${Version}", self.debian]
        else:
            return "-"
        try:
            return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
        except FileNotFoundError:  # not a Debian: the program's being there must do
            return "?"


PEERS = (
    Peer("floor", "{tools}/floor /{name} {n}"),
    Peer(
        "ipclock",
        "{bin}/ipclock wrap -q -w 600 bench --",
        settings="MAX_PARALLEL_BUILDS={n} SEMAPHORE_NAME=/{name} LOCK_DIR={folder} HISTORY={home}/history.db"
        " IPCLOCK_CONFIG={folder}/config",
        prepare="touch {folder}/config",
        pypi="ipclock",
    ),
    Peer("posix_ipc", "{python} {scripts}/with_posix_ipc.py /{name} {n}", pypi="posix_ipc"),
    Peer("flock", "flock {folder}/lock", debian="util-linux", counts=False),
    Peer("s6-setlock", "s6-setlock {folder}/lock", debian="s6", counts=False),
    Peer(
        "sem",
        "sem --will-cite -j {n} --id bench --fg",
        settings="PARALLEL_HOME={folder}",
        debian="parallel",
    ),
    Peer(
        "tsp",
        "tsp -nf",
        settings="TS_SOCKET={folder}/socket TS_SLOTS={n} TS_MAXCONN=5000 TMPDIR={folder}",
        prepare="tsp",
        finish="tsp -K",
        debian="task-spooler",
    ),
    Peer("filelock", "{python} {scripts}/with_filelock.py {folder}/lock", pypi="filelock", counts=False),
    Peer("portalocker", "{python} {scripts}/with_portalocker.py {folder} {n}", pypi="portalocker"),
    Peer(
        "reslock",
        "{bin}/reslock run --state {folder}/state --cpu 1 --",
        prepare="{bin}/reslock set cpu_cores {n} --state {folder}/state",
        pypi="reslock",
    ),
)


def environment(settings: str) -> dict[str, str]:
    """Return what a peer sees of our environment, which is next to nothing, and its settings."""
    pairs = (pair.split("=", 1) for pair in settings.split())
    return {"PATH": os.environ["PATH"], "LANG": "C.UTF-8", **dict(pairs)}
