"""Ends: settled in the shared state by exactly one worker, then published, the result first.

All else follows from the result: the terminal event, the attempt records, the dead letter. Whoever dies after the
result leaves a record that is delivered again, and the next worker publishes the rest from it.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from uuid import uuid4

import structlog
from aiokafka.errors import MessageSizeTooLargeError

from connectors import metrics
from connectors.kafka.producer import Outgoing
from connectors.state.base import (
    Admitted,
    Arrival,
    Claimed,
    Doubtful,
    Duplicate,
    Ended,
    Known,
    Lease,
    Place,
    Refusal,
    Settled,
)
from connectors.tracing import outgoing
from policy import results, validation
from policy.failures import problem
from policy.summary import Identity, Summary, load_summary
from schemas import LLMResult
from schemas.attempt import Problem
from schemas.base import epoch_ms
from schemas.codec import CodecError, SingleObjectCodec, decode_single_object
from schemas.dead_letter_headers import VALUE_LEFT_OUT
from schemas.envelope import Header
from schemas.task import Origin
from schemas.topics import MIB
from schemas.vocabulary import FailureCategory, State
from streams.context import Delivery, StageContext
from streams.patience import patiently
from streams.records import RecordWriter

log = structlog.get_logger(__name__)

MAX_RESULT_BYTES = 4 * MIB - 64 * 1024
"""What the results topic takes, less room for headers."""
BUSY_SECONDS = 1.0
_stored_form = SingleObjectCodec()


@dataclass(frozen=True, kw_only=True, slots=True)
class Origins:
    """Where a request came from and where its result is wanted, for what an end causes besides its result."""

    copy_to: str | None = None
    record: Origin | None = None
    redrive_count: int = 0
    published_attempts: int = 0
    """Calls whose attempt records were written before, when they led to a retry."""


NOWHERE = Origins()


def origins_of(summary: Summary, *, published_attempts: int = 0) -> Origins:
    """Those of a request that was admitted."""
    return Origins(
        copy_to=summary.result_topic,
        record=summary.origin,
        redrive_count=summary.redrive_count,
        published_attempts=published_attempts,
    )


class Ending:
    """Settles and publishes results, with the dead letter of a request that failed."""

    def __init__(
        self, context: StageContext, writer: RecordWriter, *, on_published: Callable[[str], None] = lambda _: None
    ) -> None:
        """`on_published` hears of each request whose end is in Kafka as a whole."""
        self._context = context
        self._writer = writer
        self._on_published = on_published

    async def settle(self, lease: Lease, result: LLMResult) -> Settled | None:
        """How the request has ended, for `publish`: so, or as somebody else had settled before. None: not our lease."""
        result, stored = _fitting(result)
        earlier = await patiently("settle", lambda: self._context.claims.settle(lease, result.status, stored))
        if earlier is None:
            _measure(result)
            return Settled(result.status, result.state_version, stored)
        if earlier.state.is_terminal:
            return earlier
        log.warning("fenced", request_id=lease.request_id, attempt=lease.attempt)
        return None

    async def end(self, seen: Known, result: LLMResult) -> Settled | None:
        """Ends a request that nobody holds. None: it has changed since it was seen.

        Raises `StateUnavailableError` at once: when the shared state is back, what was seen may no longer be true.
        """
        result, stored = _fitting(result)
        earlier = await self._context.state.end(seen, result.status, stored, version=result.state_version)
        if earlier is None:
            _measure(result)
            return Settled(result.status, result.state_version, stored)
        return earlier if earlier.state.is_terminal else None

    async def refuse(
        self, arrival: Arrival, result: LLMResult, trace: list[Header], origins: Origins = NOWHERE
    ) -> Admitted | Duplicate | None:
        """Ends a request at the door. None: it has ended so, or as the same record did before, and is published.

        `Admitted`: the same record was let in before, and must go on. `Duplicate`: another one has its id.
        """
        admission = await self._refuse(arrival, result)
        while isinstance(admission, Doubtful):
            result = result.model_copy(update={"state_version": admission.version})
            admission = await self._refuse(arrival, result)
        if isinstance(admission, Settled):
            await self.publish(admission, arrival.request_id, trace, origins)
            _measure(result)
            return None
        return admission

    async def _refuse(self, arrival: Arrival, result: LLMResult) -> Refusal:
        stored, version = _stored_form.encode(result), result.state_version
        return await patiently(
            "refuse", lambda: self._context.state.refuse(arrival, result.status, stored, version=version)
        )

    async def publish(
        self, settled: Settled, request_id: str, trace: Sequence[Header], origins: Origins = NOWHERE
    ) -> None:
        """Publishes an end, unless it is known to be published. Readers know repeats by their `ce_id`."""
        if settled.outcome:
            result = decode_single_object(LLMResult, settled.outcome)
            # First: an emptied store is restored from results, and without this one its request would be called again.
            await self._context.producer.send(self._writer.result(result, trace))
        elif settled.place is not None:
            found = await self._result_at(settled.place, request_id)
            if found is None:
                return
            result = found
        else:
            return
        if result.status is State.FAILED and result.problem is not None and origins.record is not None:
            # Whoever reads of the failure finds the letter.
            await self._write_dead_letter(result, result.problem, origins.record, origins.redrive_count)
        await self._context.producer.send_all(
            [
                self._writer.status(results.ending_event(result), trace),
                *(self._writer.attempt(attempt, trace) for attempt in result.attempts[origins.published_attempts :]),
            ]
        )
        if origins.copy_to is not None:
            await self._copy(self._writer.result(result, trace, topic=origins.copy_to), request_id)
        self._on_published(request_id)

    async def confirm(self, ends: Sequence[Ended]) -> None:
        """Notes ends from outside of a lane that were published as a whole."""
        if ends:
            await patiently("confirm", lambda: self._context.state.confirm(ends))

    async def _result_at(self, place: Place, request_id: str) -> LLMResult | None:
        """A result that is in Kafka, for what else follows from it. None: Kafka no longer has it."""
        origin = Origin(topic=self._context.settings.topics.results, partition=place.partition, offset=place.offset)
        record = await self._context.originals.fetch(origin)
        if record is None or record.key != request_id.encode():
            log.warning("result_no_longer_there", request_id=request_id, origin=str(origin))
            return None
        try:
            return await patiently("decode", lambda: self._context.codec.decode(LLMResult, record.value))
        except CodecError as error:
            log.warning("result_undecodable", request_id=request_id, origin=str(origin), error=error.reason)
            return None

    async def _write_dead_letter(self, result: LLMResult, why: Problem, origin: Origin, redrive_count: int) -> None:
        original = await self._context.originals.fetch(origin)
        if original is None:
            log.warning("dead_letter_without_value", request_id=result.request_id, origin=str(origin))
        place = original or Delivery(
            topic=origin.topic,
            partition=origin.partition,
            offset=origin.offset,
            timestamp=result.submitted_at,
            key=result.request_id.encode(),
            value=b"",
            is_null=True,
        )
        letter = self._writer.dead_letter(
            place,
            why,
            request_id=result.request_id,
            tenant_id=result.tenant_id,
            result=result,
            redrive_count=redrive_count,
        )
        if original is None:
            letter = without_value(letter, f"no longer at {place.origin}")
        await self.send_dead_letter(letter, place)

    async def send_dead_letter(self, letter: Outgoing, original: Delivery) -> None:
        """A record that was compressed may be larger than any topic takes: then its letter says where it lies."""
        try:
            await self._context.producer.send(letter)
        except MessageSizeTooLargeError:
            size_bytes = len(original.value)
            log.warning("dead_letter_without_value", origin=original.origin, size_bytes=size_bytes)
            await self._context.producer.send(without_value(letter, f"{size_bytes} bytes at {original.origin}"))

    async def _copy(self, record: Outgoing, request_id: str) -> None:
        """The sender's own topic may take less than ours; the result itself comes to be in ours."""
        try:
            await self._context.producer.send(record)
        except MessageSizeTooLargeError:
            log.warning("copy_too_large", request_id=request_id, topic=record.topic)

    async def set_aside_task(self, delivery: Delivery, error: CodecError) -> None:
        """A task that this version cannot read is kept byte for byte, and its request ends as failed."""
        log.error("task_undecodable", origin=delivery.origin, error=error.reason, field=error.field)
        why = validation.codec_problem(error)
        who = validation.readable_identity({}, delivery.key)
        letter = self._writer.dead_letter(
            delivery, why, request_id=who.request_id if who else None, tenant_id=who.tenant_id if who else None
        )
        await self.send_dead_letter(letter, delivery)
        if who is not None:
            await self.fail_admitted(who, why, outgoing(), submitted_at=delivery.timestamp)

    async def fail_admitted(
        self, who: Identity, problem: Problem, trace: Sequence[Header], *, submitted_at: datetime
    ) -> None:
        """Fails a request that was let in and cannot go on: its task or its route cannot be used by this version."""
        lease_ms = int(self._context.settings.worker.lease_seconds * 1000)
        claiming = partial(self._context.claims.claim, who.request_id, owner=self._context.worker, lease_ms=lease_ms)
        summary = await self._summary_of_what_waits(who.request_id)
        while True:
            claim = await patiently("claim", partial(claiming, token=uuid4().hex))
            settled = claim if isinstance(claim, Settled) else None
            if isinstance(claim, Claimed):
                version, now = claim.lease.version + 1, self._context.now()
                if summary is None:
                    result = results.end_at_the_door(
                        who, State.FAILED, problem, version=version, submitted_at=submitted_at, now=now
                    )
                else:
                    lost = [
                        results.lost_attempt(summary, number=call.attempt, owner=call.owner, started_ms=call.started_ms)
                        for call in claim.lost_calls
                    ]
                    called = summary.model_copy(update={"attempts": [*summary.attempts, *lost]})
                    result = results.end_of(called, State.FAILED, version=version, now=now, problem=problem)
                settled = await self.settle(claim.lease, result)
            if settled is not None:
                origins = NOWHERE
                if summary is not None:
                    # Its dead letter is there already: the bytes that could not be read.
                    origins = Origins(copy_to=summary.result_topic, published_attempts=len(summary.attempts))
                await self.publish(settled, who.request_id, trace, origins)
                return
            await asyncio.sleep(BUSY_SECONDS)

    async def _summary_of_what_waits(self, request_id: str) -> Summary | None:
        """What is known of a request. If it waits for a retry it does so no longer: it can be claimed, and ended."""
        state = self._context.state
        for known in await patiently("look", lambda: state.look([request_id])):
            summary = load_summary(known.summary)
            if summary is not None and known.state is State.RETRY_SCHEDULED:
                await patiently(
                    "requeue",
                    partial(
                        state.requeue,
                        request_id,
                        task_version=known.version,
                        attempt=summary.attempts[-1].attempt + 1 if summary.attempts else 1,
                        summary=known.summary,
                        deadline_ms=epoch_ms(summary.deadline_at),
                    ),
                )
            return summary
        return None


def without_value(letter: Outgoing, where: str) -> Outgoing:
    """A dead letter that tells where its value is, in place of it."""
    return replace(
        letter, key=letter.key or b"", value=None, headers=[*letter.headers, (VALUE_LEFT_OUT, where.encode())]
    )


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
