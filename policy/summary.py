"""What is kept of a request besides its content: enough to end it from anywhere, with a full result."""

from datetime import datetime
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from schemas.attempt import Attempt
from schemas.base import Identifier, ProviderName, Timestamp
from schemas.request import LLMRequest
from schemas.task import LaneTask, Origin
from schemas.vocabulary import Kind


class Identity(BaseModel):
    """Who a request is, as far as could be read."""

    model_config = ConfigDict(frozen=True)

    request_id: Identifier
    tenant_id: Identifier = "default"
    user_id: Identifier | None = None
    correlation_id: Identifier | None = None
    kind: Kind = Kind.CHAT
    metadata: dict[str, str] = {}


class Summary(Identity):
    """A request on its way: who it is, where it goes, and the calls made so far."""

    submitted_at: Timestamp
    queued_at: Timestamp
    deadline_at: Timestamp
    provider: ProviderName
    model: str
    attempts: list[Attempt] = []
    origin: Origin | None = None
    result_topic: str | None = None
    redrive_count: int = 0
    retry_at: Timestamp | None = None


def identity(request: LLMRequest) -> Identity:
    """The identity of a request that was read in full."""
    return Identity.model_construct(**_identity(request))


def summary_of(task: LaneTask) -> Summary:
    """The summary of a task as it stands."""
    return Summary.model_construct(
        **_identity(task.request),
        submitted_at=task.submitted_at,
        queued_at=task.queued_at,
        deadline_at=task.deadline_at,
        provider=task.decision.provider,
        model=task.decision.model,
        attempts=task.history,
        origin=task.origin,
        result_topic=task.request.result_topic,
        redrive_count=task.redrive_count,
        retry_at=task.not_before,
    )


def asked_at(life: LaneTask | Summary) -> datetime:
    """When this life was asked for: a cancellation from before does not concern it.

    What is redriven was asked for anew, and is known from the moment that it was let in.
    """
    return life.queued_at if life.redrive_count else life.submitted_at


def dump_summary(summary: Summary) -> bytes:
    """As the shared state keeps it: JSON, without what is not set."""
    return summary.model_dump_json(exclude_defaults=True).encode()


def load_summary(text: bytes) -> Summary | None:
    """The summary, or None for what no version of ours wrote."""
    try:
        return Summary.model_validate_json(text)
    except ValidationError:
        return None


def _identity(request: LLMRequest) -> dict[str, Any]:
    # Validated already, as part of the request: `model_construct` takes these as they are.
    return {
        "request_id": request.request_id,
        "tenant_id": request.tenant_id,
        "user_id": request.user_id,
        "correlation_id": request.correlation_id,
        "kind": request.kind,
        "metadata": request.metadata,
    }
