"""How the simulated provider behaves: its options in providers.toml, and what one request may set in its metadata.

A request overrides by metadata, for tests: `{"simulated.fail": "rate_limited", "simulated.fail_attempts": "2"}`.
"""

from pathlib import Path
from typing import Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from policy.failures import problem
from schemas.attempt import Problem
from schemas.vocabulary import FailureCategory

METADATA_PREFIX = "simulated."

_FROM_A_PROVIDER = frozenset(FailureCategory) - {
    FailureCategory.UNDECODABLE,
    FailureCategory.TOO_LARGE,
    FailureCategory.NO_ROUTE,
    FailureCategory.DENIED,
    FailureCategory.QUEUE_FULL,
    FailureCategory.DEADLINE,
    FailureCategory.OUTCOME_LOST,
    FailureCategory.PROVIDER_UNAVAILABLE,
    FailureCategory.BUDGET_EXHAUSTED,
}


class SimulatedOptions(BaseModel):
    """Options of `[providers.<name>.options]`. Times are means; `jitter` spreads them evenly around the mean."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    seed: int = 1
    latency_ms: float = Field(default=150, ge=0, le=3_600_000, description="until the answer, without streaming")
    first_token_ms: float = Field(default=60, ge=0, le=3_600_000, description="until the first piece, streaming")
    tokens_per_second: float = Field(default=100, gt=0, description="pieces a second after the first, streaming")
    jitter: float = Field(default=0.3, ge=0, le=1, description="0.3: each wait is 70 % to 130 % of its mean")
    failure_rate: float = Field(default=0, ge=0, le=1, description="share of attempts that fail")
    failure: FailureCategory = FailureCategory.SERVER_ERROR
    journal_path: Path | None = Field(default=None, description="one JSON line per start and end of a call")


class Overrides(BaseModel):
    """What one request sets, each as text under `simulated.<name>`. Absent: as the options say."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    latency_ms: float | None = Field(default=None, ge=0, le=3_600_000)
    first_token_ms: float | None = Field(default=None, ge=0, le=3_600_000)
    tokens_per_second: float | None = Field(default=None, gt=0)
    answer: str | None = Field(default=None, description="answer with exactly this text")
    fail: FailureCategory | None = Field(default=None, description="fail in this way")
    retry_after_seconds: float | None = Field(default=None, ge=0, description="what a failure asks for")
    truncate: bool = Field(default=False, description="break off half-way: no end, as of a connection closed early")
    stall: bool = Field(default=False, description="half an answer, then silence for ever; streaming")
    hang: bool = Field(default=False, description="never answer")
    fail_attempts: int | None = Field(default=None, ge=1, description="misbehave in the first N attempts only")

    @field_validator("fail")
    @classmethod
    def _is_a_provider_failure(cls, category: FailureCategory | None) -> FailureCategory | None:
        if category is not None and category not in _FROM_A_PROVIDER:
            raise ValueError("no provider fails in this way, only the pipeline does")
        return category

    def for_attempt(self, attempt: int) -> Self:
        """The same without misbehaviour, once the attempts that it was meant for are over."""
        if self.fail_attempts is None or attempt <= self.fail_attempts:
            return self
        return self.model_copy(update={"fail": None, "truncate": False, "stall": False, "hang": False})


def read_overrides(metadata: dict[str, str]) -> Overrides | Problem:
    """The overrides in a request's metadata, or what is wrong with the first bad one."""
    given = {
        key.removeprefix(METADATA_PREFIX): value for key, value in metadata.items() if key.startswith(METADATA_PREFIX)
    }
    try:
        return Overrides.model_validate(given)
    except ValidationError as error:
        detail = error.errors(include_url=False, include_input=False, include_context=False)[0]
        key = METADATA_PREFIX + str(detail["loc"][0])
        what = "there is no such key" if detail["type"] == "extra_forbidden" else detail["msg"]
        return problem(
            FailureCategory.INVALID_REQUEST,
            f"{key}: {what}",
            field=f"metadata.{key}",
            remedy="one of: " + ", ".join(METADATA_PREFIX + name for name in Overrides.model_fields),
        )
