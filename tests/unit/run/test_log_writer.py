"""The log of a build: what is kept of it, what is told of the rest, and that no disk keeps the build from going on."""

from __future__ import annotations

import os
import random
import re
import signal
import sys
from pathlib import Path

import pytest

from ipclock.run import log_writer
from ipclock.run.log_writer import CUT, CappedFile, LogWriter
from tests.helpers.crash_at import needs_root, unshared
from tests.helpers.world import until

ROOT = Path(__file__).parents[3]
LEAST = log_writer.LEAST


def opened(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o640)


def lines(count: int) -> list[bytes]:
    return [b"line %06d\n" % number for number in range(count)]


def test_what_fits_is_kept_to_the_byte(tmp_path: Path) -> None:
    log = CappedFile(opened(tmp_path / "log"), str(tmp_path / "log"), LEAST)
    text = random.Random(1).randbytes(LEAST)

    for at in range(0, LEAST, 100):
        log.add(text[at : at + 100])

    assert (tmp_path / "log").read_bytes() == text


@pytest.mark.parametrize("limit", [1, LEAST, 3 * LEAST + 7, 100_000])
@pytest.mark.parametrize("at_once", [1, 7, 5000])
def test_head_and_tail_are_kept_whole_lines_and_the_mark_counts_the_rest(
    at_once: int, limit: int, tmp_path: Path
) -> None:
    path = tmp_path / "log"
    log = CappedFile(opened(path), str(path), limit)
    all_lines = lines(20_000)

    sizes = []
    for at in range(0, len(all_lines), at_once):
        log.add(b"".join(all_lines[at : at + at_once]))
        sizes.append(path.stat().st_size)

    text, whole = path.read_bytes(), b"".join(all_lines)
    (found,) = CUT.finditer(text)
    head, tail = text[: found.start()], text[found.end() :]
    limit = max(LEAST, limit)
    assert (max(sizes) <= limit, whole.startswith(head + b"\n"), whole.endswith(tail)) == (True, True, True)
    assert int(found[1]) == len(whole) - len(head) - len(tail)
    # half a line at the most is missing to the half; the tail is between a quarter and the half
    assert (limit // 2 - len(head) <= 12, len(tail) >= limit // 4 - 12, tail[:5]) == (True, True, b"line ")


def test_what_has_no_lines_is_cut_too(tmp_path: Path) -> None:
    path = tmp_path / "log"
    log = CappedFile(opened(path), str(path), LEAST)
    text = b"".join(b"%06d" % number for number in range(10_000))

    for at in range(0, len(text), 999):
        log.add(text[at : at + 999])

    (found,) = CUT.finditer(path.read_bytes())
    head, tail = path.read_bytes()[: found.start()], path.read_bytes()[found.end() :]
    assert (text.startswith(head), text.endswith(tail), int(found[1])) == (
        True,
        True,
        len(text) - len(head) - len(tail),
    )


def test_a_cut_leaves_owner_mode_and_folder_as_they_were(tmp_path: Path) -> None:
    path = tmp_path / "log"
    log = CappedFile(opened(path), str(path), LEAST)
    path.chmod(0o640)
    if os.geteuid() == 0:
        os.chown(path, 54321, 54322)
    before = path.stat()

    log.add(b"".join(lines(1000)))

    after = path.stat()
    kept = [(one.st_uid, one.st_gid, one.st_mode, one.st_nlink) for one in (before, after)]
    assert (kept[1], b"left out]" in path.read_bytes()) == (kept[0], True)
    assert os.listdir(tmp_path) == ["log"]


FULL = f"""
import os, sys
sys.path.insert(0, {str(ROOT)!r})
from ipclock.run.log_writer import CappedFile
fd = os.open("/mnt/log", os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600)
log = CappedFile(fd, "/mnt/log", int(sys.argv[1]))
for number in range(20000):
    log.add(b"line %06d\\n" % number)
os.unlink("/mnt/ballast")
for number in range(20000, 20010):
    log.add(b"line %06d\\n" % number)
sys.stdout.write(open("/mnt/log").read())
"""


@pytest.mark.parametrize("limit", [1 << 20, 1 << 16], ids=["no room to write", "no room to cut"])
def test_a_full_disk_is_survived_and_told_once_there_is_room(limit: int) -> None:
    needs_root(0)
    mount = "mount -t tmpfs -o size=128k tmpfs /mnt && head -c 40960 /dev/zero > /mnt/ballast"

    status, text = unshared(["-m"], f'{mount} && exec "$@"', sys.executable, "-c", FULL, str(limit))

    first, *more, last = re.split(r"(\n\[ipclock: \d+ bytes lost: No space left on device\]\n)", text)
    assert (status, len(more), last.startswith("line 0"), last.endswith("line 020009\n")) == (0, 1, True, True), text
    kept = len(first) + len(last)
    cut = re.search(r"\n\[ipclock: (\d+) bytes left out\]\n", text)
    left_out = int(cut[1]) - len(cut[0]) if cut else 0
    lost = int(more[0].split()[1])
    assert kept + left_out + lost == 20_010 * len("line 000000\n")


def test_the_writer_ends_with_the_last_that_can_write_and_has_then_written_all(tmp_path: Path) -> None:
    path = tmp_path / "log"
    writer = LogWriter(opened(path), str(path), 1 << 20)
    copy = os.dup(writer.pipe)
    text = random.Random(1).randbytes(200_000)

    os.close(writer.pipe)
    still = os.waitpid(writer.pid, os.WNOHANG)
    with open(copy, "wb") as pipe:
        pipe.write(text)

    until(lambda: os.waitid(os.P_PID, writer.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT), "the writer's end")
    assert (still, os.waitstatus_to_exitcode(os.waitpid(writer.pid, 0)[1]), path.read_bytes() == text) == (
        (0, 0),
        0,
        True,
    )


def test_killed_anywhere_in_a_cut_the_log_is_the_old_or_the_new_one(tmp_path: Path) -> None:
    text = b"".join(lines(LEAST // len(lines(1)[0])))

    def cut(nth: int) -> tuple[int, bytes, set[str]]:
        """Cut a full log in a process that dies before its nth change; return how often it got there, and the log."""
        path = tmp_path / f"log-{nth}"
        path.write_bytes(text)
        pid = os.fork()
        if pid == 0:
            seen = 0

            def hook(event: str, arguments: tuple[object, ...]) -> None:
                nonlocal seen
                if event in ("open", "os.remove", "os.chown", "os.chmod", "os.rename"):
                    seen += 1
                    if seen == nth:
                        os.kill(os.getpid(), signal.SIGKILL)

            log = CappedFile(os.open(path, os.O_RDWR | os.O_APPEND), str(path), LEAST)
            sys.addaudithook(hook)
            log.add(b"last\n")
            os._exit(seen)
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        left = {one.name for one in tmp_path.iterdir() if one.name.endswith(path.name)}
        return status, path.read_bytes(), left - {path.name}

    events, whole, left = cut(0)
    found = [cut(nth) for nth in range(1, events + 1)]

    assert (events >= 4, whole.endswith(b"last\n"), len(CUT.findall(whole)), left) == (True, True, 1, set())
    assert {status for status, _, _ in found} == {-signal.SIGKILL}
    assert all(log == whole or log.startswith(text) for _, log, _ in found)
    assert all(name.startswith(".log-") for _, _, names in found for name in names)  # a draft, hidden and not a log
