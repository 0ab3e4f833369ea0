"""What an emptied shared state gets back from Kafka: ends, cancellations, and the tasks that are not done."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import cast

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from connectors.kafka.client import client_options
from connectors.kafka.group_consumer import commit_positions
from connectors.kafka.producer import Outgoing, Producer
from connectors.kafka.reader import TopicReader
from connectors.kafka.topics_admin import create_topics
from connectors.settings import Settings
from connectors.state.base import Claimed, FoundTask, Known
from connectors.state.memory_store import MemoryStateStore
from policy import results
from policy.catalogue import SIMULATED_ONLY
from policy.summary import summary_of
from schemas import LaneTask, LLMRequest
from schemas.codec import SingleObjectCodec
from schemas.command import Command
from schemas.envelope import cloud_event
from schemas.task import Origin, RoutingDecision
from schemas.vocabulary import Priority, State
from streams.confirming import ResultConfirmer
from streams.context import OriginalRecords, StageContext
from streams.records import RecordWriter
from streams.restoring import OVERLAP_SECONDS, Restored, restore

pytestmark = pytest.mark.integration
NOW = datetime.now(UTC).replace(microsecond=0)
codec = SingleObjectCodec()


class Deployment:
    """Topics with what a deployment has written, and a shared state that has lost all of it."""

    def __init__(self, settings: Settings, producer: Producer) -> None:
        self.settings = settings
        self.producer = producer
        self.writer = RecordWriter(codec, settings.topics, "/test")
        born_ms = round(datetime.now(UTC).timestamp() * 1000)
        self.state = MemoryStateStore(
            lambda: round(datetime.now(UTC).timestamp() * 1000), born_ms=born_ms, is_restored=False
        )

    async def write(self, *records: Outgoing) -> None:
        for record in records:
            await self.producer.send(record)

    async def task(self, task: LaneTask) -> None:
        """Where it waits: in its lane, or for a retry."""
        await self.write(self.writer.delayed_task(task, 600, []) if task.not_before else self.writer.task(task, []))

    async def claim_of(self, task: LaneTask, *, version: int) -> None:
        event = results.progress_event(
            summary_of(task), State.PROCESSING, version=version, attempt=task.attempt, now=NOW
        )
        await self.write(self.writer.status(event, []))

    async def end_of(self, task: LaneTask, *, version: int) -> None:
        result = results.end_of(summary_of(task), State.FAILED, version=version, now=NOW)
        await self.write(self.writer.result(result, []))

    async def cancel(self, **names: str) -> None:
        command = Command.model_validate({"command_id": "c-1", "issued_at": NOW + timedelta(seconds=1), **names})
        headers = cloud_event(type="sluice.Command", source="/test", key="c-1")
        await self.write(
            Outgoing(topic=self.settings.topics.commands, key=b"c-1", value=codec.encode(command), headers=headers)
        )

    async def lane_is_done(self) -> None:
        """All that is in the lane was worked on, and committed."""
        topics = list(self.settings.topics.lanes("simulated").values())
        async with TopicReader(client_options(self.settings), topics) as reader:
            ends = await reader.ends()
        consumer = AIOKafkaConsumer(
            **client_options(self.settings), group_id=self.settings.lane_group("simulated"), enable_auto_commit=False
        )
        consumer.assign(list(ends))
        await consumer.start()
        try:
            assert await commit_positions(consumer, {partition: end for partition, end in ends.items() if end})
        finally:
            await consumer.stop()

    async def restored(self, *, whole_at: datetime | None = None) -> Restored:
        context = StageContext(
            settings=self.settings,
            catalogue=SIMULATED_ONLY,
            state=self.state,
            claims=self.state,
            producer=self.producer,
            codec=codec,
            originals=cast("OriginalRecords", None),
            worker="test",
        )
        told = await restore(context, ResultConfirmer(context, cast("AIOKafkaConsumer", None)).confirm, whole_at)
        assert await self.state.is_restored()
        return told

    async def known(self, request_id: str) -> Known:
        (known,) = await self.state.look([request_id])
        return known


@pytest.fixture
async def deployment(stack_settings: Settings) -> AsyncIterator[Deployment]:
    await create_topics(stack_settings, stack_settings.topics.specs(["simulated"]))
    async with Producer(client_options(stack_settings)) as producer:
        yield Deployment(stack_settings, producer)


def task_of(request_id: str, *, version: int = 1, waits: bool = False, **fields: object) -> LaneTask:
    request = LLMRequest.model_validate(
        {"request_id": request_id, "messages": [{"role": "user", "content": "x"}], **fields}
    )
    return LaneTask(
        request=request,
        decision=RoutingDecision(provider="simulated", model="reading-ease-1", reason="default"),
        state_version=version,
        submitted_at=NOW,
        queued_at=NOW,
        deadline_at=NOW + timedelta(hours=1),
        not_before=NOW + timedelta(minutes=10) if waits else None,
        origin=Origin(topic="llm.requests", partition=0, offset=0),
    )


async def test_what_was_called_off_before_the_flush_is_cancelled_where_it_waits(deployment: Deployment) -> None:
    """The command was carried out by the store that is gone. A sweep finds what it was about; nothing else is."""
    await deployment.task(task_of("queued", tenant_id="team"))
    await deployment.task(task_of("delayed", version=3, waits=True, tenant_id="team"))
    await deployment.task(task_of("other", tenant_id="other"))
    await deployment.cancel(tenant_id="team")
    assert await deployment.restored() == Restored(commands=1, tasks=3)
    assert sorted(await deployment.state.overdue(limit=9)) == ["delayed", "queued"]
    assert (await deployment.known("delayed")).state is State.RETRY_SCHEDULED
    assert not (await deployment.known("other")).cancelled
    claim = await deployment.state.claim("queued", owner="us", lease_ms=1000)
    assert isinstance(claim, Claimed)
    assert claim.cancelled


async def test_each_task_is_found_that_is_not_done_and_no_other(deployment: Deployment) -> None:
    await deployment.task(task_of("done"))
    await deployment.lane_is_done()
    names = [f"r-{number}" for number in range(300)]
    for name in names:
        await deployment.task(task_of(name))
    assert (await deployment.restored()).tasks == len(names)
    assert sorted([name async for batch in deployment.state.counted() for name in batch]) == sorted(names)
    assert await deployment.state.look(["done"]) == []


async def test_what_has_ended_is_not_taken_for_alive(deployment: Deployment) -> None:
    task = task_of("r-1")
    await deployment.task(task)
    await deployment.end_of(task, version=3)
    assert await deployment.restored() == Restored(ends=1, tasks=1)
    assert (await deployment.known("r-1")).state is State.FAILED
    assert await deployment.state.outstanding() == (0, 0)


async def test_what_ends_while_all_is_read_is_not_taken_for_alive(deployment: Deployment) -> None:
    """Whatever the clock of its worker says: a worker that was cut off from the emptied store publishes it still."""
    task = task_of("r-1")
    await deployment.task(task)
    end = results.end_of(summary_of(task), State.FAILED, version=3, now=NOW)
    adopt = deployment.state.adopt

    async def ends_meanwhile(found: FoundTask) -> None:
        await write_at(deployment, deployment.writer.result(end, []), NOW - timedelta(minutes=10))
        await adopt(found)

    deployment.state.adopt = ends_meanwhile  # type: ignore[method-assign]
    assert await deployment.restored() == Restored(ends=1, tasks=1)
    assert (await deployment.known("r-1")).state is State.FAILED


async def test_a_claim_that_is_on_record_is_a_call_that_may_have_been_made(deployment: Deployment) -> None:
    """Those of earlier tasks are on record in the task itself."""
    claimed, again, untouched = task_of("claimed"), task_of("again", version=4), task_of("untouched")
    for task in (claimed, again, untouched):
        await deployment.task(task)
    await deployment.claim_of(claimed, version=2)
    await deployment.claim_of(claimed, version=3)
    await deployment.claim_of(again, version=2)
    await deployment.restored()
    assert [call.attempt for call in (await deployment.known("claimed")).lost_calls] == [1, 2]
    assert (await deployment.known("again")).lost_calls == ()
    assert (await deployment.known("untouched")).lost_calls == ()


async def test_claims_are_read_from_before_the_oldest_task_of_all(deployment: Deployment) -> None:
    """Its clock and that of the claim's writer may differ; the tasks of other partitions are newer."""
    old = task_of("old", priority=Priority.LOW)
    record = deployment.writer.task(old, [])
    written_at = NOW - timedelta(minutes=10)
    await write_at(deployment, record, written_at)
    for number in range(20):
        await deployment.task(task_of(f"new-{number}"))
    event = results.progress_event(summary_of(old), State.PROCESSING, version=2, attempt=1, now=NOW)
    before = written_at - timedelta(seconds=OVERLAP_SECONDS - 5)
    await write_at(deployment, deployment.writer.status(event, []), before)
    await deployment.restored()
    assert len((await deployment.known("old")).lost_calls) == 1


async def write_at(deployment: Deployment, record: Outgoing, moment: datetime) -> None:
    """As by a producer with this clock."""
    producer = AIOKafkaProducer(**client_options(deployment.settings))
    await producer.start()
    try:
        await producer.send_and_wait(
            record.topic,
            key=record.key,
            value=record.value,
            headers=list(record.headers),
            timestamp_ms=round(moment.timestamp() * 1000),
        )
    finally:
        await producer.stop()


async def test_of_a_store_that_was_whole_lately_only_the_rest_is_read(deployment: Deployment) -> None:
    """And all tasks that are not done: one of them may be among what was lost."""
    old, new = task_of("old"), task_of("new")
    result = results.end_of(summary_of(old), State.FAILED, version=3, now=NOW)
    await write_at(deployment, deployment.writer.result(result, []), NOW - timedelta(hours=2))
    await deployment.task(new)
    await deployment.end_of(new, version=3)
    await deployment.cancel(request_id="new")
    restored = await deployment.restored(whole_at=NOW - timedelta(hours=1))
    assert restored == Restored(ends=1, commands=1, tasks=1)
    assert (await deployment.known("new")).state is State.FAILED
    assert await deployment.state.look(["old"]) == []


async def test_firsts_are_told_of_each_partition_that_has_any(deployment: Deployment) -> None:
    """From where reading begins, not from the beginning."""
    topic = deployment.settings.topics.status
    task = task_of("r-1")
    for version in range(5):
        await deployment.claim_of(task, version=version + 1)
    options = client_options(deployment.settings)
    async with TopicReader(options, [topic], start="beginning") as reader:
        (first,) = await reader.firsts()
    assert first.offset == 0
    start = {TopicPartition(topic, first.partition): 3}
    async with TopicReader(options, [topic], start=start) as reader:
        assert [record.offset for record in await reader.firsts()] == [3]
    async with TopicReader(options, [topic], start="end") as reader:
        assert await reader.firsts() == []
