"""An SQLite database opened without trusting what lies at its path.

The only importer of sqlite3. Guarantees: whatever is wrong with the file or the disk is one HistoryFailed, after at
most a second, and a file that is not ours is left as it is. SQLite opens the file, and the -wal and -shm beside it, by
path; so root does that with its own rights only where nobody else can put anything at that path, and elsewhere with
the rights of those who can. Does not guarantee that the last rows outlive a power cut.
"""

from __future__ import annotations

import os
import stat
from contextlib import contextmanager, suppress

from ipclock import users
from ipclock.errors import N_, HistoryFailed
from ipclock.folder import SAFE_FLAGS
from ipclock.values import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator
    from sqlite3 import Connection as Connection

BUSY_S = 1.0
NOBODY = 65534
NOT_OURS = N_("not a history of ipclock")
_MAGIC = b"SQLite format 3\0"  # https://www.sqlite.org/fileformat.html


class Schema(NamedTuple):
    """What makes a database ours: the application's number, the tables' version, the statements that make them."""

    application: int
    version: int
    statements: tuple[str, ...]


def load() -> None:
    """Load the library now, which takes longer than a write with it; where there is none, `opened` tells."""
    with suppress(ImportError):
        import sqlite3  # noqa: F401 - for its being loaded


@contextmanager
def opened(path: str, schema: Schema, *, write: bool) -> Iterator[Connection]:
    """Open the database for the block; *write* makes what is missing of it.

    Raises HistoryFailed (73) for whatever goes wrong here or in the block, and FileNotFoundError where there is nothing
    to read.
    """
    try:
        import sqlite3
    except ImportError as error:  # a Python built without it
        raise HistoryFailed(path, str(error)) from None
    # what a link in the path leads to is settled before it is decided who may put things there
    real = os.path.join(os.path.realpath(os.path.dirname(path)), os.path.basename(path))
    try:
        with _rights_of(*_keeper(path, os.path.dirname(real))):
            if write:
                _make_file(real)
            _look_at(path, real)
            quoted = real.replace("%", "%25").replace("?", "%3f").replace("#", "%23")
            # never rwc: SQLite's O_CREAT on an existing file is refused in a sticky folder (fs.protected_regular)
            uri = f"file:{quoted}?mode={'rw' if write else 'ro'}"
            connection = sqlite3.connect(uri, uri=True, timeout=BUSY_S, isolation_level=None)
            try:
                # no fsync while others wait for the lock: a slow disk would make them give up
                connection.execute("PRAGMA synchronous = NORMAL")
                if not _is_filled(path, schema, connection):
                    if not write:
                        raise FileNotFoundError(path)
                    _make_tables(path, schema, connection)
                yield connection
            finally:
                connection.close()
    except (OSError, OverflowError, sqlite3.Error) as error:
        if isinstance(error, FileNotFoundError) and not write:
            raise
        raise HistoryFailed(path, getattr(error, "strerror", None) or str(error)) from None


def _keeper(path: str, folder: str) -> tuple[int, int]:
    """Return (uid, gid) of those who may put things at the path besides root: (0, 0) where nobody may.

    Goes down from / to the *folder*: whoever has one of them decides what is beneath. Raises HistoryFailed where
    everybody may.
    """
    names = folder.split("/")
    for count in range(1, len(names) + 1):
        try:
            status = os.lstat("/".join(names[:count]) or "/")
        except FileNotFoundError:
            break  # is made by whoever may
        # in a sticky one others cannot replace what is there; but SQLite makes new names in the last one
        exposed = count == len(names) or not status.st_mode & stat.S_ISVTX
        if exposed and status.st_mode & stat.S_IWOTH:
            raise HistoryFailed(path, N_("everybody may write to its folder"))
        if status.st_uid != 0 and not users.is_hidden(status.st_uid):
            return status.st_uid, status.st_gid
        if exposed and status.st_mode & stat.S_IWGRP:
            return NOBODY, status.st_gid  # a member of the group, and no more than that
    return 0, 0


@contextmanager
def _rights_of(uid: int, gid: int) -> Iterator[None]:
    """Being root, act as somebody else for a while: a link planted at a path leads them nowhere new."""
    if os.geteuid() != 0 or uid == 0:
        yield
        return
    own_gid = os.getegid()
    try:
        os.setegid(gid)
        os.seteuid(uid)
        yield
    finally:
        os.seteuid(0)
        os.setegid(own_gid)


def _make_file(path: str) -> None:
    """Make an empty file, which is an empty database, and its folders, for its user alone. SQLite's follow its mode."""
    umask = os.umask(0o077)
    try:
        with suppress(FileExistsError):
            os.makedirs(os.path.dirname(path), 0o700)
        with suppress(FileExistsError):
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600))
    finally:
        os.umask(umask)


def _look_at(path: str, real: str) -> None:
    """Raise HistoryFailed for a file that is neither empty nor a database: SQLite takes a short one for empty."""
    if not stat.S_ISREG(os.lstat(real).st_mode):
        raise HistoryFailed(path, N_("not a regular file"))
    fd = os.open(real, os.O_RDONLY | SAFE_FLAGS)
    try:
        if os.read(fd, len(_MAGIC)) not in (b"", _MAGIC):
            raise HistoryFailed(path, NOT_OURS)
    finally:
        os.close(fd)


def _is_filled(path: str, schema: Schema, connection: Connection) -> bool:
    """Return whether the database has our tables, False for an empty one. Raises HistoryFailed for any other."""
    # one statement: between two somebody else may just make the tables
    application, version, names = connection.execute(
        "SELECT application_id, user_version, (SELECT count(*) FROM sqlite_master)"
        " FROM pragma_application_id, pragma_user_version"
    ).fetchone()
    if application == schema.application and version > schema.version:
        raise HistoryFailed(path, N_("made by a newer ipclock"))
    if application == schema.application and version == schema.version:
        return True
    if application or version or names:
        raise HistoryFailed(path, NOT_OURS)
    return False


def _make_tables(path: str, schema: Schema, connection: Connection) -> None:
    import sqlite3

    # does not wait for others who do the same just now; without it writers block readers, and no more than that
    with suppress(sqlite3.OperationalError):
        connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("BEGIN EXCLUSIVE")
    if not _is_filled(path, schema, connection):
        for statement in schema.statements:
            connection.execute(statement)
        connection.execute(f"PRAGMA application_id = {schema.application}")
        connection.execute(f"PRAGMA user_version = {schema.version}")
    connection.execute("COMMIT")
