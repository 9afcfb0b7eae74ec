"""Every interleaving of a few clients keeps the promises of PROTOCOL.md.

Larger bounds: `python -m tests.model --help`.
"""

from __future__ import annotations

import pytest

from tests.model.checker import Checker, initial


@pytest.mark.parametrize(
    ("clients", "capacity", "budget"),
    [
        pytest.param(3, 1, {}, id="three-take-turns"),
        pytest.param(3, 2, {"give_up": 1}, id="one-of-three-gives-up-beside-two-slots"),
        pytest.param(2, 1, {"kill": 1, "give_up": 1}, id="one-is-killed-anywhere-another-gives-up"),
        pytest.param(2, 1, {"kill": 2}, id="two-are-killed-anywhere"),
        pytest.param(2, 1, {"resize": 2}, id="the-capacity-changes-twice"),
        pytest.param(3, 2, {"resize": 1}, id="the-capacity-is-lowered-under-three"),
        pytest.param(2, 1, {"reset": 1, "give_up": 1}, id="a-reset"),
        pytest.param(2, 1, {"reset": 1, "kill": 1}, id="a-reset-and-a-kill"),
        pytest.param(2, 1, {"post": 2}, id="a-stranger-posts"),
        pytest.param(2, 1, {"stop": 1, "kill": 1}, id="one-is-stopped-and-one-killed"),
    ],
)
def test_no_interleaving_breaks_a_promise(clients: int, capacity: int, budget: dict[str, int]) -> None:
    verdict = Checker().explore(initial(clients, capacity, **budget))

    assert (verdict.violation, verdict.states > 20) == (None, True)
