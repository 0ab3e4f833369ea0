"""What every state store does for those who end requests from outside of a lane: what is due, and who may end it."""

import asyncio

import pytest

from connectors.state.base import Admitted, Duplicate, Ended, Known, Renewal, Settled
from connectors.state.ends import IllegalEndError
from schemas.vocabulary import State
from tests.state.steps import (
    HOUR_MS,
    LEASE_MS,
    ROOMY,
    SIZE_BYTES,
    admitted,
    arrival,
    claim,
    claimed,
    counted,
    due,
    reschedule,
    seen,
    waiting,
)
from tests.state.worlds import World


async def test_what_is_past_its_deadline_is_due_wherever_it_is(world: World) -> None:
    """Queued, waiting or at work; not what has time left, and not what has ended."""
    await admitted(world, "early", deadline_in_ms=10 * HOUR_MS)
    await admitted(world, "queued")
    await waiting(world, "waiting")
    for name in ("working", "ended"):
        await admitted(world, name)
    await world.store.settle((await claimed(world, "ended")).lease, State.COMPLETED, b"x")
    assert await due(world) == []
    await world.let_pass(HOUR_MS + 1)
    await claimed(world, "working")
    assert await due(world) == ["queued", "waiting", "working"]


async def test_of_what_is_due_the_oldest_are_told_first(world: World) -> None:
    """Up to the limit, of each shard."""
    for number in range(40):
        await admitted(world, f"r{number:02}", deadline_in_ms=(number + 1) * 1_000)
    await world.let_pass(HOUR_MS)
    assert len(await due(world)) == 40
    assert "r00" in await due(world, limit=1)


async def test_what_nobody_holds_is_ended_from_outside(world: World) -> None:
    """Queued, waiting, or left by a worker that died: one version on, and everybody gets the outcome."""
    await admitted(world, "queued")
    await waiting(world, "waiting")
    await admitted(world, "lapsed")
    lapsed = (await claimed(world, "lapsed")).lease
    await world.let_pass(LEASE_MS + 1)
    for name in ("queued", "waiting", "lapsed"):
        known = await seen(world, name)
        assert await world.store.end(known, State.EXPIRED, b"x") is None
        assert await claim(world, name, version=1) == Settled(State.EXPIRED, known.version + 1, b"x")
        assert await world.store.admit(arrival(world, name), ROOMY) == Duplicate(State.EXPIRED)
    assert await world.store.renew([lapsed], lease_ms=LEASE_MS) == Renewal(lost=(lapsed,))
    end = Settled(State.EXPIRED, lapsed.version + 1, b"x")
    assert await world.store.settle(lapsed, State.COMPLETED, b"y") == end
    assert await world.store.settle(lapsed, State.EXPIRED, b"y") == end


async def test_an_end_from_outside_may_leave_out_versions(world: World) -> None:
    """Those that somebody may have told of; and it is the winner's again when it comes twice."""
    await admitted(world)
    known = await seen(world)
    for _ in range(2):
        assert await world.store.end(known, State.EXPIRED, b"x", version=77) is None
    end = Settled(State.EXPIRED, 77, b"x")
    assert await world.store.end(known, State.EXPIRED, b"x") == end
    assert await claim(world, version=1) == end
    assert (await seen(world)).version == 77


async def test_what_is_held_is_never_ended_from_outside(world: World) -> None:
    """Its holder ends it. When the lease has lapsed, or was given back, nobody holds it."""
    await admitted(world)
    lease = (await claimed(world)).lease
    assert await world.store.end(await seen(world), State.EXPIRED, b"x") == Settled(State.PROCESSING, 2, None)
    await world.store.release(lease, called=True)
    assert await world.store.end(await seen(world), State.EXPIRED, b"x") is None


async def test_an_end_from_outside_fails_where_the_request_has_changed(world: World) -> None:
    """It was claimed, moved on, or ended since it was seen, or is no longer known."""
    await admitted(world)
    known = await seen(world)
    lease = (await claimed(world, version=1)).lease
    assert await world.store.end(known, State.EXPIRED, b"x") == Settled(State.PROCESSING, 2, None)
    await reschedule(world, lease)
    assert await world.store.end(known, State.EXPIRED, b"x") == Settled(State.RETRY_SCHEDULED, 3, None)
    assert await world.store.end(await seen(world), State.CANCELLED, b"y") is None
    assert await world.store.end(known, State.EXPIRED, b"x") == Settled(State.CANCELLED, 4, b"y")
    await world.lose("r1")
    assert await world.store.end(known, State.EXPIRED, b"x") == Settled(State.QUEUED, 0, None)


async def test_the_winner_that_ends_again_is_told_that_it_won(world: World) -> None:
    """Its reply was lost on the way. Another one with the same state brings another outcome, and has not won."""
    await admitted(world)
    known = await seen(world)
    for _ in range(2):
        assert await world.store.end(known, State.EXPIRED, b"x") is None
    assert await world.store.end(known, State.EXPIRED, b"y") == Settled(State.EXPIRED, 2, b"x")
    assert await world.store.end(known, State.CANCELLED, b"x") == Settled(State.EXPIRED, 2, b"x")
    await world.store.confirm([Ended("r1", State.EXPIRED, 2)])
    assert await world.store.end(known, State.EXPIRED, b"x") == Settled(State.EXPIRED, 2, None)


async def test_a_worker_and_a_sweeper_that_expire_the_same_request_do_not_both_win(world: World) -> None:
    """Both come to the same state in the same version; the first one's outcome stands."""
    await admitted(world)
    lease = (await claimed(world)).lease
    await world.let_pass(LEASE_MS + 1)
    known = await seen(world)
    assert await world.store.settle(lease, State.EXPIRED, b"the worker's") is None
    answer = await world.store.end(known, State.EXPIRED, b"the sweeper's")
    assert answer == Settled(State.EXPIRED, 3, b"the worker's")


async def test_one_of_many_that_end_a_request_wins(world: World) -> None:
    """Sweepers, a canceller and the worker, all at once."""
    await admitted(world)
    lease = (await claimed(world)).lease
    await world.let_pass(LEASE_MS + 1)
    known = await seen(world)
    answers = await asyncio.gather(
        *(world.store.end(known, State.EXPIRED, f"sweeper {number}".encode()) for number in range(20)),
        *(world.store.end(known, State.CANCELLED, f"canceller {number}".encode()) for number in range(20)),
        world.store.settle(lease, State.COMPLETED, b"the worker's"),
    )
    assert answers.count(None) == 1
    assert len({answer for answer in answers if answer is not None}) == 1


@pytest.mark.parametrize("end", [State.COMPLETED, State.QUEUED, State.PROCESSING])
async def test_what_is_queued_cannot_be_ended_in_any_other_state(world: World, end: State) -> None:
    """A mistake of the caller changes nothing."""
    await admitted(world)
    with pytest.raises(IllegalEndError):
        await world.store.end(await seen(world), end, b"x")
    assert (await seen(world)).state is State.QUEUED


async def test_an_end_from_outside_is_due_until_it_is_confirmed(world: World) -> None:
    """Should the one who ended it die, another one finds it and publishes it: at once, not at its deadline."""
    await admitted(world, deadline_in_ms=10 * HOUR_MS)
    known = await seen(world)
    assert await world.store.end(known, State.CANCELLED, b"x") is None
    await world.let_pass(1)
    assert await due(world) == ["r1"]
    assert await counted(world) == ["r1"]
    assert await world.store.outstanding() == (1, SIZE_BYTES)
    left = await seen(world)
    assert (left.state, left.version, left.outcome) == (State.CANCELLED, 2, b"x")
    for _ in range(2):
        await world.store.confirm([Ended("r1", State.CANCELLED, 2)])
        assert await due(world) == await counted(world) == []
        assert await world.store.outstanding() == (0, 0)
    assert (await seen(world)).outcome is None


async def test_also_what_was_never_counted_is_due_until_its_end_is_confirmed(world: World) -> None:
    """A request that only a task told of: it takes no room, and its end is not forgotten."""
    await waiting(world)
    await world.lose("r1")
    await world.store.requeue("r1", task_version=3, attempt=2, summary=b"", deadline_ms=world.now_ms() + HOUR_MS)
    assert await world.store.outstanding() == (0, 0)
    assert await world.store.end(await seen(world), State.CANCELLED, b"x") is None
    await world.let_pass(1)
    assert await due(world) == ["r1"]
    await world.store.confirm([Ended("r1", State.CANCELLED, 5)])
    assert await world.store.outstanding() == (0, 0)


async def test_all_that_is_counted_is_told(world: World) -> None:
    """However many there are, over all shards."""
    ids = sorted(f"r{number}" for number in range(1_500))
    for start in range(0, len(ids), 100):
        await asyncio.gather(*(admitted(world, request_id) for request_id in ids[start : start + 100]))
    assert sorted({*await counted(world)}) == ids
    known = await world.store.look([*ids, "unknown"])
    assert sorted(each.request_id for each in known) == ids
    assert {each.state for each in known} == {State.QUEUED}
    assert await world.store.look([]) == []


async def test_ids_of_any_form_come_back_whole(world: World) -> None:
    """Colons and other marks are part of an id."""
    for request_id in ("a:b:c", ":", "12:r1", "ü"):
        assert isinstance(await admitted(world, request_id, deadline_in_ms=0), Admitted)
    await world.let_pass(1)
    assert await due(world) == await counted(world) == sorted(["a:b:c", ":", "12:r1", "ü"])
    assert isinstance(await seen(world, "a:b:c"), Known)
