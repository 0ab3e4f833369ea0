"""Ends that come from outside of a lane: a deadline that has passed, or a cancellation."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence

import structlog

from connectors.state.base import Ended, Known, LostCall, Settled, StateUnavailableError
from policy import results
from policy.summary import Summary, load_summary
from schemas import Attempt
from schemas.attempt import Problem
from schemas.base import epoch_ms
from schemas.vocabulary import State
from streams.context import StageContext
from streams.ending import NOWHERE, Ending, origins_of

log = structlog.get_logger(__name__)

MAX_AT_ONCE = 50
"""An end waits for Redis once and for Kafka twice: one after the other, 10,000 of them would take minutes."""

Why = Callable[[Summary], Problem]
CalledAmong = Callable[[Sequence[Summary]], Awaitable[Mapping[str, bool]]]
VERSIONS_APART = 1_000
"""Above the version that is known, where others may have told of some: versions are taken from several clocks."""


class OutsideEnds:
    """Ends requests that nobody holds, and publishes their ends."""

    def __init__(self, context: StageContext, ending: Ending, called_alone: CalledAmong) -> None:
        """`called_alone` tells of queued requests, by id, whether a worker may have called unknown to the state."""
        self._context = context
        self._ending = ending
        self._called_alone = called_alone

    async def end_all(
        self, found: Sequence[Known], state: State, why: Why, *, may_end: Callable[[], bool] = lambda: True
    ) -> int:
        """Ends what can be ended, some at a time. Returns how many that were; one that fails keeps up no other.

        `may_end` is asked last: whether what was seen can still be believed.
        """
        ending: list[tuple[Known, Summary]] = []
        for known in found:
            summary = load_summary(known.summary)
            if known.held_ms == 0 and summary is not None:
                ending.append((known, summary))
        called = await self._maybe_called(ending)
        ending = [(known, summary) for known, summary in ending if known.request_id in called]
        count = 0
        for start in range(0, len(ending), MAX_AT_ONCE):
            some = ending[start : start + MAX_AT_ONCE]
            ended = await asyncio.gather(
                *(
                    self._end(known, summary, state, why, may_end, is_maybe_called=called[known.request_id])
                    for known, summary in some
                ),
                return_exceptions=True,
            )
            published: list[Ended] = []
            for (known, _), outcome in zip(some, ended, strict=True):
                if isinstance(outcome, StateUnavailableError):
                    log.warning("not_ended_yet", request_id=known.request_id, state=state, error=str(outcome))
                elif isinstance(outcome, Exception):
                    log.error("not_ended", request_id=known.request_id, state=state, exc_info=outcome)
                elif isinstance(outcome, BaseException):
                    raise outcome
                elif outcome is not None:
                    published.append(outcome)
            await self._ending.confirm(published)
            count += len(published)
        return count

    async def publish_again(self, known: Known) -> None:
        """Publishes an end whose settler may have died before it did."""
        summary = load_summary(known.summary)
        origins = NOWHERE if summary is None else origins_of(summary)
        await self._ending.publish(Settled(known.state, known.version, known.outcome), known.request_id, [], origins)
        await self._ending.confirm([Ended(known.request_id, known.state, known.version)])

    async def _maybe_called(self, ending: Sequence[tuple[Known, Summary]]) -> Mapping[str, bool]:
        """By id, whether there may have been a call unknown to the shared state; without those that nobody knows of."""
        queued = [summary for known, summary in ending if known.state is State.QUEUED and not known.in_doubt]
        asked = {summary.request_id for summary in queued}
        told = {known.request_id: known.in_doubt for known, _ in ending if known.request_id not in asked}
        return told | dict(await self._called_alone(queued)) if queued else told

    async def _end(
        self,
        known: Known,
        summary: Summary,
        state: State,
        why: Why,
        may_end: Callable[[], bool],
        *,
        is_maybe_called: bool,
    ) -> Ended | None:
        """None: it cannot be ended now, or has changed."""
        now = self._context.now()
        # Whoever called has told of it.
        version = max(known.version + VERSIONS_APART, epoch_ms(now)) if is_maybe_called else known.version + 1
        attempts = [*summary.attempts, *_lost_attempts(summary, known, is_maybe_called=is_maybe_called)]
        ended = summary.model_copy(update={"attempts": attempts})
        result = results.end_of(ended, state, version=version, now=now, problem=why(summary))
        if not may_end():
            return None
        settled = await self._ending.end(known, result)
        if settled is None:
            return None
        # All calls: whoever made the last one may have died before it was on record.
        await self._ending.publish(settled, known.request_id, [], origins_of(summary))
        return Ended(known.request_id, settled.state, settled.version)


def _lost_attempts(summary: Summary, known: Known, *, is_maybe_called: bool) -> list[Attempt]:
    """The calls that left no outcome: the one of a lapsed lease, and one that nobody can rule out."""
    lost = [*known.lost_calls, *([known.running] if known.running else [])]
    if is_maybe_called and not lost:
        number = summary.attempts[-1].attempt + 1 if summary.attempts else 1
        lost = [LostCall(attempt=number, owner="unknown", started_ms=epoch_ms(summary.queued_at))]
    return [results.lost_attempt(summary, number=c.attempt, owner=c.owner, started_ms=c.started_ms) for c in lost]
