"""The files that keep the output of builds: where they lie, what they are called, how they are found and pruned.

Guarantees that no log is written or read through a link, or where another user could put one in its place; that a name
tells pool, ticket and label; and that none is older than LOG_DAYS once another build begins.
"""

from __future__ import annotations

import os
import stat
import time
from contextlib import suppress
from urllib.parse import quote, unquote

from ipclock import users, utf8
from ipclock._typing import TYPE_CHECKING, NamedTuple
from ipclock.errors import N_, LogFailed, LogUnreadable, reason_of
from ipclock.linux import trusted_path

if TYPE_CHECKING:
    from ipclock.config.settings import Settings
    from ipclock.pool.claim import Claim

SUFFIX = ".log"
LABEL_BYTES = 100  # of a label in a file name, quoted
DAY_S = 86400


class Log(NamedTuple):
    """One log, by its name; `begun` is in seconds of the epoch. A long `label` is cut."""

    path: str
    pool: str
    ticket: int
    label: str
    begun: int

    @classmethod
    def parse(cls, directory: str, name: str) -> Log | None:
        """Return the log that a file name tells of, None for another file."""
        pool, ticket, label, begun = ("", "", "", "", *name.removesuffix(SUFFIX).rsplit(".", 3))[-4:]
        if not (name.endswith(SUFFIX) and pool and _is_number(ticket) and _is_number(begun)):
            return None
        return cls(os.path.join(directory, name), pool, int(ticket), label, int(begun))


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) < 20


def _quoted(label: str) -> str:
    return quote(label, safe=" +,:@").replace(".", "%2E")[:LABEL_BYTES]


def label_of(log: Log) -> str:
    """Return the label that the name of a log tells, as it may be shown."""
    return utf8.printable(unquote(log.label))


def begin(settings: Settings, claim: Claim) -> tuple[int, str]:
    """Make the log of a claim that stands in line, and remove old ones; return its descriptor and its path.

    Raises LogFailed (73).
    """
    directory = directory_of(settings)
    prune(directory, settings.log_days)
    return create(directory, settings.pool_name, claim.ticket, claim.label, settings.shared_with)


def directory_of(settings: Settings) -> str:
    """Return the directory of the logs. Raises LogFailed (73) for a user without a home."""
    if settings.log_dir is None:
        raise LogFailed("LOG_DIR", N_("a user without a home"))
    return settings.log_dir


def create(directory: str, pool: str, ticket: int, label: str, group: int | None) -> tuple[int, str]:
    """Make the log of a build that begins; return its descriptor, to append by, and its path.

    *group* (gid) may read it, as it may use the pool. Raises LogFailed (73).
    """
    name = f"{pool.removeprefix('/')}.{ticket}.{_quoted(label)}.{time.time():.0f}{SUFFIX}"
    path = os.path.join(directory, name)
    try:
        _make(directory, 0o755 if group is not None or os.geteuid() == 0 else 0o700)
        _require_trusted(directory)
        fd = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        if group is not None:
            with suppress(PermissionError):  # no member: then it stays ours alone
                os.fchown(fd, -1, group)
                os.fchmod(fd, 0o640)
    except OSError as error:
        raise LogFailed(path, error.strerror or str(error)) from None
    return fd, path


def _make(directory: str, mode: int) -> None:
    umask = os.umask(0o077)
    try:
        # what is made on the way there is no group's to write, as with a umask of 002 it would be
        os.umask(umask | 0o022)
        os.makedirs(directory, mode=mode, exist_ok=True)
    finally:
        os.umask(umask)


def _require_trusted(directory: str) -> None:
    """Raise LogFailed (73) unless only root and we can have put the directory there, and can put names in it.

    Our private group is ourselves: with it comes a umask of 002, by which all directories at home are that group's too.
    """
    for at, status, _link in trusted_path.steps(directory):
        ours = trusted_path.is_roots(status) or (status.st_uid == os.geteuid() and os.geteuid() != 0)
        writers = trusted_path.writers(status, new=at == directory)
        shared = writers.group and not (ours and users.is_private_group(status.st_gid))
        if not ours or writers.others or shared:
            raise LogFailed(directory, N_("writable by other users"))


def find(directory: str, pool: str, *, ticket: int | None = None, label: str | None = None) -> list[Log]:
    """Return the logs of a pool, the newest first: of all its builds, or of one ticket or label."""
    try:
        names = os.listdir(directory)
    except OSError:
        return []
    found = [log for name in names if (log := Log.parse(directory, name)) and log.pool == pool.removeprefix("/")]
    asked = [
        log
        for log in found
        if (ticket is None or log.ticket == ticket) and (label is None or log.label == _quoted(label))
    ]
    return sorted(asked, key=lambda log: (log.begun, log.ticket), reverse=True)


def open_for_reading(path: str, uid: int | None = None) -> int:
    """Open a log, which *uid* has written as far as that is known. Raises LogUnreadable (77), FileNotFoundError."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        raise
    except OSError as error:
        with suppress(OSError):
            uid = os.lstat(path).st_uid
        raise LogUnreadable(path, uid, reason_of(error)) from None
    status = os.fstat(fd)
    if not stat.S_ISREG(status.st_mode) or status.st_nlink > 1:  # the path may be one that another user has written
        os.close(fd)
        raise LogUnreadable(path, status.st_uid, N_("not a regular file of its own"))
    return fd


def prune(directory: str, days: int) -> None:
    """Remove our own logs in which nothing was written for so many days."""
    with suppress(OSError):
        for name in os.listdir(directory):
            path = os.path.join(directory, name)
            status = os.lstat(path)
            old = status.st_mtime < time.time() - days * DAY_S and stat.S_ISREG(status.st_mode)
            if old and status.st_uid == os.geteuid() and Log.parse(directory, name):
                os.unlink(path)
