"""How the delay stage reads: one that is not due holds its own partition up, and nothing is committed too early."""

import asyncio
from collections.abc import Mapping
from datetime import datetime, timedelta
from types import SimpleNamespace
from typing import Any, cast

import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.structs import OffsetAndMetadata

from connectors.kafka.producer import Outgoing
from schemas import LaneTask
from schemas.codec import decode_single_object
from schemas.vocabulary import FailureCategory
from streams.delay import AFTER_ERROR_SECONDS, DelayStage
from tests.streams.flow import Flow
from tests.streams.samples import failed, request
from tests.streams.world import LANE_TOPIC, Crasher, World

SHORT, LONG = TopicPartition("llm.retry.1s", 0), TopicPartition("llm.retry.10m", 0)


class LogConsumer:
    """Reads the delay topics of a world's log, as aiokafka's consumer does. Waiting moves the world's clock."""

    def __init__(self, world: World, until: datetime, committed: Mapping[TopicPartition, int] | None = None) -> None:
        self.world = world
        self.until = until
        self.stop = asyncio.Event()
        self.committed = dict(committed or {})
        self.positions = dict(self.committed)
        self.paused: set[TopicPartition] = set()
        self.longest_wait_ms = 0

    def assignment(self) -> set[TopicPartition]:
        return {TopicPartition(topic, 0) for topic in self.world.settings.topics.retries.values()}

    async def getmany(self, *, timeout_ms: int, max_records: int) -> dict[TopicPartition, list[Any]]:
        found = {}
        for partition in self.assignment() - self.paused:
            start = self.positions.get(partition, 0)
            records = self.world.written(partition.topic)[start : start + max_records]
            if records:
                found[partition] = [self._record(partition, start + n, record) for n, record in enumerate(records)]
                self.positions[partition] = start + len(records)
        if not found:
            self.longest_wait_ms = max(self.longest_wait_ms, timeout_ms)
            self.world.pass_time(timeout_ms / 1000)
        if self.world.clock >= self.until:
            self.stop.set()
        await asyncio.sleep(0)
        return found

    def _record(self, partition: TopicPartition, offset: int, record: Outgoing) -> Any:
        return SimpleNamespace(
            topic=partition.topic,
            partition=0,
            offset=offset,
            timestamp=int(self.world.written_at[id(record)].timestamp() * 1000),
            key=record.key,
            value=record.value,
            headers=record.headers,
        )

    def pause(self, partition: TopicPartition) -> None:
        self.paused.add(partition)

    def resume(self, partition: TopicPartition) -> None:
        self.paused.discard(partition)

    def seek(self, partition: TopicPartition, offset: int) -> None:
        self.positions[partition] = offset

    async def commit(self, offsets: Mapping[TopicPartition, OffsetAndMetadata]) -> None:
        self.committed |= {partition: position.offset for partition, position in offsets.items()}


async def delayed_by(*waits: float) -> World:
    """Requests r-0, r-1, ... each failed once, and is to be tried again after so many seconds."""
    world = World()
    world.script.in_turn = [failed(FailureCategory.RATE_LIMITED, retry_after_seconds=wait) for wait in waits]
    world.retry = type(world.retry)(base_seconds=0.0)
    flow = Flow(world)
    for number in range(len(waits)):
        await flow.send(request(f"r-{number}"))
    for _ in waits:
        await flow.take_one()
    return world


async def run(world: World, *, seconds: float, committed: Mapping[TopicPartition, int] | None = None) -> LogConsumer:
    """The stage works for so long, from what was committed."""
    consumer = LogConsumer(world, world.clock + timedelta(seconds=seconds), committed)
    context, ending = world._process(Crasher(), "/delay")
    await DelayStage(context, ending, cast("AIOKafkaConsumer", consumer)).run(consumer.stop)
    return consumer


def arrivals(world: World) -> dict[str, float]:
    """When each request came back to its lane, in seconds after it was sent."""
    found: dict[str, float] = {}
    for record in world.written(LANE_TOPIC):
        task = decode_single_object(LaneTask, record.value or b"")
        if task.attempt > 1:
            came_back = world.written_at[id(record)] - task.queued_at
            found.setdefault(task.request.request_id, came_back.total_seconds())
    return found


async def test_each_comes_back_when_it_is_due_and_not_before() -> None:
    waits = [0.2, 700.0, 1.0, 4.0, 31.5, 45.0]
    world = await delayed_by(*waits)
    await run(world, seconds=800)
    back = arrivals(world)
    assert set(back) == {f"r-{number}" for number in range(len(waits))}
    for number, wait in enumerate(waits):
        assert wait <= back[f"r-{number}"] <= wait + 1.1


async def test_a_long_wait_holds_up_neither_other_topics_nor_the_poll() -> None:
    """The stage goes on asking its consumer, and each ask is short, so it stays in its group."""
    world = await delayed_by(600.0, 1.0)
    consumer = await run(world, seconds=10)
    assert set(arrivals(world)) == {"r-1"}
    assert consumer.longest_wait_ms <= 1000
    assert LONG not in consumer.committed
    assert consumer.committed[SHORT] == 1


async def test_nothing_is_read_ahead_into_memory() -> None:
    """A partition whose first record is not due is put back to it."""
    world = await delayed_by(*[600.0] * 200)
    consumer = await run(world, seconds=100)
    assert consumer.positions[LONG] == 0
    assert consumer.paused == {LONG}


async def test_a_wait_survives_restarts() -> None:
    world = await delayed_by(20.0)
    committed: dict[TopicPartition, int] = {}
    for _ in range(50):
        committed = (await run(world, seconds=0.5, committed=committed)).committed
    assert 20.0 <= arrivals(world)["r-0"] <= 21.1
    # By way of 5 s three times, and of 1 s for what is left.
    assert len(world.delayed()) <= 9


async def test_after_partitions_are_assigned_anew_they_are_read_from_what_was_committed() -> None:
    world = await delayed_by(1.0)
    consumer = LogConsumer(world, world.clock + timedelta(seconds=5))
    context, ending = world._process(Crasher(), "/delay")
    stage = DelayStage(context, ending, cast("AIOKafkaConsumer", consumer))
    stage._paused[SHORT] = world.clock + timedelta(days=1)
    consumer.paused.clear()
    await stage.run(consumer.stop)
    assert set(arrivals(world)) == {"r-0"}


async def test_what_could_not_be_let_go_is_not_committed_and_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    world = await delayed_by(1.0)
    requeue, failures = world.state.requeue, [RuntimeError("first"), RuntimeError("second")]

    async def failing(*args: Any, **kwargs: Any) -> Any:
        if failures:
            raise failures.pop()
        return await requeue(*args, **kwargs)

    monkeypatch.setattr(world.state, "requeue", failing)
    consumer = await run(world, seconds=1.5)
    assert consumer.committed == {}
    await run(world, seconds=3 * AFTER_ERROR_SECONDS)
    assert set(arrivals(world)) == {"r-0"}


@pytest.mark.parametrize("value", [b"", b"soon", b"99999999999999999999"])
async def test_a_header_that_is_no_moment_leaves_the_topics_own_delay(value: bytes) -> None:
    world = await delayed_by(1.0)
    (record,) = world.delayed()
    record.headers[:] = [  # type: ignore[index]
        (name, value if name == "retry_topic-backoff-timestamp" else kept) for name, kept in record.headers
    ]
    await run(world, seconds=3)
    assert set(arrivals(world)) == {"r-0"}
