"""The same providers against somebody else's simulator of their APIs (see `tests/support/aimock.py`)."""

import os
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from connectors.providers.base import Answered, Call, Failed, Provider, Text
from connectors.providers.http_client import new_http_client
from connectors.providers.registry import build_provider
from policy.catalogue import ProviderEntry
from policy.comparison import COMPARISON_SCHEMA, parse_comparison
from schemas.attempt import Usage
from schemas.request import Message
from schemas.result import Comparison
from schemas.vocabulary import FailureCategory as F
from schemas.vocabulary import Role
from tests.providers.calls import a_call, answer_of, events_of, failure_of
from tests.support.aimock import aimock, missing_programs
from tests.support.fault_cases import VERDICT

ANSWER = "The moon turns once on its axis while it goes once around us, and so it always shows one face."
USAGE = {"prompt_tokens": 11, "completion_tokens": 3, "total_tokens": 14}
FIXTURES: list[dict[str, Any]] = [
    {"match": {"userMessage": "moon"}, "response": {"content": ANSWER, "usage": USAGE}},
    {"match": {"userMessage": "compare"}, "response": {"content": VERDICT}},
    {"match": {"userMessage": "cut"}, "response": {"content": ANSWER, "finishReason": "length"}},
    {
        "match": {"userMessage": "slow down"},
        "response": {"error": {"message": "Slow down", "type": "rate_limit_error"}, "status": 429, "retryAfter": 7},
    },
    {
        "match": {"userMessage": "broken"},
        "response": {"error": {"message": "It broke", "type": "server_error"}, "status": 500},
    },
    {"match": {"userMessage": "hang up"}, "response": {"content": ANSWER}, "chaos": {"disconnectRate": 1}},
    {"match": {"userMessage": "garble"}, "response": {"content": ANSWER}, "chaos": {"malformedRate": 1}},
    {"match": {"userMessage": "half"}, "response": {"content": ANSWER}, "latency": 1, "truncateAfterChunks": 3},
]
ENTRIES: dict[str, dict[str, Any]] = {
    "openai": {"base_url": "/v1"},
    "azure_openai": {"base_url": "", "options": {"api_version": "2025-04-01-preview"}},
    "openrouter": {"base_url": "/api/v1"},
    "vllm": {"base_url": "/v1"},
    "openai_compatible": {"base_url": "/v1"},
    "anthropic": {"base_url": ""},
    "google": {"base_url": "", "options": {"api_version": "v1beta"}},
}
BOTH_WAYS = pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])


@pytest.fixture(scope="module")
def simulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    missing = missing_programs()
    if missing and os.environ.get("CI"):
        pytest.fail(f"not installed: {', '.join(missing)}")
    if missing:
        pytest.skip(f"the simulator of providers needs {' and '.join(missing)}: install Node.js")
    with aimock(tmp_path_factory.mktemp("aimock"), FIXTURES) as address:
        yield address


@pytest.fixture(params=ENTRIES)
async def provider(request: pytest.FixtureRequest, simulator: str) -> AsyncIterator[Provider]:
    entry = {"type": request.param, "models": ["m"], "api_key_env": "KEY"} | ENTRIES[request.param]
    entry["base_url"] = simulator + entry["base_url"]
    async with new_http_client() as client:
        yield build_provider("it", ProviderEntry.model_validate(entry), http_client=client, environ={"KEY": "sk-any"})


def asking(text: str, **parts: Any) -> Call:
    """A call that the simulator knows by its text."""
    return a_call(model="some-model", messages=(Message(role=Role.USER, content=text),), **parts)


async def test_an_answer_comes_whole(provider: Provider) -> None:
    """Text, model and tokens."""
    answer = await answer_of(provider, asking("Why the moon?"))
    assert (answer.text, answer.model) == (ANSWER, "some-model")
    assert answer.usage == Usage(input_tokens=11, output_tokens=3)


async def test_an_answer_comes_in_pieces(provider: Provider) -> None:
    """They are the text, and the end says so."""
    *pieces, answer = await events_of(provider, asking("Why the moon?", stream=True))
    assert isinstance(answer, Answered)
    assert len(pieces) > 1
    assert "".join(piece.text for piece in pieces if isinstance(piece, Text)) == answer.text == ANSWER


@BOTH_WAYS
async def test_a_comparison_fits_its_schema(provider: Provider, stream: bool) -> None:
    """Asked for by the provider's own means."""
    answer = await answer_of(provider, asking("Please compare.", stream=stream, response_schema=COMPARISON_SCHEMA))
    assert isinstance(parse_comparison(answer.text), Comparison)


@BOTH_WAYS
@pytest.mark.parametrize(
    ("text", "category", "retryable"),
    [
        ("cut", F.TRUNCATED, False),
        ("slow down", F.RATE_LIMITED, True),
        ("broken", F.SERVER_ERROR, True),
        ("hang up", F.CONNECTION, True),
        ("garble", F.MALFORMED, True),
    ],
)
async def test_failures_are_told_apart(
    provider: Provider, text: str, category: F, retryable: bool, stream: bool
) -> None:
    """As the simulator has them, each ends in its category."""
    failed = await failure_of(provider, asking(text, stream=stream))
    assert (failed.problem.category, failed.problem.retryable) == (category, retryable)
    assert failed.problem.retry_after_seconds == (7 if category is F.RATE_LIMITED else None)


async def test_half_a_stream_is_no_answer(provider: Provider) -> None:
    """The simulator drops the connection after some pieces."""
    *pieces, failed = await events_of(provider, asking("half", stream=True))
    assert isinstance(failed, Failed)
    assert failed.problem.category in {F.CONNECTION, F.TRUNCATED}
    assert failed.possibly_billed
    assert ANSWER not in "".join(piece.text for piece in pieces if isinstance(piece, Text))
