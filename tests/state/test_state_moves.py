"""What every state store does between two calls: retries that wait, failovers, and tasks that come twice."""

import pytest

from connectors.state.base import Busy, Ended, Lease, LostCall, Moved, Renewal, Settled, Stale
from connectors.state.ends import IllegalEndError
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
    found,
    own,
    requeue,
    reschedule,
    seen,
    waiting,
)
from tests.state.worlds import World

NEXT_STATES = [State.RETRY_SCHEDULED, State.QUEUED]


@pytest.mark.parametrize("state", NEXT_STATES)
async def test_a_claim_may_end_with_another_try_to_come(world: World, state: State) -> None:
    """One version on, still counted, and whoever looks sees what it left for the next task."""
    await admitted(world)
    lease = (await claimed(world, version=1)).lease
    assert await reschedule(world, lease, state=state) is None
    known = await seen(world)
    assert (known.state, known.version, known.summary) == (state, 3, b"failed")
    assert (known.held_ms, known.running, known.lost_calls) == (0, None, ())
    assert await world.store.outstanding() == (1, SIZE_BYTES)


@pytest.mark.parametrize("state", NEXT_STATES)
async def test_the_same_reschedule_again_is_the_same_success(world: World, state: State) -> None:
    """Its reply was lost on the way."""
    await admitted(world)
    lease = (await claimed(world, version=1)).lease
    for _ in range(3):
        assert await reschedule(world, lease, state=state) is None
    assert (await seen(world)).version == 3


@pytest.mark.parametrize("end", sorted(set(State) - set(NEXT_STATES)))
async def test_only_a_wait_or_another_lane_can_follow(world: World, end: State) -> None:
    """An end is for `settle`; a mistake of the caller changes nothing."""
    await admitted(world)
    lease = (await claimed(world, version=1)).lease
    with pytest.raises(IllegalEndError):
        await reschedule(world, lease, state=end)
    assert (await seen(world)).version == 2


@pytest.mark.parametrize("state", NEXT_STATES)
async def test_the_task_that_was_moved_on_is_told_so_until_the_next_one_is_taken_up(world: World, state: State) -> None:
    """A crash between the step and its records: the old task is delivered again, and its next records are written."""
    await admitted(world)
    lease = (await claimed(world, version=1)).lease
    await reschedule(world, lease, state=state)
    for _ in range(2):
        assert await claim(world, version=1) == Moved(state, 3, b"failed")
    if state is State.RETRY_SCHEDULED:
        assert await requeue(world) == Moved(State.QUEUED, 4, b"waited")
        assert await claim(world, version=1) == Stale()
    following = await claimed(world, version=3 if state is State.QUEUED else 4, attempt=2)
    assert await claim(world, version=1) == Stale()
    await world.store.release(following.lease, called=False)
    assert await claim(world, version=1) == Stale()


async def test_a_request_that_waits_for_its_next_call_cannot_be_claimed(world: World) -> None:
    """Neither for the task that waits, nor for none in particular: its wait is over with a requeue."""
    version = await waiting(world)
    for task_version in (0, version):
        assert await claim(world, version=task_version) == Moved(State.RETRY_SCHEDULED, version, b"failed")


async def test_the_next_call_has_its_own_number_and_knows_of_no_loss(world: World) -> None:
    """What was lost before the reschedule stands in the task's own history."""
    await admitted(world)
    await claimed(world, version=1)
    await world.let_pass(LEASE_MS + 1)
    second = await claimed(world, version=1)
    assert len(second.lost_calls) == 1
    await reschedule(world, second.lease, state=State.QUEUED)
    third = await claimed(world, version=second.lease.version + 1, attempt=3)
    assert (third.lease.attempt, third.lease.version) == (3, second.lease.version + 2)
    assert third.lost_calls == ()
    assert third.lease.fence > second.lease.fence


async def test_a_fenced_worker_cannot_reschedule(world: World) -> None:
    """Taken over, given back, rescheduled or ended: it is told what stands there, and nothing moves."""
    await admitted(world)
    stale = (await claimed(world, version=1)).lease
    await world.let_pass(LEASE_MS + 1)
    current = (await claimed(world, version=1, owner="b")).lease
    assert await reschedule(world, stale) == Settled(State.PROCESSING, current.version, None)
    assert await reschedule(world, current) is None
    assert await reschedule(world, stale) == Settled(State.RETRY_SCHEDULED, current.version + 1, None)
    assert await world.store.settle(current, State.FAILED, b"x") == Settled(
        State.RETRY_SCHEDULED, current.version + 1, None
    )
    assert await world.store.renew([stale, current], lease_ms=LEASE_MS) == Renewal(lost=(stale, current))
    await world.store.release(current, called=True)
    assert (await seen(world)).version == current.version + 1


async def test_a_reschedule_of_what_has_ended_gets_the_end(world: World) -> None:
    """The outcome is there to be published."""
    await admitted(world)
    lease = (await claimed(world, version=1)).lease
    await world.store.settle(lease, State.COMPLETED, b"x")
    assert await reschedule(world, lease) == Settled(State.COMPLETED, 3, b"x")


async def test_a_lapsed_lease_that_nobody_took_can_still_reschedule(world: World) -> None:
    """The call was made, and its failure is known."""
    await admitted(world)
    lease = (await claimed(world, version=1)).lease
    await world.let_pass(LEASE_MS + 1)
    assert await reschedule(world, lease) is None


async def test_a_reschedule_outlives_a_store_that_forgot_its_request(world: World) -> None:
    """It is kept as if the store had known, and counted again when the next task is claimed."""
    await admitted(world)
    lease = (await claimed(world, version=1)).lease
    await world.flush()
    for _ in range(2):
        assert await reschedule(world, lease) is None
    assert await world.store.outstanding() == (0, 0)
    assert await claim(world, version=1) == Moved(State.RETRY_SCHEDULED, 3, b"failed")
    assert await requeue(world) == Moved(State.QUEUED, 4, b"waited")
    following = await claimed(world, version=4, attempt=2)
    assert not following.history_missing
    assert await world.store.outstanding() == (1, SIZE_BYTES)


async def test_a_wait_that_is_over_is_requeued_once(world: World) -> None:
    """Asked again it says the same, until the task that followed was claimed; from then on there is nothing to do."""
    version = await waiting(world)
    for _ in range(3):
        assert await requeue(world, task_version=version) == Moved(State.QUEUED, version + 1, b"waited")
    following = await claimed(world, version=version + 1, attempt=2)
    assert (following.lease.attempt, following.lease.version) == (2, version + 2)
    assert await requeue(world, task_version=version) == Stale()
    await world.store.release(following.lease, called=False)
    assert await requeue(world, task_version=version) == Stale()
    assert await world.store.outstanding() == (1, SIZE_BYTES)


async def test_a_waiting_task_of_an_earlier_wait_is_stale(world: World) -> None:
    """Two waits later, the first one's record comes again."""
    first = await waiting(world)
    await requeue(world, task_version=first)
    lease = (await claimed(world, version=first + 1, attempt=2)).lease
    await reschedule(world, lease, task_version=first + 1)
    assert await requeue(world, task_version=first) == Stale()
    assert await requeue(world, task_version=lease.version + 1, attempt=3) == Moved(
        State.QUEUED, lease.version + 2, b"waited"
    )


async def test_a_wait_of_a_request_that_ended_gets_the_end(world: World) -> None:
    """It expired or was cancelled while it waited."""
    version = await waiting(world)
    assert await world.store.end(await seen(world), State.CANCELLED, b"x") is None
    for _ in range(2):
        assert await requeue(world, task_version=version) == Settled(State.CANCELLED, version + 1, b"x")


async def test_a_wait_that_the_store_does_not_know_is_believed(world: World) -> None:
    """After a loss of all data; what else became of the request since is in doubt."""
    version = await waiting(world)
    await world.flush()
    await world.store.restored()
    for _ in range(2):
        assert await requeue(world, task_version=version) == Moved(State.QUEUED, version + 1, b"waited")
    following = await claimed(world, version=version + 1, attempt=2)
    assert following.history_missing
    assert following.lease.attempt == 2
    assert following.lease.version > version + 1
    assert await world.store.outstanding() == (1, SIZE_BYTES)


async def test_a_task_that_is_newer_than_the_store_is_believed(world: World) -> None:
    """A failover lost the last steps: no old claim stands in the way, nor the end of a life before. Versions go on."""
    for request_id, is_ended in (("held", False), ("ended", True)):
        await admitted(world, request_id)
        old = (await claimed(world, request_id, version=1)).lease
        if is_ended:
            await world.store.settle(old, State.FAILED, b"x")
        newer = await claimed(world, request_id, version=9, attempt=4, token=TOKEN, redrives=int(is_ended))
        assert newer.history_missing
        assert (newer.lease.attempt, newer.lost_calls) == (4, ())
        assert newer.lease.version > 9
        assert newer.lease.fence > old.fence
        assert (await claimed(world, request_id, version=9, attempt=4, token=TOKEN, redrives=int(is_ended))) == newer
        assert await claim(world, request_id, version=1) == Stale()
        assert await world.store.renew([old], lease_ms=LEASE_MS) == Renewal(lost=(old,))
    assert await world.store.outstanding() == (2, 2 * SIZE_BYTES)


async def test_a_wait_that_is_newer_than_the_store_is_believed(world: World) -> None:
    """The claim that the store still knows of has lost its right, and so has the end of a life before."""
    for request_id, is_ended in (("held", False), ("ended", True)):
        await admitted(world, request_id)
        old = (await claimed(world, request_id, version=1)).lease
        if is_ended:
            await world.store.settle(old, State.FAILED, b"x")
        moved = await requeue(world, request_id, task_version=9, attempt=4, redrives=int(is_ended))
        assert moved == Moved(State.QUEUED, 10, b"waited")
        assert await world.store.renew([old], lease_ms=LEASE_MS) == Renewal(lost=(old,))
        newer = await claimed(world, request_id, version=10, attempt=4)
        assert newer.history_missing
        assert (newer.lease.attempt, newer.lost_calls) == (4, ())
    assert await world.store.outstanding() == (2, 2 * SIZE_BYTES)


@pytest.mark.parametrize("redrives", [0, 1], ids=["first life", "redriven"])
@pytest.mark.parametrize("is_confirmed", [False, True], ids=["unconfirmed", "confirmed"])
async def test_nothing_goes_on_after_the_end_of_its_own_life(
    world: World, redrives: int, *, is_confirmed: bool
) -> None:
    """A worker that was alone moved it on, and it was ended from outside before the store could hear of that."""
    redrive = Redrive(count=1, state_version=0, attempt=0) if redrives else None
    await world.store.admit(arrival(world, redrive=redrive), ROOMY)
    known = await seen(world)
    assert await world.store.end(known, State.CANCELLED, b"x") is None
    if is_confirmed:
        await world.store.confirm([Ended("r1", State.CANCELLED, known.version + 1)])
    end = Settled(State.CANCELLED, known.version + 1, None if is_confirmed else b"x")
    assert await requeue(world, redrives=redrives) == end
    assert await claim(world, version=4, attempt=2, redrives=redrives) == end
    await world.store.adopt(found(world, version=4, attempt=2, redrives=redrives))
    assert await claim(world, version=4, attempt=2, redrives=redrives) == end
    later = await claimed(world, version=4, attempt=2, redrives=redrives + 1)
    assert later.history_missing
    assert await claim(world, version=3, redrives=redrives) == Stale()


async def test_a_task_is_busy_while_another_delivery_of_it_is_worked_on(world: World) -> None:
    """As without a task."""
    await admitted(world)
    await claimed(world, version=1)
    assert isinstance(await claim(world, version=1, owner="b"), Busy)


async def test_an_own_lease_settles_what_nobody_claimed(world: World) -> None:
    """Taken while the store was away; the end counts, and the winner is told so again."""
    await admitted(world)
    lease = own(Lease(request_id="r1", fence=0, attempt=1, version=2))
    for _ in range(2):
        assert await world.store.settle(lease, State.COMPLETED, b"x") is None
    assert await world.store.outstanding() == (0, 0)
    assert await claim(world, version=1) == Settled(State.COMPLETED, 3, b"x")


async def test_an_own_lease_is_fenced_once_somebody_claimed(world: World) -> None:
    """Whether that claim is held, was given back, or led to another try."""
    lease = own(Lease(request_id="r1", fence=0, attempt=1, version=2))
    await admitted(world)
    other = (await claimed(world, version=1)).lease
    assert await world.store.settle(lease, State.COMPLETED, b"x") == Settled(State.PROCESSING, 2, None)
    assert await reschedule(world, lease) == Settled(State.PROCESSING, 2, None)
    await world.store.release(other, called=False)
    assert await world.store.settle(lease, State.COMPLETED, b"x") == Settled(State.QUEUED, 3, None)
    other = (await claimed(world, version=1)).lease
    await reschedule(world, other)
    assert await world.store.settle(lease, State.COMPLETED, b"x") == Settled(State.RETRY_SCHEDULED, 5, None)


async def test_an_own_lease_settles_what_the_store_does_not_know(world: World) -> None:
    """An outcome that was paid for is never dropped."""
    lease = own(Lease(request_id="r1", fence=0, attempt=1, version=2))
    assert await world.store.settle(lease, State.COMPLETED, b"x") is None
    assert await claim(world, version=1) == Settled(State.COMPLETED, 3, b"x")


async def test_an_own_lease_may_end_with_another_try_to_come(world: World) -> None:
    """The store came back between the call and its failure."""
    await admitted(world)
    lease = own(Lease(request_id="r1", fence=0, attempt=1, version=2))
    for _ in range(2):
        assert await reschedule(world, lease) is None
    assert await requeue(world) == Moved(State.QUEUED, 4, b"waited")
    assert (await claimed(world, version=4, attempt=2)).lease.attempt == 2


async def test_look_tells_who_is_calling_and_what_was_lost(world: World) -> None:
    """For as long as there is a claim; what is not known is left out."""
    await admitted(world)
    await claimed(world, owner="a")
    await world.let_pass(LEASE_MS + 1)
    lapsed = await seen(world)
    assert (lapsed.held_ms, lapsed.summary) == (0, b"at the door")
    assert lapsed.running is not None
    assert (lapsed.running.attempt, lapsed.running.owner) == (1, "a")
    second = await claimed(world, owner="b")
    (held,) = await world.store.look(["unknown", "r1"])
    assert 0 < held.held_ms <= LEASE_MS
    assert isinstance(held.running, LostCall)
    assert (held.running.attempt, held.running.owner) == (2, "b")
    assert [(lost.attempt, lost.owner) for lost in held.lost_calls] == [(1, "a")]
    await world.store.settle(second.lease, State.COMPLETED, b"x")
    ended = await seen(world)
    assert (ended.state, ended.outcome, ended.summary, ended.running) == (State.COMPLETED, b"x", b"", None)
