"""What every state store does with tasks that are found in Kafka and whose requests were called off."""

from dataclasses import replace

import pytest

from connectors.state.base import CalledOff, Cancellation, Ended, FoundTask
from schemas.vocabulary import State
from tests.state.steps import admitted, claimed, found, requeue, reschedule, seen
from tests.state.worlds import World

WHO = {"request_id": "r1", "tenant_id": "acme", "correlation_id": "batch-7"}


def asked_for(world: World, asked_ms: int, *, version: int = 1, redrives: int = 0) -> FoundTask:
    task = found(world, version=version, attempt=version, redrives=redrives)
    return replace(task, tenant_id="acme", correlation_id="batch-7", asked_ms=asked_ms)


@pytest.mark.parametrize(
    "names",
    [("request_id",), ("tenant_id",), ("correlation_id",), ("tenant_id", "correlation_id"), tuple(WHO)],
    ids="+".join,
)
async def test_a_task_of_what_was_called_off_is_adopted_as_cancelled(world: World, names: tuple[str, ...]) -> None:
    """The command was carried out while the store was empty. Whoever claims the task, or ends it, is told."""
    await world.flush()
    issued_ms = world.now_ms()
    await world.store.forbid(Cancellation(**{name: WHO[name] for name in names}, issued_ms=issued_ms))
    other = replace(asked_for(world, issued_ms), **{names[0]: "other"})  # type: ignore[arg-type]
    await world.store.adopt(replace(other, request_id="other"))
    for _ in range(2):
        await world.store.adopt(asked_for(world, issued_ms))
        assert (await seen(world)).cancelled
        assert await world.store.overdue(limit=9) == ["r1"]
    assert not (await seen(world, "other")).cancelled
    await world.store.restored()
    assert (await claimed(world, version=1)).cancelled
    assert not (await claimed(world, "other", version=1)).cancelled


async def test_a_task_that_was_asked_for_later_is_not_cancelled(world: World) -> None:
    await world.flush()
    issued_ms = world.now_ms()
    await world.store.forbid(Cancellation(tenant_id="acme", issued_ms=issued_ms))
    await world.store.adopt(asked_for(world, issued_ms + 1))
    assert await world.store.overdue(limit=9) == []
    await world.store.restored()
    assert not (await claimed(world, version=1)).cancelled


async def test_a_newer_task_of_what_was_called_off_is_cancelled_as_well(world: World) -> None:
    """Marked where the older one was found, or called off between the two."""
    await world.flush()
    issued_ms = world.now_ms()
    await world.store.adopt(asked_for(world, issued_ms))
    await world.store.cancel(["r1"])
    await world.store.adopt(asked_for(world, issued_ms, version=3))
    assert await world.store.overdue(limit=9) == ["r1"]
    await world.store.restored()
    assert (await claimed(world, version=3, attempt=3)).cancelled


async def test_what_the_store_has_heard_of_before_its_task_was_found_is_cancelled_too(world: World) -> None:
    """Its lane asked for another try, so more is known of it than the task tells; but not that it was called off."""
    await admitted(world)
    lease = (await claimed(world, version=1)).lease
    await world.flush()
    issued_ms = world.now_ms()
    await world.store.forbid(Cancellation(tenant_id="acme", issued_ms=issued_ms))
    assert await reschedule(world, lease) is None
    await world.store.adopt(asked_for(world, issued_ms))
    assert await world.store.overdue(limit=9) == ["r1"]
    await world.store.restored()
    await requeue(world, task_version=lease.version + 1)
    following = await claimed(world, version=lease.version + 2, attempt=2)
    assert following.cancelled
    assert await reschedule(world, following.lease, task_version=lease.version + 2) == CalledOff()


async def test_what_has_ended_is_not_called_off(world: World) -> None:
    await world.flush()
    issued_ms = world.now_ms()
    await world.store.confirm([Ended("r1", State.COMPLETED, 3)])
    await world.store.forbid(Cancellation(tenant_id="acme", issued_ms=issued_ms))
    await world.store.adopt(asked_for(world, issued_ms))
    assert not (await seen(world)).cancelled
    assert await world.store.overdue(limit=9) == []


async def test_a_task_of_a_life_before_does_not_call_off_the_one_that_is_known(world: World) -> None:
    """It was redriven after it was called off, and its old task is not committed yet."""
    await world.flush()
    issued_ms = world.now_ms()
    await world.store.forbid(Cancellation(tenant_id="acme", issued_ms=issued_ms))
    await world.store.adopt(asked_for(world, issued_ms + 5, version=4, redrives=1))
    await world.store.adopt(asked_for(world, issued_ms - 5))
    await world.store.restored()
    assert not (await claimed(world, version=4, attempt=4)).cancelled
