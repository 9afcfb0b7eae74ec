"""Run a command under a lock of filelock, as it comes: with_filelock.py FILE COMMAND..."""

from __future__ import annotations

import os
import sys

from filelock import FileLock

path, *command = sys.argv[1:]
with FileLock(path):
    pid = os.posix_spawnp(command[0], command, os.environ)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
sys.exit(status)
