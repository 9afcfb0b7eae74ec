"""What helps against a failure. It depends on who asks: root, the pool's owner, a member of its group, a stranger.

What works for one of them does not for another. Where nothing depends on that, the failure's own words stand.
"""

from __future__ import annotations

import errno
import os
import stat
import sys
from contextlib import suppress

from ipclock import i18n, users
from ipclock._typing import TYPE_CHECKING
from ipclock.errors import (
    ForeignPoolError,
    NoMemberError,
    PoolCreateError,
    PoolElsewhereError,
    PoolPermissionError,
    PriorityNotAllowedError,
    SemaphoreError,
    StillRunning,
)
from ipclock.i18n import _
from ipclock.linux import process
from ipclock.pool import place

if TYPE_CHECKING:
    from ipclock.config.settings import Settings
    from ipclock.errors import IpclockError

SECURE_PATH = ("/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin")


def for_caller(error: IpclockError, settings: Settings | None = None) -> tuple[str, str]:
    """Return what a person reads of a failure, in the language in use: what and where; what that person can do."""
    what, remedy = i18n.told(error)
    return what, _remedy(error, settings) or remedy


def reset_hint(settings: Settings) -> str:
    """Return the command that a timeout recommends for a forced unlock: as it is set, else one that works."""
    return settings.reset_hint or ("ipclock reset" if _owns(settings) else f"{as_root()} reset")


def as_root() -> str:
    """Return how this program is started as root: sudo(8) finds it in `secure_path` of sudoers(5), or by its path."""
    path = os.path.abspath(sys.argv[0])
    if os.path.basename(path) != "ipclock" or os.path.dirname(path) in SECURE_PATH:
        return "sudo ipclock"
    from shlex import quote

    return f"sudo {quote(path)}"


def _owns(settings: Settings) -> bool:
    """Return whether the pool is our own. One of root's never is: the reader of the line need not be root."""
    uid = place.owner_of(settings.semaphore_name[1:])
    return (os.geteuid() != 0 or not users.shows_all()) and uid == os.geteuid()


def _owner(path: str) -> int | None:
    try:
        return os.stat(path).st_uid
    except OSError:
        return None


def _remedy(error: IpclockError, settings: Settings | None) -> str:
    local = not (settings and settings.engine)
    if isinstance(error, ForeignPoolError) and users.is_hidden(error.uid):
        return ""
    root = os.geteuid() == 0 and users.shows_all()
    if root and local and (isinstance(error, PoolPermissionError | PoolElsewhereError) or _is_planted(error)):
        return _("'ipclock init' takes it over; builds that run in it count on.")
    if isinstance(error, NoMemberError):
        return _join(error.group)
    if isinstance(error, ForeignPoolError):
        return _get_in(error.path)
    if isinstance(error, SemaphoreError) and _owner(error.path) not in (None, os.geteuid()):
        return _("'{sudo} reset' replaces it.").format(sudo=as_root())
    if isinstance(error, PriorityNotAllowedError):
        if settings and _owns(settings):
            return _("'ipclock init --priority-min {priority}' allows it.").format(priority=error.priority)
        text = _("Its owner or root allows it: '{sudo} init --priority-min {priority}'.")
        return text.format(sudo=as_root(), priority=error.priority)
    if isinstance(error, StillRunning):
        if os.geteuid() == 0:
            return _("'ipclock reset {ticket}' takes the slot and leaves it alone.").format(ticket=error.ticket)
        text = _("'{sudo} reset {ticket} --kill' may end other users' processes too.")
        return text.format(sudo=as_root(), ticket=error.ticket)
    return ""


def _is_planted(error: IpclockError) -> bool:
    """Return whether something else lies where a part of the pool belongs."""
    planted = map(os.strerror, (errno.ENOTDIR, errno.EISDIR, errno.ELOOP))
    return isinstance(error, PoolCreateError) and error.reason in planted


def _get_in(path: str) -> str:
    """Return how we come to use what lies at *path* and belongs to another user."""
    with suppress(OSError):
        status = os.lstat(path)
        if status.st_mode & stat.S_IWGRP and not status.st_mode & stat.S_IWOTH and not stat.S_ISLNK(status.st_mode):
            return _join(status.st_gid)
    text = _("Use a pool of your own (--name), or have it shared: '{sudo} init --mode 0660 --group GROUP'.")
    return text.format(sudo=as_root())


def _join(group: int) -> str:
    """Return how we come to be a member of *group* (gid); "" where it has no name to join it by."""
    import grp

    try:
        found = grp.getgrgid(group)
    except KeyError:
        found = None
    if group in (os.getegid(), *os.getgroups()):
        return _("Its owner or root may do that: '{sudo} init ...'.").format(sudo=as_root())
    if found is None:
        return ""
    user = process.user_name(os.getuid())
    if user in found.gr_mem:
        text = _(
            "You are a member of {group}, but not yet in this session: log in again, or run 'newgrp {group}' first."
        )
        return text.format(group=found.gr_name)
    text = _("The pool is for the members of {group}: 'sudo adduser {user} {group}', and log in again.")
    return text.format(group=found.gr_name, user=user)
