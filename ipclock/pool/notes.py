"""Notes about a pool for its later clients: a drain, who has changed N last, between whom it is fair.

A note is a small file of `key=value` lines in the pool's directory. This is what they say, wherever they are kept.
"""

from __future__ import annotations

import time
from contextlib import suppress

from ipclock._typing import TYPE_CHECKING, NamedTuple
from ipclock.bounded import LAST_TICKET, LAST_UID, moment_in, whole, whole_in
from ipclock.config import values
from ipclock.linux import clocks
from ipclock.pool.policy import Admission

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Self


class Drain(NamedTuple):
    """Why no build is started: `reason` in words, the `uid` of who wants it so, `until` on time.monotonic()'s clock."""

    reason: str = ""
    uid: int | None = None
    until: float | None = None

    @classmethod
    def read(cls, fields: Mapping[str, str], owner: int) -> Self:
        """Return the drain that a note says, in a file of *owner* (uid).

        One of an earlier boot, whose clock has begun anew, ends by the wall clock. Raises OSError.
        """
        until = moment_in(fields, "until")
        if fields.get("boot", clocks.boot_id()) == clocks.boot_id():
            end = None if until is None else until + clocks.ahead()
        else:
            ends = moment_in(fields, "ends")
            end = None if ends is None else time.monotonic() + ends - time.time()
        return cls(fields.get("reason", ""), _uid(fields, owner), end)

    def fields(self) -> dict[str, str]:
        """Return the drain as a note."""
        said = {"reason": self.reason} | ({} if self.uid is None else {"uid": str(self.uid)})
        if self.until is None:
            return said
        return said | {
            "until": str(self.until - clocks.ahead()),
            "boot": clocks.boot_id(),
            "ends": f"{time.time() + self.until - time.monotonic():.3f}",
        }


class Resize(NamedTuple):
    """That `uid` has changed N from `before` to `capacity`, `at` a time of the wall clock."""

    before: int
    capacity: int
    uid: int
    at: float

    @classmethod
    def read(cls, fields: Mapping[str, str], owner: int) -> Self | None:
        """Return the change that a note says, in a file of *owner* (uid); None where it says none."""
        before, capacity = (whole_in(fields, key, LAST_UID) for key in ("before", "capacity"))
        at = moment_in(fields, "at")
        if before is None or capacity is None or at is None:
            return None
        return cls(before, capacity, _uid(fields, owner), at)

    def fields(self) -> dict[str, str]:
        """Return the change as a note."""
        return {key: str(value) for key, value in self._asdict().items()}


class Fairness(NamedTuple):
    """That builds of one priority take turns `between` users or sessions ("user", "session"); the last admissions."""

    between: str
    admissions: tuple[Admission, ...] = ()

    @classmethod
    def read(cls, fields: Mapping[str, str]) -> Self | None:
        """Return what a note says; None where it says nothing that can be understood."""
        between, *rest = fields.items() if fields else [("", "")]
        if between[0] != "between" or between[1] not in values.PARTIES:
            return None
        found = []
        for ticket, text in rest:
            party, _, priority = text.rpartition(",")
            number = whole(ticket, LAST_TICKET)
            with suppress(ValueError):
                if number is not None and party:
                    found.append(Admission(party, number, values.priority(priority)))
        return cls(between[1], tuple(found))

    def fields(self) -> dict[str, str]:
        """Return it as a note."""
        admissions = {str(one.ticket): f"{one.party},{one.priority}" for one in self.admissions}
        return {"between": self.between} | admissions


def _uid(fields: Mapping[str, str], owner: int) -> int:
    # what root writes in a user's pool is a file of that user
    uid = whole_in(fields, "uid", LAST_UID)
    return owner if uid is None else uid


def lines(fields: Mapping[str, object]) -> bytes:
    """Return the text of a note, or of a record."""
    return "".join(f"{key}={value}\n" for key, value in fields.items()).encode()


def parse_fields(data: bytes) -> dict[str, str]:
    """Return what a note, or a record, says; what follows the last newline is unfinished."""
    fields = {}
    for text in data.decode(errors="replace").split("\n")[:-1]:
        key, equals, value = text.partition("=")
        if equals:
            fields[key] = value
    return fields
