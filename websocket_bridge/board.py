"""The newest status of each request, bounded. Pure."""

from collections import OrderedDict
from collections.abc import Mapping

from schemas.status import StatusEvent
from schemas.vocabulary import State
from websocket_bridge.frames import Status


class Board:
    """What the bridge knows. Beyond `capacity`, the request that changed longest ago is forgotten."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._newest: OrderedDict[str, Status] = OrderedDict()
        self._counts = dict.fromkeys(State, 0)

    def __len__(self) -> int:
        return len(self._newest)

    @property
    def counts(self) -> Mapping[State, int]:
        """How many of the requests known here are in each state."""
        return self._counts

    def apply(self, event: StatusEvent) -> Status | None:
        """The status to tell, or None where as new a one is known: an older version, or a repeat."""
        known = self._newest.get(event.request_id)
        if known is not None and event.state_version <= known.version:
            return None
        status = Status.of(event)
        if known is not None:
            self._counts[known.state] -= 1
        self._counts[status.state] += 1
        self._newest[status.request_id] = status
        self._newest.move_to_end(status.request_id)
        while len(self._newest) > self._capacity:
            _, forgotten = self._newest.popitem(last=False)
            self._counts[forgotten.state] -= 1
        return status

    def get(self, request_id: str) -> Status | None:
        return self._newest.get(request_id)

    def newest_first(self) -> tuple[Status, ...]:
        return tuple(reversed(self._newest.values()))
