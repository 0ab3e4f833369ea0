"""A lane's topics on a real Kafka: none holds up another, tenants take turns, and revoked records are let go of."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, cast

import faust
import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from faust.types import TP, Message

from connectors.kafka.client import client_options
from connectors.kafka.faust_transport import ReadAhead, SafeConsumer
from connectors.settings import Settings, WorkerSettings
from schemas.vocabulary import Priority
from streams.context import Delivery
from streams.dispatch import Dispatcher, flow_of
from streams.faust_app import build_app
from streams.gating import Flow, Permit
from streams.records_at_work import RecordRunner

WORKER = WorkerSettings(session_timeout_seconds=6)


class SwitchedGate:
    """Lets everything in, or nothing. It is its own permit."""

    refusal = None

    def __init__(self, *, is_open: bool) -> None:
        self.is_open = is_open
        self.changes = asyncio.Event()

    def try_enter(self, flow: Flow, *, estimated_tokens: int) -> Permit | None:
        return self if self.is_open else None

    def leave(self, outcome: object) -> None:
        """It counts nothing."""

    async def changed(self) -> None:
        await self.changes.wait()
        self.changes.clear()

    def open(self) -> None:
        self.is_open = True
        self.changes.set()


@asynccontextmanager
async def running(
    options: dict[str, Any], group: str, topics: list[str], runner: RecordRunner
) -> AsyncIterator[faust.App]:
    """A stage's application, started and assigned."""
    app = build_app(group=group, topics=topics, runner=runner, client_options=options, settings=WORKER)
    await app.start()
    try:
        await until(lambda: bool(app.consumer.assignment()) and not app.rebalancing)
        yield app
    finally:
        await runner.drain(0)
        await runner.cancel()
        await app.consumer.commit()
        await app.stop()


async def until(true: Callable[[], bool]) -> None:
    while not true():
        await asyncio.sleep(0.02)


async def make_topics(options: dict[str, Any], topics: list[str], *, partitions: int) -> None:
    admin = AIOKafkaAdminClient(**options)
    await admin.start()
    await admin.create_topics([NewTopic(topic, partitions, 1) for topic in topics])
    await admin.close()


async def write(options: dict[str, Any], topic: str, tenant: str, count: int, *, size: int = 20) -> None:
    headers = [("ce_tenantid", tenant.encode()), ("ce_model", b"m")]
    async with AIOKafkaProducer(**options, linger_ms=20) as producer:
        sent = [await producer.send(topic, b"x" * size, key=str(n).encode(), headers=headers) for n in range(count)]
        await asyncio.gather(*sent)


def lane(prefix: str) -> dict[str, Priority]:
    return {f"{prefix}lane.{priority}": priority for priority in Priority}


@pytest.mark.integration
@pytest.mark.parametrize("size", [20, 60_000])
async def test_a_priority_whose_look_ahead_is_full_holds_up_no_other(
    stack_settings: Settings, prefix: str, size: int
) -> None:
    """Far more low records than look-ahead, agent's buffer and one poll take, by count and by bytes."""
    options = client_options(stack_settings)
    topics = lane(prefix)
    low, high = f"{prefix}lane.low", f"{prefix}lane.high"
    await make_topics(options, list(topics), partitions=3)
    await write(options, low, "a", 3_000 if size < 100 else 700, size=size)
    handled: list[str] = []

    class OnlyHigh(SwitchedGate):
        def try_enter(self, flow: Flow, *, estimated_tokens: int) -> Permit | None:
            return self if self.is_open or flow.tenant_id == "high" else None

    gate = OnlyHigh(is_open=False)

    async def handle(delivery: Delivery, permit: Permit) -> None:
        handled.append(delivery.topic)

    dispatcher = Dispatcher(
        handle, gate=gate, limit=4, stage="test", priorities=topics, max_waiting_records=50, max_waiting_bytes=2**20
    )
    async with running(options, f"{prefix}group", list(topics), dispatcher) as app:
        read_ahead = cast("SafeConsumer", app.consumer).read_ahead
        await until(lambda: read_ahead.is_full(low))
        assert handled == []
        for so_far in range(1, 4):
            await write(options, high, "high", 1)
            await until(lambda so_far=so_far: handled == [high] * so_far)  # type: ignore[misc]
        assert read_ahead.is_full(low)
        gate.open()
        await until(lambda: handled.count(low) == (3_000 if size < 100 else 700))


@pytest.mark.integration
async def test_ten_thousand_of_one_tenant_delay_anothers_first_by_a_few_calls(
    stack_settings: Settings, prefix: str
) -> None:
    """Counted from when it was read, for fairness cannot reach what is still in Kafka."""
    options = client_options(stack_settings)
    topics = lane(prefix)
    topic = f"{prefix}lane.normal"
    await make_topics(options, list(topics), partitions=3)
    await write(options, topic, "a", 10_000)
    calls: list[str] = []
    goes_on = asyncio.Semaphore(0)

    async def handle(delivery: Delivery, permit: Permit) -> None:
        calls.append(flow_of(delivery).tenant_id)
        await goes_on.acquire()

    dispatcher = Dispatcher(handle, gate=SwitchedGate(is_open=True), limit=4, stage="test", priorities=topics)
    async with running(options, f"{prefix}group", list(topics), dispatcher):
        await until(lambda: dispatcher.waiting(Priority.NORMAL) == 10_000 - 4)
        await write(options, topic, "b", 1)
        await until(lambda: dispatcher.waiting(Priority.NORMAL) == 10_000 - 4 + 1)
        for _ in range(2):
            goes_on.release()
        await until(lambda: len(calls) == 6)
        assert "b" in calls


@pytest.mark.integration
async def test_a_new_member_gets_what_waited_here_and_nothing_is_done_twice(
    stack_settings: Settings, prefix: str
) -> None:
    options = client_options(stack_settings)
    topics = lane(prefix)
    topic = f"{prefix}lane.normal"
    await make_topics(options, list(topics), partitions=4)
    await write(options, topic, "a", 400)
    first_gate = SwitchedGate(is_open=False)
    first_done: list[str] = []
    second_done: list[str] = []

    async def first_handle(delivery: Delivery, permit: Permit) -> None:
        first_done.append(delivery.origin)

    async def second_handle(delivery: Delivery, permit: Permit) -> None:
        second_done.append(delivery.origin)

    first = Dispatcher(first_handle, gate=first_gate, limit=4, stage="test", priorities=topics)
    second = Dispatcher(second_handle, gate=SwitchedGate(is_open=True), limit=4, stage="test", priorities=topics)
    async with running(options, f"{prefix}group", list(topics), first) as first_app:
        await until(lambda: first.waiting(Priority.NORMAL) == 400)
        async with running(options, f"{prefix}group", list(topics), second):
            await until(lambda: bool(second_done) and not first_app.rebalancing)
            await until(lambda: first.waiting(Priority.NORMAL) + len(second_done) == 400)
            first_gate.open()
            await until(lambda: len(first_done) + len(second_done) >= 400)
    assert len(set(first_done) | set(second_done)) == 400
    assert len(first_done) + len(second_done) == 400
    assert first_done


def message(offset: int, *, topic: str = "t", size: int = 1) -> Message:
    return Message(
        topic, 0, offset, timestamp=0.0, timestamp_type=0, headers=None, key=None, value=b"x" * size, checksum=None
    )


def test_a_topic_is_full_by_count_or_by_bytes_until_something_is_taken() -> None:
    ahead = ReadAhead(max_records=3, max_bytes=100)
    messages = [message(offset) for offset in range(3)]
    for one in messages:
        assert not ahead.is_full("t")
        ahead.read(one)
    assert ahead.is_full("t")
    assert not ahead.is_full("other")
    ahead.taken(messages[0])
    ahead.taken(messages[0])
    assert not ahead.is_full("t")
    large = message(9, size=98)
    ahead.read(large)
    assert ahead.is_full("t")
    ahead.taken(messages[1])
    ahead.taken(messages[2])
    assert not ahead.is_full("t")
    ahead.read(message(10, size=2))
    assert ahead.is_full("t")


def test_what_was_taken_before_a_rebalance_does_not_count_against_what_came_after_it() -> None:
    ahead = ReadAhead(max_records=1)
    before, after = message(0), message(0)
    ahead.read(before)
    ahead.forget({TP("t", 0).topic})
    assert not ahead.is_full("t")
    ahead.read(after)
    ahead.taken(before)
    assert ahead.is_full("t")
