"""A worker that dies before or after any single step, its record delivered again: nothing lost, nothing twice."""

import pytest

from connectors.providers.base import Answered, Failed
from schemas import LLMRequest
from schemas.attempt import Problem
from schemas.request import Message
from schemas.vocabulary import AttemptOutcome, FailureCategory, Role, State
from tests.streams.world import ANSWER, Crasher, World, until_done

REQUEST = LLMRequest(request_id="r-1", messages=[Message(role=Role.USER, content="hello")])
FAILURE = Failed(problem=Problem(category=FailureCategory.AUTHENTICATION, message="no"))
MOST_STEPS = 40


def assert_ended_once(world: World, state: State) -> None:
    assert [result.status for result in world.results().values()] == [state]
    terminal = [event for event in world.events().values() if event.state.is_terminal]
    assert [event.state for event in terminal] == [state]
    versions = [event.state_version for event in world.events().values()]
    assert len(set(versions)) == len(versions)


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
async def test_intake_may_die_at_any_step(after: bool) -> None:
    """The request ends once, is called once, and no step is left out of the trial."""
    for step in range(1, MOST_STEPS):
        world = World()
        delivery = world.request_delivery(REQUEST)
        crashed = await until_done(
            lambda crasher, world=world, delivery=delivery: world.intake(delivery, crasher),
            Crasher(at=step, after=after),
            world,
        )
        await world.lane_all()
        assert_ended_once(world, State.COMPLETED)
        assert world.calls["r-1"] == 1
        assert await world.state.outstanding() == (0, 0)
        if not crashed:
            assert step > 3
            return
    pytest.fail("the stage takes more steps than were tried")


@pytest.mark.parametrize("outcome", [ANSWER, FAILURE], ids=["answered", "failed"])
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
async def test_a_lane_may_die_at_any_step(after: bool, outcome: Answered | Failed) -> None:
    """It ends once; a second call happens only where the first left no outcome, and is recorded as possibly billed."""
    for step in range(1, MOST_STEPS):
        world = World(outcome=outcome)
        await world.intake(world.request_delivery(REQUEST))
        task = world.written("llm.lane.simulated.normal")[0]
        delivery = world.delivery(task.value or b"", key=task.key, topic=task.topic)
        crashed = await until_done(
            lambda crasher, world=world, delivery=delivery: world.lane(delivery, crasher),
            Crasher(at=step, after=after),
            world,
        )
        assert_ended_once(world, State.COMPLETED if outcome is ANSWER else State.FAILED)
        (result,) = world.results().values()
        extra_calls = world.calls["r-1"] - 1
        assert extra_calls in {0, 1}
        assert result.possibly_billed_calls >= extra_calls
        lost = [attempt for attempt in world.attempts().values() if attempt.outcome is AttemptOutcome.LOST]
        assert len(lost) == result.possibly_billed_calls
        assert await world.state.outstanding() == (0, 0)
        if not crashed:
            assert step > 6
            return
    pytest.fail("the stage takes more steps than were tried")


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
async def test_a_refusal_may_die_at_any_step(after: bool) -> None:
    """One rejected event and result, and the bytes in the dead-letter topic at least once, unchanged."""
    for step in range(1, MOST_STEPS):
        world = World()
        delivery = world.delivery(b'{"request_id": "r-1", "messages": []}', key=b"r-1")
        crashed = await until_done(
            lambda crasher, world=world, delivery=delivery: world.intake(delivery, crasher),
            Crasher(at=step, after=after),
            world,
        )
        assert_ended_once(world, State.REJECTED)
        letters = world.written("llm.requests.dlt")
        assert letters
        assert all(letter.value == delivery.value for letter in letters)
        if not crashed:
            assert step > 3
            return
    pytest.fail("the stage takes more steps than were tried")
