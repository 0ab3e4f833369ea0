"""What the bridge sends, as models: answers to commands, and pushes. The source of docs/websocket.schema.json.

Pushes that many clients get are encoded by hand (`frames`), once for all; tests hold every frame to these models.
"""

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from schemas.attempt import Usage
from schemas.base import Identifier, Milliseconds, ProviderName, Version
from schemas.dead_letter import DeadLetter
from schemas.result import Timings
from schemas.status import StatusEvent
from schemas.vocabulary import AttemptOutcome, BreakerState, DeadLetterAction, FailureCategory, State
from websocket_bridge.commands import CommandId, ErrorCode

SUBPROTOCOL = "sluice.v1"
TICKET_SUBPROTOCOL_PREFIX = "sluice.ticket."


class FeedState(StrEnum):
    """How the bridge stands with Kafka, which is the truth that it shows."""

    STARTING = "starting"
    CATCHING_UP = "catching_up"
    LIVE = "live"
    AWAY = "away"


class Scope(StrEnum):
    """What a viewer may follow. `ids`: whatever it knows the request_id or correlation_id of."""

    IDS = "ids"
    USER = "user"
    TENANT = "tenant"
    OPERATOR = "operator"


class Gap(StrEnum):
    """Why what was missed could not be sent."""

    INVALID = "invalid"
    EXPIRED = "expired"
    TOO_MUCH = "too_much"
    UNAVAILABLE = "unavailable"


class Message(BaseModel):
    """Text frames; `resume` is the newest token for `resume`, where a push carries one."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class ViewerInfo(Message):
    """Who the bridge takes the client for."""

    scope: Scope
    user_id: Identifier | None = None
    tenant_id: Identifier | None = None
    expires_at: AwareDatetime | None = None


class Limits(Message):
    """Of this connection."""

    subscriptions: int
    command_bytes: int
    commands_per_second: float


class Hello(Message):
    """The first frame. `viewer` is null where a ticket has to come first."""

    type: Literal["hello"]
    protocol: Literal["sluice.v1"]
    time: AwareDatetime
    feed: FeedState
    viewer: ViewerInfo | None
    limits: Limits


class Authenticated(Message):
    """The ticket is good."""

    id: CommandId
    type: Literal["authenticated"]
    viewer: ViewerInfo


class Refreshed(Message):
    """So is the newer one."""

    id: CommandId
    type: Literal["refreshed"]
    viewer: ViewerInfo


class Subscribed(Message):
    """Snapshot and changes follow. `subscriptions`: what the connection follows, each request id counted."""

    id: CommandId
    type: Literal["subscribed"]
    subscriptions: int


class Unsubscribed(Message):
    """No more of that."""

    id: CommandId
    type: Literal["unsubscribed"]
    subscriptions: int


class Resumed(Message):
    """`recovered`: `events` missed pushes follow. Else a snapshot, and `gap` says why."""

    id: CommandId
    type: Literal["resumed"]
    recovered: bool
    events: int
    gap: Gap | None
    subscriptions: int


class Pong(Message):
    """Yes."""

    id: CommandId
    type: Literal["pong"]


class Error(Message):
    """The command changed nothing. `id` is null where the command's own could not be read."""

    id: CommandId | None
    type: Literal["error"]
    code: ErrorCode
    message: str
    field: str | None


class Feed(Message):
    """The bridge's own view of Kafka changed."""

    type: Literal["feed"]
    feed: FeedState


class DeltaPush(Message):
    """Pieces `seq` to `last_seq` of one attempt's answer, joined."""

    type: Literal["delta"]
    request_id: Identifier
    attempt: int
    seq: int
    last_seq: int
    text: str
    resume: str | None = None


class VoidPush(Message):
    """What came of `attempt` and of those before it does not count any more: clear it."""

    type: Literal["void"]
    request_id: Identifier
    attempt: int
    superseded_by: int
    resume: str | None = None


class StatusPush(Message):
    """A change of state. `event` is without the fields that are not set."""

    type: Literal["status"]
    event: StatusEvent
    resume: str | None = None


class AttemptSummary(Message):
    """One call of a provider."""

    attempt: int
    provider: ProviderName
    model: str
    outcome: AttemptOutcome
    category: FailureCategory | None = None
    started_at: datetime
    duration_ms: Milliseconds
    time_to_first_token_ms: Milliseconds | None = None
    cost_usd: float | None = None
    possibly_billed: bool = False


class ResultSummary(Message):
    """How a request ended, without its texts. Fields that are not set are left out."""

    request_id: Identifier
    tenant_id: Identifier
    state: State
    state_version: Version
    provider: ProviderName | None = None
    model: str | None = None
    finish_reason: str | None = None
    category: FailureCategory | None = None
    usage: Usage | None = None
    cost_usd: float | None = None
    attempts: list[AttemptSummary] = Field(default_factory=list)
    timings: Timings
    possibly_billed_calls: int
    submitted_at: datetime
    finished_at: datetime


class ResultPush(Message):
    """A request has ended, and this is what is known of it."""

    type: Literal["result"]
    result: ResultSummary
    resume: str | None = None


class QueuePush(Message):
    """About where a queued request stands, and about how long it waits. Null: nobody knows."""

    type: Literal["queue"]
    request_id: Identifier
    provider: ProviderName
    about_position: int
    about_wait_ms: Milliseconds | None


class Breaker(Message):
    """Whether the provider is called."""

    state: BreakerState
    since: datetime | None = None
    retry_at: datetime | None = None
    reason: FailureCategory | None = None


class Lane(Message):
    """A provider's lane, over all its workers. Rates are per second; `workers` 0: none was heard of lately."""

    provider: ProviderName
    workers: int
    breaker: Breaker
    in_flight: int
    concurrency: int
    waiting: int
    backlog: int
    answered_per_second: float
    failed_per_second: float
    call_ms_p50: Milliseconds | None = None
    call_ms_p95: Milliseconds | None = None
    about_wait_ms: Milliseconds | None = None
    shared_state_away: bool
    reported_at: datetime


class LaneHistory(Message):
    """What a lane's numbers were over the last minutes, by column, oldest first. `at` is in seconds since 1970."""

    provider: ProviderName
    at: list[float]
    breaker: list[BreakerState]
    backlog: list[int]
    in_flight: list[int]
    answered_per_second: list[float]
    failed_per_second: list[float]
    call_ms_p50: list[Milliseconds | None]
    call_ms_p95: list[Milliseconds | None]


class LanePush(Message):
    """A lane's newest numbers."""

    type: Literal["lane"]
    lane: Lane


class Mark(Message):
    """What was done with a dead letter: when, and by whom."""

    action: DeadLetterAction
    at: datetime
    by: str | None = None


class DeadLetterEntry(Message):
    """A record of the dead-letter topic, by its headers. Its value is never sent. Without `mark` it is open."""

    partition: int
    offset: int
    at: datetime
    letter: DeadLetter
    mark: Mark | None = None


class DeadLetterPush(Message):
    """A record came into the dead-letter topic."""

    type: Literal["dead_letter"]
    dead_letter: DeadLetterEntry


class DeadLetterMarkPush(Message):
    """The dead letter in this place was redriven, or purged."""

    type: Literal["dead_letter_mark"]
    partition: int
    offset: int
    mark: Mark


class Snapshot(Message):
    """Where things stand, in one or more frames; the last one has `last`."""

    type: Literal["snapshot"]
    requests: list[StatusEvent]
    results: list[ResultSummary]
    texts: list[DeltaPush]
    queue: list[QueuePush]
    lanes: list[Lane]
    lane_history: list[LaneHistory]
    dead_letters: list[DeadLetterEntry]
    unknown: list[Identifier]
    last: bool
    resume: str | None = None


class Position(Message):
    """Nothing but a newer token, where no other push carried one."""

    type: Literal["position"]
    resume: str


Answer = Annotated[
    Authenticated | Refreshed | Subscribed | Unsubscribed | Resumed | Pong | Error, Field(discriminator="type")
]
Push = Annotated[
    Hello
    | Feed
    | Snapshot
    | StatusPush
    | DeltaPush
    | VoidPush
    | ResultPush
    | QueuePush
    | LanePush
    | DeadLetterPush
    | DeadLetterMarkPush
    | Position,
    Field(discriminator="type"),
]
