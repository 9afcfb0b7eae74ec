"""How the clients of a storm ask for a slot: the shell scripts that are their builds, and the command lines."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.storm.plan import Job

TRAPPED = 9
BUILD_LOCK = Path(__file__).parents[2] / "contrib/oracle/lib/build-lock.sh"

# one process: what a build leaves behind is not counted, by ipclock's default, but would be by the observer
BUILD = """
exec 9>>"$1/$IPCLOCK_LABEL"
flock -n 9 || exit 99
echo "$IPCLOCK_LABEL $IPCLOCK_TICKET $$" >>"$1.log"
exec sleep "$2"
"""
# a script holds its slot by its own process: what it starts must not count for the observer either
SCRIPT = """
IPCLOCK_LABEL=$3
IPCLOCK_TICKET=$("$4" -m ipclock acquire -q -w 60 "$3") || exit
exec 9>>"$1/$3"
flock -n 9 || exit 99
echo "$3 $IPCLOCK_TICKET $$" >>"$1.log"
sleep "$2" 9>&-
exec 9>&-
"$4" -m ipclock release -q "$IPCLOCK_TICKET"
"""
# a script that sources the library: its build is another process, which goes on when a signal ends the script
LIBRARY = f"""
ipclock() {{ "$PYTHON" -m ipclock "$@"; }}
build() {{ IPCLOCK_LABEL=$label sh -c '{BUILD}' sh "$@"; }}
source {BUILD_LOCK}
label=$3
acquire_lock "$label" || exit
%s
release_lock
"""
OWN_TRAP = f"trap 'release_lock; exit {TRAPPED}' TERM HUP INT"
SOURCED = {
    "foreground": 'build "$@"',
    "background": 'build "$@" & wait',
    "foreground, trap on EXIT": 'trap release_lock EXIT; build "$@"',
    "background, trap on EXIT": 'trap release_lock EXIT; build "$@" & wait',
    "background, trap on signals": f'{OWN_TRAP}; build "$@" & wait',
}
# a build that starts another one inside of it, and ends before that does
NESTED = f"""
setsid "$PYTHON" -m ipclock wrap -q -w 60 "$IPCLOCK_LABEL" -- sh -c '{BUILD}' sh "$@" </dev/null >/dev/null 2>&1 &
sleep 0.2
"""


# a build that outlives the client that has started it, which waits for its end
DETACHED = f"""
ticket=$("$PYTHON" -m ipclock wrap --detach -w 60 "$3" -- sh -c '{BUILD}' sh "$1" "$2") || exit
exec "$PYTHON" -m ipclock wait "$ticket"
"""

WAYS, WEIGHTS = ["wrap", "acquire", "nested", "detached", *SOURCED], [12, 4, 6, 4] + [2] * len(SOURCED)


def command(job: Job, witness: Path, program: list[str]) -> list[str]:
    """Return the command line of a client."""
    place = [str(witness), str(job.seconds)]
    if job.way == "acquire":
        return ["sh", "-c", SCRIPT, "sh", *place, job.label, sys.executable]
    if job.way == "detached":
        return ["sh", "-c", DETACHED, "sh", *place, job.label]
    if job.way in SOURCED:
        return ["bash", "-uc", LIBRARY % SOURCED[job.way], "bash", *place, job.label]
    build = ["sh", "-c", NESTED if job.way == "nested" else BUILD, "sh", *place]
    return [*program, "wrap", "-q", "-w", "60", *job.options, job.label, "--", *build]
