"""About where a queued request stands in its lane. Pure.

Nobody knows exactly: a lane has many partitions, priorities and workers. The bridge knows the order in which requests
were queued, as far as it remembers them, and the lane's backlog; where the backlog is larger, the rest is older and so
before all of them.
"""

from dataclasses import dataclass

from schemas.vocabulary import State
from websocket_bridge.frames import Status
from websocket_bridge.lanes import about_wait_ms
from websocket_bridge.messages import Lane


@dataclass(frozen=True, slots=True)
class QueuePlace:
    """About the place in the queue (1: next) and the wait."""

    request_id: str
    provider: str
    about_position: int
    about_wait_ms: float | None


class QueuePlaces:
    """The queued requests of each lane, oldest first; at most `capacity` in all, the oldest of a lane are forgotten."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._queued: dict[str, dict[str, QueuePlace | None]] = {}
        self._count = 0

    def apply(self, previous: Status | None, status: Status) -> None:
        if previous is not None and previous.state is State.QUEUED:
            self._leave(previous)
        if status.state is State.QUEUED and status.provider is not None:
            lane = self._queued.setdefault(status.provider, {})
            if self._count >= self._capacity and lane:
                del lane[next(iter(lane))]
                self._count -= 1
            if self._count < self._capacity:
                lane[status.who.request_id] = None
                self._count += 1

    def refresh(self, lane: Lane) -> list[QueuePlace]:
        """Reckons anew after a lane's report. Returns the places that are others now."""
        queued = self._queued.get(lane.provider, {})
        # What is in flight is PROCESSING for us already, or will be in a moment.
        unknown_before = max(0, lane.backlog - lane.in_flight - len(queued))
        changed = []
        for rank, (request_id, known) in enumerate(queued.items()):
            before = unknown_before + rank
            place = QueuePlace(request_id, lane.provider, before + 1, about_wait_ms(lane, before))
            if place != known:
                changed.append(place)
        for place in changed:
            queued[place.request_id] = place
        return changed

    def get(self, status: Status) -> QueuePlace | None:
        """Where a request stood at the last report, or None for one that is not queued, or not known."""
        return self._queued.get(status.provider or "", {}).get(status.who.request_id)

    def _leave(self, status: Status) -> None:
        lane = self._queued.get(status.provider or "", {})
        if status.who.request_id in lane:
            del lane[status.who.request_id]
            self._count -= 1
