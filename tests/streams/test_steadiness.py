"""After an absence of the shared state, and at the start, ends from outside wait: lanes may have been before them."""

import asyncio
from collections.abc import Sequence
from datetime import timedelta

import pytest

from connectors.state.base import Claimed, Ended, Known, Settled, StateUnavailableError
from schemas.command import Command
from schemas.vocabulary import State
from streams import commands, steadiness
from streams.own_claims import AWAY_SECONDS
from streams.steadiness import PUBLISHED_SECONDS, Steadiness
from tests.streams.flow import Flow
from tests.streams.outage import LEASE_MS, TASK, Outage, away
from tests.streams.samples import request
from tests.streams.world import START, World

DEADLINE = START + timedelta(seconds=60)
STEP_SECONDS = 0.5
TIMEOUT_SECONDS = 2.0
STEADY_SECONDS = TIMEOUT_SECONDS + PUBLISHED_SECONDS


class Watched:
    """A store that answers or does not, as somebody sees it who asks all the time, by a clock moved by hand."""

    def __init__(self) -> None:
        self.is_away = False
        self.seconds = 1000.0
        self.steadiness = Steadiness(self._answer, timeout_seconds=TIMEOUT_SECONDS, clock=lambda: self.seconds)

    async def _answer(self) -> None:
        if self.is_away:
            raise StateUnavailableError("outstanding")

    async def watch(self, seconds: float) -> None:
        for _ in range(round(seconds / STEP_SECONDS)):
            self.seconds += STEP_SECONDS
            await self.steadiness.look()


async def test_at_its_start_a_process_believes_nothing_for_some_seconds() -> None:
    watched = Watched()
    assert watched.steadiness.since() is None
    await watched.watch(STEADY_SECONDS)
    assert watched.steadiness.since() is None
    await watched.watch(STEP_SECONDS)
    began = watched.steadiness.since()
    assert began == 1000.0 + STEP_SECONDS
    await watched.watch(60)
    assert watched.steadiness.since() == began


async def test_after_an_absence_it_begins_anew_with_the_first_answer() -> None:
    watched = Watched()
    await watched.watch(60)
    before = watched.steadiness.since()
    watched.is_away = True
    await watched.watch(STEP_SECONDS)
    assert watched.steadiness.since() is None
    watched.is_away = False
    await watched.watch(STEADY_SECONDS)
    assert watched.steadiness.since() is None
    await watched.watch(STEP_SECONDS)
    assert watched.steadiness.since() not in (before, None)


async def test_where_nobody_asked_for_a_while_it_may_have_been_away() -> None:
    """The process was stopped, say: neither what it knew counts, nor that it is answered now."""
    watched = Watched()
    await watched.watch(60)
    before = watched.steadiness.since()
    watched.seconds += AWAY_SECONDS - STEP_SECONDS
    assert watched.steadiness.since() == before
    watched.seconds += STEP_SECONDS
    assert watched.steadiness.since() is None
    await watched.watch(STEP_SECONDS)
    assert watched.steadiness.since() is None
    await watched.watch(STEADY_SECONDS)
    assert watched.steadiness.since() not in (before, None)


async def test_a_pause_that_is_too_short_for_lanes_to_notice_changes_nothing() -> None:
    watched = Watched()
    await watched.watch(60)
    before = watched.steadiness.since()
    watched.seconds += AWAY_SECONDS - 2 * STEP_SECONDS
    await watched.watch(STEP_SECONDS)
    assert watched.steadiness.since() == before


async def test_it_asks_by_itself_and_survives_what_goes_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(steadiness, "ASK_SECONDS", 0.0)
    asked = asyncio.Semaphore(0)
    failures: list[Exception] = [RuntimeError("a bug"), StateUnavailableError("outstanding")]

    async def ask() -> None:
        asked.release()
        if failures:
            raise failures.pop()

    watching = asyncio.create_task(Steadiness(ask, timeout_seconds=TIMEOUT_SECONDS).run())
    async with asyncio.timeout(10):
        for _ in range(4):
            await asked.acquire()
    watching.cancel()


async def test_what_a_lane_has_ended_by_itself_does_not_expire_in_the_seconds_before_it_is_noted() -> None:
    """Its deadline has passed, and the store takes it for alive: the result is on its way."""
    world = World()
    await Flow(world).send(request(deadline_at=DEADLINE))
    outage = Outage(world)
    claims = outage.claims()
    await away(outage, claims)
    claim = await claims.claim("r-1", owner="us", lease_ms=LEASE_MS, task=TASK)
    assert isinstance(claim, Claimed)
    world.clock = DEADLINE
    watched = Watched()
    world.steady_since = watched.steadiness.since
    assert await claims.settle(claim.lease, State.COMPLETED, b"x") is None
    outage.is_away = False
    assert await world.sweep() == 0
    await watched.watch(STEADY_SECONDS)
    assert await world.sweep() == 0
    await world.state.confirm([Ended("r-1", State.COMPLETED, claim.lease.version + 1)])
    await watched.watch(STEP_SECONDS)
    assert await world.sweep() == 0
    (known,) = await world.state.look(["r-1"])
    assert known.state is State.COMPLETED


async def test_what_expires_does_so_once_the_store_is_steady() -> None:
    world = World()
    await Flow(world).send(request(deadline_at=DEADLINE))
    world.clock = DEADLINE
    watched = Watched()
    world.steady_since = watched.steadiness.since
    assert await world.sweep() == 0
    await watched.watch(STEADY_SECONDS + STEP_SECONDS)
    assert await world.sweep() == 1


async def test_an_absence_between_the_look_and_the_end_leaves_it_to_another_sweep() -> None:
    """What was seen is from before; so are the results that were read."""
    world = World()
    await Flow(world).send(request(deadline_at=DEADLINE))
    world.clock = DEADLINE
    watched = Watched()
    world.steady_since = watched.steadiness.since
    await watched.watch(60)
    look = world.state.look

    async def look_and_lose_it(request_ids: Sequence[str]) -> list[Known]:
        found = await look(request_ids)
        watched.is_away = True
        await watched.watch(STEP_SECONDS)
        watched.is_away = False
        await watched.watch(60)
        return found

    world.state.look = look_and_lose_it  # type: ignore[method-assign]
    assert await world.sweep() == 0
    world.state.look = look  # type: ignore[method-assign]
    assert await world.sweep() == 1


@pytest.mark.parametrize("has_happened", [False, True], ids=["not made", "its reply lost"])
async def test_an_end_that_meets_an_absence_is_not_made_when_it_is_over(*, has_happened: bool) -> None:
    """By then a lane may have ended it. One that was made, and whose reply was lost, is published by another sweep."""
    world = World()
    await Flow(world).send(request(deadline_at=DEADLINE))
    world.clock = DEADLINE
    end, tries = world.state.end, 0

    async def failing(seen: Known, state: State, outcome: bytes, *, version: int) -> Settled | None:
        nonlocal tries
        tries += 1
        if has_happened:
            await end(seen, state, outcome, version=version)
        raise StateUnavailableError("end")

    world.state.end = failing  # type: ignore[method-assign]
    assert await world.sweep() == 0
    assert tries == 1
    world.state.end = end  # type: ignore[method-assign]
    for _ in range(30):
        await world.sweep()
        world.pass_time(1)
    assert [result.status for result in world.results().values()] == [State.EXPIRED]


async def test_a_cancellation_is_noted_at_once_and_ends_nothing_before_the_store_is_steady(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(commands, "STEADY_POLL_SECONDS", 0.0)
    world = World()
    await Flow(world).send(request())
    watched = Watched()
    world.steady_since = watched.steadiness.since
    carrying_out = asyncio.create_task(world.cancel(Command(command_id="c", issued_at=START, request_id="r-1")))
    async with asyncio.timeout(10):
        while not (await world.state.look(["r-1"]))[0].cancelled:
            await asyncio.sleep(0)
    for _ in range(10):
        await asyncio.sleep(0)
    assert world.results() == {}
    await watched.watch(STEADY_SECONDS + STEP_SECONDS)
    assert await carrying_out == 1
    assert [result.status for result in world.results().values()] == [State.CANCELLED]
