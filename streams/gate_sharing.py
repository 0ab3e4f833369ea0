"""What the parts of a gate have in common: who this process is, the store that is shared, and the store's clock."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field

import structlog

from connectors.state.base import StateUnavailableError
from connectors.state.shared_values import Change, ContendedError, SharedValues, T

log = structlog.get_logger(__name__)


class SharedClock:
    """The store's clock, as far as it is known here: by its last reply, and the time since."""

    def __init__(self, monotonic: Callable[[], float], wall: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._ahead_ms = (wall() - monotonic()) * 1000

    def now_ms(self) -> int:
        """Milliseconds since 1970; behind the store's by the way of its reply."""
        return int(self._monotonic() * 1000 + self._ahead_ms)

    def heard(self, store_ms: int) -> None:
        self._ahead_ms = store_ms - self._monotonic() * 1000


@dataclass(kw_only=True)
class Sharing:
    """One process's way to the values that all workers share.

    `is_away`: the store did not answer; each goes on with what it knows by itself until it does.
    """

    values: SharedValues
    process: str
    lane: str
    monotonic: Callable[[], float] = time.monotonic
    wall: Callable[[], float] = time.time
    is_away: bool = False
    clock: SharedClock = field(init=False)

    def __post_init__(self) -> None:
        self.clock = SharedClock(self.monotonic, self.wall)

    async def update(self, name: str, change: Change[T], *, ttl_seconds: float) -> T:
        """As `SharedValues.update`, and notes the store's clock, and whether it is there."""
        store_ms = 0

        def noting(old: bytes | None, now_ms: int) -> tuple[bytes | None, T]:
            nonlocal store_ms
            store_ms = now_ms
            return change(old, now_ms)

        try:
            reply = await self.values.update(name, noting, ttl_seconds=ttl_seconds)
        except ContendedError:
            raise
        except StateUnavailableError as error:
            if not self.is_away:
                log.warning("gate_is_alone", provider=self.lane, error=str(error))
            self.is_away = True
            raise
        self.clock.heard(store_ms)
        if self.is_away:
            log.info("gate_shares_again", provider=self.lane)
        self.is_away = False
        return reply
