"""Which providers are called at present, for intake: read from the shared state twice a second, not per request."""

import asyncio
from collections.abc import Iterable

import structlog

from connectors.state.base import StateUnavailableError
from connectors.state.shared_values import SharedValues
from policy.provider_state import KEPT_SECONDS, PROVIDER_STATE, WHOLE, ProviderState
from schemas.vocabulary import BreakerState

log = structlog.get_logger(__name__)

POLL_SECONDS = 0.5


class ProviderAvailability:
    """Knows the providers whose breaker is open. Without Redis it keeps to what it knew."""

    def __init__(self, values: SharedValues, providers: Iterable[str]) -> None:
        self._values = values
        self._providers = list(providers)
        self._unavailable: frozenset[str] = frozenset()
        self._task: asyncio.Task[None] | None = None

    def unavailable(self) -> frozenset[str]:
        return self._unavailable

    def start(self) -> None:
        self._task = asyncio.create_task(self._watch(), name="provider-availability")

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def _watch(self) -> None:
        while True:
            try:
                states = {name: await self._state(name) for name in self._providers}
                self._unavailable = frozenset(
                    name for name, state in states.items() if state.breaker(WHOLE).state is BreakerState.OPEN
                )
            except StateUnavailableError as error:
                log.debug("availability_unknown", error=str(error))
            except Exception:
                log.exception("availability_unknown")
            await asyncio.sleep(POLL_SECONDS)

    async def _state(self, provider: str) -> ProviderState:
        def reading(stored: bytes | None, _now_ms: int) -> tuple[bytes | None, ProviderState]:
            return stored, PROVIDER_STATE.unpacked(stored)

        return await self._values.update(f"provider:{provider}", reading, ttl_seconds=KEPT_SECONDS)
