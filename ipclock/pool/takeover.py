"""Puts another directory in the place of a pool: for root whatever lies there, for its owner to move it.

The new directory is made whole beside the old one and takes the place by one exchange (renameat2(2)), so there is a
pool at each moment and no client can slip in. Nothing of the old directory is used: what its owner still has open has
no effect. Builds that live are written into the new one, as `Pool` does after a removal: their beacons stay where they
are. If the old directory cannot be read, the new one is not *settled*: the kernel's locks tell how many units they hold
(INV-8).
"""

from __future__ import annotations

import ctypes
import os
import shutil
import stat
from contextlib import ExitStack, suppress

from ipclock._typing import TYPE_CHECKING, NamedTuple
from ipclock.errors import IpclockError, PoolInUse, from_os
from ipclock.linux import semaphore
from ipclock.pool import liveness, place, policy
from ipclock.pool.access import make_lock_dir, require_group
from ipclock.pool.directory import GATE, HOLDING, QUEUED
from ipclock.pool.record import beacon_of
from ipclock.pool.records import LAST_DRAWN, Store

if TYPE_CHECKING:
    from ipclock.pool.wait_context import WaitContext

PATIENCE_S = 2.0  # for the mutex of a pool whose owner may never give it back
_AT_FDCWD, _RENAME_EXCHANGE = -100, 2  # fcntl.h, linux/fs.h


class Taken(NamedTuple):
    """What was replaced: the `uid` of its owner, and how many builds of it go on as holders in the new directory.

    `readable` is false where it could not be looked at, so that only their locks count.
    """

    uid: int
    builds: int
    readable: bool


def replace(name: str, lock_dir: str, group: int | None, context: WaitContext, *, idle: bool = False) -> Taken | None:
    """Put a new directory in *lock_dir*, shared with *group*, in the place of the pool *name*; return what was there.

    None where there was nothing. With *idle*, only while the pool is idle: raises PoolInUse (75), and what opening
    the pool raises. Without, even what cannot be opened, and its semaphore with it: root alone may do that.
    Raises PoolCreateError (73), PoolPermissionError (77).
    """
    pool = name[1:]
    uid = place.owner_of(pool)
    try:
        with ExitStack() as closing:
            old = _opened(pool, context, closing, required=idle)
            if old and idle:
                old.require_owner()  # before anything is made: no other user may rename the place
                _require_idle(old)
                group = old.group if group is None else group
            new = _stage(pool, lock_dir, group)
            closing.callback(new.close)
            # in the old mutex until the exchange: a build that is admitted in between would not be in the new directory
            builds, settled = _carry_over(old, new, trusted=idle) if old else (0, False)
            _put_in_place(new, settled=settled)
            if old:
                _discard(old)
        # last: one of another user that a killed takeover leaves is refused, and the next one removes it
        if not idle:
            _remove(semaphore.path_of(name))
    except IpclockError:  # some of ours are OSErrors too
        raise
    except OSError as error:
        raise from_os(error, place.path_of(pool)) from None
    return None if uid is None else Taken(uid, builds, old is not None)


def _opened(pool: str, context: WaitContext, closing: ExitStack, *, required: bool) -> Store | None:
    """Return the pool's directory as it is, in its mutex; None where that cannot be had."""
    try:
        store = Store.open(place.SHM, pool, create=False)
        closing.callback(store.close)
        closing.enter_context(store.mutex(lambda seconds, pid: context.stuck(store.path, seconds, pid)))
    except IpclockError:
        if required:
            raise
        return None
    return store


def _require_idle(store: Store) -> None:
    if not store.settled or any(store.entries(state) for state in (QUEUED, GATE, HOLDING)):
        raise PoolInUse(store.path)


def _stage(pool: str, lock_dir: str, group: int | None) -> Store:
    """Make a whole directory beside where it is to lie."""
    require_group(place.path_of(pool), group)
    lock_dir = make_lock_dir(lock_dir)
    path = _beside(f"{lock_dir}/{os.path.basename(place.path_of(pool))}")
    _remove(path)
    new = Store.stage(pool, path)
    new.share(group)
    return new


def _beside(path: str) -> str:
    directory, name = os.path.split(path)
    return f"{directory}/.{name}"


def _carry_over(old: Store, new: Store, *, trusted: bool) -> tuple[int, bool]:
    """Write what the old directory says into the new one; return how many builds live, and if that is all.

    In the old one's mutex.
    """
    if old.capacity is not None:
        new.capacity = old.capacity
    if trusted:
        new.lowest_priority, new.epoch = old.lowest_priority, old.epoch
        new.drain, new.fairness = old.drain, old.fairness
    new.skip_tickets(max(ticket for ticket in old.tickets() if ticket <= LAST_DRAWN))
    verdicts = {entry: liveness.verdict(old, HOLDING, entry) for entry in old.entries(HOLDING)}
    # what cannot be asked may live (INV-3c): it is not copied, and leaves the new directory unsettled
    living = [entry for entry, verdict in verdicts.items() if verdict != policy.DEAD]
    found = [(entry, old.read(HOLDING, entry)) for entry in living if verdicts[entry] == policy.ALIVE]
    for entry, record in found:
        if record:
            uid = str(record.user)
            copy = new.draft(record.fields | beacon_of(record.device, record.inode) | {"uid": uid})
            new.publish(copy, HOLDING, entry)
            copy.close()
    return len({entry.place for entry in living}), old.settled and len(found) == len(living)


def _put_in_place(new: Store, *, settled: bool) -> None:
    """Let the directory that was made beside take the place of the pool, and remove what was there."""
    at = place.path_of(new.pool)
    final = f"{os.path.dirname(new.path)}/{os.path.basename(at)}"
    link = "" if os.path.dirname(final) == os.path.realpath(place.SHM) else _beside(at)
    if link:
        _remove(link)
        os.symlink(place.link_text(final, new.identity), link)
        if new.group is not None:
            os.chown(link, -1, new.group, follow_symlinks=False)
        # `settled` is about this inode, which the link keeps when it is renamed to the place (INV-8a)
        new.place = place.Place(os.lstat(link), final, new.identity)
    new.settled = settled
    # directory, then link: killed in between the other way round, the place names what is not there, and is refused
    _exchange(new.path, final)
    if link:
        _exchange(link, at)
        _remove(link)
    _remove(new.path)


def _discard(old: Store) -> None:
    """Remove the old directory where it lay elsewhere; by its parent, which may be replaced by a link meanwhile."""
    with suppress(OSError):
        parent = place.open_parent(old.path)
        try:
            name = os.path.basename(old.path)
            status = os.stat(name, dir_fd=parent, follow_symlinks=False)
            if (status.st_dev, status.st_ino) == old.identity:
                shutil.rmtree(name, dir_fd=parent)
        finally:
            os.close(parent)


def _exchange(new: str, old: str) -> None:
    """Let *new* take the name of *old*, and the other way round; where there is no *old*, rename it."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.renameat2(_AT_FDCWD, os.fsencode(new), _AT_FDCWD, os.fsencode(old), _RENAME_EXCHANGE):
        number = ctypes.get_errno()
        if os.path.lexists(old):
            raise OSError(number, os.strerror(number), old)
        os.rename(new, old)


def _remove(path: str) -> None:
    """Remove whatever lies there; a link is not followed."""
    with suppress(FileNotFoundError):
        if stat.S_ISDIR(os.lstat(path).st_mode):
            shutil.rmtree(path)
        else:
            os.unlink(path)
