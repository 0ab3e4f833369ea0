"""A request whose call failed in a way that may pass: again after a wait in Kafka, or at once elsewhere."""

from collections.abc import Sequence
from datetime import timedelta

import pytest

from connectors.kafka.producer import Outgoing
from policy.retry import RetryPolicy
from schemas.codec import decode_single_object
from schemas.dead_letter_headers import read_dead_letter
from schemas.delta import Delta
from schemas.envelope import header
from schemas.vocabulary import FailureCategory, ProcessingMode, State
from tests.streams.flow import DELAYS_SECONDS, Flow, assert_ids_stand_for_one_thing, assert_sound, task_of
from tests.streams.samples import BROKEN_STREAM, OVERLOADED, TWO_PROVIDERS, catalogue, failed, request
from tests.streams.world import ANSWER, LANE_TOPIC, START, World


async def test_a_retry_is_announced_with_attempt_reason_and_time() -> None:
    world = World(outcome=OVERLOADED)
    flow = Flow(world)
    await flow.send(request())
    await flow.take_one()
    event = list(world.events().values())[-1]
    # chance is 0.5, and the first wait is drawn from 0 to 2 s.
    assert (event.type, event.attempt, event.reason) == ("QUEUE_REQUEST_RETRY_SCHEDULED", 1, FailureCategory.OVERLOADED)
    assert event.retry_at == START + timedelta(seconds=1)
    assert (event.provider, event.message) == ("simulated", "it is overloaded")


async def test_a_waiting_task_has_the_headers_that_spring_gives_to_its_own() -> None:
    world = World(outcome=OVERLOADED)
    flow = Flow(world)
    await flow.send(request())
    await flow.take_one()
    (record,) = world.delayed()
    assert record.key == b"r-1"
    assert header(record.headers, "retry_topic-attempts") == "1"
    assert header(record.headers, "retry_topic-backoff-timestamp") == _ms(START + timedelta(seconds=1))
    assert header(record.headers, "retry_topic-original-timestamp") == _ms(START)
    assert header(record.headers, "ce_sequence") == "3"


async def test_three_retries_then_a_failure_with_four_attempts_and_a_dead_letter() -> None:
    world = World(outcome=OVERLOADED)
    flow = Flow(world)
    sent = request(metadata={"kept": "yes"})
    original = world.request_delivery(sent, headers=[("their-header", b"\x00\xff")])
    await flow.do(lambda crasher: world.intake(original, crasher))
    await flow.run()
    attempts = assert_sound(world)
    assert world.calls["r-1"] == 4
    assert [attempt.attempt for attempt in attempts] == [1, 2, 3, 4]
    (result,) = world.results().values()
    assert result.status is State.FAILED
    assert [attempt.attempt for attempt in result.attempts] == [1, 2, 3, 4]
    assert result.problem is not None
    assert result.problem.category is FailureCategory.OVERLOADED
    assert "after 4 calls" in result.problem.message
    (letter,) = world.written("llm.requests.dlt")
    assert (letter.value, letter.key) == (original.value, b"r-1")
    assert header(letter.headers, "their-header") == b"\x00\xff".decode("utf-8", errors="replace")
    described = read_dead_letter(letter.headers, size_bytes=0)
    assert (described.original_topic, described.original_offset) == ("llm.requests", 0)
    assert (described.attempt, described.state_version) == (4, result.state_version)


async def test_each_change_of_state_is_one_version_above_the_last() -> None:
    world = World(outcome=OVERLOADED)
    flow = Flow(world)
    await flow.send(request())
    await flow.run()
    events = list(world.events().values())
    assert [event.state_version for event in events] == list(range(1, len(events) + 1))
    once = [State.QUEUED, State.PROCESSING]
    assert [event.state for event in events] == [*[*once, State.RETRY_SCHEDULED] * 3, *once, State.FAILED]


async def test_each_call_is_recorded_once() -> None:
    """In its own record when it ends, and not again with the end of the request."""
    world = World(outcome=OVERLOADED)
    flow = Flow(world)
    await flow.send(request())
    await flow.run()
    assert len(world.written("llm.attempts")) == 4


async def test_an_answer_after_retries_completes_with_all_attempts() -> None:
    world = World(outcome=ANSWER)
    world.script.in_turn = [OVERLOADED, OVERLOADED]
    flow = Flow(world)
    await flow.send(request())
    await flow.run()
    assert_sound(world)
    (result,) = world.results().values()
    assert (result.status, len(result.attempts)) == (State.COMPLETED, 3)
    assert result.timings.delayed_ms == 1000 + 4000
    assert world.written("llm.requests.dlt") == []


async def test_a_failure_that_cannot_pass_is_called_once() -> None:
    world = World(outcome=failed(FailureCategory.INVALID_REQUEST))
    flow = Flow(world)
    await flow.send(request(allow_failover=True))
    await flow.run()
    assert_sound(world)
    assert world.calls["r-1"] == 1


@pytest.mark.parametrize("seconds", [0.5, 1.0, 4.9, 37.0, 100.0, 700.0, 3000.0, 3599.25])
async def test_what_a_provider_asks_for_is_never_shortened(seconds: float) -> None:
    """A long wait passes through several topics, each no longer than what is left."""
    world = World(outcome=ANSWER)
    world.script.in_turn = [failed(FailureCategory.RATE_LIMITED, retry_after_seconds=seconds)]
    world.retry = RetryPolicy(base_seconds=0.0)
    flow = Flow(world)
    await flow.send(request())
    await flow.run()
    first, second = world.attempts().values()
    waited = (second.started_at - first.ended_at).total_seconds()
    assert seconds <= waited <= seconds + 1
    tiers = [DELAYS_SECONDS[record.topic] for record in world.delayed()]
    assert tiers == sorted(tiers, reverse=True)
    assert sum(tiers[:-1]) <= seconds
    assert len([event for event in world.events().values() if event.state is State.RETRY_SCHEDULED]) == 1


async def test_a_retry_that_would_come_after_the_deadline_is_not_made() -> None:
    world = World(outcome=failed(FailureCategory.RATE_LIMITED, retry_after_seconds=60))
    flow = Flow(world)
    await flow.send(request(deadline_at=START + timedelta(seconds=60)))
    await flow.run()
    (result,) = world.results().values()
    assert result.status is State.FAILED
    assert result.problem is not None
    assert "deadline" in result.problem.message
    assert world.delayed() == []


async def test_an_immediate_request_is_not_tried_again() -> None:
    world = World(outcome=OVERLOADED)
    flow = Flow(world)
    await flow.send(request(processing_mode=ProcessingMode.IMMEDIATE))
    await flow.run()
    (result,) = world.results().values()
    assert (result.status, world.calls["r-1"], world.delayed()) == (State.FAILED, 1, [])


async def test_the_old_task_delivered_again_after_its_retry_says_the_same_again_and_calls_nobody() -> None:
    """Until the next task is taken up, nobody knows whether all of it came to be in Kafka."""
    world = World(outcome=OVERLOADED)
    flow = Flow(world)
    await flow.send(request())
    await flow.take_one()
    events, attempts, (waiting,) = world.events(), world.attempts(), world.delayed()
    (task,) = world.written(LANE_TOPIC)
    await world.lane(world.redelivery(task))
    assert world.calls["r-1"] == 1
    assert (world.events(), world.attempts()) == (events, attempts)
    assert [record.value for record in world.delayed()] == [waiting.value] * 2


async def test_every_older_task_delivered_again_calls_nobody() -> None:
    """At every point of a life of four calls, each record of before is delivered once more."""
    world = World(outcome=OVERLOADED)
    flow = Flow(world)
    await flow.send(request())
    replayed = 0
    while await flow.take_one():
        done = {(record.topic, record.value): record for record in world.log if record not in flow.left()}
        if len(done) == replayed:
            continue  # it was a copy, which the last replay had made
        replayed, calls = len(done), world.calls["r-1"]
        for (topic, _), record in done.items():
            if topic.startswith("llm.lane."):
                await world.lane(world.redelivery(record))
            elif topic.startswith("llm.retry."):
                await world.delay(record)
        assert world.calls["r-1"] == calls
        assert_ids_stand_for_one_thing(world)
    assert world.calls["r-1"] == 4
    assert_sound(world)


async def test_a_delayed_task_delivered_twice_goes_to_its_lane_and_is_called_once() -> None:
    world = World(outcome=ANSWER)
    world.script.in_turn = [OVERLOADED]
    flow = Flow(world)
    await flow.send(request())
    await flow.take_one()
    (waiting,) = world.delayed()
    world.pass_time(5)
    await world.delay(waiting)
    await world.delay(waiting)
    assert len(world.written(LANE_TOPIC)) == 3
    await flow.run()
    await world.delay(waiting)
    assert_sound(world)
    assert world.calls["r-1"] == 2


async def test_a_task_back_from_its_wait_waits_no_more() -> None:
    world = World(outcome=OVERLOADED)
    flow = Flow(world)
    await flow.send(request())
    await flow.take_one()
    await flow.take_one()
    task = task_of(world.written(LANE_TOPIC)[-1])
    assert (task.not_before, task.attempt, task.state_version, len(task.history)) == (None, 2, 4, 1)


async def test_a_failure_moves_at_once_to_the_next_provider_with_a_fresh_attempt() -> None:
    world = World(outcome=ANSWER, catalogue=TWO_PROVIDERS)
    world.script.in_turn = [OVERLOADED]
    flow = Flow(world)
    await flow.send(request(allow_failover=True))
    await flow.take_one()
    assert world.clock == START
    assert world.delayed() == []
    (task,) = map(task_of, world.written("llm.lane.second.normal"))
    assert (task.decision.provider, task.decision.reason, task.attempt) == ("second", "failover", 2)
    event = list(world.events().values())[-1]
    assert (event.state, event.provider, event.reason) == (State.QUEUED, "second", FailureCategory.OVERLOADED)
    await flow.run()
    assert_sound(world)
    assert world.script.made == [("first", 1), ("second", 2)]
    (result,) = world.results().values()
    assert (result.status, result.provider) == (State.COMPLETED, "second")
    assert [attempt.provider for attempt in result.attempts] == ["first", "second"]


async def test_where_all_providers_were_tried_the_last_one_is_tried_again_after_a_wait() -> None:
    world = World(outcome=OVERLOADED, catalogue=TWO_PROVIDERS)
    flow = Flow(world)
    await flow.send(request(allow_failover=True))
    await flow.run()
    assert_sound(world)
    assert [provider for provider, _ in world.script.made] == ["first", "second", "second", "second"]


async def test_a_pinned_request_waits_and_never_moves() -> None:
    world = World(outcome=OVERLOADED, catalogue=TWO_PROVIDERS)
    flow = Flow(world)
    await flow.send(request(provider="first", allow_failover=True))
    await flow.run()
    assert_sound(world)
    assert {provider for provider, _ in world.script.made} == {"first"}
    assert world.written("llm.lane.second.normal") == []


async def test_a_request_moves_only_where_its_constraints_permit() -> None:
    world = World(outcome=OVERLOADED, catalogue=catalogue("first", "cloud", "third", cloud=("cloud",)))
    flow = Flow(world)
    await flow.send(request(allow_failover=True, constraints={"sensitivity": "critical"}))
    await flow.run()
    assert_sound(world)
    assert [provider for provider, _ in world.script.made] == ["first", "third", "third", "third"]


async def test_the_old_task_of_a_request_that_moved_says_the_same_again() -> None:
    world = World(outcome=ANSWER, catalogue=TWO_PROVIDERS)
    world.script.in_turn = [OVERLOADED]
    flow = Flow(world)
    await flow.send(request(allow_failover=True))
    await flow.take_one()
    (first,) = world.written("llm.lane.first.normal")
    await world.lane(world.redelivery(first))
    one, other = world.written("llm.lane.second.normal")
    assert one.value == other.value
    await flow.run()
    assert_sound(world)
    assert world.calls["r-1"] == 2


async def test_a_stream_that_broke_off_is_replaced_from_its_beginning() -> None:
    """The new attempt's deltas begin at 0 and say which attempt they replace."""
    world = World(outcome=ANSWER, catalogue=TWO_PROVIDERS)
    world.script.in_turn = [BROKEN_STREAM]
    world.script.pieces = ("half an ", "ans")
    flow = Flow(world)
    await flow.send(request(allow_failover=True, stream=True))
    await flow.run()
    attempts = assert_sound(world)
    assert [attempt.possibly_billed for attempt in attempts] == [True, False]
    deltas = _deltas(world.written("llm.deltas"))
    first = [delta for delta in deltas if delta.attempt == 1]
    second = [delta for delta in deltas if delta.attempt == 2]
    assert ("".join(d.text for d in first), "".join(d.text for d in second)) == ("half an ans", ANSWER.text)
    assert [delta.seq for delta in second] == list(range(len(second)))
    assert [delta.supersedes_attempt for delta in first] == [None] * len(first)
    assert second[0].supersedes_attempt == 1
    (result,) = world.results().values()
    assert result.possibly_billed_calls == 1


async def test_a_task_that_nobody_can_read_ends_its_request_from_a_delay_topic_too() -> None:
    world = World(outcome=OVERLOADED)
    flow = Flow(world)
    await flow.send(request())
    await flow.take_one()
    waiting = world.delayed()[0]
    await world.delay(Outgoing(topic=waiting.topic, key=b"r-1", value=b"\xc3\x01nonsense", headers=[]))
    (result,) = world.results().values()
    assert (result.status, len(result.attempts)) == (State.FAILED, 1)
    assert [letter.value for letter in world.written("llm.requests.dlt")] == [b"\xc3\x01nonsense"]


def _deltas(records: Sequence[Outgoing]) -> list[Delta]:
    return [decode_single_object(Delta, record.value or b"") for record in records]


def _ms(moment: object) -> str:
    return str(int(moment.timestamp() * 1000))  # type: ignore[attr-defined]
