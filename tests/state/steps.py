"""Steps with the arguments that most tests give them, and what they must answer."""

from dataclasses import replace
from uuid import uuid4

from connectors.state.base import (
    Admitted,
    Arrival,
    Claim,
    Claimed,
    FoundTask,
    Known,
    Lease,
    Limits,
    LostCall,
    Rescheduled,
    TaskRef,
)
from schemas.dead_letter_headers import Redrive
from schemas.vocabulary import State
from tests.state.worlds import World

ROOMY = Limits(max_requests=100_000, max_bytes=1024**3)
LEASE_MS = 60_000
HOUR_MS = 3_600_000
SIZE_BYTES = 100
TOKEN = uuid4().hex


def arrival(
    world: World,
    request_id: str = "r1",
    *,
    origin: str = "llm.requests-0-1",
    deadline_in_ms: int = HOUR_MS,
    redrive: Redrive | None = None,
) -> Arrival:
    return Arrival(
        request_id=request_id,
        origin=origin,
        size_bytes=SIZE_BYTES,
        deadline_ms=world.now_ms() + deadline_in_ms,
        summary=b"at the door",
        redrive=redrive,
    )


async def admitted(world: World, request_id: str = "r1", *, deadline_in_ms: int = HOUR_MS) -> Admitted:
    answer = await world.store.admit(arrival(world, request_id, deadline_in_ms=deadline_in_ms), ROOMY)
    assert isinstance(answer, Admitted)
    return answer


async def claim(
    world: World,
    request_id: str = "r1",
    *,
    version: int = 0,
    attempt: int = 1,
    owner: str = "a",
    token: str | None = None,
    redrives: int = 0,
) -> Claim:
    """For the task of this version, or for whatever task there is."""
    task = None
    if version:
        deadline_ms = world.now_ms() + HOUR_MS
        task = TaskRef(
            version=version, attempt=attempt, size_bytes=SIZE_BYTES, deadline_ms=deadline_ms, redrives=redrives
        )
    return await world.store.claim(request_id, owner=owner, lease_ms=LEASE_MS, token=token, task=task)


async def claimed(
    world: World,
    request_id: str = "r1",
    *,
    version: int = 0,
    attempt: int = 1,
    owner: str = "a",
    token: str | None = None,
    redrives: int = 0,
) -> Claimed:
    answer = await claim(
        world, request_id, version=version, attempt=attempt, owner=owner, token=token, redrives=redrives
    )
    assert isinstance(answer, Claimed)
    return answer


def found(
    world: World,
    *,
    version: int = 1,
    attempt: int = 1,
    state: State = State.QUEUED,
    size_bytes: int = SIZE_BYTES,
    deadline_in_ms: int = HOUR_MS,
    redrives: int = 0,
    earlier_calls: int = 0,
    lost_calls: int = 0,
) -> FoundTask:
    """A task of `r1` as Kafka has it."""
    deadline_ms = world.now_ms() + deadline_in_ms
    lost = [LostCall(attempt=attempt + number, owner="unknown", started_ms=1) for number in range(lost_calls)]
    return FoundTask(
        request_id="r1",
        state=state,
        task=TaskRef(
            version=version, attempt=attempt, size_bytes=size_bytes, deadline_ms=deadline_ms, redrives=redrives
        ),
        summary=b"found in %d" % version,
        origin=arrival(world).origin,
        earlier_calls=earlier_calls,
        lost_calls=tuple(lost),
    )


async def reschedule(
    world: World,
    lease: Lease,
    *,
    task_version: int = 1,
    state: State = State.RETRY_SCHEDULED,
    summary: bytes = b"failed",
) -> Rescheduled:
    return await world.store.reschedule(
        lease, state, task_version=task_version, next_attempt=lease.attempt + 1, summary=summary
    )


async def waiting(world: World, request_id: str = "r1") -> int:
    """A request whose first call failed. Its task's version is what comes back."""
    await admitted(world, request_id)
    lease = (await claimed(world, request_id, version=1)).lease
    assert await reschedule(world, lease) is None
    return lease.version + 1


async def requeue(
    world: World, request_id: str = "r1", *, task_version: int = 3, attempt: int = 2, redrives: int = 0
) -> object:
    return await world.store.requeue(
        request_id,
        task_version=task_version,
        attempt=attempt,
        summary=b"waited",
        deadline_ms=world.now_ms() + HOUR_MS,
        redrives=redrives,
    )


async def seen(world: World, request_id: str = "r1") -> Known:
    (known,) = await world.store.look([request_id])
    return known


async def due(world: World, limit: int = 1_000) -> list[str]:
    return sorted(await world.store.overdue(limit=limit))


async def counted(world: World) -> list[str]:
    return sorted([request_id async for batch in world.store.counted() for request_id in batch])


def own(lease: Lease, *, fence: int = 7) -> Lease:
    """A lease as a worker gives it to itself."""
    return replace(lease, fence=fence, is_own=True)
