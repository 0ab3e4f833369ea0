"""What every state store does with lives after the first: of what was redriven, and of what it has forgotten."""

from dataclasses import replace

import pytest

from connectors.state.base import Admitted, Duplicate, Ended, Settled, Stale
from schemas.dead_letter_headers import Redrive
from schemas.vocabulary import State
from tests.state.steps import (
    LEASE_MS,
    ROOMY,
    SIZE_BYTES,
    TOKEN,
    admitted,
    arrival,
    claim,
    claimed,
    counted,
    own,
    requeue,
    reschedule,
    seen,
    waiting,
)
from tests.state.worlds import World

REDRIVE = Redrive(count=1, state_version=3, attempt=1)
REDRIVABLE = [State.FAILED, State.EXPIRED, State.CANCELLED]


@pytest.mark.parametrize("is_confirmed", [False, True], ids=["unconfirmed", "confirmed"])
@pytest.mark.parametrize("end", REDRIVABLE)
async def test_a_redrive_begins_another_life(world: World, end: State, *, is_confirmed: bool) -> None:
    """In higher versions and with the next number for its call, counted once, and nothing of the old life holds."""
    await admitted(world)
    old = (await claimed(world, version=1)).lease
    await world.store.settle(old, end, b"x")
    if is_confirmed:
        await world.store.confirm([Ended("r1", end, 3)])
    redriven = arrival(world, origin="redriven", redrive=REDRIVE)
    assert await world.store.admit(redriven, ROOMY) == Admitted(4, attempt=2)
    assert await world.store.admit(redriven, ROOMY) == Admitted(4, attempt=2, repeated=True)
    assert await world.store.outstanding() == (1, SIZE_BYTES)
    assert await claim(world, version=1) == Stale()
    assert await world.store.settle(old, end, b"x") == Settled(State.QUEUED, 4, None)
    assert await world.store.settle(own(old), end, b"x") == Settled(State.QUEUED, 4, None)
    new = await claimed(world, version=4, attempt=2)
    assert (new.lease.attempt, new.lease.version, new.history_missing) == (2, 5, False)
    assert await world.store.settle(new.lease, State.COMPLETED, b"y") is None
    assert await world.store.outstanding() == (0, 0)


async def test_a_refused_request_can_be_redriven(world: World) -> None:
    """Its first call is number one: none was made."""
    await world.store.refuse(arrival(world), State.REJECTED, b"x")
    redriven = arrival(world, origin="redriven", redrive=Redrive(count=1, state_version=1, attempt=0))
    assert await world.store.admit(redriven, ROOMY) == Admitted(2, attempt=1)


async def test_a_redriven_request_can_be_refused_and_redriven_again(world: World) -> None:
    """Its end stands in a version above that of its last life, and its calls go on being numbered."""
    await admitted(world)
    await world.store.settle((await claimed(world)).lease, State.FAILED, b"x")
    redriven = arrival(world, origin="redriven", redrive=REDRIVE)
    for _ in range(2):
        answer = await world.store.refuse(redriven, State.REJECTED, b"full", version=4)
        assert answer == Settled(State.REJECTED, 4, b"full")
    again = arrival(world, origin="again", redrive=Redrive(count=2, state_version=4, attempt=0))
    assert await world.store.admit(again, ROOMY) == Admitted(5, attempt=2)


@pytest.mark.parametrize("is_refused", [False, True], ids=["admitted", "refused"])
async def test_a_redrive_of_an_end_that_is_still_counted_does_not_count_it_twice(
    world: World, *, is_refused: bool
) -> None:
    """Ended from outside, not confirmed, and sent again."""
    await admitted(world)
    await world.store.end(await seen(world), State.EXPIRED, b"x")
    redriven = arrival(world, origin="redriven", redrive=Redrive(count=1, state_version=2, attempt=1))
    if is_refused:
        await world.store.refuse(redriven, State.REJECTED, b"x", version=3)
        await world.store.confirm([Ended("r1", State.EXPIRED, 2)])
        assert await world.store.outstanding() == (1, SIZE_BYTES)
        await world.store.confirm([Ended("r1", State.REJECTED, 3)])
    else:
        await world.store.admit(replace(redriven, size_bytes=7), ROOMY)
        assert await world.store.outstanding() == (1, 7)
        await world.store.settle((await claimed(world)).lease, State.COMPLETED, b"x")
    assert await world.store.outstanding() == (0, 0)


async def test_a_redrive_of_what_lives_or_was_completed_is_a_duplicate(world: World) -> None:
    """Queued, at work, waiting, or paid for."""
    redriven = arrival(world, origin="redriven", redrive=REDRIVE)
    await admitted(world)
    assert await world.store.admit(redriven, ROOMY) == Duplicate(State.QUEUED)
    lease = (await claimed(world)).lease
    assert await world.store.admit(redriven, ROOMY) == Duplicate(State.PROCESSING)
    await world.store.settle(lease, State.COMPLETED, b"x")
    assert await world.store.admit(redriven, ROOMY) == Duplicate(State.COMPLETED)
    assert await world.store.refuse(redriven, State.REJECTED, b"") == Duplicate(State.COMPLETED)
    version = await waiting(world, "r2")
    other = arrival(world, "r2", origin="redriven", redrive=REDRIVE)
    assert await world.store.admit(other, ROOMY) == Duplicate(State.RETRY_SCHEDULED)
    await requeue(world, "r2", task_version=version)


@pytest.mark.parametrize("is_ended", [False, True], ids=["alive", "ended"])
async def test_a_second_record_of_the_same_redrive_is_a_duplicate(world: World, *, is_ended: bool) -> None:
    """Two operators redrove one letter, or one did so twice. The letter of the new life has a higher count."""
    await admitted(world)
    await world.store.settle((await claimed(world)).lease, State.FAILED, b"x")
    await world.store.admit(arrival(world, origin="redriven", redrive=REDRIVE), ROOMY)
    if is_ended:
        await world.store.settle((await claimed(world)).lease, State.FAILED, b"x")
        await world.store.confirm([Ended("r1", State.FAILED, 6)])
    second = arrival(world, origin="second", redrive=REDRIVE)
    assert await world.store.admit(second, ROOMY) == Duplicate(State.FAILED if is_ended else State.QUEUED)
    assert await world.store.refuse(second, State.REJECTED, b"") == Duplicate(
        State.FAILED if is_ended else State.QUEUED
    )
    if is_ended:
        third = arrival(world, origin="third", redrive=Redrive(count=2, state_version=6, attempt=2))
        assert await world.store.admit(third, ROOMY) == Admitted(7, attempt=3)


async def test_a_redriven_request_that_the_store_has_forgotten_goes_on_where_its_letter_says(world: World) -> None:
    """Letters are kept for longer than requests are known."""
    redriven = arrival(world, origin="redriven", redrive=Redrive(count=2, state_version=9, attempt=4))
    assert await world.store.admit(redriven, ROOMY) == Admitted(10, attempt=5)


async def test_a_record_that_is_older_than_the_store_is_in_doubt(world: World) -> None:
    """It may have been called before the store was emptied: its claims say so, in versions above any of before."""
    recorded_ms = world.now_ms()
    await world.flush()
    await world.store.restored()
    old = replace(arrival(world), recorded_ms=recorded_ms)
    assert await world.store.admit(old, ROOMY) == Admitted(1, repeated=True)
    assert (await seen(world)).in_doubt
    assert await world.store.admit(arrival(world, "new"), ROOMY) == Admitted(1)
    first = await claimed(world, version=1)
    assert first.history_missing
    assert first.lease.version > recorded_ms
    await world.let_pass(LEASE_MS + 1)
    second = await claimed(world, version=1)
    assert second.history_missing
    assert second.lease.version == first.lease.version + 1
    assert not (await claimed(world, "new", version=1)).history_missing
    assert await world.store.outstanding() == (2, 2 * SIZE_BYTES)


async def test_no_record_is_in_doubt_in_a_store_that_was_never_emptied(world: World) -> None:
    """The first one of a deployment: its oldest records were nowhere else before."""
    await world.store.admit(replace(arrival(world), recorded_ms=1), ROOMY)
    assert not (await claimed(world)).history_missing
    assert await world.store.is_restored()


async def test_counts_are_rebuilt_by_claims_after_a_loss_of_all_data(world: World) -> None:
    """Each once, whatever comes again; what ends is taken out of them."""
    await admitted(world, "held")
    old = (await claimed(world, "held", version=1)).lease
    await admitted(world, "queued")
    version = await waiting(world, "waiting")
    await world.flush()
    await world.store.restored()
    assert await world.store.outstanding() == (0, 0)
    assert (await claimed(world, "held", version=1)).history_missing
    queued = (await claimed(world, "queued", version=1, token=TOKEN)).lease
    await claimed(world, "queued", version=1, token=TOKEN)
    await requeue(world, "waiting", task_version=version)
    await claimed(world, "waiting", version=version + 1, attempt=2)
    await world.let_pass(LEASE_MS + 1)
    for name, task_version in (("held", 1), ("waiting", version + 1)):
        await claimed(world, name, version=task_version, attempt=2)
    assert await world.store.outstanding() == (3, 3 * SIZE_BYTES)
    assert await counted(world) == ["held", "queued", "waiting"]
    fenced = await world.store.settle(old, State.COMPLETED, b"x")
    assert isinstance(fenced, Settled)
    assert fenced.state is State.PROCESSING
    assert await world.store.settle(queued, State.COMPLETED, b"x") is None
    assert await world.store.outstanding() == (2, 2 * SIZE_BYTES)


async def test_ends_that_are_confirmed_again_make_duplicates_known_again(world: World) -> None:
    """Read back from Kafka after a loss of all data: no record or task of what has ended causes anything more."""
    await world.flush()
    for _ in range(2):
        await world.store.confirm([Ended("r1", State.COMPLETED, 3), Ended("r2", State.FAILED, 5)])
    assert await world.store.admit(arrival(world), ROOMY) == Duplicate(State.COMPLETED)
    assert await world.store.refuse(arrival(world), State.REJECTED, b"") == Duplicate(State.COMPLETED)
    assert await claim(world, version=1) == Settled(State.COMPLETED, 3, None)
    assert await requeue(world, "r2", task_version=3) == Settled(State.FAILED, 5, None)
    assert await world.store.outstanding() == (0, 0)
    redriven = arrival(world, "r2", origin="redriven", redrive=Redrive(count=1, state_version=5, attempt=2))
    assert await world.store.admit(redriven, ROOMY) == Admitted(6, attempt=3)


@pytest.mark.parametrize("is_held", [False, True], ids=["queued", "held"])
async def test_an_end_in_kafka_ends_what_the_store_takes_for_alive(world: World, *, is_held: bool) -> None:
    """It ended while the store was away. Its record causes nothing more, and its holder is told."""
    await admitted(world)
    lease = (await claimed(world, version=1)).lease if is_held else None
    await world.store.confirm([Ended("r1", State.COMPLETED, 3)])
    assert await world.store.outstanding() == (0, 0)
    assert await world.store.admit(arrival(world), ROOMY) == Duplicate(State.COMPLETED)
    if lease is not None:
        assert await world.store.settle(lease, State.COMPLETED, b"x") == Settled(State.COMPLETED, 3, None)
        assert (await world.store.renew([lease], lease_ms=LEASE_MS)).lost == (lease,)
    assert await claim(world, version=1) == Settled(State.COMPLETED, 3, None)


@pytest.mark.parametrize("is_held", [False, True], ids=["queued", "held"])
async def test_an_end_of_a_workers_own_ends_what_another_has_moved_on_meanwhile(world: World, *, is_held: bool) -> None:
    """Both followed the same task: the end has the version that the task for the next call has here."""
    await admitted(world)
    lease = (await claimed(world, version=1)).lease
    assert await reschedule(world, lease, state=State.QUEUED) is None
    moved = lease.version + 1
    following = (await claimed(world, version=moved, attempt=2)).lease if is_held else None
    await world.store.confirm([Ended("r1", State.COMPLETED, own(lease).version + 1)])
    assert (await seen(world)).state is State.COMPLETED
    assert await world.store.outstanding() == (0, 0)
    if following is not None:
        assert (await world.store.renew([following], lease_ms=LEASE_MS)).lost == (following,)
        lost = await world.store.settle(following, State.COMPLETED, b"x")
        assert isinstance(lost, Settled)
        assert (lost.state, lost.outcome) == (State.COMPLETED, None)
    assert isinstance(await claim(world, version=moved, attempt=2), Settled)


async def test_an_end_of_a_life_before_leaves_the_one_that_was_redriven(world: World) -> None:
    """Its first task is one version above that end: it is confirmed late, or again."""
    await admitted(world)
    await world.store.settle((await claimed(world, version=1)).lease, State.FAILED, b"x")
    await world.store.admit(arrival(world, origin="redriven", redrive=REDRIVE), ROOMY)
    for _ in range(2):
        await world.store.confirm([Ended("r1", State.FAILED, 3)])
        assert (await seen(world)).state is State.QUEUED
        lease = (await claimed(world, version=4, attempt=2, token=TOKEN)).lease
        await world.store.confirm([Ended("r1", State.FAILED, 3)])
        assert (await world.store.renew([lease], lease_ms=LEASE_MS)).lost == ()
        await world.store.release(lease, called=False)
    assert await world.store.outstanding() == (1, SIZE_BYTES)
