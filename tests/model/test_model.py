"""All that can happen to a few clients keeps the promises of PROTOCOL.md.

Larger bounds: `python -m tests.model --help`.
"""

from __future__ import annotations

import pytest

from tests.model.checker import Checker, initial


@pytest.mark.parametrize(
    ("clients", "capacity", "budget"),
    [
        pytest.param(3, 1, {}, id="three-take-turns-in-order"),
        pytest.param(3, 2, {}, id="three-share-two-slots"),
        pytest.param(3, 1, {"kill": 1}, id="nobody-hangs-on-one-of-three-that-is-killed-anywhere"),
        pytest.param(2, 1, {"kill": 2}, id="nothing-is-left-of-two-that-are-killed-anywhere"),
        pytest.param(2, 2, {"kill": 1, "give_up": 1}, id="a-kill-beside-one-that-gives-up-frees-both-slots"),
        pytest.param(3, 1, {"give_up": 1}, id="one-of-three-gives-up-and-the-others-go-on"),
        pytest.param(2, 1, {"stop": 1, "kill": 1}, id="a-stopped-one-is-passed-over-though-another-is-killed"),
        pytest.param(2, 1, {"resize": 2}, id="a-raised-capacity-wakes-who-waits"),
        pytest.param(2, 2, {"resize": 2, "kill": 1}, id="a-lowered-capacity-admits-nobody-until-there-is-room"),
        pytest.param(2, 1, {"reset": 1, "kill": 1}, id="a-reset-that-is-killed-half-way-loses-no-slot"),
        pytest.param(2, 1, {"reset": 1, "keep": 2}, id="whom-a-reset-took-away-does-not-come-back"),
        pytest.param(2, 1, {"post": 2}, id="a-strangers-posts-admit-nobody"),
        pytest.param(2, 1, {"post": 1, "kill": 1}, id="a-strangers-post-and-a-kill-are-levelled"),
        pytest.param(2, 1, {"nonblock": 2, "kill": 1}, id="nonblock-is-refused-only-where-no-slot-is-due"),
    ],
)
def test_every_interleaving_keeps_the_promises(clients: int, capacity: int, budget: dict[str, int]) -> None:
    verdict = Checker().explore(initial(clients, capacity, **budget))

    assert verdict.violation is None, str(verdict.violation)
    assert verdict.states > 100
