"""Ends that come from outside of a lane: a deadline that has passed, or a cancellation."""

from collections.abc import Callable

import structlog

from connectors.state.base import Known, Settled
from policy import results
from policy.summary import Summary, load_summary
from schemas import Attempt
from schemas.attempt import Problem
from schemas.vocabulary import State
from streams.context import StageContext
from streams.ending import Ending, origins_of

log = structlog.get_logger(__name__)


async def end_from_outside(
    context: StageContext, ending: Ending, known: Known, state: State, why: Callable[[Summary], Problem]
) -> bool:
    """Ends a request that nobody holds, and publishes its end. False: it cannot be ended now, or has changed."""
    summary = load_summary(known.summary)
    if known.held_ms > 0 or summary is None:
        return False
    attempts = [*summary.attempts, *lost_attempts(summary, known)]
    ended = summary.model_copy(update={"attempts": attempts})
    result = results.end_of(ended, state, version=known.version + 1, now=context.now(), problem=why(summary))
    settled = await ending.end(known, result)
    if settled is None:
        return False
    await ending.publish(settled, known.request_id, [], origins_of(summary, published_attempts=len(summary.attempts)))
    return True


async def publish_again(ending: Ending, known: Known) -> None:
    """Publishes an end whose settler may have died before it did."""
    await ending.publish(Settled(known.state, known.version, known.outcome), known.request_id, [])


def lost_attempts(summary: Summary, known: Known) -> list[Attempt]:
    """The calls that left no outcome, the one of a lapsed lease among them."""
    lost = [*known.lost_calls, *([known.running] if known.running else [])]
    return [results.lost_attempt(summary, number=c.attempt, owner=c.owner, started_ms=c.started_ms) for c in lost]
