"""A shared state that can be away, and a lane that works without it."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, cast

import pytest

from connectors.kafka.producer import Outgoing
from connectors.state.base import StateUnavailableError, TaskRef
from connectors.state.store import StateStore
from streams.own_claims import AWAY_SECONDS, OutageClaims
from tests.streams.world import World

LEASE_MS = 10_000
TASK = TaskRef(version=1, attempt=1, size_bytes=10, deadline_ms=2**50)


class Outage:
    """The shared state of a world, which can be away, and a clock moved by hand."""

    def __init__(self, world: World) -> None:
        self.is_away = False
        self.asked: Counter[str] = Counter()
        self.seconds = 1000.0
        self._world = world

    def __getattr__(self, name: str) -> Callable[..., Awaitable[Any]]:
        method = getattr(self._world.state, name)

        async def step(*args: Any, **kwargs: Any) -> Any:
            self.asked[name] += 1
            if self.is_away:
                raise StateUnavailableError(name)
            return await method(*args, **kwargs)

        return step

    def _wall(self) -> float:
        return self._world.clock.timestamp()

    def claims(self) -> OutageClaims:
        return OutageClaims(
            cast("StateStore", self),
            provider="simulated",
            clock=lambda: self.seconds,
            wall=self._wall,
        )


async def away(outage: Outage, claims: OutageClaims) -> None:
    """The state is away for so long that the worker notices."""
    outage.is_away = True
    with pytest.raises(StateUnavailableError):
        await claims.claim("probe", owner="us", lease_ms=LEASE_MS, task=TASK)
    outage.seconds += AWAY_SECONDS
    assert claims.is_away


@asynccontextmanager
async def lane_without_state(world: World) -> AsyncIterator[Outage]:
    """The world's lane works with claims of its own within the block, and notes its ends after it."""
    outage = Outage(world)
    claims = outage.claims()
    await away(outage, claims)
    world.claims = claims
    try:
        yield outage
    finally:
        outage.is_away = False
        await claims.close()
        world.claims = None


async def waits_with_another_try(world: World, outage: Outage, task: Outgoing) -> "asyncio.Task[None]":
    """Works on a task whose call fails, until the lane waits for the shared state to tell it of the next try."""
    working = asyncio.create_task(world.lane(world.redelivery(task, is_surely_new=True)))
    async with asyncio.timeout(10):
        while not (world.calls["r-1"] and outage.asked["reschedule"]):
            await asyncio.sleep(0)
    return working
