"""What stages ask of the shared state: one call a step, each atomic.

The truth is in Kafka. This state answers three questions that Kafka cannot: was this request seen before, who may
call its provider now, and how did it end.

Every step may be repeated by the one who made it, with the same arguments: a reply that was lost on its way does no
harm. So after `StateUnavailableError` the step is simply made again.
"""

from collections.abc import AsyncIterator, Sequence
from typing import Protocol

from connectors.state.base import (
    Admission,
    Arrival,
    Cancellation,
    Claim,
    Ended,
    FoundTask,
    Known,
    Lease,
    Limits,
    Refusal,
    Renewal,
    Requeued,
    Rescheduled,
    Settled,
    TaskRef,
)
from schemas.vocabulary import State


class ClaimStore(Protocol):
    """What a lane asks for its calls. All methods raise `StateUnavailableError` when the store is away."""

    async def claim(
        self, request_id: str, *, owner: str, lease_ms: int, token: str | None = None, task: TaskRef | None = None
    ) -> Claim:
        """Takes the lease if nobody has it, and moves the request to PROCESSING.

        A lease that ended without an outcome counts as a lost call, and the new attempt's number is one higher.
        A request that the store does not know, or only knows from before `task`, is created, with `history_missing`;
        but nothing goes on after an end, unless the task is of a later life.
        `token` is made up by the caller for this one claim (a uuid): when the claim is repeated because its reply
        was lost, the same lease comes back. Without it the claim waits for that lease to end, as a lost call.
        """
        ...

    async def renew(self, leases: Sequence[Lease], *, lease_ms: int) -> Renewal:
        """Prolongs leases. Lost are those that went to another claim, to an end, or were given back.

        One that the store does not know, and that stands as in `settle`, becomes known: a worker's own, or one that a
        store has lost.
        """
        ...

    async def release(self, lease: Lease, *, called: bool) -> None:
        """Gives a lease back before an outcome. After a call it counts as lost at once; before one, as not made."""
        ...

    async def settle(self, lease: Lease, state: State, outcome: bytes) -> Settled | None:
        """Moves the request to a terminal state and keeps the outcome until it is confirmed.

        Exactly one caller wins and gets None. Others get how it ended, or what stands in their way: a `Settled`
        whose state is not terminal says that another claim holds the lease now, or that it was given back.
        """
        ...

    async def reschedule(
        self, lease: Lease, state: State, *, task_version: int, next_attempt: int, summary: bytes
    ) -> Rescheduled:
        """Ends the claim of task `task_version` with another try to come: RETRY_SCHEDULED, or QUEUED elsewhere.

        The version is then one above the lease's, and the next task carries it. Replies are those of `settle`, or
        `CalledOff`, and nothing has changed.
        """
        ...


class StateStore(ClaimStore, Protocol):
    """Everything that is asked of the shared state."""

    async def admit(self, arrival: Arrival, limits: Limits) -> Admission:
        """Remembers a request once, counts it, and notes its deadline. A redriven one begins another life.

        `Settled`: this very record was refused before, or may have been; its end may not be published yet.
        A request whose record is older than the store itself, and that is not known here, is in doubt: its claim
        will say `history_missing`.
        """
        ...

    async def refuse(self, arrival: Arrival, state: State, outcome: bytes, *, version: int = 1) -> Refusal:
        """Remembers a request that ends at the door (REJECTED, EXPIRED) with its outcome, without counting it.

        `Settled` is the end to publish: this one, or the one that the same record met before. `Admitted`: the same
        record was admitted before, and cannot be refused any more; it goes on, or is ended by claim and settle.
        """
        ...

    async def requeue(
        self, request_id: str, *, task_version: int, attempt: int, summary: bytes, deadline_ms: int, redrives: int = 0
    ) -> Requeued:
        """The wait of task `task_version` is over: QUEUED. `Moved` tells the version of the task to publish."""
        ...

    async def end(self, seen: Known, state: State, outcome: bytes, *, version: int | None = None) -> Settled | None:
        """Ends a request that nobody holds, from outside of a lane. Replies are those of `settle`.

        `version` is the one that it ends with: the next one, unless others may have told of that.

        It fails where the request has changed since it was seen.
        """
        ...

    async def overdue(self, *, limit: int) -> list[str]:
        """Ids of requests that are not known to have ended and should have, of every shard, up to `limit` of each.

        Past their deadline, or cancelled and left over.
        """
        ...

    async def look(self, request_ids: Sequence[str]) -> list[Known]:
        """What is known of these requests. Those that are not known are left out."""
        ...

    def counted(self) -> AsyncIterator[list[str]]:
        """Ids of all that is admitted and not ended, in batches. What comes or goes meanwhile may be left out."""
        ...

    async def cancel(self, request_ids: Sequence[str]) -> None:
        """Marks requests as cancelled: their holders hear of it at the next renewal, others at their claim."""
        ...

    async def forbid(self, cancellation: Cancellation) -> None:
        """Notes a cancellation for requests that are still on their way to `admit`."""
        ...

    async def confirm(self, ends: Sequence[Ended]) -> None:
        """These ends are in Kafka: their outcomes need not be kept. One that was not known here is noted.

        An end that came from outside of a lane keeps its outcome until it was published as a whole: no task's offset
        tells of that.
        """
        ...

    async def outstanding(self) -> tuple[int, int]:
        """Requests and bytes admitted and not yet ended."""
        ...

    async def adopt(self, task: FoundTask) -> None:
        """Notes a task that was found in Kafka after this store was emptied, unless more is known of its request."""
        ...

    async def is_restored(self) -> bool:
        """Whether what this store lost at its birth has been read back from Kafka (`restored`)."""
        ...

    async def is_same_run(self) -> bool:
        """Whether no restart or failover came since `restored`: one may have lost the last steps. True if unknown."""
        ...

    async def restored(self) -> None:
        """The ends that Kafka holds are confirmed again: what was seen by the two questions above is mended."""
        ...

    async def close(self) -> None: ...
