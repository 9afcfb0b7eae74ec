"""What `logs -f` and `wait` do at a signal."""

from __future__ import annotations

import os
import signal

import pytest

from ipclock.cli.following import leaving_at_signals
from ipclock.errors import Interrupted


def test_a_signal_is_an_error_within_the_block_and_as_before_after_it() -> None:
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]

    with pytest.raises(Interrupted), leaving_at_signals():
        os.kill(os.getpid(), signal.SIGTERM)

    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)] == before
