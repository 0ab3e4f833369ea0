"""What the shared state has lost, read back from Kafka: which requests have ended, and which are alive.

After Redis came back empty. Until this is done it says nothing of what it does not know: nothing is admitted, and
nothing is called.
"""

from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import datetime, timedelta
from functools import partial
from typing import TypeVar

from aiokafka import ConsumerRecord, TopicPartition

from connectors.kafka.client import client_options
from connectors.kafka.groups import committed_offsets
from connectors.kafka.reader import Start, TopicReader
from connectors.state.base import FoundTask, LostCall, TaskRef
from connectors.state.redis_store import DAY_SECONDS
from policy.summary import dump_summary, summary_of
from schemas import LaneTask, Record, StatusEvent
from schemas.codec import CodecError
from schemas.vocabulary import State
from streams.context import StageContext
from streams.deliveries import moment_of
from streams.patience import patiently

OVERLAP_SECONDS = 60
Confirm = Callable[[list[ConsumerRecord]], Awaitable[None]]
Claims = dict[str, set[int]]
R = TypeVar("R", bound=Record)


async def restore(context: StageContext, confirm: Confirm) -> tuple[int, int]:
    """Reads ends of as long as the store remembers them, and all tasks that are not done. Returns how many of each."""
    topics = context.settings.topics
    groups = {context.settings.control_group("delay"): list(topics.retries.values())}
    for name in context.catalogue.providers:
        groups[context.settings.lane_group(name)] = list(topics.lanes(name).values())
    began = context.now()
    oldest = min([await _oldest(context, group, names) for group, names in groups.items()], default=began)
    # Of a task that waits in a lane that was down for days the end may be as old.
    ends = await _confirm_since(context, confirm, min(oldest, began - timedelta(seconds=DAY_SECONDS)))
    claims = await _claims_since(context, oldest)
    tasks = sum([await _adopt_all(context, group, names, claims) for group, names in groups.items()])
    # What ended while all this was read is not to be taken for alive.
    ends += await _confirm_since(context, confirm, began - timedelta(seconds=OVERLAP_SECONDS))
    await patiently("restored", context.state.restored)
    return ends, tasks


async def _confirm_since(context: StageContext, confirm: Confirm, start: datetime) -> int:
    count = 0
    async for records in _records(context, [context.settings.topics.results], start):
        await confirm(records)
        count += len(records)
    return count


async def _oldest(context: StageContext, group: str, topics: list[str]) -> datetime:
    """When the first of the tasks was written that are not done."""
    oldest = context.now()
    async for records in _records(context, topics, await _done(context, group)):
        for record in records:
            oldest = min(oldest, moment_of(record.timestamp / 1000))
    return oldest


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


async def _adopt_all(context: StageContext, group: str, topics: list[str], claims: Claims) -> int:
    """The tasks of these topics that their group has not committed: as many as there are, a batch at a time."""
    count = 0
    async for records in _records(context, topics, await _done(context, group)):
        for record in records:
            task = await _decoded(context, LaneTask, record)
            if task is not None:  # What cannot be read its stage sets aside.
                found = found_task(
                    task, claims.get(task.request.request_id, set()), size_bytes=len(record.value or b"")
                )
                await patiently("adopt", partial(context.state.adopt, found))
        count += len(records)
    return count


def found_task(task: LaneTask, claims: set[int], *, size_bytes: int) -> FoundTask:
    """A task as it is adopted. `claims`: the versions of its request's PROCESSING events that have no end."""
    queued_ms = int(task.queued_at.timestamp() * 1000)
    calls = sum(version > task.state_version for version in claims)
    return FoundTask(
        request_id=task.request.request_id,
        state=State.RETRY_SCHEDULED if task.not_before else State.QUEUED,
        task=TaskRef(
            version=task.state_version,
            attempt=task.attempt,
            size_bytes=size_bytes,
            deadline_ms=int(task.deadline_at.timestamp() * 1000),
        ),
        summary=dump_summary(summary_of(task)),
        origin=f"{task.origin.topic}-{task.origin.partition}-{task.origin.offset}" if task.origin else "",
        redrives=task.redrive_count,
        lost_calls=tuple(
            LostCall(attempt=task.attempt + number, owner="unknown", started_ms=queued_ms) for number in range(calls)
        ),
    )


async def _done(context: StageContext, group: str) -> dict[TopicPartition, int]:
    return await committed_offsets(client_options(context.settings), group)


async def _records(context: StageContext, topics: list[str], start: Start) -> AsyncIterator[list[ConsumerRecord]]:
    """From there to the end as it is now, in batches."""
    async with TopicReader(client_options(context.settings), topics, start=start) as reader:
        async for records in reader.up_to(await reader.ends()):
            yield records


async def _decoded(context: StageContext, kind: type[R], record: ConsumerRecord) -> R | None:
    try:
        return await patiently("decode", lambda: context.codec.decode(kind, record.value or b""))
    except CodecError:
        return None
