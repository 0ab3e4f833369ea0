"""The lane stage: takes a provider's tasks, calls it, settles, and publishes how each one ended.

claim -> PROCESSING -> call -> settle -> result, attempt records and the terminal event, together.

The outcome is stored before it is published: a crash between the two publishes it again and calls nobody again.
"""

import asyncio
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from uuid import uuid4

import structlog

from connectors import metrics
from connectors.providers.base import Answered, Call, ComparisonInput, Failed, Provider
from connectors.state.base import Busy, Claimed, LostCall, Settled, StateUnavailableError
from connectors.tracing import outgoing, processing_span
from policy import results, validation
from policy.answers import accept_answer, question_of
from policy.catalogue import ProviderEntry
from policy.failures import problem
from policy.pricing import Prices, cost_usd
from policy.routing import denial
from schemas import Attempt, LaneTask
from schemas.attempt import Problem
from schemas.codec import CodecError
from schemas.result import Answer
from schemas.vocabulary import AttemptOutcome, DuplicatePolicy, FailureCategory, Kind, State
from streams.calling import CallReport, make_call
from streams.context import Delivery, StageContext
from streams.deltas import DeltaPublisher
from streams.ending import Ending
from streams.leases import HeldLease, Interruption, LeaseKeeper
from streams.patience import patiently
from streams.records import RecordWriter

log = structlog.get_logger(__name__)

MIN_BUSY_SECONDS = 0.05
MAX_BUSY_SECONDS = 1.0
MAX_LOST_CALLS = 3
"""A request that takes its workers down with it may not be called, and paid for, until its deadline."""
"""How soon to look again at a request that somebody else holds: its lease may end early, by an end."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Verdict:
    """How the request ends, and the attempts that led there."""

    state: State
    attempts: list[Attempt]
    answer: Answer | None = None
    problem: Problem | None = None


class Lane:
    """Handles one task of a provider's lane at a time. Safe to run many at once: calls are bounded here."""

    def __init__(
        self,
        context: StageContext,
        *,
        name: str,
        entry: ProviderEntry,
        provider: Provider,
        prices: Prices,
        concurrency: int,
        leases: LeaseKeeper,
        ending: Ending,
    ) -> None:
        self._context = context
        self._name = name
        self._entry = entry
        self._provider = provider
        self._prices = prices
        self._call_slots = asyncio.Semaphore(concurrency)
        self._leases = leases
        self._ending = ending
        self._writer = RecordWriter(context.codec, context.settings.topics, f"/sluice/lane/{name}")

    async def handle(self, delivery: Delivery) -> None:
        """Everything that the task causes is in Kafka when this returns."""
        try:
            task = await patiently("decode", lambda: self._context.codec.decode(LaneTask, delivery.value))
        except CodecError as error:
            await self._set_aside(delivery, error)
            return
        attributes = {"messaging.system": "kafka", "messaging.destination.name": delivery.topic}
        with processing_span(f"process lane {self._name}", delivery.headers, attributes):
            while True:
                async with self._call_slots:
                    if self._leases.is_closing:
                        raise asyncio.CancelledError
                    pause_seconds = await self._advance(task)
                if pause_seconds is None:
                    return
                await asyncio.sleep(pause_seconds)

    async def _advance(self, task: LaneTask) -> float | None:
        """One claim and what follows from it. None: it has ended; else when to ask again, for the lease is not ours."""
        request_id = task.request.request_id
        token = uuid4().hex
        claim = await patiently(
            "claim",
            lambda: self._context.state.claim(
                request_id, owner=self._context.worker, lease_ms=self._leases.lease_ms, token=token
            ),
        )
        if isinstance(claim, Busy):
            return min(MAX_BUSY_SECONDS, max(MIN_BUSY_SECONDS, claim.retry_after_ms / 1000))
        if isinstance(claim, Settled):
            metrics.duplicates_ignored.labels("lane").inc()
            settled: Settled | None = claim
        else:
            async with self._leases.hold(claim.lease) as held:
                settled = await self._work(task, claim, held)
        if settled is None:
            return MIN_BUSY_SECONDS
        await self._ending.publish(settled, request_id, outgoing(), copy_to=task.request.result_topic)
        return None

    async def _work(self, task: LaneTask, claim: Claimed, held: HeldLease) -> Settled | None:
        """How the request has ended. None: the lease was lost on the way."""
        lease = claim.lease
        lost_calls = known_lost_calls(task, claim)
        earlier = [*task.history, *(self._lost_attempt(task, lost) for lost in lost_calls)]
        number = lease.attempt + claim.history_missing
        now = self._context.now()
        started = results.progress_event(
            task,
            State.PROCESSING,
            version=lease.version,
            attempt=number,
            now=now,
            possibly_billed_calls=sum(attempt.possibly_billed for attempt in earlier),
        )
        trace = outgoing()
        announcing = asyncio.create_task(self._context.producer.send(self._writer.status(started, trace)))
        deltas = DeltaPublisher(self._context.producer, self._writer, task.request, attempt=number)
        try:
            verdict = self._verdict_without_call(task, claim, earlier, now)
            if verdict is None:
                verdict = await self._call(task, number, held, earlier, deltas)
            if verdict is None:
                await self._interrupted(held)
                return None
            result = results.end_on_a_lane(
                task,
                verdict.state,
                version=lease.version + 1,
                attempts=verdict.attempts,
                now=self._context.now(),
                answer=verdict.answer,
                problem=verdict.problem,
            )
            return await self._ending.settle(lease, result)
        finally:
            # After the settle: an answer that is paid for does not wait for its tokens to be written.
            await deltas.finish()
            await announcing

    def _verdict_without_call(
        self, task: LaneTask, claim: Claimed, earlier: list[Attempt], now: datetime
    ) -> _Verdict | None:
        if now >= task.deadline_at:
            return _Verdict(state=State.EXPIRED, attempts=earlier, problem=validation.deadline_passed(task.deadline_at))
        refused = denial(task.request, self._name, self._entry)
        if refused is not None:
            return _Verdict(state=State.FAILED, attempts=earlier, problem=refused)
        if len(claim.lost_calls) >= MAX_LOST_CALLS:
            gone = problem(
                FailureCategory.OUTCOME_LOST,
                f"{len(claim.lost_calls)} calls left no outcome: it may be this request that ends its workers",
                remedy="look at the workers' logs before you send it again",
            )
            return _Verdict(state=State.FAILED, attempts=earlier, problem=gone)
        in_doubt = claim.newly_lost or claim.history_missing
        if in_doubt and task.request.duplicate_policy is DuplicatePolicy.FAIL:
            lost = problem(
                category=FailureCategory.OUTCOME_LOST,
                message="the outcome of a call was lost, and duplicate_policy is fail",
                remedy="look for the call at the provider before you send it again",
            )
            return _Verdict(state=State.FAILED, attempts=earlier, problem=lost)
        return None

    async def _call(
        self, task: LaneTask, number: int, held: HeldLease, earlier: list[Attempt], deltas: DeltaPublisher
    ) -> _Verdict | None:
        """The verdict of a call, or None when it was interrupted."""
        request = task.request
        call = _call_of(task, number)
        began = self._context.now()
        seconds_left = (task.deadline_at - began).total_seconds()
        metrics.waiting_seconds.labels(self._name).observe(max(0.0, (began - task.queued_at).total_seconds()))
        with metrics.calls_in_flight.labels(self._name).track_inprogress():
            report = await held.run(
                lambda: make_call(
                    self._provider,
                    call,
                    timeouts=self._entry.timeouts,
                    seconds_to_deadline=seconds_left,
                    on_text=deltas.add if request.stream else _ignore,
                )
            )
        if isinstance(report, Interruption):
            return None
        return self._judge(task, number, report, began, earlier)

    def _judge(
        self, task: LaneTask, number: int, report: CallReport, began: datetime, earlier: list[Attempt]
    ) -> _Verdict:
        answer: Answer | None
        problem: Problem | None
        if isinstance(report.outcome, Answered):
            accepted = accept_answer(
                task.request,
                text=report.outcome.text,
                finish_reason=report.outcome.finish_reason,
                model=report.outcome.model,
                provider_request_id=report.outcome.provider_request_id,
            )
            answer, problem = (None, accepted) if isinstance(accepted, Problem) else (accepted, None)
        else:
            answer, problem = None, report.outcome.problem
        attempt = self._attempt_record(task, number, report, began, problem)
        self._measure(report, attempt)
        if problem is None:
            return _Verdict(state=State.COMPLETED, attempts=[*earlier, attempt], answer=answer)
        state = State.EXPIRED if problem.category is FailureCategory.DEADLINE else State.FAILED
        return _Verdict(state=state, attempts=[*earlier, attempt], problem=problem)

    def _attempt_record(
        self, task: LaneTask, number: int, report: CallReport, began: datetime, problem: Problem | None
    ) -> Attempt:
        outcome = report.outcome
        model = outcome.model if isinstance(outcome, Answered) else task.decision.model
        first = report.first_token_seconds
        return Attempt(
            request_id=task.request.request_id,
            tenant_id=task.request.tenant_id,
            attempt=number,
            provider=self._name,
            model=model,
            outcome=AttemptOutcome.FAILED if problem else AttemptOutcome.ANSWERED,
            started_at=began,
            ended_at=self._context.now(),
            duration_ms=report.duration_seconds * 1000,
            time_to_first_token_ms=None if first is None else first * 1000,
            usage=outcome.usage,
            cost_usd=cost_usd(self._prices, task.decision.model, outcome.usage) if outcome.usage else None,
            provider_request_id=outcome.provider_request_id,
            problem=problem,
            possibly_billed=outcome.possibly_billed if isinstance(outcome, Failed) else problem is not None,
            worker=self._context.worker,
        )

    def _lost_attempt(self, task: LaneTask, lost: LostCall) -> Attempt:
        """The record of a call that nobody lived to report."""
        started = datetime.fromtimestamp(lost.started_ms / 1000, UTC)
        return Attempt(
            request_id=task.request.request_id,
            tenant_id=task.request.tenant_id,
            attempt=lost.attempt,
            provider=self._name,
            model=task.decision.model,
            outcome=AttemptOutcome.LOST,
            started_at=started,
            ended_at=started,
            duration_ms=0.0,
            problem=problem(
                category=FailureCategory.OUTCOME_LOST,
                message="the lease ended with no outcome: the worker died or was cut off",
            ),
            possibly_billed=True,
            worker=lost.owner,
        )

    async def _interrupted(self, held: HeldLease) -> None:
        """After a lost lease the claim is asked for again; on shutdown the record is left to another worker."""
        if held.interruption is Interruption.SHUTDOWN:
            # With Redis away the lease ends by itself, a little later.
            with suppress(StateUnavailableError):
                await self._context.state.release(held.lease, called=True)
            raise asyncio.CancelledError

    def _measure(self, report: CallReport, attempt: Attempt) -> None:
        label = attempt.problem.category if attempt.problem else "answered"
        metrics.call_seconds.labels(self._name, label).observe(report.duration_seconds)
        if attempt.usage is not None:
            metrics.tokens_used.labels(self._name, "input").inc(attempt.usage.input_tokens)
            metrics.tokens_used.labels(self._name, "output").inc(attempt.usage.output_tokens)

    async def _set_aside(self, delivery: Delivery, error: CodecError) -> None:
        """A task that this version cannot read is kept byte for byte, and its request ends as failed."""
        log.error("lane_task_undecodable", origin=delivery.origin, error=error.reason, field=error.field)
        why = validation.codec_problem(error)
        who = validation.readable_identity({}, delivery.key)
        letter = self._writer.dead_letter(
            delivery, why, request_id=who.request_id if who else None, tenant_id=who.tenant_id if who else None
        )
        await self._context.producer.send(letter)
        if who is not None:
            await self._ending.fail_admitted(
                who, why, outgoing(), submitted_at=delivery.timestamp, lease_ms=self._leases.lease_ms
            )


def known_lost_calls(task: LaneTask, claim: Claimed) -> list[LostCall]:
    """The calls that left no outcome.

    Where the store has lost the beginning of this life, nobody can tell whether there was a call: it counts as one,
    as number 1, and those that the store does know are numbered after it.
    """
    if not claim.history_missing:
        return list(claim.lost_calls)
    unknown = LostCall(attempt=1, owner="unknown", started_ms=int(task.queued_at.timestamp() * 1000))
    return [unknown, *(replace(lost, attempt=lost.attempt + 1) for lost in claim.lost_calls)]


def _call_of(task: LaneTask, number: int) -> Call:
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


async def _ignore(_text: str) -> None:
    """Nobody asked for pieces."""
