"""What Kafka tells of consumer groups."""

import asyncio
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import UnknownTopicOrPartitionError
from tenacity import retry, retry_if_exception_type, stop_after_delay, wait_fixed

from connectors.kafka.client import client_options
from connectors.kafka.groups import until_read
from connectors.kafka.reader import partitions_of
from connectors.settings import Settings

pytestmark = pytest.mark.integration


async def commit(options: dict[str, Any], group: str, topic: str, offsets: dict[int, int]) -> None:
    consumer = AIOKafkaConsumer(**options, group_id=group, enable_auto_commit=False)
    await consumer.start()
    partitions = {TopicPartition(topic, number): offset for number, offset in offsets.items()}
    consumer.assign(list(partitions))
    await consumer.commit(partitions)
    await consumer.stop()


@retry(retry=retry_if_exception_type(UnknownTopicOrPartitionError), wait=wait_fixed(0.05), stop=stop_after_delay(20))
async def known_to_all(options: dict[str, Any], topic: str) -> None:
    """A broker hears of a topic a moment after it was made."""
    await partitions_of(options, [topic])


async def test_a_group_has_read_what_stood_in_the_topic_once_it_has_committed_it(
    stack_settings: Settings, prefix: str
) -> None:
    """Of each partition; what is written later is not waited for."""
    options, topic, group = client_options(stack_settings), f"{prefix}results", f"{prefix}group"
    admin = AIOKafkaAdminClient(**options)
    await admin.start()
    await admin.create_topics([NewTopic(topic, 2, 1)])
    await admin.close()
    async with AIOKafkaProducer(**options) as producer:
        await known_to_all(options, topic)
        await until_read(options, group, topic)
        for partition in (0, 0, 1):
            await producer.send_and_wait(topic, b"x", partition=partition)
        waiting = asyncio.create_task(until_read(options, group, topic))
        await commit(options, group, topic, {0: 2})
        done, _ = await asyncio.wait([waiting], timeout=1)
        assert not done
        await producer.send_and_wait(topic, b"x", partition=1)
        await commit(options, group, topic, {1: 1})
        async with asyncio.timeout(20):
            await waiting
