"""Records as they leave a stage: value, key and headers of each kind in one place."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from connectors.kafka.producer import Outgoing
from schemas import Attempt, Delta, LaneTask, LLMResult, StatusEvent
from schemas.attempt import Problem
from schemas.base import epoch_ms
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
        """A task for its lane."""
        topic = self.topics.lane(task.decision.provider, task.request.priority)
        return self._task(task, topic, self._task_headers(task, trace))

    def delayed_task(self, task: LaneTask, delay_seconds: int, trace: Sequence[Header]) -> Outgoing:
        """A task for a delay topic, with the headers that Spring's retry topics have."""
        if task.not_before is None:
            raise ValueError("a task without not_before has nothing to wait for")
        waits: list[Header] = [
            ("retry_topic-attempts", str(len(task.history)).encode()),
            ("retry_topic-backoff-timestamp", _milliseconds(task.not_before)),
            ("retry_topic-original-timestamp", _milliseconds(task.queued_at)),
        ]
        return self._task(task, self.topics.retry(delay_seconds), [*self._task_headers(task, trace), *waits])

    def _task(self, task: LaneTask, topic: str, headers: list[Header]) -> Outgoing:
        key = task.request.request_id.encode()
        return Outgoing(topic=topic, key=key, value=self.codec.encode(task), headers=headers)

    def _task_headers(self, task: LaneTask, trace: Sequence[Header]) -> list[Header]:
        request = task.request
        return cloud_event(
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
                state=result.status,
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
        self,
        delivery: Delivery,
        problem: Problem,
        *,
        request_id: str | None,
        tenant_id: str | None,
        result: LLMResult | None = None,
        redrive_count: int = 0,
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
            redrive_count=redrive_count,
            state_version=result.state_version if result else 0,
            attempt=result.attempts[-1].attempt if result and result.attempts else 0,
            provider=result.provider if result else None,
            model=result.model if result else None,
            size_bytes=len(delivery.value),
        )
        return Outgoing(
            topic=self.topics.dead_letters,
            # aiokafka writes no record of which both are absent.
            key=b"" if delivery.key is None and delivery.is_null else delivery.key,
            value=None if delivery.is_null else delivery.value,
            headers=dead_letter_headers(letter, delivery.headers),
        )


def _milliseconds(moment: datetime) -> bytes:
    return str(epoch_ms(moment)).encode()
