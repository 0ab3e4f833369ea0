"""What every state store does with tasks that are found in Kafka after it was emptied."""

from dataclasses import replace

import pytest

from connectors.state.base import (
    Admitted,
    Busy,
    Duplicate,
    Ended,
    FoundTask,
    Moved,
    Renewal,
    Settled,
    Stale,
)
from schemas.dead_letter_headers import Redrive
from schemas.vocabulary import State
from tests.state.steps import (
    LEASE_MS,
    ROOMY,
    SIZE_BYTES,
    admitted,
    arrival,
    claim,
    claimed,
    counted,
    due,
    found,
    requeue,
    reschedule,
    seen,
    waiting,
)
from tests.state.worlds import World


async def test_a_task_that_was_found_is_alive_in_doubt_and_counted_once(world: World) -> None:
    """Its version is above any of before, and adopting it again changes nothing."""
    began_ms = world.now_ms()
    await world.flush()
    task = found(world)
    await world.store.adopt(task)
    known = await seen(world)
    assert (known.state, known.summary, known.in_doubt) == (State.QUEUED, b"found in 1", True)
    assert (known.running, known.lost_calls, known.outcome) == (None, (), None)
    assert known.version > began_ms
    for _ in range(2):
        await world.let_pass(1)
        await world.store.adopt(task)
        assert await seen(world) == known
    assert await world.store.outstanding() == (1, SIZE_BYTES)
    assert await counted(world) == ["r1"]
    await world.store.restored()
    first = await claimed(world, version=1)
    assert first.history_missing
    assert (first.lease.attempt, first.lost_calls) == (1, ())
    assert first.lease.version > known.version
    assert await world.store.outstanding() == (1, SIZE_BYTES)
    assert await world.store.settle(first.lease, State.COMPLETED, b"x") is None
    assert await world.store.outstanding() == (0, 0)


async def test_an_older_task_does_not_bring_the_deadline_forward(world: World) -> None:
    """Of a request that is known by a step alone, the task tells how much it counts. Its deadline is the later one."""
    await requeue(world, task_version=3)
    await world.store.adopt(found(world, version=1, deadline_in_ms=1_000))
    assert await counted(world) == ["r1"]
    await world.let_pass(60_000)
    assert await due(world) == []


async def test_a_task_that_was_found_can_expire_or_be_cancelled(world: World) -> None:
    """Whoever ends it from outside reads from the task what to publish, and that there may have been a call."""
    await world.flush()
    await world.store.adopt(found(world, deadline_in_ms=-1))
    assert await world.store.overdue(limit=9) == ["r1"]
    known = await seen(world)
    assert known.in_doubt
    assert await world.store.end(known, State.EXPIRED, b"x") is None
    assert (await seen(world)).summary == b"found in 1"
    await world.store.adopt(found(world))
    assert await claim(world, version=1) == Settled(State.EXPIRED, known.version + 1, b"x")
    await world.store.confirm([Ended("r1", State.EXPIRED, known.version + 1)])
    assert (await seen(world)).summary == b""
    assert await world.store.outstanding() == (0, 0)


async def test_the_record_of_a_task_that_was_found_may_cause_it_again_and_another_may_not(world: World) -> None:
    """It was let in and may not be committed yet. Whoever claims either task, the request has one end."""
    await world.flush()
    await world.store.adopt(found(world))
    await world.store.restored()
    known = await seen(world)
    assert await world.store.admit(arrival(world), ROOMY) == Admitted(known.version, repeated=True)
    assert await world.store.admit(arrival(world, origin="another"), ROOMY) == Duplicate(State.QUEUED)
    assert await world.store.outstanding() == (1, SIZE_BYTES)
    lease = (await claimed(world, version=1)).lease
    assert isinstance(await claim(world, version=known.version), Busy)
    assert await world.store.admit(arrival(world), ROOMY) == Duplicate(State.PROCESSING)
    assert await world.store.settle(lease, State.COMPLETED, b"x") is None
    assert await claim(world, version=known.version) == Settled(State.COMPLETED, lease.version + 1, b"x")


async def test_a_wait_that_was_found_ends_once_and_its_record_causes_nothing(world: World) -> None:
    """A call was made before it: begun at the door again, the request would forget that."""
    await world.flush()
    await world.store.adopt(found(world, version=3, attempt=2, state=State.RETRY_SCHEDULED))
    await world.store.restored()
    known = await seen(world)
    assert await claim(world, version=1) == Stale()
    assert await claim(world, version=3) == Moved(State.RETRY_SCHEDULED, known.version, b"found in 3")
    for step in (world.store.admit(arrival(world), ROOMY), world.store.refuse(arrival(world), State.EXPIRED, b"x")):
        assert await step == Duplicate(State.RETRY_SCHEDULED)
    for _ in range(2):
        assert await requeue(world) == Moved(State.QUEUED, known.version + 1, b"waited")
    assert await world.store.admit(arrival(world), ROOMY) == Duplicate(State.QUEUED)
    following = await claimed(world, version=known.version + 1, attempt=2)
    assert following.history_missing
    assert following.lease.attempt == 2
    assert await requeue(world) == Stale()
    assert await world.store.outstanding() == (1, SIZE_BYTES)


@pytest.mark.parametrize("versions", [(1, 3), (3, 1)], ids=["older-first", "newer-first"])
async def test_of_two_tasks_of_one_request_the_newer_one_counts(world: World, versions: tuple[int, int]) -> None:
    """Found in any order, and each of its own size: the request is counted once, by that of the newer."""
    await world.flush()
    versions_seen = []
    for version in versions:
        state = State.RETRY_SCHEDULED if version == 3 else State.QUEUED
        await world.store.adopt(
            found(world, version=version, attempt=(version + 1) // 2, state=state, size_bytes=version)
        )
        versions_seen.append((await seen(world)).version)
        await world.store.cancel(["r1"])
    known = await seen(world)
    assert (known.state, known.summary) == (State.RETRY_SCHEDULED, b"found in 3")
    assert len(set(versions_seen)) == (2 if versions == (1, 3) else 1)
    assert await world.store.outstanding() == (1, 3)
    await world.store.restored()
    assert await requeue(world) == Moved(State.QUEUED, known.version + 1, b"waited")
    following = await claimed(world, version=known.version + 1, attempt=2)
    assert following.cancelled
    assert await world.store.settle(following.lease, State.CANCELLED, b"x") is None
    assert await world.store.outstanding() == (0, 0)


async def test_a_cancellation_stays_when_a_newer_task_is_found(world: World) -> None:
    await world.flush()
    await world.store.adopt(found(world))
    await world.store.cancel(["r1"])
    await world.store.adopt(found(world, version=3, attempt=2))
    await world.store.restored()
    assert (await claimed(world, version=3, attempt=2)).cancelled


async def test_an_end_of_this_life_stands_above_its_task(world: World) -> None:
    """Whichever of them is read first."""
    await world.flush()
    await world.store.confirm([Ended("r1", State.COMPLETED, 3)])
    await world.store.adopt(found(world))
    assert await claim(world, version=1) == Settled(State.COMPLETED, 3, None)
    await world.flush()
    await world.store.adopt(found(world))
    version = (await seen(world)).version
    for _ in range(2):
        await world.store.confirm([Ended("r1", State.COMPLETED, 3)])
        await world.store.adopt(found(world))
        assert await claim(world, version=1) == Settled(State.COMPLETED, version, None)
    assert await world.store.outstanding() == (0, 0)
    assert await world.store.admit(arrival(world), ROOMY) == Duplicate(State.COMPLETED)


@pytest.mark.parametrize("is_end_first", [True, False], ids=["end-first", "task-first"])
async def test_a_task_of_a_later_life_stands_above_an_end(world: World, *, is_end_first: bool) -> None:
    """It was redriven before the store was emptied, and its letter's redrive is not let in twice."""
    await world.flush()
    older, task = Ended("r1", State.FAILED, 3), found(world, version=4, attempt=2, redrives=1)
    if is_end_first:
        await world.store.confirm([older])
    for _ in range(2):
        await world.store.adopt(task)
        await world.store.confirm([older])
    await world.store.restored()
    assert (await seen(world)).state is State.QUEUED
    assert await world.store.outstanding() == (1, SIZE_BYTES)
    redriven = arrival(world, origin="second", redrive=Redrive(count=1, state_version=3, attempt=1))
    assert await world.store.admit(redriven, ROOMY) == Duplicate(State.QUEUED)
    assert await claim(world, version=1) == Stale()
    following = await claimed(world, version=4, attempt=2)
    assert (following.lease.attempt, following.history_missing) == (2, True)
    assert await world.store.settle(following.lease, State.FAILED, b"x") is None
    assert await world.store.admit(redriven, ROOMY) == Duplicate(State.FAILED)


async def test_a_task_of_a_later_life_takes_the_place_of_an_end_that_is_still_counted(world: World) -> None:
    """Ended from outside and redriven at once: the request is counted once, by the size of its task."""
    await admitted(world)
    await world.store.cancel(["r1"])
    await world.store.end(await seen(world), State.CANCELLED, b"x")
    assert await world.store.outstanding() == (1, SIZE_BYTES)
    await world.store.adopt(found(world, version=3, attempt=2, size_bytes=7, redrives=1))
    assert await world.store.outstanding() == (1, 7)
    following = await claimed(world, version=3, attempt=2)
    assert not following.cancelled
    assert await world.store.settle(following.lease, State.COMPLETED, b"y") is None
    assert await world.store.outstanding() == (0, 0)


async def test_a_task_that_was_found_changes_nothing_where_more_is_known(world: World) -> None:
    """Let in since, at work, waiting for another try, or at work again after it was found."""
    other = found(world, version=1, attempt=5, size_bytes=7)
    await admitted(world)
    await nothing_changes(world, other)
    lease = (await claimed(world, version=1)).lease
    await nothing_changes(world, other)
    assert await world.store.renew([lease], lease_ms=LEASE_MS) == Renewal()
    assert await reschedule(world, lease) is None
    await nothing_changes(world, other)
    await nothing_changes(world, found(world, version=3, attempt=5, size_bytes=7))
    assert await world.store.outstanding() == (1, SIZE_BYTES)

    await world.flush()
    await world.store.adopt(found(world))
    lease = (await claimed(world, version=1)).lease
    await nothing_changes(world, found(world, version=9, attempt=5, size_bytes=7))
    assert await world.store.renew([lease], lease_ms=LEASE_MS) == Renewal()
    assert await world.store.outstanding() == (1, SIZE_BYTES)


@pytest.mark.parametrize("known", ["queued", "held", "waiting"])
async def test_a_task_that_is_newer_than_the_store_is_believed_when_it_is_found(world: World, known: str) -> None:
    """A store that came back with old data: ended by what it knows, the request would go on with the newer task."""
    await admitted(world)
    lease = (await claimed(world, version=1)).lease if known != "queued" else None
    if lease is not None and known == "waiting":
        assert await reschedule(world, lease) is None
    newer = found(world, version=9, attempt=3, size_bytes=7, state=State.RETRY_SCHEDULED, earlier_calls=2)
    for _ in range(2):
        await world.store.adopt(newer)
        after = await seen(world)
        assert (after.state, after.summary, after.in_doubt) == (State.RETRY_SCHEDULED, b"found in 9", True)
        assert await world.store.outstanding() == (1, 7)
    if lease is not None:
        assert (await world.store.renew([lease], lease_ms=LEASE_MS)).lost == (lease,)
    assert await claim(world, version=1) == Stale()
    assert await world.store.admit(arrival(world), ROOMY) == Duplicate(State.RETRY_SCHEDULED)
    assert await world.store.end(after, State.EXPIRED, b"x") is None
    assert await requeue(world, task_version=9, attempt=3) == Settled(State.EXPIRED, after.version + 1, b"x")


async def nothing_changes(world: World, task: FoundTask) -> None:
    before = await seen(world)
    await world.store.adopt(task)
    assert replace(await seen(world), held_ms=0) == replace(before, held_ms=0)


async def test_an_outcome_that_came_home_first_is_not_called_for_again(world: World) -> None:
    """Its worker was quicker than whoever found its task."""
    await admitted(world)
    lease = (await claimed(world, version=1)).lease
    await world.flush()
    assert await world.store.settle(lease, State.COMPLETED, b"x") is None
    await world.store.adopt(found(world))
    await world.store.restored()
    assert await claim(world, version=1) == Settled(State.COMPLETED, 3, b"x")
    assert await world.store.outstanding() == (0, 0)


async def test_a_try_to_come_that_the_store_heard_of_is_not_taken_back(world: World) -> None:
    """The task before it may be found as well, as it is not committed yet."""
    version = await waiting(world)
    await world.flush()
    await world.store.adopt(found(world, version=version, attempt=2, state=State.RETRY_SCHEDULED))
    await world.store.restored()
    moved = await requeue(world, task_version=version)
    assert isinstance(moved, Moved)
    await world.store.adopt(found(world))
    await world.store.adopt(found(world, version=version, attempt=2, state=State.RETRY_SCHEDULED))
    assert await requeue(world, task_version=version) == moved
    assert await claim(world, version=1) == Stale()
    assert (await claimed(world, version=moved.version, attempt=2)).lease.attempt == 2


async def test_what_the_store_has_heard_of_is_counted_when_its_task_is_found(world: World) -> None:
    """Its lane asked for another try of a store that was emptied: without this its deadline would pass unnoticed."""
    await admitted(world)
    lease = (await claimed(world, version=1)).lease
    await world.flush()
    assert await reschedule(world, lease) is None
    assert await world.store.outstanding() == (0, 0)
    for _ in range(2):
        await world.store.adopt(found(world, deadline_in_ms=-1))
        assert await world.store.outstanding() == (1, SIZE_BYTES)
    known = await seen(world)
    assert (known.state, known.summary) == (State.RETRY_SCHEDULED, b"failed")
    assert await world.store.overdue(limit=9) == ["r1"]
    assert await world.store.end(known, State.EXPIRED, b"x") is None
    await world.store.confirm([Ended("r1", State.EXPIRED, known.version + 1)])
    assert await world.store.outstanding() == (0, 0)


@pytest.mark.parametrize(
    ("version", "calls"),
    [(4, {"earlier_calls": 1}), (1, {"lost_calls": 1}), (4, {"earlier_calls": 2, "lost_calls": 1})],
    ids=["requeued or failed over", "claimed", "both"],
)
async def test_the_record_of_a_task_that_was_called_before_causes_nothing_more(
    world: World, version: int, calls: dict[str, int]
) -> None:
    """Begun at the door again, the request would forget its calls."""
    await world.flush()
    await world.store.adopt(found(world, version=version, attempt=2, **calls))
    await world.store.restored()
    assert await world.store.admit(arrival(world), ROOMY) == Duplicate(State.QUEUED)
    assert await world.store.refuse(arrival(world), State.EXPIRED, b"x") == Duplicate(State.QUEUED)
    following = await claimed(world, version=version, attempt=2)
    assert following.lease.attempt == 2 + calls.get("lost_calls", 0)
    assert len(following.lost_calls) == calls.get("lost_calls", 0)
    assert await world.store.settle(following.lease, State.COMPLETED, b"x") is None
    assert await world.store.outstanding() == (0, 0)


async def test_a_newer_task_takes_the_place_of_one_that_was_called_before(world: World) -> None:
    """Found in this order: what the older one forbids its record stays forbidden."""
    await world.flush()
    await world.store.adopt(found(world, version=3, attempt=2, earlier_calls=1))
    await world.store.adopt(found(world, version=6, attempt=3))
    await world.store.restored()
    known = await seen(world)
    assert known.summary == b"found in 6"
    assert await world.store.admit(arrival(world), ROOMY) == Duplicate(State.QUEUED)
    assert await claim(world, version=3) == Stale()
    assert (await claimed(world, version=6, attempt=3)).lease.attempt == 3


async def test_the_redriven_record_of_a_first_task_that_was_found_may_cause_it_again(world: World) -> None:
    """A first task that nobody took up: its QUEUED event may not be in Kafka."""
    await world.flush()
    await world.store.confirm([Ended("r1", State.FAILED, 3)])
    await world.store.adopt(found(world, version=4, attempt=2, redrives=1))
    await world.store.restored()
    known = await seen(world)
    redriven = arrival(world, redrive=Redrive(count=1, state_version=3, attempt=1))
    again = await world.store.admit(redriven, ROOMY)
    assert again == Admitted(known.version, attempt=2, repeated=True)


async def test_a_claim_that_the_store_has_lost_leaves_its_request_in_doubt(world: World) -> None:
    """It came back with data from before it. Should the worker have died as well, nobody else can tell of its call."""
    await admitted(world)
    known = replace(found(world, lost_calls=1), claimed_version=1)
    await world.store.adopt(known)
    assert not (await seen(world)).in_doubt  # the store is no older than that claim
    await world.store.adopt(replace(known, claimed_version=2))
    assert (await seen(world)).in_doubt
    following = await claimed(world, version=1)
    assert following.history_missing
    await world.store.adopt(replace(known, claimed_version=following.lease.version + 1))
    assert await world.store.renew([following.lease], lease_ms=LEASE_MS) == Renewal()
    assert await world.store.settle(following.lease, State.COMPLETED, b"x") is None
    assert await world.store.outstanding() == (0, 0)
