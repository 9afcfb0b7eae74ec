"""Holders and waiters under killed, stopped and unreachable servers, and servers under killed and stopped holders."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from contextlib import suppress
from typing import TYPE_CHECKING

import psutil
import pytest

from tests.e2e.test_acquire import script
from tests.e2e.test_ledger import rows
from tests.helpers.world import HANG_S, until
from tests.zookeeper import servers
from tests.zookeeper.servers import Relay, Server
from tests.zookeeper.world import SharedWorld, pool_on

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.helpers.world import Build

SESSION = "session=6"
LASTING = "session=60"
LOST = 79


def gone(pid: int) -> bool:
    """Return whether a build has ended, or is about to be buried."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] in "ZX"
    except FileNotFoundError:
        return True


@pytest.fixture(scope="module")
def harmed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that tests harm, one after the other."""
    if reason := servers.missing():
        pytest.skip(reason)
    made = Server(tmp_path_factory.mktemp("harmed"))
    yield made
    made.kill()


def revive(server: Server) -> None:
    """Let a server go on, whatever the test before has done to it."""
    if server.process and server.process.poll() is None:
        server.signal(signal.SIGCONT)
    else:
        server.begin()


@pytest.fixture
def own(harmed: Server) -> Server:
    """A server to be harmed, which serves by now."""
    revive(harmed)
    until(harmed.serves, "the server", servers.START_S)
    return harmed


@pytest.fixture
def pool(own: Server, pool_name: str) -> Iterator[SharedWorld]:
    """A pool on that server, whose sessions last for 6 s."""
    with pool_on(own.address, pool_name, options=SESSION) as made:
        yield made


@pytest.fixture
def lasting(own: Server, pool_name: str) -> Iterator[SharedWorld]:
    """A pool on the server of the test's own, whose sessions outlast the test, however busy the machine is."""
    with pool_on(own.address, pool_name, options=LASTING) as made:
        yield made


@pytest.fixture
def short(server: Server, pool_name: str) -> Iterator[SharedWorld]:
    """A pool on the server that is not harmed, whose sessions last for 6 s."""
    with pool_on(server.address, pool_name, options=SESSION) as made:
        yield made


def held_and_waited_for(pool: SharedWorld, *options: str) -> tuple[Build, Build]:
    """Return a build that runs, and one that waits for its slot."""
    build = pool.wrap("holder", *options).started()
    waiter = pool.wrap("waiter", *options)
    until(lambda: pool.records("gate"), "the waiter at the gate")
    return build, waiter


def test_builds_without_a_living_supervisor_end_before_their_slots_go_on_to_living_waiters(short: SharedWorld) -> None:
    killed = short.wrap("killed", "--max-parallel-builds", "2").started()
    stopped = short.wrap("stopped").started()
    sleeper = short.wrap("sleeper")
    until(lambda: short.nodes("line"), "the first one in line")
    waiters = [short.wrap("waiter") for _ in range(2)]
    until(lambda: len(short.nodes("line")) == 3, "three in line")

    killed.signal(signal.SIGKILL)
    for one in (stopped, sleeper):
        one.signal(signal.SIGSTOP)
    until(lambda: len(short.nodes("line")) < 2, "a slot that goes on")
    gone_first = gone(killed.command_pid) or gone(stopped.command_pid)
    ended = [waiter.started().end() for waiter in waiters]
    gone_by_now = gone(killed.command_pid) and gone(stopped.command_pid)
    for one in (stopped, sleeper):
        one.signal(signal.SIGCONT)

    # one who has slept through the end of its session stands in line anew
    assert (gone_first, gone_by_now, ended, sleeper.started().end()) == (True, True, [0, 0], 0)
    assert (killed.wait(), stopped.wait(), short.settled()) == (-signal.SIGKILL, LOST, (2, {}))


@pytest.mark.timeout(180)
def test_a_restarted_server_finds_holder_and_waiters_as_they_were(lasting: SharedWorld, own: Server) -> None:
    build, waiter = held_and_waited_for(lasting)
    later = lasting.wrap("later")
    until(lambda: len(lasting.nodes("line")) == 2, "two in line")

    own.kill()
    own.start()
    until(lambda: lasting.client.connected and lasting.nodes("slots"), "the slot, seen again")
    first = [build.end(), waiter.started().end(), later.started().end()]

    assert (first, until(lambda: not lasting.nodes("line"), "an empty line"), lasting.settled()) == (
        [0] * 3,
        True,
        (1, {}),
    )


def test_a_waiter_leaves_in_time_though_the_server_hangs(own: Server, pool_name: str) -> None:
    with pool_on(own.address, pool_name) as pool:
        build, waiter = held_and_waited_for(pool)
        impatient = pool.wrap("impatient", "-w", "2")
        until(lambda: len(pool.nodes("line")) == 2, "two in line")

        own.signal(signal.SIGSTOP)
        status = impatient.process.wait(20)  # not when the server comes back, which is later
        own.signal(signal.SIGCONT)

        assert (status, build.end(), waiter.started().end()) == (75, 0, 0)


def test_a_build_ends_with_its_own_status_though_the_server_hangs(pool: SharedWorld, own: Server) -> None:
    build = pool.wrap().started()

    own.signal(signal.SIGSTOP)
    build.tell("exit 5")
    status = build.process.wait(10)
    own.signal(signal.SIGCONT)

    assert (status, until(lambda: not pool.nodes("slots"), "the slot, free by the session's end")) == (5, True)


def test_builds_and_scripts_are_ended_when_no_server_answers_in_time_or_warned_of(
    pool: SharedWorld, own: Server
) -> None:
    build = pool.wrap("a", "--max-parallel-builds", "3").started()
    holder = script(pool, "ipclock acquire b; read -r _")
    holder.line()
    warned = pool.wrap("c", "--on-lost", "warn").started()
    waiter = pool.wrap("d")
    until(lambda: pool.records("gate"), "the waiter at the gate")

    own.kill()
    ended = [build.wait(), gone(build.command_pid), holder.wait()]
    own.start()
    last = waiter.started().end()

    said = build.errors()
    assert (ended, "may be lost" in said, "lost its slot" in said) == ([LOST, True, -signal.SIGTERM], True, True)
    assert (warned.end(7), "has lost its slot; the build goes on" in warned.errors(), last) == (7, True, 0)


# Silent


@pytest.fixture
def relay(server: Server) -> Iterator[Relay]:
    """What stands before the server that is not harmed, for one client."""
    made = Relay(server)
    yield made
    made.close()


def through(relay: Relay, pool: SharedWorld) -> dict[str, str]:
    """Return the environment of a client that comes to the pool by the relay alone."""
    return {"ENGINE": pool.env["ENGINE"].replace(pool.env["ENGINE"].split("/")[2], relay.address)}


@pytest.fixture
def unharmed(server: Server, pool_name: str) -> Iterator[SharedWorld]:
    """A pool on the server that is not harmed, whose sessions outlast the test."""
    with pool_on(server.address, pool_name, options=LASTING) as made:
        yield made


def test_a_server_that_takes_a_client_in_and_stays_silent_is_left_for_the_next_try(
    unharmed: SharedWorld, relay: Relay
) -> None:
    relay.silent = 1

    result = unharmed.run("wrap", "-q", "a", "--", "true", env=through(relay, unharmed))

    assert (result.returncode, result.stderr) == (0, "")


def test_a_build_outlasts_a_server_that_starts_and_stays_silent(unharmed: SharedWorld, relay: Relay) -> None:
    build = unharmed.wrap(env=through(relay, unharmed)).started()
    before = unharmed.nodes("slots")

    relay.cut(silent=1)
    until(lambda: "a server answers again" in build.heard() or build.process.poll() is not None, "the server again")

    assert (unharmed.nodes("slots"), build.end(), unharmed.settled()) == (before, 0, (1, {}))


def test_a_waiter_keeps_its_place_though_a_server_starts_and_stays_silent(unharmed: SharedWorld, relay: Relay) -> None:
    build = unharmed.wrap("holder").started()
    waiter = unharmed.wrap("waiter", env=through(relay, unharmed))
    until(lambda: len(unharmed.nodes("line")) == 1, "the first one in line")
    later = unharmed.wrap("later")
    until(lambda: len(unharmed.nodes("line")) == 2, "two in line")
    before = unharmed.nodes("line")

    relay.cut(silent=1)
    until(lambda: relay.served == 2, "the waiter with the server again")

    assert (unharmed.nodes("line"), build.end(), waiter.started().end(), later.started().end()) == (before, 0, 0, 0)


# Cut off


@pytest.fixture
def network() -> Iterator[tuple[str, str, str]]:
    """A network of two: the name of its other side's namespace, of our interface, and our address in it."""
    if os.geteuid() or shutil.which("ip") is None:
        pytest.skip("a network namespace needs root and ip (apt-get install iproute2)")
    name, ours = f"ipclock{os.getpid()}", f"ipc{os.getpid()}"
    net = f"10.203.{os.getpid() % 250}"
    commands = [
        f"netns add {name}",
        f"link add {ours} type veth peer name eth0 netns {name}",
        f"addr add {net}.1/24 dev {ours}",
        f"link set {ours} up",
        f"-n {name} addr add {net}.2/24 dev eth0",
        f"-n {name} link set eth0 up",
    ]
    try:
        for command in commands:
            done = subprocess.run(["ip", *command.split()], capture_output=True, text=True, check=False)
            if done.returncode:
                pytest.skip(f"no network namespace here: ip {command}: {done.stderr.strip()}")
        yield name, ours, f"{net}.1"
    finally:
        subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)
        subprocess.run(["ip", "link", "del", ours], capture_output=True, check=False)


def test_a_holder_whose_link_is_cut_ends_its_build_before_its_slot_goes_on(
    network: tuple[str, str, str], tmp_path: Path, pool_name: str
) -> None:
    if reason := servers.missing():
        pytest.skip(reason)
    name, ours, address = network
    server = Server(tmp_path / "zookeeper", host=address).start()
    with pool_on(server.address, pool_name, options=SESSION) as pool:
        python = [pool.python, "-m", "ipclock", "wrap", "-v", "far", "--", pool.python]
        far = pool.spawn("ip", "netns", "exec", name, *python, "tests/helpers/stub_build.py").started()
        waiter = pool.wrap("near")
        until(lambda: pool.records("gate"), "the waiter at the gate")

        subprocess.run(["ip", "link", "set", ours, "down"], check=True)
        subprocess.run(["ip", "addr", "replace", f"{address}/24", "dev", "lo"], check=True)
        try:
            states = until(lambda: [row["state"] for row in pool.status()["holders"]] == ["doubtful"], "doubtful")
            waiter.started()
            overlap = not gone(far.command_pid)
            ended = waiter.end()
        finally:
            subprocess.run(["ip", "addr", "del", f"{address}/24", "dev", "lo"], check=False)
        assert (states, overlap, far.wait(), ended) == (True, False, LOST, 0)
    server.kill()


# Three servers


@pytest.fixture(scope="module")
def ensemble(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Server]]:
    """Three servers that tests harm, one after the other. The leader bears with one that hangs."""
    if reason := servers.missing():
        pytest.skip(reason)
    made = servers.ensemble(tmp_path_factory.mktemp("ensemble"), "syncLimit=100")
    yield made
    for one in made:
        one.kill()


@pytest.fixture
def three(ensemble: list[Server]) -> list[Server]:
    """Three servers to be harmed, which serve by now."""
    for one in ensemble:
        revive(one)
    until(lambda: all(one.serves() for one in ensemble), "the ensemble", servers.START_S)
    return ensemble


@pytest.mark.timeout(180)
def test_a_leader_killed_three_times_costs_nobody_slot_or_place(three: list[Server], pool_name: str) -> None:
    hosts = ",".join(one.address for one in three)
    with pool_on(hosts, pool_name, options="session=10") as pool:
        build = pool.wrap("holder", "--max-parallel-builds", "1").started()
        waiters = []
        for number in range(3):
            waiters.append(pool.wrap(f"waiter-{number}"))
            until(lambda: len(pool.nodes("line")) == len(waiters), "one more in line")

        for _ in range(3):
            leader = next(one for one in three if one.leads())
            leader.kill()
            until(lambda: any(one.leads() for one in three), "another leader", HANG_S)
            leader.start()
        statuses = [build.end()]
        statuses += [waiter.started().end() for waiter in waiters]

        assert (statuses, pool.settled()) == ([0] * 4, (1, {}))


def server_of(build: Build, hosts: list[Server]) -> Server | None:
    """Return the server that a client is connected to."""
    with suppress(psutil.NoSuchProcess):
        lines = psutil.Process(build.pid).net_connections("tcp")
        ports = {line.raddr.port for line in lines if line.raddr and line.status == psutil.CONN_ESTABLISHED}
        return next((host for host in hosts if host.port in ports), None)
    return None


def hang_the_server_of(client: Build, hosts: list[Server]) -> None:
    """Stop the server that a client is connected to until it has found another one, or has ended."""
    hangs = server_of(client, hosts)
    assert hangs
    others = [host for host in hosts if host is not hangs]
    hangs.signal(signal.SIGSTOP)
    until(lambda: server_of(client, others) or client.process.poll() is not None, "another server")
    hangs.signal(signal.SIGCONT)
    until(hangs.serves, "the server again")


@pytest.mark.timeout(180)
@pytest.mark.parametrize("who", ["holder", "waiter"])
def test_a_build_or_a_waiter_leaves_a_server_that_hangs_for_one_that_lives(
    who: str, three: list[Server], pool_name: str
) -> None:
    # the leader's end is another test's
    two = [one for one in three if not one.leads()]
    leader = next(one for one in three if one not in two)
    # a waiter asks more often than kazoo would ping in so long a session
    with pool_on(leader.address, pool_name, options="session=30") as pool:
        pool.env["ENGINE"] = pool.env["ENGINE"].replace(leader.address, ",".join(one.address for one in two))
        build = pool.wrap("holder").started()
        waiter = pool.wrap("waiter")
        until(lambda: len(pool.nodes("line")) == 1, "the first one in line")
        later = pool.wrap("later")
        until(lambda: len(pool.nodes("line")) == 2, "two in line")
        before = pool.nodes("slots") + pool.nodes("line")

        hang_the_server_of(build if who == "holder" else waiter, two)
        after = pool.nodes("slots") + pool.nodes("line")

        assert (after, build.end(), waiter.started().end(), later.started().end()) == (before, 0, 0, 0)


# Given back


WAITS = "to give back the slot"


def test_a_slot_that_cannot_be_given_back_is_given_back_when_a_server_answers(
    lasting: SharedWorld, own: Server
) -> None:
    build = lasting.wrap("a", "--max-parallel-builds", "2").started()
    holder = script(lasting, "ipclock acquire b; read -r _")
    holder.line()

    own.kill()
    holder.tell("")
    build.tell("exit 5")
    until(lambda: WAITS in build.heard() or build.process.poll() is not None, "the warning")
    own.start()
    ended = build.wait(), holder.wait(), until(lambda: not lasting.nodes("slots"), "both slots, free")

    assert (ended, lasting.settled()) == ((5, 0, True), (2, {}))


def test_a_signal_ends_the_wait_for_a_server_that_takes_the_slot_back(lasting: SharedWorld, own: Server) -> None:
    build = lasting.wrap().started()

    own.kill()
    build.tell("exit 5")
    until(lambda: WAITS in build.heard() or build.process.poll() is not None, "the warning")
    build.signal(signal.SIGINT)
    said = build.wait(), WAITS in build.heard()
    own.start()

    assert said == (5, True)


def test_a_slot_whose_return_was_not_confirmed_was_taken_by_no_reset(
    unharmed: SharedWorld, relay: Relay, tmp_path: Path
) -> None:
    path = tmp_path / "history.db"
    build = unharmed.wrap("a", env={**through(relay, unharmed), "HISTORY": str(path)}).started()

    relay.deaf = True
    build.tell("exit 5")
    until(lambda: not unharmed.nodes("slots"), "the slot, free")
    until(lambda: WAITS in build.heard() or build.process.poll() is not None, "the warning")
    relay.deaf = False
    relay.cut(silent=0)

    assert (build.wait(), rows(path)) == (5, [("a", "failed", 5, 1, 1, 1)])


# Who the servers are


def test_only_servers_and_clients_with_the_right_certificate_meet(tmp_path: Path, pool_name: str) -> None:
    if reason := servers.missing() or ("" if shutil.which("openssl") else "openssl is missing"):
        pytest.skip(reason)
    for authority in ("ours", "theirs"):
        make_certificates(tmp_path, authority)
    flags = [
        "-Dzookeeper.serverCnxnFactory=org.apache.zookeeper.server.NettyServerCnxnFactory",
        f"-Dzookeeper.ssl.keyStore.location={tmp_path}/ours.server.pem",
        f"-Dzookeeper.ssl.trustStore.location={tmp_path}/ours.ca.pem",
        "-Dzookeeper.ssl.keyStore.type=PEM",
        "-Dzookeeper.ssl.trustStore.type=PEM",
        "-Dzookeeper.ssl.hostnameVerification=false",
    ]
    port = servers.free_port()
    lines = [f"secureClientPort={port}", "secureClientPortAddress=127.0.0.1"]
    server = Server(tmp_path / "zookeeper", *lines, flags=tuple(flags)).start()
    try:
        with pool_on(server.address, pool_name) as pool:
            engine = f"zookeeper://localhost:{port}{pool.name}?session=10&ca={tmp_path}"

            def tried(ca: str, mine: str) -> Build:
                options = f"/{ca}.ca.pem"
                if mine:
                    options += f"&cert={tmp_path}/{mine}.client.pem&key={tmp_path}/{mine}.client.key"
                return pool.popen("wrap", "-q", "a", "--", "true", env={"ENGINE": engine + options})

            tries = [tried("ours", "ours"), tried("theirs", "ours"), tried("ours", "theirs"), tried("ours", "")]

            assert ([one.wait() for one in tries], pool.settled()) == ([0, 69, 69, 69], (1, {}))
    finally:
        server.kill()


def make_certificates(folder: Path, authority: str) -> None:
    """Make an authority, and by it a certificate for a server on localhost and one for a client."""

    def openssl(*words: str) -> None:
        subprocess.run(["openssl", *words], cwd=folder, check=True, capture_output=True)

    new = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    ca = f"{authority}.ca"
    openssl("req", "-x509", *new, "-keyout", f"{ca}.key", "-out", f"{ca}.pem", "-subj", f"/CN={authority}")
    for who in ("server", "client"):
        name = f"{authority}.{who}"
        openssl("req", *new, "-keyout", f"{name}.key", "-out", f"{name}.csr", "-subj", "/CN=localhost")
        (folder / f"{name}.ext").write_text("subjectAltName=DNS:localhost,IP:127.0.0.1\n")
        signed = ["-CA", f"{ca}.pem", "-CAkey", f"{ca}.key", "-CAcreateserial", "-extfile", f"{name}.ext"]
        openssl("x509", "-req", "-in", f"{name}.csr", *signed, "-out", f"{name}.crt")
        # the servers want a key and its certificate in one file
        both = (folder / f"{name}.key").read_text() + (folder / f"{name}.crt").read_text()
        (folder / f"{name}.pem").write_text(both)
