"""Files that a command writes for others: whole or not at all, and never in the place of what is no regular file."""

from __future__ import annotations

import os
import stat
from contextlib import suppress

from ipclock import utf8
from ipclock.errors import PoolCreateError, reason_of
from ipclock.i18n import _


def write(text: str, data: bytes, mode: int | None = None) -> None:
    """Write the file of this path, as the user has given it; a reader gets the whole old one or the whole new one.

    Its mode is *mode*, without one what the umask says. Raises PoolCreateError (73).
    """
    path = utf8.native(text)
    # the name of a draft ends in no way that a program would collect it by, and is not too long where the file's is not
    draft = os.path.join(os.path.dirname(path), f".ipclock-{os.urandom(8).hex()}")
    try:
        # rename(2) would put a file in the place of a device, or of a link to one: as root, of /dev/stdout
        if os.path.lexists(path) and not stat.S_ISREG(os.lstat(path).st_mode):
            raise PoolCreateError(path, _("not a regular file"))
        fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
        try:
            with open(fd, "wb") as file:
                file.write(data)
                if mode is not None:
                    os.fchmod(fd, mode)
            os.rename(draft, path)
        except BaseException:  # nothing half done stays
            with suppress(FileNotFoundError):
                os.unlink(draft)
            raise
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        raise PoolCreateError(path, reason_of(error)) from None
