"""A dispatcher's promises: a pool's, and fair order, permits given back once, bounded look-ahead, revocation."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from datetime import UTC, datetime

import pytest

from policy.failures import problem
from schemas.attempt import Problem
from schemas.vocabulary import FailureCategory, Priority
from streams.context import Delivery
from streams.dispatch import Dispatcher, flow_of
from streams.gating import CallOutcome, Flow, Permit

TOPICS = {f"lane.{priority}": priority for priority in Priority}


def delivery(
    offset: int,
    *,
    tenant: str = "a",
    model: str = "m",
    priority: Priority = Priority.NORMAL,
    partition: int = 0,
    value: bytes = b"",
) -> Delivery:
    return Delivery(
        topic=f"lane.{priority}",
        partition=partition,
        offset=offset,
        timestamp=datetime.now(UTC),
        key=None,
        value=value,
        headers=(("ce_tenantid", tenant.encode()), ("ce_model", model.encode())),
    )


class FakePermit:
    """Counts how often it was left."""

    def __init__(self, gate: "FakeGate") -> None:
        self._gate = gate
        self.refusal = gate.refusal
        self.outcomes: list[CallOutcome | None] = []

    def leave(self, outcome: CallOutcome | None) -> None:
        self.outcomes.append(outcome)
        self._gate.free += 1


class FakeGate:
    """So many permits at once; tenants can be closed."""

    def __init__(self, free: int = 1_000_000) -> None:
        self.free = free
        self.refusal: Problem | None = None
        self.closed: set[str] = set()
        self.permits: list[FakePermit] = []
        self.asked: list[tuple[Flow, int]] = []
        self._change = asyncio.Event()

    def try_enter(self, flow: Flow, *, estimated_tokens: int) -> Permit | None:
        self.asked.append((flow, estimated_tokens))
        if flow.tenant_id in self.closed or not self.free:
            return None
        self.free -= 1
        permit = FakePermit(self)
        self.permits.append(permit)
        return permit

    async def changed(self) -> None:
        await self._change.wait()
        self._change.clear()

    def reopen(self) -> None:
        self.closed.clear()
        self._change.set()

    @property
    def every_permit_was_left_once(self) -> bool:
        return all(len(permit.outcomes) == 1 for permit in self.permits)


class Work:
    """Handles deliveries, each until it is released, and keeps count."""

    def __init__(self, *, held: bool = False) -> None:
        self.started: list[Delivery] = []
        self.acknowledged: list[int] = []
        self.running = 0
        self.most_running = 0
        self._held = held
        self._release = asyncio.Semaphore(0)

    async def handle(self, record: Delivery, permit: Permit) -> float | None:
        self.started.append(record)
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        try:
            if self._held:
                await self._release.acquire()
        finally:
            self.running -= 1
        return None

    def release(self, count: int = 1) -> None:
        for _ in range(count):
            self._release.release()

    async def submit(self, dispatcher: Dispatcher, record: Delivery) -> None:
        await dispatcher.submit(record, lambda: self.acknowledged.append(record.offset))

    @property
    def tenants(self) -> list[str]:
        return [flow_of(record).tenant_id for record in self.started]


@pytest.fixture
def gate() -> FakeGate:
    return FakeGate()


@pytest.fixture
async def made() -> AsyncIterator[list[Dispatcher]]:
    """What a test makes is ended with it."""
    dispatchers: list[Dispatcher] = []
    yield dispatchers
    for dispatcher in dispatchers:
        await dispatcher.cancel()


async def turns(count: int = 20) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


def make(made: list[Dispatcher], work: Work, gate: FakeGate, *, limit: int = 4, **bounds: int) -> Dispatcher:
    dispatcher = Dispatcher(work.handle, gate=gate, limit=limit, stage="test", priorities=TOPICS, **bounds)
    made.append(dispatcher)
    return dispatcher


async def test_all_are_done_within_the_limit_and_acknowledged(made: list[Dispatcher], gate: FakeGate) -> None:
    work = Work(held=True)
    dispatcher = make(made, work, gate, limit=3)
    for offset in range(50):
        await work.submit(dispatcher, delivery(offset))
    await turns()
    work.release(50)
    await turns(500)
    assert sorted(work.acknowledged) == list(range(50))
    assert work.most_running == 3
    assert dispatcher.in_flight == 0
    assert gate.every_permit_was_left_once


async def test_one_tenants_many_do_not_delay_anothers_first(made: list[Dispatcher], gate: FakeGate) -> None:
    work = Work(held=True)
    dispatcher = make(made, work, gate)
    for offset in range(10_000):
        await work.submit(dispatcher, delivery(offset))
    await work.submit(dispatcher, delivery(10_000, tenant="b"))
    work.release(2)
    await turns()
    assert work.tenants.index("b") <= 4 + 1


async def test_priorities_are_served_by_weight(made: list[Dispatcher], gate: FakeGate) -> None:
    work = Work(held=True)
    dispatcher = make(made, work, gate, limit=1)
    for offset in range(100):
        for priority in Priority:
            await work.submit(dispatcher, delivery(offset, priority=priority))
    work.release(120)
    await turns(1_000)
    order = [TOPICS[record.topic] for record in work.started[1:121]]
    assert Counter(order) == {Priority.HIGH: 80, Priority.NORMAL: 30, Priority.LOW: 10}


async def test_a_full_look_ahead_holds_up_its_own_priority_alone(made: list[Dispatcher], gate: FakeGate) -> None:
    work = Work(held=True)
    dispatcher = make(made, work, gate, limit=1, max_waiting_records=2)
    for offset in range(3):
        await work.submit(dispatcher, delivery(offset, priority=Priority.LOW))
    waits = asyncio.create_task(work.submit(dispatcher, delivery(3, priority=Priority.LOW)))
    await turns()
    assert not waits.done()
    await work.submit(dispatcher, delivery(0, priority=Priority.HIGH))
    work.release(2)
    await asyncio.wait_for(waits, 5)


async def test_the_look_ahead_is_bounded_by_bytes_too(made: list[Dispatcher], gate: FakeGate) -> None:
    gate.free = 0
    work = Work()
    dispatcher = make(made, work, gate, max_waiting_bytes=100)
    await work.submit(dispatcher, delivery(0, value=b"x" * 60))
    await work.submit(dispatcher, delivery(1, value=b"x" * 60))
    waits = asyncio.create_task(work.submit(dispatcher, delivery(2)))
    await turns()
    assert not waits.done()
    assert dispatcher.waiting(Priority.NORMAL) == 2


async def test_a_flow_that_is_refused_is_passed_over_and_asked_once_until_the_gate_changes(
    made: list[Dispatcher], gate: FakeGate
) -> None:
    gate.closed = {"a"}
    work = Work(held=True)
    dispatcher = make(made, work, gate)
    for offset in range(100):
        await work.submit(dispatcher, delivery(offset, value=b"x" * 40))
    await work.submit(dispatcher, delivery(100, tenant="b"))
    await turns()
    assert work.tenants == ["b"]
    assert gate.asked == [(Flow("a", "m"), 10), (Flow("b", "m"), 0)]
    gate.reopen()
    await turns()
    assert work.tenants == ["b", "a", "a", "a"]


async def test_a_permit_that_is_left_lets_the_next_record_in(made: list[Dispatcher]) -> None:
    """Nobody waits for a change of the gate, or for the end of the work after the call."""
    gate = FakeGate(free=1)
    publishing = asyncio.Event()
    calls = []

    async def handle(record: Delivery, permit: Permit) -> None:
        calls.append(record.offset)
        permit.leave(CallOutcome(tokens=7))
        permit.leave(None)
        await publishing.wait()

    dispatcher = Dispatcher(handle, gate=gate, limit=4, stage="test", priorities=TOPICS)
    made.append(dispatcher)
    for offset in range(3):
        await dispatcher.submit(delivery(offset), lambda: None)
    await turns()
    assert calls == [0, 1, 2]
    publishing.set()
    assert await dispatcher.drain(5)
    assert [permit.outcomes for permit in gate.permits] == [[CallOutcome(tokens=7)]] * 3


async def test_a_repeat_is_attached_to_running_and_to_waiting_work(made: list[Dispatcher], gate: FakeGate) -> None:
    work = Work(held=True)
    dispatcher = make(made, work, gate, limit=1)
    for offset in (0, 1, 0, 1):
        await work.submit(dispatcher, delivery(offset))
    work.release(2)
    await turns()
    assert [record.offset for record in work.started] == [0, 1]
    assert work.acknowledged == [0, 0, 1, 1]


async def test_after_an_error_the_record_is_tried_again_with_a_new_permit(
    made: list[Dispatcher], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("streams.records_at_work.wait_random_exponential", lambda *_, **__: lambda _state: 0)
    gate = FakeGate(free=1)
    acknowledged: list[int] = []
    permits: list[Permit] = []
    gate.refusal = problem(FailureCategory.DEADLINE, "too late")

    async def handle(record: Delivery, permit: Permit) -> None:
        assert acknowledged == []
        assert permit.refusal == gate.refusal
        permits.append(permit)
        if len(permits) < 4:
            raise RuntimeError("not yet")

    dispatcher = Dispatcher(handle, gate=gate, limit=1, stage="test", priorities=TOPICS)
    made.append(dispatcher)
    await dispatcher.submit(delivery(0), lambda: acknowledged.append(0))
    await turns(100)
    assert len(permits) == 4
    assert len({id(permit) for permit in permits}) == 4
    assert acknowledged == [0]
    assert gate.every_permit_was_left_once


async def test_a_record_that_wants_to_come_back_gives_up_its_call_meanwhile(made: list[Dispatcher]) -> None:
    gate = FakeGate(free=1)
    order: list[int] = []

    async def handle(record: Delivery, permit: Permit) -> float | None:
        order.append(record.offset)
        return 0 if order == [0] else None

    dispatcher = Dispatcher(handle, gate=gate, limit=2, stage="test", priorities=TOPICS)
    made.append(dispatcher)
    await dispatcher.submit(delivery(0), lambda: None)
    await dispatcher.submit(delivery(1), lambda: None)
    await turns(50)
    assert sorted(order) == [0, 0, 1]
    assert len(gate.permits) == 3
    assert gate.every_permit_was_left_once


async def test_a_record_that_comes_back_waits_for_the_gate(made: list[Dispatcher]) -> None:
    gate = FakeGate()
    times = 0

    async def handle(record: Delivery, permit: Permit) -> float | None:
        nonlocal times
        times += 1
        gate.closed = {"a"}
        return 0 if times == 1 else None

    dispatcher = Dispatcher(handle, gate=gate, limit=2, stage="test", priorities=TOPICS)
    made.append(dispatcher)
    done: list[int] = []
    await dispatcher.submit(delivery(0), lambda: done.append(0))
    await turns()
    assert (times, done) == (1, [])
    gate.reopen()
    await turns()
    assert (times, done) == (2, [0])


@pytest.mark.parametrize("has_begun", [True, False])
async def test_cancelled_work_gives_its_permit_back_and_is_not_acknowledged(
    made: list[Dispatcher], gate: FakeGate, has_begun: bool
) -> None:
    work = Work(held=True)
    dispatcher = make(made, work, gate, limit=2)
    for offset in range(5):
        await work.submit(dispatcher, delivery(offset))
    if has_begun:
        await turns()
    assert await dispatcher.cancel() == 2
    assert len(gate.permits) == 2
    assert gate.every_permit_was_left_once
    assert work.acknowledged == []
    assert dispatcher.in_flight == 0


async def test_drain_starts_nothing_more_and_leaves_what_waits(made: list[Dispatcher], gate: FakeGate) -> None:
    work = Work(held=True)
    dispatcher = make(made, work, gate, limit=2)
    for offset in range(5):
        await work.submit(dispatcher, delivery(offset))
    await turns()
    draining = asyncio.create_task(dispatcher.drain(5))
    await turns()
    work.release(5)
    assert await draining
    late = asyncio.create_task(work.submit(dispatcher, delivery(9)))
    await turns()
    assert sorted(work.acknowledged) == [0, 1]
    assert len(work.started) == 2
    assert dispatcher.waiting(Priority.NORMAL) == 0
    assert not late.done()
    late.cancel()


async def test_waiting_records_of_revoked_partitions_are_dropped(made: list[Dispatcher], gate: FakeGate) -> None:
    """Running ones go on, and a repeat is attached to them; those that were dropped start anew when they come."""
    work = Work(held=True)
    dispatcher = make(made, work, gate, limit=1, max_waiting_records=3)
    for offset in range(3):
        await work.submit(dispatcher, delivery(offset, partition=0))
    await work.submit(dispatcher, delivery(10, partition=1))
    blocked = asyncio.create_task(work.submit(dispatcher, delivery(3, partition=0)))
    await turns()
    dispatcher.forget({("lane.normal", 0)})
    await asyncio.wait_for(blocked, 5)
    assert dispatcher.waiting(Priority.NORMAL) == 1
    for offset in (0, 1):
        await work.submit(dispatcher, delivery(offset, partition=0))
    work.release(9)
    await turns(50)
    assert [record.offset for record in work.started] == [0, 10, 1]
    assert work.acknowledged == [0, 0, 10, 1]


def test_records_without_the_headers_are_one_flow() -> None:
    plain = Delivery(topic="t", partition=0, offset=0, timestamp=datetime.now(UTC), key=None, value=b"")
    assert flow_of(plain) == Flow("default", "")
