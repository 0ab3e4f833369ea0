"""LLMResult: exactly one for every request that was read, whatever its end."""

from typing import Literal

from pydantic import Field

from schemas.attempt import Attempt, Problem, Usage
from schemas.base import Identifier, Milliseconds, Part, ProviderName, Record, Timestamp, Version
from schemas.vocabulary import Kind, State

Winner = Literal["Essay A", "Essay B"]


class Comparison(Part):
    """The verdict of a comparison, validated and never repaired. Confidence on the scale 1.0 to 5.0."""

    winner: Winner
    justification: str = Field(min_length=50, max_length=500)
    confidence: float = Field(ge=1.0, le=5.0)


class Answer(Part):
    """What the provider said."""

    text: str
    structured: str | None = Field(default=None, description="JSON text that fits the requested schema")
    comparison: Comparison | None = None
    finish_reason: str
    model: str = Field(description="the model that answered, as the provider names it")
    provider_request_id: str | None = None


class Timings(Part):
    """Where the time went, in milliseconds. `overhead_ms` is `total_ms` less `provider_ms` and `delayed_ms`."""

    queued_ms: Milliseconds = Field(default=0.0, description="submitted until queued on a lane")
    waiting_ms: Milliseconds = Field(default=0.0, description="queued until the first call began")
    provider_ms: Milliseconds = Field(default=0.0, description="inside provider calls, all attempts")
    delayed_ms: Milliseconds = Field(default=0.0, description="between a failed call and the next one")
    overhead_ms: Milliseconds = 0.0
    total_ms: Milliseconds = Field(default=0.0, description="submitted until settled")


class LLMResult(Record):
    """The end of a request: completed, failed, expired, cancelled or rejected.

    A repeated delivery of the same result has the same `ce_id`, so that readers can drop it.
    """

    request_id: Identifier
    tenant_id: Identifier = "default"
    user_id: Identifier | None = None
    correlation_id: Identifier | None = None
    kind: Kind = Kind.CHAT
    status: State
    state_version: Version
    answer: Answer | None = None
    problem: Problem | None = None
    provider: ProviderName | None = None
    model: str | None = None
    usage: Usage | None = None
    cost_usd: float | None = None
    attempts: list[Attempt] = Field(default_factory=list)
    timings: Timings = Timings()
    possibly_billed_calls: int = Field(default=0, ge=0)
    submitted_at: Timestamp
    finished_at: Timestamp
    metadata: dict[str, str] = Field(default_factory=dict)
