"""What Kafka knows of consumer groups."""

import asyncio
from collections.abc import Mapping
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import GroupCoordinatorNotAvailableError, GroupLoadInProgressError, NotCoordinatorForGroupError
from aiokafka.structs import OffsetAndMetadata
from tenacity import retry, retry_if_exception_type, stop_after_delay, wait_random_exponential

from connectors.kafka.reader import partitions_of

COORDINATOR_SECONDS = 20.0
"""A broker that has just started has no coordinator yet, and one that is moving has two."""
POLL_SECONDS = 0.2
_MOVING = (GroupCoordinatorNotAvailableError, GroupLoadInProgressError, NotCoordinatorForGroupError)


async def committed_offsets(client_options: Mapping[str, Any], group: str) -> dict[TopicPartition, int]:
    """Where the group goes on, of each partition of which it has committed anything."""
    return {partition: commit.offset for partition, commit in (await commits_of(client_options, group)).items()}


async def commits_of(client_options: Mapping[str, Any], group: str) -> dict[TopicPartition, OffsetAndMetadata]:
    """The group's last commit of each partition of which it has committed anything, with the text that came with it."""
    admin = AIOKafkaAdminClient(**client_options)
    await admin.start()

    @retry(
        retry=retry_if_exception_type(_MOVING),
        wait=wait_random_exponential(0.1, max=1),
        stop=stop_after_delay(COORDINATOR_SECONDS),
        reraise=True,
    )
    async def ask() -> Any:
        return await admin.list_consumer_group_offsets(group)

    try:
        commits = await ask()
    finally:
        await admin.close()
    return {partition: commit for partition, commit in commits.items() if commit.offset >= 0}


async def has_committed(client_options: Mapping[str, Any], group: str) -> bool:
    """Whether the group has ever committed an offset beyond the beginning of a partition."""
    return any(offset > 0 for offset in (await committed_offsets(client_options, group)).values())


def to_be_read(starts: Mapping[TopicPartition, int], ends: Mapping[TopicPartition, int]) -> dict[TopicPartition, int]:
    """The ends of those partitions that have records: of others nothing may ever have been committed."""
    return {partition: end for partition, end in ends.items() if starts[partition] < end}


async def until_read(client_options: Mapping[str, Any], group: str, topic: str) -> None:
    """Returns once the group has committed all that stands in the topic at present. Raises `KafkaError`."""
    consumer = AIOKafkaConsumer(**client_options)
    await consumer.start()
    try:
        partitions = await partitions_of(client_options, [topic])
        ends = await consumer.end_offsets(partitions)
        starts = await consumer.beginning_offsets(partitions)
    finally:
        await consumer.stop()
    wanted = to_be_read(starts, ends)
    while True:
        done = await committed_offsets(client_options, group)
        if all(done.get(partition, 0) >= end for partition, end in wanted.items()):
            return
        await asyncio.sleep(POLL_SECONDS)
