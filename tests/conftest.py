"""A pool of its own for each test; whatever a test leaves behind is ended and removed."""

from __future__ import annotations

import gc
import itertools
import os
from typing import TYPE_CHECKING

import pytest
from xdist.scheduler import LoadScopeScheduling

from tests.helpers.sample import Sample
from tests.helpers.world import World, remove_pool
from tests.zookeeper import servers

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.zookeeper.servers import Server
    from tests.zookeeper.world import SharedWorld

_numbers = itertools.count(1)
TOGETHER = ("tests/packaging/", "tests/zookeeper/test_engine.py", "tests/zookeeper/test_outages.py")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Let a sweep be whole."""
    parser.addoption("--every-point", action="store_true", help="crash at every point, not at a sample of them")


def pytest_xdist_auto_num_workers() -> int:
    """More than there are processors: many tests wait."""
    return 2 + len(os.sched_getaffinity(0))


class Scheduling(LoadScopeScheduling):
    """Tests go to the workers one by one, those in TOGETHER all to one: what they use is built or started once."""

    def _split_scope(self, nodeid: str) -> str:
        return next((part for part in TOGETHER if nodeid.startswith(part)), nodeid)


def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> Scheduling:
    """Return ours; xdist's groups by mark are lost on the node ids of pytest 9.2."""
    return Scheduling(config, log)


@pytest.hookimpl(trylast=True)  # behind pytest-randomly
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the long ones, which are those that may take longer than others: so all workers end together."""
    items.sort(key=lambda item: item.get_closest_marker("timeout") is None)


def pytest_collection_finish() -> None:
    """Keep what was collected out of every later collection of garbage: in a forked child, one would copy it all."""
    gc.collect()
    gc.freeze()


@pytest.fixture
def sample(request: pytest.FixtureRequest) -> Sample:
    """Which points of a sweep to try."""
    return Sample(whole=request.config.getoption("--every-point"))


@pytest.fixture(scope="session")
def pools() -> Iterator[dict[str, str]]:
    """The tests that have used a pool, by its name. None may have left a client that makes its pool anew."""
    used: dict[str, str] = {}
    yield used
    left = {test: traces for name, test in used.items() if (traces := remove_pool(name))}
    assert left == {}


@pytest.fixture
def pool_name(pools: dict[str, str], request: pytest.FixtureRequest) -> Iterator[str]:
    """A pool's name, without the slash, that no other test uses."""
    name = f"ipclock-test-{os.getpid()}-{next(_numbers)}"
    pools[name] = request.node.nodeid
    yield name
    remove_pool(name)


@pytest.fixture
def world(pool_name: str) -> Iterator[World]:
    """A pool and real `ipclock` processes on it."""
    made = World(pool_name)
    yield made
    made.close()


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A ZooKeeper server that no test harms."""
    if reason := servers.missing():
        pytest.skip(reason)
    started = servers.Server(tmp_path_factory.mktemp("zookeeper"))
    try:
        yield started.start()
    finally:
        started.kill()


@pytest.fixture
def shared(server: Server, pool_name: str) -> Iterator[SharedWorld]:
    """A pool on that server and real `ipclock` processes on it."""
    from tests.zookeeper.world import pool_on

    with pool_on(server.address, pool_name) as made:
        yield made
