"""A command sees nothing of `wrap` but what is documented: the same program sees the same, bare and in a slot."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.helpers.world import HANG_S

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.helpers.world import World

SOURCE = Path(__file__).parents[1] / "helpers" / "probe.c"
IPCLOCK = Path(sys.executable).with_name("ipclock")
# not inherited as ignored: SIGPIPE and SIGXFSZ, which Python ignores for itself, and SIGCHLD, by which it waits
TRAPPED = "HUP INT QUIT ABRT USR1 USR2 ALRM TERM CONT TSTP TTIN TTOU URG XCPU VTALRM PROF WINCH IO PWR SYS RTMAX"
SETTINGS = {
    "plain": "",
    "closed stdin": "exec 0<&-",
    "closed stdout": "exec 1>&-",
    "closed stderr": "exec 2>&-",
    "all three closed": "exec 0<&- 1>&- 2>&-",
    "1500 descriptors": 'ulimit -n 4096; for n in {10..1510}; do eval "exec $n</dev/null"; done',
    "one descriptor far up": "ulimit -n 4096; exec 3999</dev/null",
    "2 MB of arguments": 'long=$(printf %100000s); for n in {1..19}; do set -- "$@" "$long"; done',
    "no UTF-8": "set -- \"$@\" $'\\xff\\xfe' ''; export ODD=$'\\xe9\\xff'",
    "odd variables": 'set -- env "a.b=1" "EMPTY=" "$@"',
    "10000 variables": 'for n in {1..10000}; do export "V$n=$n"; done',
    "a deleted directory": "mkdir gone; cd gone; rmdir ../gone",
    "no environment": 'set -- env -i "$@"',
    "cron's environment": 'set -- env -i HOME=/ LOGNAME=x SHELL=/bin/sh PATH=/usr/bin:/bin "$@"',
    "modules in the directory": "mkdir -p here; cd here; echo 1/0 | tee {re,types,enum}.py >os.py",
    "LC_ALL=C": "export LC_ALL=C",
    "LANG=C": "unset LC_ALL LC_CTYPE; export LANG=C",
    "LC_CTYPE=POSIX": "unset LC_ALL LANG; export LC_CTYPE=POSIX",
    "umask 077": "umask 077",
    "umask 000": "umask 000",
    "nice": 'set -- nice -n 5 "$@"',
    "one processor": 'set -- taskset 1 "$@"',
    "no new privileges": 'set -- setpriv --no-new-privs "$@"',
    "no address randomisation": 'set -- setarch -R "$@"',
    "batch scheduling": 'set -- chrt -b 0 "$@"',
    "an oom score": "echo 500 >/proc/self/oom_score_adj",
    "a core filter": "echo 0x7f >/proc/self/coredump_filter",
    "blocked signals": 'set -- env --block-signal "$@"',
    "no core": "ulimit -c 0",
    "40 open files": "ulimit -n 40",
    "a small stack": "ulimit -s 512",
    "no locked memory": "ulimit -l 0",
    "600 MB of addresses": "ulimit -v 600000",
    "20 s of time": "ulimit -t 20",
    "ignored signals": f"trap '' {TRAPPED}",
    "one ignored signal": "trap '' TERM",
}


@pytest.fixture(scope="module")
def probe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The program that writes down what it sees."""
    if shutil.which("gcc") is None:
        pytest.skip("gcc is not installed")
    made = tmp_path_factory.mktemp("probe") / "probe"
    subprocess.run(["gcc", "-O1", "-Wall", "-Werror", "-o", made, SOURCE], check=True)
    return made


def seen(setting: str, report: Path, *command: str | Path) -> tuple[int, list[str], str]:
    """Return (exit status, what the probe has seen, stderr)."""
    output = report.parent / "output"
    script = f'{SETTINGS[setting]}\nexec "$@"'
    with output.open("w") as stream:
        done = subprocess.run(
            ["bash", "-c", script, "bash", *command],
            cwd=report.parent,
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=stream,
            timeout=HANG_S,
            check=False,
        )
    said = output.read_text()
    return done.returncode, list(facts(report)) if report.exists() else [], said


def facts(report: Path) -> Iterator[str]:
    """Return what a report says, without the variables that are ours and the beacon."""
    for row in report.read_text().splitlines():
        key, _, value = row.partition("=")
        text = bytes.fromhex(value).decode(errors="backslashreplace")
        if not (key == "variable" and text.startswith("IPCLOCK_")):
            yield f"{key}: {text}"


@pytest.mark.parametrize("setting", SETTINGS)
def test_a_command_sees_what_it_would_see_without_wrap(setting: str, probe: Path, world: World, tmp_path: Path) -> None:
    config = tmp_path / "build-config.sh"
    config.write_text(f"HISTORY=off\nSEMAPHORE_NAME={world.name}\n")
    wrap = (IPCLOCK, "wrap", "-q", "--config", str(config), "a", "--")

    bare = seen(setting, tmp_path / "bare", probe, tmp_path / "bare")
    wrapped = seen(setting, tmp_path / "wrapped", *wrap, probe, tmp_path / "wrapped")

    new = [fact for fact in wrapped[1] if fact not in bare[1]]
    lost = [fact for fact in bare[1] if fact not in wrapped[1]]
    beacons = [fact for fact in new if fact.startswith("descriptor ")]
    assert (wrapped[0], wrapped[2], lost, [fact for fact in new if fact not in beacons]) == (bare[0], bare[2], [], [])
    assert len(beacons) == 1


def test_a_variable_without_a_name_is_left_out_and_hinders_no_build(world: World) -> None:
    wrap = [sys.executable, "-m", "ipclock", "wrap", "-q", "a", "--", "printenv", "SEMAPHORE_NAME"]
    done = subprocess.run(["env", "=x", *wrap], env=world.env, capture_output=True, text=True, check=False)

    assert (done.returncode, done.stdout, done.stderr) == (0, f"{world.name}\n", "")
