"""What happened last, in the order in which the bridge read it from Kafka: what a client that comes back has missed.

One log for all clients, bounded in bytes. Of each partition it holds everything from some offset on (its floor), so
that for a position it can say either exactly what came after it, or that it does not reach back so far. Pure.
"""

from bisect import bisect_left
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from websocket_bridge.frames import Body, DeltaRun, Status, Summary
from websocket_bridge.position import Place
from websocket_bridge.subjects import Subject

OVERHEAD_BYTES = 900
"""What an entry costs beside its text, roughly: itself, the body, its identity, and its places in the index."""


class Spot(NamedTuple):
    """Where a record is in Kafka."""

    place: Place
    offset: int


@dataclass(frozen=True, slots=True)
class Entry:
    """Something that happened. `number` grows in the order of reading."""

    number: int
    spot: Spot
    body: Body
    subjects: tuple[Subject, ...]
    size_bytes: int


class _Track:
    """Offsets and numbers of one partition's entries, both ascending. The head is cut off now and then."""

    __slots__ = ("_begin", "_numbers", "_offsets")

    def __init__(self) -> None:
        self._offsets: list[int] = []
        self._numbers: list[int] = []
        self._begin = 0

    def append(self, offset: int, number: int) -> None:
        self._offsets.append(offset)
        self._numbers.append(number)

    def prepend(self, offsets: list[int], numbers: list[int]) -> None:
        self._offsets[: self._begin] = offsets
        self._numbers[: self._begin] = numbers
        self._begin = 0

    def drop_first(self) -> None:
        self._begin += 1
        if self._begin > 1_000 and self._begin * 2 > len(self._offsets):
            del self._offsets[: self._begin], self._numbers[: self._begin]
            self._begin = 0

    def first_number_from(self, offset: int) -> int | None:
        at = bisect_left(self._offsets, offset, lo=self._begin)
        return self._numbers[at] if at < len(self._numbers) else None


class Recent:
    """The log. `begin` it with the offsets that are read from."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._floors: dict[Place, int] = {}
        self._entries: deque[Entry] = deque()
        self._tracks: dict[Place, _Track] = {}
        self._by_subject: dict[Subject, deque[Entry]] = {}
        self._next_number = 0
        self._size_bytes = 0

    @property
    def size_bytes(self) -> int:
        return self._size_bytes

    @property
    def floors(self) -> Mapping[Place, int]:
        """By partition, the offset from which on everything is held."""
        return self._floors

    def begin(self, offsets: Mapping[Place, int]) -> None:
        """Partitions that are read from now on, each from this offset. Those that are known already go on."""
        for place, offset in offsets.items():
            self._floors.setdefault(place, offset)
            self._tracks.setdefault(place, _Track())

    def clear(self) -> None:
        """Nothing of it is true any more."""
        for held in (self._floors, self._entries, self._tracks, self._by_subject):
            held.clear()
        self._size_bytes = 0

    def skip_to(self, place: Place, offset: int) -> None:
        """Records before `offset` could not be read: what came before is no more of use."""
        self._floors[place] = max(offset, self._floors.get(place, 0))

    def append(self, spot: Spot, body: Body, subjects: tuple[Subject, ...]) -> None:
        entry = Entry(self._next_number, spot, body, subjects, _size_of(body))
        self._next_number += 1
        self._entries.append(entry)
        self._tracks.setdefault(spot.place, _Track()).append(spot.offset, entry.number)
        for subject in subjects:
            held = self._by_subject.get(subject)
            if held is None:
                held = self._by_subject[subject] = deque()
            held.append(entry)
        self._size_bytes += entry.size_bytes
        while self._size_bytes > self._max_bytes:
            self._drop_first()

    def has_room_for(self, size_bytes: int) -> bool:
        return self._size_bytes + size_bytes <= self._max_bytes

    def prepend(self, floors: Mapping[Place, int], older: Iterable[tuple[Spot, Body, tuple[Subject, ...]]]) -> bool:
        """Adds what was read back: everything from `floors` to the present floors, oldest first. False, and nothing
        is added, where it does not fit."""
        added = list(older)
        size_bytes = sum(_size_of(body) for _, body, _ in added)
        if not self.has_room_for(size_bytes):
            return False
        first_number = (self._entries[0].number if self._entries else self._next_number) - len(added)
        entries = [
            Entry(first_number + i, spot, body, subjects, _size_of(body))
            for i, (spot, body, subjects) in enumerate(added)
        ]
        by_place: dict[Place, tuple[list[int], list[int]]] = {}
        for entry in entries:
            offsets, numbers = by_place.setdefault(entry.spot.place, ([], []))
            offsets.append(entry.spot.offset)
            numbers.append(entry.number)
        for place, (offsets, numbers) in by_place.items():
            self._tracks.setdefault(place, _Track()).prepend(offsets, numbers)
        for entry in reversed(entries):
            self._entries.appendleft(entry)
            for subject in entry.subjects:
                self._by_subject.setdefault(subject, deque()).appendleft(entry)
        self._size_bytes += size_bytes
        self._floors.update(floors)
        return True

    def reaches(self, offsets: Mapping[Place, int], topics: frozenset[int]) -> bool:
        """Whether everything from these offsets on is held, as far as these topics go."""
        return all(offsets.get(place, 0) >= floor for place, floor in self._floors.items() if place[0] in topics)

    def since(self, offsets: Mapping[Place, int], subjects: Iterable[Subject]) -> list[Entry]:
        """What happened to these subjects from these offsets on, in order, each once."""
        firsts = [track.first_number_from(offsets.get(place, 0)) for place, track in self._tracks.items()]
        begin = min((number for number in firsts if number is not None), default=None)
        if begin is None:
            return []
        found: dict[int, Entry] = {}
        for subject in subjects:
            for entry in reversed(self._by_subject.get(subject, ())):
                if entry.number < begin:
                    break
                if entry.spot.offset >= offsets.get(entry.spot.place, 0):
                    found[entry.number] = entry
        return [found[number] for number in sorted(found)]

    def _drop_first(self) -> None:
        entry = self._entries.popleft()
        self._size_bytes -= entry.size_bytes
        self._floors[entry.spot.place] = entry.spot.offset + 1
        self._tracks[entry.spot.place].drop_first()
        for subject in entry.subjects:
            held = self._by_subject[subject]
            held.popleft()
            if not held:
                del self._by_subject[subject]


def _size_of(body: Body) -> int:
    match body:
        case Status():
            return len(body.event_json) + OVERHEAD_BYTES
        case Summary():
            return len(body.result_json) + OVERHEAD_BYTES
        case DeltaRun():
            return len(body.text) + OVERHEAD_BYTES
        case _:
            return OVERHEAD_BYTES
