"""What every state store does with leases: one holder at a time, and an account of the calls that were lost."""

import asyncio
from uuid import uuid4

from connectors.state.base import Admitted, Arrival, Busy, Claimed, Lease, Limits, LostCall, Renewal, Settled
from connectors.state.remembering import KEPT_IN_KAFKA_MS
from schemas.vocabulary import State
from tests.state.worlds import RETENTION_SECONDS, RedisWorld, World

ROOMY = Limits(max_requests=100_000, max_bytes=1024**3)
LEASE_MS = 60_000
HOUR_MS = 3_600_000


async def admitted(world: World, request_id: str = "r1", *, deadline_in_ms: int = HOUR_MS) -> None:
    deadline_ms = world.now_ms() + deadline_in_ms
    arrival = Arrival(request_id=request_id, origin="o", size_bytes=100, deadline_ms=deadline_ms)
    assert await world.store.admit(arrival, ROOMY) == Admitted(1)


async def claimed(world: World, request_id: str = "r1", *, owner: str = "a", token: str | None = None) -> Claimed:
    claim = await world.store.claim(request_id, owner=owner, lease_ms=LEASE_MS, token=token)
    assert isinstance(claim, Claimed)
    return claim


def attempts_lost(claim: Claimed) -> list[tuple[int, str]]:
    return [(lost.attempt, lost.owner) for lost in claim.lost_calls]


async def test_the_first_claim_makes_attempt_one_at_version_two(world: World) -> None:
    """Nothing is lost yet, and the store knows the whole history."""
    await admitted(world)
    claim = await claimed(world)
    assert (claim.lease.attempt, claim.lease.version) == (1, 2)
    assert claim.lost_calls == ()
    assert not claim.newly_lost
    assert not claim.history_missing


async def test_nobody_else_gets_a_lease_that_is_held(world: World) -> None:
    """They are told when to ask again, not even its owner may hold it twice."""
    await admitted(world)
    await claimed(world, owner="a")
    for owner in ("a", "b"):
        answer = await world.store.claim("r1", owner=owner, lease_ms=LEASE_MS)
        assert isinstance(answer, Busy)
        assert 0 < answer.retry_after_ms <= LEASE_MS


async def test_one_of_many_claims_at_once_gets_the_lease(world: World) -> None:
    """Workers that read the same task after a rebalance do not call twice."""
    await admitted(world)
    answers = await asyncio.gather(
        *(world.store.claim("r1", owner=f"w{number}", lease_ms=LEASE_MS) for number in range(200))
    )
    assert sum(isinstance(answer, Claimed) for answer in answers) == 1
    assert sum(isinstance(answer, Busy) for answer in answers) == 199


async def test_a_lapsed_lease_is_a_lost_call_and_the_next_attempt_says_so(world: World) -> None:
    """The provider may have been paid, so the number goes up and the loss is named to every later claim."""
    await admitted(world)
    first = await claimed(world, owner="a")
    await world.let_pass(LEASE_MS + 1)
    second = await claimed(world, owner="b")
    assert (second.lease.attempt, second.lease.version) == (2, 3)
    assert second.lease.fence > first.lease.fence
    assert attempts_lost(second) == [(1, "a")]
    assert second.newly_lost
    await world.let_pass(LEASE_MS + 1)
    third = await claimed(world, owner="c")
    assert attempts_lost(third) == [(1, "a"), (2, "b")]
    assert third.lease.attempt == 3


async def test_a_lost_call_carries_when_it_was_started(world: World) -> None:
    """The time is that of the claim, by the store's clock."""
    await admitted(world)
    before_ms = world.now_ms() - 1
    await claimed(world)
    after_ms = world.now_ms() + 1
    await world.let_pass(LEASE_MS + 1)
    (lost,) = (await claimed(world)).lost_calls
    shift_ms = LEASE_MS + 1 if isinstance(world, RedisWorld) else 0  # there what is stored was made older
    assert before_ms <= lost.started_ms + shift_ms <= after_ms


async def test_owners_of_any_name_are_remembered(world: World) -> None:
    """Names pass through unchanged, whatever is in them."""
    await admitted(world)
    owner = 'höst/7 "quoted" \\ [1,2] 工'
    await claimed(world, owner=owner)
    await world.let_pass(LEASE_MS + 1)
    (lost,) = (await claimed(world)).lost_calls
    assert lost == LostCall(attempt=1, owner=owner, started_ms=lost.started_ms)


async def test_a_lease_given_back_before_the_call_was_no_attempt(world: World) -> None:
    """The next claim repeats the number, and the version has grown by the way back to the queue."""
    await admitted(world)
    first = await claimed(world)
    await world.store.release(first.lease, called=False)
    second = await claimed(world, owner="b")
    assert (second.lease.attempt, second.lease.version) == (1, 4)
    assert second.lost_calls == ()
    assert second.lease.fence > first.lease.fence


async def test_a_lease_given_back_after_the_call_is_lost_at_once(world: World) -> None:
    """Nobody waits for it to lapse."""
    await admitted(world)
    first = await claimed(world, owner="a")
    await world.store.release(first.lease, called=True)
    second = await claimed(world, owner="b")
    assert (second.lease.attempt, second.lease.version) == (2, 3)
    assert attempts_lost(second) == [(1, "a")]
    assert second.newly_lost


async def test_a_claim_given_back_uncalled_hides_no_loss_from_the_next(world: World) -> None:
    """Whoever makes attempt 2 has to know that attempt 1 was lost, even if somebody else knew it before."""
    await admitted(world)
    await claimed(world, owner="a")
    await world.let_pass(LEASE_MS + 1)
    second = await claimed(world, owner="b")
    await world.store.release(second.lease, called=False)
    third = await claimed(world, owner="c")
    assert third.lease.attempt == 2
    assert third.newly_lost


async def test_only_the_holder_can_give_a_lease_back(world: World) -> None:
    """A release that comes late, or twice, disturbs nobody."""
    await admitted(world)
    first = await claimed(world, owner="a")
    await world.let_pass(LEASE_MS + 1)
    second = await claimed(world, owner="b")
    for called in (False, True):
        await world.store.release(first.lease, called=called)
    assert isinstance(await world.store.claim("r1", owner="c", lease_ms=LEASE_MS), Busy)
    await world.store.release(second.lease, called=True)
    await world.store.release(second.lease, called=False)
    assert attempts_lost(await claimed(world, owner="c")) == [(1, "a"), (2, "b")]


async def test_a_claim_repeated_with_its_token_gets_the_same_lease(world: World) -> None:
    """Its reply was lost on the way: it is neither busy with itself, nor a call that was lost."""
    await admitted(world)
    await claimed(world, owner="a")
    await world.let_pass(LEASE_MS + 1)
    token = uuid4().hex
    first = await claimed(world, owner="b", token=token)
    assert await claimed(world, owner="b", token=token) == first
    assert isinstance(await world.store.claim("r1", owner="b", lease_ms=LEASE_MS, token=uuid4().hex), Busy)


async def test_a_repeated_claim_gets_its_lease_even_after_it_lapsed(world: World) -> None:
    """As long as nobody else took it: no call was made under it, so none was lost."""
    await admitted(world)
    token = uuid4().hex
    first = await claimed(world, token=token)
    await world.let_pass(LEASE_MS + 1)
    assert await claimed(world, token=token) == first
    assert isinstance(await world.store.claim("r1", owner="b", lease_ms=LEASE_MS), Busy)


async def test_a_token_is_worth_nothing_once_its_lease_is_gone(world: World) -> None:
    """After another claim the lease is that claim's; after being given back, the call counts as lost."""
    await admitted(world)
    token = uuid4().hex
    first = await claimed(world, owner="a", token=token)
    await world.store.release(first.lease, called=True)
    second = await claimed(world, owner="a", token=token)
    assert attempts_lost(second) == [(1, "a")]
    await world.let_pass(LEASE_MS + 1)
    await claimed(world, owner="b")
    assert isinstance(await world.store.claim("r1", owner="a", lease_ms=LEASE_MS, token=token), Busy)


async def test_renewed_leases_do_not_lapse(world: World) -> None:
    """Each renewal counts from the moment it is made."""
    await admitted(world)
    claim = await claimed(world)
    for _ in range(3):
        await world.let_pass(LEASE_MS - 10_000)
        assert await world.store.renew([claim.lease], lease_ms=LEASE_MS) == Renewal()
    assert isinstance(await world.store.claim("r1", owner="b", lease_ms=LEASE_MS), Busy)


async def test_a_late_renewal_saves_a_lease_that_nobody_took(world: World) -> None:
    """A pause of the process costs nothing if nobody noticed."""
    await admitted(world)
    claim = await claimed(world)
    await world.let_pass(LEASE_MS + 1)
    assert await world.store.renew([claim.lease], lease_ms=LEASE_MS) == Renewal()
    assert isinstance(await world.store.claim("r1", owner="b", lease_ms=LEASE_MS), Busy)


async def test_renew_names_exactly_the_leases_that_are_lost(world: World) -> None:
    """To another claim, to an end, given back, or unknown; the others of the same call are prolonged."""
    leases = {}
    for name in ("kept", "taken", "ended", "given_back", "given_back_called", "forgotten"):
        await admitted(world, name)
        leases[name] = (await claimed(world, name)).lease
    await world.store.settle(leases["ended"], State.COMPLETED, b"x")
    await world.store.release(leases["given_back"], called=False)
    await world.store.release(leases["given_back_called"], called=True)
    await world.let_pass(LEASE_MS + 1)
    await claimed(world, "taken", owner="b")
    await world.lose("forgotten")
    lost = (await world.store.renew(list(leases.values()), lease_ms=LEASE_MS)).lost
    assert {lease.request_id for lease in lost} == leases.keys() - {"kept"}
    assert isinstance(await world.store.claim("kept", owner="b", lease_ms=LEASE_MS), Busy)


async def test_an_old_and_a_new_lease_of_one_request_are_told_apart(world: World) -> None:
    """A process that lost its lease and claimed again may renew both: one is lost, the other prolonged."""
    await admitted(world)
    old = (await claimed(world)).lease
    await world.let_pass(LEASE_MS + 1)
    new = (await claimed(world)).lease
    for leases in ([old, new], [new, old]):
        await world.let_pass(LEASE_MS - 10_000)
        assert await world.store.renew(leases, lease_ms=LEASE_MS) == Renewal(lost=(old,))


async def test_thousands_of_leases_are_renewed_in_one_step(world: World) -> None:
    """However many there are, over all shards, the lost ones among them are found."""
    leases = []
    for start in range(0, 1500, 100):
        ids = [f"r{number}" for number in range(start, start + 100)]
        claims = await asyncio.gather(*(claimed(world, request_id) for request_id in ids))
        leases += [claim.lease for claim in claims]
    stale = [Lease(request_id=lease.request_id, fence=1, attempt=1, version=1) for lease in leases[::7]]
    mixed = [stale[position // 7] if position % 7 == 0 else lease for position, lease in enumerate(leases)]
    lost = (await world.store.renew(mixed, lease_ms=LEASE_MS)).lost
    assert sorted(lease.request_id for lease in lost) == sorted(lease.request_id for lease in stale)
    assert await world.store.renew([], lease_ms=LEASE_MS) == Renewal()


async def test_an_unknown_request_is_claimed_with_its_history_missing(world: World) -> None:
    """The store lost its data, or its task outlived it: the work goes on, uncounted, and says what it does not know."""
    claim = await claimed(world)
    assert claim.history_missing
    assert claim.lease.attempt == 1
    assert await world.store.outstanding() == (0, 0)
    await world.let_pass(LEASE_MS + 1)
    assert (await claimed(world)).history_missing


async def test_versions_and_fences_grow_across_a_loss_of_data(world: World) -> None:
    """Events of the new life have other ids than those of the old one, and an old lease is not a new one."""
    await admitted(world)
    old = (await claimed(world)).lease
    await world.lose("r1")
    new = (await claimed(world)).lease
    assert new.version > old.version
    assert new.fence > old.fence
    assert await world.store.renew([old], lease_ms=LEASE_MS) == Renewal(lost=(old,))
    assert await world.store.settle(old, State.COMPLETED, b"x") == Settled(State.PROCESSING, new.version, None)


async def test_a_lease_that_outlives_the_deadline_keeps_its_request_known(world: World) -> None:
    """Renewed for longer than anything is kept, it is still a lease."""
    await admitted(world, deadline_in_ms=1_000)
    claim = await claimed(world)
    for _ in range(3):
        await world.let_pass(KEPT_IN_KAFKA_MS + RETENTION_SECONDS * 1000 - 1_000)
        assert await world.store.renew([claim.lease], lease_ms=LEASE_MS) == Renewal()
    assert await world.store.settle(claim.lease, State.COMPLETED, b"x") is None


async def test_leases_lapse_by_the_clock_of_the_store(world: World) -> None:
    """Without anybody's help: a claim gets through once the time is over."""
    await admitted(world)
    await world.store.claim("r1", owner="a", lease_ms=30)
    async with asyncio.timeout(30):
        while isinstance(answer := await world.store.claim("r1", owner="b", lease_ms=LEASE_MS), Busy):
            assert 0 < answer.retry_after_ms <= 30
            await asyncio.sleep(0.005)
            if not isinstance(world, RedisWorld):
                await world.let_pass(5)
    assert isinstance(answer, Claimed)
    assert answer.newly_lost
