"""Lives of requests in which each step of the store is made at least once."""

from connectors.state.base import (
    Admitted,
    Arrival,
    Cancellation,
    Claimed,
    Ended,
    FoundTask,
    Lease,
    Limits,
    Moved,
    Renewal,
    TaskRef,
)
from connectors.state.store import StateStore
from schemas.vocabulary import State

ROOMY = Limits(max_requests=100_000, max_bytes=1024**3)
LEASE_MS = 10_000


async def every_step(store: StateStore, request_id: str = "r1") -> None:
    """Leaves nothing outstanding that it brought."""
    deadline_ms = 1

    def arrival(name: str) -> Arrival:
        return Arrival(request_id=name, origin="o", size_bytes=1, deadline_ms=deadline_ms, summary=b"first")

    async def claimed(name: str, *, version: int, attempt: int) -> Lease:
        task = TaskRef(version=version, attempt=attempt, size_bytes=1, deadline_ms=deadline_ms)
        claim = await store.claim(name, owner="w", lease_ms=LEASE_MS, task=task)
        assert isinstance(claim, Claimed)
        assert claim.lease.attempt == attempt
        return claim.lease

    await store.is_restored()
    await store.is_same_run()
    await store.restored()
    assert await store.is_restored()
    assert await store.is_same_run()
    await store.forbid(Cancellation(tenant_id="nobody", issued_ms=1))
    await store.forbid(Cancellation(request_id="nobody", issued_ms=1))
    assert isinstance(await store.admit(arrival(request_id), ROOMY), Admitted)
    assert request_id in [name async for batch in store.counted() for name in batch]
    lease = await claimed(request_id, version=1, attempt=1)
    assert await store.renew([lease], lease_ms=LEASE_MS) == Renewal()
    await store.release(lease, called=False)
    lease = await claimed(request_id, version=1, attempt=1)
    state = State.RETRY_SCHEDULED
    assert await store.reschedule(lease, state, task_version=1, next_attempt=2, summary=b"second") is None
    waiting = lease.version + 1
    moved = await store.requeue(request_id, task_version=waiting, attempt=2, summary=b"third", deadline_ms=deadline_ms)
    assert moved == Moved(State.QUEUED, waiting + 1, b"third")
    lease = await claimed(request_id, version=waiting + 1, attempt=2)
    await store.cancel([request_id])
    assert await store.renew([lease], lease_ms=LEASE_MS) == Renewal(cancelled=(lease,))
    assert await store.settle(lease, State.CANCELLED, b"x") is None
    await store.confirm([Ended(request_id, State.CANCELLED, lease.version + 1)])

    late = f"{request_id}-late"
    assert isinstance(await store.admit(arrival(late), ROOMY), Admitted)
    assert late in await store.overdue(limit=100)
    (known,) = await store.look([late])
    assert await store.end(known, State.EXPIRED, b"x") is None
    await store.confirm([Ended(late, State.EXPIRED, known.version + 1)])

    found = f"{request_id}-found"
    ref = TaskRef(version=1, attempt=1, size_bytes=1, deadline_ms=deadline_ms)
    await store.adopt(FoundTask(request_id=found, state=State.QUEUED, task=ref, summary=b"first", origin="o"))
    adopted = await claimed(found, version=1, attempt=1)
    assert await store.settle(adopted, State.COMPLETED, b"x") is None

    refused = f"{request_id}-refused"
    await store.refuse(arrival(refused), State.REJECTED, b"")
    assert await store.outstanding() == (0, 0)
