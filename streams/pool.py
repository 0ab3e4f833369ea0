"""Many records at once, up to a bound, in the order in which they come."""

import asyncio
from collections.abc import Awaitable, Callable, Set

from streams.context import Delivery
from streams.records_at_work import Acknowledge, Partition, RecordsAtWork

Handler = Callable[[Delivery], Awaitable[None]]


class Pool:
    """Runs `handle` for deliveries, at most `limit` at once. A `RecordRunner`."""

    def __init__(self, handle: Handler, *, limit: int, stage: str) -> None:
        self._handle = handle
        self._slots = asyncio.Semaphore(limit)
        self._records = RecordsAtWork(stage)
        self._closed = False

    @property
    def in_flight(self) -> int:
        return self._records.running

    async def submit(self, delivery: Delivery, acknowledge: Acknowledge) -> None:
        record = self._records.take(delivery, acknowledge)
        if record is None:
            return
        try:
            await self._slots.acquire()
        except asyncio.CancelledError:
            self._records.drop(record)
            raise
        if self._closed:
            self._slots.release()
            await asyncio.Event().wait()
        if self._records.has(record):
            self._records.start(record, lambda: self._handle(delivery), on_end=self._slots.release)
        else:
            self._slots.release()

    def forget(self, partitions: Set[Partition]) -> None:
        self._records.drop_waiting(partitions)

    async def drain(self, timeout_seconds: float) -> bool:
        self._closed = True
        return await self._records.wait(timeout_seconds)

    async def cancel(self) -> int:
        self._closed = True
        return await self._records.cancel()
