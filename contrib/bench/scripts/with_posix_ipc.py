"""Run a command between `acquire` and `release` of a bare semaphore: with_posix_ipc.py NAME N COMMAND..."""

from __future__ import annotations

import os
import sys

import posix_ipc

name, slots, *command = sys.argv[1:]
with posix_ipc.Semaphore(name, posix_ipc.O_CREAT, mode=0o600, initial_value=int(slots)):
    pid = os.posix_spawnp(command[0], command, os.environ)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
sys.exit(status)
