"""Leases of running calls: renewed together while they run, and the way to interrupt a call from outside of it."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from enum import StrEnum, auto
from typing import TypeVar

import structlog

from connectors.state.base import Lease, StateUnavailableError
from connectors.state.store import ClaimStore
from schemas.request import LLMRequest

T = TypeVar("T")
log = structlog.get_logger(__name__)

RENEWALS_PER_LEASE = 3


class Interruption(StrEnum):
    """Why a call was ended from outside."""

    LEASE_LOST = auto()
    CANCELLED = auto()
    SHUTDOWN = auto()


class HeldLease:
    """A lease in use, and the request it is for. `interrupt` ends the call that `run` waits for, and nothing else.

    `was_called`: a call was begun under it. What was interrupted before that has cost nothing.
    """

    def __init__(self, lease: Lease, request: LLMRequest) -> None:
        self.lease = lease
        self.request = request
        self.interruption: Interruption | None = None
        self.was_called = False
        self._scope: asyncio.Timeout | None = None

    def interrupt(self, reason: Interruption) -> None:
        if self.interruption is None:
            self.interruption = reason
            if self._scope is not None:
                self._scope.reschedule(asyncio.get_running_loop().time())

    async def run(self, start_call: Callable[[], Awaitable[T]]) -> T | Interruption:
        """The call's own result, or why it was ended."""
        if self.interruption is not None:
            return self.interruption
        self.was_called = True
        self._scope = scope = asyncio.timeout(None)
        try:
            async with scope:
                return await start_call()
        except TimeoutError:
            reason = self._interruption_seen()
            if reason is None or not scope.expired():
                raise
            return reason
        finally:
            self._scope = None

    def _interruption_seen(self) -> Interruption | None:
        return self.interruption


class LeaseKeeper:
    """Renews all leases of a process in one step, a few times per lease length."""

    def __init__(self, state: ClaimStore, *, lease_seconds: float) -> None:
        self._state = state
        self._lease_ms = int(lease_seconds * 1000)
        self._interval_seconds = lease_seconds / RENEWALS_PER_LEASE
        self._held: dict[tuple[str, int], HeldLease] = {}
        self._task: asyncio.Task[None] | None = None
        self._soon = asyncio.Event()
        self.is_closing = False

    @property
    def lease_ms(self) -> int:
        return self._lease_ms

    def start(self) -> None:
        self._task = asyncio.create_task(self._renew_forever(), name="lease-keeper")

    def renew_soon(self) -> None:
        """Without waiting for the next time."""
        self._soon.set()

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    @asynccontextmanager
    async def hold(self, lease: Lease, request: LLMRequest) -> AsyncIterator[HeldLease]:
        """Keeps the lease alive for the length of the block."""
        key = (lease.request_id, lease.fence)
        held = self._held[key] = HeldLease(lease, request)
        if self.is_closing:
            # It was claimed while all others were interrupted.
            held.interrupt(Interruption.SHUTDOWN)
        try:
            yield held
        finally:
            del self._held[key]

    def interrupt_all(self, reason: Interruption) -> int:
        """Ends all running calls, and lets none begin. Returns how many leases were held."""
        self.is_closing = True
        for held in list(self._held.values()):
            held.interrupt(reason)
        return len(self._held)

    def cancel(self, wanted: Callable[[LLMRequest], bool]) -> int:
        """Ends the calls of these requests. Returns how many that were."""
        cancelled = [held for held in self._held.values() if wanted(held.request)]
        for held in cancelled:
            held.interrupt(Interruption.CANCELLED)
        return len(cancelled)

    async def _renew_forever(self) -> None:
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(self._interval_seconds):
                    await self._soon.wait()
            self._soon.clear()
            leases = [held.lease for held in self._held.values()]
            if not leases:
                continue
            try:
                renewal = await self._state.renew(leases, lease_ms=self._lease_ms)
            except StateUnavailableError as error:
                log.warning("leases_not_renewed", count=len(leases), error=str(error))
                continue
            except Exception:
                log.exception("leases_not_renewed", count=len(leases))
                continue
            for lease in renewal.lost:
                log.warning("lease_lost", request_id=lease.request_id, attempt=lease.attempt)
                self._interrupt(lease, Interruption.LEASE_LOST)
            for lease in renewal.cancelled:
                self._interrupt(lease, Interruption.CANCELLED)

    def _interrupt(self, lease: Lease, reason: Interruption) -> None:
        held = self._held.get((lease.request_id, lease.fence))
        if held is not None:
            held.interrupt(reason)
