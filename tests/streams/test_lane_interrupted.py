"""A lane whose process is told to stop between a claim and its call."""

import asyncio

import pytest

from streams.leases import Interruption
from tests.streams.samples import request
from tests.streams.world import LANE_TOPIC, START, OpenPermit, World


class EndsAtTheLast(OpenPermit):
    """A permit that is looked at just before the call: then the process is told to stop."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.left = []

    @property  # type: ignore[override]
    def refusal(self) -> None:
        assert self._world.leases is not None
        self._world.leases.interrupt_all(Interruption.SHUTDOWN)


async def test_a_task_that_is_interrupted_before_its_call_costs_nothing() -> None:
    """Whoever takes it up next makes its first call, at once, and finds no lost one."""
    world = World()
    await world.intake(world.request_delivery(request()))
    (task,) = world.written(LANE_TOPIC)
    with pytest.raises(asyncio.CancelledError):
        await world.lane_worker("simulated").handle(world.redelivery(task), EndsAtTheLast(world))
    assert world.calls["r-1"] == 0
    await world.lane(world.redelivery(task))
    assert world.clock == START
    (attempt,) = world.attempts().values()
    assert (attempt.attempt, attempt.possibly_billed) == (1, False)
