"""What stands between a lane's waiting records and its call slots, in the words that both sides use."""

from dataclasses import dataclass
from typing import Protocol

from connectors.providers.base import RateLimit
from schemas.attempt import Problem
from schemas.vocabulary import FailureCategory


@dataclass(frozen=True, slots=True)
class Flow:
    """What fairness and limits go by, within the lane of one provider."""

    tenant_id: str
    model: str


@dataclass(frozen=True, kw_only=True, slots=True)
class CallOutcome:
    """What a gate learns from a call. `failed_by` None: it was answered."""

    failed_by: FailureCategory | None = None
    speaks_of_provider: bool = False
    tokens: int | None = None
    cost_usd: float | None = None
    limits: tuple[RateLimit, ...] = ()
    retry_after_seconds: float | None = None


class Permit(Protocol):
    """The right to make one call. Given back exactly once."""

    @property
    def refusal(self) -> Problem | None:
        """Why the request is to end without a call, where it is: its tenant's budget is spent, for example."""
        ...

    def leave(self, outcome: CallOutcome | None) -> None:
        """With what the call brought, or with None where none was made."""
        ...


class Gate(Protocol):
    """Decides at once, from what this process knows, whether a flow's next call may begin."""

    def try_enter(self, flow: Flow, *, estimated_tokens: int) -> Permit | None:
        """A permit, or None: not now. After None, `changed` tells when to ask again."""
        ...

    async def changed(self) -> None:
        """Returns when a flow that was turned away may be let in. It may return for nothing."""
        ...
