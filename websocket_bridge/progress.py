"""How far the bridge is behind Kafka. Pure: the clock is an argument.

Now and then the ends of all partitions are looked up. Once reading has passed them, the bridge shows all that Kafka
held at that moment; until then it is behind by at least the time since.
"""

from collections.abc import Hashable, Mapping
from typing import Generic, TypeVar

P = TypeVar("P", bound=Hashable)


class Progress(Generic[P]):
    """Positions against the ends last aimed at."""

    def __init__(self, positions: Mapping[P, int]) -> None:
        self._positions = dict(positions)
        self._missing: dict[P, int] = {}
        self._aimed_at_seconds: float | None = None

    @property
    def positions(self) -> Mapping[P, int]:
        """The next offset to read, by partition."""
        return self._positions

    @property
    def missing(self) -> tuple[P, ...]:
        """The partitions whose end is not reached."""
        return tuple(self._missing)

    @property
    def is_caught_up(self) -> bool:
        return self._aimed_at_seconds is not None and not self._missing

    def aim(self, ends: Mapping[P, int], *, now_seconds: float) -> None:
        """New ends to reach. Ends not reached yet stay the aim, so that a steady lag cannot look like none."""
        if self._missing:
            return
        self._missing = {part: end for part, end in ends.items() if self._positions.get(part, 0) < end}
        self._aimed_at_seconds = now_seconds

    def advance(self, partition: P, next_offset: int) -> None:
        self._positions[partition] = next_offset
        end = self._missing.get(partition)
        if end is not None and next_offset >= end:
            del self._missing[partition]

    def lag_seconds(self, *, now_seconds: float) -> float:
        if not self._missing or self._aimed_at_seconds is None:
            return 0.0
        return max(0.0, now_seconds - self._aimed_at_seconds)
