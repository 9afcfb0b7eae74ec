"""What other processes have open, as far as we may look."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from ipclock.linux import descriptors, locks, process
from tests.helpers.crash_at import USER, child, in_child
from tests.helpers.world import until


def test_the_descriptors_on_a_file_are_found_and_no_others(tmp_path: Path) -> None:
    files = [tmp_path / "one", tmp_path / "other"]
    fds = [os.open(path, os.O_RDWR | os.O_CREAT) for path in files]
    twin = os.dup(fds[0])
    files[0].unlink()  # a record that was cleared away is still held
    status = os.fstat(fds[0])

    with child() as pid:
        found = [
            descriptors.open_descriptors(status.st_dev, status.st_ino),
            descriptors.open_descriptors(status.st_dev, status.st_ino, pid),
        ]

        assert found == [sorted([fds[0], twin])] * 2
    for fd in (*fds, twin):
        os.close(fd)


def test_where_we_may_not_look_there_are_no_descriptors(tmp_path: Path) -> None:
    pid = os.getpid()
    with open(tmp_path / "file", "w") as file:
        status = os.fstat(file.fileno())

        seen = in_child(lambda: descriptors.open_descriptors(status.st_dev, status.st_ino, pid), USER)

        assert (seen, descriptors.open_descriptors(status.st_dev, status.st_ino, 1 << 22)) == ([], [])


def test_a_process_that_may_not_be_looked_at_hides_its_descriptors_and_a_zombie_has_none() -> None:
    pid, own = os.getpid(), descriptors.hides_descriptors(os.getpid())
    with child(lambda: None) as zombie:
        until(lambda: not process.exists(process.identify(zombie)), "the child to end")

        hidden = in_child(lambda: [descriptors.hides_descriptors(other) for other in (pid, zombie, 1 << 22)], USER)

    assert (own, hidden) == (False, [True, False, False])


def test_who_reads_a_pipe_is_not_who_writes_to_it() -> None:
    reading, writing = os.pipe()
    pipe = os.fstat(reading).st_ino

    def reads_only() -> None:
        os.close(writing)
        os.read(reading, 1)

    with child(reads_only) as reader, child(lambda: (os.close(reading), signal.pause())) as writer:
        os.close(reading)
        until(lambda: not descriptors.writes_to(reader, reader), "a reader that does not write")
        until(lambda: not descriptors.reads(writer, pipe), "a writer that does not read")
        found = [
            (descriptors.reads(pid, pipe), descriptors.writes_to(pid, reader)) for pid in (reader, writer, os.getpid())
        ]

    assert (found, descriptors.pipe_of(os.getpid(), writing)) == ([(True, False), (False, True), (False, True)], pipe)
    os.close(writing)


def test_who_shares_a_locked_open_file_keeps_it_and_a_reader_does_not(tmp_path: Path) -> None:
    fd = os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT)
    reader = os.open(tmp_path / "file", os.O_RDONLY)
    status = os.fstat(fd)
    locks.try_lock(fd, locks.ByteRange(10))
    before = descriptors.keepers_of(status.st_dev, status.st_ino, 7)
    locks.try_lock(fd, locks.ByteRange(7))

    with child() as pid, child(lambda: (os.close(fd), signal.pause())) as without:
        until(lambda: fd not in descriptors.open_descriptors(status.st_dev, status.st_ino, without), "the file closed")
        keepers = descriptors.keepers_of(status.st_dev, status.st_ino, 7)

        assert (before, keepers) == ([], sorted([os.getpid(), pid]))
    os.close(fd)
    os.close(reader)
