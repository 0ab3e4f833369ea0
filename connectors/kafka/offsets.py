"""Which offset may be committed: pure bookkeeping, one `OffsetLedger` for a consumer's whole assignment.

Records finish out of order. What may be committed of a partition is the first offset still in flight, or the one
after the last that was delivered when none is. Stock Faust decides otherwise and loses records (their issue 606).
"""

from collections.abc import Hashable, Iterable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

P = TypeVar("P", bound=Hashable)


@dataclass(slots=True)
class _Partition:
    in_flight: dict[int, object] = field(default_factory=dict)  # offset to token, in order of delivery
    next_offset: int = 0
    committed: int | None = None


class OffsetLedger(Generic[P]):
    """Deliveries and acknowledgements by partition.

    A delivery carries a token (the message object itself), and only the same token acknowledges it: after a
    rebalance the same offset may be delivered again, and an acknowledgement of the older delivery says nothing.
    """

    def __init__(self) -> None:
        self._partitions: dict[P, _Partition] = {}

    def delivered(self, partition: P, offset: int, token: object) -> None:
        """A record was handed out. Offsets of a partition come in ascending order, with gaps where compacted."""
        entry = self._partitions.setdefault(partition, _Partition())
        entry.in_flight[offset] = token
        entry.next_offset = max(entry.next_offset, offset + 1)

    def acknowledged(self, partition: P, offset: int, token: object) -> bool:
        """All that the record caused is safe. False: it is not this delivery that is in flight."""
        entry = self._partitions.get(partition)
        if entry is None or entry.in_flight.get(offset) is not token:
            return False
        del entry.in_flight[offset]
        return True

    def position(self, partition: P) -> int | None:
        """The first offset in flight, or the next one when none is. None: nothing was delivered of this partition."""
        entry = self._partitions.get(partition)
        return None if entry is None else next(iter(entry.in_flight), entry.next_offset)

    def unfinished(self, partition: P, end: int) -> int | None:
        """Records before `end` that are not acknowledged. None: nothing was delivered of this partition."""
        entry = self._partitions.get(partition)
        return None if entry is None else len(entry.in_flight) + max(0, end - entry.next_offset)

    def committable(self, partitions: Iterable[P] | None = None) -> dict[P, int]:
        """What should be committed now: offsets that moved on since the last successful commit."""
        chosen = self._partitions if partitions is None else partitions
        offsets = {}
        for partition in chosen:
            entry = self._partitions.get(partition)
            if entry is None:
                continue
            offset = self.position(partition)
            if offset is not None and offset != entry.committed:
                offsets[partition] = offset
        return offsets

    def committed(self, offsets: dict[P, int]) -> None:
        """Kafka took this commit."""
        for partition, offset in offsets.items():
            entry = self._partitions.get(partition)
            if entry is not None:
                entry.committed = offset

    def forget(self, partitions: Iterable[P]) -> None:
        """The partitions were taken away. Acknowledgements that come later count for nothing."""
        for partition in partitions:
            self._partitions.pop(partition, None)

    def in_flight(self) -> int:
        """Records delivered and not acknowledged."""
        return sum(len(entry.in_flight) for entry in self._partitions.values())
