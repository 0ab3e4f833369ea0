"""What a client that comes back has missed: from the log of recent happenings, or why that cannot be said. Pure."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from websocket_bridge.commands import Where
from websocket_bridge.cursor import Cursor
from websocket_bridge.frames import Replayed
from websocket_bridge.messages import Gap
from websocket_bridge.position import Place, Position
from websocket_bridge.recent import Recent
from websocket_bridge.session import Session
from websocket_bridge.subjects import DEAD_LETTERS, LANES, Options, Subject

STATUS, DELTAS, RESULTS = 0, 1, 2
"""Topics by their number in tokens. Never change it: tokens of the last release come in after an upgrade."""

PATIENCE_SECONDS = 20.0
"""So long a resume waits for the bridge: to start, to come as far as the client was, or to read back."""


@dataclass(frozen=True, slots=True)
class Recovery:
    """What was missed, in order, up to where the bridge is."""

    frames: list[Replayed]
    token: str | None


class Resuming:
    """Looks up what was missed. A look-up may have to wait, until Kafka was asked or read back: then it is None."""

    def __init__(self, recent: Recent, cursor: Cursor, *, resume_events: int) -> None:
        self._recent = recent
        self._cursor = cursor
        self._resume_events = resume_events
        self._lowest_tried: dict[Place, int] = {}

    def recover(self, position: Position, session: Session, *, asked_at: float) -> Recovery | Gap | None:
        cursor = self._cursor
        if cursor.epoch is None:
            return None
        if position.epoch != cursor.epoch or not position.offsets.keys() <= cursor.offsets.keys():
            return Gap.INVALID
        if any(offset > cursor.offsets[place] for place, offset in position.offsets.items()):
            # This bridge has yet to come as far as the client was; unless Kafka itself has not so much.
            return Gap.INVALID if self._is_beyond_kafka(position, asked_at) else None
        topics = _topics_of(session.followed)
        if not self._recent.reaches(position.offsets, topics):
            return None if self._may_be_read_back(position, topics) else Gap.EXPIRED
        return self._recovered(position, session)

    def wanted_back(self, positions: Iterable[Position]) -> dict[Place, int]:
        """By partition, from where on to read back for these, where the log does not reach. May be empty."""
        lowest: dict[Place, int] = {}
        for position in positions:
            if position.epoch != self._cursor.epoch:
                continue
            for place, floor in self._recent.floors.items():
                wanted = position.offsets.get(place, 0)
                if wanted < min(floor, self._lowest_tried.get(place, floor)):
                    lowest[place] = min(wanted, lowest.get(place, wanted))
        return lowest

    def clear(self) -> None:
        """What was tried was of another log."""
        self._lowest_tried.clear()

    def was_tried(self, offsets: Mapping[Place, int]) -> None:
        """Reading back from here was tried: it is not tried again."""
        for place, offset in offsets.items():
            self._lowest_tried[place] = min(offset, self._lowest_tried.get(place, offset))

    def _is_beyond_kafka(self, position: Position, asked_at: float) -> bool:
        cursor = self._cursor
        return cursor.ends_looked_up_at >= asked_at and any(
            offset > max(cursor.offsets[place], cursor.ends.get(place, 0)) for place, offset in position.offsets.items()
        )

    def _may_be_read_back(self, position: Position, topics: frozenset[int]) -> bool:
        return all(
            position.offsets.get(place, 0) >= floor
            or position.offsets.get(place, 0) < self._lowest_tried.get(place, floor + 1)
            for place, floor in self._recent.floors.items()
            if place[0] in topics
        ) and self._recent.has_room_for(1)

    def _recovered(self, position: Position, session: Session) -> Recovery | Gap:
        entries = self._recent.since(position.offsets, session.followed)
        wanted = {subject: _for_replay(options) for subject, options in session.followed.items()}
        frames = []
        for entry in entries:
            for subject in entry.subjects:
                options = wanted.get(subject)
                if options is not None and session.takes(entry.body, subject, options, None):
                    frames.append(Replayed(entry.body))
                    break
            if len(frames) > self._resume_events:
                return Gap.TOO_MUCH
        return Recovery(frames, self._cursor.token)


def _topics_of(followed: Mapping[Subject, Options]) -> frozenset[int]:
    requests = [options for subject, options in followed.items() if subject not in {LANES, DEAD_LETTERS}]
    if not requests:
        return frozenset()
    return frozenset((STATUS, RESULTS, *((DELTAS,) if any(options.deltas for options in requests) else ())))


def _for_replay(options: Options) -> Options:
    """Without the filters whose answer may have changed meanwhile: the client applies them."""
    if options.where is None:
        return options
    return Options(options.deltas, Where(tenant_ids=options.where.tenant_ids) if options.where.tenant_ids else None)
