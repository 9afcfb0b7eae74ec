"""A log as it is read: from which line on, and across cuts, by whatever steps."""

from __future__ import annotations

import os
import random
import re
from typing import TYPE_CHECKING

import pytest

from ipclock.errors import LogUnreadable
from ipclock.run.log_reader import LogReader
from ipclock.run.log_writer import CappedFile, mark

if TYPE_CHECKING:
    from pathlib import Path


def opened(path: Path, limit: int) -> CappedFile:
    fd = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    return CappedFile(fd, str(path), limit)


def is_all_of(shown: bytes, written: bytes) -> bool:
    """Return whether what was shown is what was written, but for what a mark tells of, to the byte.

    A mark may also be one that was written itself.
    """
    at = 0
    for piece in re.split(rb"(\n\[ipclock: \d+ bytes left out\]\n)", shown):
        if written[at : at + len(piece)] == piece:
            at += len(piece)
        elif piece.startswith(b"\n[ipclock: "):
            at += int(piece.split()[1])
        else:
            return False
    return at == len(written)


def everything(reader: LogReader) -> bytes:
    return b"".join(iter(reader.read, b""))


@pytest.mark.parametrize("seed", range(40))
def test_whatever_is_cut_between_two_looks_is_told_and_nothing_is_shown_twice(seed: int, tmp_path: Path) -> None:
    chance = random.Random(seed)
    log = opened(tmp_path / "log", chance.choice([1, 5000, 20000]))
    reader, late = LogReader(str(tmp_path / "log")), None
    written = shown = shown_late = b""
    for number in range(chance.randrange(1, 60)):
        line = b"%d:" % number + b"x" * chance.choice([0, 10, 300, 3000, 9000]) + chance.choice([b"\n", b""])
        if chance.random() < 0.1:
            line += mark(chance.randrange(10000)) if seed % 2 else b""
        log.add(line)
        written += line
        if chance.random() < 0.3:
            shown += everything(reader)
        if number == 20:
            late = LogReader(str(tmp_path / "log"))
        if late and chance.random() < 0.3:
            shown_late += everything(late)
    shown += everything(reader)

    assert is_all_of(shown, written)
    if late:
        shown_late += everything(late)
        late.close()
        # marks that it has found in the file count from the beginning
        assert is_all_of(shown_late, written)
    reader.close()


def test_a_log_that_is_not_cut_is_the_output_to_the_byte(tmp_path: Path) -> None:
    log, noise = opened(tmp_path / "log", 1 << 22), random.Random(1).randbytes(1 << 21)
    reader = LogReader(str(tmp_path / "log"))

    log.add(noise)

    assert (everything(reader), everything(reader)) == (noise, b"")
    reader.close()


@pytest.mark.parametrize(("text", "lines", "shown"), [(b"1\n2\n3\n", 2, b"2\n3\n"), (b"1\n2", 1, b"2"), (b"", 3, b"")])
def test_it_begins_with_the_last_lines(text: bytes, lines: int, shown: bytes, tmp_path: Path) -> None:
    (tmp_path / "log").write_bytes(text)
    reader = LogReader(str(tmp_path / "log"))

    reader.skip_to_last(lines)

    assert everything(reader) == shown
    reader.close()


def test_lines_longer_than_what_is_read_at_once_are_lines(tmp_path: Path) -> None:
    lines = [b"%d" % number * 700_000 + b"\n" for number in range(6)]
    (tmp_path / "log").write_bytes(b"".join(lines))

    for count in range(1, 8):
        reader = LogReader(str(tmp_path / "log"))
        reader.skip_to_last(count)
        assert everything(reader) == b"".join(lines[-count:])
        reader.close()


def test_a_log_that_is_gone_ends_where_it_ended_and_another_in_its_place_begins_anew(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(b"one\n")
    reader = LogReader(str(path))
    first = everything(reader)
    path.unlink()
    gone = everything(reader)
    path.write_bytes(b"two\n")

    assert (first, gone, everything(reader)) == (b"one\n", b"", b"two\n")
    reader.close()


def test_what_is_no_log_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to("file")
    os.link(tmp_path / "file", tmp_path / "second")
    os.mkfifo(tmp_path / "fifo")

    for name in ("link", "second", "fifo", "."):
        with pytest.raises(LogUnreadable):
            LogReader(str(tmp_path / name))
    with pytest.raises(FileNotFoundError):
        LogReader(str(tmp_path / "nothing"))
