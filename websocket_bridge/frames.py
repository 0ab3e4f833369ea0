"""What is sent to clients: bodies (what happened) and frames (what goes out). What many get is encoded once.

Every frame has `.data`, its JSON text as bytes, `.wire`, the same as a WebSocket frame, and `.token`, where the client
is in Kafka once it has the frame. A push has no id, an answer repeats the id of its command.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, ClassVar

from schemas.envelope import iso
from schemas.result import LLMResult
from schemas.status import StatusEvent
from schemas.vocabulary import State
from websocket_bridge.closing import Close
from websocket_bridge.commands import CommandError, CommandId
from websocket_bridge.messages import (
    SUBPROTOCOL,
    AttemptSummary,
    DeadLetterEntry,
    FeedState,
    Limits,
    Mark,
    ResultSummary,
    ViewerInfo,
)
from websocket_bridge.subjects import Identity

STATUSES_PER_SNAPSHOT_FRAME = 200
ATTEMPTS_PER_SUMMARY = 50


@dataclass(frozen=True, slots=True)
class Status:
    """A change of a request's state, its event encoded."""

    who: Identity
    state: State
    version: int
    attempt: int
    provider: str | None
    event_json: bytes

    @classmethod
    def of(cls, event: StatusEvent, known: "Status | None" = None) -> "Status":
        """`known`: the request's status of before."""
        who = Identity(event.request_id, event.tenant_id, event.user_id, event.correlation_id)
        if known is not None and known.who == who:
            who = known.who  # one for all events of a request: they are kept by the ten thousand
        text = event.model_dump_json(exclude_none=True).encode()
        return cls(who, event.state, event.state_version, event.attempt, event.provider, text)

    @property
    def push_json(self) -> bytes:
        return b'{"type":"status","event":' + self.event_json + b"}"


@dataclass(frozen=True, slots=True)
class Summary:
    """How a request ended, without its texts, encoded."""

    who: Identity
    state: State
    version: int
    provider: str | None
    result_json: bytes

    @classmethod
    def of(cls, result: LLMResult) -> "Summary":
        who = Identity(result.request_id, result.tenant_id, result.user_id, result.correlation_id)
        text = _summary(result).model_dump_json(exclude_none=True).encode()
        return cls(who, result.status, result.state_version, result.provider, text)

    @property
    def push_json(self) -> bytes:
        return b'{"type":"result","result":' + self.result_json + b"}"


@dataclass(frozen=True, slots=True)
class DeltaRun:
    """Consecutive pieces of one attempt's answer: numbers `seq` to `last_seq`, joined."""

    who: Identity
    attempt: int
    seq: int
    last_seq: int
    text: str

    @property
    def push_json(self) -> bytes:
        fields = {"type": "delta", "request_id": self.who.request_id, "attempt": self.attempt}
        return _json({**fields, "seq": self.seq, "last_seq": self.last_seq, "text": self.text})

    def continued_by(self, later: "DeltaRun") -> bool:
        place = (later.who.request_id, later.attempt, later.seq)
        return place == (self.who.request_id, self.attempt, self.last_seq + 1)


@dataclass(frozen=True, slots=True)
class Void:
    """The text of an attempt does not count any more."""

    who: Identity
    attempt: int
    superseded_by: int

    @property
    def push_json(self) -> bytes:
        fields = {"type": "void", "request_id": self.who.request_id, "attempt": self.attempt}
        return _json({**fields, "superseded_by": self.superseded_by})


Body = Status | Summary | DeltaRun | Void


class Frame:
    """Something to send."""

    __slots__ = ("_wire", "data", "token")

    counts: ClassVar[bool] = True
    """Whether it counts against the outbox. What answers a command does not: the next command waits for it."""

    def __init__(self, data: bytes, token: str | None = None) -> None:
        self.data = data
        self.token = token
        self._wire: bytes | None = None

    @property
    def wire(self) -> bytes:
        """As an unmasked, final text frame (RFC 6455, section 5.2), made once for all who get it."""
        if self._wire is None:
            self._wire = text_frame(self.data)
        return self._wire


class Push(Frame):
    """Something that happened to a request."""

    __slots__ = ("body",)

    def __init__(self, body: Body, token: str | None = None) -> None:
        data = body.push_json
        super().__init__(data if token is None else data[:-1] + b',"resume":"' + token.encode() + b'"}', token)
        self.body = body


class Replayed(Push):
    """The same, for a client that missed it."""

    __slots__ = ()
    counts = False


class Notice(Frame):
    """A push about the bridge, a lane, a queue. Of those with one `key` only the newest matters."""

    __slots__ = ("key",)

    def __init__(self, data: bytes, *, key: str | None = None, token: str | None = None) -> None:
        super().__init__(data, token)
        self.key = key


class Answer(Frame):
    """The answer to a command."""

    __slots__ = ()
    counts = False


class Snapshot:
    """Where things stand. Encoded only when it is sent: a waiting one costs references."""

    __slots__ = ("last", "parts", "token")
    counts: ClassVar[bool] = False

    def __init__(self, parts: "SnapshotParts", *, last: bool = True, token: str | None = None) -> None:
        self.parts = parts
        self.last = last
        self.token = token

    @property
    def wire(self) -> bytes:
        return text_frame(self.data)

    @property
    def data(self) -> bytes:
        parts = self.parts
        resume = b"" if self.token is None else b',"resume":"' + self.token.encode() + b'"'
        return b"".join(
            (
                b'{"type":"snapshot","requests":[',
                b",".join(status.event_json for status in parts.statuses),
                b'],"results":[',
                b",".join(summary.result_json for summary in parts.summaries),
                b'],"texts":[',
                b",".join(run.push_json for run in parts.texts),
                b'],"queue":[' + b",".join(parts.queue),
                b'],"lanes":[' + b",".join(parts.lanes),
                b'],"lane_history":[' + b",".join(parts.lane_history),
                b'],"dead_letters":[' + b",".join(parts.dead_letters),
                b'],"unknown":' + _json(list(parts.unknown)),
                b',"last":' + (b"true" if self.last else b"false") + resume + b"}",
            )
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class SnapshotParts:
    """What a snapshot tells. The last five but `unknown` are encoded already."""

    statuses: Sequence[Status] = ()
    summaries: Sequence[Summary] = ()
    texts: Sequence[DeltaRun] = ()
    queue: Sequence[bytes] = ()
    lanes: Sequence[bytes] = ()
    lane_history: Sequence[bytes] = ()
    dead_letters: Sequence[bytes] = ()
    unknown: Sequence[str] = ()


Outgoing = Frame | Snapshot | Close


def snapshots(parts: SnapshotParts, *, token: str | None = None) -> Iterator[Snapshot]:
    """One snapshot in frames of bounded size. Only the last one says `last`, and has the token."""
    size = STATUSES_PER_SNAPSHOT_FRAME
    for start in range(0, len(parts.statuses), size):
        yield Snapshot(SnapshotParts(statuses=parts.statuses[start : start + size]), last=False)
    for start in range(0, len(parts.summaries), size):
        yield Snapshot(SnapshotParts(summaries=parts.summaries[start : start + size]), last=False)
    for run in parts.texts:
        yield Snapshot(SnapshotParts(texts=(run,)), last=False)
    for start in range(size, len(parts.dead_letters), size):
        yield Snapshot(SnapshotParts(dead_letters=parts.dead_letters[start : start + size]), last=False)
    for history in parts.lane_history:
        yield Snapshot(SnapshotParts(lane_history=(history,)), last=False)
    rest = SnapshotParts(
        queue=parts.queue, lanes=parts.lanes, dead_letters=parts.dead_letters[:size], unknown=parts.unknown
    )
    yield Snapshot(rest, token=token)


def answer(command_id: CommandId, kind: str, **fields: Any) -> Answer:
    """A command was carried out."""
    return Answer(_json({"id": command_id, "type": kind, **fields}))


def refusal(error: CommandError) -> Answer:
    """A command was not carried out."""
    fields = {"id": error.id, "type": "error", "code": error.code, "message": error.message, "field": error.field}
    return Answer(_json(fields))


def hello(now: datetime, feed: FeedState, viewer: ViewerInfo | None, limits: Limits) -> Notice:
    """The first frame of a connection. `time` lets a client with a wrong clock show right durations."""
    return Notice(
        _json(
            {
                "type": "hello",
                "protocol": SUBPROTOCOL,
                "time": iso(now),
                "feed": feed,
                "viewer": viewer and viewer.model_dump(mode="json"),
                "limits": limits.model_dump(mode="json"),
            }
        )
    )


def feed_notice(feed: FeedState) -> Notice:
    """The bridge gained or lost its view of Kafka."""
    return Notice(_json({"type": "feed", "feed": feed}), key="feed")


def dead_letter_notice(entry: DeadLetterEntry) -> Notice:
    """A record came into the dead-letter topic."""
    return Notice(b'{"type":"dead_letter","dead_letter":' + entry.model_dump_json(exclude_none=True).encode() + b"}")


def mark_notice(partition: int, offset: int, mark: Mark) -> Notice:
    """What was done with the dead letter in this place."""
    done = mark.model_dump(mode="json", exclude_none=True)
    return Notice(_json({"type": "dead_letter_mark", "partition": partition, "offset": offset, "mark": done}))


def position_notice(token: str) -> Notice:
    """How far the client is, where no push told it."""
    return Notice(_json({"type": "position", "resume": token}), key="position", token=token)


def text_frame(payload: bytes) -> bytes:
    """An unmasked, final text frame."""
    size = len(payload)
    if size < 126:
        return b"\x81" + bytes((size,)) + payload
    if size < 65_536:
        return b"\x81\x7e" + size.to_bytes(2, "big") + payload
    return b"\x81\x7f" + size.to_bytes(8, "big") + payload


def _summary(result: LLMResult) -> ResultSummary:
    return ResultSummary(
        request_id=result.request_id,
        tenant_id=result.tenant_id,
        state=result.status,
        state_version=result.state_version,
        provider=result.provider,
        model=(result.answer.model if result.answer else None) or result.model,
        finish_reason=result.answer.finish_reason if result.answer else None,
        category=result.problem.category if result.problem else None,
        usage=result.usage,
        cost_usd=result.cost_usd,
        attempts=[
            AttemptSummary(
                attempt=attempt.attempt,
                provider=attempt.provider,
                model=attempt.model,
                outcome=attempt.outcome,
                category=attempt.problem.category if attempt.problem else None,
                started_at=attempt.started_at,
                duration_ms=attempt.duration_ms,
                time_to_first_token_ms=attempt.time_to_first_token_ms,
                cost_usd=attempt.cost_usd,
                possibly_billed=attempt.possibly_billed,
            )
            for attempt in result.attempts[-ATTEMPTS_PER_SUMMARY:]
        ],
        timings=result.timings,
        possibly_billed_calls=result.possibly_billed_calls,
        submitted_at=result.submitted_at,
        finished_at=result.finished_at,
    )


def _json(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
