"""What waits to be sent to one client: in order, and bounded. Pure.

Pushes count against the bounds. At a bound, deltas of one attempt are joined and superseded ones left out; where that
does not free half of it, of several statuses of a request the newest is kept, and every terminal one. If that
frees less than half as well, the client is not late but lost: nothing more is taken, and the connection is to be
closed. (Half, so that compaction costs a constant time per push however slow the client.) Answers, snapshots and what
is replayed do not count: the next command is read once they are sent, and while they wait they hold only references.

Joined deltas stand where the last of them stood: with its token the client has got everything before it.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from websocket_bridge.closing import Close
from websocket_bridge.frames import DeltaRun, Frame, Notice, Outgoing, Push, Replayed, Snapshot, Status, Void

FRAMES_TAKEN_BEFORE_TRIM = 64


@dataclass(frozen=True, kw_only=True, slots=True)
class Compaction:
    """What had to be done to make room. `fits` is False where it was not enough."""

    statuses_dropped: int
    deltas_joined: int
    fits: bool


class Outbox:
    """First in, first out."""

    __slots__ = ("_bytes", "_events", "_frames", "_head", "_max_bytes", "_max_events", "_replies")

    def __init__(self, *, max_events: int, max_bytes: int) -> None:
        self._max_events = max_events
        self._max_bytes = max_bytes
        # A list and the place of its first frame: an empty deque alone would cost an idle client 750 bytes.
        self._frames: list[Outgoing] = []
        self._head = 0
        self._events = 0
        self._bytes = 0
        self._replies = 0

    def __len__(self) -> int:
        return len(self._frames) - self._head

    @property
    def owes_replies(self) -> bool:
        """Whether answers or snapshots wait: then the client's next command has to wait as well."""
        return self._replies > 0

    def put(self, frame: Outgoing) -> Compaction | None:
        """Appends. Returns what it took, where room had to be made."""
        self._frames.append(frame)
        self._count(frame, 1)
        if self._events <= self._max_events and self._bytes <= self._max_bytes:
            return None
        return self._compact()

    def take(self) -> Outgoing | None:
        """The next frame to send, or None."""
        if self._head == len(self._frames):
            return None
        frame = self._frames[self._head]
        self._head += 1
        if self._head == len(self._frames):
            self.clear()
            return frame
        if self._head > FRAMES_TAKEN_BEFORE_TRIM:
            del self._frames[: self._head]
            self._head = 0
        self._count(frame, -1)
        return frame

    def clear(self) -> None:
        self._frames = []
        self._head = self._events = self._bytes = self._replies = 0

    def _count(self, frame: Outgoing, sign: int) -> None:
        if isinstance(frame, Close):
            return
        if frame.counts:
            self._events += sign
            self._bytes += sign * len(frame.data)
        else:
            self._replies += sign

    def _set(self, frames: list[Outgoing]) -> None:
        self.clear()
        self._frames = frames
        for frame in frames:
            self._count(frame, 1)

    def _compact(self) -> Compaction:
        before = self._events
        self._set(_with_deltas_joined(_newest_notices(self._frames[self._head :])))
        joined = before - self._events
        if not self._fits:
            self._set(_with_newest_statuses(self._frames))
        return Compaction(statuses_dropped=before - joined - self._events, deltas_joined=joined, fits=self._fits)

    @property
    def _fits(self) -> bool:
        return self._events * 2 <= self._max_events and self._bytes * 2 <= self._max_bytes


def _newest_notices(frames: list[Outgoing]) -> list[Outgoing]:
    seen: set[str] = set()
    kept: list[Outgoing] = []
    for frame in reversed(frames):
        if isinstance(frame, Notice) and frame.key is not None:
            if frame.key in seen:
                continue
            seen.add(frame.key)
        kept.append(frame)
    kept.reverse()
    return kept


def _with_newest_statuses(frames: list[Outgoing]) -> list[Outgoing]:
    """Each request's newest status and its terminal ones, at their own places: a snapshot before stays before."""
    seen: set[str] = set()
    kept: list[Outgoing] = []
    for frame in reversed(frames):
        if type(frame) is Push and isinstance(frame.body, Status):
            request_id = frame.body.who.request_id
            if request_id in seen and not frame.body.state.is_terminal:
                continue
            seen.add(request_id)
        kept.append(frame)
    kept.reverse()
    return kept


def _with_deltas_joined(frames: list[Outgoing]) -> list[Outgoing]:
    """Runs of one attempt without a hole become one, at the place of the last; superseded attempts go.

    Nothing moves past a status of its request, so that a client that stops at the end has the whole text.
    """
    voided = _voided_attempts(frames)
    run_of: dict[str, list[int]] = {}
    runs: dict[int, list[int]] = {}
    for place, frame in enumerate(frames):
        if isinstance(frame, Snapshot | Replayed):
            run_of.clear()  # it replaces the text before it: nothing of before may move behind it
        elif type(frame) is Push and isinstance(frame.body, DeltaRun):
            run = run_of.get(frame.body.who.request_id)
            if run is None or not _run_at(frames, run[-1]).continued_by(frame.body):
                run = run_of[frame.body.who.request_id] = []
            else:
                del runs[run[-1]]
            run.append(place)
            runs[place] = run
        elif isinstance(frame, Push) and isinstance(frame.body, Status):
            run_of.pop(frame.body.who.request_id, None)
    kept: list[Outgoing] = []
    for place, frame in enumerate(frames):
        if type(frame) is Push and isinstance(frame.body, DeltaRun):
            body = frame.body
            if place in runs and body.attempt > voided.get(body.who.request_id, 0):
                kept.append(_joined(frames, runs[place]))
            continue
        kept.append(frame)
    return kept


def _run_at(frames: list[Outgoing], place: int) -> DeltaRun:
    frame = frames[place]
    if not isinstance(frame, Push) or not isinstance(frame.body, DeltaRun):
        raise TypeError(frame)
    return frame.body


def _voided_attempts(frames: Iterable[Outgoing]) -> dict[str, int]:
    """By request, the newest attempt that a later one among these frames has voided."""
    voided: dict[str, int] = {}
    for frame in frames:
        if isinstance(frame, Push) and isinstance(frame.body, Void | DeltaRun):
            body = frame.body
            attempt = body.attempt if isinstance(body, Void) else body.attempt - 1
            voided[body.who.request_id] = max(attempt, voided.get(body.who.request_id, 0))
    return voided


def _joined(frames: list[Outgoing], places: list[int]) -> Outgoing:
    if len(places) == 1:
        return frames[places[0]]
    bodies = [_run_at(frames, place) for place in places]
    first, last = bodies[0], bodies[-1]
    text = "".join(body.text for body in bodies)
    newest = frames[places[-1]]
    token = newest.token if isinstance(newest, Frame) else None
    return Push(DeltaRun(first.who, first.attempt, first.seq, last.last_seq, text), token)
