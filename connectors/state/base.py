"""What stages ask of the shared state: one call a step, each atomic.

The truth is in Kafka. This state answers three questions that Kafka cannot: was this request seen before, who may
call its provider now, and how did it end.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from schemas.vocabulary import State


class StateUnavailableError(Exception):
    """The store could not be reached or did not answer in time. The step may or may not have happened."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Arrival:
    """A request as intake meets it. `origin` names its record (`topic-partition-offset`)."""

    request_id: str
    origin: str
    size_bytes: int
    deadline_ms: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """Bounds on what is outstanding. Admission closes at `high`, and reopens at `low` (shares of the maxima)."""

    max_requests: int
    max_bytes: int
    high_watermark: float = 0.8
    low_watermark: float = 0.6


@dataclass(frozen=True, slots=True)
class Admitted:
    """New, or the same record again before anyone claimed it: publish (again) at this version."""

    version: int
    repeated: bool = False


@dataclass(frozen=True, slots=True)
class Duplicate:
    """Known already: another record with this id, or the same one after its lane task was taken up."""

    state: State


@dataclass(frozen=True, slots=True)
class Full:
    """Admission is closed."""

    outstanding_requests: int
    outstanding_bytes: int


Admission = Admitted | Duplicate | Full


@dataclass(frozen=True, kw_only=True, slots=True)
class LostCall:
    """A call whose lease ended with no outcome: the provider may have been paid for it."""

    attempt: int
    owner: str
    started_ms: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Lease:
    """The right to make attempt number `attempt` and to settle. `fence` grows with each claim."""

    request_id: str
    fence: int
    attempt: int
    version: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Claimed:
    """Go on. `lost_calls`: all that were lost in this request's life so far; `newly_lost`: the last claim's was."""

    lease: Lease
    lost_calls: tuple[LostCall, ...] = ()
    newly_lost: bool = False
    history_missing: bool = False


@dataclass(frozen=True, slots=True)
class Busy:
    """Somebody holds the lease; ask again after this many milliseconds."""

    retry_after_ms: int


@dataclass(frozen=True, slots=True)
class Settled:
    """It has ended. `outcome` is what to publish again, or None when it is known to be published."""

    state: State
    version: int
    outcome: bytes | None


Claim = Claimed | Busy | Settled


class StateStore(Protocol):
    """All methods raise `StateUnavailableError` when the store is away."""

    async def admit(self, arrival: Arrival, limits: Limits) -> Admission:
        """Remembers a request once, counts it, and notes its deadline."""
        ...

    async def refuse(self, arrival: Arrival, state: State) -> Admission:
        """Remembers a request that ends at the door (REJECTED, EXPIRED), without counting it.

        `Admitted` asks to publish its end (`repeated` for the same record again); `Duplicate` asks for silence.
        """
        ...

    async def claim(self, request_id: str, *, owner: str, lease_ms: int) -> Claim:
        """Takes the lease if nobody has it, and moves the request to PROCESSING.

        A lease that ended without an outcome counts as a lost call, and the new attempt's number is one higher.
        A request that the store does not know is created, with `history_missing`.
        """
        ...

    async def renew(self, leases: Sequence[Lease], *, lease_ms: int) -> list[Lease]:
        """Prolongs leases, and returns those that were lost (to another claim, or to an end)."""
        ...

    async def release(self, lease: Lease, *, called: bool) -> None:
        """Gives a lease back before an outcome. After a call it counts as lost at once; before one, as not made."""
        ...

    async def settle(self, lease: Lease, state: State, outcome: bytes) -> Settled | None:
        """Moves the request to a terminal state and keeps the outcome until it is published.

        Exactly one caller wins and gets None. Others get how it ended, or what stands in their way: a `Settled`
        whose state is not terminal says that another claim holds the lease now.
        """
        ...

    async def published(self, request_ids: Sequence[str]) -> None:
        """The outcomes of these requests are in Kafka: they need not be kept."""
        ...

    async def outstanding(self) -> tuple[int, int]:
        """Requests and bytes admitted and not yet ended."""
        ...

    async def close(self) -> None: ...
