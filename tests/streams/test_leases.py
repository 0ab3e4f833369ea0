"""Leases stay alive while a call runs, and a call can be ended from outside without ending what follows it."""

import asyncio
import time
from collections.abc import Sequence

from connectors.state.base import Arrival, Claimed, Lease, Limits, Renewal
from connectors.state.memory_store import MemoryStateStore
from schemas.request import LLMRequest, Message
from schemas.vocabulary import Role
from streams.leases import RENEWALS_PER_LEASE, Interruption, LeaseKeeper

REQUEST = LLMRequest(request_id="r", messages=[Message(role=Role.USER, content="hi")])
LIMITS = Limits(max_requests=10, max_bytes=1000)


def now_ms() -> int:
    return time.monotonic_ns() // 1_000_000


async def claimed(state: MemoryStateStore, *, lease_ms: int) -> Claimed:
    await state.admit(Arrival(request_id="r", origin="t-0-0", size_bytes=1, deadline_ms=2**50), LIMITS)
    claim = await state.claim("r", owner="us", lease_ms=lease_ms)
    assert isinstance(claim, Claimed)
    return claim


class CountingStore(MemoryStateStore):
    """Tells how often leases were renewed."""

    def __init__(self) -> None:
        super().__init__(now_ms)
        self.renewals = asyncio.Semaphore(0)

    async def renew(self, leases: Sequence[Lease], *, lease_ms: int) -> Renewal:
        renewal = await super().renew(leases, lease_ms=lease_ms)
        self.renewals.release()
        return renewal


async def test_a_held_lease_outlives_its_length_many_times_over() -> None:
    state = CountingStore()
    keeper = LeaseKeeper(state, lease_seconds=0.3)
    keeper.start()
    claim = await claimed(state, lease_ms=300)
    async with keeper.hold(claim.lease, REQUEST) as held:
        for _ in range(3 * RENEWALS_PER_LEASE):
            await state.renewals.acquire()
            assert not isinstance(await state.claim("r", owner="them", lease_ms=50), Claimed)
        assert held.interruption is None
    await keeper.close()


async def test_a_lost_lease_ends_the_call_and_says_why() -> None:
    state = MemoryStateStore(now_ms)
    keeper = LeaseKeeper(state, lease_seconds=0.03)
    claim = await claimed(state, lease_ms=1)
    while not isinstance(await state.claim("r", owner="them", lease_ms=60_000), Claimed):
        await asyncio.sleep(0.001)
    keeper.start()
    async with keeper.hold(claim.lease, REQUEST) as held:
        ended = await held.run(asyncio.Event().wait)
    assert ended is Interruption.LEASE_LOST
    await keeper.close()


async def test_an_interrupted_call_leaves_the_task_alive_to_clean_up() -> None:
    keeper = LeaseKeeper(MemoryStateStore(now_ms), lease_seconds=10)
    claim = await claimed(MemoryStateStore(now_ms), lease_ms=1000)
    async with keeper.hold(claim.lease, REQUEST) as held:
        asyncio.get_running_loop().call_later(0.001, keeper.interrupt_all, Interruption.SHUTDOWN)
        assert await held.run(asyncio.Event().wait) is Interruption.SHUTDOWN
        await asyncio.sleep(0)
        assert await held.run(asyncio.Event().wait) is Interruption.SHUTDOWN


async def test_a_call_that_ended_before_the_interruption_keeps_its_result() -> None:
    keeper = LeaseKeeper(MemoryStateStore(now_ms), lease_seconds=10)
    claim = await claimed(MemoryStateStore(now_ms), lease_ms=1000)

    async def answer() -> str:
        return "answer"

    async with keeper.hold(claim.lease, REQUEST) as held:
        assert await held.run(answer) == "answer"
        held.interrupt(Interruption.SHUTDOWN)


async def test_a_cancelled_request_has_its_call_ended_and_no_other() -> None:
    keeper = LeaseKeeper(MemoryStateStore(now_ms), lease_seconds=10)
    ours = await claimed(MemoryStateStore(now_ms), lease_ms=1000)
    other = REQUEST.model_copy(update={"request_id": "other"})
    async with keeper.hold(ours.lease, REQUEST) as held, keeper.hold(_lease_of("other"), other) as untouched:
        asyncio.get_running_loop().call_later(0.001, keeper.cancel, lambda request: request.request_id == "r")
        assert await held.run(asyncio.Event().wait) is Interruption.CANCELLED
        assert untouched.interruption is None


async def test_a_renewal_tells_of_a_cancellation_that_nobody_heard_of() -> None:
    state = MemoryStateStore(now_ms)
    keeper = LeaseKeeper(state, lease_seconds=0.03)
    claim = await claimed(state, lease_ms=60_000)
    await state.cancel(["r"])
    keeper.start()
    async with keeper.hold(claim.lease, REQUEST) as held:
        assert await held.run(asyncio.Event().wait) is Interruption.CANCELLED
    await keeper.close()


async def test_a_lease_tells_whether_a_call_was_begun_under_it() -> None:
    """What was interrupted before its call has cost nothing."""
    keeper = LeaseKeeper(MemoryStateStore(now_ms), lease_seconds=10)
    async with keeper.hold(_lease_of("r"), REQUEST) as held:
        asyncio.get_running_loop().call_soon(keeper.cancel, lambda _: True)
        assert await held.run(asyncio.Event().wait) is Interruption.CANCELLED
        assert held.was_called
    async with keeper.hold(_lease_of("r"), REQUEST) as held:
        keeper.cancel(lambda _: True)
        assert await held.run(asyncio.Event().wait) is Interruption.CANCELLED
        assert not held.was_called


async def test_no_call_begins_once_all_were_interrupted() -> None:
    """Its claim was under way meanwhile, so it was not among them."""
    keeper = LeaseKeeper(MemoryStateStore(now_ms), lease_seconds=10)
    keeper.interrupt_all(Interruption.SHUTDOWN)
    async with keeper.hold(_lease_of("r"), REQUEST) as held:
        assert await held.run(asyncio.Event().wait) is Interruption.SHUTDOWN
        assert not held.was_called


def _lease_of(request_id: str) -> Lease:
    return Lease(request_id=request_id, fence=1, attempt=1, version=2)
