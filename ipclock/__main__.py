"""`python -m ipclock`: the same as the command `ipclock`."""

import sys

from ipclock.cli import main

sys.exit(main())
