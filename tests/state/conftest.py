"""Worlds in which the suite of the state store runs: in memory, on one Redis, and on a Redis Cluster."""

import os
from collections.abc import AsyncIterator, Iterator

import pytest

from connectors.settings import RedisSettings
from tests.state.redis_process import RedisProcess, start_cluster
from tests.state.worlds import MemoryWorld, RedisWorld, World, redis_world

CLUSTER_SETTINGS = RedisSettings(mode="cluster", shards=4, timeout_seconds=10)
SINGLE_SETTINGS = RedisSettings(timeout_seconds=10)


@pytest.fixture(scope="session")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """REDIS_URL, else a server of our own."""
    given = os.environ.get("REDIS_URL")
    if given:
        yield given
        return
    server = RedisProcess(tmp_path_factory.mktemp("redis")).start()
    yield server.url
    server.stop()


@pytest.fixture
def own_redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisProcess]:
    """A server for one test, which may do with it what it likes."""
    server = RedisProcess(tmp_path_factory.mktemp("own-redis")).start()
    yield server
    server.stop()


@pytest.fixture(scope="session")
def cluster_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Three nodes, each with a third of the slots."""
    nodes = start_cluster(tmp_path_factory.mktemp("cluster"))
    yield nodes[0].url
    for node in nodes:
        node.stop()


@pytest.fixture
async def one_redis(redis_url: str) -> AsyncIterator[RedisWorld]:
    """An empty store on one Redis, for what only a Redis can show."""
    async with redis_world(SINGLE_SETTINGS, redis_url) as world:
        yield world


@pytest.fixture
def own_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[RedisProcess]]:
    """Three nodes that go on when one of them is away."""
    nodes = start_cluster(tmp_path_factory.mktemp("cluster"))
    for node in nodes:
        with node.client() as admin:
            admin.config_set("cluster-require-full-coverage", "no")
    yield nodes
    for node in nodes:
        node.stop()


@pytest.fixture(params=["memory", "redis", "cluster"])
async def world(request: pytest.FixtureRequest) -> AsyncIterator[World]:
    """An empty store of each kind."""
    match request.param:
        case "memory":
            yield MemoryWorld()
        case "redis":
            async with redis_world(SINGLE_SETTINGS, request.getfixturevalue("redis_url")) as world:
                yield world
        case _:
            async with redis_world(CLUSTER_SETTINGS, request.getfixturevalue("cluster_url")) as world:
                yield world
