"""What every state store does at the door: remembers once, counts, and closes when there is too much."""

import asyncio

import pytest

from connectors.state.base import Admitted, Arrival, Claimed, Duplicate, Ended, Full, Limits, Settled
from connectors.state.ends import IllegalEndError
from connectors.state.remembering import KEPT_IN_KAFKA_MS
from schemas.vocabulary import State
from tests.state.worlds import RETENTION_SECONDS, World

ROOMY = Limits(max_requests=100_000, max_bytes=1024**3)
MINUTE_MS = 60_000


def arrival(
    world: World, request_id: str = "r1", *, origin: str = "llm.requests-0-1", size_bytes: int = 100
) -> Arrival:
    return Arrival(
        request_id=request_id, origin=origin, size_bytes=size_bytes, deadline_ms=world.now_ms() + 10 * MINUTE_MS
    )


async def admit_and_end(world: World, request_id: str) -> None:
    claim = await world.store.claim(request_id, owner="w", lease_ms=MINUTE_MS)
    assert isinstance(claim, Claimed)
    assert await world.store.settle(claim.lease, State.COMPLETED, b"") is None


async def test_a_new_request_is_admitted_at_version_one_and_counted(world: World) -> None:
    """An unknown id is let in, and its bytes are outstanding."""
    assert await world.store.admit(arrival(world), ROOMY) == Admitted(1)
    assert await world.store.outstanding() == (1, 100)


async def test_the_same_record_again_is_published_again_and_counted_once(world: World) -> None:
    """A redelivered record that nobody took up yet may not have reached its lane."""
    await world.store.admit(arrival(world), ROOMY)
    assert await world.store.admit(arrival(world), ROOMY) == Admitted(1, repeated=True)
    assert await world.store.outstanding() == (1, 100)


async def test_another_record_with_a_known_id_is_a_duplicate(world: World) -> None:
    """The first record to carry an id has it."""
    await world.store.admit(arrival(world), ROOMY)
    other = arrival(world, origin="llm.requests-0-2", size_bytes=999)
    assert await world.store.admit(other, ROOMY) == Duplicate(State.QUEUED)
    assert await world.store.outstanding() == (1, 100)


async def test_a_record_whose_task_was_taken_up_is_a_duplicate_of_itself(world: World) -> None:
    """Its lane task is in Kafka, whether it is being worked on, was given back, or has ended."""
    await world.store.admit(arrival(world), ROOMY)
    claim = await world.store.claim("r1", owner="w", lease_ms=MINUTE_MS)
    assert isinstance(claim, Claimed)
    assert await world.store.admit(arrival(world), ROOMY) == Duplicate(State.PROCESSING)
    await world.store.release(claim.lease, called=False)
    assert await world.store.admit(arrival(world), ROOMY) == Duplicate(State.QUEUED)
    await admit_and_end(world, "r1")
    assert await world.store.admit(arrival(world), ROOMY) == Duplicate(State.COMPLETED)


async def test_a_thousand_copies_at_once_are_admitted_once(world: World) -> None:
    """However many records carry an id, and whoever reads them at the same moment, one wins."""
    copies = [arrival(world, origin=f"llm.requests-0-{number}") for number in range(1000)]
    answers = await asyncio.gather(*(world.store.admit(copy, ROOMY) for copy in copies))
    # A client of a cluster may ask again by itself, and is told so then.
    assert [answer.version for answer in answers if isinstance(answer, Admitted)] == [1]
    assert answers.count(Duplicate(State.QUEUED)) == 999
    assert await world.store.outstanding() == (1, 100)


@pytest.mark.parametrize(
    ("limits", "size_bytes"),
    [
        (Limits(max_requests=40, max_bytes=10**9, high_watermark=0.8, low_watermark=0.4), 10),
        (Limits(max_requests=10**9, max_bytes=400, high_watermark=0.8, low_watermark=0.4), 10),
    ],
    ids=["requests", "bytes"],
)
async def test_admission_closes_at_the_high_mark_and_reopens_at_the_low_one(
    world: World, limits: Limits, size_bytes: int
) -> None:
    """Between the marks it stays as it was: closed on the way down, open on the way up."""
    ids = [f"r{number}" for number in range(400)]
    admitted: list[str] = []
    refused: str | None = None
    for request_id in ids:
        answer = await world.store.admit(arrival(world, request_id, size_bytes=size_bytes), limits)
        if isinstance(answer, Full):
            refused = request_id
            break
        admitted.append(request_id)
    assert refused is not None
    # With shards each closes by its own share: what they hold together is never more than the whole mark.
    same_shard = [known for known in admitted if shard_of(world, known) == shard_of(world, refused)]
    assert len(same_shard) * shard_count(world) == 32
    closed_at = Full(len(same_shard), len(same_shard) * size_bytes)
    assert answer == closed_at

    while len(same_shard) * shard_count(world) > 16:
        assert isinstance(await world.store.admit(arrival(world, refused, size_bytes=size_bytes), limits), Full)
        await admit_and_end(world, same_shard.pop())
    assert await world.store.admit(arrival(world, refused, size_bytes=size_bytes), limits) == Admitted(1)


def shard_count(world: World) -> int:
    keys = getattr(world.store, "_keys", None)
    return keys.shards if keys is not None else 1


def shard_of(world: World, request_id: str) -> int:
    keys = getattr(world.store, "_keys", None)
    return keys.shard(request_id) if keys is not None else 0


async def test_a_request_larger_than_all_room_passes_alone(world: World) -> None:
    """The one that reaches the mark is let in: nothing is refused for ever because of its size."""
    limits = Limits(max_requests=10, max_bytes=50)
    assert await world.store.admit(arrival(world, size_bytes=1_000_000), limits) == Admitted(1)


async def test_a_closed_door_still_knows_who_is_inside(world: World) -> None:
    """Repeats and duplicates are recognised when admission is closed: they take no room."""
    limits = Limits(max_requests=1, max_bytes=10**9)
    await world.store.admit(arrival(world), limits)
    assert await world.store.admit(arrival(world), limits) == Admitted(1, repeated=True)
    assert await world.store.admit(arrival(world, origin="other"), limits) == Duplicate(State.QUEUED)


async def test_a_refused_request_is_remembered_and_not_counted(world: World) -> None:
    """It ends at the door, in version 1, with the outcome to publish."""
    answer = await world.store.refuse(arrival(world), State.REJECTED, b"because")
    assert answer == Settled(State.REJECTED, 1, b"because")
    assert await world.store.outstanding() == (0, 0)


async def test_the_first_refusal_stands_whatever_the_same_record_meets_later(world: World) -> None:
    """A crash after refusing, and a redelivery when there is room, or too late: the same end is published again."""
    await world.store.refuse(arrival(world), State.REJECTED, b"queue full")
    first = Settled(State.REJECTED, 1, b"queue full")
    assert await world.store.refuse(arrival(world), State.EXPIRED, b"too late") == first
    assert await world.store.admit(arrival(world), ROOMY) == first
    assert await world.store.claim("r1", owner="w", lease_ms=MINUTE_MS) == first
    assert await world.store.outstanding() == (0, 0)


async def test_a_refusal_that_was_published_has_nothing_left_to_publish(world: World) -> None:
    """Its state is still known, to the same record and to others."""
    await world.store.refuse(arrival(world), State.EXPIRED, b"too late")
    await world.store.confirm([Ended("r1", State.EXPIRED, 1)])
    assert await world.store.admit(arrival(world), ROOMY) == Settled(State.EXPIRED, 1, None)
    assert await world.store.refuse(arrival(world, origin="other"), State.REJECTED, b"") == Duplicate(State.EXPIRED)


async def test_what_was_admitted_cannot_be_refused_any_more(world: World) -> None:
    """A crash before the lane task was published, and a redelivery past the deadline: it goes on, it is not dropped."""
    await world.store.admit(arrival(world), ROOMY)
    assert await world.store.refuse(arrival(world), State.EXPIRED, b"") == Admitted(1, repeated=True)
    other = arrival(world, origin="other")
    assert await world.store.refuse(other, State.REJECTED, b"") == Duplicate(State.QUEUED)
    assert await world.store.outstanding() == (1, 100)


@pytest.mark.parametrize("state", [State.QUEUED, State.PROCESSING, State.COMPLETED, State.FAILED, State.CANCELLED])
async def test_only_ends_at_the_door_can_be_refusals(world: World, state: State) -> None:
    """Anything else is a mistake of the caller, and nothing is stored."""
    with pytest.raises(IllegalEndError):
        await world.store.refuse(arrival(world), state, b"")
    assert await world.store.admit(arrival(world), ROOMY) == Admitted(1)


async def test_a_deadline_long_past_does_not_make_the_store_forget_at_once(world: World) -> None:
    """Retention counts from the arrival when the deadline lies before it."""
    late = Arrival(request_id="r1", origin="o", size_bytes=7, deadline_ms=1)
    await world.store.admit(late, ROOMY)
    await world.store.admit(arrival(world, "r2"), ROOMY)
    assert await world.store.admit(late, ROOMY) == Admitted(1, repeated=True)
    assert await world.store.outstanding() == (2, 107)


async def test_what_never_ends_is_given_up_when_kafka_no_longer_has_its_task(world: World) -> None:
    """It leaves the count by itself, so lost work cannot keep admission closed for ever."""
    ids = [f"r{number}" for number in range(30)]
    for request_id in ids:
        await world.store.admit(arrival(world, request_id), ROOMY)
    await world.let_pass(10 * MINUTE_MS + RETENTION_SECONDS * 1000 + 1)
    assert await world.remaining() == 30
    await world.let_pass(KEPT_IN_KAFKA_MS)
    assert await world.remaining() == 0
    for number in range(40):
        await world.store.refuse(arrival(world, f"x{number}"), State.REJECTED, b"")
        assert await world.store.admit(arrival(world, f"y{number}"), ROOMY) == Admitted(1)
    assert await world.store.outstanding() == (40, 4000)
