"""Records that this process has taken: each worked on once, and acknowledged when, and only when, its work is done."""

import asyncio
from collections.abc import Awaitable, Callable, Set
from dataclasses import dataclass, field
from typing import Protocol

import structlog
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type, wait_random_exponential

from connectors import metrics
from streams.context import Delivery

log = structlog.get_logger(__name__)

CANCEL_SECONDS = 5.0
"""For what cancelled work still has to do: close its connection, give its lease back."""

Acknowledge = Callable[[], None]
Work = Callable[[], Awaitable[None]]
Partition = tuple[str, int]
"""Topic and number."""


class RecordRunner(Protocol):
    """What a stage's records are given to."""

    @property
    def in_flight(self) -> int:
        """Records that are worked on now."""
        ...

    async def submit(self, delivery: Delivery, acknowledge: Acknowledge) -> None:
        """Takes a record, waiting while there is no room. After `drain` it takes none and does not return."""
        ...

    def forget(self, partitions: Set[Partition]) -> None:
        """These partitions were given up: their records that wait are dropped, for they are delivered again."""
        ...

    async def drain(self, timeout_seconds: float) -> bool:
        """Starts nothing more, and waits for what runs. False: some of it still runs after the timeout."""
        ...

    async def cancel(self) -> int:
        """Ends what still runs, unacknowledged. Returns how many that were."""
        ...


@dataclass(eq=False, slots=True)
class TakenRecord:
    """One record, from when it was delivered until its work has ended. It waits as long as it has no task."""

    delivery: Delivery
    acknowledgements: list[Acknowledge]
    task: asyncio.Task[None] | None = field(default=None)


class RecordsAtWork:
    """The records of one runner, by origin: those that wait to be started, and those that run.

    A rebalance rewinds even partitions that stay, so a record may be delivered again while this process has it: such a
    repeat is attached to it, and acknowledged with it. An unexpected error is tried again after a growing pause, for
    the record must not be acknowledged, and is counted and logged each time.
    """

    def __init__(self, stage: str) -> None:
        self._stage = stage
        self._records: dict[str, TakenRecord] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._in_flight = metrics.records_in_flight.labels(stage)
        self._errors = metrics.stage_errors.labels(stage)

    @property
    def running(self) -> int:
        return len(self._tasks)

    def take(self, delivery: Delivery, acknowledge: Acknowledge) -> TakenRecord | None:
        """The record, which waits from now on. None: it is here already, and this delivery was attached to it."""
        known = self._records.get(delivery.origin)
        if known is not None:
            known.acknowledgements.append(acknowledge)
            return None
        record = self._records[delivery.origin] = TakenRecord(delivery, [acknowledge])
        return record

    def has(self, record: TakenRecord) -> bool:
        """False: it was dropped while it waited."""
        return self._records.get(record.delivery.origin) is record

    def drop(self, record: TakenRecord) -> None:
        """Lets go of a record that waits. It stays unacknowledged."""
        if self.has(record):
            del self._records[record.delivery.origin]

    def drop_waiting(self, partitions: Set[Partition] | None = None) -> None:
        """Lets go of all records that wait, or of those of these partitions."""
        for record in list(self._records.values()):
            partition = (record.delivery.topic, record.delivery.partition)
            if record.task is None and (partitions is None or partition in partitions):
                self.drop(record)

    def start(self, record: TakenRecord, work: Work, on_end: Callable[[], None]) -> None:
        """Runs `work` until it has succeeded or is cancelled, and then `on_end`."""
        delivery = record.delivery
        task = asyncio.create_task(self._until_done(delivery, work), name=f"{self._stage}:{delivery.origin}")
        record.task = task
        self._tasks.add(task)
        self._in_flight.set(len(self._tasks))

        def ended(done: asyncio.Task[None]) -> None:
            self._tasks.discard(done)
            self._in_flight.set(len(self._tasks))
            self.drop(record)
            if not done.cancelled() and done.exception() is None:
                for acknowledge in record.acknowledgements:
                    acknowledge()
            on_end()

        task.add_done_callback(ended)

    async def wait(self, timeout_seconds: float) -> bool:
        """Waits for what runs. False: some of it still runs after the timeout."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=timeout_seconds)
        return not self._tasks

    async def cancel(self) -> int:
        """Ends what runs, unacknowledged. Returns how many that were."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=CANCEL_SECONDS)
        return len(tasks)

    async def _until_done(self, delivery: Delivery, work: Work) -> None:
        async def again() -> None:  # tenacity awaits only what is declared as a coroutine
            await work()

        def note(call: RetryCallState) -> None:
            self._errors.inc()
            error = call.outcome.exception() if call.outcome else None
            log.error(
                "stage_error", stage=self._stage, origin=delivery.origin, tries=call.attempt_number, exc_info=error
            )

        try:
            await work()
        except Exception:  # whatever it is, the record may not be acknowledged
            self._errors.inc()
            log.exception("stage_error", stage=self._stage, origin=delivery.origin, tries=0)
            await AsyncRetrying(
                retry=retry_if_exception_type(Exception),
                wait=wait_random_exponential(0.5, max=30),
                before_sleep=note,
                reraise=True,
            )(again)
