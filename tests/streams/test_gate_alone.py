"""A gate whose store is away goes on by itself, and shares again when it is back; and no error ends its work."""

import asyncio
import time

import pytest
from structlog.testing import capture_logs

from connectors.state.base import StateUnavailableError
from connectors.state.shared_values import Change, MemorySharedValues, T
from policy.rate import MINUTE_MS
from policy.rules import BreakerRules, TenantRules
from schemas.vocabulary import BreakerState
from streams.gate import SharedGate
from streams.gating import CallOutcome, Flow
from tests.policy.test_limits import most_in_a_minute
from tests.state.conftest import own_redis  # noqa: F401 - a fixture
from tests.state.redis_process import RedisProcess
from tests.streams.gate_support import (
    ANSWERED,
    BROKEN,
    FLOW,
    CountingValues,
    Fleet,
    call,
    catalogue,
    entered,
    running_gates,
    until,
)

LIMITS = {"requests_per_minute": 600, "concurrency": 4}


class Unreliable(CountingValues):
    """A store that fails as it is told to."""

    error: Exception | None = None

    async def update(self, name: str, change: Change[T], *, ttl_seconds: float) -> T:
        if self.error is not None:
            raise self.error
        return await super().update(name, change, ttl_seconds=ttl_seconds)


def unreliable_fleet(size: int = 2, **parts: object) -> tuple[Fleet, Unreliable]:
    fleet = Fleet(catalogue(**parts), 0)  # type: ignore[arg-type]
    store = Unreliable(fleet.values)
    fleet.values = store
    fleet.gates = [fleet.another() for _ in range(size)]
    return fleet, store


async def test_a_redis_that_dies_and_comes_back(own_redis: RedisProcess) -> None:  # noqa: F811
    """Meanwhile calls go on and the breaker is each worker's own; afterwards it is everybody's. Told once each way."""
    whole = catalogue(limits=LIMITS, tenants={"*": TenantRules(budget_usd_per_day=100)})
    with capture_logs() as logs:
        async with running_gates(own_redis.url, whole, timeout_seconds=0.5) as (one, other):
            for gate in (one, other):
                (await entered(gate)).leave(CallOutcome(cost_usd=0.5))
            own_redis.kill()
            await until(lambda: one.snapshot().is_alone and other.snapshot().is_alone)
            for flow in (FLOW, Flow("not-seen-before", "model")):
                (await entered(one, flow)).leave(ANSWERED)
            for _ in range(5):
                (await entered(one)).leave(BROKEN)
            assert one.snapshot().state is BreakerState.OPEN
            assert not call(one)
            (await entered(other)).leave(ANSWERED)
            own_redis.start()
            await until(lambda: not (one.snapshot().is_alone or other.snapshot().is_alone))
            await until(lambda: other.snapshot().state is BreakerState.OPEN)
    events = [entry["event"] for entry in logs]
    assert events.count("gate_is_alone") == 2
    assert events.count("gate_shares_again") == 2


async def test_a_redis_that_does_not_answer_holds_nobody_up(own_redis: RedisProcess) -> None:  # noqa: F811
    """Frozen is away too."""
    async with running_gates(own_redis.url, catalogue(limits=LIMITS), timeout_seconds=0.3) as (one, _):
        own_redis.freeze()
        for _ in range(30):
            (await entered(one)).leave(ANSWERED)
        own_redis.thaw()
        await until(lambda: not one.snapshot().is_alone)


async def test_a_worker_that_starts_without_the_store_works() -> None:
    """It has nobody to share with."""
    fleet, store = unreliable_fleet(1, limits={"requests_per_minute": 60})
    store.error = StateUnavailableError("exchange")
    await fleet.sync()
    assert fleet.gates[0].snapshot().is_alone
    begun = 0
    for _ in range(100):
        begun += call(fleet.gates[0])
        await fleet.tick(100)
    assert 8 <= begun <= 11


async def test_alone_each_keeps_its_part_of_the_limit_and_pays_for_it_afterwards() -> None:
    """Three workers: together no more than the limit in the minutes without the store, nor in those after it."""
    per_minute = 120
    fleet, store = unreliable_fleet(3, limits={"requests_per_minute": per_minute})
    begun: list[tuple[int, int]] = []

    async def work_for(seconds: int) -> None:
        for _ in range(seconds * 10):
            for gate in fleet.gates:
                while call(gate):
                    begun.append((fleet.clock_ms, 1))
            await fleet.tick(100)

    await work_for(60)
    store.error = StateUnavailableError("exchange")
    # What was leased before is spent first; the minutes that count are those without the store.
    await work_for(3)
    begun.clear()
    await work_for(90)
    assert len(begun) >= 1.3 * per_minute
    store.error = None
    await work_for(70)
    assert most_in_a_minute(begun) <= per_minute


async def test_alone_a_large_call_is_not_held_up_by_a_small_part_of_the_limit() -> None:
    """It counts as the whole of this worker's part."""
    fleet, store = unreliable_fleet(2, limits={"tokens_per_minute": 6_000})
    for gate in fleet.gates:
        while not call(gate):
            await fleet.tick(50)
    store.error = StateUnavailableError("exchange")
    for _ in range(20):
        await fleet.tick(100)
    for _ in range(3 * MINUTE_MS // 100):
        if call(fleet.gates[0], tokens=5_000):
            break
        await fleet.tick(100)
    else:
        pytest.fail("it never began")


async def test_alone_the_breaker_closes_again() -> None:
    """By probes of its own."""
    fleet, store = unreliable_fleet(1, breaker=BreakerRules(open_seconds=5))
    await fleet.sync()
    store.error = StateUnavailableError("exchange")
    await fleet.tick(600)
    (gate,) = fleet.gates
    for _ in range(5):
        call(gate, BROKEN)
    assert not call(gate)
    probes = 0
    while gate.snapshot().state is not BreakerState.CLOSED:
        probes += call(gate)
        await fleet.tick(600)
        assert probes <= 3
    assert probes == 3


async def test_money_that_was_spent_alone_is_counted_afterwards() -> None:
    """And keeps the budget here meanwhile, as far as it is known."""
    tenants = {"*": TenantRules(budget_usd_per_day=1.0, at_limit="reject")}
    fleet, store = unreliable_fleet(2, tenants=tenants)
    for gate in fleet.gates:
        call(gate)
    await fleet.tick(10)
    one, other = fleet.gates
    store.error = StateUnavailableError("exchange")
    assert call(one, CallOutcome(cost_usd=0.4)), "that it is away is not known yet"
    await one._share_budgets()
    await fleet.tick(600)
    later = 0
    while (permit := one.try_enter(FLOW, estimated_tokens=1)) and permit.refusal is None:
        permit.leave(CallOutcome(cost_usd=0.4))
        later += 1
    assert later == 2
    store.error = None
    for _ in range(4):
        await fleet.tick(600)
    assert abs(other._budgets._purses["tenant"].spent.usd - 1.2) < 1e-9
    permit = other.try_enter(FLOW, estimated_tokens=1)
    assert permit is not None
    assert permit.refusal is not None


async def test_errors_in_the_background_end_nothing() -> None:
    """Whatever a store or a bug raises: it is logged, and the work goes on."""
    store = Unreliable(MemorySharedValues(lambda: int(time.time() * 1000)))
    gate = SharedGate("p", catalogue(limits=LIMITS), store, worker="w")
    await gate.start()
    with capture_logs() as logs:
        store.error = RuntimeError("a bug")
        assert not call(gate)
        await until(lambda: {entry.get("part") for entry in logs} >= {"breakers", "limits"})
        store.error = None
        (await entered(gate)).leave(ANSWERED)
        for _ in range(4):
            (await entered(gate)).leave(BROKEN)
    await gate.close()


async def test_a_change_that_came_before_it_was_waited_for_is_not_lost() -> None:
    """A dispatcher may be doing something else when it happens."""
    fleet = Fleet(catalogue(limits={"requests_per_minute": 60}), 1)
    (gate,) = fleet.gates
    assert not call(gate)
    await fleet.sync()
    async with asyncio.timeout(10):
        await gate.changed()
    assert call(gate)


async def test_a_permit_is_given_back_once() -> None:
    """A second time does nothing."""
    fleet = Fleet(catalogue(limits={"concurrency": 1}), 1)
    (gate,) = fleet.gates
    assert not call(gate)
    await fleet.sync()
    permit = gate.try_enter(FLOW, estimated_tokens=1)
    assert permit is not None
    permit.leave(ANSWERED)
    permit.leave(ANSWERED)
    first = gate.try_enter(FLOW, estimated_tokens=1)
    assert first is not None
    assert gate.try_enter(FLOW, estimated_tokens=1) is None
