"""That a build is to end before its time: on whose word, and how long its processes have for it.

Another client writes it into the record of the build, as a line of its own. This is what that line says.
"""

from __future__ import annotations

from ipclock._typing import TYPE_CHECKING, NamedTuple
from ipclock.bounded import moment
from ipclock.errors import CancelledError
from ipclock.utf8 import printable

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Self

GRACE_S = 10.0  # from SIGTERM to SIGKILL
BY = "cancelled_by"  # the key that makes a record that of a cancelled build
ENDING = "ending"  # the key by which its client says that it has heeded that


class Cancellation(NamedTuple):
    """That the user `by`, as "alice(1000)", wants the build to end, in `grace` seconds at the latest.

    Or that the process `pid` has ended, to which the build was bound.
    """

    by: str = ""
    grace: float = GRACE_S
    pid: int = 0

    @classmethod
    def read(cls, fields: Mapping[str, str]) -> Self | None:
        """Return what a record says, None where it says nothing of it."""
        if BY not in fields:
            return None
        grace = moment(fields.get("grace", ""))
        return cls(fields[BY], GRACE_S if grace is None else grace)

    def fields(self) -> dict[str, str]:
        """Return it as fields of a record."""
        return {BY: self.by, "grace": f"{self.grace:.3f}"}

    def error(self, label: str) -> CancelledError:
        """Return the failure that it is for a build of this label."""
        return CancelledError(label, printable(self.by.partition("(")[0]) or "?", self.pid)
