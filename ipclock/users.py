"""Users, as far as our user namespace shows them (user_namespaces(7)).

A user without a uid in it shows as the overflow uid: the machine's root, another user, even we ourselves. So nothing
follows from that uid, nor from two files that have it; the kernel is asked instead. The same holds for groups.
"""

from __future__ import annotations

import os
from contextlib import contextmanager
from functools import cache

from ipclock._typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_ALL = 4294967295  # how many ids the first user namespace shows


@cache
def _ids(kind: str) -> list[range]:
    """Return the ids that there are here."""
    try:
        with open(f"/proc/self/{kind}_map", "rb") as file:
            rows = [line.split() for line in file]
    except OSError:  # a kernel without user namespaces, or no /proc
        return [range(_ALL)]
    return [range(int(first), int(first) + int(count)) for first, _, count in rows]


@cache
def _stand_in(kind: str) -> int | None:
    """Return the id that stands for those without one here; None where all have one."""
    if sum(map(len, _ids(kind))) >= _ALL:
        return None
    with open(f"/proc/sys/kernel/overflow{kind}", "rb") as file:
        return int(file.read())


def shows_all() -> bool:
    """Return whether each user of the machine has a uid here."""
    return _stand_in("uid") is None


def key() -> str:
    """Return letters and digits that stand for our user, outside of our user namespace too."""
    uid = os.getuid()
    if shows_all():
        return str(uid)
    try:
        return f"{uid}n{os.stat('/proc/self/ns/user').st_ino}"
    except OSError:  # a sandbox may hide it
        return f"{uid}n"


def is_hidden(uid: int) -> bool:
    """Return whether the uid may stand for any user without one here."""
    return uid == _stand_in("uid")


def is_hidden_group(gid: int) -> bool:
    """Return whether the gid may stand for any group without one here."""
    return gid == _stand_in("gid")


def has_group(gid: int) -> bool:
    """Return whether there is a group of this gid here, to which a file can be given."""
    return any(gid in ids for ids in _ids("gid"))


def rules(uid: int) -> bool:
    """Return whether we are root over that user: in a user namespace over those who have a uid in it."""
    return os.geteuid() == 0 and not is_hidden(uid)


def owns(fd: int) -> bool:
    """Return whether the open file is ours, or that of a user that we are root over."""
    uid = os.fstat(fd).st_uid
    if not is_hidden(uid):
        return os.geteuid() in (0, uid)
    try:
        # O_NOATIME of open(2) is for the owner alone
        os.close(os.open(f"/proc/self/fd/{fd}", os.O_RDONLY | os.O_NOATIME | os.O_NONBLOCK | os.O_CLOEXEC))
    except OSError:
        return False
    return True


@contextmanager
def acting_as(uid: int, gid: int) -> Iterator[None]:
    """Being root, act as another user for the block."""
    own_gid = os.getegid()
    try:
        os.setegid(gid)
        os.seteuid(uid)
        yield
    finally:
        os.seteuid(0)
        os.setegid(own_gid)


def is_private_group(gid: int) -> bool:
    """Return whether a group is that of our user alone: both have one name, as pam_umask(8) tells it. Root has none."""
    if os.geteuid() == 0:
        return False
    import grp  # few paths are a group's to write
    import pwd

    try:
        user = pwd.getpwuid(os.geteuid())
        return gid == user.pw_gid and grp.getgrgid(gid).gr_name == user.pw_name
    except KeyError:
        return False
