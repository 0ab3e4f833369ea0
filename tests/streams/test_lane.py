"""What a lane does with a task."""

import contextlib
from datetime import timedelta

from connectors.providers.base import Answered, Failed
from connectors.settings import Settings
from connectors.state.base import Claimed
from policy.failures import problem
from policy.retry import RetryPolicy
from schemas import LLMRequest
from schemas.attempt import Usage
from schemas.request import Message
from schemas.vocabulary import AttemptOutcome, DuplicatePolicy, FailureCategory, Kind, Role, State
from streams.context import Delivery
from streams.lane import MAX_LOST_CALLS
from streams.own_claims import OutageClaims
from tests.streams.samples import UNAUTHORISED
from tests.streams.world import LANE_TOPIC, LEASE_SECONDS, START, Crash, Crasher, World


def request(**fields: object) -> LLMRequest:
    return LLMRequest.model_validate(
        {"request_id": "r-1", "messages": [Message(role=Role.USER, content="hi")], **fields}
    )


def lane_delivery(world: World) -> Delivery:
    (task,) = world.written("llm.lane.simulated.normal")
    return world.delivery(task.value or b"", key=task.key, topic=task.topic)


async def run(world: World, sent: LLMRequest) -> None:
    await world.intake(world.request_delivery(sent))
    await world.lane_all()


async def test_an_answer_makes_a_result_an_attempt_record_and_a_completed_event() -> None:
    usage = Usage(input_tokens=3, output_tokens=5)
    world = World(outcome=Answered(text="yes", finish_reason="stop", model="m-2", usage=usage))
    await run(world, request(user_id="u", correlation_id="c", metadata={"k": "v"}))
    (result,) = world.results().values()
    assert result.answer is not None
    assert (result.answer.text, result.answer.model, result.usage) == ("yes", "m-2", usage)
    assert (result.user_id, result.correlation_id, result.metadata) == ("u", "c", {"k": "v"})
    assert result.possibly_billed_calls == 0
    (attempt,) = world.attempts().values()
    assert (attempt.outcome, attempt.usage) == (AttemptOutcome.ANSWERED, usage)
    assert [event.type for event in world.events().values()] == [
        "QUEUE_REQUEST_QUEUED",
        "QUEUE_REQUEST_PROCESSING",
        "QUEUE_REQUEST_COMPLETED",
    ]
    assert [event.state_version for event in world.events().values()] == [1, 2, 3]


async def test_a_failure_keeps_its_category_and_whether_it_may_have_been_billed() -> None:
    refusal = problem(FailureCategory.REFUSAL, "no", http_status=200)
    world = World(outcome=Failed(problem=refusal, possibly_billed=True))
    await run(world, request())
    (result,) = world.results().values()
    assert (result.status, result.problem, result.possibly_billed_calls) == (State.FAILED, refusal, 1)


async def test_a_failure_that_may_pass_is_tried_again_and_does_not_end_the_request() -> None:
    world = World(outcome=Failed(problem=problem(FailureCategory.SERVER_ERROR, "500"), possibly_billed=True))
    await run(world, request())
    assert world.results() == {}
    assert [event.state for event in world.events().values()][-1] is State.RETRY_SCHEDULED
    assert len(world.delayed()) == 1


async def test_an_answer_that_does_not_fit_a_comparison_is_a_failure_and_never_repaired() -> None:
    world = World(outcome=Answered(text='{"winner": "Essay A"}', finish_reason="stop", model="m"))
    world.retry = RetryPolicy(max_retries=0)
    await run(world, LLMRequest(request_id="r-1", kind=Kind.COMPARISON, prompt="p", essay_a="a", essay_b="b"))
    (result,) = world.results().values()
    assert result.status is State.FAILED
    assert result.answer is None
    assert result.problem is not None
    assert result.problem.category is FailureCategory.MALFORMED


async def test_a_task_that_is_late_expires_and_calls_nobody() -> None:
    world = World()
    await world.intake(world.request_delivery(request(deadline_at=START + timedelta(seconds=5))))
    world.pass_time(6)
    await world.lane_all()
    (result,) = world.results().values()
    assert result.status is State.EXPIRED
    assert world.calls["r-1"] == 0


async def test_a_task_delivered_again_before_its_end_is_confirmed_says_the_same_again() -> None:
    """Whoever settled it may have died before Kafka had it."""
    world = World()
    await run(world, request())
    results, events, attempts = world.results(), world.events(), world.attempts()
    written = len(world.written("llm.results"))
    await world.lane_all()
    assert len(world.written("llm.results")) == written + 1
    assert (world.results(), world.events(), world.attempts()) == (results, events, attempts)
    assert world.calls["r-1"] == 1


async def test_what_follows_from_a_confirmed_result_is_said_again_by_another_worker() -> None:
    """Whoever published the result may have died before the rest was in Kafka."""
    world = World(outcome=UNAUTHORISED)
    await run(world, request())
    await world.confirm_all()
    results, events, attempts = world.results(), world.events(), world.attempts()
    (letter,) = world.written("llm.requests.dlt")
    world.log = [record for record in world.log if record.topic in ("llm.results", LANE_TOPIC)]
    await world.lane_all()
    ends = {identity: event for identity, event in events.items() if event.state.is_terminal}
    assert (world.results(), world.events(), world.attempts()) == (results, ends, attempts)
    assert [again.value for again in world.written("llm.requests.dlt")] == [letter.value]
    assert len(world.written("llm.results")) == 1
    assert world.calls["r-1"] == 1


async def test_what_a_worker_has_published_whole_it_does_not_say_again() -> None:
    """After a rebalance it gets again what it has done, and could not commit."""
    world = World()
    world.claims = OutageClaims(world.state, provider="simulated")
    await run(world, request())
    await world.confirm_all()
    written = len(world.log)
    await world.lane_all()
    assert len(world.log) == written
    assert world.calls["r-1"] == 1


async def test_the_copy_for_a_topic_of_the_senders_survives_a_crash_before_publishing() -> None:
    world = World(
        settings=Settings(redis_url="redis://none", kafka_bootstrap="none", worker={"result_topics": ["mine"]})
    )
    await world.intake(world.request_delivery(request(result_topic="mine")))
    with contextlib.suppress(Crash):
        await world.lane(lane_delivery(world), Crasher(at=5))
    assert world.written("mine") == []
    await world.lane(lane_delivery(world))
    assert len(world.written("mine")) == 1
    assert world.calls["r-1"] == 1


async def test_after_a_lost_call_the_policy_fail_ends_the_request_without_a_second_call() -> None:
    world = World()
    await world.intake(world.request_delivery(request(duplicate_policy=DuplicatePolicy.FAIL)))
    claim = await world.state.claim("r-1", owner="dead", lease_ms=int(LEASE_SECONDS * 1000))
    assert isinstance(claim, Claimed)
    world.pass_time(LEASE_SECONDS + 1)
    await world.lane_all()
    (result,) = world.results().values()
    assert result.problem is not None
    assert result.problem.category is FailureCategory.OUTCOME_LOST
    assert result.possibly_billed_calls == 1
    assert world.calls["r-1"] == 0


async def test_without_a_lost_call_the_policy_fail_changes_nothing() -> None:
    world = World()
    await run(world, request(duplicate_policy=DuplicatePolicy.FAIL))
    (result,) = world.results().values()
    assert result.status is State.COMPLETED


async def test_when_the_store_has_forgotten_a_request_a_call_before_is_assumed_and_flagged() -> None:
    """Redis came back empty: nobody can tell whether the provider was called, so it counts as possibly billed."""
    world = World()
    await world.intake(world.request_delivery(request()))
    world.forget()
    await world.lane_all()
    (result,) = world.results().values()
    assert (result.status, result.possibly_billed_calls) == (State.COMPLETED, 1)
    assert [attempt.attempt for attempt in world.attempts().values()] == [1, 2]


async def test_a_constraint_that_forbids_the_provider_is_checked_again_before_the_call() -> None:
    """The provider was local when the request was routed, and is not any more."""
    world = World()
    await world.intake(world.request_delivery(request(constraints={"sensitivity": "critical"})))
    entry = world.catalogue.providers["simulated"].model_copy(update={"local": False})
    world.catalogue = world.catalogue.model_copy(update={"providers": {"simulated": entry}})
    await world.lane_all()
    (result,) = world.results().values()
    assert result.problem is not None
    assert result.problem.category is FailureCategory.DENIED
    assert world.calls["r-1"] == 0


async def test_an_answer_too_large_for_any_topic_is_a_failure_that_says_so() -> None:
    world = World(outcome=Answered(text="x" * 5_000_000, finish_reason="stop", model="m"))
    await run(world, request())
    (result,) = world.results().values()
    assert result.problem is not None
    assert result.problem.category is FailureCategory.TOO_LARGE


async def test_tokens_are_published_with_attempt_and_sequence() -> None:
    world = World()
    await run(world, request(stream=True))
    assert [record.key for record in world.written("llm.deltas")] == [b"r-1"]


async def test_without_streaming_no_token_is_published() -> None:
    world = World()
    await run(world, request())
    assert world.written("llm.deltas") == []


async def test_a_task_nobody_can_read_is_set_aside_byte_for_byte() -> None:
    world = World()
    await world.lane(world.delivery(b"\xc3\x01nonsense", key=b"r-1", topic="llm.lane.simulated.normal"))
    assert [record.value for record in world.written("llm.requests.dlt")] == [b"\xc3\x01nonsense"]
    (result,) = world.results().values()
    assert (result.request_id, result.status) == ("r-1", State.FAILED)


async def test_a_request_that_takes_its_workers_down_is_not_called_for_ever() -> None:
    world = World()
    await world.intake(world.request_delivery(request()))
    for _ in range(MAX_LOST_CALLS):
        assert isinstance(await world.state.claim("r-1", owner="dead", lease_ms=1000), Claimed)
        world.pass_time(2)
    await world.lane_all()
    (result,) = world.results().values()
    assert result.problem is not None
    assert result.problem.category is FailureCategory.OUTCOME_LOST
    assert (result.possibly_billed_calls, world.calls["r-1"]) == (MAX_LOST_CALLS, 0)


async def test_tokens_that_cannot_be_written_do_not_cost_the_answer() -> None:
    world = World(outcome=Answered(text="x" * 5000, finish_reason="stop", model="m"), refused_topic="llm.deltas")
    await run(world, request(stream=True))
    (result,) = world.results().values()
    assert result.status is State.COMPLETED
