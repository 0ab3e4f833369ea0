"""The state in Redis: one hash a request, one Lua script a step (`lua/`), so that each step is atomic.

Needs Redis 6 or later (or Valkey), with `maxmemory-policy noeviction`: an evicted request would be forgotten.
An ACL user needs `~{<prefix>:* +@read +@write +@scripting +@connection +time +info`, and `+cluster|slots` on a Cluster.
Replication is asynchronous, so a failover may forget the last steps; with `min-replicas-to-write 1` a master that was
cut off at least takes no more of them. What was forgotten shows as `history_missing`, and no fence is used twice.
"""

import asyncio
import json
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from itertools import count
from typing import Any, Self, TypeVar, cast

from pydantic import SecretStr

from connectors.settings import RedisSettings
from connectors.state.base import (
    Admission,
    Arrival,
    Busy,
    Cancellation,
    Claim,
    Claimed,
    Ended,
    FoundTask,
    Known,
    Lease,
    Limits,
    Refusal,
    Renewal,
    Requeued,
    Rescheduled,
    Settled,
    StateUnavailableError,
    TaskRef,
)
from connectors.state.connect import connect
from connectors.state.defaults import ANY_TASK, FIRST_LIFE
from connectors.state.ends import ending_step, moving_step
from connectors.state.keys import KeyLayout
from connectors.state.replies import (
    admission_of,
    id_of_member,
    known_of,
    lost_calls_of,
    moved_of,
    refusal_of,
    rescheduled_of,
    settled_of,
)
from connectors.state.script_runner import Argument, ScriptName, ScriptRunner
from connectors.state.watermarks import Watermarks
from schemas.vocabulary import State

T = TypeVar("T")

DAY_SECONDS = 86_400
REQUESTS_PER_CALL = 256
"""Of steps for many: a script holds up everybody else for as long as it runs."""
MAX_CANCELLATIONS = 100_000
"""Of what has not come yet, of each shard: the oldest are forgotten."""
UNBORN = [b"unborn"]
RESTORING = [b"restoring"]
RESTORING_MS = 500
"""How soon to ask again for a lease on what an emptied store does not know yet."""


async def no_history() -> bool:
    """The answer of a deployment that never ran before."""
    return False


class RedisStateStore:
    """Implements `store.StateStore`.

    A request that has ended is remembered for `retention_seconds` from its end or its deadline, whichever is later; one
    that has not, for as long as Kafka has its task.
    """

    def __init__(
        self,
        scripts: ScriptRunner,
        keys: KeyLayout,
        *,
        retention_seconds: float = DAY_SECONDS,
        has_history: Callable[[], Awaitable[bool]] = no_history,
    ) -> None:
        """`has_history` tells a store that was emptied from the first one of a deployment: asked at its birth."""
        self._scripts = scripts
        self._keys = keys
        self._has_history = has_history
        self._retention_ms = int(retention_seconds * 1000)
        self._token_numbers = count(1)
        self._token_prefix = secrets.token_hex(8)
        self._birth: asyncio.Task[None] | None = None
        self._births: list[bytes] = []
        """Of each shard, as `is_restored` last saw them."""
        self._runs: list[bytes] = []
        """Of each shard, as `is_same_run` last saw them."""

    @classmethod
    def from_settings(
        cls,
        settings: RedisSettings,
        url: SecretStr,
        *,
        namespace: str,
        retention_seconds: float = DAY_SECONDS,
        has_history: Callable[[], Awaitable[bool]] = no_history,
    ) -> Self:
        """Connects on the first step. Deployments of different namespaces do not meet."""
        scripts = ScriptRunner(
            connect(settings, url),
            timeout_seconds=settings.timeout_seconds,
            max_connections=settings.max_connections,
        )
        keys = KeyLayout(prefix=settings.key_prefix, namespace=namespace, shards=settings.shards)
        return cls(scripts, keys, retention_seconds=retention_seconds, has_history=has_history)

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
            arrival.summary,
            arrival.recorded_ms,
            arrival.sent_ms,
            arrival.tenant_id,
            arrival.correlation_id,
            *_redriven(arrival),
        )
        keys = self._keys.arriving_request(arrival.request_id)
        return admission_of(await self._proved(ScriptName.ADMIT, keys, arguments))

    async def _proved(self, name: ScriptName, keys: Sequence[str], arguments: Sequence[Argument]) -> list[Any]:
        """The reply of a script that asks whether the store can be believed."""
        reply: list[Any] = await self._scripts.run(name, keys, arguments)
        while reply == UNBORN:
            await self._begin()
            reply = await self._scripts.run(name, keys, arguments)
        if reply == RESTORING and name is not ScriptName.CLAIM:
            raise StateUnavailableError(name, "it came back empty, and what is in Kafka is not read back yet")
        return reply

    async def _begin(self) -> None:
        """Many meet a store that is empty at the same moment: one of them asks for all."""
        if self._birth is None or self._birth.done():
            self._birth = asyncio.create_task(self._give_birth(), name="birth-of-the-store")
        await asyncio.shield(self._birth)

    async def _give_birth(self) -> None:
        is_first = int(not await self._has_history())
        await _all(self._scripts.run(ScriptName.BEGIN, (born,), (is_first,)) for born, _ in self._keys.births())

    async def refuse(self, arrival: Arrival, state: State, outcome: bytes, *, version: int = 1) -> Refusal:
        ending_step(None, state)
        redrives = (arrival.redrive or FIRST_LIFE).count
        arguments = (arrival.origin, state, version, outcome, self._retention_ms, redrives, arrival.recorded_ms)
        reply = await self._proved(ScriptName.REFUSE, self._keys.proved_request(arrival.request_id), arguments)
        return refusal_of(reply)

    async def claim(
        self, request_id: str, *, owner: str, lease_ms: int, token: str | None = None, task: TaskRef | None = None
    ) -> Claim:
        _, *births = self._keys.proved_request(request_id)
        keys = (*self._keys.counted_request(request_id), *births)
        task = task or ANY_TASK
        # The client may send a call twice, so each has a token even if its caller has none.
        claim = (owner, token or self._next_token(), lease_ms, self._retention_ms)
        doubt = int(task.may_have_been_called)
        claimed_task = (task.version, task.attempt, request_id, task.size_bytes, task.deadline_ms, doubt, task.redrives)
        match await self._proved(ScriptName.CLAIM, keys, (*claim, *claimed_task)):
            case [b"claimed", fence, attempt, version, history_missing, lost_calls, cancelled]:
                return Claimed(
                    lease=Lease(request_id=request_id, fence=fence, attempt=attempt, version=version, owner=owner),
                    lost_calls=lost_calls_of(lost_calls),
                    history_missing=bool(history_missing),
                    cancelled=bool(cancelled),
                )
            case [b"busy", retry_after_ms]:
                return Busy(retry_after_ms)
            case [b"restoring"]:
                return Busy(RESTORING_MS)
            case reply:
                return moved_of(reply)

    async def renew(self, leases: Sequence[Lease], *, lease_ms: int) -> Renewal:
        async def renew_group(group: list[Lease]) -> Renewal:
            keys = [self._keys.request(lease.request_id) for lease in group]
            told = (
                part
                for lease in group
                for part in (lease.fence, lease.version, lease.attempt, lease.owner, int(lease.is_own))
            )
            lost, cancelled = await self._scripts.run(ScriptName.RENEW, keys, (lease_ms, self._retention_ms, *told))
            return Renewal(
                lost=tuple(group[position - 1] for position in lost),
                cancelled=tuple(group[position - 1] for position in cancelled),
            )

        groups = self._together(leases, by=lambda lease: lease.request_id)
        renewals = await _all(renew_group(group) for group in groups)
        return Renewal(
            lost=tuple(lease for renewal in renewals for lease in renewal.lost),
            cancelled=tuple(lease for renewal in renewals for lease in renewal.cancelled),
        )

    async def release(self, lease: Lease, *, called: bool) -> None:
        keys = (self._keys.request(lease.request_id),)
        await self._scripts.run(ScriptName.RELEASE, keys, (lease.fence, int(called)))

    async def settle(self, lease: Lease, state: State, outcome: bytes) -> Settled | None:
        ending_step(State.PROCESSING, state)
        keys = self._keys.counted_request(lease.request_id)
        arguments = (
            lease.request_id,
            lease.fence,
            lease.version,
            state,
            outcome,
            self._retention_ms,
            int(lease.is_own),
        )
        reply = await self._scripts.run(ScriptName.SETTLE, keys, arguments)
        return None if reply is None else settled_of(reply)

    async def reschedule(
        self, lease: Lease, state: State, *, task_version: int, next_attempt: int, summary: bytes
    ) -> Rescheduled:
        moving_step(State.PROCESSING, state)
        keys = (self._keys.request(lease.request_id),)
        moved = (lease.fence, lease.version, state, task_version, next_attempt, summary)
        arguments = (*moved, self._retention_ms, int(lease.is_own))
        return rescheduled_of(await self._scripts.run(ScriptName.RESCHEDULE, keys, arguments))

    async def requeue(
        self, request_id: str, *, task_version: int, attempt: int, summary: bytes, deadline_ms: int, redrives: int = 0
    ) -> Requeued:
        arguments = (task_version, attempt, summary, deadline_ms, self._retention_ms, redrives)
        return moved_of(await self._proved(ScriptName.REQUEUE, self._keys.proved_request(request_id), arguments))

    async def end(self, seen: Known, state: State, outcome: bytes, *, version: int | None = None) -> Settled | None:
        ending_step(seen.state, state)
        keys = self._keys.counted_request(seen.request_id)
        arguments = (seen.request_id, seen.version, state, outcome, self._retention_ms, version or seen.version + 1)
        reply = await self._scripts.run(ScriptName.END, keys, arguments)
        return None if reply is None else settled_of(reply)

    async def overdue(self, *, limit: int) -> list[str]:
        shards = await _all(
            self._scripts.run(ScriptName.OVERDUE, (deadlines,), (limit,)) for _, deadlines in self._keys.counts()
        )
        return [id_of_member(member) for members in shards for member in members]

    async def look(self, request_ids: Sequence[str]) -> list[Known]:
        async def look_at(group: list[str]) -> list[Known]:
            replies = await self._scripts.run(ScriptName.LOOK, [self._keys.request(each) for each in group])
            return [known_of(each, reply) for each, reply in zip(group, replies, strict=True) if reply]

        groups = self._together(request_ids, by=str)
        return [known for found in await _all(look_at(group) for group in groups) for known in found]

    async def counted(self) -> AsyncIterator[list[str]]:
        for _, deadlines in self._keys.counts():
            cursor = 0
            while True:
                cursor, members = await self._scripts.run(ScriptName.COUNTED, (deadlines,), (cursor, REQUESTS_PER_CALL))
                if members:
                    yield [id_of_member(member) for member in members]
                if cursor == 0:
                    break

    async def cancel(self, request_ids: Sequence[str]) -> None:
        async def mark_group(group: list[str]) -> None:
            _, _, deadlines = self._keys.counted_request(group[0])
            await self._scripts.run(ScriptName.CANCEL, (deadlines, *map(self._keys.request, group)), group)

        await _all(mark_group(group) for group in self._together(request_ids, by=str))

    async def forbid(self, cancellation: Cancellation) -> None:
        request_id, tenant_id = cancellation.request_id, cancellation.tenant_id
        lengths = f"{len(request_id.encode())}:{len(tenant_id.encode())}:"
        which = lengths + request_id + tenant_id + cancellation.correlation_id
        arguments = (which, cancellation.issued_ms, self._retention_ms, MAX_CANCELLATIONS)
        keys = self._keys.cancels()
        if request_id:
            keys = [keys[self._keys.shard(request_id)]]
        await _all(self._scripts.run(ScriptName.FORBID, (key,), arguments) for key in keys)

    async def confirm(self, ends: Sequence[Ended]) -> None:
        async def confirm_group(group: list[Ended]) -> None:
            _, *counts = self._keys.counted_request(group[0].request_id)
            keys = (*counts, *(self._keys.request(ended.request_id) for ended in group))
            ended_so = (part for ended in group for part in _told(ended))
            await self._scripts.run(ScriptName.CONFIRM, keys, (self._retention_ms, *ended_so))

        await _all(confirm_group(group) for group in self._together(ends, by=lambda ended: ended.request_id))

    async def outstanding(self) -> tuple[int, int]:
        shards = await _all(self._scripts.run(ScriptName.OUTSTANDING, keys) for keys in self._keys.counts())
        return sum(requests for requests, _ in shards), sum(size_bytes for _, size_bytes in shards)

    async def adopt(self, task: FoundTask) -> None:
        ref = task.task
        placed = (task.state, ref.version, ref.attempt, task.request_id, ref.size_bytes, ref.deadline_ms)
        lost = json.dumps([[lost.attempt, lost.owner, lost.started_ms] for lost in task.lost_calls])
        calls = (lost if task.lost_calls else "", len(task.lost_calls))
        who = (task.tenant_id, task.correlation_id, task.asked_ms, int(task.was_called), task.claimed_version)
        arguments = (*placed, self._retention_ms, task.summary, task.origin, ref.redrives, *calls, *who)
        await self._scripts.run(ScriptName.ADOPT, self._keys.found_request(task.request_id), arguments)

    async def is_restored(self) -> bool:
        async def ask() -> list[list[bytes | int]]:
            return await _all(self._scripts.run(ScriptName.IS_RESTORED, keys) for keys in self._keys.births())

        replies = await ask()
        while UNBORN in replies:
            await self._begin()
            replies = await ask()
        self._births = [cast("bytes", born) for born, _ in replies]
        return all(is_restored for _, is_restored in replies)

    async def is_same_run(self) -> bool:
        replies = await _all(self._scripts.run(ScriptName.SAME_RUN, (key,)) for key in self._keys.runs())
        self._runs = [cast("bytes", run) for _, run in replies]
        return all(is_same for is_same, _ in replies)

    async def restored(self) -> None:
        runs = self._runs or [b""] * self._keys.shards
        shards = zip(self._keys.births(), self._keys.runs(), self._births, runs, strict=False)
        await _all(
            self._scripts.run(ScriptName.RESTORED, (*births, run_key), (born, run))
            for births, run_key, born, run in shards
        )

    async def close(self) -> None:
        if self._birth is not None:
            self._birth.cancel()
            await asyncio.wait([self._birth])
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


def _told(ended: Ended) -> tuple[str, str, int, str]:
    place = "" if ended.place is None else f"{ended.place.partition}-{ended.place.offset}"
    return ended.request_id, ended.state, ended.version, place


def _redriven(arrival: Arrival) -> tuple[int, int, int]:
    redrive = arrival.redrive or FIRST_LIFE
    return redrive.count, redrive.state_version, redrive.attempt
