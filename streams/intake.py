"""The intake stage: from `llm.requests` to a lane, or to an answer that says why not.

decode -> validate -> route -> admit -> QUEUED and the lane task, together.
"""

import asyncio
from collections.abc import Callable, Mapping, Set
from dataclasses import dataclass, replace
from itertools import count

import structlog

from connectors import metrics
from connectors.state.base import Admitted, Arrival, Duplicate, Ended, Full, Known, Limits, Settled
from connectors.tracing import processing_span
from policy import results, validation
from policy.failures import problem
from policy.routing import route
from policy.summary import Identity, Summary, dump_summary, identity, load_summary, summary_of
from schemas import LaneTask, LLMRequest
from schemas.attempt import Problem
from schemas.base import epoch_ms
from schemas.codec import CodecError, InvalidRecordError, decode_json, is_json
from schemas.dead_letter_headers import Redrive, read_redrive
from schemas.envelope import Header
from schemas.task import Origin, RoutingDecision
from schemas.vocabulary import FailureCategory, ProcessingMode, State
from streams.context import Delivery, StageContext
from streams.ending import NOWHERE, Ending, Origins, origins_of
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
    copy_to: str | None = None


class Intake:
    """Handles one record of the request topic at a time. Safe to run many at once."""

    def __init__(
        self, context: StageContext, ending: Ending, *, unavailable: Callable[[], Set[str]] = frozenset
    ) -> None:
        """`unavailable` tells which providers are not called at present."""
        self._context = context
        self._unavailable = unavailable
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
        who = identity(request)
        allowed_topics = self._settings.worker.result_topics
        copy_to = request.result_topic if request.result_topic in allowed_topics else None
        problem = validation.check(request, result_topics=allowed_topics)
        if problem is not None:
            return _Refusal(State.REJECTED, problem, who, copy_to)
        decision = route(request, self._context.catalogue, unavailable=self._unavailable())
        if isinstance(decision, Problem):
            return _Refusal(State.REJECTED, decision, who, copy_to)
        return request, decision

    async def _decode(self, value: bytes) -> LLMRequest:
        if is_json(value):
            return decode_json(LLMRequest, value)
        return await self._context.codec.decode(LLMRequest, value)

    async def _admit(
        self, delivery: Delivery, request: LLMRequest, decision: RoutingDecision, trace: list[Header]
    ) -> None:
        now = self._context.now()
        submitted_at = request.submitted_at or delivery.timestamp
        redrive = read_redrive(delivery.headers)
        task = LaneTask(
            request=request,
            decision=decision,
            submitted_at=submitted_at,
            queued_at=now,
            deadline_at=validation.deadline_of(
                request, submitted_at=submitted_at, default_seconds=self._settings.worker.default_deadline_seconds
            ),
            origin=Origin(topic=delivery.topic, partition=delivery.partition, offset=delivery.offset),
            redrive_count=redrive.count if redrive else 0,
        )
        summary = summary_of(task)
        admission = await self._admission(delivery, task, summary, redrive, trace)
        if admission is None:
            return
        if admission.cancelled:
            await self._end_cancelled(request.request_id, summary, trace)
            return
        task = task.model_copy(
            update={"state_version": admission.version, "attempt": admission.attempt, "is_repeat": admission.repeated}
        )
        queued = results.progress_event(summary, State.QUEUED, version=admission.version, attempt=0, now=now)
        await self._context.producer.send_all([self._writer.status(queued, trace), self._writer.task(task, trace)])

    async def _admission(
        self, delivery: Delivery, task: LaneTask, summary: Summary, redrive: Redrive | None, trace: list[Header]
    ) -> Admitted | None:
        """The admission, waiting for room where the request allows it. None: it ended here, or had before.

        A record that waits is not acknowledged, and with the pool full nothing more is read: the queue is in Kafka.
        """
        request = task.request
        arrival = replace(
            _arrival(delivery, summary, redrive),
            deadline_ms=epoch_ms(task.deadline_at),
            summary=dump_summary(summary),
        )
        for tries in count():
            if self._context.now() >= task.deadline_at:
                refusal = _Refusal(
                    State.EXPIRED, validation.deadline_passed(task.deadline_at), summary, request.result_topic
                )
                return await self._refuse(delivery, refusal, trace)
            admission = await patiently("admit", lambda: self._context.state.admit(arrival, self._limits))
            if isinstance(admission, Admitted):
                return admission
            if isinstance(admission, Duplicate):
                _note_duplicate(request.request_id, admission)
                return None
            if isinstance(admission, Settled):
                await self._ending.publish(admission, request.request_id, trace, origins_of(summary))
                return None
            if request.processing_mode is ProcessingMode.IMMEDIATE or self._settings.admission.when_full == "reject":
                refusal = _Refusal(State.REJECTED, _queue_full(admission), summary, request.result_topic)
                return await self._refuse(delivery, refusal, trace)
            if tries == 0:
                metrics.admission_waits.inc()
            await asyncio.sleep(min(MAX_PAUSE_SECONDS, MIN_PAUSE_SECONDS * 2**tries))
        raise AssertionError("unreachable: count() does not end")

    async def _end_cancelled(self, request_id: str, summary: Summary, trace: list[Header]) -> None:
        """Ends a request that was cancelled before it came, unless somebody else has."""

        async def end_as_seen() -> None:
            for known in await self._context.state.look([request_id]):
                if not known.state.is_terminal:
                    await self._end_as_cancelled(known, summary, trace)

        await patiently("end", end_as_seen)

    async def _end_as_cancelled(self, known: Known, summary: Summary, trace: list[Header]) -> None:
        called_off = problem(FailureCategory.CANCELLED, "cancelled before it was put on a lane")
        result = results.end_of(
            load_summary(known.summary) or summary,
            State.CANCELLED,
            version=known.version + 1,
            now=self._context.now(),
            problem=called_off,
        )
        settled = await self._ending.end(known, result)
        if settled is not None:
            await self._ending.publish(settled, known.request_id, trace, origins_of(summary))
            await self._ending.confirm([Ended(known.request_id, settled.state, settled.version)])

    async def _refuse(self, delivery: Delivery, refusal: _Refusal, trace: list[Header]) -> Admitted | None:
        """Ends a record here. `Admitted`: the same record was let in before, and has to go on."""
        who, problem = refusal.who, refusal.problem
        redrive = read_redrive(delivery.headers)
        result = None
        if who is not None:
            version = redrive.state_version + 1 if redrive else 1
            result = results.end_at_the_door(
                who, refusal.state, problem, version=version, submitted_at=delivery.timestamp, now=self._context.now()
            )
        if refusal.state is State.REJECTED:
            # Before its end is settled: a crash in between repeats the dead letter, and never leaves it out.
            letter = self._writer.dead_letter(
                delivery,
                problem,
                request_id=who.request_id if who else None,
                tenant_id=who.tenant_id if who else None,
                result=result,
                redrive_count=redrive.count if redrive else 0,
            )
            await self._ending.send_dead_letter(letter, delivery)
        if who is not None and result is not None:
            origins = Origins(copy_to=refusal.copy_to) if refusal.copy_to else NOWHERE
            admission = await self._ending.refuse(_arrival(delivery, who, redrive), result, trace, origins)
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


def _arrival(delivery: Delivery, who: Identity, redrive: Redrive | None) -> Arrival:
    submitted_at = who.submitted_at if isinstance(who, Summary) else delivery.timestamp
    return Arrival(
        request_id=who.request_id,
        origin=delivery.origin,
        size_bytes=len(delivery.value),
        deadline_ms=0,
        recorded_ms=epoch_ms(delivery.timestamp),
        submitted_ms=epoch_ms(submitted_at),
        tenant_id=who.tenant_id,
        correlation_id=who.correlation_id or "",
        redrive=redrive,
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
