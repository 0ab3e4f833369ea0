"""A worker died in a call that the shared state never knew of, and the request ends from outside of a lane.

No other worker has had its record yet, so only the word that it left in Kafka tells of the call.
"""

import asyncio
from collections.abc import Mapping, Sequence
from datetime import timedelta

import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import GroupCoordinatorNotAvailableError
from aiokafka.structs import OffsetAndMetadata

from connectors.kafka.client import client_options
from connectors.kafka.own_calls import OwnCalls
from connectors.kafka.producer import Outgoing, Producer
from connectors.kafka.reader import TopicReader
from connectors.kafka.topics_admin import create_topics
from connectors.settings import Settings
from policy.summary import Summary
from schemas.command import Command
from schemas.vocabulary import AttemptOutcome, Priority, State
from streams.called_alone import CalledAlone
from tests.streams.flow import Flow, assert_sound
from tests.streams.outage import lane_without_state, waits_with_another_try
from tests.streams.samples import OVERLOADED, request
from tests.streams.world import LANE_TOPIC, START, Crash, Crasher, World, nobody_called

DEADLINE = START + timedelta(seconds=60)
MAX_STEPS = 30


async def killed_alone(world: World, *, at: int) -> bool:
    """A worker without the shared state dies after its step `at`. Gives whether it got so far."""
    await Flow(world).send(request(deadline_at=DEADLINE))
    (task,) = world.written(LANE_TOPIC)
    async with lane_without_state(world):
        try:
            await world.lane(world.redelivery(task, is_surely_new=True), Crasher(at=at, after=True))
        except Crash:
            return True
    return False


async def all_of_them(queued: Sequence[Summary]) -> Mapping[str, bool]:
    return {summary.request_id: True for summary in queued}


async def one_queued_one_held(world: World) -> None:
    """Two requests that are due: one in its lane, and one whose worker died with its lease."""
    flow = Flow(world)
    for name in ("queued", "held"):
        await flow.send(request(name, deadline_at=DEADLINE))
    _, held = world.written(LANE_TOPIC)
    with pytest.raises(Crash):
        await world.lane(world.redelivery(held), Crasher(at=2))
    world.clock = DEADLINE


async def end_from_outside(world: World, end: State) -> None:
    await world.confirm_all()
    if end is State.EXPIRED:
        world.clock = DEADLINE
        await world.sweep()
    else:
        await world.cancel(Command(command_id="c", issued_at=START, request_id="r-1"))


@pytest.mark.parametrize("end", [State.EXPIRED, State.CANCELLED])
async def test_wherever_it_died_the_call_is_told_and_the_end_is_seen(end: State) -> None:
    """Versions of events differ, every call is on record, and the record that comes late causes nothing more."""
    seen: set[tuple[int, int]] = set()
    for step in range(1, MAX_STEPS):
        world = World(called_alone=all_of_them)
        if not await killed_alone(world, at=step):
            break
        calls = world.calls["r-1"]
        await end_from_outside(world, end)
        (task,) = world.written(LANE_TOPIC)
        await world.lane(world.redelivery(task, may_have_been_called=True))
        attempts = assert_sound(world)
        assert world.calls["r-1"] == calls
        seen.add((calls, len(attempts)))
    else:
        pytest.fail("it never came to its end")
    assert (1, 1) in seen


async def test_without_that_word_nothing_is_counted() -> None:
    world = World()
    await Flow(world).send(request())
    await world.cancel(Command(command_id="c", issued_at=START, request_id="r-1"))
    assert assert_sound(world) == []
    (event,) = [event for event in world.events().values() if event.state is State.CANCELLED]
    assert event.state_version == 2


async def test_only_what_is_queued_is_asked_for() -> None:
    """What waits for its next try, or was held by a worker that died, the shared state knows."""
    asked: list[str] = []

    async def among(queued: Sequence[Summary]) -> Mapping[str, bool]:
        asked.extend(summary.request_id for summary in queued)
        return await nobody_called(queued)

    world = World(called_alone=among)
    await one_queued_one_held(world)
    assert await world.sweep() == 2
    assert asked == ["queued"]
    lost = [attempt for attempt in world.attempts().values() if attempt.outcome is AttemptOutcome.LOST]
    assert [attempt.request_id for attempt in lost] == ["held"]


async def test_what_kafka_does_not_tell_of_is_ended_when_it_does() -> None:
    """And holds up no other: of one that was held, the shared state knows."""
    answers: list[Mapping[str, bool]] = [{}, {"queued": False}]

    async def among(_queued: Sequence[Summary]) -> Mapping[str, bool]:
        return answers.pop(0)

    world = World(called_alone=among)
    await one_queued_one_held(world)
    assert await world.sweep() == 1
    assert {result.request_id for result in world.results().values()} == {"held"}
    assert await world.sweep() == 1
    assert_sound(world, request_id="queued")


@pytest.mark.parametrize("end", [State.EXPIRED, State.CANCELLED])
async def test_a_worker_that_dies_before_it_could_tell_of_another_try(end: State) -> None:
    """Nobody heard of its attempt but by its call: the try waits for the shared state, and was never made."""
    world = World(called_alone=all_of_them)
    world.script.in_turn = [OVERLOADED]
    await Flow(world).send(request(deadline_at=DEADLINE))
    (task,) = world.written(LANE_TOPIC)
    async with lane_without_state(world) as outage:
        working = await waits_with_another_try(world, outage, task)
        working.cancel()
        await asyncio.wait([working])
    assert world.delayed() == []
    await end_from_outside(world, end)
    await world.lane(world.redelivery(task, may_have_been_called=True))
    (attempt,) = assert_sound(world)
    assert attempt.outcome is AttemptOutcome.LOST
    assert world.calls["r-1"] == 1


@pytest.mark.integration
async def test_a_provider_of_which_kafka_does_not_tell_is_left_out(
    stack_settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def commits_of(_options: object, group: str) -> dict[TopicPartition, OffsetAndMetadata]:
        if "moving" in group:
            raise GroupCoordinatorNotAvailableError
        return {}

    monkeypatch.setattr("streams.called_alone.commits_of", commits_of)
    two = [summary("r-1"), summary("r-2").model_copy(update={"provider": "moving"})]
    assert await CalledAlone(stack_settings).among(two) == {"r-1": False}


@pytest.mark.integration
async def test_the_word_is_found_in_kafka(stack_settings: Settings) -> None:
    """Of the partition to which the task of each request went, until what was called is done."""
    topics, options = stack_settings.topics, client_options(stack_settings)
    await create_topics(stack_settings, topics.specs(["simulated"]))
    called_alone = CalledAlone(stack_settings)
    some = [summary(f"r-{number}") for number in range(40)]
    lane = topics.lanes("simulated")[Priority.LOW]
    async with Producer(options) as producer:
        await producer.send_all(
            [Outgoing(topic=lane, key=each.request_id.encode(), value=b"x", headers=[]) for each in some]
        )
    async with TopicReader(options, [lane], start="beginning") as reader:
        records = [record async for batch in reader.up_to(await reader.ends()) for record in batch]
    there = {record.key.decode(): record.partition == 1 for record in records}
    assert set(there.values()) == {True, False}
    assert await called_alone.among(some) == dict.fromkeys(there, False)

    word: OwnCalls[int] = OwnCalls()
    word.carry(1, 3)
    consumer = AIOKafkaConsumer(**options, group_id=stack_settings.lane_group("simulated"), enable_auto_commit=False)
    await consumer.start()
    partitions = [TopicPartition(lane, number) for number in range(3)]
    consumer.assign(partitions)
    for committed, found in ((2, there), (100, dict.fromkeys(there, False))):
        await consumer.commit(
            {each: OffsetAndMetadata(committed, word.text(each.partition, committed)) for each in partitions}
        )
        assert await called_alone.among(some) == found
        others = [each.model_copy(update={"provider": "another"}) for each in some]
        assert await called_alone.among(others) == dict.fromkeys(there, False)
    await consumer.stop()


def summary(request_id: str) -> Summary:
    return Summary(
        request_id=request_id,
        submitted_at=START,
        queued_at=START,
        deadline_at=DEADLINE,
        provider="simulated",
        model="reading-ease-1",
    )
