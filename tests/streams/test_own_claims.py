"""Claims of a worker's own while the shared state is away, and how they give way to it when it is back."""

import asyncio

import pytest

from connectors.providers.base import Call
from connectors.state.base import Busy, Claimed, Ended, Settled, StateUnavailableError, TaskRef
from schemas.command import Command
from schemas.vocabulary import AttemptOutcome, State
from streams import own_claims
from streams.own_claims import ASK_AGAIN_SECONDS, AWAY_SECONDS, EndsOfOthers
from tests.streams.flow import Flow, assert_sound
from tests.streams.outage import LEASE_MS, TASK, Outage, away, lane_without_state, waits_with_another_try
from tests.streams.samples import OVERLOADED, request
from tests.streams.world import ANSWER, LANE_TOPIC, Crash, Crasher, World

DOUBTFUL = TaskRef(version=1, attempt=1, size_bytes=10, deadline_ms=2**50, is_doubtful=True)


async def test_a_short_absence_is_waited_for() -> None:
    outage = Outage(World())
    claims = outage.claims()
    outage.is_away = True
    for _ in range(3):
        with pytest.raises(StateUnavailableError):
            await claims.claim("r-1", owner="us", lease_ms=LEASE_MS, task=TASK)
        outage.seconds += AWAY_SECONDS / 4
    assert not claims.is_away


async def test_a_record_that_nobody_else_had_is_claimed_and_settled_alone() -> None:
    world = World()
    outage = Outage(world)
    claims = outage.claims()
    await away(outage, claims)
    claim = await claims.claim("r-1", owner="us", lease_ms=LEASE_MS, task=TASK)
    assert isinstance(claim, Claimed)
    assert (claim.lease.is_own, claim.lease.attempt, claim.lease.version) == (True, 1, 2)
    assert not claim.history_missing
    assert await claims.settle(claim.lease, State.COMPLETED, b"x") is None
    again = await claims.claim("r-1", owner="us", lease_ms=LEASE_MS, task=TASK)
    assert again == Settled(State.COMPLETED, 3, b"x")
    claims.published("r-1")
    again = await claims.claim("r-1", owner="us", lease_ms=LEASE_MS, task=TASK)
    assert again == Settled(State.COMPLETED, 3, None)


async def test_an_end_that_is_not_published_yet_is_not_noted() -> None:
    """Whoever got the task from a store that calls it ended would publish nothing."""
    world = World()
    await world.intake(world.request_delivery(request()))
    outage = Outage(world)
    claims = outage.claims()
    await away(outage, claims)
    claim = await claims.claim("r-1", owner="us", lease_ms=LEASE_MS, task=TASK)
    assert isinstance(claim, Claimed)
    await claims.settle(claim.lease, State.COMPLETED, b"x")
    outage.is_away = False
    await claims._note()
    assert await world.state.outstanding() != (0, 0)
    again = await claims.claim("r-1", owner="us", lease_ms=LEASE_MS, task=TASK)
    assert again == Settled(State.COMPLETED, 3, b"x")
    claims.published("r-1")
    await claims._note()
    assert await world.state.outstanding() == (0, 0)


async def test_a_record_that_another_worker_may_have_had_waits_for_the_state() -> None:
    """That one may be calling for it, or have ended it: its result would not be the only one."""
    world = World()
    await world.intake(world.request_delivery(request()))
    outage = Outage(world)
    claims = outage.claims()
    await away(outage, claims)
    claim = await claims.claim("r-1", owner="us", lease_ms=LEASE_MS, task=DOUBTFUL)
    assert isinstance(claim, Busy)
    outage.is_away = False
    claim = await claims.claim("r-1", owner="us", lease_ms=LEASE_MS, task=DOUBTFUL)
    assert isinstance(claim, Claimed)
    assert not claim.lease.is_own


async def test_a_claim_without_a_task_waits_for_the_state() -> None:
    outage = Outage(World())
    claims = outage.claims()
    await away(outage, claims)
    claim = await claims.claim("r-1", owner="us", lease_ms=LEASE_MS)
    assert isinstance(claim, Busy)


async def test_while_it_is_away_it_is_asked_now_and_then_only() -> None:
    """Each step that asks waits for its timeout."""
    outage = Outage(World())
    claims = outage.claims()
    await away(outage, claims)
    outage.asked.clear()
    for number in range(100):
        assert isinstance(await claims.claim(f"r-{number}", owner="us", lease_ms=LEASE_MS, task=TASK), Claimed)
    assert outage.asked.total() == 1
    outage.seconds += ASK_AGAIN_SECONDS
    for number in range(100):
        await claims.claim(f"s-{number}", owner="us", lease_ms=LEASE_MS, task=TASK)
    assert outage.asked.total() == 2


async def test_it_comes_back_by_itself_with_the_first_claim_that_is_answered() -> None:
    world = World()
    outage = Outage(world)
    claims = outage.claims()
    await away(outage, claims)
    assert isinstance(await claims.claim("r-1", owner="us", lease_ms=LEASE_MS, task=TASK), Claimed)
    outage.is_away = False
    outage.seconds += ASK_AGAIN_SECONDS
    claim = await claims.claim("r-2", owner="us", lease_ms=LEASE_MS, task=TASK)
    assert isinstance(claim, Claimed)
    assert not claim.lease.is_own
    assert not claims.is_away


async def test_ends_made_meanwhile_are_noted_when_it_is_back() -> None:
    world = World()
    await world.intake(world.request_delivery(request()))
    outage = Outage(world)
    claims = outage.claims()
    await away(outage, claims)
    claim = await claims.claim("r-1", owner="us", lease_ms=LEASE_MS, task=TASK)
    assert isinstance(claim, Claimed)
    await claims.settle(claim.lease, State.COMPLETED, b"x")
    claims.published("r-1")
    await claims._note()  # it is away still
    outage.is_away = False
    assert await world.state.outstanding() != (0, 0)
    await claims.close()
    assert await world.state.outstanding() == (0, 0)
    assert await world.state.claim("r-1", owner="them", lease_ms=LEASE_MS, task=TASK) == Settled(
        State.COMPLETED, 3, None
    )


async def test_ends_are_noted_without_anybody_asking(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(own_claims, "NOTE_SECONDS", 0.001)
    world = World()
    await world.intake(world.request_delivery(request()))
    outage = Outage(world)
    claims = outage.claims()
    claims.start()
    await away(outage, claims)
    claim = await claims.claim("r-1", owner="us", lease_ms=LEASE_MS, task=TASK)
    assert isinstance(claim, Claimed)
    await claims.settle(claim.lease, State.COMPLETED, b"x")
    claims.published("r-1")
    outage.is_away = False
    async with asyncio.timeout(10):
        while claims.is_away or await world.state.outstanding() != (0, 0):
            await asyncio.sleep(0.001)
    await claims.close()


async def test_a_bound_on_ends_that_wait_to_be_noted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(own_claims, "MAX_UNNOTED_ENDS", 2)
    outage = Outage(World())
    claims = outage.claims()
    await away(outage, claims)
    for number in range(2):
        claim = await claims.claim(f"r-{number}", owner="us", lease_ms=LEASE_MS, task=TASK)
        assert isinstance(claim, Claimed)
        await claims.settle(claim.lease, State.COMPLETED, b"x")
    claim = await claims.claim("r-2", owner="us", lease_ms=LEASE_MS, task=TASK)
    assert isinstance(claim, Busy)


@pytest.mark.parametrize("step", ["settle", "reschedule"])
async def test_a_worker_is_fenced_where_another_one_claimed_meanwhile(step: str) -> None:
    """The state came back during the call, and somebody else has the task now."""
    world = World()
    await world.intake(world.request_delivery(request()))
    outage = Outage(world)
    claims = outage.claims()
    await away(outage, claims)
    claim = await claims.claim("r-1", owner="us", lease_ms=LEASE_MS, task=TASK)
    assert isinstance(claim, Claimed)
    outage.is_away = False
    outage.seconds += ASK_AGAIN_SECONDS
    theirs = await world.state.claim("r-1", owner="them", lease_ms=LEASE_MS, task=TASK)
    assert isinstance(theirs, Claimed)
    if step == "settle":
        lost = await claims.settle(claim.lease, State.COMPLETED, b"ours")
    else:
        lost = await claims.reschedule(
            claim.lease, State.RETRY_SCHEDULED, task_version=1, next_attempt=2, summary=b"ours"
        )
    assert lost is not None
    assert lost.state is State.PROCESSING
    assert await world.state.settle(theirs.lease, State.COMPLETED, b"theirs") is None


async def test_a_lease_of_the_shared_state_is_settled_there_and_nowhere_else() -> None:
    world = World()
    await world.intake(world.request_delivery(request()))
    outage = Outage(world)
    claims = outage.claims()
    claim = await claims.claim("r-1", owner="us", lease_ms=LEASE_MS, task=TASK)
    assert isinstance(claim, Claimed)
    await away(outage, claims)
    for _ in range(2):
        with pytest.raises(StateUnavailableError):
            await claims.settle(claim.lease, State.COMPLETED, b"x")
        with pytest.raises(StateUnavailableError):
            await claims.reschedule(claim.lease, State.RETRY_SCHEDULED, task_version=1, next_attempt=2, summary=b"x")
    outage.is_away = False
    assert await claims.settle(claim.lease, State.COMPLETED, b"x") is None


async def test_own_leases_are_neither_renewed_nor_given_back_in_the_shared_state() -> None:
    outage = Outage(World())
    claims = outage.claims()
    await away(outage, claims)
    claim = await claims.claim("r-1", owner="us", lease_ms=LEASE_MS, task=TASK)
    assert isinstance(claim, Claimed)
    outage.asked.clear()
    assert (await claims.renew([claim.lease], lease_ms=LEASE_MS)).lost == ()
    await claims.release(claim.lease, called=True)
    assert outage.asked.total() == 0


async def test_a_lane_completes_what_it_has_while_the_state_is_away() -> None:
    world = World()
    await Flow(world).send(request())
    (task,) = world.written(LANE_TOPIC)
    async with lane_without_state(world):
        await world.lane(world.redelivery(task, is_surely_new=True))
    assert_sound(world)
    (result,) = world.results().values()
    assert (result.status, result.possibly_billed_calls) == (State.COMPLETED, 0)
    await world.lane(world.redelivery(task))
    assert world.calls["r-1"] == 1
    assert await world.state.outstanding() == (0, 0)


async def test_a_call_that_was_begun_alone_is_known_when_the_state_is_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """A cancellation leaves it to its worker, which hears of it and ends with its call on record."""
    monkeypatch.setattr(own_claims, "NOTE_SECONDS", 0.0)
    world = World()
    await Flow(world).send(request())
    (task,) = world.written(LANE_TOPIC)
    outage = Outage(world)
    claims = outage.claims()
    await away(outage, claims)
    world.claims = claims

    async def come_back(_call: Call) -> None:
        keeper = world.leases
        assert keeper is not None
        claims.on_back = keeper.renew_soon
        keeper.start()
        outage.is_away = False
        claims.start()
        while not (await world.state.look(["r-1"]))[0].held_ms:
            await asyncio.sleep(0.001)
        command = Command(command_id="c", issued_at=world.clock, request_id="r-1")
        assert await world.cancel(command) == 0
        keeper.renew_soon()
        await asyncio.Event().wait()

    world.script.during = come_back
    async with asyncio.timeout(10):
        await world.lane(world.redelivery(task, is_surely_new=True))
    assert world.leases is not None
    await world.leases.close()
    await claims.close()
    attempts = assert_sound(world)
    assert [(attempt.outcome, attempt.possibly_billed) for attempt in attempts] == [(AttemptOutcome.FAILED, True)]
    assert [result.status for result in world.results().values()] == [State.CANCELLED]


async def test_the_call_of_a_worker_that_died_alone_is_flagged_when_the_state_is_back() -> None:
    world = World()
    flow = Flow(world)
    await flow.send(request())
    (task,) = world.written(LANE_TOPIC)
    async with lane_without_state(world):
        for step in range(1, 10):
            with pytest.raises(Crash):
                await world.lane(world.redelivery(task, is_surely_new=True), Crasher(at=step, after=True))
            if world.calls["r-1"]:
                break
    assert world.results() == {}
    await world.lane(world.redelivery(task, may_have_been_called=True))
    attempts = assert_sound(world)
    assert world.calls["r-1"] == 2
    assert [attempt.outcome for attempt in attempts] == [AttemptOutcome.LOST, AttemptOutcome.ANSWERED]


async def test_another_try_that_was_decided_alone_waits_for_the_state() -> None:
    """Made alone, nobody could tell the state of it: what is still queued there may be ended from outside."""
    world = World(outcome=ANSWER)
    world.script.in_turn = [OVERLOADED]
    flow = Flow(world)
    await flow.send(request())
    (task,) = world.written(LANE_TOPIC)
    async with lane_without_state(world) as outage:
        working = await waits_with_another_try(world, outage, task)
        assert world.delayed() == []
        outage.is_away = False
        await working
    (waiting,) = world.delayed()
    world.pass_time(5)
    await world.delay(waiting)
    following = world.written(LANE_TOPIC)[-1]
    await world.lane(world.redelivery(following))
    attempts = assert_sound(world)
    assert [attempt.outcome for attempt in attempts] == [AttemptOutcome.FAILED, AttemptOutcome.ANSWERED]
    await world.confirm_all()
    assert await world.state.outstanding() == (0, 0)


async def test_an_end_whose_worker_died_is_found_in_kafka() -> None:
    """It could not note its ends; the control role reads them among the results."""
    world = World()
    await Flow(world).send(request())
    (task,) = world.written(LANE_TOPIC)
    outage = Outage(world)
    claims = outage.claims()
    await away(outage, claims)
    world.claims = claims
    await world.lane(world.redelivery(task, is_surely_new=True))
    world.claims = None
    outage.is_away = False
    await world.confirm_all()
    await world.lane(world.redelivery(task))
    assert_sound(world)
    assert world.calls["r-1"] == 1
    assert await world.state.outstanding() == (0, 0)


async def test_what_is_known_to_have_ended_is_not_noted_over() -> None:
    """Somebody else ended it differently while this worker was cut off."""
    world = World()
    await Flow(world).send(request())
    (known,) = await world.state.look(["r-1"])
    assert await world.state.end(known, State.CANCELLED, b"theirs") is None
    await world.state.confirm([Ended("r-1", State.COMPLETED, 1)])
    assert await world.state.claim("r-1", owner="x", lease_ms=1, task=TASK) == Settled(State.CANCELLED, 2, b"theirs")


async def test_what_a_dead_worker_has_ended_alone_is_known_before_its_record_is_claimed() -> None:
    """The state is back, and the control role has not read that result yet: called again, it would end twice."""
    world = World()
    await Flow(world).send(request())
    (task,) = world.written(LANE_TOPIC)
    outage = Outage(world)
    world.claims = outage.claims()
    await away(outage, world.claims)
    await world.lane(world.redelivery(task, is_surely_new=True))
    world.claims = None
    (known,) = await world.state.look(["r-1"])
    assert known.state is State.QUEUED
    world.ends_of_others = EndsOfOthers(world.confirm_all)
    await world.lane(world.redelivery(task, may_have_been_called=True))
    assert_sound(world)
    assert world.calls["r-1"] == 1
