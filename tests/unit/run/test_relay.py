"""How a relay tells that all which a command has written was carried."""

from __future__ import annotations

import os
import select
import threading

from ipclock.run.relay import _Channel


def test_the_end_is_told_though_others_write_on_and_on() -> None:
    channel = _Channel(os.open(os.devnull, os.O_WRONLY))
    told = threading.Event()

    def write_on(_data: bytes) -> None:
        if not told.is_set():
            os.write(channel.writing, bytes(4096))

    os.write(channel.writing, b"first")
    os.close(channel.bell)
    carrying = threading.Thread(target=channel.carry, args=[write_on])
    carrying.start()
    ready = select.select([channel.told], [], [], 30)[0]
    told.set()
    os.close(channel.writing)
    carrying.join()
    os.close(channel.told)

    assert ready == [channel.told]
