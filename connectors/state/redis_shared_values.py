"""Shared values in Redis: one hash a value, and one script (`lua/exchange.lua`) that reads it or replaces it."""

import asyncio
import random
import secrets
from itertools import count
from typing import Self, TypeVar

from pydantic import SecretStr

from connectors.settings import RedisSettings
from connectors.state.connect import connect
from connectors.state.keys import KeyLayout
from connectors.state.script_runner import ScriptName, ScriptRunner
from connectors.state.shared_values import Change, ContendedError

T = TypeVar("T")

MAX_TRIES = 24
CONFLICTS_WITHOUT_PAUSE = 3
"""The reply to a lost race holds the new value, so most are made good at once; a crowd has to spread out."""
LONGEST_PAUSE_SECONDS = 0.04


class RedisSharedValues:
    """Implements `SharedValues`: one round trip to read, one to write, and more where others write in between.

    Each write has a mark of its own, by which the next one knows that nobody wrote in between. The mark also makes
    a write that reaches Redis twice (the client repeats it when a connection breaks) count once.
    """

    def __init__(self, scripts: ScriptRunner, keys: KeyLayout) -> None:
        self._scripts = scripts
        self._keys = keys
        self._mark_prefix = secrets.token_hex(6)
        self._mark_numbers = count(1)

    @classmethod
    def from_settings(cls, settings: RedisSettings, url: SecretStr, *, namespace: str) -> Self:
        """Connects on the first update, with connections of its own."""
        scripts = ScriptRunner(
            connect(settings, url),
            timeout_seconds=settings.timeout_seconds,
            max_connections=settings.max_connections,
        )
        return cls(scripts, KeyLayout(prefix=settings.key_prefix, namespace=namespace, shards=settings.shards))

    async def update(self, name: str, change: Change[T], *, ttl_seconds: float) -> T:
        keys = (self._keys.shared(name),)
        ttl_ms = max(1, int(ttl_seconds * 1000))
        _, mark, old, now_ms = await self._scripts.run(ScriptName.EXCHANGE, keys)
        for conflicts in range(1, MAX_TRIES + 1):
            new, reply = change(old, now_ms)
            if new == old:
                return reply
            new_mark = f"{self._mark_prefix}-{next(self._mark_numbers)}"
            value = () if new is None else (new,)
            arguments = (mark, new_mark, ttl_ms, *value)
            written, mark, old, now_ms = await self._scripts.run(ScriptName.EXCHANGE, keys, arguments)
            if written:
                return reply
            if conflicts >= CONFLICTS_WITHOUT_PAUSE:
                await asyncio.sleep(random.uniform(0, LONGEST_PAUSE_SECONDS))  # noqa: S311 - it only spreads load
                _, mark, old, now_ms = await self._scripts.run(ScriptName.EXCHANGE, keys)
        raise ContendedError(ScriptName.EXCHANGE, f"{name}: others wrote it in between, {MAX_TRIES} times")

    async def close(self) -> None:
        await self._scripts.close()
