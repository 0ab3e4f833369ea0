"""What the shared state has lost, read back from Kafka: which requests have ended, and which are alive.

After Redis came back empty. Until this is done it says nothing of what it does not know: nothing is admitted, and
nothing is called.
"""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import TypeVar

from aiokafka import ConsumerRecord, TopicPartition

from connectors.kafka.client import client_options
from connectors.kafka.groups import committed_offsets
from connectors.kafka.reader import Start, TopicReader
from connectors.state.base import FoundTask, LostCall, TaskRef
from connectors.state.redis_store import DAY_SECONDS
from policy.summary import asked_at, dump_summary, summary_of
from schemas import LaneTask, Record, StatusEvent
from schemas.base import epoch_ms
from schemas.codec import CodecError
from schemas.vocabulary import State
from streams.commands import cancellation_of, read_command
from streams.context import StageContext
from streams.deliveries import moment_of
from streams.patience import patiently

OVERLAP_SECONDS = 60
"""By how much the times of a partition's records may be out of order: each writer has a clock of its own."""
AT_ONCE = 256
"""Steps on Redis: they share a pipeline."""
Confirm = Callable[[list[ConsumerRecord]], Awaitable[None]]
Claims = dict[str, set[int]]
R = TypeVar("R", bound=Record)


@dataclass(frozen=True, kw_only=True, slots=True)
class Restored:
    """How many records were read back."""

    ends: int = 0
    commands: int = 0
    tasks: int = 0


async def restore(context: StageContext, confirm: Confirm, whole_at: datetime | None = None) -> Restored:
    """Reads ends and cancellations of as long as the store remembers them, and all tasks that are not done.

    `whole_at`: when the store was last known to have all of it. Then what came since is enough.
    """
    day_ago = context.now() - timedelta(seconds=DAY_SECONDS)
    topics, done = await _undone(context)
    oldest = await _oldest(context, topics, done)
    # Of a task that waits in a lane that was down for days the end may be as old.
    ends_since, commands_since = min(oldest, day_ago), day_ago
    if whole_at is not None:
        ends_since = commands_since = whole_at - timedelta(seconds=OVERLAP_SECONDS)
    ends, read_to = await _confirm_from(context, confirm, ends_since)
    # Before the tasks: whoever adopts one asks for them.
    commands = await _forbid_since(context, commands_since)
    tasks = await _adopt_all(context, topics, done, await _claims_since(context, oldest))
    # What ended while all this was read is not to be taken for alive.
    late, _ = await _confirm_from(context, confirm, read_to)
    await patiently("restored", context.state.restored)
    return Restored(ends=ends + late, commands=commands, tasks=tasks)


async def _undone(context: StageContext) -> tuple[list[str], dict[TopicPartition, int]]:
    """The topics of tasks, and where in them that begins which no group has committed."""
    groups = {context.settings.control_group("delay"): list(context.settings.topics.retries.values())}
    for name in context.catalogue.providers:
        groups[context.settings.lane_group(name)] = list(context.settings.topics.lanes(name).values())
    done: dict[TopicPartition, int] = {}
    for group in groups:
        done |= await committed_offsets(client_options(context.settings), group)
    return [topic for topics in groups.values() for topic in topics], done


async def _oldest(context: StageContext, topics: list[str], done: Start) -> datetime:
    """No task that is not done was written before this: the first of a partition is the oldest there."""
    async with TopicReader(client_options(context.settings), topics, start=done) as reader:
        firsts = [moment_of(record.timestamp / 1000) for record in await reader.firsts()]
    return min([context.now(), *firsts]) - timedelta(seconds=OVERLAP_SECONDS)


async def _confirm_from(context: StageContext, confirm: Confirm, start: Start) -> tuple[int, dict[TopicPartition, int]]:
    """Confirms the results from there on. Returns how many there were, and where they ended."""
    count = 0
    options, topics = client_options(context.settings), [context.settings.topics.results]
    async with TopicReader(options, topics, start=start) as reader:
        ends = await reader.ends()
        async for records in reader.up_to(ends):
            await confirm(records)
            count += len(records)
    return count, ends


async def _forbid_since(context: StageContext, start: datetime) -> int:
    count = 0
    async for records in _records(context, [context.settings.topics.commands], start):
        commands = [await read_command(context.codec, record) for record in records]
        cancellations = [cancellation_of(command) for command in commands if command is not None]
        await _all("forbid", [partial(context.state.forbid, cancellation) for cancellation in cancellations])
        count += len(cancellations)
    return count


async def _claims_since(context: StageContext, start: datetime) -> Claims:
    """Versions at which requests were claimed and have not ended: each may have been a call that nobody reported."""
    claims: Claims = defaultdict(set)
    async for records in _records(context, [context.settings.topics.status], start):
        for record in records:
            event = await _decoded(context, StatusEvent, record)
            if event is None:
                continue
            if event.state.is_terminal:
                claims.pop(event.request_id, None)
            elif event.state is State.PROCESSING:
                claims[event.request_id].add(event.state_version)
    return claims


async def _adopt_all(context: StageContext, topics: list[str], done: Start, claims: Claims) -> int:
    """Adopts all tasks, a batch at a time. Returns how many there are."""
    count = 0
    async for records in _records(context, topics, done):
        found: list[FoundTask] = []
        for record in records:
            task = await _decoded(context, LaneTask, record)
            if task is not None:  # What cannot be read its stage sets aside.
                claimed = claims.get(task.request.request_id, set())
                found.append(found_task(task, claimed, size_bytes=len(record.value or b"")))
        await _all("adopt", [partial(context.state.adopt, task) for task in found])
        count += len(records)
    return count


def found_task(task: LaneTask, claims: set[int], *, size_bytes: int) -> FoundTask:
    """A task as it is adopted. `claims`: the versions of its request's PROCESSING events that have no end."""
    queued_ms = epoch_ms(task.queued_at)
    calls = sum(version > task.state_version for version in claims)
    return FoundTask(
        request_id=task.request.request_id,
        state=State.RETRY_SCHEDULED if task.not_before else State.QUEUED,
        task=TaskRef(
            version=task.state_version,
            attempt=task.attempt,
            size_bytes=size_bytes,
            deadline_ms=epoch_ms(task.deadline_at),
            redrives=task.redrive_count,
        ),
        summary=dump_summary(summary_of(task)),
        origin=f"{task.origin.topic}-{task.origin.partition}-{task.origin.offset}" if task.origin else "",
        tenant_id=task.request.tenant_id,
        correlation_id=task.request.correlation_id or "",
        asked_ms=epoch_ms(asked_at(task)),
        earlier_calls=len(task.history),
        claimed_version=max(claims, default=0),
        lost_calls=tuple(
            LostCall(attempt=task.attempt + number, owner="unknown", started_ms=queued_ms) for number in range(calls)
        ),
    )


async def _records(context: StageContext, topics: list[str], start: Start) -> AsyncIterator[list[ConsumerRecord]]:
    """From there to the end as it is now, in batches."""
    async with TopicReader(client_options(context.settings), topics, start=start) as reader:
        async for records in reader.up_to(await reader.ends()):
            yield records


async def _all(name: str, steps: Sequence[Callable[[], Awaitable[None]]]) -> None:
    """Makes these steps, some of them at a time."""
    for start in range(0, len(steps), AT_ONCE):
        await asyncio.gather(*(patiently(name, step) for step in steps[start : start + AT_ONCE]))


async def _decoded(context: StageContext, kind: type[R], record: ConsumerRecord) -> R | None:
    try:
        return await patiently("decode", lambda: context.codec.decode(kind, record.value or b""))
    except CodecError:
        return None
