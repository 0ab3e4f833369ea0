"""What waits to be sent to one client: in order, and bounded. Pure.

Pushes count against the bounds. At a bound, deltas of one attempt are joined and superseded ones left
out, and of several statuses of a request the newest is kept. If that frees less than half, the client is not late
but lost: nothing more is taken, and the connection is to be closed. (Half, so that compaction costs a constant time
per push however slow the client.) Answers and snapshots do not count: the next command is read once they are sent,
and a snapshot that waits holds only references.
"""

from collections import deque
from dataclasses import dataclass

from websocket_bridge.frames import Answer, DeltaRun, Frame, Notice, Snapshot, Status


@dataclass(frozen=True, kw_only=True, slots=True)
class Compaction:
    """What had to be done to make room. `fits` is False where it was not enough."""

    statuses_dropped: int
    deltas_joined: int
    fits: bool


class Outbox:
    """First in, first out."""

    def __init__(self, *, max_events: int, max_bytes: int) -> None:
        self._max_events = max_events
        self._max_bytes = max_bytes
        self._frames: deque[Frame] = deque()
        self._events = 0
        self._bytes = 0
        self._replies = 0

    def __len__(self) -> int:
        return len(self._frames)

    @property
    def owes_replies(self) -> bool:
        """Whether answers or snapshots wait: then the client's next command has to wait as well."""
        return self._replies > 0

    def put(self, frame: Frame) -> Compaction | None:
        """Appends. Returns what it took, where room had to be made."""
        self._frames.append(frame)
        self._count(frame, 1)
        if self._events <= self._max_events and self._bytes <= self._max_bytes:
            return None
        return self._compact()

    def take(self) -> Frame | None:
        """The next frame to send, or None."""
        if not self._frames:
            return None
        frame = self._frames.popleft()
        self._count(frame, -1)
        return frame

    def clear(self) -> None:
        self._frames.clear()
        self._events = self._bytes = self._replies = 0

    def _count(self, frame: Frame, sign: int) -> None:
        if isinstance(frame, Status | DeltaRun | Notice):
            self._events += sign
            self._bytes += sign * len(frame.data)
        elif isinstance(frame, Answer | Snapshot):
            self._replies += sign

    def _compact(self) -> Compaction:
        events_before = self._events
        statuses_before = sum(isinstance(frame, Status) for frame in self._frames)
        kept = _with_deltas_joined(_with_newest_statuses(self._frames))
        self.clear()
        for frame in kept:
            self._frames.append(frame)
            self._count(frame, 1)
        statuses_dropped = statuses_before - sum(isinstance(frame, Status) for frame in kept)
        return Compaction(
            statuses_dropped=statuses_dropped,
            deltas_joined=events_before - self._events - statuses_dropped,
            fits=self._events * 2 <= self._max_events and self._bytes * 2 <= self._max_bytes,
        )


def _with_newest_statuses(frames: deque[Frame]) -> list[Frame]:
    """Each request's newest status alone, at its own place: a snapshot before it stays before it."""
    seen: set[str] = set()
    kept: list[Frame] = []
    for frame in reversed(frames):
        if isinstance(frame, Status):
            if frame.request_id in seen:
                continue
            seen.add(frame.request_id)
        kept.append(frame)
    kept.reverse()
    return kept


def _with_deltas_joined(frames: list[Frame]) -> list[Frame]:
    """Runs of one attempt without a hole become one, at the place of the first; superseded attempts go."""
    newest_attempt: dict[str, int] = {}
    for frame in frames:
        if isinstance(frame, DeltaRun):
            newest_attempt[frame.request_id] = max(frame.attempt, newest_attempt.get(frame.request_id, 0))
    kept: list[Frame] = []
    open_runs: dict[str, list[DeltaRun]] = {}
    runs_by_place: dict[int, list[DeltaRun]] = {}
    for frame in frames:
        if isinstance(frame, DeltaRun):
            if frame.attempt < newest_attempt[frame.request_id]:
                continue
            run = open_runs.get(frame.request_id)
            if run is not None and run[-1].continued_by(frame):
                run.append(frame)
                continue
            runs_by_place[len(kept)] = open_runs[frame.request_id] = [frame]
        elif isinstance(frame, Snapshot):
            open_runs.clear()  # a snapshot replaces the text before it: nothing behind it may move in front
        kept.append(frame)
    for place, run in runs_by_place.items():
        kept[place] = _joined(run)
    return kept


def _joined(run: list[DeltaRun]) -> DeltaRun:
    first, last = run[0], run[-1]
    if first is last:
        return first
    text = "".join(piece.text for piece in run)
    return DeltaRun.of(first.request_id, first.attempt, first.seq, last.last_seq, text)
