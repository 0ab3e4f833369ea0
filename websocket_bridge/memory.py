"""What the bridge remembers, to show it to those who come: all of it bounded, none of it about clients. Pure."""

import json

from schemas.dead_letter import DeadLetterMark
from schemas.delta import Delta
from schemas.lane_report import LaneReport
from schemas.result import LLMResult
from schemas.status import StatusEvent
from websocket_bridge.board import Board
from websocket_bridge.dead_letters import DeadLetters
from websocket_bridge.frames import DeltaRun, Status, Summary, Void
from websocket_bridge.lanes import Lanes
from websocket_bridge.messages import DeadLetterEntry, Lane, Mark
from websocket_bridge.queue_places import QueuePlace, QueuePlaces
from websocket_bridge.recent import Recent
from websocket_bridge.subjects import Identity
from websocket_bridge.transcripts import Transcripts


class Memory:
    """Each `on_...` returns what is to be told, nothing for what says nothing new."""

    def __init__(self, *, requests: int, replay_bytes: int) -> None:
        self.board = Board(requests)
        self.transcripts = Transcripts(requests)
        self.recent = Recent(replay_bytes)
        self.lanes = Lanes()
        self.queue = QueuePlaces(requests)
        self.dead_letters = DeadLetters()

    def on_status(self, event: StatusEvent) -> tuple[Status, Void | None] | None:
        """The status, and what it voids."""
        previous = self.board.get(event.request_id)
        status = self.board.apply(event)
        if status is None:
            return None
        self.queue.apply(previous, status)
        voided = self.transcripts.supersede(event.request_id, event.attempt)
        return status, Void(status.who, voided, event.attempt) if voided is not None else None

    def on_delta(self, delta: Delta) -> tuple[DeltaRun, Void | None] | None:
        """The piece, and what it voids."""
        status = self.board.get(delta.request_id)
        who = status.who if status is not None else Identity(delta.request_id, delta.tenant_id)
        voided = self.transcripts.supersede(delta.request_id, delta.attempt)
        run = self.transcripts.apply(delta, who)
        if run is None:
            return None
        return run, Void(who, voided, delta.attempt) if voided is not None else None

    def on_result(self, result: LLMResult) -> Summary | None:
        return self.board.apply_result(result)

    def on_lane_report(self, report: LaneReport, *, now: float) -> Lane | None:
        return self.lanes.apply(report, now=now)

    def on_dead_letter(self, entry: DeadLetterEntry) -> DeadLetterEntry:
        return self.dead_letters.add(entry)

    def on_dead_letter_mark(self, mark: DeadLetterMark) -> Mark | None:
        return self.dead_letters.mark(mark)


def queue_json(place: QueuePlace) -> bytes:
    """The push that tells it."""
    fields = {
        "type": "queue",
        "request_id": place.request_id,
        "provider": place.provider,
        "about_position": place.about_position,
        "about_wait_ms": place.about_wait_ms,
    }
    return json.dumps(fields, separators=(",", ":")).encode()
