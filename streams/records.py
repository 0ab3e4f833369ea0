"""Records as they leave a stage: value, key and headers of each kind in one place."""

from collections.abc import Sequence
from dataclasses import dataclass

from connectors.kafka.producer import Outgoing
from schemas import Attempt, Delta, LaneTask, LLMResult, StatusEvent
from schemas.attempt import Problem
from schemas.codec import Codec
from schemas.dead_letter import DeadLetter
from schemas.dead_letter_headers import dead_letter_headers
from schemas.envelope import Header, attempt_id, cloud_event, event_id, result_id
from schemas.topics import Topics
from streams.context import Delivery


@dataclass(frozen=True, slots=True)
class RecordWriter:
    """Makes outgoing records. `source` is the stage's name, for `ce_source`."""

    codec: Codec
    topics: Topics
    source: str

    def status(self, event: StatusEvent, trace: Sequence[Header]) -> Outgoing:
        return Outgoing(
            topic=self.topics.status,
            key=event.request_id.encode(),
            value=self.codec.encode(event),
            headers=cloud_event(
                type=event.type,
                source=self.source,
                key=event.request_id,
                id=event_id(event.request_id, event.state_version),
                time=event.occurred_at,
                correlation_id=event.correlation_id,
                sequence=event.state_version,
                trace=trace,
            ),
        )

    def task(self, task: LaneTask, trace: Sequence[Header]) -> Outgoing:
        request = task.request
        return Outgoing(
            topic=self.topics.lane(task.decision.provider, task.request.priority),
            key=request.request_id.encode(),
            value=self.codec.encode(task),
            headers=cloud_event(
                type="sluice.LaneTask",
                source=self.source,
                key=request.request_id,
                time=task.queued_at,
                correlation_id=request.correlation_id,
                causation_id=event_id(request.request_id, task.state_version),
                sequence=task.state_version,
                expiry_time=task.deadline_at,
                tenant_id=request.tenant_id,
                model=task.decision.model,
                trace=trace,
            ),
        )

    def result(self, result: LLMResult, trace: Sequence[Header], *, topic: str | None = None) -> Outgoing:
        return Outgoing(
            topic=topic or self.topics.results,
            key=result.request_id.encode(),
            value=self.codec.encode(result),
            headers=cloud_event(
                type="sluice.LLMResult",
                source=self.source,
                key=result.request_id,
                id=result_id(result.request_id, result.state_version),
                time=result.finished_at,
                correlation_id=result.correlation_id,
                causation_id=event_id(result.request_id, result.state_version),
                sequence=result.state_version,
                trace=trace,
            ),
        )

    def attempt(self, attempt: Attempt, trace: Sequence[Header]) -> Outgoing:
        return Outgoing(
            topic=self.topics.attempts,
            key=attempt.request_id.encode(),
            value=self.codec.encode(attempt),
            headers=cloud_event(
                type="sluice.Attempt",
                source=self.source,
                key=attempt.request_id,
                id=attempt_id(attempt.request_id, attempt.attempt),
                time=attempt.ended_at,
                trace=trace,
            ),
        )

    def delta(self, delta: Delta, trace: Sequence[Header]) -> Outgoing:
        return Outgoing(
            topic=self.topics.deltas,
            key=delta.request_id.encode(),
            value=self.codec.encode(delta),
            headers=cloud_event(
                type="sluice.Delta",
                source=self.source,
                key=delta.request_id,
                sequence=delta.seq,
                trace=trace,
            ),
        )

    def dead_letter(
        self, delivery: Delivery, problem: Problem, *, request_id: str | None, tenant_id: str | None
    ) -> Outgoing:
        """The record byte for byte, with what went wrong in headers of its own."""
        letter = DeadLetter(
            request_id=request_id,
            tenant_id=tenant_id,
            category=problem.category,
            message=problem.message,
            field=problem.field,
            original_topic=delivery.topic,
            original_partition=delivery.partition,
            original_offset=delivery.offset,
            original_timestamp=delivery.timestamp,
            size_bytes=len(delivery.value),
        )
        return Outgoing(
            topic=self.topics.dead_letters,
            key=delivery.key,
            value=None if delivery.is_null else delivery.value,
            headers=dead_letter_headers(letter, delivery.headers),
        )
