"""The Python client: what it makes of results as they stand in Kafka, and of calls that share an id."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any, cast

import pytest
from aiokafka import ConsumerRecord
from aiokafka.errors import UnknownTopicOrPartitionError
from pydantic import ValidationError

import sluice
from connectors.kafka.access import KafkaAccessError
from connectors.kafka.client import client_options
from connectors.kafka.producer import Outgoing, Producer
from connectors.kafka.reader import TopicReader
from connectors.settings import Settings
from schemas import LLMRequest, LLMResult
from schemas.codec import Codec, SchemaUnavailableError, SingleObjectCodec
from schemas.command import Command
from sluice import results
from sluice.client import Client, ClientClosedError
from sluice.results import unique_results
from tests.cli.client_support import CODEC, answer, answering, request, result, submitted


def record(request_id: str, *, ce_id: str | None, value: bytes | None = None) -> ConsumerRecord:
    return ConsumerRecord(
        topic="llm.results",
        partition=0,
        offset=7,
        timestamp=0,
        timestamp_type=0,
        key=request_id.encode(),
        value=CODEC.encode(result(request_id)) if value is None else value,
        checksum=None,
        serialized_key_size=0,
        serialized_value_size=0,
        headers=[] if ce_id is None else [("ce_id", ce_id.encode())],
    )


async def ids_of(records: Sequence[ConsumerRecord], codec: Codec = CODEC) -> list[str]:
    async def reader() -> AsyncIterator[ConsumerRecord]:
        for one in records:
            yield one

    return [one.request_id async for one in unique_results(cast("TopicReader", reader()), codec)]


async def test_a_repeated_result_is_read_once() -> None:
    """Repeats have the `ce_id` of the first; what has none is taken as it is."""
    records = [record("a", ce_id="1"), record("a", ce_id="1"), record("b", ce_id=None), record("b", ce_id=None)]
    assert await ids_of(records) == ["a", "b", "b"]


async def test_a_redriven_request_has_a_second_result_and_an_older_one_is_dropped() -> None:
    """By `state_version`: it orders the lives of a request, whatever order its records are read in."""
    versions = [(2, "1"), (6, "2"), (4, "3")]
    records = [record("a", ce_id=ce_id, value=CODEC.encode(result("a", version))) for version, ce_id in versions]
    assert await ids_of(records) == ["a", "a"]


async def test_what_is_no_result_does_not_end_the_reading() -> None:
    """Bytes of something else, and a tombstone of the compacted topic."""
    tombstone = record("d", ce_id="4")
    tombstone.value = None
    records = [record("x", ce_id="1", value=b"\x00\x01"), record("x", ce_id="2", value=b""), tombstone]
    assert await ids_of([*records, record("a", ce_id="3")]) == ["a"]


async def test_a_schema_registry_that_is_away_is_waited_for() -> None:
    """The record may be good, so it is asked for again and not skipped."""

    class AwayAtFirst(SingleObjectCodec):
        asked = 0

        async def decode(self, record_type: Any, data: bytes) -> Any:
            self.asked += 1
            if self.asked < 3:
                raise SchemaUnavailableError("away")
            return await super().decode(record_type, data)

    assert await ids_of([record("a", ce_id="1"), record("b", ce_id="2")], AwayAtFirst()) == ["a", "b"]


async def test_the_memory_for_repeats_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """The oldest id is forgotten first."""
    assert results.REMEMBERED_IDS > 10_000
    monkeypatch.setattr(results, "REMEMBERED_IDS", 2)
    ids = ["1", "2", "3", "2", "3", "1"]
    assert await ids_of([record(f"r{ce_id}", ce_id=ce_id) for ce_id in ids]) == ["r1", "r2", "r3", "r1"]


def test_the_client_is_imported_from_the_package() -> None:
    """Together with what a call needs."""
    assert sluice.Client is Client
    assert (sluice.LLMRequest, sluice.LLMResult, sluice.Settings) == (LLMRequest, LLMResult, Settings)
    with pytest.raises(AttributeError, match="Clinet"):
        _ = sluice.Clinet


async def test_a_client_without_kafka_says_why() -> None:
    """With the reason, and what to check."""
    with pytest.raises(KafkaAccessError, match=r"127\.0\.0\.1:1: .*Check KAFKA_BOOTSTRAP"):
        async with Client(Settings(kafka_bootstrap="127.0.0.1:1")):
            pass


@pytest.mark.integration
async def test_a_client_without_topics_says_which(stack_settings: Settings) -> None:
    """Before anything is sent, for a send to a missing topic would wait for it."""
    with pytest.raises(UnknownTopicOrPartitionError, match=stack_settings.topics.requests):
        async with Client(stack_settings):
            pass


@pytest.mark.integration
async def test_calls_get_their_results_and_those_of_one_id_share_it(stack_settings: Settings) -> None:
    """Many calls at once open one reader; each gets the result of its id, past what is no result."""
    settings = stack_settings
    async with (
        answering(settings) as producer,
        TopicReader(client_options(settings), [settings.topics.requests]) as requests,
        Client(settings) as client,
    ):
        names = ["same", "same", "other"]
        calls = [asyncio.create_task(client.call(request(name), timeout_seconds=20)) for name in names]
        assert sorted(await submitted(requests, 3)) == [b"other", b"same", b"same"]
        assert [task.get_name() for task in asyncio.all_tasks()].count("client-results") == 1
        await producer.send(Outgoing(topic=settings.topics.results, key=b"other", value=b"nonsense"))
        await answer(producer, settings, "other", "same", "same")
        assert [one.request_id for one in await asyncio.gather(*calls)] == names
        assert client._waiting == {}


@pytest.mark.integration
async def test_a_call_that_ends_without_a_result_leaves_nothing_behind(stack_settings: Settings) -> None:
    """After a timeout and after a cancellation; and the next call works."""
    settings = stack_settings
    async with answering(settings) as producer, Client(settings) as client:
        with pytest.raises(TimeoutError):
            await client.call(request("late"), timeout_seconds=0.5)
        cancelled = asyncio.create_task(client.call(request("cancelled")))
        while "cancelled" not in client._waiting:
            await asyncio.sleep(0.01)
        cancelled.cancel()
        await asyncio.wait([cancelled])
        assert client._waiting == {}
        call = asyncio.create_task(client.call(request("next"), timeout_seconds=20))
        while "next" not in client._waiting:
            await asyncio.sleep(0.01)
        await answer(producer, settings, "late", "next")
        assert (await call).request_id == "next"


@pytest.mark.integration
async def test_a_reader_that_fails_is_told_to_whoever_waits_and_replaced(
    stack_settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A call raises what happened, and the next one reads anew."""
    settings = stack_settings
    async with answering(settings) as producer, Client(settings) as client:
        await client.start_reading()
        some = TopicReader.some

        async def fail(_self: TopicReader, *, timeout_ms: int) -> list[ConsumerRecord]:
            raise ConnectionError(f"no more after {timeout_ms}")

        waiting = asyncio.create_task(client.call(request("unlucky"), timeout_seconds=20))
        while "unlucky" not in client._waiting:
            await asyncio.sleep(0.01)
        monkeypatch.setattr(TopicReader, "some", fail)
        with pytest.raises(ConnectionError):
            await waiting
        monkeypatch.setattr(TopicReader, "some", some)
        call = asyncio.create_task(client.call(request("next"), timeout_seconds=20))
        while "next" not in client._waiting:
            await asyncio.sleep(0.01)
        await answer(producer, settings, "next")
        assert (await call).request_id == "next"


@pytest.mark.integration
async def test_results_can_be_read_from_the_beginning_without_repeats(stack_settings: Settings) -> None:
    """What was written before the client came is there as well."""
    settings = stack_settings
    async with answering(settings) as producer, Client(settings) as client:
        await answer(producer, settings, "a", "a", "b")
        found = []
        async for one in client.results(start="beginning"):
            found.append(one.request_id)
            if len(found) == 2:
                await answer(producer, settings, "a", "c")
            if "c" in found:
                break
    assert sorted(found) == ["a", "b", "c"]


@pytest.mark.integration
async def test_a_cancellation_is_a_command_that_the_pipeline_reads(stack_settings: Settings) -> None:
    """All that is named is in it; with nothing named it is refused before anything is written."""
    settings = stack_settings
    async with (
        answering(settings),
        TopicReader(client_options(settings), [settings.topics.commands]) as commands,
        Client(settings) as client,
    ):
        with pytest.raises(ValidationError, match="name a request_id"):
            await client.cancel()
        sent = await client.cancel(request_id="a-1", tenant_id="press", reason="wrong prompt", issued_by="mira")
        batch: list[ConsumerRecord] = []
        async with asyncio.timeout(20):
            while not batch:
                batch = await commands.some(timeout_ms=200)
    (only,) = batch
    assert await CODEC.decode(Command, only.value) == sent
    assert (only.key, sent.request_id, sent.tenant_id, sent.reason) == (b"a-1", "a-1", "press", "wrong prompt")


@pytest.mark.integration
async def test_closing_the_client_ends_the_calls_that_wait(stack_settings: Settings) -> None:
    """They raise an error of their own, and the client cannot be used any more."""
    settings = stack_settings
    async with answering(settings):
        async with Client(settings) as client:
            waiting = asyncio.create_task(client.call(request("a")))
            while "a" not in client._waiting:
                await asyncio.sleep(0.01)
        with pytest.raises(ClientClosedError):
            await waiting
        with pytest.raises(RuntimeError, match="async with"):
            await client.submit(request("b"))


@pytest.mark.integration
async def test_closing_the_client_ends_what_is_being_sent(
    stack_settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A send that Kafka never answers would wait without end: submit, call, stream and cancel all say what happened."""
    settings = stack_settings
    sends = 0

    async def never(_self: Producer, _record: Outgoing) -> None:
        nonlocal sends
        sends += 1
        await asyncio.Event().wait()

    async def first_part(client: Client) -> object:
        return await anext(client.stream(request("d")))

    async with answering(settings):
        monkeypatch.setattr(Producer, "send", never)
        async with Client(settings) as client:
            works = (client.submit(request("a")), client.call(request("b")), client.cancel(request_id="c"))
            tasks = [asyncio.create_task(work) for work in (*works, first_part(client))]
            while sends < len(tasks):
                await asyncio.sleep(0.01)
        for ended in await asyncio.gather(*tasks, return_exceptions=True):
            assert isinstance(ended, ClientClosedError)
