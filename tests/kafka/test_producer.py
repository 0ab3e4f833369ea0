"""The producer on a real Kafka: what is refused does not close the partition, and closing it is bounded."""

import asyncio
from collections.abc import Iterator

import pytest
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import MessageSizeTooLargeError

from connectors.kafka import producer as producer_module
from connectors.kafka.client import client_options
from connectors.kafka.producer import Outgoing, Producer
from connectors.settings import Settings
from sluice import stack as local_stack

pytestmark = [pytest.mark.integration, pytest.mark.timeout(90)]


async def make_topic(settings: Settings, topic: str) -> None:
    admin = AIOKafkaAdminClient(**client_options(settings))
    await admin.start()
    await admin.create_topics([NewTopic(topic, 1, 1, topic_configs={"max.message.bytes": "10000"})])
    await admin.close()


async def test_after_a_record_that_the_broker_refuses_the_next_one_passes(
    stack_settings: Settings, prefix: str
) -> None:
    """An idempotent producer has used up the refused batch's sequence numbers, and takes no more for that partition."""
    topic = f"{prefix}small"
    await make_topic(stack_settings, topic)
    async with Producer(client_options(stack_settings)) as producer:
        await producer.send(Outgoing(topic=topic, key=None, value=b"one"))
        with pytest.raises(MessageSizeTooLargeError):
            await producer.send(Outgoing(topic=topic, key=None, value=b"x" * 50_000))
        written = await asyncio.wait_for(producer.send(Outgoing(topic=topic, key=None, value=b"two")), 30)
    assert written.offset == 1


@pytest.fixture
def mortal_kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[local_stack.RunningStack]:
    """A Kafka that this test may kill."""
    with local_stack.start(tmp_path_factory.mktemp("mortal"), environ={}) as running:
        yield running


async def test_closing_is_bounded_while_kafka_is_away(
    mortal_kafka: local_stack.RunningStack, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(producer_module, "STOP_SECONDS", 0.5)
    settings = Settings(kafka_bootstrap=mortal_kafka.kafka_bootstrap)
    await make_topic(settings, f"{prefix}t")
    producer = Producer(client_options(settings))
    await producer.start()
    await producer.send(Outgoing(topic=f"{prefix}t", key=None, value=b"one"))
    await asyncio.to_thread(mortal_kafka.kafka.kill)
    stuck = asyncio.create_task(producer.send(Outgoing(topic=f"{prefix}t", key=None, value=b"two")))
    await asyncio.sleep(0)
    await asyncio.wait_for(producer.close(), 20)
    stuck.cancel()
