"""What the name of a record says: all that others must know of a build to decide when it is its turn.

So the queue is read by one listing of a directory, and whatever changes of it changes by one rename(2).
"""

from __future__ import annotations

from binascii import crc32

from ipclock._typing import TYPE_CHECKING, NamedTuple
from ipclock.bounded import LAST_TICKET, whole

if TYPE_CHECKING:
    from typing import Any

# letter in the name, field, default; what a later version adds comes behind these
_ATTRIBUTES = (
    *(("u", "units", 1), ("p", "priority", 0), ("l", "limit", 0), ("r", "reserved", 0), ("b", "by", 0)),
    *(("n", "within", 0), ("s", "silent", 0)),
)
_LONGEST = 200  # bytes of a name: what is added to it on its way has room in the 255 that a file name may have
_MOST = 10**9 - 1  # slots, units, steps of priority: more than any pool has
_FIELDS = {letter: (field, default) for letter, field, default in _ATTRIBUTES}


class RecordName(NamedTuple):
    """A record by its name: `17`, `17.2` while ticket 17 holds slot 2, `17,u2,p-5` for 2 units at priority -5.

    `slot` is 0 outside of `holding/`. `units` are the slots that the build takes. `limit` is how many of its label may
    run at once, 0 any number; `key` stands for the label then. `reserved` are units kept for the waiter at the gate
    until it can have all. `by` is the ticket of the build that supersedes this one, 0 none. `within` is the ticket that
    has taken the slot in which a nested build runs, 0 for one with a slot of its own. `silent` is 1 for a waiter that
    was called and did not act. `party` stands for its user or session in a pool that is fair between these, "" where it
    is not. `rest` is what we do not know.
    """

    ticket: int
    slot: int = 0
    units: int = 1
    priority: int = 0
    limit: int = 0
    reserved: int = 0
    by: int = 0
    key: str = ""
    rest: str = ""
    within: int = 0
    silent: int = 0
    party: str = ""

    @property
    def outer(self) -> int:
        """The ticket that has taken the slot: its own, or that of the build around it."""
        return self.within or self.ticket

    @property
    def place(self) -> tuple[int, int]:
        """Which slot it has: the ticket that has taken it, and its number.

        Two builds may have drawn one ticket, from two directories of a pool that was removed: each has a slot of its
        own.
        """
        return self.outer, self.slot

    @property
    def file(self) -> str:
        """The record's file name."""
        name = f"{self.ticket}.{self.slot}" if self.slot else str(self.ticket)
        for letter, field, default in _ATTRIBUTES:
            if (value := getattr(self, field)) != default:
                name += f",{letter}{value}"
        # the party last: to a version that does not know it, all that follows is unknown too
        return name + (f",k{self.key}" if self.key else "") + (f",f{self.party}" if self.party else "") + self.rest


def parse(name: str) -> RecordName | None:
    """Return the entry that a file name stands for; None for a name that is no record's."""
    if (only := whole(name, LAST_TICKET)) and name[0] != "0":  # nearly all of a long queue, read at each hand-off
        return RecordName(only)
    if len(name.encode(errors="surrogateescape")) > _LONGEST:
        return None
    numbers, *pieces = name.split(",")
    left, dot, right = numbers.partition(".")
    ticket, slot = whole(left, LAST_TICKET), whole(right or "0", _MOST)
    if ticket is None or slot is None or (dot and not right):
        return None
    if not all(piece and "a" <= piece[0] <= "z" for piece in pieces):
        return None
    entry = RecordName(ticket, slot)
    if pieces:
        entry = _with_attributes(entry, pieces)
    return entry if entry.file == name else None


def _with_attributes(entry: RecordName, pieces: list[str]) -> RecordName:
    known: dict[str, Any] = {}
    for place, piece in enumerate(pieces):
        letter, value = piece[0], piece[1:]
        number = whole(value.removeprefix("-") if letter == "p" else value, LAST_TICKET if letter in "bn" else _MOST)
        if letter in _FIELDS and number is not None and (letter, value) != ("u", "0"):
            known[_FIELDS[letter][0]] = -number if value[:1] == "-" else number
        elif letter == "k" and value:
            known["key"] = value
        elif letter == "f" and value.isascii() and value.isalnum():
            known["party"] = value
        else:
            return entry._replace(**known, rest="".join(f",{unknown}" for unknown in pieces[place:]))
    return entry._replace(**known)


def key_of(label: str) -> str:
    """Return a short name for a label. Two labels that share one by chance wait for each other, no more."""
    return f"{crc32(label.encode(errors='surrogateescape')):08x}"
