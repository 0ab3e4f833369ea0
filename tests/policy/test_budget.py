"""What a tenant has spent today, and what follows when it is too much."""

from hypothesis import given
from hypothesis import strategies as st

from policy.budget import DAY_MS, Spending, day_ends_ms, is_spent, over_budget, spend
from policy.rules import TenantRules
from schemas.vocabulary import FailureCategory

NOON = 20_000 * DAY_MS + DAY_MS // 2
RULES = TenantRules(budget_usd_per_day=2.5)


@given(st.lists(st.tuples(st.floats(0, 10), st.integers(0, DAY_MS)), max_size=30))
def test_a_days_spending_is_that_of_its_calls(calls: list[tuple[float, int]]) -> None:
    """Those of earlier days do not count."""
    spending, now_ms, today_usd = Spending(), NOON, 0.0
    for usd, pause_ms in calls:
        if (now_ms + pause_ms) // DAY_MS > now_ms // DAY_MS:
            today_usd = 0.0
        now_ms += pause_ms
        today_usd += usd
        spending = spend(spending, usd, now_ms=now_ms)
        assert spending.on(now_ms) == today_usd


def test_it_is_spent_when_it_is_reached_and_not_before() -> None:
    """And at midnight in UTC it is there again."""
    spending = spend(Spending(), 2.49, now_ms=NOON)
    assert not is_spent(spending, RULES, now_ms=NOON)
    spending = spend(spending, 0.01, now_ms=NOON)
    assert is_spent(spending, RULES, now_ms=NOON)
    assert is_spent(spending, RULES, now_ms=day_ends_ms(NOON) - 1)
    assert not is_spent(spending, RULES, now_ms=day_ends_ms(NOON))


def test_no_budget_is_never_spent_and_one_of_nothing_always() -> None:
    """0 is a budget."""
    assert not is_spent(Spending(NOON // DAY_MS, 1e9), TenantRules(), now_ms=NOON)
    assert is_spent(Spending(), TenantRules(budget_usd_per_day=0), now_ms=NOON)


def test_a_clock_set_back_over_midnight_forgets_nothing() -> None:
    """What was spent on the later day is still there when it comes again."""
    midnight = day_ends_ms(NOON)
    spending = spend(spend(Spending(), 2, now_ms=midnight), 1, now_ms=midnight - 5)
    assert spending.on(midnight) == 3


def test_a_refusal_says_when_to_come_back() -> None:
    """In the words and in the number."""
    refusal = over_budget("acme", RULES, now_ms=NOON)
    assert refusal.category is FailureCategory.BUDGET_EXHAUSTED
    assert refusal.retry_after_seconds == 43_200
    assert "acme has spent its 2.5 US dollars" in refusal.message
    assert refusal.remedy is not None
    assert "2024-10-05T00:00Z" in refusal.remedy
