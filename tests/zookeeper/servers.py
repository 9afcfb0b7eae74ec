"""ZooKeeper servers on loopback, as the tests start, kill, stop and continue them."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import threading
from contextlib import suppress
from pathlib import Path

from tests.helpers.world import until

JAR = Path("/usr/share/java/zookeeper.jar")
# Debian's jar names neither what writes the log nor, for TLS, all that Netty needs
CLASSES = ":".join(f"/usr/share/java/{name}.jar" for name in ("zookeeper", "slf4j-simple", "netty-codec"))
TICK_MS = 500  # sessions of 1 s and more
START_S = 60.0  # a guard against hangs: a Java machine on a busy machine


def missing() -> str:
    """Return what keeps us from starting a server; "" for nothing."""
    if shutil.which("java") is None:
        return "java is missing: apt-get install default-jre-headless"
    return "" if JAR.exists() else f"{JAR} is missing: apt-get install zookeeper"


def free_port(host: str = "127.0.0.1") -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])


class Server:
    """One server with a folder of its own. *lines* are added to its settings, *flags* to the Java machine's."""

    def __init__(self, folder: Path, *lines: str, host: str = "127.0.0.1", flags: tuple[str, ...] = ()) -> None:
        self.host, self.port = host, free_port(host)
        self.process: subprocess.Popen[bytes] | None = None
        self._flags = flags
        self._folder = folder
        folder.mkdir(exist_ok=True)
        settings = [
            f"tickTime={TICK_MS}",
            f"dataDir={folder}",
            f"clientPort={self.port}",
            f"clientPortAddress={host}",
            "admin.enableServer=false",
            "maxClientCnxns=0",
            "maxSessionTimeout=60000",  # as long as a test may take
            "4lw.commands.whitelist=srvr,ruok",
            "forceSync=no",  # the disk of a busy machine is none of our subjects
            *lines,
        ]
        (folder / "zoo.cfg").write_text("\n".join(settings) + "\n")

    @property
    def address(self) -> str:
        """HOST:PORT."""
        return f"{self.host}:{self.port}"

    def start(self) -> Server:
        """Start it and wait until it answers."""
        self.begin()
        until(self.serves, f"the server on {self.address}", START_S)
        return self

    def begin(self) -> None:
        """Start it."""
        java = ["java", "-Xmx96m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", *self._flags, "-cp", CLASSES]
        main = "org.apache.zookeeper.server.quorum.QuorumPeerMain"
        with (self._folder / "log").open("ab") as log:
            self.process = subprocess.Popen([*java, main, str(self._folder / "zoo.cfg")], stdout=log, stderr=log)

    def serves(self) -> bool:
        """Return whether it serves clients now."""
        return "Mode:" in self.ask("srvr")

    def leads(self) -> bool:
        """Return whether it is the leader of its ensemble."""
        return "Mode: leader" in self.ask("srvr")

    def ask(self, word: str) -> str:
        """Return the answer to one of the four-letter words; "" where there is none."""
        answer = b""
        with suppress(OSError), socket.create_connection((self.host, self.port), timeout=2) as line:
            line.sendall(word.encode())
            while chunk := line.recv(4096):
                answer += chunk
        return answer.decode(errors="replace")

    def signal(self, number: int) -> None:
        """Send it a signal."""
        assert self.process
        os.kill(self.process.pid, number)

    def kill(self) -> None:
        """Kill it, and wait until it is gone."""
        if self.process and self.process.poll() is None:
            self.signal(signal.SIGKILL)
            self.process.wait()


class Relay:
    """Stands before a server and hands on what it gets, but takes the next `silent` connections in and says nothing.

    So does a server that is just starting. While it is `deaf` no answer comes back.
    """

    def __init__(self, server: Server) -> None:
        self._server = server
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self.silent = self.served = 0  # served: the connections that were handed on
        self.deaf = False
        self._open: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self, silent: int) -> None:
        """End all connections; the next ones meet silence."""
        self.silent = silent
        for one in self._open.copy():
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """End it."""
        self._listener.shutdown(socket.SHUT_RDWR)
        self.cut(0)
        for one in (self._listener, *self._open):
            one.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client = self._listener.accept()[0]
                self._open.append(client)
                if self.silent > 0:
                    self.silent -= 1
                    continue
                server = socket.create_connection((self._server.host, self._server.port))
                self._open.append(server)
                self.served += 1
                for ends in ((client, server), (server, client)):
                    threading.Thread(target=self._hand_on, args=ends, daemon=True).start()

    def _hand_on(self, source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            answers = source.getpeername()[1] == self._server.port
            while data := source.recv(65536):
                if not (answers and self.deaf):
                    target.sendall(data)
        for end in (source, target):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


def ensemble(folder: Path, *lines: str) -> list[Server]:
    """Return three servers that know each other, not yet started. *lines* are added to their settings."""
    ports = [(free_port(), free_port()) for _ in range(3)]
    peers = [f"server.{number}=127.0.0.1:{a}:{b}" for number, (a, b) in enumerate(ports, 1)]
    servers = []
    for number in (1, 2, 3):
        home = folder / str(number)
        home.mkdir()
        (home / "myid").write_text(f"{number}\n")
        servers.append(Server(home, "initLimit=20", "syncLimit=10", *peers, *lines))
    return servers
