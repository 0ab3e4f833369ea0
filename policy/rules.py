"""What an operator sets to guard providers and purses: breaker, limits and budgets. Tables of `providers.toml`."""

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

ModelPattern = Annotated[str, StringConstraints(min_length=1, max_length=200, pattern=r"^[^*]*\*?$")]
"""A model's full name, or the start of one and a `*`."""

TenantName = Annotated[str, StringConstraints(min_length=1, max_length=128, pattern=r"^(\*|[A-Za-z0-9._:@-]+)$")]
"""A tenant's id, or `*`: each tenant that has no table of its own."""


class Table(BaseModel):
    """A table of `providers.toml`."""

    # Strict: `local = "false"` is a string, and a string is not taken for a truth value.
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class BreakerRules(Table):
    """When calls to a provider stop, and how they begin again."""

    failures: int = Field(default=5, ge=1, description="in a row: so many open it")
    window_seconds: float = Field(default=60, gt=0, le=3600, description="in which failure_rate is counted")
    failure_rate: float = Field(default=0.5, gt=0, le=1, description="share of the window's calls that opens it ...")
    min_calls: int = Field(default=20, ge=1, description="... once it has so many calls")
    open_seconds: float = Field(default=60, gt=0, description="until the first probe; doubled after each that fails")
    max_open_seconds: float = Field(default=600, gt=0, description="the longest that doubling leads to")
    successes: int = Field(default=3, ge=1, description="so many probes have to succeed, one after the other")
    per_model: bool = Field(default=False, description="true: each model has a breaker of its own")

    @model_validator(mode="after")
    def _grows_upwards(self) -> Self:
        if self.max_open_seconds < self.open_seconds:
            raise ValueError("max_open_seconds: is less than open_seconds; set it to as much, or more")
        return self


class LimitRules(Table):
    """Limits over all workers. Absent: no limit."""

    requests_per_minute: int | None = Field(default=None, ge=1, description="calls begun in any 60 s")
    tokens_per_minute: int | None = Field(default=None, ge=1, description="estimated before a call, corrected after it")
    concurrency: int | None = Field(default=None, ge=1, description="calls at once")

    @property
    def is_empty(self) -> bool:
        return self.requests_per_minute is None and self.tokens_per_minute is None and self.concurrency is None


class ProviderLimits(LimitRules):
    """Limits of a provider, and within it of its models and tenants. A call has to keep all that concern it.

    Models that fit one pattern share its limits. Tenants that are meant by `*` have the same limits, each for itself.
    """

    models: dict[ModelPattern, LimitRules] = Field(default_factory=dict)
    tenants: dict[TenantName, LimitRules] = Field(default_factory=dict)

    def of_model(self, model: str) -> tuple[str, LimitRules] | None:
        """The first table whose name or pattern the model fits, with that name."""
        return next(((name, rules) for name, rules in self.models.items() if fits(name, model)), None)

    def of_tenant(self, tenant_id: str) -> LimitRules | None:
        return self.tenants.get(tenant_id) or self.tenants.get("*")


class TenantRules(Table):
    """What a tenant may spend, with all providers together."""

    budget_usd_per_day: float | None = Field(default=None, ge=0, description="a UTC day; absent: no budget")
    at_limit: Literal["wait", "reject"] = Field(
        default="wait", description="when it is spent: requests wait for the next day, or end as failed"
    )


def fits(pattern: str, model: str) -> bool:
    """Whether a model's name is the one meant, or begins as the pattern says."""
    return model.startswith(pattern[:-1]) if pattern.endswith("*") else model == pattern
