"""A plain reader of whole topics, without a consumer group: for clients, the command line, and checks."""

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, Literal

from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import UnknownTopicOrPartitionError
from aiokafka.partitioner import DefaultPartitioner

from schemas.base import epoch_ms

MAX_FETCH_BYTES = 8 * 1024 * 1024

Start = Literal["beginning", "end"] | datetime | Mapping[TopicPartition, int]


class TopicReader:
    """Reads every partition of some topics from a point on. An async context manager; iterate it for records.

    A start may be an offset for each of some partitions; the others are then read from their beginning.
    Started at the `end`, everything written after `__aenter__` returned is seen.
    """

    def __init__(self, client_options: Mapping[str, Any], topics: Sequence[str], *, start: Start = "end") -> None:
        self._consumer = AIOKafkaConsumer(
            **client_options,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            fetch_max_wait_ms=100,
            max_partition_fetch_bytes=MAX_FETCH_BYTES,
        )
        self._options = dict(client_options)
        self._topics = list(topics)
        self._start = start

    async def __aenter__(self) -> "TopicReader":
        try:
            await self._consumer.start()
            await self._assign()
        except BaseException:
            await self._consumer.stop()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        # In a task of its own: with Kafka away a cancellation inside of aiokafka gets out, and would pass for ours.
        stopping = asyncio.create_task(self._consumer.stop())
        await asyncio.wait([stopping])
        if not stopping.cancelled():
            stopping.result()

    async def _assign(self) -> None:
        partitions = await partitions_of(self._options, self._topics)
        self._consumer.assign(partitions)
        if self._start == "beginning":
            await self._consumer.seek_to_beginning(*partitions)
        elif self._start == "end":
            # A lazy seek would skip what is written between now and the first fetch: positions are fixed here.
            for partition, offset in (await self._consumer.end_offsets(partitions)).items():
                self._consumer.seek(partition, offset)
        elif isinstance(self._start, datetime):
            await self._seek_to_time(partitions, self._start)
        else:
            await self._consumer.seek_to_beginning(*partitions)
            for partition in set(partitions) & self._start.keys():
                self._consumer.seek(partition, self._start[partition])

    async def _seek_to_time(self, partitions: list[TopicPartition], moment: datetime) -> None:
        for partition, offset in (await self._offsets_at(partitions, moment)).items():
            self._consumer.seek(partition, offset)

    async def _offsets_at(self, partitions: list[TopicPartition], moment: datetime) -> dict[TopicPartition, int]:
        # The ends come first: what is written between the two look-ups is then found by its time.
        ends = await self._consumer.end_offsets(partitions)
        milliseconds = epoch_ms(moment)
        found = await self._consumer.offsets_for_times(dict.fromkeys(partitions, milliseconds))
        return {partition: at.offset if (at := found.get(partition)) else ends[partition] for partition in partitions}

    async def __aiter__(self) -> AsyncIterator[ConsumerRecord]:
        while True:
            for record in await self.some(timeout_ms=1000):
                yield record

    async def some(self, *, timeout_ms: int) -> list[ConsumerRecord]:
        """What has arrived, waiting up to `timeout_ms` for the first record."""
        batches = await self._consumer.getmany(timeout_ms=timeout_ms)
        return [record for records in batches.values() for record in records]

    async def offsets_at(self, moment: datetime) -> dict[TopicPartition, int]:
        """Of each partition the first record with this timestamp or a later one; its end where there is none."""
        return await self._offsets_at(list(self._consumer.assignment()), moment)

    async def ends(self) -> dict[TopicPartition, int]:
        """Of each partition the offset of its next record, as it is now."""
        return dict(await self._consumer.end_offsets(list(self._consumer.assignment())))

    async def has_reached(self, ends: Mapping[TopicPartition, int]) -> bool:
        """Whether everything before these offsets has been given."""
        return all([await self._consumer.position(partition) >= end for partition, end in ends.items()])

    async def firsts(self) -> list[ConsumerRecord]:
        """Of each partition the next record, where there is one now. What was read besides is passed over."""
        found: dict[TopicPartition, ConsumerRecord] = {}
        ends = await self.ends()
        while not await self.has_reached({partition: end for partition, end in ends.items() if partition not in found}):
            for record in await self.some(timeout_ms=200):
                found.setdefault(TopicPartition(record.topic, record.partition), record)
        return [record for partition, record in found.items() if record.offset < ends[partition]]

    async def up_to(self, ends: Mapping[TopicPartition, int]) -> AsyncIterator[list[ConsumerRecord]]:
        """Everything before these offsets, in batches as they come."""
        while not await self.has_reached(ends):
            batch = await self.some(timeout_ms=200)
            yield [record for record in batch if record.offset < ends[TopicPartition(record.topic, record.partition)]]

    async def rest(self) -> list[ConsumerRecord]:
        """Everything up to the end as it is now."""
        return [record async for batch in self.up_to(await self.ends()) for record in batch]


def partition_of(key: str, partitions: Iterable[int]) -> int:
    """Which of a topic's partitions the records of this key go to, as all our producers place them."""
    numbers = sorted(partitions)
    return int(DefaultPartitioner()(key.encode(), numbers, numbers))


async def partitions_of(client_options: Mapping[str, Any], topics: Sequence[str]) -> list[TopicPartition]:
    """All partitions of some topics. Raises `UnknownTopicOrPartitionError` with the names that do not exist."""
    admin = AIOKafkaAdminClient(**client_options)
    await admin.start()
    try:
        described = await admin.describe_topics(list(topics))
    finally:
        await admin.close()
    missing = [topic["topic"] for topic in described if topic["error_code"] != 0]
    if missing:
        raise UnknownTopicOrPartitionError(f"no such topic: {', '.join(missing)} (sluice topics create)")
    return [
        TopicPartition(topic["topic"], partition["partition"])
        for topic in described
        for partition in topic["partitions"]
    ]
