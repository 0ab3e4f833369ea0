"""How a request's end is put into words: results, and the events that announce them. Pure."""

from collections.abc import Sequence
from datetime import UTC, datetime
from itertools import pairwise

from policy.failures import problem as make_problem
from policy.summary import Identity, Summary
from schemas.attempt import Attempt, Problem, Usage
from schemas.base import milliseconds_between
from schemas.result import Answer, LLMResult, Timings
from schemas.status import StatusEvent
from schemas.vocabulary import AttemptOutcome, FailureCategory, State


def end_at_the_door(
    who: Identity, state: State, problem: Problem, *, version: int, submitted_at: datetime, now: datetime
) -> LLMResult:
    """The result of a request that never reached a lane."""
    total_ms = milliseconds_between(submitted_at, now)
    return LLMResult(
        request_id=who.request_id,
        tenant_id=who.tenant_id,
        user_id=who.user_id,
        correlation_id=who.correlation_id,
        kind=who.kind,
        status=state,
        state_version=version,
        problem=problem,
        timings=Timings(total_ms=total_ms, overhead_ms=total_ms),
        submitted_at=submitted_at,
        finished_at=now,
        metadata=who.metadata,
    )


def end_of(
    summary: Summary,
    state: State,
    *,
    version: int,
    now: datetime,
    answer: Answer | None = None,
    problem: Problem | None = None,
) -> LLMResult:
    """The result of a request that was admitted, with the calls made for it."""
    attempts = summary.attempts
    provider_ms = sum(attempt.duration_ms for attempt in attempts if attempt.outcome is not AttemptOutcome.LOST)
    delayed_ms = sum(
        milliseconds_between(failed.ended_at, following.started_at)
        for failed, following in pairwise(attempts)
        if failed.outcome is not AttemptOutcome.LOST
    )
    total_ms = milliseconds_between(summary.submitted_at, now)
    call_began = attempts[0].started_at if attempts else now
    costs = [attempt.cost_usd for attempt in attempts]
    return LLMResult(
        request_id=summary.request_id,
        tenant_id=summary.tenant_id,
        user_id=summary.user_id,
        correlation_id=summary.correlation_id,
        kind=summary.kind,
        status=state,
        state_version=version,
        answer=answer,
        problem=problem,
        provider=summary.provider,
        model=summary.model,
        usage=total_usage(attempts),
        cost_usd=None if not costs or None in costs else sum(cost for cost in costs if cost is not None),
        attempts=attempts,
        timings=Timings(
            queued_ms=milliseconds_between(summary.submitted_at, summary.queued_at),
            waiting_ms=milliseconds_between(summary.queued_at, call_began),
            provider_ms=provider_ms,
            delayed_ms=delayed_ms,
            overhead_ms=max(0.0, total_ms - provider_ms - delayed_ms),
            total_ms=total_ms,
        ),
        possibly_billed_calls=sum(attempt.possibly_billed for attempt in attempts),
        submitted_at=summary.submitted_at,
        finished_at=now,
        metadata=summary.metadata,
    )


def lost_attempt(summary: Summary, *, number: int, owner: str, started_ms: int) -> Attempt:
    """The record of a call that nobody lived to report."""
    started = datetime.fromtimestamp(started_ms / 1000, UTC)
    return Attempt(
        request_id=summary.request_id,
        tenant_id=summary.tenant_id,
        attempt=number,
        provider=summary.provider,
        model=summary.model,
        outcome=AttemptOutcome.LOST,
        started_at=started,
        ended_at=started,
        duration_ms=0.0,
        problem=make_problem(
            FailureCategory.OUTCOME_LOST, "the lease ended with no outcome: the worker died or was cut off"
        ),
        possibly_billed=True,
        worker=owner,
    )


def total_usage(attempts: Sequence[Attempt]) -> Usage | None:
    """Tokens of all attempts that reported any."""
    reported = [attempt.usage for attempt in attempts if attempt.usage is not None]
    if not reported:
        return None
    return Usage(
        input_tokens=sum(usage.input_tokens for usage in reported),
        output_tokens=sum(usage.output_tokens for usage in reported),
        cached_input_tokens=sum(usage.cached_input_tokens for usage in reported),
    )


def ending_event(result: LLMResult) -> StatusEvent:
    """The terminal event of a result: always the same one, however often it is made."""
    problem = result.problem
    return StatusEvent(
        type=result.status.event_type,
        request_id=result.request_id,
        tenant_id=result.tenant_id,
        user_id=result.user_id,
        correlation_id=result.correlation_id,
        kind=result.kind,
        state=result.status,
        state_version=result.state_version,
        attempt=result.attempts[-1].attempt if result.attempts else 0,
        provider=result.provider,
        model=result.model,
        reason=problem.category if problem else None,
        message=problem.message if problem else None,
        occurred_at=result.finished_at,
        submitted_at=result.submitted_at,
        possibly_billed_calls=result.possibly_billed_calls,
        timings=result.timings,
    )


def progress_event(
    summary: Summary,
    state: State,
    *,
    version: int,
    attempt: int,
    now: datetime,
    problem: Problem | None = None,
    retry_at: datetime | None = None,
) -> StatusEvent:
    """The event of a request that goes on. `problem` is what made it wait, or move, where something did."""
    return StatusEvent(
        type=state.event_type,
        request_id=summary.request_id,
        tenant_id=summary.tenant_id,
        user_id=summary.user_id,
        correlation_id=summary.correlation_id,
        kind=summary.kind,
        state=state,
        state_version=version,
        attempt=attempt,
        provider=summary.provider,
        model=summary.model,
        reason=problem.category if problem else None,
        message=problem.message if problem else None,
        occurred_at=now,
        submitted_at=summary.submitted_at,
        retry_at=retry_at,
        possibly_billed_calls=sum(each.possibly_billed for each in summary.attempts),
    )
