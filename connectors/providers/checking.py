"""Whether a provider can be reached and takes our key, found out by a request that costs nothing."""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from schemas.attempt import Problem


@dataclass(frozen=True, kw_only=True, slots=True)
class Reached:
    """It answered. `models`: those that it says it has; None: it did not say."""

    models: tuple[str, ...] | None = None


@runtime_checkable
class Checkable(Protocol):
    """A provider that can be asked. One that cannot is known only by calling it."""

    async def check(self, *, timeout_seconds: float) -> Reached | Problem: ...
