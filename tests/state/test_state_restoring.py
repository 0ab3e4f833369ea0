"""What every state store does after it was emptied: of what it may have lost it says nothing until it is restored."""

from dataclasses import replace

import pytest

from connectors.state.base import (
    Admitted,
    Busy,
    Doubtful,
    Duplicate,
    Ended,
    Moved,
    Settled,
    StateUnavailableError,
)
from schemas.vocabulary import State
from tests.state.steps import (
    ROOMY,
    admitted,
    arrival,
    claim,
    claimed,
    found,
    requeue,
    reschedule,
    seen,
)
from tests.state.worlds import RedisWorld, World

MINUTE_MS = 60_000


async def test_a_store_that_was_emptied_says_so_until_it_is_restored(world: World) -> None:
    """The first store of a deployment has lost nothing; each that follows has."""
    assert await world.store.is_restored()
    for number in range(2):
        await world.flush()
        for _ in range(2):
            assert not await world.store.is_restored()
        for _ in range(2):
            await world.store.restored()
            assert await world.store.is_restored()
        await admitted(world, f"r{number}")


async def test_what_was_read_back_before_a_flush_does_not_count_for_the_store_after_it(one_redis: RedisWorld) -> None:
    """The ends were confirmed to the store that is gone."""
    await one_redis.flush()
    assert not await one_redis.store.is_restored()
    await one_redis.empty()
    await one_redis.store.restored()
    assert not await one_redis.store.is_restored()


async def test_nothing_is_said_of_an_unknown_request_until_the_store_is_restored(world: World) -> None:
    """It may have ended, or be at work: letting it in, refusing it or calling for it could make a second end."""
    await world.flush()
    for _ in range(2):
        with pytest.raises(StateUnavailableError):
            await world.store.admit(arrival(world), ROOMY)
        with pytest.raises(StateUnavailableError):
            await world.store.refuse(arrival(world), State.REJECTED, b"x")
        with pytest.raises(StateUnavailableError):
            await requeue(world)
        answer = await claim(world, version=1)
        assert isinstance(answer, Busy)
        assert answer.retry_after_ms == 500
    assert await world.store.look(["r1"]) == []
    assert await world.store.outstanding() == (0, 0)
    await world.store.restored()
    assert await admitted(world) == Admitted(1)


async def test_a_store_whose_emptying_nobody_has_noticed_is_as_silent(one_redis: RedisWorld) -> None:
    """The first step to meet it gives it its birth, and is answered as all that follow."""
    await one_redis.empty()
    assert isinstance(await claim(one_redis, version=1), Busy)
    await one_redis.empty()
    with pytest.raises(StateUnavailableError):
        await one_redis.store.admit(arrival(one_redis), ROOMY)
    assert not await one_redis.store.is_restored()


async def test_what_is_known_goes_on_before_the_store_is_restored(world: World) -> None:
    """Ends that were read back, an outcome that came home, and another try."""
    await admitted(world, "paid")
    paid = (await claimed(world, "paid", version=1)).lease
    await admitted(world, "failed")
    failed = (await claimed(world, "failed", version=1)).lease
    await world.flush()
    await world.store.confirm([Ended("ended", State.COMPLETED, 3)])
    assert await world.store.admit(arrival(world, "ended"), ROOMY) == Duplicate(State.COMPLETED)
    assert await world.store.settle(paid, State.COMPLETED, b"x") is None
    assert await claim(world, "paid", version=1) == Settled(State.COMPLETED, 3, b"x")
    assert await reschedule(world, failed) is None
    assert await requeue(world, "failed", task_version=3) == Moved(State.QUEUED, 4, b"waited")
    assert (await claimed(world, "failed", version=4, attempt=2)).lease.attempt == 2


@pytest.mark.parametrize("age_ms", [0, MINUTE_MS], ids=["at-birth", "older"])
async def test_an_end_at_the_door_of_an_old_record_stands_above_all_that_it_may_have_had(
    world: World, age_ms: int
) -> None:
    """The caller makes the end anew with the version that it is told, and may do so twice."""
    old = replace(arrival(world), recorded_ms=world.now_ms() - age_ms)
    await world.flush()
    await world.store.restored()
    for _ in range(2):
        doubtful = await world.store.refuse(old, State.EXPIRED, b"too low", version=1)
        assert isinstance(doubtful, Doubtful)
        assert doubtful.version > world.now_ms() - MINUTE_MS
        assert await world.store.look(["r1"]) == []
    for _ in range(2):
        end = await world.store.refuse(old, State.EXPIRED, b"x", version=doubtful.version)
        assert end == Settled(State.EXPIRED, doubtful.version, b"x")
    assert await claim(world, version=1) == Settled(State.EXPIRED, doubtful.version, b"x")


async def test_an_end_at_the_door_of_a_new_or_known_record_is_in_no_doubt(world: World) -> None:
    """Written after the birth of the store, or the very one whose task was found."""
    old = replace(arrival(world), recorded_ms=world.now_ms())
    await world.flush()
    await world.store.adopt(found(world))
    await world.store.restored()
    new = arrival(world, "new")
    assert await world.store.refuse(new, State.REJECTED, b"x") == Settled(State.REJECTED, 1, b"x")
    goes_on = await world.store.refuse(old, State.EXPIRED, b"x")
    assert goes_on == Admitted((await seen(world)).version, repeated=True)


async def test_no_end_at_the_door_is_doubtful_in_a_store_that_was_never_emptied(world: World) -> None:
    """Its oldest records were nowhere else before."""
    old = replace(arrival(world), recorded_ms=1)
    assert await world.store.refuse(old, State.REJECTED, b"x") == Settled(State.REJECTED, 1, b"x")
