"""What every state store does with ends: one winner, an outcome kept until it is in Kafka, and then little kept."""

import asyncio

import pytest

from connectors.state.base import Arrival, Claimed, Ended, Lease, Limits, Renewal, Settled
from connectors.state.ends import IllegalEndError
from connectors.state.remembering import KEPT_IN_KAFKA_MS
from schemas.dead_letter_headers import Redrive
from schemas.vocabulary import State
from tests.state.worlds import RETENTION_SECONDS, World

ROOMY = Limits(max_requests=100_000, max_bytes=1024**3)
LEASE_MS = 60_000
MINUTE_MS = 60_000
HOUR_MS = 60 * MINUTE_MS
ENDS = [State.COMPLETED, State.FAILED, State.EXPIRED, State.CANCELLED]


async def lease_of(world: World, request_id: str = "r1", *, owner: str = "a", admit: bool = True) -> Lease:
    if admit:
        deadline_ms = world.now_ms() + HOUR_MS
        await world.store.admit(
            Arrival(request_id=request_id, origin="o", size_bytes=100, deadline_ms=deadline_ms), ROOMY
        )
    claim = await world.store.claim(request_id, owner=owner, lease_ms=LEASE_MS)
    assert isinstance(claim, Claimed)
    return claim.lease


@pytest.mark.parametrize("end", ENDS)
async def test_the_holder_ends_the_request_one_version_on(world: World, end: State) -> None:
    """Everybody who asks afterwards gets the state and the outcome, byte for byte."""
    lease = await lease_of(world)
    outcome = bytes(range(256))
    assert await world.store.settle(lease, end, outcome) is None
    assert await world.store.claim("r1", owner="b", lease_ms=LEASE_MS) == Settled(end, 3, outcome)


@pytest.mark.parametrize("end", [State.QUEUED, State.PROCESSING, State.RETRY_SCHEDULED, State.REJECTED])
async def test_a_request_at_work_cannot_end_in_any_other_state(world: World, end: State) -> None:
    """A mistake of the caller changes nothing."""
    lease = await lease_of(world)
    with pytest.raises(IllegalEndError):
        await world.store.settle(lease, end, b"")
    assert await world.store.settle(lease, State.COMPLETED, b"x") is None


async def test_the_winner_that_asks_again_is_told_that_it_won(world: World) -> None:
    """Its reply was lost on the way: it still is the one to publish, before and after the outcome is dropped."""
    lease = await lease_of(world)
    assert await world.store.settle(lease, State.FAILED, b"x") is None
    assert await world.store.settle(lease, State.FAILED, b"x") is None
    await world.store.confirm([Ended("r1", State.FAILED, 3)])
    assert await world.store.settle(lease, State.FAILED, b"x") is None
    assert await world.store.settle(lease, State.COMPLETED, b"y") == Settled(State.FAILED, 3, None)


async def test_exactly_one_of_many_settles_wins(world: World) -> None:
    """Stale leases of the same request, all at once: the current one wins, the others learn how it ended."""
    leases = [await lease_of(world)]
    for number in range(20):
        await world.let_pass(LEASE_MS + 1)
        leases.append(await lease_of(world, owner=f"w{number}", admit=False))
    answers = await asyncio.gather(
        *(world.store.settle(lease, State.COMPLETED, str(lease.attempt).encode()) for lease in leases)
    )
    assert [lease for lease, answer in zip(leases, answers, strict=True) if answer is None] == [leases[-1]]
    end = Settled(State.COMPLETED, leases[-1].version + 1, b"21")
    assert await world.store.settle(leases[0], State.COMPLETED, b"1") == end


async def test_a_lease_that_was_taken_over_cannot_settle(world: World) -> None:
    """It is told that another holds the lease, by a state that is not terminal."""
    stale = await lease_of(world)
    await world.let_pass(LEASE_MS + 1)
    current = await lease_of(world, owner="b", admit=False)
    assert await world.store.settle(stale, State.COMPLETED, b"x") == Settled(State.PROCESSING, current.version, None)
    assert await world.store.settle(current, State.COMPLETED, b"y") is None


async def test_a_lapsed_lease_that_nobody_took_can_still_settle(world: World) -> None:
    """The answer is there and was paid for."""
    lease = await lease_of(world)
    await world.let_pass(LEASE_MS + 1)
    assert await world.store.settle(lease, State.COMPLETED, b"x") is None


@pytest.mark.parametrize("called", [False, True])
async def test_a_lease_that_was_given_back_cannot_settle(world: World, *, called: bool) -> None:
    """Its right went with it."""
    lease = await lease_of(world)
    await world.store.release(lease, called=called)
    answer = await world.store.settle(lease, State.COMPLETED, b"x")
    assert isinstance(answer, Settled)
    assert not answer.state.is_terminal
    assert answer.outcome is None


async def test_an_end_takes_the_request_out_of_the_count_once(world: World) -> None:
    """Repeats, late settles and marks change nothing more."""
    lease = await lease_of(world)
    await lease_of(world, "r2")
    for _ in range(2):
        await world.store.settle(lease, State.COMPLETED, b"x")
        await world.store.settle(lease, State.FAILED, b"y")
        await world.store.confirm([Ended("r1", State.COMPLETED, 3)])
    assert await world.store.outstanding() == (1, 100)


async def test_a_request_of_no_bytes_is_counted_and_ended(world: World) -> None:
    """A record may be empty; one that never ends is given up as any other."""
    for request_id in ("ended", "given-up"):
        arrival = Arrival(request_id=request_id, origin="o", size_bytes=0, deadline_ms=0)
        await world.store.admit(arrival, ROOMY)
    assert await world.store.outstanding() == (2, 0)
    assert await world.store.settle(await lease_of(world, "ended", admit=False), State.COMPLETED, b"x") is None
    assert await world.store.outstanding() == (1, 0)
    await world.let_pass(KEPT_IN_KAFKA_MS + RETENTION_SECONDS * 1000 + 1)
    for number in range(20):  # enough to reach each shard
        await lease_of(world, f"r{number}")
    assert await world.store.outstanding() == (20, 2_000)


async def test_an_end_without_history_does_not_drive_the_count_below_zero(world: World) -> None:
    """What was never counted is not subtracted."""
    await lease_of(world, "counted")
    lease = await lease_of(world, admit=False)
    assert await world.store.settle(lease, State.COMPLETED, b"x") is None
    assert await world.store.outstanding() == (1, 100)


async def test_an_outcome_outlives_a_store_that_forgot_its_request(world: World) -> None:
    """The answer was paid for: it is kept as if the store had known, and the first one wins."""
    lease = await lease_of(world)
    await world.lose("r1")
    assert await world.store.settle(lease, State.COMPLETED, b"x") is None
    assert await world.store.settle(lease, State.COMPLETED, b"x") is None
    end = Settled(State.COMPLETED, lease.version + 1, b"x")
    assert await world.store.claim("r1", owner="b", lease_ms=LEASE_MS) == end


async def test_an_outcome_is_kept_until_it_is_confirmed(world: World) -> None:
    """Whoever meets the request before may publish it again, afterwards there is nothing to do."""
    await world.store.settle(await lease_of(world), State.COMPLETED, b"x" * 100_000)
    assert await world.store.claim("r1", owner="b", lease_ms=LEASE_MS) == Settled(State.COMPLETED, 3, b"x" * 100_000)
    await world.store.confirm([Ended("r1", State.COMPLETED, 3)])
    assert await world.store.claim("r1", owner="b", lease_ms=LEASE_MS) == Settled(State.COMPLETED, 3, None)


async def test_an_empty_outcome_is_an_outcome(world: World) -> None:
    """Nothing to say and nothing left to publish are not the same."""
    await world.store.settle(await lease_of(world), State.COMPLETED, b"")
    assert await world.store.claim("r1", owner="b", lease_ms=LEASE_MS) == Settled(State.COMPLETED, 3, b"")


async def test_an_older_end_does_not_touch_a_request_that_went_on(world: World) -> None:
    """At work, or ended again: the confirmation is of a life before."""
    older = Ended("r1", State.FAILED, 3)
    again = Redrive(count=1, state_version=older.version, attempt=1)
    await world.store.admit(
        Arrival(request_id="r1", origin="again", size_bytes=100, deadline_ms=world.now_ms(), redrive=again), ROOMY
    )
    lease = await lease_of(world, admit=False)
    await world.store.confirm([older])
    await world.store.confirm([])
    assert await world.store.renew([lease], lease_ms=LEASE_MS) == Renewal()
    assert await world.store.settle(lease, State.COMPLETED, b"x") is None
    await world.store.confirm([older])
    assert await world.store.claim("r1", owner="b", lease_ms=LEASE_MS) == Settled(State.COMPLETED, 6, b"x")


async def test_an_end_of_this_life_stands_whatever_version_the_store_has_come_to(world: World) -> None:
    """It was reached while the store was away. Here the lease lapsed meanwhile, again and again."""
    leases = [await lease_of(world)]
    for _ in range(3):
        await world.let_pass(LEASE_MS + 1)
        leases.append(await lease_of(world, admit=False))
    version = leases[-1].version
    for _ in range(2):
        await world.store.confirm([Ended("r1", State.COMPLETED, leases[0].version + 1)])
        assert await world.store.settle(leases[-1], State.FAILED, b"x") == Settled(State.COMPLETED, version, None)
    assert await world.store.outstanding() == (0, 0)


async def test_another_end_in_kafka_of_the_same_version_goes_before_the_one_that_is_kept(world: World) -> None:
    """Two workers ended it, one while the store was away. The lease of the other causes nothing more."""
    lease = await lease_of(world)
    assert await world.store.settle(lease, State.COMPLETED, b"x") is None
    await world.store.confirm([Ended("r1", State.FAILED, 3)])
    for end in (State.COMPLETED, State.FAILED):
        assert await world.store.settle(lease, end, b"x") == Settled(State.FAILED, 3, None)


async def test_thousands_are_confirmed_in_one_step(world: World) -> None:
    """Over all shards, however many."""
    ids = [f"r{number}" for number in range(1500)]
    for start in range(0, len(ids), 100):
        leases = await asyncio.gather(*(lease_of(world, request_id) for request_id in ids[start : start + 100]))
        await asyncio.gather(*(world.store.settle(lease, State.COMPLETED, b"x") for lease in leases))
    assert await world.store.outstanding() == (0, 0)
    await world.store.confirm([Ended(request_id, State.COMPLETED, 3) for request_id in ids])
    for request_id in ids[::100]:
        assert await world.store.claim(request_id, owner="b", lease_ms=1) == Settled(State.COMPLETED, 3, None)


async def test_an_ended_request_is_remembered_a_retention_longer_than_its_deadline(world: World) -> None:
    """Somebody may come with its task until then. Confirmations do not prolong its stay."""
    await world.store.settle(await lease_of(world, "confirmed"), State.COMPLETED, b"x")
    await world.store.settle(await lease_of(world, "unconfirmed"), State.COMPLETED, b"x")
    for _ in range(2):
        await world.let_pass(RETENTION_SECONDS * 500)
        await world.store.confirm([Ended("confirmed", State.COMPLETED, 3)])
    assert await world.remaining() == 2
    await world.let_pass(HOUR_MS + MINUTE_MS)
    assert await world.remaining() == 0


async def test_a_request_that_ends_after_its_deadline_is_remembered_from_its_end_on(world: World) -> None:
    lease = await lease_of(world)
    await world.let_pass(10 * HOUR_MS)
    await world.store.settle(lease, State.COMPLETED, b"x")
    await world.let_pass(RETENTION_SECONDS * 1000 - MINUTE_MS)
    assert await world.remaining() == 1
    await world.let_pass(2 * MINUTE_MS)
    assert await world.remaining() == 0


async def test_a_deadline_far_away_keeps_an_end_no_longer_than_kafka_keeps_its_task(world: World) -> None:
    far_away = Arrival(request_id="r1", origin="o", size_bytes=1, deadline_ms=world.now_ms() + 100 * KEPT_IN_KAFKA_MS)
    await world.store.admit(far_away, ROOMY)
    await world.store.settle(await lease_of(world, admit=False), State.COMPLETED, b"x")
    await world.let_pass(KEPT_IN_KAFKA_MS + RETENTION_SECONDS * 1000 + MINUTE_MS)
    assert await world.remaining() == 0
