"""The lane stage: takes a provider's tasks, calls it, and publishes what follows.

claim -> PROCESSING -> call -> settle -> result, attempt records and the terminal event, together; or, after a failure
that may pass: claim -> PROCESSING -> call -> reschedule -> RETRY_SCHEDULED and a delay topic, or another lane.

What was decided is stored before it is published: a crash between the two publishes it again and calls nobody again.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from uuid import uuid4

import structlog

from connectors import metrics
from connectors.state.base import (
    Busy,
    CalledOff,
    Claim,
    Claimed,
    LostCall,
    Moved,
    Settled,
    Stale,
    StateUnavailableError,
    TaskRef,
)
from connectors.tracing import outgoing, processing_span
from policy import results, validation
from policy.catalogue import ProviderEntry
from policy.failures import problem
from policy.retry import FailOver, GiveUp, RetryLater, RetryPolicy, after_failure
from policy.routing import denial
from policy.summary import Summary, asked_at, dump_summary, load_summary, summary_of
from schemas import Attempt, LaneTask, LLMRequest
from schemas.attempt import Problem
from schemas.base import epoch_ms
from schemas.codec import CodecError
from schemas.result import Answer
from schemas.vocabulary import AttemptOutcome, DuplicatePolicy, FailureCategory, State
from streams.context import Delivery, StageContext
from streams.deltas import DeltaPublisher
from streams.ending import Ending, origins_of
from streams.gating import Permit
from streams.leases import HeldLease, Interruption, LeaseKeeper
from streams.moving import Mover, summary_after
from streams.own_claims import EndsOfOthers
from streams.patience import patiently
from streams.provider_call import ProviderCaller
from streams.records import RecordWriter

log = structlog.get_logger(__name__)

MIN_BUSY_SECONDS = 0.05
MAX_BUSY_SECONDS = 1.0
"""How soon to look again at a request that somebody else holds: its lease may end early, by an end."""
NOT_KNOWN_MS = 200
MAX_LOST_CALLS = 3
"""A request that takes its workers down with it may not be called, and paid for, until its deadline."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _End:
    """How the request ends, and the attempts that led there."""

    state: State
    attempts: list[Attempt]
    answer: Answer | None = None
    problem: Problem | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class _Move:
    """The request goes on: after a wait, or on another lane."""

    state: State
    summary: Summary


@dataclass(frozen=True, kw_only=True, slots=True)
class _Turn:
    """A task while its lease is held: `earlier` are the calls before this one, those that were lost among them."""

    task: LaneTask
    claim: Claimed
    held: HeldLease
    permit: Permit
    earlier: list[Attempt]
    began_ms: int

    @property
    def number(self) -> int:
        """Of the call to make: those before it are numbered without a gap from the task's own."""
        return self.task.attempt + len(self.earlier) - len(self.task.history)


class Lane:
    """Handles one task of a provider's lane at a time. Safe to run many at once."""

    def __init__(
        self,
        context: StageContext,
        *,
        name: str,
        entry: ProviderEntry,
        caller: ProviderCaller,
        leases: LeaseKeeper,
        ending: Ending,
        retry: RetryPolicy,
        chance: Callable[[], float] = random.random,
        is_called_off: Callable[[LLMRequest], bool] = lambda _: False,
        record_own_call: Callable[[Delivery], Awaitable[bool]] | None = None,
        ends_of_others: EndsOfOthers | None = None,
    ) -> None:
        """`is_called_off` tells what this process has heard of cancellations, before the shared state does.

        `record_own_call` leaves word of a call that the shared state does not know of. False: it is not to be made.
        `ends_of_others` knows whether a call of which a worker before has left word has ended its request.
        """
        self._context = context
        self._name = name
        self._entry = entry
        self._caller = caller
        self._leases = leases
        self._ending = ending
        self._retry = retry
        self._chance = chance
        self._is_called_off = is_called_off
        self._record_own_call = record_own_call
        self._ends_of_others = ends_of_others
        self._writer = RecordWriter(context.codec, context.settings.topics, f"/sluice/lane/{name}")
        self._mover = Mover(context, self._writer)
        self._cut_off: dict[str, list[LostCall]] = {}
        """Calls that were given up with their lease, by the record that is still worked on."""

    async def handle(self, delivery: Delivery, permit: Permit) -> float | None:
        """Everything that the task causes is in Kafka when this returns None; else when to come back, in seconds."""
        try:
            task = await patiently("decode", lambda: self._context.codec.decode(LaneTask, delivery.value))
        except CodecError as error:
            permit.leave(None)
            await self._ending.set_aside_task(delivery, error)
            return None
        attributes = {"messaging.system": "kafka", "messaging.destination.name": delivery.topic}
        with processing_span(f"process lane {self._name}", delivery.headers, attributes, is_linked=bool(task.history)):
            if self._leases.is_closing:
                raise asyncio.CancelledError
            cut_off = self._cut_off.setdefault(delivery.origin, [])
            try:
                pause_seconds = await self._advance(task, delivery, permit, cut_off)
            except asyncio.CancelledError:
                self._cut_off.pop(delivery.origin, None)
                raise
            if pause_seconds is None:
                self._cut_off.pop(delivery.origin, None)
            return pause_seconds

    async def _advance(
        self, task: LaneTask, delivery: Delivery, permit: Permit, cut_off: list[LostCall]
    ) -> float | None:
        """One claim and what follows from it."""
        # By its record, where it does not say so itself: a cancellation from before does not concern it.
        request = task.request.model_copy(update={"submitted_at": asked_at(task)})
        ref = TaskRef(
            version=task.state_version,
            attempt=task.attempt,
            size_bytes=len(delivery.value),
            deadline_ms=epoch_ms(task.deadline_at),
            redrives=task.redrive_count,
            may_have_been_called=delivery.may_have_been_called,
            is_doubtful=task.is_repeat or not delivery.is_surely_new,
            is_called_off=self._is_called_off(request),
        )
        claim = await self._claim(task.request.request_id, ref, delivery)
        match claim:
            case Busy(retry_after_ms):
                return min(MAX_BUSY_SECONDS, max(MIN_BUSY_SECONDS, retry_after_ms / 1000))
            case Stale():
                metrics.duplicates_ignored.labels("lane").inc()
                return None
            case Moved(state, version, stored):
                return await self._move_again(task, state, version, stored)
            case Settled():
                metrics.duplicates_ignored.labels("lane").inc()
                await self._publish_end(task, claim)
                return None
        # What came while the claim was under way has found nobody who holds the lease.
        if self._is_called_off(request):
            claim = replace(claim, cancelled=True)
        async with self._leases.hold(claim.lease, request) as held:
            decided = await self._work(task, claim, held, permit, cut_off)
        match decided:
            case None:
                return MIN_BUSY_SECONDS
            case Settled():
                await self._publish_end(task, decided)
            case _Move():
                version = claim.lease.version + 1
                await self._mover.publish(task, decided.summary, decided.state, version=version, trace=outgoing())
        return None

    async def _claim(self, request_id: str, task: TaskRef, delivery: Delivery) -> Claim:
        others = self._ends_of_others
        if task.may_have_been_called and others is not None and not others.are_known(delivery.origin):
            return Busy(NOT_KNOWN_MS)
        claims, token = self._context.claims, uuid4().hex
        claim = await patiently(
            "claim",
            lambda: claims.claim(
                request_id, owner=self._context.worker, lease_ms=self._leases.lease_ms, token=token, task=task
            ),
        )
        is_own = isinstance(claim, Claimed) and claim.lease.is_own
        if is_own and self._record_own_call and not await self._record_own_call(delivery):
            return Busy(0)
        return claim

    async def _work(
        self, task: LaneTask, claim: Claimed, held: HeldLease, permit: Permit, cut_off: list[LostCall]
    ) -> Settled | _Move | None:
        """Decides the request's next step, and stores it. None: the lease was lost on the way."""
        summary = summary_of(task)
        earlier = [*task.history, *(_lost_attempt(summary, lost) for lost in known_lost_calls(task, claim, cut_off))]
        began_ms = epoch_ms(self._context.now())
        turn = _Turn(task=task, claim=claim, held=held, permit=permit, earlier=earlier, began_ms=began_ms)
        started = results.progress_event(
            summary.model_copy(update={"attempts": earlier}),
            State.PROCESSING,
            version=claim.lease.version,
            attempt=turn.number,
            now=self._context.now(),
        )
        trace = outgoing()
        announcing = asyncio.create_task(self._context.producer.send(self._writer.status(started, trace)))
        deltas = DeltaPublisher(self._context.producer, self._writer, task.request, attempt=turn.number)
        try:
            decided = self._end_without_call(turn) or await self._call(turn, deltas)
            stored = await self._store(turn, decided) if decided is not None else None
            if stored is None and held.was_called:
                cut_off.append(LostCall(attempt=turn.number, owner=self._context.worker, started_ms=turn.began_ms))
            if decided is None:
                await self._interrupted(held)
            return stored
        finally:
            # After the settle: an answer that is paid for does not wait for its tokens to be written.
            await deltas.finish()
            await announcing

    def _end_without_call(self, turn: _Turn) -> _End | None:
        task, claim, earlier = turn.task, turn.claim, turn.earlier
        if claim.cancelled:
            return _called_off(earlier, "before the provider was called")
        if self._context.now() >= task.deadline_at:
            return _End(state=State.EXPIRED, attempts=earlier, problem=validation.deadline_passed(task.deadline_at))
        refused = denial(task.request, self._name, self._entry) or turn.permit.refusal
        if refused is not None:
            return _End(state=State.FAILED, attempts=earlier, problem=refused)
        lost = sum(attempt.outcome is AttemptOutcome.LOST for attempt in earlier)
        if lost >= MAX_LOST_CALLS:
            gone = problem(
                FailureCategory.OUTCOME_LOST,
                f"{lost} calls left no outcome: it may be this request that ends its workers",
                remedy="look at the workers' logs before you send it again",
            )
            return _End(state=State.FAILED, attempts=earlier, problem=gone)
        in_doubt = len(earlier) > len(task.history)
        if in_doubt and task.request.duplicate_policy is DuplicatePolicy.FAIL:
            unknown = problem(
                category=FailureCategory.OUTCOME_LOST,
                message="the outcome of a call was lost, and duplicate_policy is fail",
                remedy="look for the call at the provider before you send it again",
            )
            return _End(state=State.FAILED, attempts=earlier, problem=unknown)
        return None

    async def _call(self, turn: _Turn, deltas: DeltaPublisher) -> _End | _Move | None:
        """What follows from a call, or None when it was interrupted, or ruled out before it began."""
        task = turn.task
        on_text = deltas.add if task.request.stream else _ignore
        called = await self._caller.call(task, turn.number, turn.held, on_text=on_text)
        if isinstance(called, Interruption):
            turn.permit.leave(None)
            if called is Interruption.CANCELLED:
                return _called_off(turn.earlier, "before the provider was called")
            return None
        turn.permit.leave(called.outcome)
        attempts = [*turn.earlier, called.attempt]
        found = called.problem
        if found is None:
            return _End(state=State.COMPLETED, attempts=attempts, answer=called.answer)
        if turn.held.interruption is Interruption.CANCELLED:
            return _called_off(attempts, "while the provider was being called")
        if found.category is FailureCategory.DEADLINE:
            return _End(state=State.EXPIRED, attempts=attempts, problem=found)
        return self._after_failure(task, attempts, found)

    def _after_failure(self, task: LaneTask, attempts: list[Attempt], found: Problem) -> _End | _Move:
        following = after_failure(
            task,
            attempts,
            found,
            catalogue=self._context.catalogue,
            policy=self._retry,
            now=self._context.now(),
            chance=self._chance(),
        )
        match following:
            case RetryLater(at):
                return _Move(state=State.RETRY_SCHEDULED, summary=summary_after(task, attempts, retry_at=at))
            case FailOver(decision):
                return _Move(state=State.QUEUED, summary=summary_after(task, attempts, decision=decision))
            case GiveUp(why):
                last = found.model_copy(update={"message": f"{found.message} ({why})"}) if why else found
                return _End(state=State.FAILED, attempts=attempts, problem=last)

    async def _store(self, turn: _Turn, decided: _End | _Move) -> Settled | _Move | None:
        """What is to be published: this, or how the request had ended before. None: the lease was lost."""
        lease = turn.claim.lease
        if isinstance(decided, _End):
            result = results.end_of(
                summary_after(turn.task, decided.attempts),
                decided.state,
                version=lease.version + 1,
                now=self._context.now(),
                answer=decided.answer,
                problem=decided.problem,
            )
            return await self._ending.settle(lease, result)
        earlier = await patiently(
            "reschedule",
            lambda: self._context.claims.reschedule(
                lease,
                decided.state,
                task_version=turn.task.state_version,
                next_attempt=decided.summary.attempts[-1].attempt + 1,
                summary=dump_summary(decided.summary),
            ),
        )
        if earlier is None:
            return decided
        if isinstance(earlier, CalledOff):
            return await self._store(turn, _called_off(decided.summary.attempts, "after a call that failed"))
        if earlier.state.is_terminal:
            return earlier
        log.warning("fenced", request_id=lease.request_id, attempt=lease.attempt)
        return None

    async def _move_again(self, task: LaneTask, state: State, version: int, stored: bytes) -> float | None:
        """The step was decided, and its records may not be in Kafka."""
        summary = load_summary(stored)
        if summary is None:
            log.error("summary_unreadable", request_id=task.request.request_id)
            raise ValueError(f"the shared state of {task.request.request_id} cannot be read")
        await self._mover.publish(task, summary, state, version=version, trace=outgoing())
        return None

    async def _publish_end(self, task: LaneTask, settled: Settled) -> None:
        origins = origins_of(summary_of(task), published_attempts=len(task.history))
        await self._ending.publish(settled, task.request.request_id, outgoing(), origins)

    async def _interrupted(self, held: HeldLease) -> None:
        """After a lost lease the claim is asked for again; on shutdown the record is left to another worker."""
        if held.interruption is Interruption.SHUTDOWN:
            # With Redis away the lease ends by itself, a little later.
            with suppress(StateUnavailableError):
                await self._context.claims.release(held.lease, called=held.was_called)
            raise asyncio.CancelledError


def _called_off(attempts: list[Attempt], when: str) -> _End:
    return _End(
        state=State.CANCELLED, attempts=attempts, problem=problem(FailureCategory.CANCELLED, f"cancelled {when}")
    )


def known_lost_calls(task: LaneTask, claim: Claimed, cut_off: Sequence[LostCall] = ()) -> list[LostCall]:
    """The calls since the task was put on its lane that left no outcome.

    `cut_off` are those that this process made and had to give up: the shared state knows them as well, unless it was
    emptied meanwhile. Where it has lost the beginning of this life, nobody can tell whether there was a call: it counts
    as one, if none is known.
    """
    by_us = {call.owner for call in cut_off}
    told = sum(call.owner in by_us for call in claim.lost_calls)
    lost = [*cut_off[: max(0, len(cut_off) - told)], *claim.lost_calls]
    if claim.history_missing and not lost:
        lost.insert(0, LostCall(attempt=0, owner="unknown", started_ms=epoch_ms(task.queued_at)))
    return [replace(call, attempt=task.attempt + index) for index, call in enumerate(lost)]


def _lost_attempt(summary: Summary, lost: LostCall) -> Attempt:
    return results.lost_attempt(summary, number=lost.attempt, owner=lost.owner, started_ms=lost.started_ms)


async def _ignore(_text: str) -> None:
    """Nobody asked for pieces."""
