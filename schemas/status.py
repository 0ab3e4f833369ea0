"""StatusEvent: each change of a request's state, in `llm.status`."""

from pydantic import Field

from schemas.base import Identifier, Milliseconds, ProviderName, Record, Timestamp, Version
from schemas.result import Timings
from schemas.vocabulary import FailureCategory, Kind, State


class StatusEvent(Record):
    """A `QUEUE_REQUEST_*` event.

    Order them by `state_version`, not by arrival: it grows by at least one at each change, and a repeat of an
    event has the same version and the same `ce_id`. Texts of requests and answers never occur here.
    """

    type: str = Field(pattern=r"^QUEUE_REQUEST_[A-Z_]+$")
    request_id: Identifier
    tenant_id: Identifier = "default"
    user_id: Identifier | None = None
    correlation_id: Identifier | None = None
    kind: Kind = Kind.CHAT
    state: State
    state_version: Version
    attempt: int = Field(default=0, ge=0)
    provider: ProviderName | None = None
    model: str | None = None
    reason: FailureCategory | None = None
    message: str | None = None
    occurred_at: Timestamp
    submitted_at: Timestamp
    retry_at: Timestamp | None = None
    queue_position: int | None = Field(default=None, ge=0)
    estimated_wait_ms: Milliseconds | None = None
    possibly_billed_calls: int = Field(default=0, ge=0)
    timings: Timings | None = Field(default=None, description="with terminal states")
