"""A worker died in a call that the shared state never knew of, and the request ends from outside of a lane.

No other worker has had its record yet, so only the word that it left in Kafka tells of the call.
"""

from collections.abc import Sequence
from datetime import timedelta

import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.structs import OffsetAndMetadata

from connectors.kafka.client import client_options
from connectors.kafka.own_calls import OwnCalls
from connectors.kafka.topics_admin import create_topics
from connectors.settings import Settings
from policy.summary import Summary
from schemas.command import Command
from schemas.vocabulary import AttemptOutcome, State
from streams.called_alone import CalledAlone
from tests.streams.flow import Flow, assert_sound
from tests.streams.outage import lane_without_state
from tests.streams.samples import request
from tests.streams.world import LANE_TOPIC, START, Crash, Crasher, World

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


async def all_of_them(queued: Sequence[Summary]) -> frozenset[str]:
    return frozenset(summary.request_id for summary in queued)


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

    async def among(queued: Sequence[Summary]) -> frozenset[str]:
        asked.extend(summary.request_id for summary in queued)
        return frozenset()

    world = World(called_alone=among)
    flow = Flow(world)
    for name in ("queued", "held"):
        await flow.send(request(name, deadline_at=DEADLINE))
    _, held = world.written(LANE_TOPIC)
    with pytest.raises(Crash):
        await world.lane(world.redelivery(held), Crasher(at=2))
    world.clock = DEADLINE
    assert await world.sweep() == 2
    assert asked == ["queued"]
    lost = [attempt for attempt in world.attempts().values() if attempt.outcome is AttemptOutcome.LOST]
    assert [attempt.request_id for attempt in lost] == ["held"]


@pytest.mark.integration
async def test_the_word_is_found_in_kafka(stack_settings: Settings) -> None:
    """Of the partition of each request, until what was called is done."""
    topics, options = stack_settings.topics, client_options(stack_settings)
    await create_topics(stack_settings, topics.specs(["simulated"]))
    called_alone = CalledAlone(stack_settings)
    some = [summary(f"r-{number}") for number in range(40)]
    assert await called_alone.among(some) == frozenset()
    lane = topics.lanes("simulated")
    word: OwnCalls[int] = OwnCalls()
    word.carry(1, 3)
    consumer = AIOKafkaConsumer(**options, group_id=stack_settings.lane_group("simulated"), enable_auto_commit=False)
    await consumer.start()
    partitions = [TopicPartition(topic, number) for topic in lane.values() for number in range(3)]
    consumer.assign(partitions)
    for committed in (2, 100):
        await consumer.commit(
            {each: OffsetAndMetadata(committed, word.text(each.partition, committed)) for each in partitions}
        )
        found = await called_alone.among(some)
        if committed == 2:
            assert 0 < len(found) < len(some)
            assert found == {name for name in found if called_alone._partition(name, [2, 0, 1]) == 1}
            others = [each.model_copy(update={"provider": "another"}) for each in some]
            assert await called_alone.among(others) == frozenset()
        else:
            assert found == frozenset()
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
