"""The semaphores of a pool: its gate, which has the free slots, and one for each waiter, which wakes it."""

from __future__ import annotations

import os
from contextlib import suppress

from ipclock._typing import TYPE_CHECKING
from ipclock.bounded import LAST_TICKET, whole
from ipclock.errors import N_, IpclockError, SemaphoreError, foreign
from ipclock.linux.semaphore import FOLDER, Semaphore, create, open_existing, path_of, unlink

if TYPE_CHECKING:
    from ipclock.pool.directory import Directory


def open_gate(name: str, directory: Directory, *, repair: bool = False) -> Semaphore:
    """Open the gate of a pool, making it with value 0 if it is not there; with *repair* a damaged one is replaced.

    Raises what `open_existing` and `create` raise.
    """
    while True:
        try:
            gate = open_existing(name, directory.trusts)
        except SemaphoreError:
            if not repair:
                raise
            unlink(name)
            try:
                # a directory, or in a sticky directory another user's file, is still there: trying on would never end
                gate = open_existing(name, directory.trusts)
            except SemaphoreError:
                raise foreign(path_of(name), N_("cannot be replaced; remove it by hand")) from None
        if gate is None:
            # with value 0, which the first section levels (INV-4): with N it would wake waiters for units that are held
            with directory.creating():
                gate = create(name, directory.mode, directory.group, directory.group_giver)
        if gate:
            return gate


class Turns:
    """The turn semaphores of a pool, one a waiter: `/oracle-build.17` wakes the waiter with ticket 17."""

    def __init__(self, pool: str, directory: Directory) -> None:
        self._pool = pool
        self._folder = directory

    def _name(self, ticket: int) -> str:
        return f"{self._pool}.{ticket}"

    def create(self, ticket: int) -> Semaphore:
        """Make the turn of *ticket*, in place of one that an earlier life of the pool left behind.

        Raises PoolPermissionError (77) where a stranger has planted something there, PoolCreateError (73).
        """
        with self._folder.creating():
            try:
                made = self._make(ticket)
                if made is None:
                    # not opened: it may be a stranger's, and posts left in it would wake this waiter for nothing
                    self.remove(ticket)
                    made = self._make(ticket)
            except IpclockError:
                self.remove(ticket)  # it may have been made, but not to be opened
                raise
        if made is None:
            raise foreign(path_of(self._name(ticket)))
        return made

    def _make(self, ticket: int) -> Semaphore | None:
        return create(self._name(ticket), self._folder.mode, self._folder.group, self._folder.group_giver)

    def post(self, ticket: int) -> None:
        """Wake the waiter. One whose turn is not there (yet), or no usable one, is woken by its own tick."""
        # never made here: its waiter may be gone, and then nothing but a sweep would remove it
        try:
            turn = open_existing(self._name(ticket), self._folder.trusts)
        except IpclockError:
            return
        if turn:
            turn.post()
            turn.close()

    def tickets(self) -> set[int]:
        """Return the tickets whose turns are there; none where the semaphores' directory may not be listed. Slow."""
        prefix = os.path.basename(path_of(self._pool)) + "."
        found = []
        with suppress(PermissionError):
            found = [name.removeprefix(prefix) for name in os.listdir(FOLDER) if name.startswith(prefix)]
        return {ticket for text in found if (ticket := whole(text, LAST_TICKET)) is not None}

    def remove(self, ticket: int) -> bool:
        """Unlink the turn if it is there; return whether it is gone."""
        return unlink(self._name(ticket))
