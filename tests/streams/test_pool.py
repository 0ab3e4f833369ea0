"""A pool's promises: bounded, acknowledged only when done, repeats attached, drained in bounded time."""

import asyncio
from datetime import UTC, datetime

import pytest

from streams.context import Delivery
from streams.pool import Pool


def delivery(offset: int) -> Delivery:
    return Delivery(topic="t", partition=0, offset=offset, timestamp=datetime.now(UTC), key=None, value=b"")


class Work:
    """Handles deliveries one gate at a time, and keeps count."""

    def __init__(self) -> None:
        self.gates: dict[int, asyncio.Event] = {}
        self.started: list[int] = []
        self.at_once = 0
        self.most_at_once = 0

    def gate(self, offset: int) -> asyncio.Event:
        return self.gates.setdefault(offset, asyncio.Event())

    async def handle(self, record: Delivery) -> None:
        self.started.append(record.offset)
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            await self.gate(record.offset).wait()
        finally:
            self.at_once -= 1


async def turns(count: int = 10) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def test_it_never_runs_more_than_its_limit() -> None:
    work = Work()
    pool = Pool(work.handle, limit=3, stage="test")
    for offset in range(10):
        work.gate(offset).set()
    for offset in range(10):
        await pool.submit(delivery(offset), lambda: None)
    assert await pool.drain(5)
    assert sorted(work.started) == list(range(10))
    assert work.most_at_once <= 3


async def test_a_full_pool_makes_the_reader_wait() -> None:
    work = Work()
    pool = Pool(work.handle, limit=1, stage="test")
    await pool.submit(delivery(0), lambda: None)
    second = asyncio.create_task(pool.submit(delivery(1), lambda: None))
    await turns()
    assert not second.done()
    work.gate(0).set()
    await second
    work.gate(1).set()
    assert await pool.drain(5)


async def test_a_record_is_acknowledged_only_when_its_work_is_done() -> None:
    work = Work()
    acknowledged: list[int] = []
    pool = Pool(work.handle, limit=4, stage="test")
    for offset in (0, 1):
        await pool.submit(delivery(offset), lambda offset=offset: acknowledged.append(offset))
    work.gate(1).set()
    await turns()
    assert acknowledged == [1]
    work.gate(0).set()
    await pool.drain(5)
    assert acknowledged == [1, 0]


async def test_a_repeat_of_running_work_is_attached_and_acknowledged_with_it() -> None:
    work = Work()
    acknowledged: list[str] = []
    pool = Pool(work.handle, limit=1, stage="test")
    await pool.submit(delivery(0), lambda: acknowledged.append("first"))
    await pool.submit(delivery(0), lambda: acknowledged.append("again"))
    work.gate(0).set()
    assert await pool.drain(5)
    assert work.started == [0]
    assert acknowledged == ["first", "again"]


async def test_an_unexpected_error_is_tried_again_and_not_acknowledged_before(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streams.records_at_work.wait_random_exponential", lambda *_, **__: lambda _state: 0)
    tries = 0
    acknowledged: list[int] = []

    async def handle(_: Delivery) -> None:
        nonlocal tries
        tries += 1
        if tries < 4:
            assert acknowledged == []
            raise RuntimeError("not yet")

    pool = Pool(handle, limit=1, stage="test")
    await pool.submit(delivery(0), lambda: acknowledged.append(0))
    assert await pool.drain(5)
    assert tries == 4
    assert acknowledged == [0]


async def test_cancelled_work_is_not_acknowledged() -> None:
    work = Work()
    acknowledged: list[int] = []
    pool = Pool(work.handle, limit=2, stage="test")
    await pool.submit(delivery(0), lambda: acknowledged.append(0))
    await turns()
    assert not await pool.drain(0)
    assert await pool.cancel() == 1
    assert acknowledged == []
    assert pool.in_flight == 0


async def test_a_closed_pool_takes_no_more() -> None:
    work = Work()
    pool = Pool(work.handle, limit=2, stage="test")
    assert await pool.drain(5)
    late = asyncio.create_task(pool.submit(delivery(7), lambda: None))
    await turns()
    assert not late.done()
    assert work.started == []
    late.cancel()
