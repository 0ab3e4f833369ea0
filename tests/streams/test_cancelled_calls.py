"""A cancellation of a request that is in its call, or about to be."""

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from connectors.providers.base import Call
from connectors.state.base import Claimed
from schemas.vocabulary import AttemptOutcome, FailureCategory, State
from tests.streams.cancel_support import BY_ID, SENT, THAT_FIT, cancelled, command, hear_of
from tests.streams.flow import Flow, assert_sound
from tests.streams.outage import lane_without_state, waits_with_another_try
from tests.streams.samples import OVERLOADED, TWO_PROVIDERS
from tests.streams.world import LANE_TOPIC, LEASE_SECONDS, START, World


@pytest.mark.parametrize("names", THAT_FIT, ids=str)
async def test_a_running_call_is_closed_at_once_and_recorded(names: dict[str, str]) -> None:
    """Its worker hears the command by itself, and the provider's connection is closed."""
    world = World()

    async def hear(_call: Call) -> None:
        await hear_of(world, command(**names))
        await asyncio.Event().wait()

    world.script.during = hear
    flow = Flow(world)
    await flow.send(SENT)
    async with asyncio.timeout(10):
        await flow.run()
    assert world.script.closed == 1
    (attempt,) = world.attempts().values()
    assert (attempt.outcome, attempt.possibly_billed) == (AttemptOutcome.FAILED, True)
    assert attempt.problem is not None
    assert attempt.problem.category is FailureCategory.CANCELLED
    await cancelled(world, attempts=1)
    (result,) = world.results().values()
    assert result.possibly_billed_calls == 1


async def test_a_running_call_of_another_request_goes_on() -> None:
    world = World()

    async def hear(_call: Call) -> None:
        await hear_of(world, command(request_id="r-2"))
        await asyncio.sleep(0)

    world.script.during = hear
    flow = Flow(world)
    await flow.send(SENT)
    await flow.run()
    assert [result.status for result in world.results().values()] == [State.COMPLETED]


async def test_a_running_call_of_a_request_that_was_submitted_later_goes_on() -> None:
    """Also where the request itself does not say when that was, and its record does."""
    world = World()
    world.pass_time(5)

    async def hear(_call: Call) -> None:
        await hear_of(world, command(tenant_id="t"))
        await asyncio.sleep(0)

    world.script.during = hear
    flow = Flow(world)
    await flow.send(SENT)
    await flow.run()
    assert [result.status for result in world.results().values()] == [State.COMPLETED]


async def test_one_that_is_called_off_while_it_is_claimed_is_not_called() -> None:
    """The worker hears of it before it knows that the lease is its own."""
    world = World()
    flow = Flow(world)
    await flow.send(SENT)
    claim = world.state.claim
    heard = []
    world.is_called_off = lambda _: bool(heard)

    async def claim_and_hear(request_id: str, **arguments: Any) -> object:
        taken = await claim(request_id, **arguments)
        heard.append(BY_ID)
        return taken

    world.state.claim = claim_and_hear  # type: ignore[assignment,method-assign]
    await flow.run()
    assert world.calls["r-1"] == 0
    await cancelled(world)


class HearsAtTheLast:
    """A permit that is looked at just before the call: then the command comes."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.left: list[object] = []

    @property
    def refusal(self) -> None:
        assert self._world.leases is not None
        self._world.leases.cancel(lambda _: True)

    def leave(self, outcome: object) -> None:
        self.left.append(outcome)


async def test_one_that_is_called_off_just_before_its_call_counts_no_call() -> None:
    """No call went out: nothing is flagged, and no attempt is on record."""
    world = World()
    permit = world.permit = HearsAtTheLast(world)  # type: ignore[assignment]
    flow = Flow(world)
    await flow.send(SENT)
    await flow.run()
    assert world.calls["r-1"] == 0
    await cancelled(world)
    (result,) = world.results().values()
    assert result.possibly_billed_calls == 0
    assert permit.left == [None]


async def test_the_control_role_leaves_a_call_to_its_worker_and_tells_it() -> None:
    """Should the worker not hear the command, its lease says so; should it die, the next claim does."""
    world = World()
    flow = Flow(world)
    await flow.send(SENT)
    claim = await world.state.claim("r-1", owner="other", lease_ms=int(LEASE_SECONDS * 1000))
    assert isinstance(claim, Claimed)
    assert await world.cancel(BY_ID) == 0
    assert world.results() == {}
    renewal = await world.state.renew([claim.lease], lease_ms=int(LEASE_SECONDS * 1000))
    assert renewal.cancelled == (claim.lease,)
    world.pass_time(LEASE_SECONDS + 1)
    await flow.run()
    assert world.calls["r-1"] == 0
    await cancelled(world, attempts=1)
    (attempt,) = world.attempts().values()
    assert (attempt.outcome, attempt.possibly_billed) == (AttemptOutcome.LOST, True)


async def test_a_request_whose_worker_died_is_called_off_with_its_lost_call() -> None:
    world = World()
    await Flow(world).send(SENT)
    await world.state.claim("r-1", owner="dead", lease_ms=int(LEASE_SECONDS * 1000))
    world.pass_time(LEASE_SECONDS + 1)
    assert await world.cancel(BY_ID) == 1
    await cancelled(world, attempts=1)


async def test_what_was_called_off_in_its_call_does_not_wait_for_its_next_worker() -> None:
    """Its worker heard of it and died, and no other has room, say: a sweep ends it as soon as nobody holds it."""
    world = World()
    await Flow(world).send(SENT)
    await world.state.claim("r-1", owner="dead", lease_ms=int(LEASE_SECONDS * 1000))
    assert await world.cancel(BY_ID) == 0
    assert await world.sweep() == 0
    world.pass_time(LEASE_SECONDS + 1)
    assert await world.sweep() == 1
    await cancelled(world, attempts=1)
    (attempt,) = world.attempts().values()
    assert (attempt.outcome, attempt.possibly_billed) == (AttemptOutcome.LOST, True)


async def test_an_answer_that_came_before_the_command_is_kept() -> None:
    """It is paid for: the call had ended when the worker heard of it."""
    world = World()
    flow = Flow(world)
    await flow.send(SENT)

    async def mark(_call: Call) -> None:
        await world.state.cancel(["r-1"])

    world.script.during = mark
    await flow.run()
    assert [result.status for result in world.results().values()] == [State.COMPLETED]


@pytest.mark.parametrize("may_move", [False, True], ids=["retry", "failover"])
async def test_a_call_that_fails_just_as_its_cancellation_lands_ends_at_once(*, may_move: bool) -> None:
    """Its worker has not heard of it: the shared state says that there is to be no other try."""
    world = World(outcome=OVERLOADED, catalogue=TWO_PROVIDERS)

    async def mark(_call: Call) -> None:
        assert await world.cancel(BY_ID) == 0

    world.script.during = mark
    flow = Flow(world)
    await flow.send(SENT.model_copy(update={"allow_failover": may_move}))
    await flow.run()
    assert world.clock == START
    assert world.calls["r-1"] == 1
    await cancelled(world, attempts=1)
    assert len(world.written("llm.attempts")) == 1


async def test_a_call_that_fails_while_its_cancellation_is_carried_out_ends_at_once() -> None:
    """It was seen in its call, and waits for another one before it is marked as cancelled."""
    world = World(outcome=OVERLOADED)
    flow = Flow(world)
    await flow.send(SENT)
    marking = world.state.cancel

    is_called, goes_on = asyncio.Event(), asyncio.Event()

    async def fail_and_mark(request_ids: Sequence[str]) -> None:
        goes_on.set()
        await call
        await marking(request_ids)

    async def wait(_call: Call) -> None:
        is_called.set()
        await goes_on.wait()

    world.state.cancel = fail_and_mark  # type: ignore[method-assign]
    world.script.during = wait
    call = asyncio.create_task(flow.take_one())
    await is_called.wait()
    assert await world.cancel(BY_ID) == 1
    await flow.run()
    await cancelled(world, attempts=1)


async def test_what_was_called_off_while_another_try_waited_for_the_state_is_not_tried() -> None:
    """Redis was away when it failed, and is told of the cancellation before the lane is through."""
    world = World()
    world.script.in_turn = [OVERLOADED]
    await Flow(world).send(SENT)
    (task,) = world.written(LANE_TOPIC)
    async with lane_without_state(world) as outage:
        working = await waits_with_another_try(world, outage, task)
        await world.state.cancel(["r-1"])
        outage.is_away = False
        await working
    assert world.delayed() == []
    (attempt,) = assert_sound(world)
    assert attempt.outcome is AttemptOutcome.FAILED
    assert [result.status for result in world.results().values()] == [State.CANCELLED]
    await world.confirm_all()
    assert await world.state.outstanding() == (0, 0)
