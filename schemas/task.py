"""LaneTask: what intake puts on a provider's lane. It carries everything, so a worker keeps nothing."""

from pydantic import Field

from schemas.attempt import Attempt
from schemas.base import Part, ProviderName, Record, Timestamp, Version
from schemas.request import LLMRequest


class RoutingDecision(Part):
    """Where the request goes, and why."""

    provider: ProviderName
    model: str
    reason: str


class LaneTask(Record):
    """One request on its way to one provider. `state_version` is that of the QUEUED event before it."""

    request: LLMRequest
    decision: RoutingDecision
    attempt: int = Field(default=1, ge=1)
    state_version: Version = 1
    submitted_at: Timestamp
    queued_at: Timestamp
    deadline_at: Timestamp
    history: list[Attempt] = Field(default_factory=list)
