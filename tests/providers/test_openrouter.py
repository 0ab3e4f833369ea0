"""OpenRouter: what it is told of us, its routing, and what a model is declared to do."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from connectors.providers.base import Failed, LimitedResource, RateLimit
from connectors.providers.errors import ProviderConfigurationError
from connectors.providers.registry import build_provider
from policy.catalogue import ProviderEntry
from policy.comparison import COMPARISON_SCHEMA, comparison_messages
from schemas.vocabulary import FailureCategory
from tests.providers.calls import QUESTION, a_call, failure_of
from tests.providers.chat_calls import KEY, asked, chat_provider
from tests.support.chat_server import ChatServer, chat_server, completion

AS_A_SCHEMA = {"response_schema": COMPARISON_SCHEMA, "response_schema_name": "comparison"}


@pytest.fixture
async def server() -> AsyncIterator[ChatServer]:
    async with chat_server() as running:
        yield running


async def test_key_and_site_are_sent(server: ChatServer) -> None:
    """The key as OpenAI has it; the site only where it is configured."""
    options = {"site_url": "https://example.org", "site_name": "Essays"}
    seen = await asked(chat_provider("openrouter", server, path="/api/v1", options=options), server)
    assert seen.path == "/api/v1/chat/completions"
    assert seen.headers["authorization"] == f"Bearer {KEY}"
    assert (seen.headers["http-referer"], seen.headers["x-title"]) == ("https://example.org", "Essays")
    nameless = await asked(chat_provider("openrouter", server, path="/api/v1"), server)
    assert not {"http-referer", "x-title"} & nameless.headers.keys()


async def test_prompts_are_never_cut(server: ChatServer) -> None:
    """Its compression of long prompts is switched off, unless the options say otherwise."""
    seen = await asked(chat_provider("openrouter", server), server)
    assert seen.body["plugins"] == [{"id": "context-compression", "enabled": False}]
    options = {"body": {"plugins": []}}
    assert (await asked(chat_provider("openrouter", server, options=options), server)).body["plugins"] == []


async def test_routing_is_passed_on(server: ChatServer) -> None:
    """The options' provider table is OpenRouter's provider object."""
    options = {"provider": {"order": ["one", "two"], "data_collection": "deny"}}
    seen = await asked(chat_provider("openrouter", server, options=options), server)
    assert seen.body["provider"] == {"order": ["one", "two"], "data_collection": "deny"}


async def test_a_schema_goes_only_to_providers_that_know_it(server: ChatServer) -> None:
    """With a schema the parameters are required of whoever serves the call, besides the routing that is configured."""
    options = {"provider": {"data_collection": "deny"}}
    seen = await asked(chat_provider("openrouter", server, options=options), server, **AS_A_SCHEMA)
    assert seen.body["provider"] == {"data_collection": "deny", "require_parameters": True}
    assert seen.body["response_format"]["json_schema"]["strict"] is True


BY_MODEL = {"structured_output": {"old/*": "json_object", "older/model": "prompt", "oldest/model": "none"}}


async def test_a_model_of_json_alone_gets_the_schema_in_words(server: ChatServer) -> None:
    """What it is declared to do is asked of it, and the schema stands in the system message."""
    provider = chat_provider("openrouter", server, options=BY_MODEL)
    messages = comparison_messages("Discuss.", "First essay.", "Second essay.")
    seen = await asked(provider, server, model="old/model", messages=messages, **AS_A_SCHEMA)
    assert seen.body["response_format"] == {"type": "json_object"}
    system, user = seen.body["messages"]
    assert system["content"].startswith(messages[0].content)
    assert '"minLength": 50' in system["content"]
    assert user["content"] == messages[1].content


async def test_a_model_of_words_alone(server: ChatServer) -> None:
    """Where nothing else is declared the schema is only told, in a system message put before the others."""
    provider = chat_provider("openrouter", server, options=BY_MODEL)
    seen = await asked(provider, server, model="older/model", **AS_A_SCHEMA)
    assert "response_format" not in seen.body
    assert [message["role"] for message in seen.body["messages"]] == ["system", "user"]
    assert seen.body["messages"][1]["content"] == QUESTION


async def test_a_model_that_cannot_is_not_called(server: ChatServer) -> None:
    """The call fails before it costs anything, and says what to declare."""
    provider = chat_provider("openrouter", server, options=BY_MODEL)
    failed = await failure_of(provider, a_call(model="oldest/model", **AS_A_SCHEMA))
    await provider.close()
    assert failed.problem.category is FailureCategory.INVALID_REQUEST
    assert "structured_output" in (failed.problem.remedy or "")
    assert server.asked == []


MODERATED = {"error": {"code": 403, "message": "Flagged", "metadata": {"reasons": ["violence"], "flagged_input": "x"}}}
NO_CREDITS = {"error": {"code": 402, "message": "Insufficient credits"}}
UPSTREAM_DOWN = {"error": {"code": 502, "message": "Provider returned error", "metadata": {"provider_name": "P"}}}
BROKEN_OFF: dict[str, Any] = completion("") | {
    "choices": [{"message": {"content": "Two"}, "finish_reason": "error", "error": {"code": 502, "message": "gone"}}]
}


@pytest.mark.parametrize(
    ("status", "reply", "category"),
    [
        (403, MODERATED, FailureCategory.CONTENT_FILTER),
        (402, NO_CREDITS, FailureCategory.QUOTA_EXHAUSTED),
        (502, UPSTREAM_DOWN, FailureCategory.SERVER_ERROR),
        (200, UPSTREAM_DOWN, FailureCategory.SERVER_ERROR),
        (200, BROKEN_OFF, FailureCategory.SERVER_ERROR),
    ],
)
async def test_its_errors(server: ChatServer, status: int, reply: dict[str, Any], category: FailureCategory) -> None:
    """Its own forms of failure, with the status or amid a 200, end in their categories."""
    server.status, server.reply = status, reply
    assert (await the_failure(server)).problem.category is category


async def test_limits_come_with_a_failure(server: ChatServer) -> None:
    """What the headers say of limits is in the outcome, also of a call that was refused."""
    server.status, server.reply = 429, {"error": {"code": 429, "message": "Rate limit exceeded: free-models-per-day"}}
    server.headers = {"X-RateLimit-Limit": "50", "X-RateLimit-Remaining": "0"}
    failed = await the_failure(server)
    assert failed.problem.category is FailureCategory.RATE_LIMITED
    assert failed.limits == (RateLimit(resource=LimitedResource.REQUESTS, limit=50, remaining=0),)


async def the_failure(server: ChatServer) -> Failed:
    provider = chat_provider("openrouter", server)
    failed = await failure_of(provider, a_call())
    await provider.close()
    return failed


def test_it_needs_a_key() -> None:
    """OPENROUTER_API_KEY, unless another variable is named."""
    with pytest.raises(ProviderConfigurationError, match="OPENROUTER_API_KEY"):
        build_provider("remote", ProviderEntry(type="openrouter", models=["m"]), environ={"OPENAI_API_KEY": "x"})
