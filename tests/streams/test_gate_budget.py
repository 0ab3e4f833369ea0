"""Budgets of tenants: spent by all workers together, and what becomes of a request when they are."""

import asyncio

from policy.budget import DAY_MS
from policy.rules import TenantRules
from schemas.vocabulary import FailureCategory
from streams.gate import SharedGate
from streams.gating import CallOutcome, Flow
from tests.state.conftest import redis_url  # noqa: F401 - a fixture
from tests.streams.gate_support import FLOW, Fleet, call, catalogue, entered, running_gates, until

TENANTS = {
    "waits": TenantRules(budget_usd_per_day=1.0),
    "rejects": TenantRules(budget_usd_per_day=1.0, at_limit="reject"),
    "*": TenantRules(budget_usd_per_day=2.0, at_limit="reject"),
    "free": TenantRules(),
}
DEAR = CallOutcome(cost_usd=0.4, tokens=10)


def refusal_of(gate: SharedGate, tenant: str) -> FailureCategory | None:
    permit = gate.try_enter(Flow(tenant, "model"), estimated_tokens=1)
    assert permit is not None
    permit.leave(None)
    return permit.refusal.category if permit.refusal else None


async def known_fleet(size: int = 2) -> Fleet:
    """Workers that know what every tenant has spent so far: nothing."""
    fleet = Fleet(catalogue(tenants=TENANTS), size)
    for gate in fleet.gates:
        for tenant in ("waits", "rejects", "another"):
            assert not call(gate, flow=Flow(tenant, "model")), "nobody was asked yet"
    await fleet.tick(10)
    return fleet


async def test_a_spent_budget_rejects_where_that_is_set() -> None:
    """In every worker, with a problem that says when to come back; and other tenants go on."""
    fleet = await known_fleet()
    for gate in (*fleet.gates, fleet.gates[0]):
        assert call(gate, DEAR, Flow("rejects", "model"))
    await fleet.tick(600)
    await fleet.tick(600)
    for gate in fleet.gates:
        assert refusal_of(gate, "rejects") is FailureCategory.BUDGET_EXHAUSTED
        assert refusal_of(gate, "another") is None
        assert refusal_of(gate, "free") is None


async def test_a_spent_budget_waits_for_the_next_day() -> None:
    """No permit until midnight in UTC, and then one."""
    fleet = await known_fleet()
    for _ in range(3):
        assert call(fleet.gates[0], DEAR, Flow("waits", "model"))
    await fleet.tick(600)
    await fleet.tick(600)
    tomorrow_ms = (fleet.clock_ms // DAY_MS + 1) * DAY_MS
    while fleet.clock_ms < tomorrow_ms - 900_000:
        await fleet.tick(900_000)
        assert not any(call(gate, flow=Flow("waits", "model")) for gate in fleet.gates)
    await fleet.tick(tomorrow_ms - fleet.clock_ms)
    for gate in fleet.gates:
        call(gate, flow=Flow("waits", "model"))
    await fleet.tick(10)
    for gate in fleet.gates:
        assert call(gate, flow=Flow("waits", "model"))


async def test_tenants_meant_by_a_star_have_a_budget_each() -> None:
    """One that spends its own leaves the others theirs."""
    fleet = await known_fleet(1)
    (gate,) = fleet.gates
    for _ in range(5):
        assert call(gate, DEAR, Flow("another", "model"))
    assert refusal_of(gate, "another") is FailureCategory.BUDGET_EXHAUSTED, "known here at once"
    assert not call(gate, flow=Flow("a-third", "model"))
    await fleet.tick(600)
    assert refusal_of(gate, "a-third") is None


async def test_the_overshoot_is_what_was_in_flight() -> None:
    """Calls that had begun are let end, and counted."""
    fleet = await known_fleet()
    permits = [gate.try_enter(Flow("rejects", "model"), estimated_tokens=1) for gate in fleet.gates for _ in range(5)]
    for permit in permits:
        assert permit is not None
        permit.leave(DEAR)
    await fleet.tick(600)
    await fleet.tick(600)
    assert all(refusal_of(gate, "rejects") is FailureCategory.BUDGET_EXHAUSTED for gate in fleet.gates)
    assert abs(fleet.gates[0]._budgets._purses["rejects"].spent.usd - 4.0) < 1e-9


async def test_a_worker_that_starts_later_knows_what_was_spent(redis_url: str) -> None:  # noqa: F811
    """It asks before the tenant's first call; and nothing that was spent at the end of another one's life is lost."""
    whole = catalogue(tenants=TENANTS)
    async with running_gates(redis_url, whole, size=2) as (one, other):
        for _ in range(3):
            (await entered(one, Flow("rejects", "model"))).leave(DEAR)
        await one.close()
        permit = await entered(other, Flow("rejects", "model"))
        assert permit.refusal is not None


async def test_two_workers_spend_one_budget(redis_url: str) -> None:  # noqa: F811
    """Nothing is counted twice, and nothing is lost, when both add at the same time."""
    whole = catalogue(tenants={"*": TenantRules(budget_usd_per_day=1_000.0)})

    async def spend(gate: SharedGate) -> None:
        for _ in range(100):
            (await entered(gate, FLOW)).leave(CallOutcome(cost_usd=0.01))
            await asyncio.sleep(0)

    async with running_gates(redis_url, whole, size=3) as gates:
        await asyncio.gather(*(spend(gate) for gate in gates))
        await until(lambda: all(abs(gate._budgets._purses["tenant"].spent.usd - 3.0) < 1e-6 for gate in gates))
