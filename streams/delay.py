"""The delay stage: tasks wait in Kafka, in a topic for each length of wait, and go back to their lane when due.

All records of a delay topic wait equally long, so the first one of a partition is the next that is due: the partition
is paused until then, and nothing is held in memory. A wait longer than a topic's goes through several.
"""

import asyncio
from collections.abc import Sequence
from datetime import datetime, timedelta

import structlog
from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition

from connectors.kafka.group_consumer import commit_positions
from connectors.state.base import Moved, Settled
from connectors.tracing import outgoing, processing_span
from policy import results
from policy.summary import dump_summary, summary_of
from schemas import LaneTask
from schemas.base import epoch_ms
from schemas.codec import CodecError
from schemas.envelope import header_number
from schemas.vocabulary import State
from streams.context import Delivery, StageContext
from streams.deliveries import delivery_of_record, moment_of
from streams.ending import Ending, origins_of
from streams.moving import Mover
from streams.patience import patiently
from streams.records import RecordWriter

log = structlog.get_logger(__name__)

MAX_RECORDS_AT_ONCE = 64
MAX_POLL_SECONDS = 0.5
AFTER_ERROR_SECONDS = 1.0
CLOCKS_DIFFER_SECONDS = 5.0
"""By how much the clock of a record's writer may be ahead of ours."""


class DelayStage:
    """Reads delay topics through a consumer that it alone uses."""

    def __init__(self, context: StageContext, ending: Ending, consumer: AIOKafkaConsumer) -> None:
        self._context = context
        self._ending = ending
        self._consumer = consumer
        self._writer = RecordWriter(context.codec, context.settings.topics, "/sluice/delay")
        self._mover = Mover(context, self._writer)
        self._delays = {topic: delay for delay, topic in context.settings.topics.retries.items()}
        self._paused: dict[TopicPartition, datetime] = {}
        """Until when. One that was assigned anew meanwhile is not paused any more: resuming it does nothing."""

    async def run(self, stop: asyncio.Event) -> None:
        """Works until `stop`. What it had begun is done again by whoever reads it next, with the same effect."""
        while not stop.is_set():
            batches = await self._consumer.getmany(timeout_ms=self._poll_ms(), max_records=MAX_RECORDS_AT_ONCE)
            for partition, records in batches.items():
                await self._pass_on(partition, records)

    def _poll_ms(self) -> int:
        """Resumes what is due by now; how long to wait for records before the next is."""
        now = self._context.now()
        for partition, due in list(self._paused.items()):
            if due <= now:
                del self._paused[partition]
                if partition in self._consumer.assignment():
                    self._consumer.resume(partition)
        soonest = min((due - now for due in self._paused.values()), default=timedelta(seconds=MAX_POLL_SECONDS))
        return int(min(MAX_POLL_SECONDS, soonest.total_seconds()) * 1000) + 1

    async def _pass_on(self, partition: TopicPartition, records: Sequence[ConsumerRecord]) -> None:
        now = self._context.now()
        ready: list[ConsumerRecord] = []
        for record in records:
            due = self._due(record)
            if due > now:
                self._pause(partition, record.offset, due)
                break
            ready.append(record)
        if not ready:
            return
        try:
            await asyncio.gather(*(self.let_go(delivery_of_record(record)) for record in ready))
        except Exception:
            log.exception("stage_error", stage="delay", topic=partition.topic, offset=ready[0].offset)
            self._pause(partition, ready[0].offset, now + timedelta(seconds=AFTER_ERROR_SECONDS))
            return
        await commit_positions(self._consumer, {partition: ready[-1].offset + 1})

    def _pause(self, partition: TopicPartition, offset: int, until: datetime) -> None:
        if partition not in self._consumer.assignment():
            return
        self._consumer.pause(partition)
        self._consumer.seek(partition, offset)
        self._paused[partition] = until

    def _due(self, record: ConsumerRecord) -> datetime:
        """When its wait here is over: after this topic's delay, or when the whole wait is.

        One that claims to be from the future may hold nobody up: it goes by what its task says.
        """
        now, written = self._context.now(), moment_of(record.timestamp / 1000)
        if written > now + timedelta(seconds=CLOCKS_DIFFER_SECONDS):
            return now
        due = written + timedelta(seconds=self._delays[record.topic])
        not_before = header_number(record.headers, "retry_topic-backoff-timestamp")
        return due if not_before is None else min(due, moment_of(not_before / 1000))

    async def let_go(self, delivery: Delivery) -> None:
        """To its lane, or to a shorter wait for what is left. Everything is in Kafka when this returns."""
        try:
            task = await patiently("decode", lambda: self._context.codec.decode(LaneTask, delivery.value))
        except CodecError as error:
            await self._ending.set_aside_task(delivery, error)
            return
        attributes = {"messaging.system": "kafka", "messaging.destination.name": delivery.topic}
        with processing_span("process delay", delivery.headers, attributes) as trace:
            if task.not_before is not None and task.not_before > self._context.now():
                await self._context.producer.send(self._mover.delayed(task, trace))
            else:
                await self._requeue(task)

    async def _requeue(self, task: LaneTask) -> None:
        queued = task.model_copy(update={"not_before": None})
        summary = summary_of(queued)
        request_id = task.request.request_id
        moved = await patiently(
            "requeue",
            lambda: self._context.state.requeue(
                request_id,
                task_version=task.state_version,
                attempt=task.attempt,
                summary=dump_summary(summary),
                deadline_ms=epoch_ms(task.deadline_at),
                redrives=task.redrive_count,
            ),
        )
        if isinstance(moved, Settled):
            origins = origins_of(summary, published_attempts=len(task.history))
            await self._ending.publish(moved, request_id, outgoing(), origins)
        elif isinstance(moved, Moved):
            await self._publish(queued.model_copy(update={"state_version": moved.version}))

    async def _publish(self, task: LaneTask) -> None:
        trace = outgoing()
        event = results.progress_event(
            summary_of(task),
            State.QUEUED,
            version=task.state_version,
            attempt=task.history[-1].attempt if task.history else 0,
            now=self._context.now(),
        )
        await self._context.producer.send(self._writer.status(event, trace))
        # Last: once it is taken up, the record that waited causes nothing more.
        await self._context.producer.send(self._writer.task(task, trace))
