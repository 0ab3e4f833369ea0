"""When admission closes and reopens, in requests and bytes."""

from dataclasses import dataclass
from functools import lru_cache
from typing import Self

from connectors.state.base import Limits


@dataclass(frozen=True, kw_only=True, slots=True)
class Watermarks:
    """Limits as absolute numbers. `lua/admit.lua` decides by the same rule."""

    close_requests: float
    reopen_requests: float
    close_bytes: float
    reopen_bytes: float

    @classmethod
    @lru_cache(maxsize=16)
    def of(cls, limits: Limits, *, shards: int = 1) -> Self:
        """The part of the limits that falls to one of `shards`. Ids spread evenly, so each shard fills alike."""
        return cls(
            close_requests=limits.high_watermark * limits.max_requests / shards,
            reopen_requests=limits.low_watermark * limits.max_requests / shards,
            close_bytes=limits.high_watermark * limits.max_bytes / shards,
            reopen_bytes=limits.low_watermark * limits.max_bytes / shards,
        )

    def closed(self, *, was_closed: bool, requests: int, size_bytes: int) -> bool:
        """Whether admission is closed at this load. Between the marks it stays as it was."""
        if requests >= self.close_requests or size_bytes >= self.close_bytes:
            return True
        if requests <= self.reopen_requests and size_bytes <= self.reopen_bytes:
            return False
        return was_closed
