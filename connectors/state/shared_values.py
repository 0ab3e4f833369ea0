"""Small values that all workers share, changed by pure functions: breakers, limits, budgets.

The store knows nothing of what it holds. Who changes a value reads it, computes the new one by a function of
`policy`, and writes it if nobody wrote in between; else the function is asked again, with what stands there now.
"""

from collections.abc import Callable
from typing import Protocol, TypeVar

from connectors.state.base import StateUnavailableError

T = TypeVar("T")

Change = Callable[[bytes | None, int], tuple[bytes | None, T]]
"""From a value (None: there is none) and the store's clock (ms since 1970) to the new value, and a reply.

It may be called several times for one update: it has no effects of its own. None as new value deletes it.
"""


class ContendedError(StateUnavailableError):
    """Others kept writing the value in between. The store is there; the update was not made."""


class SharedValues(Protocol):
    """Values by name. A name may hold any character; braces are harmless."""

    async def update(self, name: str, change: Change[T], *, ttl_seconds: float) -> T:
        """Applies a change, and gives its reply. A value that stays as it was is not written.

        A value is forgotten `ttl_seconds` after it was last written. Raises `StateUnavailableError` when the store is
        away (the change may have been made or not), and `ContendedError` when too many write at the same time.
        Where a connection breaks during the write, and others write at the same moment, it may be made twice.
        """
        ...


class MemorySharedValues:
    """Implements `SharedValues` in memory of one process, by an injected clock."""

    def __init__(self, now_ms: Callable[[], int]) -> None:
        self._now_ms = now_ms
        self._values: dict[str, tuple[bytes, int]] = {}

    async def update(self, name: str, change: Change[T], *, ttl_seconds: float) -> T:
        now_ms = self._now_ms()
        held, expires_ms = self._values.get(name, (None, 0))
        old = held if expires_ms > now_ms else None
        new, reply = change(old, now_ms)
        if new is None:
            self._values.pop(name, None)
        elif new != old:
            self._values[name] = (new, now_ms + int(ttl_seconds * 1000))
        return reply
