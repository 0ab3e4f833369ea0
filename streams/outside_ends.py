"""Ends that come from outside of a lane: a deadline that has passed, or a cancellation."""

import asyncio
from collections.abc import Callable, Sequence

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


async def end_from_outside(
    context: StageContext,
    ending: Ending,
    known: Known,
    state: State,
    why: Callable[[Summary], Problem],
    *,
    may_end: Callable[[], bool] = lambda: True,
) -> Ended | None:
    """Ends a request that nobody holds, and publishes its end. None: it cannot be ended now, or has changed.

    `may_end` is asked last: whether what was seen can still be believed.
    """
    summary = load_summary(known.summary)
    if known.held_ms > 0 or summary is None:
        return None
    attempts = [*summary.attempts, *lost_attempts(summary, known)]
    ended = summary.model_copy(update={"attempts": attempts})
    result = results.end_of(ended, state, version=known.version + 1, now=context.now(), problem=why(summary))
    if not may_end():
        return None
    settled = await ending.end(known, result)
    if settled is None:
        return None
    # All calls: whoever made the last one may have died before it was on record.
    await ending.publish(settled, known.request_id, [], origins_of(summary))
    return Ended(known.request_id, settled.state, settled.version)


async def end_all_from_outside(
    context: StageContext,
    ending: Ending,
    found: Sequence[Known],
    state: State,
    why: Callable[[Summary], Problem],
    *,
    may_end: Callable[[], bool] = lambda: True,
) -> int:
    """Ends what can be ended, some at a time. Returns how many that were; one that fails keeps up no other."""
    count = 0
    for start in range(0, len(found), MAX_AT_ONCE):
        some = found[start : start + MAX_AT_ONCE]
        ended = await asyncio.gather(
            *(end_from_outside(context, ending, known, state, why, may_end=may_end) for known in some),
            return_exceptions=True,
        )
        published: list[Ended] = []
        for known, outcome in zip(some, ended, strict=True):
            if isinstance(outcome, StateUnavailableError):
                log.warning("not_ended_yet", request_id=known.request_id, state=state, error=str(outcome))
            elif isinstance(outcome, Exception):
                log.error("not_ended", request_id=known.request_id, state=state, exc_info=outcome)
            elif isinstance(outcome, BaseException):
                raise outcome
            elif outcome is not None:
                published.append(outcome)
        await ending.confirm(published)
        count += len(published)
    return count


async def publish_again(ending: Ending, known: Known) -> None:
    """Publishes an end whose settler may have died before it did."""
    summary = load_summary(known.summary)
    origins = NOWHERE if summary is None else origins_of(summary)
    await ending.publish(Settled(known.state, known.version, known.outcome), known.request_id, [], origins)
    await ending.confirm([Ended(known.request_id, known.state, known.version)])


def lost_attempts(summary: Summary, known: Known) -> list[Attempt]:
    """The calls that left no outcome: the one of a lapsed lease, and one that nobody can rule out."""
    lost = [*known.lost_calls, *([known.running] if known.running else [])]
    if known.in_doubt and not lost:
        number = summary.attempts[-1].attempt + 1 if summary.attempts else 1
        lost = [LostCall(attempt=number, owner="unknown", started_ms=epoch_ms(summary.queued_at))]
    return [results.lost_attempt(summary, number=c.attempt, owner=c.owner, started_ms=c.started_ms) for c in lost]
