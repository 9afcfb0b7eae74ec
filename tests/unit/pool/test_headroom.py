"""Whether there is memory for one more build: the decision, over what `memory` measures (and its own test checks)."""

from __future__ import annotations

import pytest

from ipclock.linux import memory
from ipclock.pool import headroom
from ipclock.pool.headroom import Headroom
from ipclock.pool.record import Record

GB = 1 << 30


@pytest.mark.parametrize(
    ("builds", "left", "pressure", "ready", "alone"),
    [
        pytest.param([{}], 3 * GB, 0.0, True, False, id="it-fits"),
        pytest.param([{}], 3 * GB - 1, 0.0, False, False, id="a-byte-is-lacking"),
        pytest.param([], GB, 0.0, True, True, id="alone-it-goes-all-the-same"),
        pytest.param([{}], 9 * GB, 10.1, False, False, id="the-machine-is-short-as-it-is"),
        pytest.param([{}], 9 * GB, None, True, False, id="a-kernel-without-psi"),
        pytest.param([], 9 * GB, 99.0, True, False, id="alone-under-pressure"),
        pytest.param([{"memory": str(2 * GB), "command_pid": "7"}], 4 * GB, 0.0, True, False, id="one-half-grown"),
        pytest.param([{"memory": str(2 * GB)}], 4 * GB, 0.0, False, False, id="one-that-has-not-begun"),
        pytest.param([{"memory": "much", "command_pid": "x"}], 3 * GB, 0.0, True, False, id="one-that-says-nonsense"),
    ],
)
def test_a_build_may_go_if_it_fits_beside_what_the_others_have_still_to_grow(
    builds: list[dict[str, str]],
    left: int,
    pressure: float | None,
    ready: bool,
    alone: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(memory, "available", lambda: left)
    monkeypatch.setattr(memory, "pressure", lambda: pressure)
    monkeypatch.setattr(memory, "of_tree", lambda pid: GB)
    asked = Headroom(lambda: [Record(row, 0, 0, 0) for row in builds], 3 * GB)

    assert (asked.ready(), asked.alone) == (ready, alone)


def test_it_looks_once_a_second_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    looks = []
    monkeypatch.setattr(memory, "available", lambda: looks.append(1) or GB)
    monkeypatch.setattr(headroom, "LOOK_DUE_S", 3600.0)
    asked = Headroom(list, 1)

    assert ([asked.ready(), asked.ready()], len(looks)) == ([True, True], 1)
