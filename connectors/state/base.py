"""What is said to the shared state, and what it answers. The steps themselves stand in `store`."""

from dataclasses import dataclass, field
from typing import NamedTuple

from schemas.dead_letter_headers import Redrive
from schemas.vocabulary import State


class StateUnavailableError(Exception):
    """The store could not be reached or did not answer in time. The step may or may not have happened."""

    def __init__(self, step: str, reason: str = "no answer") -> None:
        super().__init__(f"{step}: {reason}")
        self.step = step
        self.reason = reason


FAR_FUTURE_MS = 2**53
"""Milliseconds, beyond any date and still exact as a number of Lua."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Arrival:
    """A request as intake meets it. `origin` names its record (`topic-partition-offset`).

    `summary` is what the store keeps for whoever ends the request from outside of a lane. `recorded_ms` says when
    the record was written, `submitted_ms` when its sender says that it was. By tenant and correlation id it may have
    been cancelled before it came.
    """

    request_id: str
    origin: str
    size_bytes: int
    deadline_ms: int
    summary: bytes = b""
    recorded_ms: int = FAR_FUTURE_MS
    submitted_ms: int = FAR_FUTURE_MS
    tenant_id: str = ""
    correlation_id: str = ""
    redrive: Redrive | None = None

    @property
    def sent_ms(self) -> int:
        """When this life was asked for: a cancellation from before does not concern it."""
        return self.recorded_ms if self.redrive else self.submitted_ms


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """Bounds on what is outstanding. Admission closes at `high`, and reopens at `low` (shares of the maxima).

    The request that reaches `high` is still let in, so no request is too large ever to pass.
    """

    max_requests: int
    max_bytes: int
    high_watermark: float = 0.8
    low_watermark: float = 0.6


@dataclass(frozen=True, slots=True)
class Admitted:
    """New, or the same record again before anyone claimed it: publish it (again) as QUEUED at this version.

    `attempt` is the number of its first call. `repeated`: its task may have been written before. `cancelled`: somebody
    called it off before it came.
    """

    version: int
    attempt: int = 1
    repeated: bool = False
    cancelled: bool = False


@dataclass(frozen=True, slots=True)
class Duplicate:
    """Known already: another record with this id, or the same one after its lane task was taken up."""

    state: State


@dataclass(frozen=True, slots=True)
class Full:
    """Admission is closed. What is outstanding is that of the shard to which the request belongs."""

    outstanding_requests: int
    outstanding_bytes: int


@dataclass(frozen=True, slots=True)
class Doubtful:
    """It may have had a life that this store has lost: its end needs a version that is no lower than this."""

    version: int


class Place(NamedTuple):
    """Where a record lies in the results topic."""

    partition: int
    offset: int


@dataclass(frozen=True, slots=True)
class Settled:
    """It has ended. `outcome` is what to publish (again), or None when its result is in Kafka.

    `place` is then where: the rest of the end follows from the result, and whoever wrote it may have died before he
    wrote the rest. Without it all is known to be published.
    """

    state: State
    version: int
    outcome: bytes | None
    place: Place | None = None


Admission = Admitted | Settled | Duplicate | Full
Refusal = Admitted | Settled | Duplicate | Doubtful
"""What to do with a record: publish its task, publish its end, say nothing, or wait."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LostCall:
    """A call whose lease ended with no outcome: the provider may have been paid for it."""

    attempt: int
    owner: str
    started_ms: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Lease:
    """The right to make attempt number `attempt` and to settle, once claimed and until somebody else claims.

    `fence` grows with each claim, also across a store that lost its data: it starts from the clock's microseconds.
    `is_own`: the worker gave it to itself while the store was away.
    """

    request_id: str
    fence: int
    attempt: int
    version: int
    is_own: bool = False
    owner: str = field(default="", compare=False)


@dataclass(frozen=True, kw_only=True, slots=True)
class TaskRef:
    """The lane task for which a claim is made: a task that was moved on since, or is newer than the store, shows.

    `redrives`: how often its request was redriven, so that a life before can be told from this one.
    `may_have_been_called`: a worker before may have called for it while the store was away.

    For when the store is away: `is_doubtful`, another worker may have had it; `is_called_off`, a cancellation of it was
    heard of.
    """

    version: int
    attempt: int
    size_bytes: int
    deadline_ms: int
    redrives: int = 0
    may_have_been_called: bool = False
    is_doubtful: bool = False
    is_called_off: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Claimed:
    """Go on with `lease`.

    `lost_calls` are all that were lost since the task was put on its lane. With `history_missing` the store does not
    know the beginning of this life: there may be more. `cancelled`: no call is wanted any more.
    """

    lease: Lease
    lost_calls: tuple[LostCall, ...] = ()
    history_missing: bool = False
    cancelled: bool = False

    @property
    def newly_lost(self) -> bool:
        """Whether the call just before this attempt was lost."""
        return bool(self.lost_calls) and self.lost_calls[-1].attempt == self.lease.attempt - 1


@dataclass(frozen=True, slots=True)
class Busy:
    """Somebody holds the lease; ask again after this many milliseconds."""

    retry_after_ms: int


@dataclass(frozen=True, slots=True)
class Moved:
    """The task was moved on already, by a step whose records may not be in Kafka: publish them (again)."""

    state: State
    version: int
    summary: bytes


@dataclass(frozen=True, slots=True)
class Stale:
    """A later task of the same request is in Kafka. This one has nothing more to cause."""


@dataclass(frozen=True, slots=True)
class CalledOff:
    """Somebody cancelled the request: it is to have no other try. The lease stands, for its holder to end it."""


Claim = Claimed | Busy | Settled | Moved | Stale
Rescheduled = Settled | CalledOff | None
Requeued = Moved | Stale | Settled


@dataclass(frozen=True, kw_only=True, slots=True)
class Renewal:
    """Leases that were lost, and leases of requests that were cancelled meanwhile."""

    lost: tuple[Lease, ...] = ()
    cancelled: tuple[Lease, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Known:
    """What the store knows of a request, for those who end requests from outside of a lane.

    `held_ms`: for how long somebody may still be calling. `running` is the call of a claim, if there is one.
    `in_doubt`: there may have been a call that this store has lost. `cancelled`: no call is wanted any more.
    """

    request_id: str
    state: State
    version: int
    summary: bytes
    held_ms: int = 0
    running: LostCall | None = None
    lost_calls: tuple[LostCall, ...] = ()
    outcome: bytes | None = None
    in_doubt: bool = False
    cancelled: bool = False


@dataclass(frozen=True, slots=True)
class Ended:
    """An end whose result is in Kafka, at `place`. Without one: whoever tells of it has published the whole of it."""

    request_id: str
    state: State
    version: int
    place: Place | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class FoundTask:
    """A task as it stands in Kafka, not yet done: queued on a lane, or waiting for a retry.

    `asked_ms`: when this life was asked for. `earlier_calls` are on record in the task; `lost_calls` came after it, the
    last of them at `claimed_version`.
    """

    request_id: str
    state: State
    task: TaskRef
    summary: bytes
    origin: str
    tenant_id: str = ""
    correlation_id: str = ""
    asked_ms: int = FAR_FUTURE_MS
    earlier_calls: int = 0
    lost_calls: tuple[LostCall, ...] = ()
    claimed_version: int = 0

    @property
    def was_called(self) -> bool:
        """Whether a call was made before, as far as is known: then its own record has nothing more to cause."""
        return self.earlier_calls > 0 or bool(self.lost_calls)


@dataclass(frozen=True, kw_only=True, slots=True)
class Cancellation:
    """Names requests by id, tenant or correlation id; where several are given, all must fit."""

    request_id: str = ""
    tenant_id: str = ""
    correlation_id: str = ""
    issued_ms: int
