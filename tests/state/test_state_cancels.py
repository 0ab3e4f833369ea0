"""What every state store does with cancellations: of what it knows, and of what has not come yet."""

from dataclasses import replace

import pytest

from connectors.state.base import Admitted, CalledOff, Cancellation, Ended, Renewal, Settled
from connectors.state.defaults import CANCEL_GRACE_MS
from schemas.dead_letter_headers import Redrive
from schemas.vocabulary import State
from tests.state.steps import (
    LEASE_MS,
    ROOMY,
    TOKEN,
    admitted,
    arrival,
    claimed,
    own,
    requeue,
    reschedule,
    seen,
    waiting,
)
from tests.state.worlds import RETENTION_SECONDS, World

WHO = {"request_id": "r1", "tenant_id": "acme", "correlation_id": "batch-7"}


async def test_a_cancelled_request_says_so_at_its_claim(world: World) -> None:
    """Queued, or waiting for its next call; also when it is cancelled twice, or beside one that is not known."""
    await admitted(world, "queued")
    version = await waiting(world, "waiting")
    await admitted(world, "left-alone")
    for _ in range(2):
        await world.store.cancel(["queued", "unknown", "waiting"])
    assert (await claimed(world, "queued", version=1)).cancelled
    await requeue(world, "waiting", task_version=version)
    assert (await claimed(world, "waiting", version=version + 1, attempt=2)).cancelled
    assert not (await claimed(world, "left-alone")).cancelled
    assert await world.store.look(["unknown"]) == []
    await world.store.cancel([])


async def test_a_sweep_finds_what_was_cancelled_and_is_left_over(world: World) -> None:
    """Whoever cancelled it has some seconds to end it, as its holder has; it is cancelled until it has ended."""
    await admitted(world, "other")
    await admitted(world)
    await waiting(world, "waiting")
    await world.store.cancel(["r1", "waiting"])
    assert (await seen(world)).cancelled
    assert not (await seen(world, "other")).cancelled
    assert await world.store.overdue(limit=9) == []
    await world.let_pass(CANCEL_GRACE_MS // 2)
    await world.store.cancel(["r1"])  # which puts nothing off
    await world.let_pass(CANCEL_GRACE_MS // 2 + 1)
    assert sorted(await world.store.overdue(limit=9)) == ["r1", "waiting"]
    known = await seen(world)
    assert await world.store.end(known, State.CANCELLED, b"x") is None
    await world.store.confirm([Ended("r1", State.CANCELLED, known.version + 1)])
    assert await world.store.overdue(limit=9) == ["waiting"]


async def test_one_that_is_cancelled_after_its_deadline_is_due_as_before(world: World) -> None:
    await admitted(world, deadline_in_ms=-1)
    await world.store.cancel(["r1"])
    assert await world.store.overdue(limit=9) == ["r1"]


async def test_the_holder_of_a_cancelled_request_hears_of_it_when_it_renews(world: World) -> None:
    """Each time, and its lease is prolonged all the same: it is the one to end the request."""
    await admitted(world, "cancelled")
    await admitted(world, "left-alone")
    cancelled = (await claimed(world, "cancelled")).lease
    other = (await claimed(world, "left-alone")).lease
    await world.store.cancel(["cancelled"])
    for _ in range(3):
        await world.let_pass(LEASE_MS - 1_000)
        assert await world.store.renew([cancelled, other], lease_ms=LEASE_MS) == Renewal(cancelled=(cancelled,))
    assert await world.store.settle(cancelled, State.CANCELLED, b"x") is None


async def test_a_cancellation_outlives_a_lost_call(world: World) -> None:
    """The worker did not hear of it in time, or died."""
    await admitted(world)
    lease = (await claimed(world, version=1)).lease
    await world.store.cancel(["r1"])
    await world.let_pass(LEASE_MS + 1)
    again = await claimed(world, version=1)
    assert again.cancelled
    assert lease.fence < again.lease.fence


@pytest.mark.parametrize("state", [State.RETRY_SCHEDULED, State.QUEUED])
async def test_what_was_cancelled_during_its_call_has_no_other_try(world: World, state: State) -> None:
    """Its holder is told instead, as often as it asks, and ends it with the lease that it has."""
    await admitted(world)
    lease = (await claimed(world, version=1)).lease
    await world.store.cancel(["r1"])
    for _ in range(2):
        assert await reschedule(world, lease, state=state) == CalledOff()
    assert await world.store.renew([lease], lease_ms=LEASE_MS) == Renewal(cancelled=(lease,))
    assert await world.store.settle(lease, State.CANCELLED, b"x") is None
    assert await reschedule(world, lease, state=state) == Settled(State.CANCELLED, lease.version + 1, b"x")


@pytest.mark.parametrize("state", [State.RETRY_SCHEDULED, State.QUEUED])
async def test_a_try_that_was_granted_before_the_cancellation_stands(world: World, state: State) -> None:
    """Its reply may have been lost: whoever asks again is told the same, and its task says that it is cancelled."""
    await admitted(world)
    lease = (await claimed(world, version=1)).lease
    assert await reschedule(world, lease, state=state) is None
    await world.store.cancel(["r1"])
    assert await reschedule(world, lease, state=state) is None
    if state is State.RETRY_SCHEDULED:
        await requeue(world, task_version=lease.version + 1)
    assert (await claimed(world)).cancelled


async def test_whoever_lost_the_lease_is_not_told_to_end_what_was_cancelled(world: World) -> None:
    await admitted(world)
    lost = (await claimed(world, version=1)).lease
    await world.let_pass(LEASE_MS + 1)
    current = (await claimed(world, version=1)).lease
    await world.store.cancel(["r1"])
    assert await reschedule(world, lost) == Settled(State.PROCESSING, current.version, None)
    assert await reschedule(world, current) == CalledOff()


async def test_a_workers_own_claim_of_what_was_cancelled_has_no_other_try(world: World) -> None:
    """Called while the store was away, and called off before or meanwhile."""
    await admitted(world)
    lease = own((await claimed(world, version=1)).lease)
    await world.let_pass(LEASE_MS + 1)
    await world.store.cancel(["r1"])
    assert await reschedule(world, lease) == CalledOff()
    assert await world.store.settle(lease, State.CANCELLED, b"x") is None


async def test_a_cancellation_outlives_a_failover_of_the_store(world: World) -> None:
    """A task that is newer than the store brings no cancellation with it, and takes none away."""
    await admitted(world)
    await world.store.cancel(["r1"])
    for _ in range(2):
        assert (await claimed(world, version=9, attempt=2, token=TOKEN)).cancelled


async def test_what_has_ended_is_not_cancelled_any_more(world: World) -> None:
    """Neither now nor in its next life."""
    await admitted(world)
    await world.store.settle((await claimed(world)).lease, State.FAILED, b"x")
    await world.store.cancel(["r1"])
    assert (await seen(world)).state is State.FAILED
    redriven = arrival(world, origin="redriven", redrive=Redrive(count=1, state_version=3, attempt=1))
    assert await world.store.admit(redriven, ROOMY) == Admitted(4, attempt=2)


@pytest.mark.parametrize(
    "names",
    [("request_id",), ("tenant_id",), ("correlation_id",), ("request_id", "tenant_id"),
     ("request_id", "correlation_id"), ("tenant_id", "correlation_id"), tuple(WHO)],
    ids="+".join,
)  # fmt: skip
async def test_what_was_called_off_before_it_came_is_cancelled_at_the_door(
    world: World, names: tuple[str, ...]
) -> None:
    """By id, tenant, correlation id, or several of them: then all must fit. Repeats and its claim say so too."""
    issued_ms = world.now_ms()
    for _ in range(2):
        await world.store.forbid(Cancellation(**{name: WHO[name] for name in names}, issued_ms=issued_ms))
    fitting = replace(arrival(world), submitted_ms=issued_ms, tenant_id="acme", correlation_id="batch-7")
    for name in names:
        other = replace(fitting, **{name: "other", "request_id": f"other-{name}"})  # type: ignore[arg-type]
        assert await world.store.admit(other, ROOMY) == Admitted(1)
    assert await world.store.admit(fitting, ROOMY) == Admitted(1, cancelled=True)
    assert await world.store.admit(fitting, ROOMY) == Admitted(1, cancelled=True, repeated=True)
    assert await world.store.refuse(fitting, State.EXPIRED, b"") == Admitted(1, cancelled=True, repeated=True)
    assert (await claimed(world, version=1)).cancelled


async def test_only_what_was_submitted_before_is_cancelled(world: World) -> None:
    """A later cancellation of the same requests reaches further; an earlier one takes nothing back."""
    issued_ms = world.now_ms()

    async def is_cancelled(request_id: str, submitted_ms: int) -> bool:
        sent = replace(arrival(world, request_id), submitted_ms=submitted_ms, tenant_id="acme")
        answer = await world.store.admit(sent, ROOMY)
        assert isinstance(answer, Admitted)
        return answer.cancelled

    await world.store.forbid(Cancellation(tenant_id="acme", issued_ms=issued_ms))
    assert await is_cancelled("before", issued_ms)
    assert not await is_cancelled("after", issued_ms + 1)
    await world.store.forbid(Cancellation(tenant_id="acme", issued_ms=issued_ms + 10))
    await world.store.forbid(Cancellation(tenant_id="acme", issued_ms=issued_ms))
    assert await is_cancelled("between", issued_ms + 5)


async def test_names_that_run_together_are_told_apart(world: World) -> None:
    """No id with a mark in it passes for an id and a tenant."""
    issued_ms = world.now_ms()
    await world.store.forbid(Cancellation(request_id="r|a", issued_ms=issued_ms))
    await world.store.forbid(Cancellation(request_id="ü1", tenant_id="x", issued_ms=issued_ms))
    for number, (request_id, tenant_id, expected) in enumerate(
        [("r", "a", False), ("r", "a|", False), ("ü", "1x", False), ("r|a", "any", True), ("ü1", "x", True)]
    ):
        sent = replace(arrival(world, request_id, origin=str(number)), submitted_ms=issued_ms, tenant_id=tenant_id)
        answer = await world.store.admit(sent, ROOMY)
        assert getattr(answer, "cancelled", False) is expected


async def test_a_cancellation_is_forgotten_a_retention_after_it_was_issued(world: World) -> None:
    """With the next one that comes."""
    long_ago = world.now_ms() - RETENTION_SECONDS * 1000 - 60_000
    await world.store.forbid(Cancellation(tenant_id="acme", issued_ms=long_ago))
    await world.store.forbid(Cancellation(tenant_id="other", issued_ms=world.now_ms()))
    sent = replace(arrival(world), submitted_ms=long_ago, tenant_id="acme")
    assert await world.store.admit(sent, ROOMY) == Admitted(1)


async def test_a_redriven_request_is_not_stopped_by_a_cancellation_of_its_last_life(world: World) -> None:
    """It was sent again after it was called off. What is called off after the redrive stays so."""
    issued_ms = world.now_ms()
    await world.store.forbid(Cancellation(tenant_id="acme", issued_ms=issued_ms))
    for name, recorded_ms, expected in (("after", issued_ms + 1, False), ("before", issued_ms, True)):
        redriven = replace(
            arrival(world, name, redrive=Redrive(count=1, state_version=3, attempt=1)),
            tenant_id="acme",
            submitted_ms=issued_ms - 5_000,
            recorded_ms=recorded_ms,
        )
        assert await world.store.admit(redriven, ROOMY) == Admitted(4, attempt=2, cancelled=expected)


async def test_a_task_that_is_newer_than_an_end_does_not_inherit_its_cancellation(world: World) -> None:
    """What the store still knows is of a life before."""
    await admitted(world)
    lease = (await claimed(world, version=1)).lease
    await world.store.cancel(["r1"])
    await world.store.settle(lease, State.FAILED, b"x")
    assert not (await claimed(world, version=9, attempt=2, token=TOKEN, redrives=1)).cancelled
    assert not (await claimed(world, version=9, attempt=2, token=TOKEN, redrives=1)).cancelled
