"""Gates for tests: by a clock moved by hand on a store in memory, or running on a real Redis."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any
from uuid import uuid4

from pydantic import SecretStr

from connectors.settings import RedisSettings
from connectors.state.redis_shared_values import RedisSharedValues
from connectors.state.shared_values import Change, MemorySharedValues, SharedValues, T
from policy.catalogue import Catalogue, ProviderEntry
from policy.rules import BreakerRules, ProviderLimits, TenantRules
from schemas.vocabulary import FailureCategory
from streams.gate import SharedGate, SharedPermit
from streams.gating import CallOutcome, Flow

PATIENCE_SECONDS = 30
START_MS = 1_795_003_200_000  # noon in UTC
FLOW = Flow("tenant", "model")
ANSWERED = CallOutcome(tokens=100)
BROKEN = CallOutcome(failed_by=FailureCategory.SERVER_ERROR, speaks_of_provider=True)
REFUSED = CallOutcome(failed_by=FailureCategory.INVALID_REQUEST)


def catalogue(
    *,
    breaker: BreakerRules | None = None,
    limits: dict[str, Any] | None = None,
    tenants: dict[str, TenantRules] | None = None,
) -> Catalogue:
    """One provider, `p`, that serves every model."""
    entry = ProviderEntry(
        type="simulated",
        models=["model", "*"],
        breaker=breaker or BreakerRules(),
        limits=ProviderLimits.model_validate(limits or {}),
    )
    return Catalogue(providers={"p": entry}, tenants=tenants or {})


class CountingValues:
    """Counts the updates that go through it."""

    def __init__(self, values: SharedValues) -> None:
        self._values = values
        self.updates = 0

    async def update(self, name: str, change: Change[T], *, ttl_seconds: float) -> T:
        self.updates += 1
        return await self._values.update(name, change, ttl_seconds=ttl_seconds)


class Fleet:
    """Workers of one lane that share a store in memory. Nothing happens in the background: `tick` lets time pass."""

    def __init__(self, whole: Catalogue, size: int = 2) -> None:
        self.clock_ms = START_MS
        self.values = CountingValues(MemorySharedValues(lambda: self.clock_ms))
        self._catalogue = whole
        self.gates = [self.another() for _ in range(size)]

    def another(self) -> SharedGate:
        return SharedGate(
            "p",
            self._catalogue,
            self.values,
            worker="test",
            monotonic=lambda: self.clock_ms / 1000,
            wall=lambda: self.clock_ms / 1000,
        )

    async def sync(self) -> None:
        """Every gate tells and asks what is due; twice, for what the first asked may have been told by the second."""
        for gate in [*self.gates, *self.gates]:
            for due_in, share in (
                (gate._breakers.due_in, gate._share_breakers),
                (gate._budgets.due_in, gate._share_budgets),
                (gate._limits_due_in, gate._share_limits),
            ):
                if due_in() <= 0 and await share():
                    gate._fire()

    async def tick(self, milliseconds: int) -> None:
        self.clock_ms += milliseconds
        await self.sync()


@asynccontextmanager
async def running_gates(url: str, whole: Catalogue, size: int = 2, **redis: Any) -> AsyncIterator[list[SharedGate]]:
    """Workers of one lane, each with its own connections to one Redis."""
    namespace = f"gate-{uuid4().hex}"
    settings = RedisSettings(**{"timeout_seconds": 10, **redis})
    stores = [RedisSharedValues.from_settings(settings, SecretStr(url), namespace=namespace) for _ in range(size)]
    gates = [SharedGate("p", whole, store, worker=f"test-{number}") for number, store in enumerate(stores)]
    for gate in gates:
        await gate.start()
    try:
        yield gates
    finally:
        await asyncio.gather(*(gate.close() for gate in gates))
        for store in stores:
            await store.close()


async def until(condition: Callable[[], object]) -> None:
    """Waits for a condition that comes true by what runs in the background."""
    give_up_at = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < give_up_at, "it never came true"
        await asyncio.sleep(0.005)


async def entered(gate: SharedGate, flow: Flow = FLOW, *, tokens: int = 100) -> SharedPermit:
    """Waits as a dispatcher does, until a call may begin."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while True:
            permit = gate.try_enter(flow, estimated_tokens=tokens)
            if permit is not None:
                return permit
            await gate.changed()


def call(gate: SharedGate, outcome: CallOutcome | None = ANSWERED, flow: Flow = FLOW, *, tokens: int = 100) -> bool:
    """Enters and leaves at once. False: it was told to wait."""
    permit = gate.try_enter(flow, estimated_tokens=tokens)
    if permit is None:
        return False
    permit.leave(outcome)
    return True
