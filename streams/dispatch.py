"""A lane's records: read ahead, put into a fair order, and started as slots and the gate allow."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Set
from dataclasses import dataclass

import structlog

from connectors import metrics
from policy.fair_queue import FairQueue
from schemas.attempt import Problem
from schemas.vocabulary import Priority
from streams.context import Delivery
from streams.gating import CallOutcome, Flow, Gate, Permit
from streams.records_at_work import Acknowledge, Partition, RecordsAtWork, TakenRecord

MAX_WAITING_RECORDS = 20_000
MAX_WAITING_BYTES = 64 * 1024 * 1024
BYTES_PER_TOKEN = 4
NO_TENANT = "default"
WATCH_PAUSE_SECONDS = 1.0

log = structlog.get_logger(__name__)

Handler = Callable[[Delivery, Permit], Awaitable[float | None]]
"""Works on a record, with the right to one call. It leaves the permit as soon as the call has ended; one that it has
not left is left for it. Returns None when it is done, or after how many seconds it wants the record again, with a new
permit: the record keeps its slot meanwhile, and takes up no call."""


@dataclass(eq=False, slots=True)
class _Queued:
    record: TakenRecord
    flow: Flow
    estimated_tokens: int
    permit: "_OncePermit | None" = None


class _OncePermit:
    """Passes on the first `leave` only, so that whoever ends a record's work may call it without asking."""

    __slots__ = ("_on_left", "_permit", "refusal")

    def __init__(self, permit: Permit, on_left: Callable[[], None]) -> None:
        self._permit: Permit | None = permit
        self._on_left = on_left
        self.refusal: Problem | None = permit.refusal

    def leave(self, outcome: CallOutcome | None) -> None:
        permit, self._permit = self._permit, None
        if permit is not None:
            permit.leave(outcome)
            self._on_left()


class Dispatcher:
    """Runs `handle` for deliveries of a lane's topics, at most `limit` at once, each with a permit. A `RecordRunner`.

    A record waits here, unacknowledged, in the fair queue of its topic's priority. What fairness does is bounded by
    what was read: `submit` waits while that priority's look-ahead is full, and what is behind it in Kafka is unknown.
    Work is started when a record comes, when work ends, when a permit is left and when the gate changes; nothing polls.
    """

    def __init__(
        self,
        handle: Handler,
        *,
        gate: Gate,
        limit: int,
        stage: str,
        priorities: Mapping[str, Priority],
        max_waiting_records: int = MAX_WAITING_RECORDS,
        max_waiting_bytes: int = MAX_WAITING_BYTES,
    ) -> None:
        """`priorities`: by topic. The bounds hold for each priority; bytes are over by one record at most."""
        self._handle = handle
        self._gate = gate
        self._limit = limit
        self._stage = stage
        self._priorities = dict(priorities)
        self._records = RecordsAtWork(stage)
        self._queue: FairQueue[Flow, _Queued] = FairQueue(max_items=max_waiting_records, max_bytes=max_waiting_bytes)
        self._room = {priority: asyncio.Event() for priority in Priority}
        self._refused: set[Flow] = set()
        self._coming_back: deque[tuple[_Queued, asyncio.Future[Permit]]] = deque()
        self._watching: asyncio.Task[None] | None = None
        self._closed = False

    @property
    def in_flight(self) -> int:
        return self._records.running

    def waiting(self, priority: Priority) -> int:
        """Records of a priority that are here and not started."""
        return self._queue.count(priority)

    def waiting_in_all(self) -> int:
        """The same of all priorities."""
        return len(self._queue)

    async def submit(self, delivery: Delivery, acknowledge: Acknowledge) -> None:
        if self._closed:
            await asyncio.Event().wait()
        record = self._records.take(delivery, acknowledge)
        if record is None:
            return
        if self._watching is None:
            self._watching = asyncio.create_task(self._watch_gate(), name="gate-watch")
        priority = self._priorities[delivery.topic]
        try:
            while self._closed or self._queue.is_full(priority):
                self._room[priority].clear()
                await self._room[priority].wait()
        except asyncio.CancelledError:
            self._records.drop(record)
            raise
        if not self._records.has(record):
            return
        flow = flow_of(delivery)
        size_bytes = len(delivery.value)
        self._queue.push(
            _Queued(record, flow, size_bytes // BYTES_PER_TOKEN),
            priority=priority,
            tenant_id=flow.tenant_id,
            flow=flow,
            size_bytes=size_bytes,
        )
        if flow not in self._refused:
            self._start_what_may()

    def forget(self, partitions: Set[Partition]) -> None:
        self._records.drop_waiting(partitions)
        self._queue.remove_if(lambda queued: not self._records.has(queued.record))
        self._tell_of_room()
        self._ask_anew()

    async def drain(self, timeout_seconds: float) -> bool:
        self._close()
        return await self._records.wait(timeout_seconds)

    async def cancel(self) -> int:
        self._close()
        return await self._records.cancel()

    def _close(self) -> None:
        self._closed = True
        if self._watching is not None:
            self._watching.cancel()
        self._records.drop_waiting()
        self._queue.remove_if(lambda _: True)
        # They would wait for a permit that nobody asks for any more.
        for _, returned in self._coming_back:
            returned.cancel()

    async def _watch_gate(self) -> None:
        while True:
            try:
                await self._gate.changed()
                self._ask_anew()
            except Exception:  # without this task a lane that is idle would stay so
                metrics.stage_errors.labels(self._stage).inc()
                log.exception("gate_error", stage=self._stage)
                await asyncio.sleep(WATCH_PAUSE_SECONDS)

    def _ask_anew(self) -> None:
        self._refused.clear()
        self._start_what_may()

    def _start_what_may(self) -> None:
        if self._closed:
            return
        for _ in range(len(self._coming_back)):
            queued, returned = self._coming_back.popleft()
            if returned.done():
                continue
            if self._admit(queued.flow, queued) and queued.permit is not None:
                returned.set_result(queued.permit)
            else:
                self._coming_back.append((queued, returned))
        while self._records.running < self._limit:
            started = self._queue.pop(self._admit)
            if started is None:
                return
            self._start(started)
            self._tell_of_room()

    def _start(self, queued: _Queued) -> None:
        def ended() -> None:
            # Here and not in the task: one that is cancelled before its first step never comes to its `finally`.
            self._leave(queued)
            self._start_what_may()

        self._records.start(queued.record, lambda: self._work(queued), on_end=ended)

    async def _work(self, queued: _Queued) -> None:
        while True:
            permit = queued.permit or await self._enter(queued)
            try:
                pause_seconds = await self._handle(queued.record.delivery, permit)
            finally:
                self._leave(queued)
            if pause_seconds is None:
                return
            await asyncio.sleep(pause_seconds)

    async def _enter(self, queued: _Queued) -> Permit:
        """The next permit of a record that has a slot, as soon as there is one."""
        if self._closed:
            raise asyncio.CancelledError
        returned: asyncio.Future[Permit] = asyncio.get_running_loop().create_future()
        self._coming_back.append((queued, returned))
        self._start_what_may()
        return await returned

    def _admit(self, flow: Flow, queued: _Queued) -> bool:
        # Until something changes, the gate is asked once for a flow, however many records come.
        if flow in self._refused:
            return False
        permit = self._gate.try_enter(flow, estimated_tokens=queued.estimated_tokens)
        if permit is None:
            self._refused.add(flow)
            return False
        queued.permit = _OncePermit(permit, self._ask_anew)
        return True

    def _leave(self, queued: _Queued) -> None:
        permit, queued.permit = queued.permit, None
        if permit is not None:
            permit.leave(None)

    def _tell_of_room(self) -> None:
        for priority, room in self._room.items():
            if not self._queue.is_full(priority):
                room.set()


def flow_of(delivery: Delivery) -> Flow:
    """Tenant and model of a task, from its headers, so that nothing needs decoding."""
    tenant_id, model = NO_TENANT, ""
    for name, value in delivery.headers:
        if name == "ce_tenantid":
            tenant_id = value.decode(errors="replace")
        elif name == "ce_model":
            model = value.decode(errors="replace")
    return Flow(tenant_id, model)
