"""One provider call within its time limits: connect, first token, gap between pieces, the whole."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass

import structlog

from connectors.providers.base import Answered, Call, CallEvent, Failed, Outcome, Provider, Text
from policy.catalogue import Timeouts
from policy.failures import problem
from schemas.vocabulary import FailureCategory

log = structlog.get_logger(__name__)

OnText = Callable[[str], Awaitable[None]]


@dataclass(frozen=True, kw_only=True, slots=True)
class CallReport:
    """How a call went. Durations in seconds of a monotonic clock."""

    outcome: Outcome
    duration_seconds: float
    first_token_seconds: float | None


async def make_call(
    provider: Provider, call: Call, *, timeouts: Timeouts, seconds_to_deadline: float, on_text: OnText
) -> CallReport:
    """Calls, hands on each piece of text, and returns the one outcome.

    Never raises for what a provider did or failed to do; only for cancellation from outside, after which the
    upstream connection is closed.
    """
    clock = asyncio.get_running_loop().time
    began = clock()
    whole_seconds = min(timeouts.total_seconds, seconds_to_deadline)
    by_deadline = seconds_to_deadline <= timeouts.total_seconds
    reading = _Reading(timeouts, streaming=call.stream, on_text=on_text, clock=clock)
    whole = asyncio.timeout(whole_seconds)
    try:
        async with whole, provider.open(call) as events:
            outcome = await reading.to_the_end(events)
    except TimeoutError:
        if not whole.expired():
            raise
        outcome = _timed_out(
            FailureCategory.DEADLINE if by_deadline else FailureCategory.TIMEOUT_TOTAL,
            f"no end within {whole_seconds:.1f} s" + (", the time until the deadline" if by_deadline else ""),
        )
    except Exception as error:
        # A provider that raises breaks the protocol; the request must not suffer more than a failed attempt.
        log.exception("provider_broke_protocol", provider=provider.name, request_id=call.request_id)
        bug = problem(FailureCategory.UNKNOWN, f"{type(error).__name__} in the connector")
        outcome = Failed(problem=bug, possibly_billed=True)
    first = reading.first_token_at
    return CallReport(
        outcome=outcome,
        duration_seconds=clock() - began,
        first_token_seconds=None if first is None else first - began,
    )


class _Reading:
    """Reads a provider's events under the limits between them."""

    def __init__(self, timeouts: Timeouts, *, streaming: bool, on_text: OnText, clock: Callable[[], float]) -> None:
        # Without streaming the first piece is the whole answer: only the limit of the whole call applies.
        self._first_seconds = timeouts.first_token_seconds if streaming else None
        self._stall_seconds = timeouts.stall_seconds if streaming else None
        self._on_text = on_text
        self._clock = clock
        self.first_token_at: float | None = None

    async def to_the_end(self, events: AsyncIterator[CallEvent]) -> Outcome:
        while True:
            waiting_for_first = self.first_token_at is None
            gap = asyncio.timeout(self._first_seconds if waiting_for_first else self._stall_seconds)
            try:
                async with gap:
                    event = await anext(events, None)
            except TimeoutError:
                if not gap.expired():
                    raise
                return self._too_slow(waiting_for_first)
            if isinstance(event, Text):
                if self.first_token_at is None:
                    self.first_token_at = self._clock()
                await self._on_text(event.text)
            elif isinstance(event, Answered | Failed):
                return event
            else:
                cut = problem(FailureCategory.TRUNCATED, "the stream ended without an outcome")
                return Failed(problem=cut, possibly_billed=True)

    def _too_slow(self, waiting_for_first: bool) -> Failed:
        if waiting_for_first:
            return _timed_out(FailureCategory.TIMEOUT_FIRST_TOKEN, f"no token within {self._first_seconds} s")
        return _timed_out(FailureCategory.TIMEOUT_STALL, f"no further token within {self._stall_seconds} s")


def _timed_out(category: FailureCategory, message: str) -> Failed:
    return Failed(problem=problem(category, message), possibly_billed=True)
