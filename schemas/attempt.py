"""Attempt: one record per provider call, in `llm.attempts` and in the result. Cost, tokens, timing, verdict."""

from pydantic import Field

from schemas.base import LONG_MAX, Identifier, Milliseconds, Part, ProviderName, Record, Timestamp
from schemas.vocabulary import AttemptOutcome, FailureCategory


class Usage(Part):
    """Tokens as the provider counted them."""

    input_tokens: int = Field(default=0, ge=0, le=LONG_MAX)
    output_tokens: int = Field(default=0, ge=0, le=LONG_MAX)
    cached_input_tokens: int = Field(default=0, ge=0, le=LONG_MAX)

    @property
    def total_tokens(self) -> int:
        return self.input_tokens + self.output_tokens


class Problem(Part):
    """Why something did not work: for programs (`category`, `field`) and for people (`message`, `remedy`)."""

    category: FailureCategory = FailureCategory.UNKNOWN
    message: str
    retryable: bool = False
    field: str | None = Field(default=None, description="the input field at fault, as a dotted path")
    remedy: str | None = None
    provider_code: str | None = None
    http_status: int | None = None
    retry_after_seconds: float | None = Field(default=None, ge=0)


class Attempt(Record):
    """One call of a provider. `possibly_billed`: no answer was delivered for it, and it may have cost money."""

    request_id: Identifier
    tenant_id: Identifier = "default"
    attempt: int = Field(ge=1)
    provider: ProviderName
    model: str
    outcome: AttemptOutcome
    started_at: Timestamp
    ended_at: Timestamp
    duration_ms: Milliseconds
    time_to_first_token_ms: Milliseconds | None = None
    usage: Usage | None = None
    cost_usd: float | None = Field(default=None, description="absent: the price is not known")
    provider_request_id: str | None = None
    problem: Problem | None = None
    possibly_billed: bool = False
    worker: str = Field(description="host and process that made the call")
