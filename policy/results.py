"""How a request's end is put into words: results, and the events that announce them. Pure."""

from dataclasses import dataclass, field
from datetime import datetime

from schemas.attempt import Attempt, Problem, Usage
from schemas.base import milliseconds_between
from schemas.request import LLMRequest
from schemas.result import Answer, LLMResult, Timings
from schemas.status import StatusEvent
from schemas.task import LaneTask
from schemas.vocabulary import Kind, State


@dataclass(frozen=True, kw_only=True, slots=True)
class Identity:
    """Who a request is, as far as could be read."""

    request_id: str
    tenant_id: str = "default"
    user_id: str | None = None
    correlation_id: str | None = None
    kind: Kind = Kind.CHAT
    metadata: dict[str, str] = field(default_factory=dict)


def identity(request: LLMRequest) -> Identity:
    """The identity of a request that was read in full."""
    return Identity(
        request_id=request.request_id,
        tenant_id=request.tenant_id,
        user_id=request.user_id,
        correlation_id=request.correlation_id,
        kind=request.kind,
        metadata=dict(request.metadata),
    )


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


def end_on_a_lane(
    task: LaneTask,
    state: State,
    *,
    version: int,
    attempts: list[Attempt],
    now: datetime,
    answer: Answer | None = None,
    problem: Problem | None = None,
) -> LLMResult:
    """The result of a request that a worker settles."""
    who = identity(task.request)
    provider_ms = sum(attempt.duration_ms for attempt in attempts if attempt.outcome != "lost")
    total_ms = milliseconds_between(task.submitted_at, now)
    call_began = attempts[-1].started_at if attempts else now
    costs = [attempt.cost_usd for attempt in attempts]
    return LLMResult(
        request_id=who.request_id,
        tenant_id=who.tenant_id,
        user_id=who.user_id,
        correlation_id=who.correlation_id,
        kind=who.kind,
        status=state,
        state_version=version,
        answer=answer,
        problem=problem,
        provider=task.decision.provider,
        model=task.decision.model,
        usage=total_usage(attempts),
        cost_usd=None if not costs or None in costs else sum(cost for cost in costs if cost is not None),
        attempts=attempts,
        timings=Timings(
            queued_ms=milliseconds_between(task.submitted_at, task.queued_at),
            waiting_ms=milliseconds_between(task.queued_at, call_began),
            provider_ms=provider_ms,
            overhead_ms=max(0.0, total_ms - provider_ms),
            total_ms=total_ms,
        ),
        possibly_billed_calls=sum(attempt.possibly_billed for attempt in attempts),
        submitted_at=task.submitted_at,
        finished_at=now,
        metadata=who.metadata,
    )


def total_usage(attempts: list[Attempt]) -> Usage | None:
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
    task: LaneTask, state: State, *, version: int, attempt: int, now: datetime, possibly_billed_calls: int = 0
) -> StatusEvent:
    """The event of a request that is queued or being processed."""
    request = task.request
    return StatusEvent(
        type=state.event_type,
        request_id=request.request_id,
        tenant_id=request.tenant_id,
        user_id=request.user_id,
        correlation_id=request.correlation_id,
        kind=request.kind,
        state=state,
        state_version=version,
        attempt=attempt,
        provider=task.decision.provider,
        model=task.decision.model,
        occurred_at=now,
        submitted_at=task.submitted_at,
        possibly_billed_calls=possibly_billed_calls,
    )
