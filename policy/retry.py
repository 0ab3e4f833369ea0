"""What follows a failed call: another try later, another provider at once, or the end. Pure: chance is an argument."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from policy.catalogue import Catalogue
from policy.routing import alternatives
from schemas.attempt import Attempt, Problem
from schemas.request import LLMRequest
from schemas.task import LaneTask, RoutingDecision
from schemas.vocabulary import AttemptOutcome, ProcessingMode


@dataclass(frozen=True, kw_only=True, slots=True)
class RetryPolicy:
    """How often and how soon. Waits are drawn between 0 and `base_seconds * factor ** retries`, capped ("full jitter").

    Source: Brooker, Exponential Backoff and Jitter, AWS Architecture Blog, 2015.
    """

    max_retries: int = 3
    base_seconds: float = 2.0
    factor: float = 4.0
    max_seconds: float = 600.0


@dataclass(frozen=True, slots=True)
class RetryLater:
    """The same provider again, not before `at`."""

    at: datetime


@dataclass(frozen=True, slots=True)
class FailOver:
    """Another provider, at once."""

    decision: RoutingDecision


@dataclass(frozen=True, slots=True)
class GiveUp:
    """No further call. `why` goes into the problem's message; empty where the failure speaks for itself."""

    why: str = ""


NextStep = RetryLater | FailOver | GiveUp


def after_failure(
    task: LaneTask,
    attempts: Sequence[Attempt],
    problem: Problem,
    *,
    catalogue: Catalogue,
    policy: RetryPolicy,
    now: datetime,
    chance: float,
) -> NextStep:
    """What to do after the last of `attempts` failed with `problem`. `chance` is drawn evenly from [0, 1)."""
    if not problem.retryable:
        return GiveUp()
    retries = made_calls(attempts) - 1
    if retries >= policy.max_retries:
        return GiveUp(f"after {made_calls(attempts)} calls")
    if _may_move(task.request):
        tried = {attempt.provider for attempt in attempts}
        elsewhere = next(iter(alternatives(task.request, catalogue, besides=tried)), None)
        if elsewhere is not None:
            return FailOver(elsewhere)
    if task.request.processing_mode is ProcessingMode.IMMEDIATE:
        return GiveUp("not tried again: processing_mode is immediate")
    at = retry_at(policy, retries=max(0, retries), now=now, chance=chance, retry_after=problem.retry_after_seconds)
    if at >= task.deadline_at:
        return GiveUp("the next try would come after the deadline")
    return RetryLater(at)


def made_calls(attempts: Iterable[Attempt]) -> int:
    """Calls that were made for certain: one whose outcome was lost does not count against the retries."""
    return sum(attempt.outcome is not AttemptOutcome.LOST for attempt in attempts)


def retry_at(policy: RetryPolicy, *, retries: int, now: datetime, chance: float, retry_after: float | None) -> datetime:
    """When to try again. What the provider asks for is never shortened; the drawn wait comes on top of it."""
    longest = min(policy.max_seconds, policy.base_seconds * policy.factor**retries)
    wait = chance * longest
    if retry_after is not None:
        # All who were turned away together come back spread out.
        wait = retry_after + min(wait, longest * 0.1)
    at = now + timedelta(seconds=wait)
    # Up, to the milliseconds that records carry: cut off, they would shorten it.
    return at + timedelta(microseconds=-at.microsecond % 1000)


def delay_for(delays_seconds: Iterable[int], *, remaining_seconds: float) -> int:
    """The delay topic for a task that has this long to wait.

    The longest that is not too long; what then remains goes through a shorter one. Less than the shortest waits there,
    and is let go when due.
    """
    shortest_first = sorted(delays_seconds)
    fitting = [delay for delay in shortest_first if delay <= remaining_seconds]
    return fitting[-1] if fitting else shortest_first[0]


def _may_move(request: LLMRequest) -> bool:
    return request.allow_failover and request.provider is None
