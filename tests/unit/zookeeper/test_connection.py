"""What we take from inside kazoo: an update that changes it fails here, and ends no build."""

from __future__ import annotations

import inspect

import pytest
from kazoo.client import KazooClient
from kazoo.protocol.connection import ConnectionHandler

from ipclock.zookeeper.connection import Connection, Handler

TAKES = {
    "_connect": ["self", "host", "hostip", "port"],
    "_invoke": ["self", "timeout", "request", "xid"],
    "_read_socket": ["self", "read_timeout"],
    "_send_request": ["self", "read_timeout", "connect_timeout"],
    "_send_ping": ["self", "connect_timeout"],
}


def calls(method: str) -> set[str]:
    """Return the names that one of kazoo's methods uses."""
    return set(getattr(ConnectionHandler, method).__code__.co_names)


@pytest.mark.parametrize("name", sorted(TAKES))
def test_a_method_that_we_override_is_still_kazoos(name: str) -> None:
    kazoos = getattr(ConnectionHandler, name)

    assert (list(inspect.signature(kazoos).parameters), name in vars(Connection)) == (TAKES[name], True)


def test_kazoo_still_connects_and_serves_by_what_we_override() -> None:
    in_loop = {"_connect", "_read_socket", "_send_request", "_send_ping", "select"}

    assert (in_loop - calls("_connect_attempt"), {"create_connection", "_invoke"} - calls("_connect")) == (set(), set())


def test_a_client_still_has_the_parts_that_we_read_or_put_in_its_place() -> None:
    client = KazooClient(handler=Handler())
    kazoos = client._connection
    client._connection = Connection(client, lambda seconds: None)

    assert (type(kazoos), client._conn_retry.sleep_func, client._session_id, client.client_state) == (
        ConnectionHandler,
        Handler.sleep_func,
        None,
        "CLOSED",
    )
    assert vars(client._connection).keys() >= vars(kazoos).keys()
