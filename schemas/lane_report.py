"""LaneReport: how a worker of a lane fares, in `llm.lane-reports`: every few seconds, and when its breaker changes."""

from pydantic import Field

from schemas.base import Milliseconds, ProviderName, Record, Timestamp
from schemas.vocabulary import BreakerState, FailureCategory


class LaneReport(Record):
    """Counts are those since the worker's report before, `interval_ms` ago. The key is the provider.

    The breaker is shared by all workers of a lane; `in_flight`, `waiting` and `backlog` are this worker's own, and add
    up. `backlog` counts the records of its partitions that are not done, with those that it holds already.
    """

    provider: ProviderName
    worker: str
    reported_at: Timestamp
    interval_ms: Milliseconds
    breaker: BreakerState = BreakerState.CLOSED
    breaker_since: Timestamp | None = None
    breaker_retry_at: Timestamp | None = None
    breaker_reason: FailureCategory | None = None
    in_flight: int = Field(default=0, ge=0)
    concurrency: int = Field(default=0, ge=0)
    waiting: int = Field(default=0, ge=0)
    backlog: int = Field(default=0, ge=0)
    answered: int = Field(default=0, ge=0)
    failed: int = Field(default=0, ge=0)
    call_ms_p50: Milliseconds | None = None
    call_ms_p95: Milliseconds | None = None
    shared_state_away: bool = Field(default=False, description="Redis does not answer: claims are the process's own")
    stopping: bool = Field(default=False, description="the worker's last report")
