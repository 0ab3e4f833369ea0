"""Word of the calls that a worker makes alone: it is there before the call, and goes when the state knows of it."""

import pytest

from connectors.state.base import Claimed
from schemas.vocabulary import State
from streams.context import Delivery
from tests.streams.flow import Flow, assert_sound
from tests.streams.outage import LEASE_MS, TASK, Outage, away, lane_without_state
from tests.streams.samples import request
from tests.streams.world import LANE_TOPIC, World


async def test_no_call_is_made_alone_that_is_not_on_record() -> None:
    """Kafka did not take the record of it, or the partition is another worker's by now."""
    world = World()
    await Flow(world).send(request())
    (task,) = world.written(LANE_TOPIC)
    on_record = iter([False, True])
    asked: list[str] = []

    async def record_own_call(delivery: Delivery) -> bool:
        asked.append(delivery.origin)
        assert world.calls["r-1"] == 0
        return next(on_record)

    world.record_own_call = record_own_call
    async with lane_without_state(world):
        await world.lane(world.redelivery(task, is_surely_new=True))
    assert asked == [f"{LANE_TOPIC}-0-0"] * 2
    assert world.calls["r-1"] == 1
    assert_sound(world)


@pytest.mark.parametrize(("is_taken", "comes_back"), [(True, False), (True, True), (False, False)])
async def test_word_that_kafka_did_not_take_or_that_comes_too_late_is_none(*, is_taken: bool, comes_back: bool) -> None:
    """Who ends requests from outside looks for it when the state is back: then the call has to be claimed there."""
    outage = Outage(World())
    claims = outage.claims()
    await away(outage, claims)

    async def record() -> bool:
        if comes_back:
            outage.is_away = False
            await claims._note()
        return is_taken

    assert await claims.leave_word(record) is (is_taken and not comes_back)


async def test_word_is_taken_back_once_the_state_knows_of_all_that_was_done_alone() -> None:
    """Of each end, and of each call that goes on: its lease was renewed there."""
    world = World()
    await world.intake(world.request_delivery(request()))
    outage = Outage(world)
    claims = outage.claims()
    told: list[bool] = []

    async def hear() -> None:
        told.append(claims.are_known)

    async def record() -> bool:
        return True

    claims.on_known = hear
    await away(outage, claims)
    claim = await claims.claim("r-1", owner="us", lease_ms=LEASE_MS, task=TASK)
    assert isinstance(claim, Claimed)
    assert await claims.leave_word(record)
    await claims.settle(claim.lease, State.COMPLETED, b"x")
    outage.is_away = False
    outage.seconds += 100
    await claims._tell_if_known()
    await claims._note()
    outage.seconds += 100
    await claims._tell_if_known()
    assert told == [], "its end is not published, and not noted"
    claims.published("r-1")
    for _ in range(2):
        await claims._note()
        await claims._tell_if_known()
    assert told == [True]
    await away(outage, claims)
    assert await claims.leave_word(record)
    outage.is_away = False
    await claims._note()
    await claims._tell_if_known()
    assert told == [True], "a lease may not have been renewed yet"
    outage.seconds += 30
    await claims._tell_if_known()
    assert told == [True, True]
