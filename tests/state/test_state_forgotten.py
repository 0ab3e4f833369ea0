"""What every state store does when somebody comes with the task of a request that it has forgotten since its end."""

import pytest

from connectors.state.base import Claimed, Ended, Stale, TaskRef
from schemas.vocabulary import State
from tests.state.steps import HOUR_MS, LEASE_MS, SIZE_BYTES, admitted, seen
from tests.state.worlds import RETENTION_SECONDS, World


@pytest.mark.parametrize("step", ["claim", "requeue"])
async def test_a_task_of_a_request_that_was_forgotten_since_its_end_causes_nothing(world: World, step: str) -> None:
    """Its lane was down for days. What has not ended is remembered for as long as Kafka has its task."""
    await admitted(world, "ended")
    await admitted(world, "alive")
    assert await world.store.end(await seen(world, "ended"), State.EXPIRED, b"x") is None
    await world.store.confirm([Ended("ended", State.EXPIRED, 2)])
    days_ms = 2 * RETENTION_SECONDS * 1000
    await world.let_pass(days_ms)
    assert await world.store.look(["ended"]) == []
    deadline_ms = world.now_ms() - days_ms + HOUR_MS
    if step == "claim":
        old = TaskRef(version=1, attempt=1, size_bytes=SIZE_BYTES, deadline_ms=deadline_ms)
        assert await world.store.claim("ended", owner="a", lease_ms=LEASE_MS, task=old) == Stale()
        assert isinstance(await world.store.claim("alive", owner="a", lease_ms=LEASE_MS, task=old), Claimed)
    else:
        again = await world.store.requeue("ended", task_version=1, attempt=1, summary=b"", deadline_ms=deadline_ms)
        assert again == Stale()
