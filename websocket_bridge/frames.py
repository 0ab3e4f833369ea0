"""What is sent to clients. What many of them get is encoded once.

Every frame has `.data`: its JSON text as bytes. A push has no id, an answer repeats the id of its command.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from schemas.envelope import iso
from schemas.status import StatusEvent
from schemas.vocabulary import State
from websocket_bridge.closing import Close
from websocket_bridge.commands import CommandError, CommandId

SUBPROTOCOL = "sluice.v1"
STATUSES_PER_SNAPSHOT_FRAME = 200

_STATUS_START, _STATUS_END = b'{"type":"status","event":', b"}"


class FeedState(StrEnum):
    """How the bridge stands with Kafka, which is the truth that it shows."""

    STARTING = "starting"
    CATCHING_UP = "catching_up"
    LIVE = "live"
    AWAY = "away"


@dataclass(frozen=True, slots=True)
class Status:
    """A change of a request's state, encoded. `data` is the push; the event alone is a part of it."""

    request_id: str
    state: State
    version: int
    data: bytes

    @classmethod
    def of(cls, event: StatusEvent) -> "Status":
        text = event.model_dump_json(exclude_none=True)
        return cls(event.request_id, event.state, event.state_version, _STATUS_START + text.encode() + _STATUS_END)

    @property
    def event_json(self) -> bytes:
        return self.data[len(_STATUS_START) : -len(_STATUS_END)]


@dataclass(frozen=True, slots=True)
class DeltaRun:
    """Consecutive pieces of one attempt's answer: numbers `seq` to `last_seq`, joined."""

    request_id: str
    attempt: int
    seq: int
    last_seq: int
    text: str
    data: bytes

    @classmethod
    def of(cls, request_id: str, attempt: int, seq: int, last_seq: int, text: str) -> "DeltaRun":
        fields = {"type": "delta", "request_id": request_id, "attempt": attempt, "seq": seq, "last_seq": last_seq}
        return cls(request_id, attempt, seq, last_seq, text, _json({**fields, "text": text}))

    def continued_by(self, later: "DeltaRun") -> bool:
        return (later.request_id, later.attempt, later.seq) == (self.request_id, self.attempt, self.last_seq + 1)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Where requests stand, sent before changes. Encoded only when it is sent: a waiting one costs references."""

    statuses: Sequence[Status] = ()
    texts: Sequence[DeltaRun] = ()
    unknown: Sequence[str] = ()
    last: bool = True

    @property
    def data(self) -> bytes:
        return b"".join(
            (
                b'{"type":"snapshot","requests":[',
                b",".join(status.event_json for status in self.statuses),
                b'],"texts":[',
                b",".join(run.data for run in self.texts),
                b'],"unknown":' + _json(list(self.unknown)),
                b',"last":' + (b"true" if self.last else b"false") + b"}",
            )
        )


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer to a command."""

    data: bytes


@dataclass(frozen=True, slots=True)
class Notice:
    """A push about the bridge itself: `hello` at the start, `feed` when its view of Kafka changes."""

    data: bytes


Frame = Status | DeltaRun | Snapshot | Answer | Notice | Close


def snapshots(statuses: Sequence[Status], texts: Sequence[DeltaRun], unknown: Sequence[str]) -> Iterator[Snapshot]:
    """One snapshot in frames of bounded size. Only the last one says `last`."""
    size = STATUSES_PER_SNAPSHOT_FRAME
    for start in range(0, len(statuses), size):
        yield Snapshot(statuses=statuses[start : start + size], last=False)
    for run in texts:
        yield Snapshot(texts=(run,), last=False)
    yield Snapshot(unknown=unknown)


def answer(command_id: CommandId, kind: str, **fields: Any) -> Answer:
    """A command was carried out."""
    return Answer(_json({"id": command_id, "type": kind, **fields}))


def refusal(error: CommandError) -> Answer:
    """A command was not carried out."""
    fields = {"id": error.id, "type": "error", "code": error.code, "message": error.message, "field": error.field}
    return Answer(_json(fields))


def hello(now: datetime, feed: FeedState, limits: dict[str, int | bool]) -> Notice:
    """The first frame of a connection. `time` lets a client with a wrong clock show right durations."""
    return Notice(_json({"type": "hello", "protocol": SUBPROTOCOL, "time": iso(now), "feed": feed, "limits": limits}))


def feed_notice(feed: FeedState) -> Notice:
    """The bridge gained or lost its view of Kafka."""
    return Notice(_json({"type": "feed", "feed": feed}))


def _json(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
