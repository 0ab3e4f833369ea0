"""A breaker that workers share: what one of them meets stops all of them, and one probe at a time begins again."""

import asyncio
from datetime import timedelta

import pytest

from connectors import metrics
from policy.breaker import PROBE_LEASE_MS
from policy.rules import BreakerRules
from schemas.vocabulary import BreakerState, FailureCategory
from streams.gate_breaker import BreakerChange
from streams.gating import CallOutcome, Flow
from tests.state.conftest import redis_url  # noqa: F401 - a fixture
from tests.streams.gate_support import (
    ANSWERED,
    BROKEN,
    FLOW,
    REFUSED,
    Fleet,
    call,
    catalogue,
    entered,
    running_gates,
    until,
)

CLOSED, OPEN, HALF_OPEN = BreakerState.CLOSED, BreakerState.OPEN, BreakerState.HALF_OPEN
QUICK = BreakerRules(open_seconds=0.2)


async def opened_fleet(rules: BreakerRules | None = None, size: int = 2) -> Fleet:
    fleet = Fleet(catalogue(breaker=rules or BreakerRules()), size)
    await fleet.sync()
    for _ in range(5):
        call(fleet.gates[0], BROKEN)
    await fleet.tick(600)
    assert [gate.snapshot().state for gate in fleet.gates] == [OPEN] * size
    return fleet


async def test_provider_errors_of_one_worker_stop_all_of_them(redis_url: str) -> None:  # noqa: F811
    """No permit in either, beyond those in flight, until its time is over."""
    async with running_gates(redis_url, catalogue()) as (one, other):
        in_flight = [await entered(one), await entered(other)]
        for _ in range(5):
            assert call(one, BROKEN)
        assert not call(one), "known here at once"
        await until(lambda: other.snapshot().state is OPEN)
        assert not call(other)
        for permit in in_flight:
            permit.leave(ANSWERED)
        assert not call(one)
        assert not call(other)
        snapshot = other.snapshot()
        assert snapshot.reason is FailureCategory.SERVER_ERROR
        assert snapshot.retry_at is not None
        assert snapshot.since is not None
        assert snapshot.retry_at - snapshot.since == timedelta(seconds=60)


async def test_requests_at_fault_never_open_it(redis_url: str) -> None:  # noqa: F811
    """A thousand 400s, filtered answers and cancelled calls; then the errors of both workers together do."""
    whole = catalogue(breaker=BreakerRules(min_calls=10_000))
    harmless = [FailureCategory.INVALID_REQUEST, FailureCategory.CONTENT_FILTER, FailureCategory.CANCELLED]
    async with running_gates(redis_url, whole) as (one, other):
        for number in range(1_000):
            assert call(one, CallOutcome(failed_by=harmless[number % 3]))
        for _ in range(3):
            assert call(one, BROKEN)
        await until(lambda: other._breakers.known.breaker("").in_a_row == 3)
        assert other.snapshot().state is CLOSED
        for _ in range(2):
            assert call(other, BROKEN)
        await until(lambda: one.snapshot().state is OPEN)


async def test_exactly_one_probe_and_three_successes_close_it(redis_url: str) -> None:  # noqa: F811
    """Three workers with flows that wait: the next call begins when the one before has ended well."""
    calls = in_flight = 0

    async def work_until_closed(gate: object) -> None:
        nonlocal calls, in_flight
        while True:
            permit = await entered(gate)  # type: ignore[arg-type]
            if permit.way is None or not permit.way.is_probe:
                permit.leave(None)
                return
            calls, in_flight = calls + 1, in_flight + 1
            assert in_flight == 1
            for waiting in gates:
                await waiting._breakers.sync()
            in_flight -= 1
            permit.leave(ANSWERED if calls > 1 else REFUSED)

    async with running_gates(redis_url, catalogue(breaker=QUICK), size=3) as gates:
        for _ in range(5):
            call(gates[0], BROKEN)
        await until(lambda: all(gate.snapshot().state is OPEN for gate in gates))
        await asyncio.gather(*(work_until_closed(gate) for gate in gates))
        assert calls == 3
        await until(lambda: all(gate.snapshot().state is CLOSED for gate in gates))


async def test_a_failed_probe_opens_it_for_longer() -> None:
    """Twice as long, and no call before."""
    fleet = await opened_fleet()
    one, other = fleet.gates
    assert not call(one)
    await fleet.tick(60_000)
    assert call(one, BROKEN)
    await fleet.tick(600)
    assert other.snapshot().state is OPEN
    for _ in range(118):
        await fleet.tick(1_000)
        assert not call(one)
        assert not call(other)
    await fleet.tick(2_000)
    assert call(other) is not call(one), "one probe"


async def test_a_worker_that_dies_with_the_probe_holds_it_no_longer_than_its_lease() -> None:
    """Another one has it then; before, nobody."""
    fleet = await opened_fleet(size=3)
    dies, lives, _ = fleet.gates
    assert not call(dies)
    assert not call(lives)
    await fleet.tick(60_000)
    probe = dies.try_enter(FLOW, estimated_tokens=1)
    assert probe is not None
    fleet.gates.remove(dies)
    for _ in range(PROBE_LEASE_MS // 1_000 - 1):
        await fleet.tick(1_000)
        assert not call(lives)
    await fleet.tick(2_000)
    assert call(lives)
    probe.leave(BROKEN)
    await dies._breakers.sync()
    await fleet.tick(600)
    assert lives.snapshot().state is HALF_OPEN, "what the dead one says no longer counts"


async def test_a_probe_that_takes_longer_than_its_lease_keeps_it() -> None:
    """It is renewed for as long as the call runs."""
    fleet = await opened_fleet()
    one, other = fleet.gates
    assert not call(one)
    await fleet.tick(60_000)
    probe = one.try_enter(FLOW, estimated_tokens=1)
    assert probe is not None
    for _ in range(100):
        await fleet.tick(500)
        assert not call(other)
        assert not call(one), "and it is one probe, here too"
    probe.leave(ANSWERED)
    await fleet.tick(10)
    assert call(other) or call(one)


async def test_a_probe_without_a_call_is_free_again() -> None:
    """The request had expired, say: the next one may go."""
    fleet = await opened_fleet()
    assert not call(fleet.gates[0])
    await fleet.tick(60_000)
    assert call(fleet.gates[0], None)
    assert not call(fleet.gates[1])
    await fleet.tick(500)
    await fleet.tick(500)
    assert call(fleet.gates[1])


async def test_each_change_is_told_to_every_worker_and_decided_by_one() -> None:
    """So that one of them may publish it."""
    fleet = Fleet(catalogue(), 3)
    told: list[tuple[int, BreakerChange]] = []
    for number, gate in enumerate(fleet.gates):
        gate.on_breaker_change(lambda change, number=number: told.append((number, change)))
    await fleet.sync()
    before = metrics.breaker_transitions.labels("p", "open")._value.get()
    for _ in range(5):
        call(fleet.gates[1], BROKEN)
    await fleet.tick(600)
    await fleet.tick(600)
    assert sorted((number, change.old, change.new.state) for number, change in told) == [
        (number, CLOSED, OPEN) for number in range(3)
    ]
    assert [number for number, change in told if change.decided_here] == [1]
    assert metrics.breaker_transitions.labels("p", "open")._value.get() == before + 3
    assert metrics.breaker_state.labels("p", "")._value.get() == 2
    told.clear()
    call(fleet.gates[0])
    await fleet.tick(60_000)
    for _ in range(20):
        for gate in fleet.gates:
            call(gate)
        await fleet.tick(100)
    await fleet.tick(600)
    assert {gate.snapshot().state for gate in fleet.gates} == {CLOSED}
    deciders = [(change.old, change.new.state) for _, change in told if change.decided_here]
    assert deciders == [(OPEN, HALF_OPEN), (HALF_OPEN, CLOSED)]
    assert metrics.breaker_state.labels("p", "")._value.get() == 0


async def test_models_have_breakers_of_their_own_where_it_is_set() -> None:
    """One that is down leaves the others alone."""
    fleet = Fleet(catalogue(breaker=BreakerRules(per_model=True)))
    await fleet.sync()
    for _ in range(5):
        call(fleet.gates[0], BROKEN, Flow("t", "down"))
    await fleet.tick(600)
    assert not call(fleet.gates[1], flow=Flow("t", "down"))
    assert call(fleet.gates[1], flow=Flow("t", "up"))
    assert fleet.gates[1].snapshot().model == "down"


async def test_a_worker_that_starts_knows_that_it_is_open(redis_url: str) -> None:  # noqa: F811
    """Before its first call."""
    async with running_gates(redis_url, catalogue()) as gates:
        for _ in range(5):
            call(gates[0], BROKEN)
        await until(lambda: gates[1].snapshot().state is OPEN)
        late = type(gates[0])("p", catalogue(), gates[0]._sharing.values, worker="late")
        await late.start()
        assert not call(late)
        await late.close()


@pytest.mark.parametrize("seconds", [0.5, 30.0, 3_600.0])
async def test_retry_after_is_waited_for_by_all(seconds: float) -> None:
    """By that model; never shortened by what is said later; and over when it is over."""
    fleet = Fleet(catalogue())
    await fleet.sync()
    in_flight = fleet.gates[1].try_enter(FLOW, estimated_tokens=1)
    assert in_flight is not None
    pace = FailureCategory.RATE_LIMITED
    assert call(fleet.gates[0], CallOutcome(failed_by=pace, retry_after_seconds=seconds))
    assert not call(fleet.gates[0])
    assert call(fleet.gates[0], flow=Flow("t", "another"))
    in_flight.leave(CallOutcome(failed_by=pace, retry_after_seconds=0.1))
    await fleet.tick(int(seconds * 1000) - 1)
    assert not call(fleet.gates[0])
    assert not call(fleet.gates[1])
    await fleet.tick(1)
    assert call(fleet.gates[0])
    assert call(fleet.gates[1])
    assert fleet.gates[0].snapshot().state is CLOSED


async def test_an_overloaded_provider_is_left_alone_as_a_whole() -> None:
    """Its Retry-After is not about one model."""
    fleet = Fleet(catalogue())
    await fleet.sync()
    overloaded = CallOutcome(failed_by=FailureCategory.OVERLOADED, speaks_of_provider=True, retry_after_seconds=20)
    call(fleet.gates[0], overloaded)
    await fleet.tick(600)
    assert not call(fleet.gates[1], flow=Flow("t", "another"))
    await fleet.tick(20_000)
    assert call(fleet.gates[1], flow=Flow("t", "another"))


async def test_waiting_for_a_retry_after_ends_by_itself(redis_url: str) -> None:  # noqa: F811
    """`changed` returns when the time has come."""
    async with running_gates(redis_url, catalogue(), size=1) as (gate,):
        call(gate, CallOutcome(failed_by=FailureCategory.RATE_LIMITED, retry_after_seconds=0.3))
        assert not call(gate)
        (await entered(gate)).leave(ANSWERED)


async def test_successes_cost_nothing_on_the_way() -> None:
    """A thousand calls, and the store was asked a few times a second."""
    fleet = Fleet(catalogue(), 1)
    await fleet.sync()
    before = fleet.values.updates
    for _ in range(1_000):
        assert call(fleet.gates[0])
    assert fleet.values.updates == before
    await fleet.tick(600)
    assert fleet.values.updates - before <= 2
    assert fleet.gates[0]._breakers.known.breaker("").slots[0][1] == 1_000
