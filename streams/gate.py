"""The gate of a lane: breaker, limits and budgets, shared with all other workers through `SharedValues`.

    try_enter: budget of the tenant -> breaker of the provider or model -> limits of tenant, model, provider

Entering asks nobody: it goes by what this process has leased and what it last heard. Three tasks behind it keep that
fresh, each at its own pace: breakers (and times at which the provider asked to be left alone), limits, budgets. While
the store is away each of them goes on with what is known here, and shares again when the store is back.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from math import inf
from uuid import uuid4

import structlog

from connectors import metrics
from connectors.state.base import StateUnavailableError
from connectors.state.shared_values import ContendedError, SharedValues
from policy.breaker import Breaker
from policy.budget import day_ends_ms, over_budget
from policy.catalogue import Catalogue
from policy.provider_state import WHOLE
from policy.rules import LimitRules
from schemas.attempt import Problem
from schemas.vocabulary import BreakerState, FailureCategory
from streams.gate_breaker import BreakerChange, BreakerWatch, Pass
from streams.gate_budget import BudgetWatch
from streams.gate_limits import COME_BACK_SECONDS, LimitShare
from streams.gate_portions import Amount
from streams.gate_sharing import Sharing
from streams.gating import CallOutcome, Flow

log = structlog.get_logger(__name__)

AFTER_ERROR_SECONDS = 0.5
SHORTEST_ALARM_SECONDS = 0.005
CLOSE_SECONDS = 1.0

_NUMBER = {BreakerState.CLOSED: 0, BreakerState.HALF_OPEN: 1, BreakerState.OPEN: 2}


@dataclass(frozen=True, kw_only=True, slots=True)
class GateSnapshot:
    """For reports: the breaker that is the least closed, and whether the store is away."""

    state: BreakerState
    model: str = WHOLE
    since: datetime | None = None
    retry_at: datetime | None = None
    reason: FailureCategory | None = None
    is_alone: bool = False


@dataclass(slots=True)
class SharedPermit:
    """Implements `gating.Permit`. With a `refusal` no call may be made: the request ends with it."""

    flow: Flow
    refusal: Problem | None = None
    way: Pass | None = None
    reserved: list[tuple[LimitShare, Amount]] = field(default_factory=list)
    on_leave: Callable[["SharedPermit", CallOutcome | None], None] | None = None

    def leave(self, outcome: CallOutcome | None) -> None:
        on_leave, self.on_leave = self.on_leave, None
        if on_leave is not None:
            on_leave(self, outcome)


class SharedGate:
    """Implements `gating.Gate` for one worker process of a provider's lane. `worker` names the process in Redis."""

    def __init__(
        self,
        provider: str,
        catalogue: Catalogue,
        values: SharedValues,
        *,
        worker: str,
        monotonic: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        entry = catalogue.providers[provider]
        self._provider = provider
        self._catalogue = catalogue
        self._limits = entry.limits
        # A process that comes back under its old name is another one: it holds nothing.
        process = f"{worker}:{uuid4().hex[:8]}"
        self._sharing = Sharing(values=values, process=process, lane=provider, monotonic=monotonic, wall=wall)
        self._breakers_wake, self._budgets_wake, self._limits_wake = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self._breakers = BreakerWatch(self._sharing, entry.breaker, wake=self._breakers_wake.set)
        self._budgets = BudgetWatch(self._sharing, catalogue.tenant, wake=self._budgets_wake.set)
        self._shares: dict[str, LimitShare] = {}
        self._changed = asyncio.Event()
        self._alarm: asyncio.TimerHandle | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self.on_breaker_change(self._measure)
        metrics.breaker_state.labels(provider, WHOLE).set(_NUMBER[BreakerState.CLOSED])

    def on_breaker_change(self, callback: Callable[[BreakerChange], None]) -> None:
        """Called in the event loop, for each change that this process hears of, its own included."""
        self._breakers.on_change.append(callback)

    async def start(self) -> None:
        """Returns when what the others know is known here, or the store has not answered."""
        await self._share_breakers()
        loops = (
            ("breakers", self._breakers_wake, self._breakers.due_in, self._share_breakers),
            ("budgets", self._budgets_wake, self._budgets.due_in, self._share_budgets),
            ("limits", self._limits_wake, self._limits_due_in, self._share_limits),
        )
        self._tasks = [asyncio.create_task(self._forever(*loop), name=f"gate-{loop[0]}") for loop in loops]

    async def close(self) -> None:
        """Tells what is not told yet, and gives back what is not used; but does not wait long for it."""
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        if self._alarm is not None:
            self._alarm.cancel()
        with suppress(StateUnavailableError, TimeoutError):
            async with asyncio.timeout(CLOSE_SECONDS):
                if not self._sharing.is_away:
                    self._breakers.give_up_probes()
                    await self._breakers.sync()
                    await self._budgets.sync()
                    await asyncio.gather(*(share.give_up() for share in self._shares.values()))

    def try_enter(self, flow: Flow, *, estimated_tokens: int) -> SharedPermit | None:
        """A permit, or None: not now. Asks nobody."""
        may_spend = self._budgets.may_spend(flow.tenant_id)
        if not may_spend:
            return self._without_money(flow, is_known=may_spend is not None)
        blocked_until_ms = self._breakers.blocked_until_ms(flow.model)
        if blocked_until_ms > self._sharing.clock.now_ms():
            self._ring_at(blocked_until_ms)
            self._count("retry_after")
            return None
        way = self._breakers.look(flow.model)
        if way is None:
            self._count("breaker")
            return None
        shares = self._shares_of(flow)
        for share in shares:
            lack = share.lack(flow, estimated_tokens)
            if lack is not None:
                # The limits after this one are asked for when this one has room: what is leased is not leased in vain.
                share.turn_away(flow, lack, estimated_tokens)
                self._limits_wake.set()
                self._count(lack)
                return None
        self._breakers.enter(way)
        reserved = [(share, share.take(flow, estimated_tokens)) for share in shares]
        return SharedPermit(flow, way=way, reserved=reserved, on_leave=self._left)

    async def changed(self) -> None:
        """Returns when a flow that was turned away may be let in, also if that happened since this last returned."""
        await self._changed.wait()
        self._changed.clear()

    def snapshot(self) -> GateSnapshot:
        """As far as this process knows."""
        breakers = self._breakers.known.breakers
        model = max(breakers, key=lambda name: _NUMBER[breakers[name].state], default=WHOLE)
        breaker = breakers.get(model, Breaker())
        return GateSnapshot(
            state=breaker.state,
            model=model,
            since=_moment(breaker.since_ms),
            retry_at=_moment(breaker.retry_at_ms),
            reason=breaker.reason,
            is_alone=self._sharing.is_away,
        )

    def _without_money(self, flow: Flow, *, is_known: bool) -> SharedPermit | None:
        if is_known:
            rules, now_ms = self._catalogue.tenant(flow.tenant_id), self._sharing.clock.now_ms()
            if rules.at_limit == "reject":
                return SharedPermit(flow, refusal=over_budget(flow.tenant_id, rules, now_ms=now_ms))
            self._ring_at(day_ends_ms(now_ms))
        self._count("budget")
        return None

    def _count(self, reason: str) -> None:
        metrics.gate_waits.labels(self._provider, reason).inc()

    def _left(self, permit: SharedPermit, outcome: CallOutcome | None) -> None:
        if permit.way is not None:
            self._breakers.leave(permit.way, outcome)
        if outcome is not None:
            self._budgets.add(permit.flow.tenant_id, outcome.cost_usd or 0.0)
        for share, reserved in permit.reserved:
            share.leave(reserved, was_called=outcome is not None, tokens_used=outcome.tokens if outcome else None)
        if not permit.reserved:
            return
        if outcome is not None and outcome.limits:
            # A provider's own limits are those of the model, where we count it by itself.
            of_provider = [share for share, _ in permit.reserved if share.is_told_by_provider]
            for share in of_provider[:1]:
                share.told(outcome.limits)
        self._limits_wake.set()
        if any(share.waits_for_slots for share, _ in permit.reserved):
            self._fire()

    def _shares_of(self, flow: Flow) -> list[LimitShare]:
        """The narrowest first: many share the widest, and nobody should hold some of it while waiting for another."""
        shares = []
        of_tenant = self._limits.of_tenant(flow.tenant_id)
        if of_tenant is not None and not of_tenant.is_empty:
            name = f"{self._provider}:tenant:{flow.tenant_id}"
            shares.append(self._share(name, of_tenant, is_told_by_provider=False))
        of_model = self._limits.of_model(flow.model)
        if of_model is not None and not of_model[1].is_empty:
            shares.append(self._share(f"{self._provider}:model:{of_model[0]}", of_model[1]))
        if not self._limits.is_empty:
            shares.append(self._share(self._provider, self._limits))
        return shares

    def _share(self, name: str, rules: LimitRules, *, is_told_by_provider: bool = True) -> LimitShare:
        share = self._shares.get(name)
        if share is None:
            share = LimitShare(self._sharing, name, rules, is_told_by_provider=is_told_by_provider)
            self._shares[name] = share
        return share

    def _ring_at(self, at_ms: int) -> None:
        """Lets those who were turned away ask again at that time, or before."""
        loop = asyncio.get_running_loop()
        delay_seconds = (at_ms - self._sharing.clock.now_ms()) / 1000
        at = loop.time() + max(SHORTEST_ALARM_SECONDS, delay_seconds)
        if self._alarm is not None:
            if self._alarm.when() <= at:
                return
            self._alarm.cancel()
        self._alarm = loop.call_at(at, self._ring)

    def _ring(self) -> None:
        self._alarm = None
        self._fire()

    def _fire(self) -> None:
        are_awaited = [share.everybody_asks_again() for share in self._shares.values()]
        if any(are_awaited):
            self._ring_at(self._sharing.clock.now_ms() + int(COME_BACK_SECONDS * 1000) + 1)
        self._changed.set()

    async def _forever(
        self, name: str, wake: asyncio.Event, due_in: Callable[[], float], share: Callable[[], Awaitable[bool]]
    ) -> None:
        while True:
            try:
                wake.clear()
                seconds = due_in()
                if seconds > 0:
                    with suppress(TimeoutError):
                        async with asyncio.timeout(None if seconds == inf else seconds):
                            await wake.wait()
                elif await share():
                    self._fire()
            except Exception:
                log.exception("gate_error", provider=self._provider, part=name)
                await asyncio.sleep(AFTER_ERROR_SECONDS)

    async def _share_breakers(self) -> bool:
        try:
            return await self._breakers.sync()
        except ContendedError:
            return False
        except StateUnavailableError:
            return self._breakers.go_on_alone()

    async def _share_budgets(self) -> bool:
        try:
            return await self._budgets.sync()
        except StateUnavailableError:
            return True

    def _limits_due_in(self) -> float:
        return min((share.due_in() for share in self._shares.values()), default=inf)

    async def _share_limits(self) -> bool:
        self._shares = {name: share for name, share in self._shares.items() if not share.is_idle}
        due = [share for share in self._shares.values() if share.due_in() <= 0]
        return any(await asyncio.gather(*(self._ask(share) for share in due)))

    async def _ask(self, share: LimitShare) -> bool:
        if self._sharing.is_away:
            return share.ask_alone()
        try:
            return await share.ask()
        except ContendedError:
            return False
        except StateUnavailableError:
            return share.ask_alone()

    def _measure(self, change: BreakerChange) -> None:
        log.warning(
            "breaker_changed",
            provider=change.provider,
            model=change.model or None,
            state=change.new.state,
            before=change.old,
            reason=change.new.reason,
            decided_here=change.decided_here,
        )
        metrics.breaker_state.labels(change.provider, change.model).set(_NUMBER[change.new.state])
        metrics.breaker_transitions.labels(change.provider, change.new.state).inc()


def _moment(ms: int) -> datetime | None:
    return datetime.fromtimestamp(ms / 1000, UTC) if ms else None
