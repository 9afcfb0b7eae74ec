"""An SQLite database opened without trusting what lies at its path, nor what others have put into it.

The only importer of sqlite3. Guarantees: whatever is wrong with the file, its content or the disk is one HistoryFailed,
after about a second; a file that is not ours is left as it is, and nothing in one is run: no view, no trigger. SQLite
opens the file, and the -wal and -shm beside it, by path; so root does that with its own rights only where no other user
can put anything at that path, and elsewhere with the rights of a user that can. What SQLite itself cannot be kept from,
as a crash when the -shm that it has mapped is cut off, happens to a process of its own (`ask`). Does not
guarantee that the last rows outlive a power cut.
"""

from __future__ import annotations

import os
import stat
import sys
import time
from contextlib import contextmanager, nullcontext, suppress
from functools import partial

from ipclock import users
from ipclock._typing import TYPE_CHECKING, NamedTuple
from ipclock.errors import N_, HistoryFailed, reason_of
from ipclock.linux import isolated, trusted_path
from ipclock.pool.directory import SAFE_FLAGS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager
    from sqlite3 import Connection as Connection
    from typing import TypeVar

    T = TypeVar("T")

BUSY_S = 1.0  # for another process's lock, and for the work itself
MORE_S = 1.0  # beyond these, for the process and for a disk
LONGEST = 100_000  # bytes of a value or a row; the longest of ours has about a thousand
MOST_LETTERS = 200  # of an error
STEPS = 10_000  # of SQLite's machine, less than a millisecond, from one look at the clock to the next
NOBODY = 65534
NOT_OURS = N_("not an ipclock history")
BESIDE = ("-wal", "-shm", "-journal")  # what SQLite opens besides
_MAGIC = b"SQLite format 3\0"  # https://www.sqlite.org/fileformat.html


class Schema(NamedTuple):
    """What makes a database ours: the application's number, the tables' version, the statements that make them.

    Those of `later` may be missing in one that an older ipclock has made; who writes makes up for them.
    """

    application: int
    version: int
    statements: tuple[str, ...]
    later: tuple[str, ...] = ()


def load() -> None:
    """Load the library now, which takes longer than a write with it; where there is none, `opened` tells."""
    with suppress(ImportError):
        import sqlite3  # noqa: F401 - for its being loaded


def ask(
    path: str, schema: Schema, question: Callable[[Connection], T], *, write: bool = False, seconds: float = BUSY_S
) -> T:
    """Return what *question* returns of the database that `opened` hands it, asked in a process of its own.

    Raises what `opened` raises.
    """
    if not write and not os.path.lexists(path):
        raise FileNotFoundError(path)
    try:
        return isolated.run(partial(answer, path, schema, question, write=write, seconds=seconds), seconds + MORE_S)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise HistoryFailed(path, reason_of(error)) from None


def answer(
    path: str, schema: Schema, question: Callable[[Connection], T], *, write: bool = False, seconds: float = BUSY_S
) -> T:
    """Return the same, asked in this process: inside of another program, which is not to be forked."""
    with opened(path, schema, write=write, seconds=seconds) as connection:
        return question(connection)


@contextmanager
def opened(path: str, schema: Schema, *, write: bool, seconds: float = BUSY_S) -> Iterator[Connection]:
    """Open the database for the block, which is one transaction; *write* makes what is missing of it.

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
            # never rwc: SQLite's O_CREAT on an existing file is refused in a sticky directory (fs.protected_regular)
            uri = f"file:{quoted}?mode={'rw' if write else 'ro'}"
            connection = sqlite3.connect(uri, uri=True, timeout=BUSY_S, isolation_level=None)
            try:
                _harden(connection, time.monotonic() + seconds)
                _begin(path, schema, connection, write=write)
                yield connection
                connection.execute("COMMIT")
            finally:
                connection.close()
    except (OSError, OverflowError, UnicodeError, sqlite3.Error) as error:
        if isinstance(error, FileNotFoundError) and not write:
            raise
        if getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_INTERRUPT:
            raise HistoryFailed(path, isolated.TOO_SLOW) from None
        # SQLite repeats what the file holds
        raise HistoryFailed(path, reason_of(error)[:MOST_LETTERS]) from None


def _harden(connection: Connection, until: float) -> None:
    """Let SQLite do no more than our own statements ask for, and not after *until*."""
    import sqlite3

    # before anything is read: already the schema may be without end
    connection.set_progress_handler(lambda: time.monotonic() > until, STEPS)
    connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, LONGEST)
    # what is no UTF-8 is a strange text, and no reason to read nothing
    connection.text_factory = lambda data: data.decode(errors="replace")
    if sys.version_info >= (3, 12):
        # once more than the look at the schema: a program without locks may change it behind that
        connection.setconfig(sqlite3.SQLITE_DBCONFIG_DEFENSIVE, True)
        connection.setconfig(sqlite3.SQLITE_DBCONFIG_ENABLE_TRIGGER, False)
        connection.setconfig(sqlite3.SQLITE_DBCONFIG_ENABLE_VIEW, False)
    connection.execute("PRAGMA trusted_schema = OFF")
    connection.execute("PRAGMA cell_size_check = ON")
    connection.execute("PRAGMA mmap_size = 0")  # a process that has mapped a file that is cut off dies of SIGBUS
    # no fsync while others wait for the lock: a slow disk would make them give up
    connection.execute("PRAGMA synchronous = NORMAL")


def _keeper(path: str, directory: str) -> tuple[int, int]:
    """Return (uid, gid) of the users who may put things at the path besides root: (0, 0) where none may.

    Goes down from / to the *directory*: the owner of each decides what is beneath. Raises HistoryFailed where
    all users may.
    """
    names = directory.split("/")
    for count in range(1, len(names) + 1):
        try:
            status = os.lstat("/".join(names[:count]) or "/")
        except FileNotFoundError:
            break  # is made by a user who may
        writers = trusted_path.writers(status, new=count == len(names))  # in the last one SQLite makes new names
        if writers.others:
            raise HistoryFailed(path, N_("its directory is writable by all users"))
        if not trusted_path.is_roots(status):
            return status.st_uid, status.st_gid
        if writers.group:
            return NOBODY, status.st_gid  # a member of the group, and no more than that
    return 0, 0


def _rights_of(uid: int, gid: int) -> AbstractContextManager[None]:
    """Being root, act as another user for a while: a link planted at a path leads them nowhere new."""
    return users.acting_as(uid, gid) if os.geteuid() == 0 and uid != 0 else nullcontext()


def _make_file(path: str) -> None:
    """Make an empty file, which is an empty database, and its directories, for its user alone. SQLite's own follow."""
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
    for name in (real, *(real + end for end in BESIDE)):
        try:
            regular = stat.S_ISREG(os.lstat(name).st_mode)
        except FileNotFoundError:
            if name == real:
                raise
            continue
        if not regular:  # opening a pipe would wait for its other end
            raise HistoryFailed(path, N_("not a regular file"))
    fd = os.open(real, os.O_RDONLY | SAFE_FLAGS)
    try:
        if os.read(fd, len(_MAGIC)) not in (b"", _MAGIC):
            raise HistoryFailed(path, NOT_OURS)
    finally:
        os.close(fd)


def _begin(path: str, schema: Schema, connection: Connection, *, write: bool) -> None:
    """Begin the transaction, in which the schema that is looked at is the one that is used."""
    import sqlite3

    connection.execute("BEGIN IMMEDIATE" if write else "BEGIN")  # a reader that writes later may be refused at once
    missing = _missing(path, schema, connection)
    if missing and not write and missing != schema.later:
        raise FileNotFoundError(path)
    if not write or not missing:
        return
    if missing != schema.later:
        connection.execute("ROLLBACK")
        # does not wait for others who do the same just now; without it writers block readers, and no more than that
        with suppress(sqlite3.OperationalError):
            connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("BEGIN EXCLUSIVE")
        missing = _missing(path, schema, connection)
    for statement in missing:
        connection.execute(statement)
    connection.execute(f"PRAGMA application_id = {schema.application}")
    connection.execute(f"PRAGMA user_version = {schema.version}")


def _missing(path: str, schema: Schema, connection: Connection) -> tuple[str, ...]:
    """Return which statements are still to be made: all, those of `later`, or none. Raises HistoryFailed for others.

    Each object's statement is what SQLite will go by, so these are compared; their names are no proof.
    """
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if application == schema.application and version > schema.version:
        raise HistoryFailed(path, N_("created by a newer ipclock"))
    everything = schema.statements + schema.later
    question = "SELECT sql FROM sqlite_master LIMIT ?"
    found = sorted(_one_blank(sql) for (sql,) in connection.execute(question, (len(everything) + 1,)))
    if not (application or version or found):
        return everything
    if application != schema.application or version != schema.version:
        raise HistoryFailed(path, NOT_OURS)
    for missing in ((), schema.later):
        if found == sorted(_one_blank(sql) for sql in everything if sql not in missing):
            return missing
    raise HistoryFailed(path, N_("not the tables of ipclock"))


def _one_blank(sql: object) -> str:
    return " ".join(sql.split()) if isinstance(sql, str) else ""
