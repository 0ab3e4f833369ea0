"""What stages ask of the shared state: one call a step, each atomic.

The truth is in Kafka. This state answers three questions that Kafka cannot: was this request seen before, who may
call its provider now, and how did it end.

Every step may be repeated by the one who made it, with the same arguments: a reply that was lost on its way does no
harm. So after `StateUnavailableError` the step is simply made again.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from schemas.vocabulary import State


class StateUnavailableError(Exception):
    """The store could not be reached or did not answer in time. The step may or may not have happened."""

    def __init__(self, step: str, reason: str = "no answer") -> None:
        super().__init__(f"{step}: {reason}")
        self.step = step
        self.reason = reason


@dataclass(frozen=True, kw_only=True, slots=True)
class Arrival:
    """A request as intake meets it. `origin` names its record (`topic-partition-offset`)."""

    request_id: str
    origin: str
    size_bytes: int
    deadline_ms: int


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
    """New, or the same record again before anyone claimed it: publish it (again) as QUEUED at this version."""

    version: int
    repeated: bool = False


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
class Settled:
    """It has ended. `outcome` is what to publish (again), or None when it is known to be published."""

    state: State
    version: int
    outcome: bytes | None


Admission = Admitted | Settled | Duplicate | Full
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
    """

    request_id: str
    fence: int
    attempt: int
    version: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Claimed:
    """Go on with `lease`.

    `lost_calls` are all that were lost in this request's life so far. With `history_missing` the store does not know
    the beginning of this life: there may be more.
    """

    lease: Lease
    lost_calls: tuple[LostCall, ...] = ()
    history_missing: bool = False

    @property
    def newly_lost(self) -> bool:
        """Whether the call just before this attempt was lost."""
        return bool(self.lost_calls) and self.lost_calls[-1].attempt == self.lease.attempt - 1


@dataclass(frozen=True, slots=True)
class Busy:
    """Somebody holds the lease; ask again after this many milliseconds."""

    retry_after_ms: int


Claim = Claimed | Busy | Settled


class StateStore(Protocol):
    """All methods raise `StateUnavailableError` when the store is away."""

    async def admit(self, arrival: Arrival, limits: Limits) -> Admission:
        """Remembers a request once, counts it, and notes its deadline.

        `Settled`: this very record was refused before; its end may not be published yet.
        """
        ...

    async def refuse(self, arrival: Arrival, state: State, outcome: bytes) -> Admission:
        """Remembers a request that ends at the door (REJECTED, EXPIRED) with its outcome, without counting it.

        `Settled` is the end to publish: this one, or the one that the same record met before. `Admitted`: the same
        record was admitted before, and cannot be refused any more; it goes on, or is ended by claim and settle.
        The version of an end at the door is 1.
        """
        ...

    async def claim(self, request_id: str, *, owner: str, lease_ms: int, token: str | None = None) -> Claim:
        """Takes the lease if nobody has it, and moves the request to PROCESSING.

        A lease that ended without an outcome counts as a lost call, and the new attempt's number is one higher.
        A request that the store does not know is created, with `history_missing`.
        `token` is made up by the caller for this one claim (a uuid): when the claim is repeated because its reply
        was lost, the same lease comes back. Without it the claim waits for that lease to end, as a lost call.
        """
        ...

    async def renew(self, leases: Sequence[Lease], *, lease_ms: int) -> list[Lease]:
        """Prolongs leases, and returns those that were lost (to another claim, to an end, or given back)."""
        ...

    async def release(self, lease: Lease, *, called: bool) -> None:
        """Gives a lease back before an outcome. After a call it counts as lost at once; before one, as not made."""
        ...

    async def settle(self, lease: Lease, state: State, outcome: bytes) -> Settled | None:
        """Moves the request to a terminal state and keeps the outcome until it is published.

        Exactly one caller wins and gets None. Others get how it ended, or what stands in their way: a `Settled`
        whose state is not terminal says that another claim holds the lease now, or that it was given back.
        """
        ...

    async def published(self, request_ids: Sequence[str]) -> None:
        """The outcomes of these requests are in Kafka: they need not be kept."""
        ...

    async def outstanding(self) -> tuple[int, int]:
        """Requests and bytes admitted and not yet ended."""
        ...

    async def close(self) -> None: ...
