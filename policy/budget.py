"""What a tenant has spent on a UTC day, and what happens when its budget is spent.

Money is added after a call, from its actual cost. So a budget is overshot by what the calls cost that are in flight
when it is reached, over all workers, and those that begin in the half second until all workers have heard of it. A
call whose price is not known adds nothing.
"""

from dataclasses import dataclass
from datetime import UTC, datetime

from policy.failures import problem
from policy.rules import TenantRules
from policy.stored import StoredAs
from schemas.attempt import Problem
from schemas.vocabulary import FailureCategory

DAY_MS = 86_400_000
KEPT_SECONDS = 2 * 86_400


@dataclass(frozen=True, slots=True)
class Spending:
    """Of one tenant, on one day (counted from 1970, in UTC)."""

    day: int = 0
    usd: float = 0.0

    def on(self, now_ms: int) -> float:
        """What was spent on the day of `now_ms`."""
        return self.usd if self.day == now_ms // DAY_MS else 0.0


SPENDING = StoredAs(Spending)


def spend(spending: Spending, usd: float, *, now_ms: int) -> Spending:
    """After a call. A new day begins at 0; a clock that was set back a little takes nothing away."""
    day = max(now_ms // DAY_MS, spending.day)
    before = spending.usd if spending.day == day else 0.0
    return Spending(day, before + usd) if usd > 0 else spending


def is_spent(spending: Spending, rules: TenantRules, *, now_ms: int) -> bool:
    """Whether no further call may begin today."""
    budget_usd = rules.budget_usd_per_day
    return budget_usd is not None and spending.on(now_ms) >= budget_usd


def day_ends_ms(now_ms: int) -> int:
    """The next midnight in UTC."""
    return (now_ms // DAY_MS + 1) * DAY_MS


def over_budget(tenant_id: str, rules: TenantRules, *, now_ms: int) -> Problem:
    """Why a request is refused. The retry-after leads to the next day."""
    tomorrow = datetime.fromtimestamp(day_ends_ms(now_ms) / 1000, UTC)
    return problem(
        FailureCategory.BUDGET_EXHAUSTED,
        f"tenant {tenant_id} has spent its {rules.budget_usd_per_day:g} US dollars of this UTC day",
        remedy=f"send it again after {tomorrow:%Y-%m-%dT%H:%MZ}, or have budget_usd_per_day raised",
        retry_after_seconds=(day_ends_ms(now_ms) - now_ms) / 1000,
    )
