"""The state in memory of one process, by an injected clock: for unit tests, and a readable account of the semantics.

Each step is the twin of a script in `lua/`; states and versions come from `policy.lifecycle`.
"""

import heapq
from collections.abc import AsyncIterator, Callable, Sequence

from connectors.state.base import (
    Admission,
    Admitted,
    Arrival,
    Busy,
    CalledOff,
    Cancellation,
    Claim,
    Doubtful,
    Ended,
    FoundTask,
    Full,
    Known,
    Lease,
    Limits,
    Refusal,
    Renewal,
    Requeued,
    Rescheduled,
    Settled,
    Stale,
    StateUnavailableError,
    TaskRef,
)
from connectors.state.defaults import ANY_TASK, CANCEL_GRACE_MS, FIRST_LIFE
from connectors.state.ends import ending_step, moving_step
from connectors.state.memory_cancellations import MemoryCancellations
from connectors.state.memory_count import MemoryCount
from connectors.state.memory_request import Hold, MemoryRequest
from connectors.state.remembering import after_end, is_forgotten, while_alive
from connectors.state.watermarks import Watermarks
from policy.lifecycle import Standing, Step
from schemas.vocabulary import State

RESTORING_MS = 500
DOUBT_MS = 600_000  # an answer to `Doubtful` comes within this time


class MemoryStateStore:
    """Implements `store.StateStore`. `born_ms`: records older than this are in doubt, as after a loss of all data."""

    def __init__(
        self,
        now_ms: Callable[[], int],
        *,
        retention_seconds: float = 86_400,
        born_ms: int = 0,
        is_restored: bool = True,
    ) -> None:
        self._now_ms = now_ms
        self._retention_ms = int(retention_seconds * 1000)
        self._born_ms = born_ms
        self._restored_ms = born_ms if is_restored else 0
        self._requests: dict[str, MemoryRequest] = {}
        self._expiries: list[tuple[int, str]] = []
        self._count = MemoryCount()
        self._cancellations = MemoryCancellations()
        self._is_closed = False
        self._last_fence = 0

    async def admit(self, arrival: Arrival, limits: Limits) -> Admission:
        known = self._find_proved("admit", arrival.request_id)
        if known is not None and not known.begins_again_with(arrival):
            return known.seen_before(arrival)
        requests, size_bytes = await self.outstanding()
        self._is_closed = Watermarks.of(limits).closed(
            was_closed=self._is_closed, requests=requests, size_bytes=size_bytes
        )
        if self._is_closed:
            return Full(requests, size_bytes)
        deadline_ms = max(arrival.deadline_ms, self._now_ms())
        redrive = arrival.redrive or FIRST_LIFE
        version = max(known.standing.version if known else 0, redrive.state_version) + 1
        request = MemoryRequest(
            standing=Standing(State.QUEUED, version),
            expires_ms=while_alive(deadline_ms, self._retention_ms),
            origin=arrival.origin,
            size_bytes=arrival.size_bytes,
            deadline_ms=deadline_ms,
            attempt=max(known.attempt if known else 0, redrive.attempt) + 1,
            redrives=redrive.count,
            task_version=version,
            summary=arrival.summary,
            in_doubt=arrival.recorded_ms <= self._born_ms,
            is_cancelled=self._cancellations.forbid(
                arrival.request_id, arrival.tenant_id, arrival.correlation_id, asked_ms=arrival.sent_ms
            ),
        )
        self._keep(arrival.request_id, request)
        self._count.add(arrival.request_id, arrival.size_bytes, deadline_ms)
        return Admitted(version, attempt=request.attempt, repeated=request.in_doubt, cancelled=request.is_cancelled)

    async def refuse(self, arrival: Arrival, state: State, outcome: bytes, *, version: int = 1) -> Refusal:
        ending_step(None, state)
        known = self._find_proved("refuse", arrival.request_id)
        if known is not None and not known.begins_again_with(arrival):
            return known.seen_before(arrival)
        if known is None and arrival.recorded_ms <= self._born_ms and version < self._now_ms() - DOUBT_MS:
            return Doubtful(self._now_ms())
        request = MemoryRequest(
            standing=Standing(state, max(version, known.standing.version + 1 if known else 1)),
            expires_ms=self._now_ms() + self._retention_ms,
            origin=arrival.origin,
            size_bytes=known.size_bytes if known else None,
            attempt=known.attempt if known else 0,
            redrives=(arrival.redrive or FIRST_LIFE).count,
            outcome=outcome,
        )
        self._keep(arrival.request_id, request)
        return request.settled()

    async def claim(
        self, request_id: str, *, owner: str, lease_ms: int, token: str | None = None, task: TaskRef | None = None
    ) -> Claim:
        now_ms = self._now_ms()
        task = task or ANY_TASK
        request = self._find(request_id)
        if request is None and not await self.is_restored():
            return Busy(RESTORING_MS)
        if request is None and task.version > 0 and is_forgotten(task.deadline_ms, self._retention_ms, self._now_ms()):
            return Stale()
        if request is None or request.is_behind(task.version, task.redrives):
            request = request or MemoryRequest(standing=Standing(State.QUEUED, 0))
            request.believe_claimed(task)
        elif (without_lease := request.answer_to(task)) is not None:
            return without_lease
        until_ms = now_ms + lease_ms
        hold = request.hold
        if hold is not None and token is not None and hold.token == token:
            hold.until_ms = until_ms
        elif hold is not None and hold.until_ms > now_ms:
            return Busy(hold.until_ms - now_ms)
        else:
            if request.in_doubt or request.size_bytes is None:
                self._count_again(request_id, request, task)
            taken = Hold(owner=owner, token=token, started_ms=now_ms, until_ms=until_ms)
            request.take(taken, task, fence=self._next_fence())
        self._outlive_lease(request_id, request, until_ms)
        return request.claimed(request_id)

    async def renew(self, leases: Sequence[Lease], *, lease_ms: int) -> Renewal:
        until_ms = self._now_ms() + lease_ms
        lost, cancelled = [], []
        for lease in leases:
            request = self._find(lease.request_id)
            stands = request.is_free_for(lease, self._now_ms()) if request else lease.is_own
            if request is not None and stands and request.hold is None:
                request.take_up(lease, self._now_ms())
            if request is not None and request.hold is not None and request.is_held_by(lease):
                request.hold.until_ms = until_ms
                self._outlive_lease(lease.request_id, request, until_ms)
                if request.is_cancelled:
                    cancelled.append(lease)
            elif not stands:
                lost.append(lease)
        return Renewal(lost=tuple(lost), cancelled=tuple(cancelled))

    async def release(self, lease: Lease, *, called: bool) -> None:
        request = self._find(lease.request_id)
        if request is None or request.hold is None or not request.is_held_by(lease):
            return
        if called:
            request.hold.until_ms = 0
            request.hold.token = None
        else:
            request.hold = None
            request.step(Step.RELEASE)

    async def settle(self, lease: Lease, state: State, outcome: bytes) -> Settled | None:
        ending_step(State.PROCESSING, state)
        request = self._find(lease.request_id)
        if request is None:
            # Lost meanwhile, and ended all the same: an outcome that was paid for is never dropped.
            request = MemoryRequest(standing=Standing(State.PROCESSING, lease.version))
        elif request.state.is_terminal:
            won_before = request.fence == lease.fence and request.state is state
            return None if won_before else request.settled()
        elif not request.is_held_by(lease) and not request.is_free_for(lease, self._now_ms()):
            return request.settled()
        request.standing = Standing(state, max(request.standing.version, lease.version) + 1)
        request.fence = lease.fence
        request.outcome = outcome
        self._end(lease.request_id, request)
        self._count.remove(lease.request_id)
        return None

    async def reschedule(
        self, lease: Lease, state: State, *, task_version: int, next_attempt: int, summary: bytes
    ) -> Rescheduled:
        step = moving_step(State.PROCESSING, state)
        request = self._find(lease.request_id)
        if request is None:
            request = MemoryRequest(standing=Standing(State.PROCESSING, lease.version))
            request.expires_ms = while_alive(self._now_ms(), self._retention_ms)
            self._keep(lease.request_id, request)
        elif request.standing == Standing(state, lease.version + 1) and request.fence == lease.fence:
            return None
        elif not request.is_held_by(lease) and not request.is_free_for(lease, self._now_ms()):
            return request.settled()
        elif request.is_cancelled:
            return CalledOff()
        request.standing = Standing(State.PROCESSING, lease.version)
        request.move(step, task_version=task_version, next_attempt=next_attempt, summary=summary)
        request.fence = lease.fence
        request.hold, request.lost_calls, request.in_doubt = None, [], False
        return None

    async def requeue(
        self, request_id: str, *, task_version: int, attempt: int, summary: bytes, deadline_ms: int, redrives: int = 0
    ) -> Requeued:
        request = self._find_proved("requeue", request_id)
        if request is None and is_forgotten(deadline_ms, self._retention_ms, self._now_ms()):
            return Stale()
        if request is None or request.is_behind(task_version, redrives):
            request = request or MemoryRequest(standing=Standing(State.RETRY_SCHEDULED, 0))
            request.believe(State.RETRY_SCHEDULED, task_version, redrives)
            request.deadline_ms = max(deadline_ms, self._now_ms())
            request.expires_ms = while_alive(request.deadline_ms, self._retention_ms)
            self._keep(request_id, request)
        elif request.state.is_terminal:
            return request.settled()
        elif request.state is State.QUEUED and request.waits_after(task_version):
            return request.moved()
        elif request.state is not State.RETRY_SCHEDULED or request.task_version != task_version:
            return Stale()
        request.fence = request.fence or 0
        request.move(Step.REQUEUE, task_version=task_version, next_attempt=attempt, summary=summary)
        return request.moved()

    async def end(self, seen: Known, state: State, outcome: bytes, *, version: int | None = None) -> Settled | None:
        ending_step(seen.state, state)
        end = Standing(state, version or seen.version + 1)
        request = self._find(seen.request_id)
        if request is None:
            return Settled(State.QUEUED, 0, None)
        if request.state.is_terminal:
            won_before = request.standing == end and request.outcome == outcome
            return None if won_before else request.settled()
        is_held = request.hold is not None and request.hold.until_ms > self._now_ms()
        if request.standing.version != seen.version or is_held:
            return request.settled()
        request.standing = end
        request.fence = self._next_fence()
        request.outcome, request.is_outside = outcome, True
        request.size_bytes = request.size_bytes or 0
        self._end(seen.request_id, request, summary=request.summary)
        # Due until it is confirmed: should the caller die now, another one publishes it.
        self._count.add(seen.request_id, request.size_bytes, self._now_ms())
        return None

    async def overdue(self, *, limit: int) -> list[str]:
        self._forget_expired()
        return self._count.due(self._now_ms())[:limit]

    async def look(self, request_ids: Sequence[str]) -> list[Known]:
        found = ((request_id, self._find(request_id)) for request_id in request_ids)
        return [request.known(request_id, self._now_ms()) for request_id, request in found if request is not None]

    async def counted(self) -> AsyncIterator[list[str]]:
        yield self._count.ids

    async def cancel(self, request_ids: Sequence[str]) -> None:
        for request_id in request_ids:
            request = self._find(request_id)
            if request is not None and not request.state.is_terminal:
                request.is_cancelled = True
                self._count.bring_forward(request_id, self._now_ms() + CANCEL_GRACE_MS)

    async def forbid(self, cancellation: Cancellation) -> None:
        self._cancellations.note(cancellation, oldest_ms=self._now_ms() - self._retention_ms)

    async def confirm(self, ends: Sequence[Ended]) -> None:
        for ended in ends:
            request = self._find(ended.request_id)
            if request is not None:
                # Of one that is taken for alive, an end tells unless it is that of a life before.
                known_version = request.standing.version if request.state.is_terminal else request.task_version
                is_newer = min(request.standing.version, known_version) > ended.version
                is_same = request.state.is_terminal and request.standing.version == ended.version
                is_noted = is_same and request.outcome is None
                if is_noted and ended.place is None:
                    request.place = None
                # No task's offset tells whether an end from outside of a lane is published: whoever did so tells.
                is_left_to_others = is_same and ended.place is not None and request.is_outside
                if is_newer or is_noted or is_left_to_others:
                    continue
            kept = MemoryRequest.of(ended, request, next_fence=self._next_fence())
            self._end(ended.request_id, kept)
            if request is not None and request.state.is_terminal:
                kept.expires_ms = request.expires_ms
                self._keep(ended.request_id, kept)
            self._count.remove(ended.request_id)

    async def outstanding(self) -> tuple[int, int]:
        self._forget_expired()
        return self._count.totals

    async def adopt(self, task: FoundTask) -> None:
        known, now_ms = self._find(task.request_id), self._now_ms()
        # A task of a life before says nothing of this one.
        is_cancelled = (known is None or known.redrives <= task.task.redrives) and self._cancellations.forbid(
            task.request_id, task.tenant_id, task.correlation_id, asked_ms=task.asked_ms
        )
        if known is None or not known.is_beyond(task.task):
            known = MemoryRequest.found(task, known, now_ms=now_ms)
            known.expires_ms = while_alive(known.deadline_ms, self._retention_ms)
            self._keep(task.request_id, known)
            self._count.add(task.request_id, task.task.size_bytes, known.deadline_ms)
        elif known.state.is_terminal:
            return
        else:
            known.learn_from(task)
            if known.size_bytes is None:
                self._count_again(task.request_id, known, task.task)
        known.is_cancelled = known.is_cancelled or is_cancelled
        if known.is_cancelled:
            self._count.bring_forward(task.request_id, now_ms)

    async def is_restored(self) -> bool:
        return self._restored_ms == self._born_ms

    async def is_same_run(self) -> bool:
        return True

    async def restored(self) -> None:
        self._restored_ms = self._born_ms

    async def close(self) -> None:
        """Nothing to close."""

    def _find_proved(self, step: str, request_id: str) -> MemoryRequest | None:
        """What is known. What is not may have had a life that is lost, until that is read back."""
        known = self._find(request_id)
        if known is None and self._restored_ms != self._born_ms:
            raise StateUnavailableError(step, "what is in Kafka is not read back yet")
        return known

    def _find(self, request_id: str) -> MemoryRequest | None:
        self._forget_expired()
        return self._requests.get(request_id)

    def _end(self, request_id: str, request: MemoryRequest, *, summary: bytes = b"") -> None:
        request.hold = None
        request.summary = summary
        request.expires_ms = after_end(request.deadline_ms, self._retention_ms, self._now_ms())
        self._keep(request_id, request)

    def _next_fence(self) -> int:
        self._last_fence = max(self._last_fence + 1, self._now_ms() * 1000)
        return self._last_fence

    def _count_again(self, request_id: str, request: MemoryRequest, task: TaskRef) -> None:
        """What this store has lost is counted from its task."""
        request.deadline_ms = max(request.deadline_ms, task.deadline_ms, self._now_ms())
        request.expires_ms = while_alive(request.deadline_ms, self._retention_ms)
        self._keep(request_id, request)
        if request.size_bytes is None and task.version > 0:
            request.size_bytes = task.size_bytes
        if request.size_bytes is not None:
            self._count.add(request_id, request.size_bytes, request.deadline_ms)

    def _keep(self, request_id: str, request: MemoryRequest) -> None:
        self._requests[request_id] = request
        heapq.heappush(self._expiries, (request.expires_ms, request_id))

    def _outlive_lease(self, request_id: str, request: MemoryRequest, until_ms: int) -> None:
        if until_ms > request.deadline_ms:
            request.expires_ms = while_alive(until_ms, self._retention_ms)
            self._keep(request_id, request)

    def _forget_expired(self) -> None:
        now_ms = self._now_ms()
        while self._expiries and self._expiries[0][0] <= now_ms:
            _, request_id = heapq.heappop(self._expiries)
            request = self._requests.get(request_id)
            # An entry of the heap may be older than the last change of its request's expiry.
            if request is not None and request.expires_ms <= now_ms:
                del self._requests[request_id]
                self._count.remove(request_id)
