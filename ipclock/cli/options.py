"""The commands, one file each, and the options that several of them share."""

from __future__ import annotations

import os
import sys
from functools import partial
from importlib import import_module

from ipclock._typing import TYPE_CHECKING
from ipclock.bounded import LAST_WORD, whole
from ipclock.config import values
from ipclock.config.environment import in_hook
from ipclock.config.settings import DEFAULT_NAME, checked
from ipclock.console import say
from ipclock.errors import N_, EngineFailed, InvalidValueError, NoPoolError
from ipclock.i18n import _
from ipclock.linux import process
from ipclock.pool import local, pools

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace, _MutuallyExclusiveGroup
    from collections.abc import Callable
    from types import ModuleType

    from ipclock.config.settings import Settings
    from ipclock.pool.engine import Administrator, Client, PoolEngine
    from ipclock.pool.local import LocalPool
    from ipclock.pool.snapshot import Snapshot
    from ipclock.run.hooks import Hooks

MAX_ID = 2**31 - 1  # of an int, as a descriptor and a PID are
MUTEX_PATIENCE_S = 10.0  # how long a command that does not wait for a slot waits for the pool's mutex


def add_pool_options(parser: ArgumentParser, *, create: bool = False, place: bool = False) -> None:
    """Add the options that say which pool is meant; each is also a key of environment and settings file.

    With *create* also how many slots it has and, as with *place* alone, in which directory a new one lies.
    """
    group = parser.add_argument_group(_("pool"))
    group.add_argument("--config", metavar="FILE", help=_("read settings from FILE"))
    group.add_argument(
        "--name",
        dest="SEMAPHORE_NAME",
        metavar="NAME",
        help=_("use the pool of this semaphore (default: /oracle-build)"),
    )
    group.add_argument(
        "--engine", dest="ENGINE", metavar="URL", help=_("use a pool of several hosts: zookeeper://HOST/POOL")
    )
    if create or place:
        help_text = _("create the records of a new pool in DIR (default: /dev/shm)")
        group.add_argument("--lock-dir", dest="LOCK_DIR", metavar="DIR", help=help_text)
    if create:
        group.add_argument(
            "--max-parallel-builds",
            dest="MAX_PARALLEL_BUILDS",
            metavar="N",
            help=_("set the number of slots of the pool to N, for waiting builds too"),
        )


def add_wait_options(parser: ArgumentParser) -> None:
    """Add the options about the wait for a slot, as flock(1) has them."""
    how_long = parser.add_mutually_exclusive_group()
    how_long.add_argument(
        "-w",
        "--wait",
        "--timeout",
        dest="BUILD_TIMEOUT",
        metavar="SEC",
        help=_("give up after SEC seconds with exit status 75 (default: 600)"),
    )
    how_long.add_argument(
        "-n",
        "--nb",
        "--nonblock",
        dest="nonblock",
        action="store_true",
        help=_("do not wait: without a free slot, exit with status 75 at once"),
    )
    parser.add_argument(
        "-E",
        "--conflict-exit-code",
        dest="conflict_status",
        metavar="CODE",
        type=number("--conflict-exit-code", 255, N_("a number from 0 to 255")),
        help=_("exit with status CODE instead of 75"),
    )
    how_much = parser.add_mutually_exclusive_group()
    add_quiet(how_much)
    how_much.add_argument(
        "-v", "--verbose", action="store_true", help=_("print the ticket, the slot and the wait time")
    )


def add_queue_options(parser: ArgumentParser) -> None:
    """Add the options about the place in line and what may run beside the build."""
    group = parser.add_argument_group(_("queue"))
    group.add_argument("--slots", dest="BUILD_SLOTS", metavar="W", help=_("occupy W slots (default: 1)"))
    group.add_argument(
        "--per-label", dest="MAX_PER_LABEL", metavar="N", help=_("run at most N builds of this label at once")
    )
    group.add_argument(
        "--priority",
        dest="BUILD_PRIORITY",
        metavar="P",
        help=_("set the priority from -20 (first) to 19 (last), as in nice(1) (default: 0)"),
    )
    group.add_argument(
        "--supersede",
        action="store_true",
        help=_("replace waiting older builds of this label, which exit with status 76"),
    )
    group.add_argument(
        "--memory",
        dest="MEMORY",
        metavar="SIZE",
        help=_("start only when SIZE of memory is free; auto: what builds of this label needed"),
    )


def hooks_for(settings: Settings, *, verbose: bool = False) -> Hooks | None:
    """Return the hooks that the settings name, None where there are none. Raises UnsafeHook (78)."""
    if not any((settings.on_wait, settings.on_acquire, settings.on_release, settings.on_timeout)) or in_hook():
        return None
    from ipclock.run.hooks import Hooks

    return Hooks(settings, 2 if verbose and sys.stderr is not None else None, partial(say, at_once=True))


def number(where: str, most: int, expected: str = N_("a number")) -> Callable[[str], int]:
    """Return the type of the argument called *where*: a whole number from 0 to *most*.

    It raises InvalidValueError (2).
    """

    def read(text: str) -> int:
        found = whole(text, most)
        if found is None:
            raise InvalidValueError(where, text, expected, usage=True)
        return found

    return read


def add_json(parser: ArgumentParser | _MutuallyExclusiveGroup) -> None:
    """Add the option that has a program's words instead of a person's: by itself of schema 1, as it always was."""
    help_text = _("print JSON of schema 1, with --json=2 of schema 2")
    parser.add_argument("--json", metavar="SCHEMA", nargs="?", const="1", choices=("1", "2"), help=help_text)


def add_quiet(parser: ArgumentParser | _MutuallyExclusiveGroup) -> None:
    """Add the option that has no message but errors."""
    parser.add_argument("-q", "--quiet", action="store_true", help=_("print errors only"))


def teller(args: Namespace) -> Callable[[str], None]:
    """Return what writes a message to stderr that is no error: with `--quiet` nothing does."""
    return (lambda _text: None) if args.quiet else say


def add_since(parser: ArgumentParser, *, all_by_default: bool = False) -> None:
    """Add the option for the moment from which on builds count; its value is that of time.time(), None for all."""
    week = _("include builds that ended since TIME: 90s, 2h, 1w, yesterday, 2026-01-11, 2026-01-11T14:00 (default: 7d)")
    ever = _("show only builds that ended since TIME: 90s, 7d, yesterday, 2026-01-11, 2026-01-11T14:00 (default: all)")
    default, help_text = (None, ever) if all_by_default else ("7d", week)
    parser.add_argument("--since", metavar="TIME", type=_moment, default=default, help=help_text)


def _moment(text: str) -> float:
    return checked(values.since, text, "--since")


def add_color(parser: ArgumentParser) -> None:
    """Add the option for colours."""
    help_text = _("use colours: always, never, or auto for a terminal (default: auto)")
    parser.add_argument(
        "--color", metavar="WHEN", type=lambda text: checked(values.colour, text, "--color"), help=help_text
    )


def add_ticket(parser: ArgumentParser, help_text: str) -> None:
    """Add the argument that names one slot, which may be left out."""
    parser.add_argument("ticket", metavar="TICKET", nargs="?", type=number("TICKET", LAST_WORD), help=help_text)


def open_pool(settings: Settings, *, create: bool = False) -> PoolEngine:
    """Open the pool that the settings name.

    With *create* it is made if it is not there, and has as many slots as the settings say; else raises NoPoolError
    (69).
    """
    if not create:
        settings = settings.replace(max_parallel_builds=None)
    if settings.engine:
        pool: PoolEngine = _zookeeper(settings.engine).SharedPool(settings, make=create)
        return pool
    return local.open_pool(settings, create=create)


def open_for_build(args: Namespace, settings: Settings) -> Client:
    """Open the pool for a build, making it if it is not there, and say where it differs from what the settings say."""
    if settings.engine:
        return open_pool(settings, create=True)
    pool = local.open_pool(settings)
    if args.verbose and os.path.dirname(pool.where) != os.path.realpath(settings.lock_dir):
        say(_("ipclock: the pool's directory is {directory}").format(directory=pool.where))
    if not args.quiet:
        _tell_of_capacity(pool, settings)
    return pool


def _tell_of_capacity(pool: LocalPool, settings: Settings) -> None:
    wanted = settings.max_parallel_builds
    if wanted is None or wanted == pool.capacity:
        return
    name, now = settings.pool_name, pool.capacity
    if pool.heeds_us:
        text = _("ipclock: slots of {pool}: {wanted} from now on (before: {now})")
        say(text.format(pool=name, wanted=wanted, now=now))
        return
    from ipclock.display.formatting import not_heeded  # few meet an owner who says another number

    say(f"ipclock: {not_heeded(name, now, wanted, pool.store.owner)}")
    say(_("   'ipclock init --max-parallel-builds {wanted}' changes it for all users.").format(wanted=wanted))


def open_for_administrator(settings: Settings, *, ours: bool = False, resize: bool = False) -> Administrator:
    """Open the pool to repair it, and say what root has taken over for that.

    With *ours* it is made if it is not there, and where we are root it is root's from now on; else raises NoPoolError
    (69). With *resize* it gets as many slots as the settings say, whichever user owns it.
    """
    if settings.engine:
        return open_pool(settings, create=ours)
    pool, taken = local.open_for_administrator(settings, ours=ours, resize=resize)
    if taken:
        if taken.readable:
            text = _("ipclock: took the pool over from {user}; running builds that keep their slots: {builds}")
        else:
            text = _(
                "ipclock: took the pool over from {user}; it could not be read: its builds count, but are not listed"
            )
        say(text.format(user=process.user_name(taken.uid), builds=taken.builds))
    if ours:
        _tell_of_capacity(pool, settings)
    return pool


def looker(settings: Settings) -> Callable[[], Snapshot]:
    """Return what reads the pool that the settings name, time and again. It makes nothing.

    A pool of this machine that is not there is empty; of one of several hosts what reads it raises NoPoolError (69).
    """
    if settings.engine:
        look: Callable[[], Snapshot] = _zookeeper(settings.engine).looker(settings)
        return look
    return lambda: local.look(settings)


def require_pool(settings: Settings, *, default: bool = True) -> None:
    """Raise NoPoolError (69) unless the pool that the settings name is there, as far as that is a pool of this machine.

    With *default* one of the name that a pool has by default need not be: it was not mistyped.
    """
    if not (settings.engine or (default and settings.semaphore_name == DEFAULT_NAME)):
        pools.require(settings.semaphore_name)


def require_pool_or_past(settings: Settings, *, default: bool = True) -> None:
    """Raise NoPoolError (69) as `require_pool` does, unless builds have ended in the pool: it went with a boot."""
    try:
        require_pool(settings, default=default)
    except NoPoolError:
        from ipclock.history import queries

        if not (settings.history and queries.knows(settings.history, settings.pool_name)):
            raise


def _zookeeper(engine: str) -> ModuleType:
    try:
        return import_module("ipclock.zookeeper.pool")
    except ImportError as error:
        raise EngineFailed(
            engine.partition("?")[0], N_("kazoo is not installed: pip install 'ipclock[zookeeper]'")
        ) from error


def add_on_lost(parser: ArgumentParser) -> None:
    """Add the option for builds whose slot may be lost."""
    help_text = _(
        "if ZooKeeper does not respond: kill the build and exit with status 79 (kill), or warn (default: kill)"
    )
    parser.add_argument("--on-lost", dest="ON_LOST", metavar="HOW", help=help_text)
