"""Ends from outside of a lane: complete after a crash, many at once, and none held up by another."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any, cast

import pytest

from connectors.state.base import Known, Settled
from schemas.vocabulary import State
from streams import deadlines
from streams.confirming import ResultConfirmer
from streams.deadlines import UNPUBLISHED_SECONDS, DeadlineSweeper
from tests.streams.flow import Flow
from tests.streams.samples import request
from tests.streams.world import START, Crash, Crasher, World

DEADLINE = START + timedelta(seconds=60)


async def test_an_end_that_is_published_again_is_copied_to_the_senders_topic_too() -> None:
    settings = World().settings
    worker = settings.worker.model_copy(update={"result_topics": ["mine"]})
    world = World(settings=settings.model_copy(update={"worker": worker}))
    await Flow(world).send(request(result_topic="mine", deadline_at=DEADLINE))
    world.clock = DEADLINE
    for step in range(1, 20):
        with pytest.raises(Crash):
            await world.sweep(Crasher(at=step, after=True))
        (known,) = await world.state.look(["r-1"])
        if known.state is State.EXPIRED:
            break
    assert world.written("mine") == []
    await world.sweep()
    world.pass_time(UNPUBLISHED_SECONDS)
    await world.sweep()
    assert len(world.written("mine")) == 1
    assert len(world.results()) == 1


async def test_one_that_cannot_be_ended_keeps_up_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World()
    flow = Flow(world)
    for number in range(3):
        await flow.send(request(f"r-{number}", deadline_at=DEADLINE))
    world.clock = DEADLINE
    end = world.state.end

    async def failing(seen: Known, state: State, outcome: bytes, *, version: int) -> Settled | None:
        if seen.request_id == "r-0":
            raise RuntimeError("a poison request")
        return await end(seen, state, outcome, version=version)

    monkeypatch.setattr(world.state, "end", failing)
    assert await world.sweep() == 2
    assert {result.request_id for result in world.results().values()} == {"r-1", "r-2"}


class HalfRead:
    """A confirmer of another's partition (0), and of one of its own (1)."""

    async def caught_up(self) -> frozenset[int]:
        return frozenset({1})

    def partition_of(self, request_id: str) -> int:
        return int(request_id.startswith("ours"))

    async def restore(self) -> int:
        return 0


async def test_many_that_are_not_ours_to_end_do_not_hide_one_that_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deadlines, "MAX_AT_ONCE", 10)
    world = World()
    flow = Flow(world)
    for number in range(30):
        await flow.send(request(f"theirs-{number}", deadline_at=DEADLINE))
    await flow.send(request("ours", deadline_at=DEADLINE + timedelta(seconds=1)))
    world.clock = DEADLINE + timedelta(seconds=1)
    context, ends = world.control()
    sweeper = DeadlineSweeper(context, ends, cast("ResultConfirmer", HalfRead()), steady_since=world.steady_since)
    assert sum([await sweeper.sweep() for _ in range(5)]) == 1
    assert [result.request_id for result in world.results().values()] == ["ours"]


async def test_what_is_asked_for_at_once_has_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deadlines, "MAX_AT_ONCE", 10)
    monkeypatch.setattr(deadlines, "MAX_LEFT", 20)
    world = World()
    flow = Flow(world)
    for number in range(50):
        await flow.send(request(f"theirs-{number}", deadline_at=DEADLINE))
    world.clock = DEADLINE
    asked: list[int] = []
    overdue = world.state.overdue

    async def noting(*, limit: int) -> Sequence[Any]:
        asked.append(limit)
        return await overdue(limit=limit)

    monkeypatch.setattr(world.state, "overdue", noting)
    context, ends = world.control()
    sweeper = DeadlineSweeper(context, ends, cast("ResultConfirmer", HalfRead()), steady_since=world.steady_since)
    for _ in range(5):
        await sweeper.sweep()
    assert asked == [10, 20, 30, 30, 30]
