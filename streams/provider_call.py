"""One call of a lane's provider for one task: made within its lease, judged, measured, and put on record."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from connectors import metrics
from connectors.providers.base import Answered, Call, ComparisonInput, Failed, Provider
from policy.answers import accept_answer, question_of
from policy.catalogue import ProviderEntry
from policy.failures import problem, speaks_of_provider
from policy.pricing import Prices, cost_usd
from schemas import Attempt, LaneTask
from schemas.attempt import Problem
from schemas.result import Answer
from schemas.vocabulary import AttemptOutcome, FailureCategory, Kind
from streams.calling import CallReport, OnText, make_call
from streams.context import Clock
from streams.gating import CallOutcome
from streams.leases import HeldLease, Interruption


@dataclass(frozen=True, kw_only=True, slots=True)
class CallResult:
    """A call and what it brought: an answer, or the problem of its attempt. `outcome` is for the gate."""

    attempt: Attempt
    answer: Answer | None
    outcome: CallOutcome

    @property
    def problem(self) -> Problem | None:
        return self.attempt.problem


class ProviderCaller:
    """Calls one provider. Safe for many calls at once."""

    def __init__(
        self, provider: Provider, *, name: str, entry: ProviderEntry, prices: Prices, worker: str, now: Clock
    ) -> None:
        self._provider = provider
        self._name = name
        self._entry = entry
        self._prices = prices
        self._worker = worker
        self._now = now
        self.on_call: Callable[..., None] | None = None

    async def call(self, task: LaneTask, number: int, held: HeldLease, *, on_text: OnText) -> CallResult | Interruption:
        """Makes call number `number`, or says why it was ended before it had an outcome, or was not made at all."""
        began = self._now()
        clock = asyncio.get_running_loop().time
        clock_began = clock()
        seconds_left = (task.deadline_at - began).total_seconds()
        metrics.waiting_seconds.labels(self._name).observe(max(0.0, (began - task.queued_at).total_seconds()))
        with metrics.calls_in_flight.labels(self._name).track_inprogress():
            report = await held.run(
                lambda: make_call(
                    self._provider,
                    call_of(task, number),
                    timeouts=self._entry.timeouts,
                    seconds_to_deadline=seconds_left,
                    on_text=on_text,
                )
            )
        if isinstance(report, CallReport):
            return self._judged(task, number, report, began)
        if report is not Interruption.CANCELLED or not held.was_called:
            return report
        called_off = Failed(
            problem=problem(FailureCategory.CANCELLED, "cancelled while the provider was being called"),
            possibly_billed=True,
        )
        ended = CallReport(outcome=called_off, duration_seconds=clock() - clock_began, first_token_seconds=None)
        return self._judged(task, number, ended, began)

    def _judged(self, task: LaneTask, number: int, report: CallReport, began: datetime) -> CallResult:
        outcome = report.outcome
        answer: Answer | None = None
        found: Problem | None
        if isinstance(outcome, Answered):
            accepted = accept_answer(
                task.request,
                text=outcome.text,
                finish_reason=outcome.finish_reason,
                model=outcome.model,
                provider_request_id=outcome.provider_request_id,
            )
            answer, found = (None, accepted) if isinstance(accepted, Problem) else (accepted, None)
        else:
            found = outcome.problem
        attempt = self._attempt(task, number, report, began, found)
        self._measure(report, attempt)
        learned = CallOutcome(
            failed_by=found.category if found else None,
            # An answer that came whole and does not fit says nothing about the provider.
            speaks_of_provider=isinstance(outcome, Failed) and speaks_of_provider(outcome.problem.category),
            tokens=attempt.usage.total_tokens if attempt.usage else None,
            cost_usd=attempt.cost_usd,
            limits=outcome.limits,
            retry_after_seconds=found.retry_after_seconds if found else None,
        )
        return CallResult(attempt=attempt, answer=answer, outcome=learned)

    def _attempt(
        self, task: LaneTask, number: int, report: CallReport, began: datetime, found: Problem | None
    ) -> Attempt:
        outcome = report.outcome
        first = report.first_token_seconds
        return Attempt(
            request_id=task.request.request_id,
            tenant_id=task.request.tenant_id,
            attempt=number,
            provider=self._name,
            model=outcome.model if isinstance(outcome, Answered) else task.decision.model,
            outcome=AttemptOutcome.FAILED if found else AttemptOutcome.ANSWERED,
            started_at=began,
            ended_at=self._now(),
            duration_ms=report.duration_seconds * 1000,
            time_to_first_token_ms=None if first is None else first * 1000,
            usage=outcome.usage,
            cost_usd=cost_usd(self._prices, task.decision.model, outcome.usage) if outcome.usage else None,
            provider_request_id=outcome.provider_request_id,
            problem=found,
            possibly_billed=outcome.possibly_billed if isinstance(outcome, Failed) else found is not None,
            worker=self._worker,
        )

    def _measure(self, report: CallReport, attempt: Attempt) -> None:
        if self.on_call is not None:
            self.on_call(duration_ms=attempt.duration_ms, answered=attempt.problem is None)
        label = attempt.problem.category if attempt.problem else "answered"
        metrics.call_seconds.labels(self._name, label).observe(report.duration_seconds)
        if attempt.usage is not None:
            metrics.tokens_used.labels(self._name, "input").inc(attempt.usage.input_tokens)
            metrics.tokens_used.labels(self._name, "output").inc(attempt.usage.output_tokens)


def call_of(task: LaneTask, number: int) -> Call:
    """What the provider is asked."""
    request = task.request
    question = question_of(request)
    comparison = None
    if request.kind is Kind.COMPARISON:
        comparison = ComparisonInput(
            prompt=request.prompt or "", essay_a=request.essay_a or "", essay_b=request.essay_b or ""
        )
    return Call(
        request_id=request.request_id,
        attempt=number,
        model=task.decision.model,
        messages=question.messages,
        parameters=request.parameters,
        response_schema=question.response_schema,
        response_schema_name=question.schema_name,
        stream=request.stream,
        comparison=comparison,
        metadata=dict(request.metadata),
    )
