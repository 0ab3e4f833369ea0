"""Ends: settled in the shared state by exactly one worker, then published, then marked as published."""

import asyncio
from collections.abc import Sequence
from datetime import datetime
from functools import partial
from uuid import uuid4

import structlog
from aiokafka.errors import MessageSizeTooLargeError

from connectors import metrics
from connectors.kafka.producer import Outgoing
from connectors.state.base import Admitted, Arrival, Claimed, Duplicate, Full, Lease, Settled, StateUnavailableError
from policy import results
from policy.failures import problem
from policy.results import Identity
from schemas import LLMResult
from schemas.attempt import Problem
from schemas.codec import SingleObjectCodec, decode_single_object
from schemas.envelope import Header
from schemas.topics import MIB
from schemas.vocabulary import FailureCategory, State
from streams.context import StageContext
from streams.patience import patiently
from streams.records import RecordWriter

log = structlog.get_logger(__name__)

MAX_RESULT_BYTES = 4 * MIB - 64 * 1024
"""What the results topic takes, less room for headers."""
MARK_INTERVAL_SECONDS = 0.05
BUSY_SECONDS = 1.0
_stored_form = SingleObjectCodec()


class Ending:
    """Settles and publishes results. Marks are written behind, in batches: losing one repeats a publish, no more."""

    def __init__(self, context: StageContext, writer: RecordWriter) -> None:
        self._context = context
        self._writer = writer
        self._to_mark: list[str] = []
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.create_task(self._mark_forever(), name="mark-published")

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
        await self._mark()

    async def settle(self, lease: Lease, result: LLMResult) -> Settled | None:
        """How the request has ended, for `publish`: so, or as somebody else had settled before. None: not our lease."""
        result, stored = _fitting(result)
        earlier = await patiently("settle", lambda: self._context.state.settle(lease, result.status, stored))
        if earlier is None:
            _measure(result)
            return Settled(result.status, result.state_version, stored)
        if earlier.state.is_terminal:
            return earlier
        log.warning("fenced", request_id=lease.request_id, attempt=lease.attempt)
        return None

    async def refuse(self, arrival: Arrival, result: LLMResult, trace: list[Header]) -> Admitted | Duplicate | None:
        """Ends a request at the door. None: it has ended so, or as the same record did before, and is published.

        `Admitted`: the same record was let in before, and must go on. `Duplicate`: another one has its id.
        """
        stored = _stored_form.encode(result)
        admission = await patiently("refuse", lambda: self._context.state.refuse(arrival, result.status, stored))
        if isinstance(admission, Settled):
            await self.publish(admission, arrival.request_id, trace)
            _measure(result)
            return None
        if isinstance(admission, Full):
            raise TypeError("a refusal is not counted, so there is always room for it")
        return admission

    async def publish(
        self, settled: Settled, request_id: str, trace: Sequence[Header], *, copy_to: str | None = None
    ) -> None:
        """Publishes a stored outcome, unless it is known to be in Kafka. Readers know repeats by their `ce_id`."""
        if settled.outcome is None:
            return
        result = decode_single_object(LLMResult, settled.outcome)
        records = [
            self._writer.result(result, trace),
            self._writer.status(results.ending_event(result), trace),
            *(self._writer.attempt(attempt, trace) for attempt in result.attempts),
        ]
        await self._context.producer.send_all(records)
        if copy_to is not None:
            await self._copy(self._writer.result(result, trace, topic=copy_to), request_id)
        self._to_mark.append(request_id)

    async def _copy(self, record: Outgoing, request_id: str) -> None:
        """The sender's own topic may take less than ours; the result itself is safe by now."""
        try:
            await self._context.producer.send(record)
        except MessageSizeTooLargeError:
            log.warning("copy_too_large", request_id=request_id, topic=record.topic)

    async def fail_admitted(
        self, who: Identity, problem: Problem, trace: Sequence[Header], *, submitted_at: datetime, lease_ms: int
    ) -> None:
        """Fails a request that was let in and cannot go on: its task or its route cannot be used by this version."""
        claiming = partial(self._context.state.claim, who.request_id, owner=self._context.worker, lease_ms=lease_ms)
        while True:
            claim = await patiently("claim", partial(claiming, token=uuid4().hex))
            settled = claim if isinstance(claim, Settled) else None
            if isinstance(claim, Claimed):
                version = claim.lease.version + 1
                now = self._context.now()
                result = results.end_at_the_door(
                    who, State.FAILED, problem, version=version, submitted_at=submitted_at, now=now
                )
                settled = await self.settle(claim.lease, result)
            if settled is not None:
                await self.publish(settled, who.request_id, trace)
                return
            await asyncio.sleep(BUSY_SECONDS)

    async def _mark_forever(self) -> None:
        while True:
            await asyncio.sleep(MARK_INTERVAL_SECONDS)
            try:
                await self._mark()
            except Exception:
                log.exception("published_not_marked")

    async def _mark(self) -> None:
        marking, self._to_mark = self._to_mark, []
        if not marking:
            return
        try:
            await self._context.state.published(marking)
        except StateUnavailableError as error:
            log.warning("published_not_marked", count=len(marking), error=str(error))


def _fitting(result: LLMResult) -> tuple[LLMResult, bytes]:
    """The result and its stored form; a result that no topic would take becomes a failure that says so."""
    stored = _stored_form.encode(result)
    if len(stored) <= MAX_RESULT_BYTES:
        return result, stored
    too_large = problem(
        category=FailureCategory.TOO_LARGE,
        message=f"the answer makes a result of {len(stored):,} bytes, and {MAX_RESULT_BYTES:,} fit",
        remedy="ask for less with parameters.max_tokens",
    )
    smaller = result.model_copy(update={"status": State.FAILED, "answer": None, "problem": too_large})
    return smaller, _stored_form.encode(smaller)


def _measure(result: LLMResult) -> None:
    reason = result.problem.category if result.problem else "ok"
    metrics.requests_ended.labels(result.status, reason).inc()
    metrics.overhead_seconds.observe(result.timings.overhead_ms / 1000)
    if result.possibly_billed_calls:
        metrics.possibly_billed_calls.labels(result.provider).inc(result.possibly_billed_calls)
