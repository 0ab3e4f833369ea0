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


class Origin(Part):
    """The record that a request came in, which holds its original bytes for as long as Kafka keeps them."""

    topic: str
    partition: int = Field(ge=0)
    offset: int = Field(ge=0)


class LaneTask(Record):
    """One request on its way to one provider: on a lane, or in a delay topic on its way back to one.

    `state_version` is that of the QUEUED or RETRY_SCHEDULED event that announced it, `attempt` the number of the call
    to make next, `history` the calls made so far. Where `not_before` is set, no call is made until then.
    """

    request: LLMRequest
    decision: RoutingDecision
    attempt: int = Field(default=1, ge=1)
    state_version: Version = 1
    submitted_at: Timestamp
    queued_at: Timestamp
    deadline_at: Timestamp
    history: list[Attempt] = Field(default_factory=list)
    origin: Origin | None = None
    not_before: Timestamp | None = None
    redrive_count: int = Field(default=0, ge=0)
    is_repeat: bool = Field(default=False, description="a task of this version may have been written before")
