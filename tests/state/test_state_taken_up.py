"""What every state store does with leases that it has not given, or has lost: once renewed, they are known."""

import pytest

from connectors.state.base import Busy, CalledOff, Claimed, Lease, Renewal, Settled
from schemas.vocabulary import State
from tests.state.steps import LEASE_MS, SIZE_BYTES, admitted, claim, claimed, requeue, reschedule, seen, waiting
from tests.state.worlds import World


def alone(world: World, *, version: int = 2, attempt: int = 1) -> Lease:
    """As a worker gives it to itself for the task before this version."""
    fence = world.now_ms() * 1000 + 500
    return Lease(request_id="r1", fence=fence, attempt=attempt, version=version, is_own=True, owner="us")


@pytest.mark.parametrize("is_own", [True, False], ids=["own", "forgotten"])
async def test_a_lease_that_the_store_does_not_know_is_held_once_it_is_renewed(world: World, *, is_own: bool) -> None:
    """Nobody else claims, or ends, what is being called; and its holder settles as any other."""
    await admitted(world)
    before = await seen(world)
    lease = alone(world)
    if not is_own:
        lease = Lease(request_id="r1", fence=lease.fence, attempt=1, version=2, owner="us")
    for _ in range(2):
        assert await world.store.renew([lease], lease_ms=LEASE_MS) == Renewal()
    known = await seen(world)
    assert (known.state, known.version, known.held_ms > 0) == (State.PROCESSING, 2, True)
    assert known.running is not None
    assert (known.running.attempt, known.running.owner) == (1, "us")
    assert isinstance(await claim(world, version=1), Busy)
    assert await world.store.end(before, State.EXPIRED, b"x") == Settled(State.PROCESSING, 2, None)
    assert await world.store.settle(lease, State.COMPLETED, b"paid for") is None
    assert await world.store.settle(lease, State.COMPLETED, b"paid for") is None  # its reply was lost
    assert await claim(world, version=1) == Settled(State.COMPLETED, 3, b"paid for")
    assert await world.store.outstanding() == (0, 0)


async def test_a_worker_that_dies_after_its_lease_became_known_has_lost_a_call(world: World) -> None:
    await admitted(world)
    lease = alone(world)
    await world.store.renew([lease], lease_ms=LEASE_MS)
    await world.let_pass(LEASE_MS + 1)
    following = await claimed(world, version=1)
    assert [(lost.attempt, lost.owner) for lost in following.lost_calls] == [(1, "us")]
    assert following.lease.attempt == 2
    assert following.lease.fence > lease.fence
    assert await world.store.renew([lease], lease_ms=LEASE_MS) == Renewal(lost=(lease,))


async def test_a_lease_that_became_known_is_given_back_as_any_other(world: World) -> None:
    await admitted(world)
    lease = alone(world)
    await world.store.renew([lease], lease_ms=LEASE_MS)
    await world.store.release(lease, called=True)
    following = await claimed(world, version=1)
    assert [lost.owner for lost in following.lost_calls] == ["us"]


async def test_a_worker_hears_of_a_cancellation_of_what_it_calls_alone(world: World) -> None:
    await admitted(world)
    await world.store.cancel(["r1"])
    lease = alone(world)
    assert await world.store.renew([lease], lease_ms=LEASE_MS) == Renewal(cancelled=(lease,))
    assert await reschedule(world, lease) == CalledOff()
    assert await world.store.settle(lease, State.CANCELLED, b"x") is None


async def test_the_next_try_of_a_lease_that_became_known_stands(world: World) -> None:
    await admitted(world)
    lease = alone(world)
    await world.store.renew([lease], lease_ms=LEASE_MS)
    assert await reschedule(world, lease) is None
    assert await requeue(world, task_version=3) is not None
    assert (await claimed(world, version=4, attempt=2)).lost_calls == ()
    assert await world.store.outstanding() == (1, SIZE_BYTES)


@pytest.mark.parametrize("state", ["held", "ended", "moved on"])
async def test_a_lease_of_a_workers_own_is_lost_to_whoever_came_before(world: World, state: str) -> None:
    """They have claimed, ended or moved on what the worker took for its own."""
    if state == "moved on":
        await waiting(world)
        await requeue(world)
    else:
        await admitted(world)
        theirs = (await claimed(world, version=1)).lease
        if state == "ended":
            await world.store.settle(theirs, State.COMPLETED, b"theirs")
    before = await seen(world)
    lease = alone(world)
    assert await world.store.renew([lease], lease_ms=LEASE_MS) == Renewal(lost=(lease,))
    after = await seen(world)
    assert (after.state, after.version, after.running) == (before.state, before.version, before.running)


async def test_a_lease_of_a_workers_own_beside_one_that_has_lapsed_is_neither_known_nor_lost(world: World) -> None:
    """The call of the one that lapsed is still to be put on record; the worker may settle."""
    await admitted(world)
    dead = (await claimed(world, version=1, owner="dead")).lease
    await world.let_pass(LEASE_MS + 1)
    lease = alone(world)
    assert await world.store.renew([lease], lease_ms=LEASE_MS) == Renewal()
    known = await seen(world)
    assert known.running is not None
    assert known.running.owner == "dead"
    assert await world.store.settle(lease, State.COMPLETED, b"x") is None
    assert isinstance(await world.store.settle(dead, State.COMPLETED, b"y"), Settled)


async def test_a_lease_of_a_workers_own_for_what_is_not_known_can_be_settled(world: World) -> None:
    """The store came back empty: the call goes on."""
    lease = alone(world)
    assert await world.store.renew([lease], lease_ms=LEASE_MS) == Renewal()
    assert await world.store.look(["r1"]) == []
    assert await world.store.settle(lease, State.COMPLETED, b"x") is None


async def test_a_lease_for_the_call_after_a_wait_that_is_all_the_store_knows_of_is_held_again(world: World) -> None:
    """It came back with old data, from before the wait was over."""
    version = await waiting(world)
    lost = Lease(request_id="r1", fence=world.now_ms() * 1000 + 10_000_000, attempt=2, version=version + 2, owner="us")
    assert await world.store.renew([lost], lease_ms=LEASE_MS) == Renewal()
    assert (await seen(world)).state is State.PROCESSING
    assert isinstance(await claim(world, version=version + 1, attempt=2), Busy)
    assert await world.store.settle(lost, State.COMPLETED, b"x") is None
    assert not isinstance(await claim(world, version=version + 1, attempt=2), Claimed)
