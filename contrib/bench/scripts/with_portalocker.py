"""Run a command under a semaphore of portalocker, with time to wait: with_portalocker.py FOLDER N COMMAND..."""

from __future__ import annotations

import os
import sys

from portalocker import NamedBoundedSemaphore

folder, slots, *command = sys.argv[1:]
with NamedBoundedSemaphore(int(slots), name="bench", directory=folder, timeout=600):
    pid = os.posix_spawnp(command[0], command, os.environ)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
sys.exit(status)
