"""The topics: names, and what each promises (partitions, retention, compaction, size)."""

from dataclasses import dataclass, field
from typing import Literal

from schemas.attempt import Attempt
from schemas.base import Record
from schemas.command import Command
from schemas.dead_letter import DeadLetterMark
from schemas.delta import Delta
from schemas.lane_report import LaneReport
from schemas.request import LLMRequest
from schemas.result import LLMResult
from schemas.status import StatusEvent
from schemas.task import LaneTask
from schemas.vocabulary import Priority

HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS
MIB = 1024 * 1024

MAX_REQUEST_BYTES = 1 * MIB
"""Largest request that is accepted. Its topic takes twice as much, so that one too large is answered, not lost."""

RETRY_DELAYS_SECONDS = (1, 5, 30, 120, 600)
"""Each is a topic whose records wait that long. A longer wait passes through several, one after the other."""

Cleanup = Literal["delete", "compact", "compact,delete"]


@dataclass(frozen=True, kw_only=True, slots=True)
class TopicSpec:
    """One topic. `record` is None where the bytes are not ours to shape."""

    name: str
    record: type[Record] | None
    description: str
    retention_ms: int
    partitions: int = 6
    cleanup: Cleanup = "delete"
    max_message_bytes: int = 2 * MIB

    @property
    def config(self) -> dict[str, str]:
        """Settings as Kafka's admin API takes them."""
        return {
            "retention.ms": str(self.retention_ms),
            "cleanup.policy": self.cleanup,
            "max.message.bytes": str(self.max_message_bytes),
        }


@dataclass(frozen=True, kw_only=True)
class Topics:
    """All topic names of a deployment. `prefix` sets deployments (and tests) apart in one cluster."""

    prefix: str = ""
    partitions: int = 6
    retry_delays_seconds: tuple[int, ...] = RETRY_DELAYS_SECONDS
    requests: str = field(init=False)
    status: str = field(init=False)
    results: str = field(init=False)
    deltas: str = field(init=False)
    attempts: str = field(init=False)
    dead_letters: str = field(init=False)
    dead_letter_marks: str = field(init=False)
    commands: str = field(init=False)
    lane_reports: str = field(init=False)

    def __post_init__(self) -> None:
        for name, suffix in (
            ("requests", "llm.requests"),
            ("status", "llm.status"),
            ("results", "llm.results"),
            ("deltas", "llm.deltas"),
            ("attempts", "llm.attempts"),
            ("dead_letters", "llm.requests.dlt"),
            ("dead_letter_marks", "llm.requests.dlt.marks"),
            ("commands", "llm.commands"),
            ("lane_reports", "llm.lane-reports"),
        ):
            object.__setattr__(self, name, self.prefix + suffix)

    def lane(self, provider: str, priority: Priority) -> str:
        return f"{self.prefix}llm.lane.{provider}.{priority}"

    def lanes(self, provider: str) -> dict[Priority, str]:
        """The topics of one provider's lane."""
        return {priority: self.lane(provider, priority) for priority in Priority}

    def retry(self, delay_seconds: int) -> str:
        return f"{self.prefix}llm.retry.{delay_text(delay_seconds)}"

    @property
    def retries(self) -> dict[int, str]:
        """The delay topics by their delay in seconds, shortest first."""
        return {delay: self.retry(delay) for delay in sorted(self.retry_delays_seconds)}

    def specs(self, providers: list[str]) -> list[TopicSpec]:
        """Every topic of a deployment that has these providers."""

        def spec(
            name: str,
            record: type[Record] | None,
            description: str,
            days: float,
            *,
            cleanup: Cleanup = "delete",
            mib: int = 2,
        ) -> TopicSpec:
            return TopicSpec(
                name=name,
                record=record,
                description=description,
                retention_ms=int(days * DAY_MS),
                partitions=self.partitions,
                cleanup=cleanup,
                max_message_bytes=mib * MIB,
            )

        return [
            spec(self.requests, LLMRequest, "Requests; JSON is accepted here as well.", 7),
            *(
                spec(topic, LaneTask, f"The lane of the provider {name}, {priority} priority.", 7, mib=3)
                for name in sorted(providers)
                for priority, topic in self.lanes(name).items()
            ),
            *(
                spec(topic, LaneTask, f"Tasks that wait {delay_text(delay)} before they go on.", 7, mib=3)
                for delay, topic in self.retries.items()
            ),
            spec(self.status, StatusEvent, "Each change of a request's state.", 3),
            spec(self.results, LLMResult, "The end of each request.", 7, cleanup="compact,delete", mib=4),
            spec(self.deltas, Delta, "Answers as they arrive, for requests that stream.", 1 / 24),
            spec(self.attempts, Attempt, "One record per provider call.", 30),
            spec(self.dead_letters, None, "Requests that could not pass, byte for byte.", 30, mib=4),
            spec(
                self.dead_letter_marks,
                DeadLetterMark,
                "Which dead letters were redriven or purged.",
                30,
                cleanup="compact,delete",
            ),
            spec(self.commands, Command, "Cancellations.", 3),
            spec(self.lane_reports, LaneReport, "How each worker of a lane fares; changes of its breaker.", 1),
        ]


def delay_text(seconds: int) -> str:
    """A delay as it stands in a topic's name: 1s, 2m, 1h."""
    if seconds % 3600 == 0:
        return f"{seconds // 3600}h"
    return f"{seconds // 60}m" if seconds % 60 == 0 else f"{seconds}s"
