"""A request expires on time wherever it is, exactly once, and never while somebody calls for it."""

from datetime import timedelta
from typing import Any, cast

import pytest

from connectors.state.base import Claimed, Known
from schemas.command import Command
from schemas.vocabulary import AttemptOutcome, FailureCategory, State
from streams.confirming import ResultConfirmer
from streams.context import StageContext
from streams.deadlines import UNPUBLISHED_SECONDS, DeadlineSweeper
from streams.restoring import Confirm, Restored
from tests.streams.flow import Flow, assert_ids_stand_for_one_thing, assert_sound
from tests.streams.samples import OVERLOADED, request
from tests.streams.world import LEASE_SECONDS, START, Crash, Crasher, World

DEADLINE = START + timedelta(seconds=60)
LATE: dict[str, Any] = {"deadline_at": DEADLINE}


async def expired(world: World) -> None:
    """What every expiry leaves behind."""
    (result,) = world.results().values()
    assert result.status is State.EXPIRED
    assert result.problem is not None
    assert result.problem.category is FailureCategory.DEADLINE
    event = list(world.events().values())[-1]
    assert (event.type, event.reason) == ("QUEUE_REQUEST_EXPIRED", FailureCategory.DEADLINE)
    await world.confirm_all()
    assert await world.state.outstanding() == (0, 0)
    assert await world.sweep() == 0


async def test_a_request_that_nobody_takes_up_expires_in_its_lane() -> None:
    """As behind an open breaker: the lane pulls nothing, and the deadline passes all the same."""
    world = World()
    await Flow(world).send(request(**LATE))
    world.clock = DEADLINE - timedelta(milliseconds=1)
    assert await world.sweep() == 0
    world.clock = DEADLINE
    assert await world.sweep() == 1
    await expired(world)
    assert world.calls["r-1"] == 0


async def test_its_task_calls_nobody_when_the_lane_goes_on() -> None:
    world = World()
    flow = Flow(world)
    await flow.send(request(**LATE))
    world.clock = DEADLINE
    await world.sweep()
    await flow.run()
    assert_sound(world)
    assert world.calls["r-1"] == 0


async def test_a_request_expires_in_a_delay_topic_with_the_call_that_it_had() -> None:
    world = World(outcome=OVERLOADED)
    flow = Flow(world)
    await flow.send(request(**LATE))
    await flow.take_one()
    world.clock = DEADLINE
    assert await world.sweep() == 1
    await flow.run()
    (attempt,) = assert_sound(world)
    assert attempt.outcome is AttemptOutcome.FAILED
    assert len(world.attempts()) == 1
    await expired(world)


async def test_a_request_expires_after_a_lapsed_lease_with_its_lost_call() -> None:
    world = World()
    await Flow(world).send(request(**LATE))
    claim = await world.state.claim("r-1", owner="dead", lease_ms=int(LEASE_SECONDS * 1000))
    assert isinstance(claim, Claimed)
    world.clock = DEADLINE
    assert await world.sweep() == 1
    (attempt,) = world.attempts().values()
    assert (attempt.outcome, attempt.possibly_billed, attempt.worker) == (AttemptOutcome.LOST, True, "dead")
    (result,) = world.results().values()
    assert result.possibly_billed_calls == 1
    await expired(world)


async def test_a_request_whose_lease_is_held_is_left_to_its_lane() -> None:
    """The call ends with the deadline, and settles it there."""
    world = World()
    await Flow(world).send(request(**LATE))
    await world.state.claim("r-1", owner="alive", lease_ms=int(LEASE_SECONDS * 1000))
    world.clock = DEADLINE - timedelta(seconds=1)
    await world.state.claim("r-1", owner="alive", lease_ms=int(LEASE_SECONDS * 1000))
    world.clock = DEADLINE
    assert await world.sweep() == 0
    assert world.results() == {}
    world.pass_time(LEASE_SECONDS)
    assert await world.sweep() == 1


async def test_two_sweepers_at_once_end_it_once() -> None:
    """Each has seen it alive; one of them wins, and both publish the same end."""
    world = World()
    await Flow(world).send(request(**LATE))
    world.clock = DEADLINE
    (seen,) = await world.state.look(["r-1"])
    await world.sweep()
    world.pass_time(1)
    original = world.state.look

    async def as_seen_before(_ids: object) -> list[Known]:
        return [seen]

    world.state.look = as_seen_before  # type: ignore[assignment,method-assign]
    await world.sweep(Crasher())
    world.state.look = original  # type: ignore[method-assign]
    await expired(world)
    assert_ids_stand_for_one_thing(world)
    assert len(world.results()) == 1


async def test_an_end_that_was_not_published_is_published_by_the_next_sweeper() -> None:
    world = World()
    await Flow(world).send(request(**LATE))
    world.clock = DEADLINE
    for step in range(1, 20):
        world.results().clear()
        with pytest.raises(Crash):
            await world.sweep(Crasher(at=step, after=True))
        (known,) = await world.state.look(["r-1"])
        if known.state is State.EXPIRED:
            break
    assert world.results() == {}
    assert await world.sweep() == 0
    assert world.results() == {}  # whoever settled it may be about to publish it
    world.pass_time(UNPUBLISHED_SECONDS)
    await world.sweep()
    await expired(world)


async def test_an_end_that_is_confirmed_is_not_published_again() -> None:
    world = World()
    await Flow(world).send(request(**LATE))
    world.clock = DEADLINE
    await world.sweep()
    await world.confirm_all()
    written = len(world.log)
    for _ in range(3):
        world.pass_time(UNPUBLISHED_SECONDS)
        await world.sweep()
    assert len(world.log) == written


class NotCaughtUp:
    """A confirmer that has results left to read in every partition."""

    async def caught_up(self) -> frozenset[int]:
        return frozenset()

    def partition_of(self, _request_id: str) -> int:
        return 0

    async def confirm(self, records: object) -> None: ...


async def test_nothing_expires_whose_result_may_be_in_kafka_unread() -> None:
    """A worker may have ended it while Redis was away."""
    world = World()
    await Flow(world).send(request(**LATE))
    world.clock = DEADLINE
    context, ends = world.control()
    sweeper = DeadlineSweeper(context, ends, cast("ResultConfirmer", NotCaughtUp()), steady_since=world.steady_since)
    assert await sweeper.sweep() == 0
    assert world.results() == {}


async def test_results_are_read_back_before_anything_expires_in_a_state_that_was_emptied() -> None:
    world = World()
    world.forget(restored=False)
    context, ends = world.control()
    restored = []

    async def restoring(context: StageContext, confirm: Confirm, _whole_at: object) -> Restored:
        restored.append(confirm)
        await context.state.restored()
        return Restored()

    sweeper = DeadlineSweeper(
        context, ends, cast("ResultConfirmer", NotCaughtUp()), restoring, steady_since=world.steady_since
    )
    for _ in range(2):
        await sweeper.sweep()
    assert len(restored) == 1


async def test_a_request_that_completes_in_time_does_not_expire() -> None:
    world = World()
    flow = Flow(world)
    await flow.send(request(**LATE))
    await flow.run()
    world.clock = DEADLINE
    world.pass_time(1)
    assert await world.sweep() == 0
    assert_sound(world)


async def test_the_deadline_survives_retries() -> None:
    world = World(outcome=OVERLOADED)
    flow = Flow(world)
    await flow.send(request(deadline_at=START + timedelta(seconds=2)))
    await flow.run()
    tasks = world.tasks()
    assert len(tasks) == 2
    assert {task.deadline_at for task in tasks} == {START + timedelta(seconds=2)}
    (result,) = world.results().values()
    assert result.status is State.FAILED  # the next wait would be over after the deadline


async def test_a_copy_of_the_end_goes_to_the_senders_topic() -> None:
    world = World(settings=World().settings.model_copy(update={"worker": _worker("mine")}))
    await Flow(world).send(request(result_topic="mine", **LATE))
    world.clock = DEADLINE
    await world.sweep()
    assert len(world.written("mine")) == 1


async def test_one_that_was_cancelled_does_not_expire_as_well() -> None:
    world = World()
    await Flow(world).send(request(**LATE))
    await world.cancel(Command(command_id="c", issued_at=START, request_id="r-1"))
    world.clock = DEADLINE
    assert await world.sweep() == 0
    assert [result.status for result in world.results().values()] == [State.CANCELLED]


def _worker(topic: str) -> object:
    return World().settings.worker.model_copy(update={"result_topics": [topic]})
