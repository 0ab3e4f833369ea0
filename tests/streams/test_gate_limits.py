"""Limits that workers share: never exceeded by all of them together, and used by those who need them."""

import asyncio
import random
import time

import pytest

from connectors import metrics
from connectors.providers.base import LimitedResource, RateLimit
from policy.rate import MINUTE_MS, burst
from schemas.vocabulary import FailureCategory
from streams.gate import SharedGate
from streams.gating import CallOutcome, Flow
from tests.policy.test_limits import most_in_a_minute
from tests.state.conftest import redis_url  # noqa: F401 - a fixture
from tests.streams.gate_support import ANSWERED, FLOW, Fleet, call, catalogue, entered, running_gates


async def greedy_minutes(fleet: Fleet, minutes: int, *, flows: list[Flow], tokens: int = 100) -> list[tuple[int, int]]:
    """Every worker begins whatever it may, in steps of 50 ms. When calls began, and with which flow."""
    begun: list[tuple[int, int]] = []
    ends_at = fleet.clock_ms + minutes * MINUTE_MS
    while fleet.clock_ms < ends_at:
        for gate in fleet.gates:
            for number, flow in enumerate(flows):
                while call(gate, CallOutcome(tokens=tokens), flow, tokens=tokens):
                    begun.append((fleet.clock_ms, number))
        await fleet.tick(50)
    return begun


@pytest.mark.parametrize("per_minute", [6, 60, 1_200])
async def test_no_minute_has_more_requests_than_the_limit(per_minute: int) -> None:
    """Four workers that take all they can get, and the limit is used nearly in full."""
    fleet = Fleet(catalogue(limits={"requests_per_minute": per_minute}), 4)
    begun = await greedy_minutes(fleet, 3, flows=[FLOW])
    assert most_in_a_minute([(at, 1) for at, _ in begun]) <= per_minute
    assert len(begun) >= 2.6 * per_minute


async def test_no_minute_has_more_tokens_than_the_limit() -> None:
    """Small calls and large ones, of which none is left out."""
    fleet = Fleet(catalogue(limits={"tokens_per_minute": 30_000}), 3)
    sizes = {Flow("t", "small"): 50, Flow("t", "large"): 4_000}
    begun: list[tuple[int, int]] = []
    for _ in range(3 * MINUTE_MS // 50):
        for gate in fleet.gates:
            for flow, tokens in sizes.items():
                while call(gate, CallOutcome(tokens=tokens), flow, tokens=tokens):
                    begun.append((fleet.clock_ms, tokens))
        await fleet.tick(50)
    assert most_in_a_minute(begun) <= 30_000
    assert sum(tokens for _, tokens in begun) >= 2.3 * 30_000
    assert {tokens for _, tokens in begun} == set(sizes.values())


async def test_a_call_keeps_all_limits_that_concern_it() -> None:
    """Those of its provider, its model and its tenant; and one tenant's does not hold up another."""
    limits = {
        "requests_per_minute": 120,
        "models": {"large-*": {"requests_per_minute": 30}},
        "tenants": {"trial": {"requests_per_minute": 12}},
    }
    fleet = Fleet(catalogue(limits=limits), 3)
    flows = [Flow("trial", "small"), Flow("a", "large-1"), Flow("b", "large-2"), Flow("a", "small")]
    begun = await greedy_minutes(fleet, 3, flows=flows)

    def most(*numbers: int) -> int:
        return most_in_a_minute([(at, 1) for at, number in begun if number in numbers])

    assert most(0) <= 12
    assert most(1, 2) <= 30
    assert most(0, 1, 2, 3) <= 120
    # The widest limit goes to whoever comes first; here those are the tenant and the models that have limits.
    assert sum(number == 0 for _, number in begun) >= 24
    assert sum(number in (1, 2) for _, number in begun) >= 60
    assert sum(number == 3 for _, number in begun) >= 100


async def test_real_workers_on_a_real_redis_keep_the_pace_together(redis_url: str) -> None:  # noqa: F811
    """Four of them: at no time have more begun than the bucket held, and what the rate has brought since."""
    per_minute = 1_200
    begun: list[float] = []

    async def work(gate: SharedGate) -> None:
        while len(begun) < burst(per_minute) + 40:
            permit = await entered(gate)
            begun.append(time.monotonic() - started)
            permit.leave(ANSWERED)

    async with running_gates(redis_url, catalogue(limits={"requests_per_minute": per_minute}), size=4) as gates:
        started = time.monotonic()
        await asyncio.gather(*(work(gate) for gate in gates))
    for count, seconds in enumerate(begun, start=1):
        assert count <= burst(per_minute) + per_minute / 60 * seconds + 1


async def test_no_more_calls_at_once_than_the_limit(redis_url: str) -> None:  # noqa: F811
    """Four workers with ten flows each share three slots, and each of them gets its calls done."""
    in_flight = most = 0
    done = dict.fromkeys(range(4), 0)

    async def work(number: int, gate: SharedGate) -> None:
        nonlocal in_flight, most
        while min(done.values()) < 5:
            permit = await entered(gate)
            in_flight += 1
            most = max(most, in_flight)
            await asyncio.sleep(random.uniform(0, 0.01))
            in_flight -= 1
            permit.leave(ANSWERED)
            done[number] += 1

    async with running_gates(redis_url, catalogue(limits={"concurrency": 3}), size=4) as gates:
        async with asyncio.timeout(60):
            tasks = [asyncio.create_task(work(number, gate)) for number, gate in enumerate(gates) for _ in range(10)]
            try:
                while min(done.values()) < 5:
                    await asyncio.sleep(0.01)
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.wait(tasks)
    assert 0 < most <= 3


async def test_slots_of_a_worker_that_died_are_there_again() -> None:
    """When it has not been heard of for so long; and while it lives, they are its own."""
    fleet = Fleet(catalogue(limits={"concurrency": 2}))
    dies, lives = fleet.gates
    assert not call(dies)
    assert not call(dies)
    await fleet.sync()
    held = [dies.try_enter(FLOW, estimated_tokens=1), dies.try_enter(FLOW, estimated_tokens=1)]
    assert None not in held
    for _ in range(30):
        await fleet.tick(1_000)
        assert not call(lives)
    fleet.gates.remove(dies)
    for _ in range(15):
        call(lives)
        await fleet.tick(1_000)
    assert call(lives)


async def test_tokens_are_corrected_after_the_call() -> None:
    """What was estimated too high is free again, what was too low is paid off, and without a call nothing is spent."""
    fleet = Fleet(catalogue(limits={"tokens_per_minute": 12_000}), 1)
    (gate,) = fleet.gates

    async def enter(tokens: int, outcome: CallOutcome | None) -> int:
        """Enters with an estimate; how many ms that took."""
        began = fleet.clock_ms
        while (permit := gate.try_enter(FLOW, estimated_tokens=tokens)) is None:
            await fleet.tick(20)
        permit.leave(outcome)
        await fleet.tick(600)
        return fleet.clock_ms - 600 - began

    assert await enter(1_000, CallOutcome(tokens=10)) < 100
    assert await enter(1_000, None) < 100
    assert await enter(900, CallOutcome(tokens=2_000)) < 100, "the bucket is full again"
    assert await enter(1_000, CallOutcome(tokens=1_000)) > 4_000, "1,000 beyond the estimate, and 1,000 of its own"


async def test_the_providers_own_count_lowers_what_is_left() -> None:
    """Its header says that 2 requests are left: no more than those begin before the rate has brought others."""
    fleet = Fleet(catalogue(limits={"models": {"m": {"requests_per_minute": 600}}}))
    one, other = fleet.gates
    flow = Flow("t", "m")
    told = CallOutcome(limits=(RateLimit(resource=LimitedResource.REQUESTS, limit=600, remaining=2),))
    while not call(one, told, flow):
        await fleet.tick(20)
    await fleet.tick(600)
    before = fleet.clock_ms
    begun = 0
    while fleet.clock_ms < before + 1_000:
        begun += call(other, flow=flow)
        await fleet.tick(10)
    assert 2 <= begun <= 2 + 10 + 6, "two, and what the rate brings until then"


async def test_waiting_is_counted_by_its_reason() -> None:
    """For the operator: what holds a lane up."""
    fleet = Fleet(catalogue(limits={"requests_per_minute": 60, "concurrency": 1}), 1)
    counter = metrics.gate_waits.labels("p", "concurrency")
    before = counter._value.get()
    assert not call(fleet.gates[0])
    assert counter._value.get() == before + 1


async def test_a_busy_worker_asks_for_many_at_once() -> None:
    """Thousands of calls, and a few updates a second."""
    fleet = Fleet(catalogue(limits={"requests_per_minute": 12_000}), 1)
    begun = len(await greedy_minutes(fleet, 1, flows=[FLOW]))
    assert begun >= 10_000
    assert fleet.values.updates < begun / 5


async def test_what_is_not_used_is_given_back_when_a_worker_ends() -> None:
    """Its slots, and what it had leased: another one has them at once."""
    fleet = Fleet(catalogue(limits={"requests_per_minute": 6, "tokens_per_minute": 600, "concurrency": 1}))
    ends, other = fleet.gates
    for _ in range(2):  # a slot, then a request and its tokens
        assert not call(ends, tokens=40)
        await fleet.tick(50)
    await ends.close()
    fleet.gates.remove(ends)
    for _ in range(5):
        if call(other, tokens=40):
            return
        await fleet.tick(50)
    pytest.fail("it has to wait for what nobody uses")


async def test_no_limits_ask_nobody() -> None:
    """Only the breaker is shared then."""
    fleet = Fleet(catalogue(), 1)
    await fleet.sync()
    assert call(fleet.gates[0], CallOutcome(failed_by=FailureCategory.CANCELLED))
    before = fleet.values.updates
    for _ in range(100):
        await fleet.tick(100)
    assert fleet.values.updates - before <= 20
