"""All that can happen to a few clients keeps the promises of PROTOCOL.md.

Larger bounds: `python -m tests.model --help`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.model.checker import Checker, client, initial

if TYPE_CHECKING:
    from tests.model.world import Client

pytestmark = pytest.mark.timeout(180)  # what is marked starts first; these do nothing but compute

HEAVY = client(units=2)
LIGHT = client()
ALONE = client(limit=1, label="a")
HOTFIX = client(priority=-1)
NESTED = client(inside=0)
OURS, THEIRS = client(party="a"), client(party="b")
OLD = client()  # of a version that knows no parties


@pytest.mark.parametrize(
    ("clients", "capacity", "budget"),
    [
        pytest.param([LIGHT, HEAVY, LIGHT], 2, {}, id="a-heavy-one-is-not-overtaken-by-light-ones"),
        pytest.param([LIGHT, HEAVY], 2, {"kill": 1}, id="units-reserved-for-one-that-is-killed-come-back"),
        pytest.param([LIGHT, HEAVY], 2, {"stop": 1, "give_up": 1}, id="units-reserved-for-one-that-stops-come-back"),
        pytest.param([HEAVY, LIGHT], 2, {"resize": 2}, id="one-too-heavy-for-a-lowered-capacity-lets-others-pass"),
        pytest.param([ALONE, ALONE, LIGHT], 2, {}, id="one-that-its-label-holds-back-lets-others-pass"),
        pytest.param([ALONE, ALONE], 2, {"kill": 1}, id="two-of-a-label-never-run-at-once-whoever-is-killed"),
        pytest.param([LIGHT, LIGHT, HOTFIX], 1, {}, id="a-hotfix-goes-ahead-but-past-no-running-build"),
        pytest.param([LIGHT, HEAVY, HOTFIX], 2, {}, id="a-hotfix-takes-what-was-reserved-for-one-behind-it"),
        pytest.param([LIGHT, HOTFIX], 1, {"kill": 1, "stop": 1}, id="one-sent-back-from-the-gate-is-never-lost"),
        pytest.param([LIGHT, NESTED, LIGHT], 1, {}, id="a-slot-lasts-as-long-as-the-last-build-in-it"),
        pytest.param([LIGHT, NESTED], 1, {"kill": 2}, id="no-slot-is-lost-with-two-in-it-that-are-killed"),
        pytest.param([LIGHT, NESTED], 1, {"reset": 1}, id="a-reset-takes-a-slot-from-all-that-live-in-it"),
        pytest.param([OURS, OURS, THEIRS], 1, {}, id="one-of-another-party-is-next-but-past-no-running-build"),
        pytest.param([OURS, OURS, THEIRS], 2, {}, id="a-release-in-a-fair-pool-sends-nobody-back-for-ever"),
        pytest.param([OURS, THEIRS], 1, {"kill": 1}, id="nobody-hangs-in-a-fair-pool-on-one-that-is-killed"),
        pytest.param([OURS, THEIRS], 1, {"stop": 1}, id="one-that-is-stopped-in-a-fair-pool-is-passed-over"),
        pytest.param([OURS, THEIRS], 1, {"fair": 1, "keep": 1}, id="who-waits-follows-a-pool-that-is-fair-no-more"),
        pytest.param([OURS, OLD, THEIRS], 1, {}, id="one-without-a-party-keeps-its-place-in-a-fair-pool"),
        pytest.param([OURS, THEIRS], 2, {"nonblock": 1}, id="nonblock-in-a-fair-pool-finds-what-is-due"),
        pytest.param(3, 2, {}, id="three-share-two-slots"),
        pytest.param(3, 1, {"kill": 1}, id="nobody-hangs-on-one-of-three-that-is-killed-anywhere"),
        pytest.param(2, 1, {"kill": 2}, id="nothing-is-left-of-two-that-are-killed-anywhere"),
        pytest.param(2, 2, {"kill": 1, "give_up": 1}, id="a-kill-beside-one-that-gives-up-frees-both-slots"),
        # all that three do of whom none gives up is in it
        pytest.param(3, 1, {"give_up": 1}, id="three-take-turns-in-order-though-one-of-them-gives-up"),
        pytest.param(2, 1, {"freeze": 1, "kill": 1}, id="a-frozen-one-is-passed-over-though-another-is-killed"),
        pytest.param(2, 1, {"stop": 1, "kill": 1}, id="a-stopped-one-is-passed-over-though-another-is-killed"),
        pytest.param(2, 1, {"resize": 2}, id="a-raised-capacity-wakes-who-waits"),
        pytest.param(2, 2, {"resize": 2, "kill": 1}, id="a-lowered-capacity-admits-nobody-until-there-is-room"),
        pytest.param(2, 1, {"reset": 1, "kill": 1}, id="a-reset-that-is-killed-half-way-loses-no-slot"),
        pytest.param(2, 1, {"reset": 1, "keep": 2}, id="whom-a-reset-took-away-does-not-come-back"),
        pytest.param(1, 1, {"reset": 2, "keep": 2, "kill": 1}, id="a-reset-that-is-killed-half-way-brings-nobody-back"),
        pytest.param(2, 1, {"post": 2}, id="a-strangers-posts-admit-nobody"),
        pytest.param(2, 1, {"post": 1, "kill": 1}, id="a-strangers-post-and-a-kill-are-levelled"),
        pytest.param(2, 1, {"cancel": 1, "kill": 1}, id="no-unit-is-lost-with-one-that-is-cancelled"),
        pytest.param([LIGHT, HEAVY], 2, {"cancel": 1}, id="units-reserved-for-one-that-is-cancelled-come-back"),
        pytest.param(2, 0, {"cancel": 2}, id="who-is-cancelled-in-line-leaves-without-a-tick"),
        pytest.param(2, 1, {"nonblock": 2, "kill": 1}, id="nonblock-is-refused-only-where-no-slot-is-due"),
    ],
)
def test_every_interleaving_keeps_the_promises(
    clients: int | list[Client], capacity: int, budget: dict[str, int]
) -> None:
    verdict = Checker().explore(initial(clients, capacity, **budget))

    assert verdict.violation is None, str(verdict.violation)
    assert verdict.states > 100
