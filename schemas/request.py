"""LLMRequest: what an upstream service writes to `llm.requests`, and may then forget about."""

import json
from typing import Annotated, Any, Self

from pydantic import Field, StringConstraints, field_validator, model_validator

from schemas.base import LONG_MAX, LONG_MIN, Identifier, Part, ProviderName, Record, Timestamp
from schemas.vocabulary import DuplicatePolicy, Kind, Priority, ProcessingMode, Role, Sensitivity

Text = Annotated[str, StringConstraints(min_length=1)]
MetadataValue = Annotated[str, StringConstraints(max_length=4096)]


class Message(Part):
    """One turn of a chat."""

    role: Role
    content: Text


class Parameters(Part):
    """How the model samples. What is absent is left to the provider's default."""

    temperature: float | None = Field(default=None, ge=0, le=2)
    top_p: float | None = Field(default=None, gt=0, le=1)
    max_tokens: int | None = Field(default=None, gt=0, le=LONG_MAX)
    seed: int | None = Field(default=None, ge=LONG_MIN, le=LONG_MAX)
    stop: list[str] = Field(default_factory=list, max_length=4)
    system_prompt: str | None = None


class ResponseFormat(Part):
    """A JSON schema that the answer must fit. In JSON requests `json_schema` may be an object."""

    name: Identifier = "answer"
    json_schema: str

    @field_validator("json_schema", mode="before")
    @classmethod
    def _as_text(cls, value: Any) -> Any:
        return json.dumps(value) if isinstance(value, dict) else value

    @field_validator("json_schema")
    @classmethod
    def _is_an_object(cls, value: str) -> str:
        try:
            is_object = isinstance(json.loads(value), dict)
        except RecursionError as error:
            raise ValueError("is nested too deeply") from error
        if not is_object:
            raise ValueError('must be the JSON text of an object, such as {"type": "object", ...}')
        return value


class RoutingConstraints(Part):
    """Hard limits on where the request may go. Never traded for availability."""

    allowed_providers: list[ProviderName] = Field(default_factory=list)
    sensitivity: Sensitivity = Sensitivity.PUBLIC
    max_cost_usd: float | None = Field(default=None, gt=0)
    max_latency_ms: int | None = Field(default=None, gt=0, le=LONG_MAX)
    prefer_local: bool = False
    min_confidence: float | None = Field(default=None, ge=0, le=1)


class WorkContext(Part):
    """On whose behalf the call is made, for policy and evidence."""

    project_id: str | None = None
    task_id: str | None = None
    agent_name: str | None = None


class LLMRequest(Record):
    """One durable LLM call.

    `kind=chat` carries `messages`; `kind=comparison` carries `prompt`, `essay_a` and `essay_b`. A second record
    with the same `request_id` is a duplicate and is not called again. `deadline_at` is absolute and survives
    retries; without it the deployment's default (4 h after submission) holds. Times are UTC with milliseconds.
    """

    request_id: Identifier
    tenant_id: Identifier = "default"
    user_id: Identifier | None = None
    correlation_id: Identifier | None = None
    kind: Kind = Kind.CHAT
    messages: list[Message] = Field(default_factory=list)
    prompt: str | None = None
    essay_a: str | None = None
    essay_b: str | None = None
    model: str | None = Field(default=None, min_length=1, max_length=200)
    provider: ProviderName | None = Field(default=None, description="pinned; absent: the router chooses")
    parameters: Parameters = Parameters()
    response_format: ResponseFormat | None = None
    stream: bool = Field(default=False, description="publish the answer to llm.deltas as it arrives")
    priority: Priority = Priority.NORMAL
    processing_mode: ProcessingMode = ProcessingMode.QUEUE_IF_UNAVAILABLE
    duplicate_policy: DuplicatePolicy = DuplicatePolicy.RETRY
    submitted_at: Timestamp | None = Field(default=None, description="absent: the Kafka record's timestamp")
    deadline_at: Timestamp | None = None
    allow_failover: bool = False
    constraints: RoutingConstraints = RoutingConstraints()
    context: WorkContext = WorkContext()
    result_topic: str | None = Field(default=None, description="an extra copy of the result; allow-listed")
    metadata: dict[str, MetadataValue] = Field(default_factory=dict, max_length=64)

    @model_validator(mode="after")
    def _carries_what_its_kind_needs(self) -> Self:
        if self.kind is Kind.CHAT and not self.messages:
            raise ValueError("messages: a chat needs at least one message")
        if self.kind is Kind.COMPARISON:
            for name in ("prompt", "essay_a", "essay_b"):
                if not getattr(self, name):
                    raise ValueError(f"{name}: a comparison needs prompt, essay_a and essay_b")
        return self
