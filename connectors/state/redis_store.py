"""The state in Redis: one hash a request, one Lua script a step (`lua/`), so that each step is atomic.

Needs Redis 6 or later (or Valkey), with `maxmemory-policy noeviction`: an evicted request would be forgotten.
An ACL user needs `~{<prefix>:* +@read +@write +@scripting +@connection +time`, on a Cluster also `+cluster|slots`.
Replication is asynchronous, so a failover may forget the last steps; with `min-replicas-to-write 1` a master that was
cut off at least takes no more of them. What was forgotten shows as `history_missing`, and no fence is used twice.
"""

import asyncio
import json
import secrets
from collections.abc import Awaitable, Callable, Iterable, Sequence
from itertools import count
from typing import Any, Self, TypeVar, cast

from pydantic import SecretStr

from connectors.settings import RedisSettings
from connectors.state.base import (
    Admission,
    Admitted,
    Arrival,
    Busy,
    Claim,
    Claimed,
    Duplicate,
    Full,
    Lease,
    Limits,
    LostCall,
    Settled,
)
from connectors.state.connect import connect
from connectors.state.ends import ending_step
from connectors.state.keys import KeyLayout
from connectors.state.script_runner import ScriptName, ScriptRunner
from connectors.state.watermarks import Watermarks
from schemas.vocabulary import State

T = TypeVar("T")

DAY_SECONDS = 86_400
REQUESTS_PER_CALL = 256
"""Of renew and published: a script holds up everybody else for as long as it runs."""


class RedisStateStore:
    """Implements `base.StateStore`. A request is kept for `retention_seconds` after its end, or after its deadline."""

    def __init__(self, scripts: ScriptRunner, keys: KeyLayout, *, retention_seconds: float = DAY_SECONDS) -> None:
        self._scripts = scripts
        self._keys = keys
        self._retention_ms = int(retention_seconds * 1000)
        self._token_numbers = count(1)
        self._token_prefix = secrets.token_hex(8)

    @classmethod
    def from_settings(
        cls, settings: RedisSettings, url: SecretStr, *, namespace: str, retention_seconds: float = DAY_SECONDS
    ) -> Self:
        """Connects on the first step. Deployments of different namespaces do not meet."""
        scripts = ScriptRunner(
            connect(settings, url),
            timeout_seconds=settings.timeout_seconds,
            max_connections=settings.max_connections,
        )
        keys = KeyLayout(prefix=settings.key_prefix, namespace=namespace, shards=settings.shards)
        return cls(scripts, keys, retention_seconds=retention_seconds)

    async def admit(self, arrival: Arrival, limits: Limits) -> Admission:
        marks = Watermarks.of(limits, shards=self._keys.shards)
        arguments = (
            arrival.request_id,
            arrival.origin,
            arrival.size_bytes,
            arrival.deadline_ms,
            self._retention_ms,
            marks.close_requests,
            marks.reopen_requests,
            marks.close_bytes,
            marks.reopen_bytes,
        )
        keys = self._keys.counted_request(arrival.request_id)
        return _admission(await self._scripts.run(ScriptName.ADMIT, keys, arguments))

    async def refuse(self, arrival: Arrival, state: State, outcome: bytes) -> Admission:
        ending_step(None, state)
        keys = (self._keys.request(arrival.request_id),)
        arguments = (arrival.origin, state, outcome, self._retention_ms)
        return _admission(await self._scripts.run(ScriptName.REFUSE, keys, arguments))

    async def claim(self, request_id: str, *, owner: str, lease_ms: int, token: str | None = None) -> Claim:
        keys = (self._keys.request(request_id),)
        # The client may send a call twice, so each has a token even if its caller has none.
        arguments = (owner, token or self._next_token(), lease_ms, self._retention_ms)
        match await self._scripts.run(ScriptName.CLAIM, keys, arguments):
            case [b"claimed", fence, attempt, version, history_missing, lost_calls]:
                lease = Lease(request_id=request_id, fence=fence, attempt=attempt, version=version)
                return Claimed(lease=lease, lost_calls=_lost_calls(lost_calls), history_missing=bool(history_missing))
            case [b"busy", retry_after_ms]:
                return Busy(retry_after_ms)
            case reply:
                return _settled(reply)

    async def renew(self, leases: Sequence[Lease], *, lease_ms: int) -> list[Lease]:
        async def renew_group(group: list[Lease]) -> list[Lease]:
            keys = [self._keys.request(lease.request_id) for lease in group]
            arguments = (lease_ms, self._retention_ms, *(lease.fence for lease in group))
            return [group[position - 1] for position in await self._scripts.run(ScriptName.RENEW, keys, arguments)]

        groups = self._together(leases, by=lambda lease: lease.request_id)
        return [lease for lost in await _all(renew_group(group) for group in groups) for lease in lost]

    async def release(self, lease: Lease, *, called: bool) -> None:
        keys = (self._keys.request(lease.request_id),)
        await self._scripts.run(ScriptName.RELEASE, keys, (lease.fence, int(called)))

    async def settle(self, lease: Lease, state: State, outcome: bytes) -> Settled | None:
        ending_step(State.PROCESSING, state)
        keys = self._keys.counted_request(lease.request_id)
        arguments = (lease.request_id, lease.fence, lease.version, state, outcome, self._retention_ms)
        reply = await self._scripts.run(ScriptName.SETTLE, keys, arguments)
        return None if reply is None else _settled(reply)

    async def published(self, request_ids: Sequence[str]) -> None:
        async def mark_group(group: list[str]) -> None:
            await self._scripts.run(ScriptName.PUBLISHED, [self._keys.request(request_id) for request_id in group])

        await _all(mark_group(group) for group in self._together(request_ids, by=str))

    async def outstanding(self) -> tuple[int, int]:
        shards = await _all(self._scripts.run(ScriptName.OUTSTANDING, keys) for keys in self._keys.counts())
        return sum(requests for requests, _ in shards), sum(size_bytes for _, size_bytes in shards)

    async def close(self) -> None:
        await self._scripts.close()

    def _next_token(self) -> str:
        return f"{self._token_prefix}-{next(self._token_numbers)}"

    def _together(self, items: Sequence[T], *, by: Callable[[T], str]) -> list[list[T]]:
        """Items, by their request ids, in groups that one script call may take: of one shard, and not too many."""
        by_shard: dict[int, list[T]] = {}
        for item in items:
            by_shard.setdefault(self._keys.shard(by(item)), []).append(item)
        return [
            group[start : start + REQUESTS_PER_CALL]
            for group in by_shard.values()
            for start in range(0, len(group), REQUESTS_PER_CALL)
        ]


async def _all(calls: Iterable[Awaitable[T]]) -> list[T]:
    """What all of them give, or the first failure once all have ended: none goes on unwatched."""
    results = await asyncio.gather(*calls, return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException):
            raise result
    return cast("list[T]", results)


def _admission(reply: list[Any]) -> Admission:
    match reply:
        case [b"admitted", version, repeated]:
            return Admitted(version, repeated=bool(repeated))
        case [b"duplicate", state]:
            return Duplicate(State(state.decode()))
        case [b"full", requests, size_bytes]:
            return Full(requests, size_bytes)
        case _:
            return _settled(reply)


def _settled(reply: list[Any]) -> Settled:
    _, state, version, outcome = reply
    return Settled(State(state.decode()), version, outcome)


def _lost_calls(text: bytes) -> tuple[LostCall, ...]:
    if not text:
        return ()
    return tuple(LostCall(attempt=attempt, owner=owner, started_ms=ms) for attempt, owner, ms in json.loads(text))
