"""Calls that a worker makes by claims of its own are on record where the next worker of the partition finds them.

While the shared state is away, nothing but Kafka can tell that a record was taken up, and a worker that dies then has
committed no offset for it. So before such a call its offset goes into the text that a commit may carry: as a bound,
below which records may have been called. It stays in every commit until the committed offset has reached it, or until
the shared state knows of all that this worker did alone.

Pure bookkeeping, of a consumer's whole assignment.
"""

from collections.abc import Hashable, Mapping
from typing import Generic, TypeVar

P = TypeVar("P", bound=Hashable)

OFFSETS_AT_ONCE = 100
"""A bound is a multiple of this, so that a hundred calls cost one commit. Those between may count as called for it."""
UNKNOWN = 2**62
"""The bound where Kafka told neither the text of the last commit nor where the partition ends."""
_PREFIX = "called-below="


class OwnCalls(Generic[P]):
    """Bounds by partition: those found at the assignment, those that commits carry, and those known to be in Kafka."""

    def __init__(self) -> None:
        self._found: dict[P, int] = {}
        self._carried: dict[P, int] = {}
        self._on_record: dict[P, int] = {}

    def assigned(self, texts: Mapping[P, str | None], ends: Mapping[P, int]) -> None:
        """These are the partitions of this worker from now on, with the texts of their last commits (None: unknown).

        `ends`: where they end now, as far as that is known. Nobody before can have called for what comes after.
        """
        bounds = {partition: UNKNOWN if text is None else bound_of(text) for partition, text in texts.items()}
        self._found = {partition: min(bound, ends.get(partition, UNKNOWN)) for partition, bound in bounds.items()}
        self.forget()

    def forget(self) -> None:
        """The shared state knows of this worker's own calls. Those of workers before it are passed on."""
        self._carried = dict(self._found)
        self._on_record = dict(self._found)

    def may_have_been_called(self, partition: P, offset: int) -> bool:
        """Whether a worker before may have called for this record by a claim of its own."""
        return offset < self._found.get(partition, 0)

    def is_on_record(self, partition: P, offset: int) -> bool:
        """Whether the next worker would take this record for one that may have been called."""
        return offset < self._on_record.get(partition, 0)

    def carry(self, partition: P, offset: int) -> int:
        """The bound that commits of this partition carry from now on, for a call of this record."""
        bound = (offset // OFFSETS_AT_ONCE + 1) * OFFSETS_AT_ONCE
        self._carried[partition] = max(bound, self._carried.get(partition, 0))
        return self._carried[partition]

    def recorded(self, partition: P, bound: int) -> None:
        """Kafka took a commit with this bound."""
        self._on_record[partition] = bound

    def text(self, partition: P, committed: int) -> str:
        """What a commit of offset `committed` carries."""
        bound = self._carried.get(partition, 0)
        return f"{_PREFIX}{bound}" if committed < bound else ""


def bound_of(text: str) -> int:
    """The bound in the text of a commit; 0 where another program has written it."""
    digits = text.removeprefix(_PREFIX)
    return int(digits) if digits != text and digits.isascii() and digits.isdigit() and len(digits) < 20 else 0
