"""What every state store remembers of results that are in Kafka: where they lie, until all of the end is published."""

import pytest

from connectors.state.base import Duplicate, Ended, Place, Settled
from schemas.dead_letter_headers import Redrive
from schemas.vocabulary import State
from tests.state.steps import ROOMY, admitted, arrival, claim, claimed, due, requeue, seen
from tests.state.worlds import World

PLACE = Place(2, 1_234_567)


async def ended(world: World, request_id: str = "r1") -> int:
    """A request that its lane has ended. Gives the version."""
    await admitted(world, request_id)
    lease = (await claimed(world, request_id, version=1)).lease
    assert await world.store.settle(lease, State.COMPLETED, b"x") is None
    return lease.version + 1


async def test_whoever_gets_the_task_again_learns_where_the_result_lies(world: World) -> None:
    version = await ended(world)
    for _ in range(2):
        await world.store.confirm([Ended("r1", State.COMPLETED, version, PLACE)])
        assert await claim(world, version=1) == Settled(State.COMPLETED, version, None, PLACE)
        assert await requeue(world, task_version=1) == Settled(State.COMPLETED, version, None, PLACE)


async def test_an_end_that_is_published_whole_has_no_place_any_more(world: World) -> None:
    """In whichever order it is told."""
    for places in ([None, PLACE], [PLACE, None]):
        name = f"first told with {places[0]}"
        version = await ended(world, name)
        for place in places:
            await world.store.confirm([Ended(name, State.COMPLETED, version, place)])
        assert await claim(world, name, version=1) == Settled(State.COMPLETED, version, None)


async def test_an_end_from_outside_keeps_its_outcome_until_it_is_published_whole(world: World) -> None:
    """Its result is read back, and whoever ended it may have died before the rest: it stays among what is due."""
    await admitted(world)
    assert await world.store.end(await seen(world), State.CANCELLED, b"x") is None
    await world.let_pass(1)
    await world.store.confirm([Ended("r1", State.CANCELLED, 2, PLACE)])
    assert await due(world) == ["r1"]
    assert await claim(world, version=1) == Settled(State.CANCELLED, 2, b"x")
    await world.store.confirm([Ended("r1", State.CANCELLED, 2)])
    assert await due(world) == []
    assert await claim(world, version=1) == Settled(State.CANCELLED, 2, None)


async def test_a_result_of_another_end_is_heeded_also_for_what_was_ended_from_outside(world: World) -> None:
    """It was reached while the store was away, and is in Kafka."""
    await admitted(world)
    assert await world.store.end(await seen(world), State.CANCELLED, b"x") is None
    await world.store.confirm([Ended("r1", State.COMPLETED, 3, PLACE)])
    assert await claim(world, version=1) == Settled(State.COMPLETED, 3, None, PLACE)
    assert await due(world) == []


async def test_of_a_result_that_was_read_back_nobody_knows_the_record(world: World) -> None:
    """It may be the very one that comes again, so what follows from the result is to be published again."""
    await world.store.confirm([Ended("r1", State.REJECTED, 1, PLACE)])
    again = Settled(State.REJECTED, 1, None, PLACE)
    assert await world.store.admit(arrival(world), ROOMY) == again
    assert await world.store.refuse(arrival(world), State.REJECTED, b"x") == again


@pytest.mark.parametrize("place", [PLACE, None])
async def test_another_record_of_a_known_request_is_a_duplicate(world: World, place: Place | None) -> None:
    version = await ended(world)
    await world.store.confirm([Ended("r1", State.COMPLETED, version, place)])
    another = arrival(world, origin="llm.requests-0-2")
    assert await world.store.admit(another, ROOMY) == Duplicate(State.COMPLETED)


async def test_another_life_has_no_place(world: World) -> None:
    """Its task is newer than the end that was read back, or its record is redriven."""
    await world.store.confirm([Ended("r1", State.FAILED, 3, PLACE), Ended("r2", State.FAILED, 3, PLACE)])
    redriven = arrival(world, redrive=Redrive(count=1, state_version=3, attempt=1))
    await world.store.admit(redriven, ROOMY)
    leases = [(await claimed(world, name, version=4, attempt=2, redrives=1)).lease for name in ("r1", "r2")]
    for lease in leases:
        assert await world.store.settle(lease, State.FAILED, b"again") is None
        end = Settled(State.FAILED, lease.version + 1, b"again")
        assert await claim(world, lease.request_id, version=4) == end
