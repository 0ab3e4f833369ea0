"""About where a queued request stands in its lane. Pure.

Nobody knows exactly: a lane has many partitions, priorities and workers. The bridge knows the order in which requests
were queued, as far as it remembers them, and the lane's backlog; where the backlog is larger, the rest is older and so
before all of them.
"""

from collections.abc import Iterable
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
        self._lanes: dict[str, Lane] = {}
        """As last reported."""
        self._before: dict[str, dict[str, int | None]] = {}
        """Of each lane the queued requests, each with how many were before it at the last report."""
        self._told: dict[str, QueuePlace] = {}
        self._count = 0

    def apply(self, previous: Status | None, status: Status) -> None:
        if previous is not None and previous.state is State.QUEUED and previous.provider is not None:
            self._remove(previous.provider, previous.who.request_id)
        if status.state is State.QUEUED and status.provider is not None:
            lane = self._before.setdefault(status.provider, {})
            if self._count >= self._capacity and lane:
                self._remove(status.provider, next(iter(lane)))
            if self._count < self._capacity:
                lane[status.who.request_id] = None
                self._count += 1

    def refresh(self, lane: Lane, followed: Iterable[str]) -> list[QueuePlace]:
        """Reckons anew after a lane's report. Returns the places of followed requests that are others now."""
        self._lanes[lane.provider] = lane
        before = self._before.get(lane.provider, {})
        # What is in flight is PROCESSING for us already, or will be in a moment.
        unknown_before = max(0, lane.backlog - lane.in_flight - len(before))
        for rank, request_id in enumerate(before):
            before[request_id] = unknown_before + rank
        changed = []
        for request_id in followed:
            place = self._place(lane.provider, request_id)
            if place is not None and place != self._told.get(request_id):
                self._told[request_id] = place
                changed.append(place)
        return changed

    def get(self, status: Status) -> QueuePlace | None:
        """Where a request stood at the last report, or None for one that is not queued, or not known."""
        return self._place(status.provider or "", status.who.request_id)

    def _place(self, provider: str, request_id: str) -> QueuePlace | None:
        lane, before = self._lanes.get(provider), self._before.get(provider, {}).get(request_id)
        if lane is None or before is None:
            return None
        return QueuePlace(request_id, provider, before + 1, about_wait_ms(lane, before))

    def _remove(self, provider: str, request_id: str) -> None:
        lane = self._before.get(provider, {})
        if request_id in lane:
            del lane[request_id]
            self._told.pop(request_id, None)
            self._count -= 1
