"""A history of which some bytes or values were changed at random."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.protocol import damage

if TYPE_CHECKING:
    from pathlib import Path

ROUNDS = 20  # about two seconds; by hand many more, as the module says


def test_a_damaged_history_is_read_as_a_sound_one_or_refused(tmp_path: Path) -> None:
    sound = damage.whole(tmp_path)

    told = [damage.round_of(seed, sound, tmp_path) for seed in range(ROUNDS)]

    # some are refused, some are not, and a crash would be of SQLite
    assert ([] in told, any(told), [one for one in told if "crashes the process that uses it" in one]) == (
        True,
        True,
        [],
    )
