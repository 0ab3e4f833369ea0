"""Ways in which the LLM Provider Service lost or doubled work (facts/domain.md): each has a test here that passes.

Those that need processes to be killed are shown with real ones too; their tests say where.
"""

import json
from collections import Counter
from datetime import timedelta

import pytest
from aiokafka.errors import MessageSizeTooLargeError
from prometheus_client import REGISTRY

from connectors.providers.base import Answered, Call, Failed, Outcome
from connectors.providers.registry import build_provider
from policy.catalogue import Catalogue, ProviderEntry
from policy.failures import TRAITS
from schemas import LLMRequest
from schemas.vocabulary import AttemptOutcome, BreakerState, FailureCategory, Kind, State
from streams.gating import Flow as GateFlow
from tests.streams.flow import Flow, assert_sound
from tests.streams.gate_support import Fleet
from tests.streams.gate_support import catalogue as gate_catalogue
from tests.streams.outage import lane_without_state
from tests.streams.samples import BROKEN_STREAM, OVERLOADED, TWO_PROVIDERS, catalogue, failed, request
from tests.streams.world import ANSWER, LANE_TOPIC, LEASE_SECONDS, START, Crash, Crasher, OpenPermit, World
from tests.support.fault_cases import CASES
from tests.support.fault_server import FaultServer


async def test_two_workers_that_see_the_same_task_call_once() -> None:
    """A two-replica peek at the queue called the provider twice.

    With real processes: tests/integration/test_kills.py, workers that join and leave.
    """
    world = World()
    await Flow(world).send(request())
    (task,) = world.written(LANE_TOPIC)
    delivery = world.redelivery(task)
    one, other = world.lane_worker("simulated"), world.lane_worker("simulated")
    told: list[float | None] = []

    async def meanwhile(_call: Call) -> None:
        told.append(await other.handle(delivery, OpenPermit()))

    world.script.during = meanwhile
    assert await one.handle(delivery, OpenPermit()) is None
    assert told[0] is not None  # to come back, not to call
    assert await other.handle(delivery, OpenPermit()) is None
    assert world.calls["r-1"] == 1
    assert_sound(world)


async def test_a_crash_during_a_call_holds_its_request_up_for_a_lease_and_no_longer() -> None:
    """A crash during a call stranded the entry until its TTL.

    With real processes: tests/integration/test_kills.py, kill -9 of a lane worker.
    """
    world = World()
    flow = Flow(world)
    await flow.send(request())

    async def die(_call: Call) -> None:
        world.script.during = None
        raise Crash

    world.script.during = die
    await flow.run()
    attempts = assert_sound(world)
    (result,) = world.results().values()
    assert (result.status, world.calls["r-1"], result.possibly_billed_calls) == (State.COMPLETED, 2, 1)
    assert [attempt.outcome for attempt in attempts] == [AttemptOutcome.LOST, AttemptOutcome.ANSWERED]
    assert result.finished_at - START <= timedelta(seconds=2 * LEASE_SECONDS)


async def test_requests_whose_worker_died_hold_up_no_other() -> None:
    """Ten stranded entries blocked the queue.

    A record that comes back gives up its call meanwhile: tests/streams/test_dispatch.py.
    """
    world = World()
    flow = Flow(world)
    for number in range(11):
        await flow.send(request(f"r-{number}"))
    for number in range(10):
        await world.state.claim(f"r-{number}", owner="dead", lease_ms=int(LEASE_SECONDS * 1000))
    lane = world.lane_worker("simulated")
    waits = [await lane.handle(world.redelivery(task), OpenPermit()) for task in world.written(LANE_TOPIC)]
    assert [wait is None for wait in waits] == [False] * 10 + [True]
    assert [result.request_id for result in world.results().values()] == ["r-10"]
    world.pass_time(LEASE_SECONDS)
    await flow.run()
    assert {result.status for result in world.results().values()} == {State.COMPLETED}
    assert len(world.results()) == 11


async def test_a_crash_after_the_answer_was_stored_does_not_lose_it() -> None:
    """A crash after the provider's answer lost a paid result.

    With real processes: tests/integration/test_kills.py, kill -9 of a lane worker.
    """
    stored_and_unpublished = 0
    for step in range(1, 30):
        world = World()
        flow = Flow(world)
        await flow.send(request())
        (task,) = world.written(LANE_TOPIC)
        try:
            await world.lane(world.redelivery(task), Crasher(at=step))
        except Crash:
            (known,) = await world.state.look(["r-1"])
            if known.state is not State.COMPLETED:
                continue
            stored_and_unpublished += not world.results()
            await world.lane(world.redelivery(task))
            assert world.calls["r-1"] == 1
            (result,) = world.results().values()
            assert result.answer is not None
            assert result.answer.text == ANSWER.text
            assert_sound(world)
        else:
            break
    assert stored_and_unpublished >= 2


@pytest.mark.parametrize("topic", ["llm.results", "llm.status", "llm.attempts", "llm.requests.dlt"])
async def test_what_could_not_be_published_is_not_done(topic: str) -> None:
    """Publish errors were swallowed.

    The record is not acknowledged (tests/streams/test_pool.py), and with a broker away nothing is lost
    (tests/integration/test_outages.py).
    """
    world = World(outcome=failed(FailureCategory.AUTHENTICATION))
    flow = Flow(world)
    await flow.send(request())
    world.refused_topic = topic
    with pytest.raises(MessageSizeTooLargeError):
        await flow.run()
    # What is in Kafka of it may be known by then.
    await world.confirm_all()
    world.refused_topic = None
    world.pass_time(LEASE_SECONDS)
    await flow.run()
    assert_sound(world)
    assert world.calls["r-1"] == 1


async def test_an_expired_request_tells_so() -> None:
    """Expired requests told nobody."""
    world = World()
    await Flow(world).send(request(deadline_at=START + timedelta(seconds=5)))
    world.pass_time(5)
    await world.sweep()
    assert [event.type for event in world.events().values()][-1] == "QUEUE_REQUEST_EXPIRED"
    (result,) = world.results().values()
    assert (result.status, result.problem is not None) == (State.EXPIRED, True)


async def test_redis_is_used_again_when_it_is_back() -> None:
    """Once Redis was marked down it was never used again.

    With a real Redis: tests/integration/test_outages.py.
    """
    world = World()
    flow = Flow(world)
    for number in range(3):
        await flow.send(request(f"r-{number}"))
    first, second, third = (world.redelivery(task, is_surely_new=True) for task in world.written(LANE_TOPIC))
    await world.lane(first)
    async with lane_without_state(world) as outage:
        await world.lane(second)
        outage.is_away = False
        outage.seconds += 60
        asked = outage.asked.total()
        await world.lane(third)
        assert outage.asked.total() > asked
    (known,) = await world.state.look(["r-2"])
    assert known.state is State.COMPLETED
    await world.confirm_all()
    assert await world.state.outstanding() == (0, 0)


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
async def test_a_retry_waits_and_is_in_kafka_all_the_while(after: bool) -> None:
    """Requeue was remove-then-add with no delay."""
    for step in range(1, 40):
        world = World(outcome=ANSWER)
        world.script.in_turn = [OVERLOADED]
        flow = Flow(world)
        await flow.send(request())
        flow.crasher = Crasher(at=step, after=after)
        await flow.take_one()
        if world.results() == {}:
            # The crash has passed, and what leads on is in Kafka.
            assert flow.left() != []
        has_crashed = flow.has_crashed
        await flow.run()
        attempts = assert_sound(world)
        assert [result.status for result in world.results().values()] == [State.COMPLETED]
        overloaded = [attempt for attempt in attempts if attempt.outcome is AttemptOutcome.FAILED]
        for scheduled in [event for event in world.events().values() if event.state is State.RETRY_SCHEDULED]:
            assert scheduled.retry_at is not None
            assert scheduled.retry_at - overloaded[0].ended_at >= timedelta(seconds=1)
            assert attempts[-1].started_at >= scheduled.retry_at
        if not has_crashed:
            return
    pytest.fail("there are more steps than were tried")


@pytest.mark.parametrize("providers", [1, 2, 4, 6])
async def test_retries_and_failovers_together_make_four_calls_at_most(providers: int) -> None:
    """Retries multiplied (up to 12 paid calls for one request).

    SDKs do not retry by themselves: tests/providers/contract/test_contract_outcomes.py counts what a server saw.
    """
    names = [f"p{number}" for number in range(providers)]
    world = World(outcome=BROKEN_STREAM, catalogue=catalogue(*names))
    flow = Flow(world)
    await flow.send(request(allow_failover=True))
    await flow.run()
    assert len(assert_sound(world)) == world.calls["r-1"] == 4


@pytest.mark.parametrize(("status", "calls"), [(400, 1), (401, 1), (403, 1), (404, 1), (422, 1), (500, 4), (503, 4)])
async def test_a_refusal_of_a_real_server_is_not_tried_again(status: int, calls: int) -> None:
    """Errors were rewrapped so that 400 and 401 were retried.

    Through the provider's own SDK, which would try 500 and 503 again by itself.
    """
    async with FaultServer({"model-1": CASES[f"status-{status}"]}) as server:
        entry = ProviderEntry(type="openai", models=["model-1"], base_url=server.base_url)
        world = World(catalogue=Catalogue(providers={"remote": entry}))
        world.provider = build_provider("remote", entry, environ={})
        flow = Flow(world)
        await flow.send(request())
        await flow.run()
        await world.provider.close()
        assert len(server.exchanges) == calls
    (result,) = world.results().values()
    assert (result.status, len(result.attempts)) == (State.FAILED, calls)


async def test_failures_of_the_provider_open_its_breaker() -> None:
    """The circuit breaker watched for an exception type that the providers never raised, so it never opened.

    Here it learns from what the lane tells of its calls to a server that fails.
    """
    fleet = Fleet(gate_catalogue(), size=1)
    (gate,) = fleet.gates
    async with FaultServer({"model-1": CASES["status-500"]}) as server:
        entry = ProviderEntry(type="openai", models=["model-1"], base_url=server.base_url)
        world = World(catalogue=Catalogue(providers={"p": entry}))
        world.provider = build_provider("p", entry, environ={})
        flow = Flow(world)
        for number in range(6):
            await flow.send(request(f"r-{number}"))
        lane = world.lane_worker("p")
        calls = 0
        for task in world.written("llm.lane.p.normal"):
            await fleet.sync()
            permit = gate.try_enter(GateFlow("default", "model-1"), estimated_tokens=1)
            if permit is None:
                break
            await lane.handle(world.redelivery(task), permit)
            calls += 1
        await world.provider.close()
        assert calls == len(server.exchanges) == 5
    assert gate.snapshot().state is BreakerState.OPEN


async def test_a_request_is_called_at_the_provider_that_it_asked_for() -> None:
    """A queued request was replayed on another provider than the one it asked for."""
    world = World(outcome=OVERLOADED, catalogue=TWO_PROVIDERS)
    flow = Flow(world)
    await flow.send(request(provider="second", allow_failover=True))
    await flow.run()
    await flow.redrive(world.written("llm.requests.dlt")[0])
    await flow.run()
    assert_sound(world, lives=2)
    assert Counter(provider for provider, _ in world.script.made) == {"second": 8}


async def test_a_request_that_fails_repeats_no_other() -> None:
    """One batch item failing repeated all the paid ones."""
    world = World(outcome=ANSWER)
    world.script.in_turn = [ANSWER] * 5 + [OVERLOADED]
    flow = Flow(world)
    for number in range(10):
        await flow.send(request(f"r-{number}"))
    await flow.run()
    assert {result.status for result in world.results().values()} == {State.COMPLETED}
    assert world.calls == {f"r-{number}": 2 if number == 5 else 1 for number in range(10)}


async def test_each_error_of_a_provider_is_counted_as_a_failure() -> None:
    """66 of 100 provider errors were counted as completions."""
    before = _ended()
    world = World()
    outcomes: list[Outcome] = [failed(category) for category in TRAITS]
    world.retry = type(world.retry)(max_retries=0)
    world.script.in_turn = list(outcomes)
    flow = Flow(world)
    for number in range(len(outcomes)):
        await flow.send(request(f"r-{number}"))
    await flow.run()
    assert len(world.results()) == len(outcomes)
    for result, outcome in zip(
        sorted(world.results().values(), key=lambda result: int(result.request_id[2:])), outcomes, strict=True
    ):
        assert isinstance(outcome, Failed)
        expected = State.EXPIRED if outcome.problem.category is FailureCategory.DEADLINE else State.FAILED
        assert (result.status, result.answer) == (expected, None)
    after = _ended()
    assert after[State.COMPLETED] == before[State.COMPLETED]
    assert after[State.FAILED] + after[State.EXPIRED] - before[State.FAILED] - before[State.EXPIRED] == len(outcomes)


@pytest.mark.parametrize(
    "verdict",
    [
        {"justification": "x" * 60, "confidence": 3.0},
        {"winner": None, "justification": "x" * 60, "confidence": 3.0},
        {"winner": "", "justification": "x" * 60, "confidence": 3.0},
        {"winner": "Essay C", "justification": "x" * 60, "confidence": 3.0},
    ],
    ids=["missing", "null", "empty", "another"],
)
async def test_a_winner_that_was_not_named_is_nobody(verdict: dict[str, object]) -> None:
    """A missing winner became "Essay A"."""
    world = World(outcome=Answered(text=json.dumps(verdict), finish_reason="stop", model="m"))
    flow = Flow(world)
    await flow.send(LLMRequest(request_id="r-1", kind=Kind.COMPARISON, prompt="p", essay_a="a", essay_b="b"))
    await flow.run()
    assert_sound(world)
    (result,) = world.results().values()
    assert (result.status, result.answer) == (State.FAILED, None)
    assert result.problem is not None
    assert result.problem.category is FailureCategory.MALFORMED


def _ended() -> Counter[str]:
    """Requests that ended, by state, as operators are told."""
    counted: Counter[str] = Counter()
    for metric in REGISTRY.collect():
        for sample in metric.samples:
            if sample.name == "sluice_requests_ended_total":
                counted[sample.labels["state"]] += int(sample.value)
    return counted
