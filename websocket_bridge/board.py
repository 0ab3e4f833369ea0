"""The newest status of each request, and how it ended, bounded. Pure."""

from collections import OrderedDict
from collections.abc import Iterator, Mapping

from schemas.result import LLMResult
from schemas.status import StatusEvent
from schemas.vocabulary import State
from websocket_bridge.frames import Status, Summary
from websocket_bridge.subjects import ALL, Subject


class Board:
    """What the bridge knows. Beyond `capacity`, the request that changed longest ago is forgotten."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._newest: OrderedDict[str, Status] = OrderedDict()
        self._by_subject: dict[Subject, dict[str, None]] = {}
        self._summaries: OrderedDict[str, Summary] = OrderedDict()
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
        status = Status.of(event, known)
        if known is not None:
            self._forget(known)
        self._counts[status.state] += 1
        self._newest[event.request_id] = status
        for subject in status.who.subjects[1:-1]:
            self._by_subject.setdefault(subject, {})[event.request_id] = None
        while len(self._newest) > self._capacity:
            self._forget(next(iter(self._newest.values())))
        return status

    def apply_result(self, result: LLMResult) -> Summary | None:
        """The summary to tell, or None for a repeat and for one of an earlier life."""
        known = self._summaries.get(result.request_id)
        if known is not None and result.state_version <= known.version:
            return None
        summary = Summary.of(result)
        self._summaries[result.request_id] = summary
        self._summaries.move_to_end(result.request_id)
        while len(self._summaries) > self._capacity:
            self._summaries.popitem(last=False)
        return summary

    def get(self, request_id: str) -> Status | None:
        return self._newest.get(request_id)

    def summary(self, status: Status) -> Summary | None:
        """How the request ended, unless it has begun another life since."""
        summary = self._summaries.get(status.who.request_id)
        return summary if summary is not None and summary.version >= status.version else None

    def newest_first(self, subject: Subject = ALL) -> Iterator[Status]:
        """What is known of a correlation, user or tenant, or of everything."""
        if subject == ALL:
            yield from reversed(self._newest.values())
            return
        for request_id in reversed(self._by_subject.get(subject, {})):
            yield self._newest[request_id]

    def _forget(self, status: Status) -> None:
        request_id = status.who.request_id
        del self._newest[request_id]
        self._counts[status.state] -= 1
        for subject in status.who.subjects[1:-1]:
            members = self._by_subject[subject]
            del members[request_id]
            if not members:
                del self._by_subject[subject]
