"""Many records at once, up to a bound; each acknowledged when, and only when, its work is done."""

import asyncio
from collections.abc import Awaitable, Callable

import structlog
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type, wait_random_exponential

from connectors import metrics
from streams.context import Delivery

log = structlog.get_logger(__name__)

CANCEL_SECONDS = 5.0
"""For what cancelled work still has to do: close its connection, give its lease back."""

Handler = Callable[[Delivery], Awaitable[None]]
Acknowledge = Callable[[], None]


class Pool:
    """Runs `handle` for deliveries, at most `limit` at once.

    A rebalance rewinds even partitions that stay, so a record may be delivered again while it is being worked on in
    this process: such a repeat is attached to the running work, and acknowledged with it. An unexpected error is
    tried again after a growing pause, for the record must not be acknowledged, and is counted and logged each time.
    """

    def __init__(self, handle: Handler, *, limit: int, stage: str) -> None:
        self._handle = handle
        self._slots = asyncio.Semaphore(limit)
        self._stage = stage
        self._running: dict[str, asyncio.Task[None]] = {}
        self._acknowledgements: dict[str, list[Acknowledge]] = {}
        self._closed = False
        self._in_flight = metrics.records_in_flight.labels(stage)

    @property
    def in_flight(self) -> int:
        return len(self._running)

    async def submit(self, delivery: Delivery, acknowledge: Acknowledge) -> None:
        """Takes a record, waiting while the pool is full. A closed pool takes none and does not return."""
        origin = delivery.origin
        if origin in self._running:
            self._acknowledgements[origin].append(acknowledge)
            return
        await self._slots.acquire()
        if self._closed:
            self._slots.release()
            await asyncio.Event().wait()
        if origin in self._running:
            self._slots.release()
            self._acknowledgements[origin].append(acknowledge)
            return
        self._acknowledgements[origin] = [acknowledge]
        task = asyncio.create_task(self._run(delivery), name=f"{self._stage}:{origin}")
        self._running[origin] = task
        self._in_flight.set(len(self._running))
        task.add_done_callback(lambda done: self._finished(origin, done))

    async def drain(self, timeout_seconds: float) -> bool:
        """Takes no more, and waits for what runs. False: some of it still runs after the timeout."""
        self._closed = True
        if self._running:
            await asyncio.wait(self._running.values(), timeout=timeout_seconds)
        return not self._running

    async def cancel(self) -> int:
        """Ends what still runs, unacknowledged. Returns how many that were."""
        self._closed = True
        tasks = list(self._running.values())
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=CANCEL_SECONDS)
        return len(tasks)

    async def _run(self, delivery: Delivery) -> None:
        def note(call: RetryCallState) -> None:
            metrics.stage_errors.labels(self._stage).inc()
            error = call.outcome.exception() if call.outcome else None
            log.error(
                "stage_error", stage=self._stage, origin=delivery.origin, tries=call.attempt_number, exc_info=error
            )

        try:
            await self._handle(delivery)
        except Exception:  # whatever it is, the record may not be acknowledged
            metrics.stage_errors.labels(self._stage).inc()
            log.exception("stage_error", stage=self._stage, origin=delivery.origin, tries=0)
            await AsyncRetrying(
                retry=retry_if_exception_type(Exception),
                wait=wait_random_exponential(0.5, max=30),
                before_sleep=note,
                reraise=True,
            )(self._handle, delivery)

    def _finished(self, origin: str, task: asyncio.Task[None]) -> None:
        self._slots.release()
        del self._running[origin]
        self._in_flight.set(len(self._running))
        acknowledgements = self._acknowledgements.pop(origin)
        if not task.cancelled() and task.exception() is None:
            for acknowledge in acknowledgements:
                acknowledge()
