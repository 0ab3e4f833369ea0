"""The shared state comes back as it was some time ago: what has ended since then ends no second time."""

from copy import deepcopy
from datetime import datetime, timedelta
from typing import cast

import pytest

from connectors.state.shared_values import MemorySharedValues
from schemas.vocabulary import State
from streams.confirming import ResultConfirmer
from streams.context import StageContext
from streams.deadlines import DeadlineSweeper
from streams.restoring import Confirm, Restored
from streams.steps_back import StepsBack
from tests.streams.flow import Flow, assert_sound
from tests.streams.samples import request
from tests.streams.world import START, AllConfirmed, World

DEADLINE = START + timedelta(seconds=60)


class Reading(AllConfirmed):
    """As that, and it can confirm what is read back."""

    async def confirm(self, _records: object) -> None:
        """The world does it."""


def watch_of(values: MemorySharedValues) -> StepsBack:
    return StepsBack(values, worker="us")


async def test_a_number_that_grows_has_not_gone_back() -> None:
    watch = watch_of(MemorySharedValues(lambda: 0))
    assert [await watch.has_gone_back() for _ in range(5)] == [False] * 5


@pytest.mark.parametrize("is_emptied", [False, True])
async def test_a_store_that_has_lost_its_last_steps_shows_once(is_emptied: bool) -> None:
    values = MemorySharedValues(lambda: 0)
    watch = watch_of(values)
    await watch.has_gone_back()
    before = {} if is_emptied else deepcopy(values._values)
    await watch.has_gone_back()
    await watch.has_gone_back()
    values._values = before
    assert await watch.has_gone_back()
    assert not await watch.has_gone_back()


async def test_another_process_begins_with_what_is_there() -> None:
    values = MemorySharedValues(lambda: 0)
    await watch_of(values).has_gone_back()
    assert not await watch_of(values).has_gone_back()


async def test_what_has_ended_since_then_does_not_expire() -> None:
    world = World()
    flow = Flow(world)
    await flow.send(request(deadline_at=DEADLINE))
    values = MemorySharedValues(lambda: int(world.clock.timestamp() * 1000))
    restored = 0

    async def restoring(_context: StageContext, _confirm: Confirm, _whole_at: object) -> Restored:
        nonlocal restored
        restored += 1
        if restored == 1:
            raise ConnectionError("Kafka is away as well")
        await world.confirm_all()
        return Restored(ends=1)

    watch = watch_of(values)

    def sweeper_now() -> DeadlineSweeper:
        context, ends = world.control()
        confirmer = cast("ResultConfirmer", Reading())
        return DeadlineSweeper(
            context, ends, confirmer, restoring, steady_since=world.steady_since, has_gone_back=watch.has_gone_back
        )

    await sweeper_now().sweep()
    old_state, old_values = deepcopy(world.state), deepcopy(values._values)
    await flow.run()
    await world.confirm_all()
    await sweeper_now().sweep()
    world.state, values._values = old_state, old_values
    world.clock = DEADLINE
    sweeper = sweeper_now()
    with pytest.raises(ConnectionError):
        await sweeper.sweep()
    assert await sweeper.sweep() == 0
    assert_sound(world)
    assert [result.status for result in world.results().values()] == [State.COMPLETED]
    assert restored == 2


async def test_what_ended_in_the_last_moment_before_a_restart_does_not_expire() -> None:
    """Less was lost than one sweep's time, so no number has become smaller: its end, and that it was confirmed."""
    world = World()
    flow = Flow(world)
    await flow.send(request(deadline_at=DEADLINE))
    read_since: list[datetime | None] = []
    is_same_run = True

    async def restoring(_context: StageContext, _confirm: Confirm, whole_at: datetime | None) -> Restored:
        nonlocal is_same_run
        read_since.append(whole_at)
        if len(read_since) == 1:
            raise ConnectionError("Kafka is away as well")
        await world.confirm_all()
        is_same_run = True
        return Restored(ends=1)

    async def tell() -> bool:
        return is_same_run

    old_state = deepcopy(world.state)
    await flow.run()
    await world.confirm_all()
    context, ends = world.control()
    sweeper = DeadlineSweeper(
        context, ends, cast("ResultConfirmer", Reading()), restoring, steady_since=world.steady_since
    )
    await sweeper.sweep()
    seen_whole_at = world.clock
    vars(world.state).update(vars(old_state))
    world.state.is_same_run = tell  # type: ignore[method-assign]
    is_same_run, world.clock = False, DEADLINE
    with pytest.raises(ConnectionError):
        await sweeper.sweep()
    for _ in range(3):
        assert await sweeper.sweep() == 0
    assert_sound(world)
    assert [result.status for result in world.results().values()] == [State.COMPLETED]
    assert read_since == [seen_whole_at] * 2


async def test_a_process_that_has_not_seen_the_store_before_reads_all_of_it_back() -> None:
    world = World()
    read_since: list[datetime | None] = []

    async def restoring(_context: StageContext, _confirm: Confirm, whole_at: datetime | None) -> Restored:
        read_since.append(whole_at)
        return Restored()

    async def tell() -> bool:
        return False

    world.state.is_same_run = tell  # type: ignore[method-assign]
    context, ends = world.control()
    confirmer = cast("ResultConfirmer", Reading())
    await DeadlineSweeper(context, ends, confirmer, restoring, steady_since=world.steady_since).sweep()
    assert read_since == [None]
