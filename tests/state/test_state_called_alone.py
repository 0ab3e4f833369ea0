"""What every state store makes of a call that a worker may have made while the store was away, and died."""

from dataclasses import replace

from connectors.state.base import Claim, Claimed
from tests.state.steps import LEASE_MS, admitted, claimed, found, reschedule
from tests.state.worlds import World


async def claim_in_doubt(world: World, *, version: int = 1, attempt: int = 1) -> Claim:
    doubted = replace(found(world, version=version, attempt=attempt).task, may_have_been_called=True)
    return await world.store.claim("r1", owner="b", lease_ms=LEASE_MS, task=doubted)


def owners(claim: Claim) -> list[str]:
    assert isinstance(claim, Claimed)
    return [call.owner for call in claim.lost_calls]


async def test_it_counts_as_lost(world: World) -> None:
    await admitted(world)
    claim = await claim_in_doubt(world)
    assert isinstance(claim, Claimed)
    (call,) = claim.lost_calls
    assert (call.attempt, call.owner) == (1, "unknown")
    assert (claim.lease.attempt, claim.history_missing) == (2, False)


async def test_it_counts_once_however_often_its_record_comes_again(world: World) -> None:
    await admitted(world)
    assert owners(await claim_in_doubt(world)) == ["unknown"]
    await world.let_pass(LEASE_MS + 1)
    assert owners(await claim_in_doubt(world)) == ["unknown", "b"]


async def test_it_counts_beside_the_call_of_a_lease_that_ran_out_before(world: World) -> None:
    await admitted(world)
    await claimed(world, version=1)
    await world.let_pass(LEASE_MS + 1)
    claim = await claim_in_doubt(world)
    assert len(owners(claim)) == 2
    assert owners(claim)[1] == "unknown"


async def test_the_task_of_a_later_try_may_have_been_called_as_well(world: World) -> None:
    await admitted(world)
    first = await claim_in_doubt(world)
    assert isinstance(first, Claimed)
    await reschedule(world, first.lease)
    await world.store.requeue(
        "r1", task_version=first.lease.version + 1, attempt=3, summary=b"", deadline_ms=world.now_ms() + LEASE_MS
    )
    second = await claim_in_doubt(world, version=first.lease.version + 2, attempt=3)
    assert owners(second) == ["unknown"]


async def test_of_a_request_that_the_store_does_not_know_nothing_more_is_said_than_that(world: World) -> None:
    """That its history is missing covers it."""
    claim = await claim_in_doubt(world)
    assert isinstance(claim, Claimed)
    assert (claim.lost_calls, claim.history_missing) == ((), True)
