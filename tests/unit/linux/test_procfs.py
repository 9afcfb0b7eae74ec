"""What the kernel's files say, whatever names others have given to processes and mounts."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from ipclock.linux import process, procfs
from tests.helpers.crash_at import child
from tests.helpers.world import until


def test_a_mount_is_read_with_all_that_would_end_a_field(tmp_path: Path) -> None:
    row = r"77 23 0:99 /a\040b\134x2d /m\011n\012o\043p\134040 rw,relatime shared:1 - tmpfs t\040s rw,size=8k"
    (tmp_path / "mountinfo").write_text(f"{row}\n")

    assert list(procfs.mounts(str(tmp_path / "mountinfo"))) == [
        procfs.Mount("/m\tn\no#p\\040", "tmpfs", ("0:99", "/a b\\x2d"), frozenset({"rw", "size=8k"}))
    ]


@pytest.mark.parametrize("end", ["\r", "\v", "\x1c", "\u2028"])
def test_a_name_with_the_end_of_another_kind_of_line_adds_no_field(end: str) -> None:
    def rename() -> None:
        Path("/proc/self/comm").write_text(f"x{end}Uid:\t7", newline="")
        signal.pause()

    with child(rename) as pid:
        until(lambda: "Uid" in Path(f"/proc/{pid}/comm").read_text(), "the new name")

        assert process.real_uid(pid) == os.getuid()


def test_more_children_than_a_page_of_their_list_holds_are_all_found() -> None:
    count = 1000  # 4096 bytes hold at most 819 PIDs of four digits

    def parent() -> None:
        os.setpgid(0, 0)
        for _ in range(count):
            if os.fork() == 0:
                signal.pause()
        os.write(writing, b"x")
        signal.pause()

    reading, writing = os.pipe()
    with child(parent) as pid:
        os.read(reading, 1)
        found = process.descendants_of(pid)
        os.killpg(pid, signal.SIGKILL)
    os.close(reading)
    os.close(writing)

    assert len(found) == count


def test_of_a_long_file_no_more_is_read_than_is_asked_for(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"a" * 100_000)

    sizes = [len(procfs.data(str(tmp_path / "file"), *most)) for most in ([], [4096], [20_000])]

    assert sizes == [100_000, 4096, 20_000]
