"""One process's part in the budgets of tenants: adds what its calls cost, and knows what was spent by all."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

from connectors.state.shared_values import ContendedError
from policy.budget import DAY_MS, KEPT_SECONDS, SPENDING, Spending, is_spent, spend
from policy.rules import TenantRules
from streams.gate_sharing import Sharing

SYNC_SECONDS = 0.5
FORGOTTEN_AFTER_SECONDS = 60.0
UPDATES_AT_ONCE = 16


@dataclass(slots=True)
class _Purse:
    """What is known of one tenant's day. `unknown`: nobody was asked yet."""

    rules: TenantRules
    seen_at: float
    spent: Spending = field(default_factory=Spending)
    added_usd: float = 0.0
    added_on: int = 0
    asked_at: float | None = None


class BudgetWatch:
    """Budgets of the tenants that were seen lately."""

    def __init__(self, sharing: Sharing, rules_of: Callable[[str], TenantRules], *, wake: Callable[[], None]) -> None:
        self._sharing = sharing
        self._rules_of = rules_of
        self._wake = wake
        self._purses: dict[str, _Purse] = {}

    def may_spend(self, tenant_id: str) -> bool | None:
        """Whether a call may begin that costs money. None: that is not known yet, and is being asked."""
        purse = self._purse(tenant_id)
        if purse is None:
            return True
        if purse.asked_at is None and not self._sharing.is_away:
            self._wake()
            return None
        now_ms = self._sharing.clock.now_ms()
        return not is_spent(self._with_added(purse), purse.rules, now_ms=now_ms)

    def add(self, tenant_id: str, usd: float) -> None:
        """After a call."""
        purse = self._purse(tenant_id)
        if purse is None or usd <= 0:
            return
        now_ms = self._sharing.clock.now_ms()
        if purse.added_on != now_ms // DAY_MS:
            purse.added_usd, purse.added_on = 0.0, now_ms // DAY_MS
        purse.added_usd += usd

    def due_in(self) -> float:
        """Seconds until the others should be asked or told. While the store is away they are not."""
        if self._sharing.is_away:
            return SYNC_SECONDS
        now = self._sharing.monotonic()
        asked = [purse.asked_at for purse in self._purses.values()]
        if None in asked:
            return 0.0
        return max(0.0, min((at for at in asked if at is not None), default=now) + SYNC_SECONDS - now)

    async def sync(self) -> bool:
        """Tells what was spent, and asks what the others spent. True: a flow that was turned away may be let in."""
        now = self._sharing.monotonic()
        self._purses = {
            tenant: purse
            for tenant, purse in self._purses.items()
            if purse.added_usd or now - purse.seen_at < FORGOTTEN_AFTER_SECONDS
        }
        slots = asyncio.Semaphore(UPDATES_AT_ONCE)

        async def one(tenant: str, purse: _Purse) -> bool:
            async with slots:
                return await self._sync_one(tenant, purse)

        results = await asyncio.gather(
            *(one(tenant, purse) for tenant, purse in self._purses.items()), return_exceptions=True
        )
        for result in results:
            if isinstance(result, BaseException) and not isinstance(result, ContendedError):
                raise result
        return any(result is True for result in results)

    async def _sync_one(self, tenant: str, purse: _Purse) -> bool:
        first, purse.asked_at = purse.asked_at is None, self._sharing.monotonic()
        adding, purse.added_usd = purse.added_usd, 0.0

        def change(old: bytes | None, now_ms: int) -> tuple[bytes | None, Spending]:
            spent = SPENDING.unpacked(old)
            after = spend(spent, adding, now_ms=now_ms)
            return (SPENDING.packed(after) if adding else old), after

        was_spent = is_spent(purse.spent, purse.rules, now_ms=self._sharing.clock.now_ms())
        try:
            purse.spent = await self._sharing.update(f"budget:{tenant}", change, ttl_seconds=KEPT_SECONDS)
        except BaseException:
            purse.added_usd += adding
            raise
        is_left = not is_spent(purse.spent, purse.rules, now_ms=self._sharing.clock.now_ms())
        return first or (was_spent and is_left)

    def _purse(self, tenant_id: str) -> _Purse | None:
        now = self._sharing.monotonic()
        purse = self._purses.get(tenant_id)
        if purse is None:
            rules = self._rules_of(tenant_id)
            if rules.budget_usd_per_day is None:
                return None
            purse = self._purses[tenant_id] = _Purse(rules, now)
        purse.seen_at = now
        return purse

    def _with_added(self, purse: _Purse) -> Spending:
        return (
            spend(purse.spent, purse.added_usd, now_ms=self._sharing.clock.now_ms()) if purse.added_usd else purse.spent
        )
