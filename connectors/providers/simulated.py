"""A provider without a model: it judges by reading ease, so that a real ranking comes out of real essays.

It never pretends to be a language model: every answer says by which rule it was made. The answer depends on the
input alone; waits and failures on seed, request_id and attempt. The same call gives the same answer, always.

Comparison: the text with the higher Flesch reading ease wins, wherever it stands. Equally easy texts are told apart
by their SHA-256 (so that swapping A and B still swaps the winner), and the same text twice gives Essay A; both with
confidence 1.0. Otherwise confidence is 1 + 4 x (1 - exp(-difference / 10)): 2.6 at 5 points, 3.5 at 10, 4.5 at 20.

Tokens are simulated as well: four for every three words.
"""

import asyncio
import hashlib
import json
import math
import random
import re
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AbstractAsyncContextManager, aclosing
from dataclasses import dataclass

from connectors.providers.base import Answered, Call, CallEvent, ComparisonInput, Failed, Text
from connectors.providers.call_journal import CallJournal
from connectors.providers.errors import ProviderConfigurationError
from connectors.providers.reading_ease import ReadingEase, reading_ease
from connectors.providers.simulated_options import Overrides, SimulatedOptions, read_overrides
from policy.failures import possibly_billed, problem
from schemas.attempt import Problem, Usage
from schemas.vocabulary import FailureCategory, Role

CONFIDENCE_SCALE = 10.0
"""Points of reading ease over which confidence does most of its growing."""

_PIECE = re.compile(r"\s*\S+\s*|\s+")


class SimulatedProvider:
    """Safe for many calls at once; holds nothing but its options and, if asked for, a journal."""

    def __init__(self, name: str, options: SimulatedOptions) -> None:
        self.name = name
        self._options = options
        try:
            self._journal = CallJournal(options.journal_path) if options.journal_path else None
        except OSError as error:
            raise ProviderConfigurationError(name, f"journal_path: {error}") from error

    def open(self, call: Call) -> AbstractAsyncContextManager[AsyncIterator[CallEvent]]:
        return aclosing(self._journaled(call) if self._journal else self._events(call))

    async def close(self) -> None:
        if self._journal:
            self._journal.close()
            self._journal = None

    async def _journaled(self, call: Call) -> AsyncGenerator[CallEvent, None]:
        journal = self._journal
        if journal is None:
            raise RuntimeError("called without a journal, or after close")
        journal.write(call, "start")
        ended = False
        try:
            async with aclosing(self._events(call)) as events:
                async for event in events:
                    if not isinstance(event, Text):
                        ended = True
                        journal.write(call, "answered" if isinstance(event, Answered) else "failed")
                    yield event
        finally:
            if not ended:
                journal.write(call, "cancelled")

    async def _events(self, call: Call) -> AsyncGenerator[CallEvent, None]:
        overrides = read_overrides(call.metadata)
        if isinstance(overrides, Problem):
            yield Failed(problem=overrides)
            return
        plan = self._plan(call, overrides.for_attempt(call.attempt))
        if isinstance(plan, Problem):
            yield Failed(problem=plan)
            return
        if plan.never:
            await asyncio.Event().wait()
        await asyncio.sleep(plan.first_seconds)
        if plan.failure is not None:
            billed = possibly_billed(plan.failure.category, request_sent=True, answer_begun=False)
            yield Failed(problem=plan.failure, possibly_billed=billed)
            return
        async with aclosing(_told(plan)) as pieces:
            async for piece in pieces:
                yield piece
        if plan.breaks_off:
            cut = problem(FailureCategory.TRUNCATED, "the answer broke off before its end (simulated)")
            yield Failed(problem=cut, possibly_billed=True, provider_request_id=plan.call_id)
            return
        yield Answered(
            text=plan.text,
            finish_reason="stop",
            model=call.model,
            usage=_usage(call, plan),
            provider_request_id=plan.call_id,
        )

    def _plan(self, call: Call, overrides: Overrides) -> "_Plan | Problem":
        """Everything that will happen in a call, decided before it does."""
        options = self._options
        digest = hashlib.sha256(f"{options.seed}/{call.request_id}/{call.attempt}".encode()).hexdigest()
        dice = random.Random(digest)  # noqa: S311 - repeatable, and no secret
        fails_by_chance = dice.random() < options.failure_rate
        spread = 1 + options.jitter * dice.uniform(-1, 1)
        text = _answer(call, overrides)
        if isinstance(text, Problem):
            return text
        category = overrides.fail or (options.failure if fails_by_chance else None)
        failure = None
        if category is not None:
            failure = problem(
                category, "a failure made up by configuration", retry_after_seconds=overrides.retry_after_seconds
            )
        latency_ms = options.latency_ms if overrides.latency_ms is None else overrides.latency_ms
        first_ms = options.first_token_ms if overrides.first_token_ms is None else overrides.first_token_ms
        return _Plan(
            call_id=f"simulated-{digest[:16]}",
            text=text,
            streamed=call.stream,
            first_seconds=(first_ms if call.stream else latency_ms) * spread / 1000,
            gap_seconds=1 / (overrides.tokens_per_second or options.tokens_per_second),
            never=overrides.hang,
            failure=failure,
            breaks_off=overrides.truncate,
            stalls=overrides.stall,
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class _Plan:
    call_id: str
    text: str
    streamed: bool
    first_seconds: float
    gap_seconds: float
    never: bool
    failure: Problem | None
    breaks_off: bool
    stalls: bool


async def _told(plan: _Plan) -> AsyncGenerator[Text, None]:
    """The pieces of a stream at their pace; half of them, for an answer that breaks off or stalls."""
    pieces = _PIECE.findall(plan.text) if plan.streamed else []
    if plan.breaks_off or plan.stalls:
        pieces = pieces[: len(pieces) // 2]
    clock = asyncio.get_running_loop().time
    began = clock()
    for number, piece in enumerate(pieces):
        # Counted from the start, so that late wake-ups do not add up.
        await asyncio.sleep(max(0.0, began + number * plan.gap_seconds - clock()))
        yield Text(piece)
    if plan.stalls:
        await asyncio.Event().wait()


def _answer(call: Call, overrides: Overrides) -> str | Problem:
    if overrides.answer is not None:
        return overrides.answer
    if call.comparison is not None:
        return compare(call.comparison)
    if call.response_schema is not None:
        return problem(
            FailureCategory.INVALID_REQUEST,
            "the simulated provider cannot answer by a JSON schema",
            field="response_format",
            remedy="name a provider with a language model, or give the answer in metadata as simulated.answer",
        )
    return describe(call)


def compare(comparison: ComparisonInput) -> str:
    """The verdict on two essays, as the JSON text that a comparison must be answered with."""
    a, b = reading_ease(comparison.essay_a), reading_ease(comparison.essay_b)
    difference = abs(a.score - b.score)
    winner = "Essay A" if _ranks_before(comparison.essay_a, a, comparison.essay_b, b) else "Essay B"
    reason = "the easier text wins" if difference else "equally easy texts are told apart by a hash"
    verdict = {
        "winner": winner,
        "justification": (
            f"Flesch reading ease: Essay A {a.score:.1f}, Essay B {b.score:.1f} (higher is easier); {reason}. "
            "A simulated judgement by this rule alone, made without a language model."
        ),
        "confidence": round(1 + 4 * (1 - math.exp(-difference / CONFIDENCE_SCALE)), 2),
    }
    return json.dumps(verdict)


def _ranks_before(text_a: str, a: ReadingEase, text_b: str, b: ReadingEase) -> bool:
    if a.score != b.score:
        return a.score > b.score
    return hashlib.sha256(text_a.encode()).digest() <= hashlib.sha256(text_b.encode()).digest()


def describe(call: Call) -> str:
    """What there is to say about the last user message without understanding it."""
    asked = next((message.content for message in reversed(call.messages) if message.role is Role.USER), "")
    ease = reading_ease(asked)
    return (
        f"Simulated answer, made without a language model. Your message has {ease.words} words in {ease.sentences} "
        f"sentences; its Flesch reading ease is {ease.score:.1f}."
    )


def _usage(call: Call, plan: _Plan) -> Usage:
    return Usage(
        input_tokens=sum(_tokens(message.content) for message in call.messages),
        output_tokens=_tokens(plan.text),
    )


def _tokens(text: str) -> int:
    return -(-len(text.split()) * 4 // 3)
