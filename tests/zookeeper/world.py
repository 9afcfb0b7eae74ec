"""A pool on ZooKeeper servers for one test: a `World` whose records are the servers' nodes."""

from __future__ import annotations

import json
import socket
import subprocess
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from kazoo.client import KazooClient
from kazoo.exceptions import NoNodeError
from kazoo.retry import KazooRetry

from tests.helpers.world import World
from tests.zookeeper.servers import START_S

if TYPE_CHECKING:
    from collections.abc import Iterator


class SharedWorld(World):
    """A pool named for one test. *client* looks at the nodes; *hosts* are where the commands look for servers."""

    def __init__(self, name: str, client: KazooClient, hosts: str, options: str = "session=10") -> None:
        super().__init__(name)
        self.client = client
        self.env["ENGINE"] = f"zookeeper://{hosts}{self.name}?{options}"

    def ask(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run `ipclock`: a fork would have locks that the threads of our client hold."""
        return self.run(*arguments)

    def nodes(self, part: str) -> list[str]:
        """Return the names of the nodes in `line` or `slots`."""
        try:
            found: list[str] = self.client.retry(self.client.get_children, f"{self.name}/{part}")
        except NoNodeError:
            return []
        return sorted(found, key=lambda name: name.rpartition("-")[2])

    def records(self, state: str) -> list[str]:
        """Return who is in a state, as the folders of a pool of this machine would show it."""
        line = self.nodes("line")
        return {"gate": line[:1], "queued": line[1:], "holding": self.nodes("slots")}.get(state, [])

    def turns(self) -> list[str]:
        """Return nothing: nobody has a semaphore here."""
        return []

    def value(self) -> int:
        """Return how many slots are free."""
        said = json.loads(self.client.retry(self.client.get, self.name)[0])
        return int(said["capacity"]) - len(self.nodes("slots"))

    def shown(self, label: str) -> str:
        """Return how a reset names a build."""
        return f"{label} @ {socket.gethostname()}"


@contextmanager
def pool_on(hosts: str, name: str, **more: Any) -> Iterator[SharedWorld]:
    """A pool on these servers, and a client of the test's own that sees what is there, whatever becomes of them."""
    retry = {"max_tries": -1, "delay": 0.1, "max_delay": 1}
    client = KazooClient(hosts, timeout=10, connection_retry=KazooRetry(**retry), command_retry=KazooRetry(**retry))
    client.start(START_S)
    made = SharedWorld(name, client, hosts, **more)
    try:
        yield made
    finally:
        made.close()
        client.stop()
        client.close()
