"""Single records by their offset, from a real Kafka: as they were written, or known to be gone."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from aiokafka import AIOKafkaProducer, ConsumerRecord
from aiokafka.admin import AIOKafkaAdminClient, NewTopic, RecordsToDelete
from aiokafka.errors import KafkaError, KafkaTimeoutError
from aiokafka.structs import TopicPartition

from connectors.kafka import record_fetch
from connectors.kafka.client import client_options
from connectors.kafka.record_fetch import RecordFetcher
from connectors.settings import Settings
from sluice import stack as local_stack
from sluice.stack.ports import choose

pytestmark = pytest.mark.integration

PARTITIONS = 3


@pytest.fixture
async def topic(stack_settings: Settings, prefix: str) -> str:
    await make_topic(stack_settings, f"{prefix}fetched")
    return f"{prefix}fetched"


@pytest.fixture
async def fetcher(stack_settings: Settings) -> AsyncIterator[RecordFetcher]:
    async with RecordFetcher(client_options(stack_settings)) as opened:
        yield opened


async def make_topic(settings: Settings, topic: str) -> None:
    async with admin(settings) as client:
        await client.create_topics([NewTopic(topic, PARTITIONS, 1, topic_configs={"max.message.bytes": "4000000"})])


class admin:  # noqa: N801 - used as a function is
    """An admin client, closed at the end."""

    def __init__(self, settings: Settings) -> None:
        self._client = AIOKafkaAdminClient(**client_options(settings))

    async def __aenter__(self) -> AIOKafkaAdminClient:
        await self._client.start()
        return self._client

    async def __aexit__(self, *_: object) -> None:
        await self._client.close()


async def write(
    settings: Settings, topic: str, values: list[bytes | None], *, partition: int = 0, compression: str | None = None
) -> None:
    """Writes them together, so that many share a batch."""
    producer = AIOKafkaProducer(
        **client_options(settings), linger_ms=20, compression_type=compression, max_request_size=4_000_000
    )
    async with producer:
        sent = [await producer.send(topic, value, partition=partition) for value in values]
        await asyncio.gather(*sent)


def values(records: list[ConsumerRecord | None]) -> list[bytes | None]:
    return [None if record is None else record.value for record in records]


async def test_a_record_is_fetched_as_it_was_written(
    stack_settings: Settings, topic: str, fetcher: RecordFetcher
) -> None:
    """Key, value, headers in their order and repeated, timestamp; a null is not an empty string."""
    headers = [("a", b"\x00\xff"), ("b", b""), ("a", b"2"), ("ü", "ü".encode())]
    async with AIOKafkaProducer(**client_options(stack_settings)) as producer:
        await producer.send_and_wait(topic, b"\x00\xc3\x28", key=b"\xff\x00", partition=1, headers=headers)
        await producer.send_and_wait(topic, None, key=b"k", partition=1, timestamp_ms=1_600_000_000_123)
        await producer.send_and_wait(topic, b"", partition=1)
    first, null, empty = [await fetcher.fetch(topic, 1, offset) for offset in range(3)]
    assert first is not None
    assert null is not None
    assert empty is not None
    assert (first.topic, first.partition, first.offset) == (topic, 1, 0)
    assert (first.key, first.value, list(first.headers)) == (b"\xff\x00", b"\x00\xc3\x28", headers)
    assert (null.key, null.value, null.timestamp, null.headers) == (b"k", None, 1_600_000_000_123, ())
    assert (empty.key, empty.value) == (None, b"")


@pytest.mark.parametrize("compression", [None, "gzip"])
async def test_many_callers_at_once_get_each_their_own(
    stack_settings: Settings, topic: str, fetcher: RecordFetcher, compression: str | None
) -> None:
    """Also from the middle of a batch, from several partitions, and the same record twice."""
    expected: dict[tuple[int, int], bytes] = {}
    for partition in range(PARTITIONS):
        written = [f"{partition}-{number}".encode() + b"x" * (number % 700) for number in range(400)]
        await write(stack_settings, topic, list(written), partition=partition, compression=compression)
        expected |= {(partition, offset): value for offset, value in enumerate(written)}
    wanted = [*expected, *list(expected)[::7]]
    fetched = await asyncio.gather(*(fetcher.fetch(topic, *where) for where in wanted))
    assert values(list(fetched)) == [expected[where] for where in wanted]
    assert fetcher._partitions == {}


async def test_a_record_larger_than_a_fetch_is_whole(
    stack_settings: Settings, topic: str, fetcher: RecordFetcher
) -> None:
    """A broker sends its first batch however large it is."""
    large = b"x" * (record_fetch.FETCH_BYTES * 40)
    await write(stack_settings, topic, [b"small"])
    await write(stack_settings, topic, [large])
    await write(stack_settings, topic, [b"after"])
    fetched = await asyncio.gather(*(fetcher.fetch(topic, 0, offset) for offset in range(3)))
    assert values(list(fetched)) == [b"small", large, b"after"]


async def test_what_kafka_does_not_have_is_none(stack_settings: Settings, topic: str, fetcher: RecordFetcher) -> None:
    """Deleted from the start, not yet written, in a partition or topic that does not exist; others are not held up."""
    await write(stack_settings, topic, [b"0", b"1", b"2", b"3"])
    async with admin(stack_settings) as client:
        await client.delete_records({TopicPartition(topic, 0): RecordsToDelete(2)})
    wanted = [(topic, 0, offset) for offset in (0, 1, 2, 3, 4, 10**15)]
    wanted += [(topic, 1, 0), (topic, PARTITIONS, 0), (f"{topic}-not", 0, 0)]
    fetched = await asyncio.gather(*(fetcher.fetch(*where) for where in wanted))
    assert values(list(fetched)) == [None, None, b"2", b"3", None, None, None, None, None]


async def test_the_mark_of_a_transaction_is_a_gap(
    stack_settings: Settings, topic: str, prefix: str, fetcher: RecordFetcher
) -> None:
    """It has an offset and is no record; so it is at the end, and between two records."""
    async with AIOKafkaProducer(**client_options(stack_settings), transactional_id=f"{prefix}t") as producer:
        for value in (b"a", b"b"):
            async with producer.transaction():
                await producer.send_and_wait(topic, value, partition=0)
    fetched = await asyncio.gather(*(fetcher.fetch(topic, 0, offset) for offset in range(4)))
    assert values(list(fetched)) == [b"a", None, b"b", None]
    assert values([await fetcher.fetch(topic, 0, offset) for offset in (3, 1)]) == [None, None]


async def test_a_kafka_that_is_away_is_an_error_and_not_an_absence() -> None:
    """Within the bound; and nothing is left running for those who gave up."""
    (port,) = choose(1)
    settings = Settings(kafka_bootstrap=f"127.0.0.1:{port}")
    async with RecordFetcher(client_options(settings), timeout_seconds=0.3) as fetcher:
        results = await asyncio.gather(*(fetcher.fetch("t", 0, offset) for offset in range(3)), return_exceptions=True)
        assert [type(result) for result in results] == [KafkaTimeoutError] * 3
        assert all(not partition.wanted for partition in fetcher._partitions.values())


async def test_closing_ends_those_who_wait() -> None:
    """With an error: they must not take it for an absence."""
    (port,) = choose(1)
    settings = Settings(kafka_bootstrap=f"127.0.0.1:{port}")
    async with RecordFetcher(client_options(settings), timeout_seconds=60) as fetcher:
        waiting = asyncio.create_task(fetcher.fetch("t", 0, 0))
        while not fetcher._partitions:
            await asyncio.sleep(0)
    with pytest.raises(KafkaError):
        await waiting
    with pytest.raises(KafkaError):
        await fetcher.fetch("t", 0, 0)


async def test_a_caller_that_is_cancelled_does_not_disturb_another(
    stack_settings: Settings, topic: str, fetcher: RecordFetcher
) -> None:
    """Though both wait for the same record."""
    await write(stack_settings, topic, [b"one"])
    cancelled, other = (asyncio.create_task(fetcher.fetch(topic, 0, 0)) for _ in range(2))
    await asyncio.sleep(0)
    cancelled.cancel()
    record = await other
    assert record is not None
    assert record.value == b"one"
    with pytest.raises(asyncio.CancelledError):
        await cancelled


async def test_it_goes_on_when_kafka_comes_back(tmp_path_factory: pytest.TempPathFactory, prefix: str) -> None:
    """The same fetcher, on the connection that died; a look-up made meanwhile is answered afterwards."""
    with local_stack.start(tmp_path_factory.mktemp("mortal"), environ={}) as running:
        settings = Settings(kafka_bootstrap=running.kafka_bootstrap)
        await make_topic(settings, f"{prefix}t")
        await write(settings, f"{prefix}t", [b"one", b"two"])
        async with RecordFetcher(client_options(settings), timeout_seconds=60) as fetcher:
            assert values([await fetcher.fetch(f"{prefix}t", 0, 0)]) == [b"one"]
            await asyncio.to_thread(running.kafka.kill)
            meanwhile = asyncio.create_task(fetcher.fetch(f"{prefix}t", 0, 1))
            await asyncio.to_thread(running.kafka.restart)
            assert values([await meanwhile]) == [b"two"]
