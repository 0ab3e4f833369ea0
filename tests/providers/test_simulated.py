import asyncio
import itertools
import json
from pathlib import Path
from typing import Any

import pytest

from connectors.providers.base import Answered, ComparisonInput, Failed, Text
from connectors.providers.reading_ease import reading_ease
from connectors.providers.simulated import SimulatedProvider
from connectors.providers.simulated_options import Overrides, SimulatedOptions
from policy.comparison import COMPARISON_SCHEMA, parse_comparison
from schemas.request import Message
from schemas.result import Comparison
from schemas.vocabulary import FailureCategory, Role
from tests.providers.calls import QUESTION, a_call, answer_of, events_of, failure_of, outcome_of

ESSAYS = Path(__file__).parents[2] / "examples" / "essays.jsonl"
EASY = "The dog ran. The sun was hot. We all sat in the shade and ate our lunch."
HARD = "Notwithstanding considerable administrative difficulties, institutional accountability predominates."


def a_provider(**options: Any) -> SimulatedProvider:
    """Without waits, unless told otherwise."""
    fast = {"latency_ms": 0, "first_token_ms": 0, "tokens_per_second": 1e6}
    return SimulatedProvider("simulated", SimulatedOptions.model_validate(fast | options))


async def verdict_on(essay_a: str, essay_b: str) -> Comparison:
    comparison = ComparisonInput(prompt="Which is better?", essay_a=essay_a, essay_b=essay_b)
    answer = await answer_of(a_provider(), a_call(comparison=comparison, response_schema=COMPARISON_SCHEMA))
    verdict = parse_comparison(answer.text)
    assert isinstance(verdict, Comparison)
    return verdict


async def test_the_easier_text_wins() -> None:
    """The verdict follows reading ease, and quotes both scores."""
    verdict = await verdict_on(EASY, HARD)
    assert verdict.winner == "Essay A"
    assert f"{reading_ease(EASY).score:.1f}" in verdict.justification
    assert f"{reading_ease(HARD).score:.1f}" in verdict.justification


async def test_position_does_not_matter() -> None:
    """Swapping the essays swaps the winner, and nothing else."""
    one, other = await verdict_on(EASY, HARD), await verdict_on(HARD, EASY)
    assert (one.winner, other.winner) == ("Essay A", "Essay B")
    assert one.confidence == other.confidence


async def test_equally_easy_texts_are_told_apart_wherever_they_stand() -> None:
    """A tie is broken by the texts themselves, with the lowest confidence."""
    one, other = await verdict_on("The cat sat.", "The dog ran."), await verdict_on("The dog ran.", "The cat sat.")
    assert {one.winner, other.winner} == {"Essay A", "Essay B"}
    assert one.confidence == other.confidence == 1.0


async def test_the_same_text_twice_goes_to_essay_a() -> None:
    """Nothing tells them apart, so the first one is named, with the lowest confidence."""
    verdict = await verdict_on(EASY, EASY)
    assert (verdict.winner, verdict.confidence) == ("Essay A", 1.0)


async def test_confidence_grows_with_the_difference() -> None:
    """The further apart two texts are, the surer the judgement, up to 5.0."""
    longer = "The dog ran and ran until the sun had gone down and the long day was over for him."
    near, far = await verdict_on(EASY, longer), await verdict_on(EASY, HARD)
    assert 1.0 <= near.confidence < far.confidence <= 5.0


async def test_real_essays_come_out_ranked() -> None:
    """All 66 pairs of a dozen essays give one order without a circle: each rank has its own number of wins."""
    essays = [json.loads(line) for line in ESSAYS.read_text(encoding="utf-8").splitlines()]
    assert len(essays) == 12
    assert {essay["author"] for essay in essays} == {"Hamilton", "Jay", "Madison"}
    wins = dict.fromkeys((essay["number"] for essay in essays), 0)
    pairs = list(itertools.combinations(essays, 2))
    assert len(pairs) == 66
    for first, second in pairs:
        verdict = await verdict_on(first["text"], second["text"])
        wins[(first if verdict.winner == "Essay A" else second)["number"]] += 1
    assert sorted(wins.values()) == list(range(12))


async def test_a_chat_is_answered_without_pretence() -> None:
    """The answer counts the words of the last user message, and says that no language model made it."""
    messages = (
        Message(role=Role.USER, content="Hello."),
        Message(role=Role.ASSISTANT, content="Hello to you."),
        Message(role=Role.USER, content=QUESTION),
    )
    answer = await answer_of(a_provider(), a_call(messages=messages, model="reading-ease-1"))
    assert "without a language model" in answer.text
    assert f"{reading_ease(QUESTION).words} words" in answer.text
    assert (answer.finish_reason, answer.model) == ("stop", "reading-ease-1")
    assert answer.usage is not None
    assert answer.usage.input_tokens > len(QUESTION.split())
    assert answer.usage.output_tokens > 0


@pytest.mark.parametrize("stream", [False, True])
async def test_the_same_call_gives_the_same_events(stream: bool) -> None:
    """Two providers of the same seed cannot be told apart."""
    call = a_call(stream=stream)
    assert await events_of(a_provider(), call) == await events_of(a_provider(), call)


async def test_a_stream_is_the_answer_in_pieces() -> None:
    """Streaming gives the pieces and then the same answer as a whole; without it, the answer alone."""
    streamed, whole = await events_of(a_provider(), a_call(stream=True)), await events_of(a_provider(), a_call())
    *pieces, answer = streamed
    assert len(pieces) > 3
    assert isinstance(answer, Answered)
    assert "".join(piece.text for piece in pieces if isinstance(piece, Text)) == answer.text
    assert whole == [answer]


async def test_failures_come_at_their_rate_and_repeat() -> None:
    """A share of requests fails, the same ones in each run of a seed, others with another seed."""

    async def failing(seed: int) -> set[int]:
        provider = a_provider(seed=seed, failure_rate=0.3, failure="overloaded")
        outcomes = [await outcome_of(provider, a_call(request_id=f"r{number}")) for number in range(200)]
        return {number for number, outcome in enumerate(outcomes) if isinstance(outcome, Failed)}

    first = await failing(1)
    assert 30 < len(first) < 90
    assert await failing(1) == first
    assert await failing(2) != first


@pytest.mark.parametrize("category", [FailureCategory.RATE_LIMITED, FailureCategory.AUTHENTICATION])
async def test_a_request_may_ask_for_a_failure(category: FailureCategory) -> None:
    """`simulated.fail` fails in that way, with its verdict on retries."""
    failed = await failure_of(a_provider(), a_call(metadata={"simulated.fail": category}))
    assert failed.problem.category is category
    assert failed.problem.retryable is (category is FailureCategory.RATE_LIMITED)


async def test_a_failure_may_ask_to_wait() -> None:
    """`simulated.retry_after_seconds` goes into the problem."""
    metadata = {"simulated.fail": "rate_limited", "simulated.retry_after_seconds": "7"}
    assert (await failure_of(a_provider(), a_call(metadata=metadata))).problem.retry_after_seconds == 7


async def test_only_the_first_attempts_fail() -> None:
    """`simulated.fail_attempts` lets later attempts succeed."""
    metadata = {"simulated.fail": "server_error", "simulated.fail_attempts": "2"}
    provider = a_provider()
    outcomes = [await outcome_of(provider, a_call(metadata=metadata, attempt=attempt)) for attempt in (1, 2, 3)]
    assert [type(outcome) for outcome in outcomes] == [Failed, Failed, Answered]


async def test_a_stream_may_break_off() -> None:
    """`simulated.truncate` ends half-way: some pieces, then a truncated failure that may have been billed."""
    *pieces, last = await events_of(a_provider(), a_call(stream=True, metadata={"simulated.truncate": "true"}))
    assert pieces
    assert isinstance(last, Failed)
    assert last.problem.category is FailureCategory.TRUNCATED
    assert last.possibly_billed


async def test_a_request_may_bring_its_answer() -> None:
    """`simulated.answer` is answered word for word, so that tests can have what no rule would say."""
    answer = await answer_of(a_provider(), a_call(metadata={"simulated.answer": " not { json "}, stream=True))
    assert answer.text == " not { json "


async def test_no_answer_by_a_schema_is_made_up() -> None:
    """A JSON schema needs a language model: the request is refused."""
    failed = await failure_of(a_provider(), a_call(response_schema={"type": "object"}))
    assert failed.problem.category is FailureCategory.INVALID_REQUEST


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("simulated.latency_ms", "soon"),
        ("simulated.latency_ms", "-1"),
        ("simulated.latency_ms", "nan"),
        ("simulated.tokens_per_second", "0"),
        ("simulated.fail", "badly"),
        ("simulated.fail", "queue_full"),
        ("simulated.fail_attempts", "0"),
        ("simulated.hang", "perhaps"),
        ("simulated.speed", "5"),
    ],
)
async def test_a_bad_override_is_the_request_s_fault(key: str, value: str) -> None:
    """It fails with the key that is wrong, and is not guessed at."""
    failed = await failure_of(a_provider(), a_call(metadata={key: value, "other": "left alone"}))
    assert failed.problem.category is FailureCategory.INVALID_REQUEST
    assert failed.problem.field == f"metadata.{key}"
    assert failed.problem.message.startswith(f"{key}: ")


def test_every_way_to_misbehave_ends_with_its_attempts() -> None:
    """`fail_attempts` covers all of them, so that a new one is not forgotten."""
    misbehaving = Overrides(
        fail=FailureCategory.UNKNOWN, truncate=True, stall=True, hang=True, fail_attempts=1, answer="x"
    )
    assert misbehaving.for_attempt(1) is misbehaving
    assert misbehaving.for_attempt(2) == Overrides(fail_attempts=1, answer="x")


@pytest.mark.parametrize(
    ("metadata", "stream"),
    [
        ({"simulated.hang": "true"}, False),
        ({"simulated.stall": "true"}, True),
        ({"simulated.latency_ms": "3600000"}, False),
        ({"simulated.first_token_ms": "3600000"}, True),
    ],
)
async def test_a_call_that_waits_ends_when_it_is_cancelled(metadata: dict[str, str], stream: bool) -> None:
    """Hanging, stalling or just slow: cancelling ends the call at once."""
    async with asyncio.timeout(60):
        task = asyncio.create_task(events_of(a_provider(), a_call(metadata=metadata, stream=stream)))
        await asyncio.sleep(0)
        assert not task.done()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


@pytest.mark.parametrize("options", [{"latency": 1}, {"latency_ms": -1}, {"failure_rate": 2}, {"failure": "bad"}])
def test_wrong_options_are_refused(options: dict[str, Any]) -> None:
    """Options are checked by name and by range."""
    with pytest.raises(ValueError, match=next(iter(options))):
        SimulatedOptions.model_validate(options)
