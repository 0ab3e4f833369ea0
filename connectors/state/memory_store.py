"""The state in memory of one process, by an injected clock: for unit tests, and a readable account of the semantics.

Each step is the twin of a script in `lua/`; states and versions come from `policy.lifecycle`.
"""

import heapq
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from connectors.state.base import (
    Admission,
    Admitted,
    Arrival,
    Busy,
    Claim,
    Claimed,
    Duplicate,
    Full,
    Lease,
    Limits,
    LostCall,
    Settled,
)
from connectors.state.ends import ending_step
from connectors.state.watermarks import Watermarks
from policy.lifecycle import Standing, Step, advance
from schemas.vocabulary import State


@dataclass(kw_only=True, slots=True)
class _Hold:
    """Who holds a lease. `until_ms` is 0 once it was given back."""

    owner: str
    token: str | None
    started_ms: int
    until_ms: int


@dataclass(kw_only=True, slots=True)
class _Request:
    """What is known of one request."""

    standing: Standing
    expires_ms: int
    origin: str | None = None
    deadline_ms: int = 0
    fence: int | None = None
    attempt: int = 1
    hold: _Hold | None = None
    lost_calls: list[LostCall] = field(default_factory=list)
    outcome: bytes | None = None

    @property
    def state(self) -> State:
        return self.standing.state

    def step(self, step: Step) -> None:
        self.standing = advance(self.standing, step)

    def is_held_by(self, lease: Lease) -> bool:
        """Whether nobody claimed after this lease, even if it has lapsed."""
        return self.hold is not None and self.hold.until_ms > 0 and self.fence == lease.fence

    def settled(self) -> Settled:
        return Settled(self.standing.state, self.standing.version, self.outcome)


class MemoryStateStore:
    """Implements `base.StateStore`."""

    def __init__(self, now_ms: Callable[[], int], *, retention_seconds: float = 86_400) -> None:
        self._now_ms = now_ms
        self._retention_ms = int(retention_seconds * 1000)
        self._requests: dict[str, _Request] = {}
        self._expiries: list[tuple[int, str]] = []
        self._counted_bytes: dict[str, int] = {}
        self._is_closed = False

    async def admit(self, arrival: Arrival, limits: Limits) -> Admission:
        known = self._find(arrival.request_id)
        if known is not None:
            return _seen_before(known, arrival)
        requests, size_bytes = await self.outstanding()
        self._is_closed = Watermarks.of(limits).closed(
            was_closed=self._is_closed, requests=requests, size_bytes=size_bytes
        )
        if self._is_closed:
            return Full(requests, size_bytes)
        deadline_ms = max(arrival.deadline_ms, self._now_ms())
        request = _Request(
            standing=advance(None, Step.ADMIT),
            expires_ms=deadline_ms + self._retention_ms,
            origin=arrival.origin,
            deadline_ms=deadline_ms,
        )
        self._keep(arrival.request_id, request)
        self._counted_bytes[arrival.request_id] = arrival.size_bytes
        return Admitted(request.standing.version)

    async def refuse(self, arrival: Arrival, state: State, outcome: bytes) -> Admission:
        step = ending_step(None, state)
        known = self._find(arrival.request_id)
        if known is not None:
            return _seen_before(known, arrival)
        request = _Request(
            standing=advance(None, step),
            expires_ms=self._now_ms() + self._retention_ms,
            origin=arrival.origin,
            outcome=outcome,
        )
        self._keep(arrival.request_id, request)
        return request.settled()

    async def claim(self, request_id: str, *, owner: str, lease_ms: int, token: str | None = None) -> Claim:
        now_ms = self._now_ms()
        request = self._find(request_id)
        if request is None:
            # It had a life once. Versions from the clock are above any that it was given then.
            request = _Request(standing=Standing(State.QUEUED, now_ms // 1000), expires_ms=0)
        if request.state.is_terminal:
            return request.settled()
        hold = request.hold
        if hold is not None and token is not None and hold.token == token:
            hold.until_ms = now_ms + lease_ms
        elif hold is not None and hold.until_ms > now_ms:
            return Busy(hold.until_ms - now_ms)
        else:
            if hold is not None:
                lost = LostCall(attempt=request.attempt, owner=hold.owner, started_ms=hold.started_ms)
                request.lost_calls.append(lost)
                request.attempt += 1
            request.step(Step.CLAIM if hold is None else Step.RECLAIM)
            request.fence = max((request.fence or 0) + 1, now_ms * 1000)
            request.hold = _Hold(owner=owner, token=token, started_ms=now_ms, until_ms=now_ms + lease_ms)
        self._outlive_lease(request_id, request, now_ms + lease_ms)
        lease = Lease(
            request_id=request_id, fence=request.fence or 0, attempt=request.attempt, version=request.standing.version
        )
        return Claimed(lease=lease, lost_calls=tuple(request.lost_calls), history_missing=request.origin is None)

    async def renew(self, leases: Sequence[Lease], *, lease_ms: int) -> list[Lease]:
        until_ms = self._now_ms() + lease_ms
        lost = []
        for lease in leases:
            request = self._find(lease.request_id)
            if request is not None and request.hold is not None and request.is_held_by(lease):
                request.hold.until_ms = until_ms
                self._outlive_lease(lease.request_id, request, until_ms)
            else:
                lost.append(lease)
        return lost

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
        step = ending_step(State.PROCESSING, state)
        request = self._find(lease.request_id)
        if request is None:
            # Lost meanwhile, and ended all the same: an outcome that was paid for is never dropped.
            request = _Request(standing=Standing(State.PROCESSING, lease.version), expires_ms=0, fence=lease.fence)
        elif request.state.is_terminal:
            won_before = request.fence == lease.fence and request.state is state
            return None if won_before else request.settled()
        elif not request.is_held_by(lease):
            return request.settled()
        request.step(step)
        request.outcome = outcome
        request.hold = None
        request.expires_ms = self._now_ms() + self._retention_ms
        self._keep(lease.request_id, request)
        self._counted_bytes.pop(lease.request_id, None)
        return None

    async def published(self, request_ids: Sequence[str]) -> None:
        for request_id in request_ids:
            request = self._find(request_id)
            if request is not None:
                request.outcome = None

    async def outstanding(self) -> tuple[int, int]:
        self._forget_expired()
        return len(self._counted_bytes), sum(self._counted_bytes.values())

    async def close(self) -> None:
        """Nothing to close."""

    def _find(self, request_id: str) -> _Request | None:
        self._forget_expired()
        return self._requests.get(request_id)

    def _keep(self, request_id: str, request: _Request) -> None:
        self._requests[request_id] = request
        heapq.heappush(self._expiries, (request.expires_ms, request_id))

    def _outlive_lease(self, request_id: str, request: _Request, until_ms: int) -> None:
        if until_ms > request.deadline_ms:
            request.expires_ms = until_ms + self._retention_ms
            self._keep(request_id, request)

    def _forget_expired(self) -> None:
        now_ms = self._now_ms()
        while self._expiries and self._expiries[0][0] <= now_ms:
            _, request_id = heapq.heappop(self._expiries)
            request = self._requests.get(request_id)
            # An entry of the heap may be older than the last change of its request's expiry.
            if request is not None and request.expires_ms <= now_ms:
                del self._requests[request_id]
                self._counted_bytes.pop(request_id, None)


def _seen_before(request: _Request, arrival: Arrival) -> Admission:
    if request.fence is not None or request.origin != arrival.origin:
        return Duplicate(request.state)
    if request.state is State.QUEUED:
        return Admitted(request.standing.version, repeated=True)
    return request.settled()
