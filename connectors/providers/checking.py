"""Whether a provider can be reached and takes our key, found out by a request that costs nothing."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from policy.failures import problem
from schemas.attempt import Problem
from schemas.vocabulary import FailureCategory

if TYPE_CHECKING:
    from connectors.providers.base import Provider


@dataclass(frozen=True, kw_only=True, slots=True)
class Reached:
    """It answered. `models`: those that it says it has; None: it did not say."""

    models: tuple[str, ...] | None = None


@runtime_checkable
class Checkable(Protocol):
    """A provider that can be asked. One that cannot is known only by calling it."""

    async def check(self, *, timeout_seconds: float) -> Reached | Problem: ...


async def check(provider: Provider, *, timeout_seconds: float) -> Reached | Problem:
    """Asks a provider, and waits no longer for it than this. One that cannot be asked counts as reached."""
    if not isinstance(provider, Checkable):
        return Reached()
    try:
        async with asyncio.timeout(timeout_seconds):
            return await provider.check(timeout_seconds=timeout_seconds)
    except TimeoutError:
        return problem(FailureCategory.TIMEOUT_TOTAL, f"no answer within {timeout_seconds:g} s")
