"""A worker that dies before or after any single step, its record delivered again: nothing lost, nothing twice.

Each case runs a request's whole way, and dies at one step of it; the steps are counted through, so none is left out.
"""

from collections.abc import Awaitable, Callable, Iterator
from datetime import timedelta

import pytest

from connectors.providers.base import Answered, Failed
from schemas.attempt import Attempt
from schemas.command import Command
from schemas.vocabulary import AttemptOutcome, State
from tests.streams.flow import Flow, assert_sound
from tests.streams.samples import BROKEN_STREAM, OVERLOADED, TWO_PROVIDERS, UNAUTHORISED, request
from tests.streams.world import ANSWER, LEASE_SECONDS, START, Crasher, World

MOST_STEPS = 150
DEADLINE = START + timedelta(seconds=100)

pytestmark = [
    pytest.mark.parametrize("after", [False, True], ids=["before", "after"]),
    pytest.mark.parametrize("redelivery", ["at-once", "last", "last-after-sends-in-reverse"]),
]
"""A step that leaves the process: of the shared state, of Kafka, of the provider. What is sent together may come to be
in Kafka in any order, so it is tried from both ends."""

Way = Callable[[Flow], Awaitable[None]]


def crashes(after: bool, redelivery: str) -> Iterator[Crasher]:
    """One that dies at each step, until whoever runs them says that there was no crash any more."""
    for step in range(1, MOST_STEPS):
        yield Crasher(at=step, after=after, reverse=redelivery.endswith("reverse"))
    pytest.fail("there are more steps than were tried")


async def each_step(
    way: Way, make: Callable[[], World], after: bool, redelivery: str, *, loses_state: bool = False
) -> list[World]:
    """The worlds in which this way was gone, each with another crash."""
    worlds: list[World] = []
    for crasher in crashes(after, redelivery):
        world = make()
        flow = Flow(world, crasher, redelivers_last=redelivery != "at-once", loses_state=loses_state)
        await way(flow)
        if not flow.has_crashed:
            return worlds
        await world.confirm_all()
        assert await world.state.outstanding() == (0, 0)
        worlds.append(world)
    raise AssertionError("unreachable")


def assert_calls(world: World, attempts: list[Attempt], *, regular: int) -> None:
    """One call more than without the crash at most, and that one is recorded as lost."""
    extra = world.calls["r-1"] - regular
    lost = [attempt for attempt in attempts if attempt.outcome is AttemptOutcome.LOST]
    assert extra <= len(lost) <= 1
    assert len(attempts) - len(lost) <= regular


@pytest.mark.parametrize(
    ("outcome", "end"), [(ANSWER, State.COMPLETED), (UNAUTHORISED, State.FAILED)], ids=["answered", "failed"]
)
async def test_a_request_that_is_called_once(
    outcome: Answered | Failed, end: State, after: bool, redelivery: str
) -> None:
    async def way(flow: Flow) -> None:
        await flow.send(request(stream=True))
        await flow.run()

    worlds = await each_step(way, lambda: World(outcome=outcome), after, redelivery)
    assert len(worlds) > 10
    for world in worlds:
        assert_calls(world, assert_sound(world), regular=1)
        assert [result.status for result in world.results().values()] == [end]


@pytest.mark.parametrize(
    ("outcome", "end"), [(ANSWER, State.COMPLETED), (UNAUTHORISED, State.FAILED)], ids=["answered", "failed"]
)
async def test_a_request_whose_worker_dies_with_all_that_the_shared_state_knew(
    outcome: Answered | Failed, end: State, after: bool, redelivery: str
) -> None:
    """Nobody remembers the call: what is in Kafka tells how it ended, or that there may have been one."""

    async def way(flow: Flow) -> None:
        await flow.send(request(stream=True))
        await flow.run()

    worlds = await each_step(way, lambda: World(outcome=outcome), after, redelivery, loses_state=True)
    assert len(worlds) > 10
    for world in worlds:
        assert_sound(world)
        assert world.calls["r-1"] <= 2
        assert [result.status for result in world.results().values()] == [end]


async def test_a_request_that_fails_three_times_and_is_answered(after: bool, redelivery: str) -> None:
    async def way(flow: Flow) -> None:
        await flow.send(request())
        await flow.run()

    def make() -> World:
        world = World(outcome=ANSWER)
        world.script.in_turn = [OVERLOADED] * 3
        return world

    worlds = await each_step(way, make, after, redelivery)
    assert len(worlds) > 40
    for world in worlds:
        assert_calls(world, assert_sound(world), regular=4)
        assert [result.status for result in world.results().values()] == [State.COMPLETED]


async def test_a_request_that_fails_to_the_end(after: bool, redelivery: str) -> None:
    """Four calls whose outcome is known, and one more at most that was lost. Then a dead letter."""

    async def way(flow: Flow) -> None:
        await flow.send(request())
        await flow.run()

    worlds = await each_step(way, lambda: World(outcome=OVERLOADED), after, redelivery)
    assert len(worlds) > 40
    for world in worlds:
        assert_calls(world, assert_sound(world), regular=4)
        assert [result.status for result in world.results().values()] == [State.FAILED]
        assert world.written("llm.requests.dlt") != []


async def test_a_request_that_moves_to_another_provider(after: bool, redelivery: str) -> None:
    async def way(flow: Flow) -> None:
        await flow.send(request(allow_failover=True, stream=True))
        await flow.run()

    def make() -> World:
        world = World(outcome=ANSWER, catalogue=TWO_PROVIDERS)
        world.script.in_turn = [BROKEN_STREAM]
        world.script.pieces = ("a", "b")
        return world

    worlds = await each_step(way, make, after, redelivery)
    assert len(worlds) > 15
    for world in worlds:
        assert_calls(world, assert_sound(world), regular=2)
        assert [result.status for result in world.results().values()] == [State.COMPLETED]


@pytest.mark.parametrize("is_delayed", [False, True], ids=["in its lane", "in a delay topic"])
async def test_a_request_whose_deadline_passes(is_delayed: bool, after: bool, redelivery: str) -> None:
    async def way(flow: Flow) -> None:
        await flow.send(request(deadline_at=DEADLINE))
        if is_delayed:
            await flow.take_one()
        flow.world.clock = DEADLINE
        await flow.do(flow.world.sweep)
        await swept_until_published(flow)
        await flow.run()

    worlds = await each_step(way, lambda: World(outcome=OVERLOADED), after, redelivery)
    assert len(worlds) > 5
    for world in worlds:
        assert_calls(world, assert_sound(world), regular=int(is_delayed))
        assert [result.status for result in world.results().values()] == [State.EXPIRED]


@pytest.mark.parametrize("is_delayed", [False, True], ids=["in its lane", "in a delay topic"])
@pytest.mark.parametrize("names", [{"request_id": "r-1"}, {"tenant_id": "default"}], ids=["by its id", "by its tenant"])
async def test_a_request_that_is_cancelled(
    names: dict[str, str], is_delayed: bool, after: bool, redelivery: str
) -> None:
    command = Command(command_id="c-1", issued_at=START + timedelta(seconds=1), **names)

    async def way(flow: Flow) -> None:
        await flow.send(request())
        if is_delayed:
            await flow.take_one()
        await flow.do(lambda crasher: flow.world.cancel(command, crasher))
        await swept_until_published(flow)
        await flow.run()

    worlds = await each_step(way, lambda: World(outcome=OVERLOADED), after, redelivery)
    assert len(worlds) > 8
    for world in worlds:
        assert_calls(world, assert_sound(world), regular=int(is_delayed))
        assert [result.status for result in world.results().values()] == [State.CANCELLED]


async def test_a_request_that_was_cancelled_before_it_came(after: bool, redelivery: str) -> None:
    command = Command(command_id="c-1", issued_at=START + timedelta(seconds=1), request_id="r-1")

    async def way(flow: Flow) -> None:
        await flow.do(lambda crasher: flow.world.cancel(command, crasher))
        delivery = flow.world.request_delivery(request())
        await flow.do(lambda crasher: flow.world.intake(delivery, crasher))
        await swept_until_published(flow)
        await flow.run()

    worlds = await each_step(way, World, after, redelivery)
    assert len(worlds) > 5
    for world in worlds:
        assert_calls(world, assert_sound(world), regular=0)
        assert [result.status for result in world.results().values()] == [State.CANCELLED]


async def test_a_redriven_request(after: bool, redelivery: str) -> None:
    """A crash in either life leaves each with one end."""

    async def way(flow: Flow) -> None:
        await flow.send(request())
        await flow.run()
        letters = flow.world.written("llm.requests.dlt")
        if letters:
            await flow.redrive(letters[0])
        await flow.run()

    def make() -> World:
        world = World(outcome=ANSWER)
        world.script.in_turn = [UNAUTHORISED]
        return world

    worlds = await each_step(way, make, after, redelivery)
    assert len(worlds) > 15
    for world in worlds:
        attempts = assert_sound(world, lives=1 if _was_lucky(world) else 2)
        assert_calls(world, attempts, regular=2)


async def test_a_request_that_is_refused(after: bool, redelivery: str) -> None:
    async def way(flow: Flow) -> None:
        await flow.send(request(model="nobody-serves-this"))
        await flow.run()

    worlds = await each_step(way, World, after, redelivery)
    assert len(worlds) >= 4
    for world in worlds:
        assert assert_sound(world) == []
        assert [result.status for result in world.results().values()] == [State.REJECTED]
        assert world.written("llm.requests.dlt") != []


async def swept_until_published(flow: Flow) -> None:
    """Lets the sweeper look as often as it needs to see that an end is not confirmed for too long."""
    for _ in range(3):
        flow.world.pass_time(LEASE_SECONDS + 1)
        await flow.do(flow.world.sweep)


def _was_lucky(world: World) -> bool:
    """The first call's failure was lost with its worker, and the second call was answered."""
    return State.FAILED not in {result.status for result in world.results().values()}
