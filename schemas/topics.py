"""The topics: names, and what each promises (partitions, retention, compaction, size)."""

from dataclasses import dataclass, field
from typing import Literal

from schemas.attempt import Attempt
from schemas.base import Record
from schemas.delta import Delta
from schemas.request import LLMRequest
from schemas.result import LLMResult
from schemas.status import StatusEvent
from schemas.task import LaneTask

HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS
MIB = 1024 * 1024

MAX_REQUEST_BYTES = 1 * MIB
"""Largest request that is accepted. Its topic takes twice as much, so that one too large is answered, not lost."""

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
    requests: str = field(init=False)
    status: str = field(init=False)
    results: str = field(init=False)
    deltas: str = field(init=False)
    attempts: str = field(init=False)
    dead_letters: str = field(init=False)

    def __post_init__(self) -> None:
        for name, suffix in (
            ("requests", "llm.requests"),
            ("status", "llm.status"),
            ("results", "llm.results"),
            ("deltas", "llm.deltas"),
            ("attempts", "llm.attempts"),
            ("dead_letters", "llm.requests.dlt"),
        ):
            object.__setattr__(self, name, self.prefix + suffix)

    def lane(self, provider: str) -> str:
        return f"{self.prefix}llm.lane.{provider}"

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
                spec(self.lane(name), LaneTask, f"The lane of the provider {name}.", 7, mib=3)
                for name in sorted(providers)
            ),
            spec(self.status, StatusEvent, "Each change of a request's state.", 3),
            spec(self.results, LLMResult, "The end of each request.", 7, cleanup="compact,delete", mib=4),
            spec(self.deltas, Delta, "Answers as they arrive, for requests that stream.", 1 / 24),
            spec(self.attempts, Attempt, "One record per provider call.", 30),
            spec(self.dead_letters, None, "Requests that could not pass, byte for byte.", 30, mib=4),
        ]
