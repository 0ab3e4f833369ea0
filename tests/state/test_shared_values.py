"""What every store of shared values does, and that nothing is lost when many write at once."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from uuid import uuid4

import pytest
from pydantic import SecretStr

from connectors.settings import RedisSettings
from connectors.state.base import StateUnavailableError
from connectors.state.redis_shared_values import RedisSharedValues
from connectors.state.script_runner import ScriptName
from connectors.state.shared_values import ContendedError, MemorySharedValues, SharedValues
from tests.state.conftest import CLUSTER_SETTINGS, SINGLE_SETTINGS
from tests.state.redis_process import RedisProcess

MINUTE = 60.0


@dataclass
class Stores:
    """Two processes' views of one store."""

    one: SharedValues
    other: SharedValues
    clock_ms: Callable[[], int]


@pytest.fixture(params=["memory", "redis", "cluster"])
async def stores(request: pytest.FixtureRequest) -> AsyncIterator[Stores]:
    if request.param == "memory":
        memory = MemorySharedValues(lambda: 1_795_000_000_000)
        yield Stores(memory, memory, lambda: 1_795_000_000_000)
        return
    settings = CLUSTER_SETTINGS if request.param == "cluster" else SINGLE_SETTINGS
    url = request.getfixturevalue("cluster_url" if request.param == "cluster" else "redis_url")
    one, other = (redis_values(settings, url, namespace) for namespace in [f"values-{uuid4().hex}"] * 2)
    yield Stores(one, other, lambda: int(time.time() * 1000))
    await one.close()
    await other.close()


def redis_values(settings: RedisSettings, url: str, namespace: str) -> RedisSharedValues:
    return RedisSharedValues.from_settings(settings, SecretStr(url), namespace=namespace)


def count_up(old: bytes | None, _now_ms: int) -> tuple[bytes | None, int]:
    number = int(old or 0) + 1
    return str(number).encode(), number


def look(old: bytes | None, _now_ms: int) -> tuple[bytes | None, bytes | None]:
    return old, old


async def test_what_one_writes_the_other_reads(stores: Stores) -> None:
    """Any bytes, under any name."""
    name, value = "limits:openai:model:a {b} c/ü", bytes(range(256))
    assert await stores.one.update(name, look, ttl_seconds=MINUTE) is None
    assert await stores.one.update(name, lambda _old, _now: (value, "said"), ttl_seconds=MINUTE) == "said"
    assert await stores.other.update(name, look, ttl_seconds=MINUTE) == value
    assert await stores.other.update("another", look, ttl_seconds=MINUTE) is None


async def test_no_update_is_lost_when_many_write_at_once(stores: Stores) -> None:
    """Each reply is a number of its own, from 1 to the number of updates."""
    updates = [
        store.update("counter", count_up, ttl_seconds=MINUTE) for store in (stores.one, stores.other) for _ in range(8)
    ]
    assert sorted(await asyncio.gather(*updates)) == list(range(1, 17))
    assert await stores.one.update("counter", look, ttl_seconds=MINUTE) == b"16"


async def test_none_deletes(stores: Stores) -> None:
    """And deleting what is not there is no write."""
    await stores.one.update("gone", count_up, ttl_seconds=MINUTE)
    for _ in range(2):
        await stores.other.update("gone", lambda _old, _now: (None, None), ttl_seconds=MINUTE)
        assert await stores.one.update("gone", look, ttl_seconds=MINUTE) is None


async def test_the_clock_is_the_stores_own(stores: Stores) -> None:
    """In milliseconds since 1970."""
    said = await stores.one.update("x", lambda old, now_ms: (old, now_ms), ttl_seconds=MINUTE)
    assert abs(said - stores.clock_ms()) < 60_000


@dataclass
class Clock:
    """Moved by hand."""

    ms: int = 1_000

    def __call__(self) -> int:
        return self.ms


async def test_memory_forgets_a_value_in_time() -> None:
    """Its time to live counts from the last write, and reading is no write."""
    clock = Clock()
    values = MemorySharedValues(clock)
    await values.update("v", count_up, ttl_seconds=1)
    clock.ms += 999
    assert await values.update("v", look, ttl_seconds=1) == b"1"
    clock.ms += 1
    assert await values.update("v", look, ttl_seconds=1) is None


async def test_redis_forgets_a_value_in_time_and_keeps_one_hash(own_redis: RedisProcess) -> None:
    """The hash holds the value as it is, for whoever looks at night."""
    values = redis_values(RedisSettings(), own_redis.url, "ns.")
    await values.update("breaker:openai", lambda *_: (json.dumps({"a": 1}).encode(), None), ttl_seconds=90)
    with own_redis.client() as admin:
        (key,) = admin.keys("*")
        assert key == "{sluice:ns.:0}:shared:breaker:openai"
        assert admin.hget(key, "value") == '{"a": 1}'
        assert 80_000 < admin.pttl(key) <= 90_000
        commands = admin.info("commandstats")
        writes = commands["cmdstat_hset"]["calls"]
    await values.update("breaker:openai", look, ttl_seconds=90)
    with own_redis.client() as admin:
        assert admin.info("commandstats")["cmdstat_hset"]["calls"] == writes, "an unchanged value is not written"
    await values.close()


async def test_a_write_that_comes_twice_counts_once(own_redis: RedisProcess) -> None:
    """The client repeats a call when its connection breaks, and cannot know whether it was made: also when others
    have written since, or have deleted the value."""
    values = redis_values(RedisSettings(), own_redis.url, "ns.")

    async def write(read_mark: bytes | str, mark: str, *value: bytes) -> list[object]:
        reply: list[object] = await values._scripts.run(
            ScriptName.EXCHANGE, ("{t}:shared:v",), (read_mark, mark, 60_000, *value)
        )
        return reply[:3]

    for _ in range(2):
        assert await write("", "mark-1", b"1") == [1, b"mark-1", b"1"]
    assert await write("", "mark-2", b"2") == [0, b"mark-1", b"1"]
    assert await write("mark-1", "mark-11") == [1, b"mark-11", None]
    assert await write("mark-11", "mark-3", b"3") == [1, b"mark-3", b"3"]
    for earlier in (("", "mark-1", b"1"), ("mark-1", "mark-11")):
        assert await write(*earlier) == [1, b"mark-3", b"3"]
    assert await write("mark-1", "mark-2", b"2") == [0, b"mark-3", b"3"]
    await values.close()


async def test_what_is_kept_of_earlier_writes_is_bounded(own_redis: RedisProcess) -> None:
    """However often a value is written."""
    values = redis_values(RedisSettings(), own_redis.url, "ns.")
    for _ in range(200):
        await values.update("v", count_up, ttl_seconds=MINUTE)
    with own_redis.client() as admin:
        (key,) = admin.keys("*")
        assert len(admin.hget(key, "marks").split()) == 64
    await values.close()


async def test_a_crowd_that_never_lets_one_through_is_told_apart_from_a_store_that_is_away(
    own_redis: RedisProcess,
) -> None:
    """It gives up after a bound, with an error of its own."""
    values = redis_values(RedisSettings(), own_redis.url, "ns.")
    with own_redis.client() as admin:

        def disturbed(old: bytes | None, _now_ms: int) -> tuple[bytes | None, None]:
            admin.hset("{sluice:ns.:0}:shared:v", mapping={"marks": uuid4().hex, "value": uuid4().hex})
            return (old or b"") + b"+", None

        with pytest.raises(ContendedError, match="v: others wrote it in between"):
            await values.update("v", disturbed, ttl_seconds=MINUTE)
    await values.close()


async def test_a_store_that_is_away_raises_and_works_again_when_it_is_back(own_redis: RedisProcess) -> None:
    """Killed or frozen, it is one error within the timeout; the same object goes on afterwards."""
    values = redis_values(RedisSettings(timeout_seconds=0.5), own_redis.url, "ns.")
    assert await values.update("v", count_up, ttl_seconds=MINUTE) == 1
    own_redis.freeze()
    with pytest.raises(StateUnavailableError):
        await values.update("v", count_up, ttl_seconds=MINUTE)
    own_redis.thaw()
    own_redis.kill()
    with pytest.raises(StateUnavailableError):
        await values.update("v", count_up, ttl_seconds=MINUTE)
    own_redis.start()
    assert await values.update("v", count_up, ttl_seconds=MINUTE) >= 1
    await values.close()


async def test_an_error_in_the_change_is_the_callers_own(stores: Stores) -> None:
    """It leaves the value as it was."""

    def broken(_old: bytes | None, _now_ms: int) -> tuple[bytes | None, None]:
        raise LookupError("a bug")

    await stores.one.update("v", count_up, ttl_seconds=MINUTE)
    with pytest.raises(LookupError):
        await stores.one.update("v", broken, ttl_seconds=MINUTE)
    assert await stores.one.update("v", look, ttl_seconds=MINUTE) == b"1"
