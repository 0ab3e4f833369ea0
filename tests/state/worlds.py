"""A state store together with the means to let time pass and data vanish: what the behavioural suite runs in."""

import time
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Protocol, cast

from pydantic import SecretStr
from redis.asyncio import Redis, RedisCluster

from connectors.settings import RedisSettings
from connectors.state.connect import connect, disconnect
from connectors.state.keys import KeyLayout
from connectors.state.memory_store import MemoryStateStore
from connectors.state.redis_store import RedisStateStore
from connectors.state.store import StateStore

RETENTION_SECONDS = 86_400


class World(Protocol):
    """One store, empty at first."""

    store: StateStore

    def now_ms(self) -> int: ...

    async def let_pass(self, milliseconds: int) -> None:
        """Everything in the store is older by this much."""
        ...

    async def lose(self, request_id: str) -> None:
        """The store forgets a request, as after a failover that lost the last steps."""
        ...

    async def flush(self) -> None:
        """The store forgets everything, as after a restart without its data, and is not restored yet."""
        ...

    async def remaining(self) -> int:
        """How many requests the store still remembers."""
        ...


class MemoryWorld:
    """The memory store with a clock moved by hand."""

    def __init__(self) -> None:
        self._clock_ms = int(time.time() * 1000)
        self.store: StateStore = MemoryStateStore(self.now_ms, retention_seconds=RETENTION_SECONDS)

    def now_ms(self) -> int:
        return self._clock_ms

    async def let_pass(self, milliseconds: int) -> None:
        self._clock_ms += milliseconds

    async def lose(self, request_id: str) -> None:
        assert isinstance(self.store, MemoryStateStore)
        del self.store._requests[request_id]
        self.store._count.remove(request_id)
        self._clock_ms += 1_000

    async def flush(self) -> None:
        self._clock_ms += 1_000
        self.store = MemoryStateStore(
            self.now_ms, retention_seconds=RETENTION_SECONDS, born_ms=self._clock_ms, is_restored=False
        )

    async def remaining(self) -> int:
        assert isinstance(self.store, MemoryStateStore)
        await self.store.outstanding()
        return len(self.store._requests)


class RedisWorld:
    """The Redis store. Its clock cannot be moved, so what it wrote is made older instead."""

    def __init__(self, settings: RedisSettings, url: str) -> None:
        self.namespace = f"test-{uuid.uuid4().hex}"
        self._pattern = f"{{{settings.key_prefix}:{self.namespace}:*"
        self._client: Redis | RedisCluster = connect(settings, SecretStr(url))
        self._layout = KeyLayout(prefix=settings.key_prefix, namespace=self.namespace, shards=settings.shards)
        self._was_flushed = False
        self.store: StateStore = RedisStateStore.from_settings(
            settings,
            SecretStr(url),
            namespace=self.namespace,
            retention_seconds=RETENTION_SECONDS,
            has_history=self._has_history,
        )

    def now_ms(self) -> int:
        return int(time.time() * 1000)

    async def let_pass(self, milliseconds: int) -> None:
        for key in await self.keys():
            if key.endswith(":deadlines"):
                for member in await self._client.zrange(key, 0, -1):
                    await self._client.zincrby(key, -milliseconds, cast("bytes", member))
            elif ":request:" in key:
                await self._make_older(key, milliseconds)
            elif key.endswith((":born", ":restored")) and await self._client.get(key) != b"0":
                await self._client.decrby(key, milliseconds)

    async def lose(self, request_id: str) -> None:
        key, load, deadlines = self._layout.counted_request(request_id)
        size_bytes = await self._client.hget(key, "size")
        if size_bytes is not None and await self._client.zrem(deadlines, f"{int(size_bytes)}:{request_id}"):
            await self._client.hincrby(load, "bytes", -int(size_bytes))
        assert await self._client.delete(key) == 1

    async def flush(self) -> None:
        await self.empty()
        assert not await self.store.is_restored()  # which is its new birth

    async def remaining(self) -> int:
        return len([key for key in await self.keys() if ":request:" in key])

    async def keys(self) -> list[str]:
        return [key.decode() async for key in self._client.scan_iter(match=self._pattern, count=1000)]

    async def time_to_live_ms(self, key: str) -> int:
        return int(await self._client.pttl(key))

    async def hash_of(self, key: str) -> dict[bytes, bytes]:
        return cast("dict[bytes, bytes]", await self._client.hgetall(key))

    async def encoding_of(self, key: str) -> str:
        return str((await self._client.object("encoding", key)).decode())

    async def empty(self) -> None:
        """As `flush`, and nobody has noticed yet."""
        for key in await self.keys():
            await self._client.delete(key)
        self._was_flushed = True

    async def begin_anew(self) -> None:
        """The store of a deployment that never ran."""
        await self.empty()
        self._was_flushed = False

    async def _has_history(self) -> bool:
        return self._was_flushed

    async def close(self) -> None:
        keys = await self.keys()
        for key in keys:
            await self._client.delete(key)
        await self.store.close()
        await disconnect(self._client)

    async def _make_older(self, key: str, milliseconds: int) -> None:
        fields = await self._client.hgetall(key)
        for name in (b"until", b"started", b"deadline"):
            if int(fields.get(name, 0)) > 0:
                await self._client.hincrby(key, name.decode(), -milliseconds)
        left_ms = await self._client.pttl(key) - milliseconds
        if left_ms > 0:
            await self._client.pexpire(key, left_ms)
        else:
            await self._client.delete(key)


@asynccontextmanager
async def redis_world(settings: RedisSettings, url: str) -> AsyncIterator[RedisWorld]:
    """A namespace of its own in a running Redis, emptied afterwards."""
    world = RedisWorld(settings, url)
    try:
        yield world
    finally:
        await world.close()
