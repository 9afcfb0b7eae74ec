"""Where a pool of several hosts is kept: `zookeeper://host1:2181,host2:2181/oracle-build?session=30`."""

from __future__ import annotations

import re
from typing import NamedTuple

from ipclock import utf8
from ipclock.errors import N_

SESSION_S = 30.0
SHORTEST_S, LONGEST_S = 4.0, 600.0

_HOST = r"(?:\[[0-9a-fA-F:.]+\]|[A-Za-z0-9._-]+)(?::[0-9]{1,5})?"
_ADDRESS = re.compile(rf"zookeeper://({_HOST}(?:,{_HOST})*)((?:/[A-Za-z0-9_-][A-Za-z0-9._-]*)+)(?:\?(.*))?")
_FORM = N_("zookeeper://HOST:PORT[,HOST:PORT ...]/POOL[?auth=FILE&ca=FILE&session=30]")


class Address(NamedTuple):
    """Servers `hosts`, the pool's node `path`, and how to come to it.

    `auth` is "user:password" (ZooKeeper's digest scheme). With `ca`, a file, the servers must prove by TLS who they
    are, and with `cert` and `key` so do we. The session lasts `session_s` without a sign of life.
    """

    hosts: str
    path: str
    auth: str | None = None
    ca: str | None = None
    cert: str | None = None
    key: str | None = None
    session_s: float = SESSION_S

    def __str__(self) -> str:
        return f"zookeeper://{self.hosts}{self.path}"  # never the password


def checked(text: str) -> str:
    """An address of a pool; its files are not looked at. Raises ValueError with what is expected."""
    _parts(text)
    return text


def path_of(text: str) -> str:
    """Return the path of the pool in a checked address."""
    return _parts(text)[1]


def parse(text: str) -> Address:
    """Return the address that a checked text means, its password read. Raises OSError, ValueError."""
    hosts, path, options = _parts(text)
    files: dict[str, str] = {name: utf8.native(options[name]) for name in ("ca", "cert", "key") if name in options}
    for file in files.values():
        open(file, "rb").close()  # or kazoo would try for ever
    auth = None
    if "auth" in options:
        with open(utf8.native(options["auth"]), encoding="utf-8") as file_of_auth:
            auth = file_of_auth.readline().strip()
        if not re.fullmatch("[^:]+:.+", auth):
            raise ValueError(N_("a password file of one line: user:password"))
    return Address(hosts, path, auth, session_s=float(options.get("session", SESSION_S)), **files)


def _parts(text: str) -> tuple[str, str, dict[str, str]]:
    matched = _ADDRESS.fullmatch(text)
    if matched is None:
        raise ValueError(_FORM)
    options: dict[str, str] = {}
    for option in filter(None, (matched[3] or "").split("&")):
        key, _, value = option.partition("=")
        # an option that is not known may be one that was to keep others out
        if key not in ("auth", "ca", "cert", "key", "session") or key in options or not value:
            raise ValueError(_FORM)
        options[key] = value
    if any(not options[key].startswith("/") for key in options if key != "session"):
        raise ValueError(N_("absolute paths of files after auth=, ca=, cert= and key="))
    if ("cert" in options) != ("key" in options) or ("cert" in options and "ca" not in options):
        raise ValueError(N_("cert= and key= together, and only with ca="))
    session = options.get("session", f"{SESSION_S:g}")
    if not re.fullmatch(r"[0-9]{1,3}(\.[0-9]{1,3})?", session) or not SHORTEST_S <= float(session) <= LONGEST_S:
        raise ValueError(N_("session= from 4 to 600 seconds"))
    return matched[1], matched[2], options
