"""The intake stage: from `llm.requests` to a lane, or to an answer that says why not.

decode -> validate -> route -> admit -> QUEUED and the lane task, together.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import count

import structlog
from aiokafka.errors import MessageSizeTooLargeError

from connectors import metrics
from connectors.kafka.producer import Outgoing
from connectors.state.base import Admitted, Arrival, Duplicate, Full, Limits, Settled
from connectors.tracing import processing_span
from policy import results, validation
from policy.failures import problem
from policy.results import Identity
from policy.routing import route
from schemas import LaneTask, LLMRequest
from schemas.attempt import Problem
from schemas.codec import CodecError, InvalidRecordError, decode_json, is_json
from schemas.dead_letter_headers import VALUE_LEFT_OUT
from schemas.envelope import Header
from schemas.task import RoutingDecision
from schemas.vocabulary import FailureCategory, ProcessingMode, State
from streams.context import Delivery, StageContext
from streams.ending import Ending
from streams.patience import patiently
from streams.records import RecordWriter

log = structlog.get_logger(__name__)

FULL_RETRY_AFTER_SECONDS = 10.0
MIN_PAUSE_SECONDS = 0.05
MAX_PAUSE_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class _Refusal:
    """A record that ends here. `who` is None when not even its id can be read."""

    state: State
    problem: Problem
    who: Identity | None


class Intake:
    """Handles one record of the request topic at a time. Safe to run many at once."""

    def __init__(self, context: StageContext, ending: Ending) -> None:
        self._context = context
        self._ending = ending
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
                admitted = await self._refuse(delivery, accepted, trace)
                if admitted is not None and accepted.who is not None:
                    await self._ending.fail_admitted(
                        accepted.who,
                        accepted.problem,
                        trace,
                        submitted_at=delivery.timestamp,
                        lease_ms=int(self._settings.worker.lease_seconds * 1000),
                    )
            else:
                await self._admit(delivery, *accepted, trace)

    async def _read(self, delivery: Delivery) -> tuple[LLMRequest, RoutingDecision] | _Refusal:
        problem = validation.too_large(len(delivery.value), self._settings.worker.max_request_bytes)
        if problem is not None:
            return _Refusal(State.REJECTED, problem, validation.readable_identity({}, delivery.key))
        try:
            request = await patiently("decode", lambda: self._decode(delivery.value))
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
        admission = await self._admission(delivery, request, arrival, deadline, trace)
        if admission is None:
            return
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

    async def _admission(
        self, delivery: Delivery, request: LLMRequest, arrival: Arrival, deadline: datetime, trace: list[Header]
    ) -> Admitted | None:
        """The admission, waiting for room where the request allows it. None: it ended here, or had before.

        A record that waits is not acknowledged, and with the pool full nothing more is read: the queue is in Kafka.
        """
        who = results.identity(request)
        for tries in count():
            if self._context.now() >= deadline:
                expired = _Refusal(State.EXPIRED, validation.deadline_passed(deadline), who)
                return await self._refuse(delivery, expired, trace)
            admission = await patiently("admit", lambda: self._context.state.admit(arrival, self._limits))
            if isinstance(admission, Admitted):
                return admission
            if isinstance(admission, Duplicate):
                _note_duplicate(request.request_id, admission)
                return None
            if isinstance(admission, Settled):
                await self._ending.publish(admission, request.request_id, trace)
                return None
            if request.processing_mode is ProcessingMode.IMMEDIATE:
                return await self._refuse(delivery, _Refusal(State.REJECTED, _queue_full(admission), who), trace)
            if tries == 0:
                metrics.admission_waits.inc()
            await asyncio.sleep(min(MAX_PAUSE_SECONDS, MIN_PAUSE_SECONDS * 2**tries))
        raise AssertionError("unreachable: count() does not end")

    async def _refuse(self, delivery: Delivery, refusal: _Refusal, trace: list[Header]) -> Admitted | None:
        """Ends a record here. `Admitted`: the same record was let in before, and has to go on."""
        who, problem = refusal.who, refusal.problem
        if refusal.state is State.REJECTED:
            # Before its end is settled: a crash in between repeats the dead letter, and never leaves it out.
            await self._send_dead_letter(delivery, who, problem)
        if who is not None:
            result = results.end_at_the_door(
                who, refusal.state, problem, version=1, submitted_at=delivery.timestamp, now=self._context.now()
            )
            arrival = Arrival(
                request_id=who.request_id, origin=delivery.origin, size_bytes=len(delivery.value), deadline_ms=0
            )
            admission = await self._ending.refuse(arrival, result, trace)
            if isinstance(admission, Admitted):
                return admission
            if isinstance(admission, Duplicate):
                _note_duplicate(who.request_id, admission)
        log.info(
            "request_refused",
            request_id=who.request_id if who else None,
            state=refusal.state,
            category=problem.category,
            field=problem.field,
            origin=delivery.origin,
        )
        return None

    async def _send_dead_letter(self, delivery: Delivery, who: Identity | None, problem: Problem) -> None:
        """A record that was compressed may be larger than any topic takes: then its letter says where it lies."""
        letter = self._dead_letter(delivery, who, problem)
        try:
            await self._context.producer.send(letter)
        except MessageSizeTooLargeError:
            log.warning("dead_letter_without_value", origin=delivery.origin, size_bytes=len(delivery.value))
            note = (VALUE_LEFT_OUT, f"{len(delivery.value)} bytes at {delivery.origin}".encode())
            await self._context.producer.send(replace(letter, value=None, headers=[*letter.headers, note]))

    def _dead_letter(self, delivery: Delivery, who: Identity | None, problem: Problem) -> Outgoing:
        return self._writer.dead_letter(
            delivery,
            problem,
            request_id=who.request_id if who else None,
            tenant_id=who.tenant_id if who else None,
        )


def _note_duplicate(request_id: str, duplicate: Duplicate) -> None:
    metrics.duplicates_ignored.labels("intake").inc()
    log.info("duplicate_ignored", request_id=request_id, state=duplicate.state)


def _queue_full(full: Full) -> Problem:
    return problem(
        category=FailureCategory.QUEUE_FULL,
        message=f"{full.outstanding_requests:,} requests ({full.outstanding_bytes:,} bytes) are outstanding",
        remedy="send it again later, or with processing_mode queue_if_unavailable",
        retry_after_seconds=FULL_RETRY_AFTER_SECONDS,
    )
