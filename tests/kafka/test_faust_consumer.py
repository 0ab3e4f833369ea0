"""The Faust application on a real Kafka: secured like every other client, and committing only what is done."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import faust
import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import KafkaTimeoutError

from connectors.kafka.client import client_options
from connectors.kafka.faust_transport import SafeConsumer, backlog, forget_own_calls, record_own_call
from connectors.kafka.own_calls import OFFSETS_AT_ONCE
from connectors.settings import Settings, WorkerSettings
from streams.context import Delivery
from streams.faust_app import build_app
from streams.pool import Pool
from tests.support.certificates import Certificates
from tests.support.secure_kafka import SCRAM_PASSWORD, SCRAM_USER, SecureKafka, missing_programs

pytestmark = [pytest.mark.integration, pytest.mark.timeout(90)]

WORKER = WorkerSettings(session_timeout_seconds=6)


@asynccontextmanager
async def running(
    options: dict[str, Any], topic: str, handle: Callable[[Delivery], Awaitable[None]]
) -> AsyncIterator[tuple[faust.App, Pool]]:
    """A stage's application, started and assigned."""
    pool = Pool(handle, limit=50, stage="test")
    app = build_app(group=f"{topic}.group", topics=[topic], runner=pool, client_options=options, settings=WORKER)
    await app.start()
    try:
        while not app.consumer.assignment() or app.rebalancing:
            await asyncio.sleep(0.02)
        yield app, pool
    finally:
        await app.consumer.commit()
        await app.stop()


async def make_topic(options: dict[str, Any], topic: str, values: list[bytes | None]) -> None:
    admin = AIOKafkaAdminClient(**options)
    await admin.start()
    await admin.create_topics([NewTopic(topic, 1, 1)])
    await admin.close()
    async with AIOKafkaProducer(**options) as producer:
        for value in values:
            await producer.send_and_wait(topic, value, key=b"k")


async def committed(options: dict[str, Any], topic: str) -> int:
    admin = AIOKafkaAdminClient(**options)
    await admin.start()
    offsets = await admin.list_consumer_group_offsets(f"{topic}.group")
    await admin.close()
    return sum(entry.offset for entry in offsets.values())


@pytest.mark.skipif(bool(missing_programs()), reason=f"needs {', '.join(missing_programs())} on PATH")
async def test_it_gets_the_same_security_as_every_other_client(
    kafka: SecureKafka, certificates: Certificates, prefix: str
) -> None:
    settings = Settings(
        kafka_bootstrap=kafka.sasl_ssl,
        kafka={
            "security_protocol": "SASL_SSL",
            "sasl_mechanism": "SCRAM-SHA-512",
            "sasl_username": SCRAM_USER,
            "sasl_password": SCRAM_PASSWORD,
            "tls": {"ca_file": certificates.ca},
        },
    )
    options = client_options(settings)
    arrived: asyncio.Queue[bytes] = asyncio.Queue()

    async def handle(delivery: Delivery) -> None:
        await arrived.put(delivery.value)

    topic = f"{prefix}secured"
    await make_topic(options, topic, [b"one"])
    async with running(options, topic, handle):
        assert await asyncio.wait_for(arrived.get(), 30) == b"one"


def test_a_consumer_that_has_not_started_has_no_backlog() -> None:
    """A worker that cannot start says so, and not that it could not report."""
    pool = Pool(_nothing, limit=1, stage="test")
    options = {"bootstrap_servers": "127.0.0.1:1"}
    assert backlog(build_app(group="g", topics=["t"], runner=pool, client_options=options, settings=WORKER)) == 0


async def _nothing(_delivery: Delivery) -> None: ...


async def test_a_slow_first_record_holds_the_commit_and_an_empty_value_passes(
    stack_settings: Settings, prefix: str
) -> None:
    """Offset 0 in flight on a fresh group: stock Faust commits beyond it and loses it on the next start."""
    options = client_options(stack_settings)
    topic = f"{prefix}slow"
    await make_topic(options, topic, [b"slow", *[b"quick"] * 30, None])
    gate = asyncio.Event()
    done: list[int] = []

    async def handle(delivery: Delivery) -> None:
        if delivery.offset == 0:
            await gate.wait()
        done.append(delivery.offset)

    async with running(options, topic, handle) as (app, pool):
        while len(done) < 31:
            await asyncio.sleep(0.02)
        await app.consumer.commit()
        assert await committed(options, topic) == 0
        gate.set()
        assert await pool.drain(10)
        await app.consumer.commit()
        assert await committed(options, topic) == 32


async def test_what_was_in_flight_is_delivered_again_to_the_next_process(stack_settings: Settings, prefix: str) -> None:
    options = client_options(stack_settings)
    topic = f"{prefix}again"
    await make_topic(options, topic, [b"a", b"b", b"c"])
    first: list[int] = []
    second: list[int] = []

    async def stuck_on_one(delivery: Delivery) -> None:
        first.append(delivery.offset)
        if delivery.offset == 1:
            await asyncio.Event().wait()

    async def handle(delivery: Delivery) -> None:
        second.append(delivery.offset)

    async with running(options, topic, stuck_on_one) as (_, pool):
        while len(first) < 3:
            await asyncio.sleep(0.02)
        assert not await pool.drain(0)
        assert await pool.cancel() == 1
    async with running(options, topic, handle):
        while len(second) < 2:
            await asyncio.sleep(0.02)
    assert sorted(second) == [1, 2]


async def test_what_was_there_before_the_partition_came_is_never_surely_new(
    stack_settings: Settings, prefix: str
) -> None:
    """Another worker may have had it, whatever its timestamp says of the clock that wrote it."""
    options = client_options(stack_settings)
    topic = f"{prefix}new"
    await make_topic(options, topic, [b"before"])
    in_half_an_hour = int((time.time() + 1_800) * 1000)
    an_hour_ago = int((time.time() - 3_600) * 1000)
    seen: dict[bytes, bool] = {}

    async def handle(delivery: Delivery) -> None:
        seen[delivery.value] = delivery.is_surely_new

    async with AIOKafkaProducer(**options) as producer:
        await producer.send_and_wait(topic, b"before, from the future", key=b"k", timestamp_ms=in_half_an_hour)
        async with running(options, topic, handle):
            await producer.send_and_wait(topic, b"after, from the past", key=b"k", timestamp_ms=an_hour_ago)
            while len(seen) < 3:
                await asyncio.sleep(0.02)
    assert seen == {b"before": False, b"before, from the future": False, b"after, from the past": True}


async def test_without_an_answer_about_the_ends_nothing_is_surely_new(
    stack_settings: Settings, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = client_options(stack_settings)
    topic = f"{prefix}unknown"
    await make_topic(options, topic, [])
    seen: list[bool] = []

    async def handle(delivery: Delivery) -> None:
        seen.append(delivery.is_surely_new)

    async def refuse(*_: object) -> dict[object, int]:
        raise KafkaTimeoutError

    monkeypatch.setattr(SafeConsumer, "highwaters", refuse)
    async with running(options, topic, handle), AIOKafkaProducer(**options) as producer:
        await producer.send_and_wait(topic, b"after", key=b"k")
        while not seen:
            await asyncio.sleep(0.02)
    assert seen == [False]


async def test_a_call_that_the_state_does_not_know_of_is_told_to_the_next_worker(
    stack_settings: Settings, prefix: str
) -> None:
    """It dies with the record in flight. Those beyond the bound are in no doubt, and none is once all is done."""
    options = client_options(stack_settings)
    topic = f"{prefix}alone"
    await make_topic(options, topic, [b"called"] + [b"waiting"] * OFFSETS_AT_ONCE)
    recorded: asyncio.Queue[bool] = asyncio.Queue()

    async def call(delivery: Delivery) -> None:
        if delivery.offset == 0:
            await recorded.put(await record_own_call(app, topic, 0, 0))
            await recorded.put(await record_own_call(app, topic, 1, 0))
        await asyncio.Event().wait()

    async with running(options, topic, call) as (app, pool):
        assert await recorded.get()
        assert not await recorded.get(), "of a partition that it does not have"
        await pool.cancel()
    in_doubt = await seen_by_next(options, topic, last=OFFSETS_AT_ONCE)
    assert in_doubt == set(range(OFFSETS_AT_ONCE))
    async with AIOKafkaProducer(**options) as producer:
        await producer.send_and_wait(topic, b"one more", key=b"k")
    assert await seen_by_next(options, topic, last=OFFSETS_AT_ONCE + 1) == set()


@pytest.mark.parametrize("is_known", [True, False])
async def test_a_call_that_the_state_knows_of_by_now_is_told_to_nobody(
    stack_settings: Settings, prefix: str, *, is_known: bool
) -> None:
    """Though its record is still in flight. Unless another one came meanwhile that it does not know of."""
    options = client_options(stack_settings)
    topic = f"{prefix}known"
    await make_topic(options, topic, [b"called"])
    recorded: asyncio.Queue[bool] = asyncio.Queue()

    async def call(_: Delivery) -> None:
        await recorded.put(await record_own_call(app, topic, 0, 0))
        await asyncio.Event().wait()

    async with running(options, topic, call) as (app, pool):
        assert await recorded.get()
        await forget_own_calls(app, lambda: is_known)
        await pool.cancel()
    assert await seen_by_next(options, topic, last=0) == (set() if is_known else {0})


async def seen_by_next(options: dict[str, Any], topic: str, *, last: int) -> set[int]:
    """Offsets that the next worker takes for such as may have been called, up to the last one of the topic."""
    in_doubt: set[int] = set()
    reached = asyncio.Event()

    async def note(delivery: Delivery) -> None:
        if delivery.may_have_been_called:
            in_doubt.add(delivery.offset)
        if delivery.offset == last:
            reached.set()

    async with running(options, topic, note) as (_, pool):
        await reached.wait()
        assert await pool.drain(10)
    return in_doubt


async def test_what_is_dropped_during_a_rebalance_is_read_again_also_where_nothing_was_committed(
    stack_settings: Settings, prefix: str
) -> None:
    """A fetch that is under way then takes it off the consumer, and Faust has no use for it and rewinds."""
    options = client_options(stack_settings)
    topic = f"{prefix}dropped"
    await make_topic(options, topic, [])
    arrived: asyncio.Queue[bytes] = asyncio.Queue()

    async def handle(delivery: Delivery) -> None:
        await arrived.put(delivery.value)

    async with running(options, topic, handle) as (app, _), AIOKafkaProducer(**options) as producer:
        app.consumer.stop_flow()
        await producer.send_and_wait(topic, b"dropped", key=b"k")
        await app.consumer._thread._ensure_consumer().getmany(timeout_ms=2_000)
        await app.consumer.perform_seek()
        app.consumer.resume_flow()
        assert await asyncio.wait_for(arrived.get(), 30) == b"dropped"
