"""The intake stage: from `llm.requests` to a lane, or to an answer that says why not.

decode -> validate -> route -> admit -> QUEUED and the lane task, together.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass

import structlog

from connectors import metrics
from connectors.state.base import Admitted, Arrival, Duplicate, Full, Limits
from connectors.tracing import processing_span
from policy import results, validation
from policy.results import Identity
from policy.routing import route
from schemas import LaneTask, LLMRequest
from schemas.attempt import Problem
from schemas.codec import CodecError, InvalidRecordError, decode_json, is_json
from schemas.envelope import Header
from schemas.task import RoutingDecision
from schemas.vocabulary import FailureCategory, ProcessingMode, State
from streams.context import Delivery, StageContext
from streams.patience import patiently
from streams.records import RecordWriter

log = structlog.get_logger(__name__)

FULL_RETRY_AFTER_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class _Refusal:
    """A record that ends here. `who` is None when not even its id can be read."""

    state: State
    problem: Problem
    who: Identity | None


class Intake:
    """Handles one record of the request topic at a time. Safe to run many at once."""

    def __init__(self, context: StageContext) -> None:
        self._context = context
        self._settings = context.settings
        self._writer = RecordWriter(context.codec, context.settings.topics, "/sluice/intake")
        admission = context.settings.admission
        self._limits = Limits(
            max_requests=admission.max_requests,
            max_bytes=admission.max_bytes,
            high_watermark=admission.high_watermark,
            low_watermark=admission.low_watermark,
        )

    async def handle(self, delivery: Delivery) -> None:
        """Everything that the record causes is in Kafka when this returns."""
        metrics.requests_received.inc()
        attributes = {"messaging.system": "kafka", "messaging.destination.name": delivery.topic}
        with processing_span("process llm.requests", delivery.headers, attributes) as trace:
            accepted = await self._read(delivery)
            if isinstance(accepted, _Refusal):
                await self._refuse(delivery, accepted, trace)
            else:
                await self._admit(delivery, *accepted, trace)

    async def _read(self, delivery: Delivery) -> tuple[LLMRequest, RoutingDecision] | _Refusal:
        problem = validation.too_large(len(delivery.value), self._settings.worker.max_request_bytes)
        if problem is not None:
            return _Refusal(State.REJECTED, problem, validation.readable_identity({}, delivery.key))
        try:
            request = await self._decode(delivery.value)
        except CodecError as error:
            fields: Mapping[str, object] = error.fields if isinstance(error, InvalidRecordError) else {}
            who = validation.readable_identity(fields, delivery.key)
            return _Refusal(State.REJECTED, validation.codec_problem(error), who)
        who = results.identity(request)
        problem = validation.check(request, result_topics=self._settings.worker.result_topics)
        decision = problem or route(request, self._context.catalogue)
        if isinstance(decision, Problem):
            return _Refusal(State.REJECTED, decision, who)
        return request, decision

    async def _decode(self, value: bytes) -> LLMRequest:
        if is_json(value):
            return decode_json(LLMRequest, value)
        return await self._context.codec.decode(LLMRequest, value)

    async def _admit(
        self, delivery: Delivery, request: LLMRequest, decision: RoutingDecision, trace: list[Header]
    ) -> None:
        submitted_at = request.submitted_at or delivery.timestamp
        deadline = validation.deadline_of(
            request, submitted_at=submitted_at, default_seconds=self._settings.worker.default_deadline_seconds
        )
        arrival = Arrival(
            request_id=request.request_id,
            origin=delivery.origin,
            size_bytes=len(delivery.value),
            deadline_ms=int(deadline.timestamp() * 1000),
        )
        tries = 0
        while True:
            if self._context.now() >= deadline:
                refusal = _Refusal(State.EXPIRED, validation.deadline_passed(deadline), results.identity(request))
                await self._refuse(delivery, refusal, trace)
                return
            admission = await patiently("admit", lambda: self._context.state.admit(arrival, self._limits))
            if isinstance(admission, Duplicate):
                _note_duplicate(request.request_id, admission)
                return
            if isinstance(admission, Admitted):
                break
            if request.processing_mode is ProcessingMode.IMMEDIATE:
                refusal = _Refusal(State.REJECTED, _queue_full(admission), results.identity(request))
                await self._refuse(delivery, refusal, trace)
                return
            tries += 1
            await self._wait_for_room(tries)
        now = self._context.now()
        task = LaneTask(
            request=request,
            decision=decision,
            state_version=admission.version,
            submitted_at=submitted_at,
            queued_at=now,
            deadline_at=deadline,
        )
        queued = results.progress_event(task, State.QUEUED, version=admission.version, attempt=0, now=now)
        await self._context.producer.send_all([self._writer.status(queued, trace), self._writer.task(task, trace)])

    async def _wait_for_room(self, tries: int) -> None:
        """The record waits unacknowledged, and with the pool full nothing more is read: the queue is in Kafka."""
        if tries == 1:
            metrics.admission_waits.inc()
        await asyncio.sleep(min(2.0, 0.05 * 2 ** min(tries, 6)))

    async def _refuse(self, delivery: Delivery, refusal: _Refusal, trace: list[Header]) -> None:
        who, problem = refusal.who, refusal.problem
        outgoing = []
        if refusal.state is State.REJECTED:
            outgoing.append(
                self._writer.dead_letter(
                    delivery,
                    problem,
                    request_id=who.request_id if who else None,
                    tenant_id=who.tenant_id if who else None,
                )
            )
        if who is not None:
            arrival = Arrival(
                request_id=who.request_id, origin=delivery.origin, size_bytes=len(delivery.value), deadline_ms=0
            )
            admission = await patiently("refuse", lambda: self._context.state.refuse(arrival, refusal.state))
            if isinstance(admission, Duplicate):
                _note_duplicate(who.request_id, admission)
            elif isinstance(admission, Admitted):
                result = results.end_at_the_door(
                    who,
                    refusal.state,
                    problem,
                    version=admission.version,
                    submitted_at=delivery.timestamp,
                    now=self._context.now(),
                )
                outgoing.append(self._writer.result(result, trace))
                outgoing.append(self._writer.status(results.ending_event(result), trace))
        if outgoing:
            await self._context.producer.send_all(outgoing)
        metrics.requests_ended.labels(refusal.state, problem.category).inc()
        log.info(
            "request_refused",
            request_id=who.request_id if who else None,
            state=refusal.state,
            category=problem.category,
            field=problem.field,
            origin=delivery.origin,
        )


def _note_duplicate(request_id: str, duplicate: Duplicate) -> None:
    metrics.duplicates_ignored.labels("intake").inc()
    log.info("duplicate_ignored", request_id=request_id, state=duplicate.state)


def _queue_full(full: Full) -> Problem:
    return Problem(
        category=FailureCategory.QUEUE_FULL,
        message=f"{full.outstanding_requests:,} requests ({full.outstanding_bytes:,} bytes) are outstanding",
        retryable=True,
        remedy="send it again later, or with processing_mode queue_if_unavailable",
        retry_after_seconds=FULL_RETRY_AFTER_SECONDS,
    )
