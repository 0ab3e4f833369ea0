"""The shared state fails for a moment and answers again: from then on nobody claims by himself any more."""

import pytest

from connectors.state.base import Claimed, StateUnavailableError
from schemas.vocabulary import State
from streams.own_claims import AWAY_SECONDS
from tests.streams.outage import LEASE_MS, TASK, Outage, away
from tests.streams.samples import request
from tests.streams.world import World


@pytest.mark.parametrize("step", ["settle", "reschedule", "renew"])
async def test_any_step_that_is_answered_says_that_it_is_back(step: str) -> None:
    """One settle times out and is made again; the lane is idle; hours later many records come at once."""
    world = World()
    await world.intake(world.request_delivery(request()))
    outage = Outage(world)
    claims = outage.claims()
    claim = await claims.claim("r-1", owner="us", lease_ms=LEASE_MS, task=TASK)
    assert isinstance(claim, Claimed)
    outage.is_away = True
    with pytest.raises(StateUnavailableError):
        await claims.settle(claim.lease, State.COMPLETED, b"x")
    outage.is_away = False
    match step:
        case "settle":
            assert await claims.settle(claim.lease, State.COMPLETED, b"x") is None
        case "reschedule":
            moved = await claims.reschedule(
                claim.lease, State.RETRY_SCHEDULED, task_version=1, next_attempt=2, summary=b"x"
            )
            assert moved is None
        case _:
            await claims.renew([claim.lease], lease_ms=LEASE_MS)
    outage.seconds += 10 * AWAY_SECONDS
    assert not claims.is_away


async def test_an_idle_lane_notices_that_it_is_back() -> None:
    outage = Outage(World())
    claims = outage.claims()
    await away(outage, claims)
    await claims._note()
    assert claims.is_away
    outage.is_away = False
    await claims._note()
    assert not claims.is_away
